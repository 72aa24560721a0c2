"""Watching paths on disk: notifications, a slow poll, and a debounce that decides when to act."""

"""Fair shares of what is kept: where there is no room, the largest group gives up its oldest."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")


class FairShares(Generic[K]):
    """Keys by group, the oldest first. All it does takes the same time, however many there are."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[K, None]] = {}
        self._with: dict[int, dict[str, None]] = {}
        """The groups by how many keys they have, so that the largest one is found at once."""
        self._most = 0

    def add(self, group: str, key: K) -> None:
        """Add a key to a group, as its newest."""
        share = self._groups.setdefault(group, {})
        share[key] = None
        self._moved(group, len(share) - 1, len(share))

    def remove(self, group: str, key: K) -> None:
        """Take a key out of its group."""
        share = self._groups[group]
        del share[key]
        self._moved(group, len(share) + 1, len(share))
        if not share:
            del self._groups[group]

    def largest(self) -> tuple[str, K]:
        """Return the group that has the most keys, and its oldest key. There must be one."""
        group = next(iter(self._with[self._most]))
        return group, next(iter(self._groups[group]))

    def _moved(self, group: str, before: int, now: int) -> None:
        if before:
            held = self._with[before]
            del held[group]
            if not held:
                del self._with[before]
        if now:
            self._with.setdefault(now, {})[group] = None
        # A group grows and shrinks by one key, so the largest size does, too.
        self._most = max(self._most, now)
        if self._most not in self._with:
            self._most = now

"""Measurements. Each one measures its own baseline in the same run: only ratios count."""

"""How many attempts are started in a turn of the loop that have steps to take in the next one.

How long such steps take is known when they are over. So the number is halved when the loop was away for
too long, and doubled again when it was not: additive steps would be slow to find a number between 16 and
256, and TCP's slow start (RFC 5681) does it the same way.
"""

from __future__ import annotations

import time

LEAST = 16
TOO_LONG = 0.008
"""Seconds between two turns of the pump after which fewer are started."""


class Pace:
    """Adapts the number of starts to what they cost."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._starts = most
        self._left_at: float | None = None

    def starts(self) -> int:
        """Return how many to start in this turn."""
        left_at = self._left_at
        if left_at is not None:
            if time.perf_counter() - left_at > TOO_LONG:
                self._starts = max(LEAST, self._starts // 2)
            else:
                self._starts = min(self._most, self._starts * 2)
        return self._starts

    def turn_over(self, *, full: bool) -> None:
        """The pump has had its turn; only after a full one the time until the next tells anything."""
        self._left_at = time.perf_counter() if full else None

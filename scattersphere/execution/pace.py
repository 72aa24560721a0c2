"""How many attempts are started in a turn of the loop that have steps to take in the next one.

How long such steps take is known when they are over. So the number is halved when the loop was away for
too long, and doubled again when it was not: additive steps would be slow to find a number between 16 and
256, and TCP's slow start (RFC 5681) does it the same way.

A loop may also be slow by itself: a host whose own turns take 20 milliseconds would wait long for 10,000
starts. So it is kept in mind how long the loop was away when the fewest were started, and where more of them do
not make it much longer, it is not we who hold it.
"""

from __future__ import annotations

import time

LEAST = 16
TOO_LONG = 0.008
"""Seconds between two turns of the pump after which fewer are started."""
SHARE = 1.25
"""How much longer a slow loop may be away because of what we start: a fifth of the time is ours then."""
MOST_IN_A_SLOW_LOOP = 512


class Pace:
    """Adapts the number of starts to what they cost."""

    def __init__(self, most: int) -> None:
        self._least = min(LEAST, most)
        self._most = most
        self._starts = most
        self._left_at: float | None = None
        self._slow = 0.0
        """Seconds that the loop was away when the fewest were started; 0 as long as it was quick then."""

    def starts(self) -> int:
        """Return how many to start in this turn."""
        if self._left_at is not None:
            self._adapt(time.perf_counter() - self._left_at)
        return self._starts

    def _adapt(self, away: float) -> None:
        if away <= TOO_LONG:
            self._slow = 0.0
            self._starts = min(self._most, self._starts * 2)
            return
        if self._starts <= self._least:
            self._slow = away
        if self._slow / SHARE <= away <= self._slow * SHARE:
            self._starts = min(MOST_IN_A_SLOW_LOOP, self._starts * 2)
        else:  # by us, or it is as slow as it was no longer: then it is found out anew
            self._starts = max(self._least, self._starts // 2)

    def turn_over(self, *, full: bool) -> None:
        """The pump has had its turn; only after a full one the time until the next tells anything."""
        self._left_at = time.perf_counter() if full else None

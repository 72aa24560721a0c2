"""The time on the wall, as the clock of a loop goes on with it.

A loop's clock is never set, so that it orders what happens; when it was, in UTC, the wall's clock says, which is set
now and then. So a stream (the events of a run, with its lines and times; the Server's own events) looks at the wall
once, and tells the times of everything by the loop's clock from there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = 0.001
"""Seconds by which two looks at the wall may differ without its having been set: between two clocks of one look another
thread may have its turn."""


class WallClock:
    """Seconds since 1970 by the clock of a loop, which may be virtual. For any thread, but one that looks again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch = time.time() - clock()
        self._ahead = _wall_ahead()
        self._latest = float("-inf")

    def epoch(self) -> float:
        """Return what is to be added to the loop's clock from now on: as before, unless the wall was set."""
        step = _wall_ahead() - self._ahead
        if abs(step) > STEP:
            self._epoch += step
            self._ahead += step
        return self._epoch

    def now(self) -> float:
        """Return the time on the wall, for one stream: never before what was returned last."""
        self._latest = max(self._latest, self.epoch() + self._clock())
        return self._latest


def _wall_ahead() -> float:
    """Return by how much the wall is ahead of the machine's clock that nobody sets."""
    # Real time in both, also where the loop's is virtual: it is only asked whether the wall was set.
    return time.time() - time.monotonic()

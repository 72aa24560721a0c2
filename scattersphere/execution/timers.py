"""All the deadlines of an executor behind one alarm of the loop.

Two structures, because they are used differently: a heap for the few (retries, graces, run
timeouts), and for attempt timeouts one insertion-ordered dict for each duration. Attempts with
the same timeout expire in the order in which they started, so that the first entry of each dict is
the next one due, and starting and ending cost O(1) (a timer of the loop for each attempt costs
0.7 of a bare task).

A deadline that is not needed any more goes: at once out of its dict, and out of the heap as soon as the forgotten ones
are the larger part of it. Else the timeouts of runs that have long ended would stay for hours.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import attrs

FEW = 64
"""Forgotten entries that a heap may have whatever its size."""
FAREST = 1e9
"""Seconds, about thirty years: what is due later is due then, so that no number of a user's overflows a clock."""


def within(seconds: float) -> float:
    """Return a number of seconds that can be added to a clock; what is no number is as far as can be."""
    return min(FAREST, seconds)


@attrs.define(eq=False)
class Timer:
    """A callback that is due at `when`; `cancel()` forgets it."""

    when: float
    callback: Callable[[], None] | None
    _queue: Timers

    def cancel(self) -> None:
        """Forget the callback."""
        if self.callback is not None:
            self.callback = None
            self._queue.forgotten()


class Timers:
    """A pure queue of deadlines: `due(now)` yields what to call, `next` says when to look again."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._forgotten = 0
        """Entries of the heap whose timer was cancelled."""
        self._lanes: dict[float, dict[Any, float]] = {}
        self.changed: bool = False
        """Whether a deadline was added since the driver last set its alarm."""

    def __len__(self) -> int:
        """Count the entries of the heap and of the dicts, forgotten ones too."""
        return len(self._heap) + sum(map(len, self._lanes.values()))

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called at `when`."""
        self.changed = True
        timer = Timer(when, callback, self)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def forgotten(self) -> None:
        """Take note that a timer was cancelled; where most were, put the heap in order without them."""
        self._forgotten += 1
        if self._forgotten > max(FEW, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def _pop(self) -> Callable[[], None] | None:
        """Take out the first entry of the heap; return its callback, None of one that was forgotten."""
        timer = heapq.heappop(self._heap)[2]
        callback, timer.callback = timer.callback, None  # to cancel it later is nothing to be counted
        self._forgotten -= callback is None
        return callback

    def expire(self, key: Any, now: float, duration: float) -> None:
        """Let `key` expire `duration` seconds from now, unless `forget` comes first."""
        lane = self._lanes.get(duration)
        if lane is None:
            self.changed = True  # a lane that exists has an earlier deadline already
            lane = self._lanes[duration] = {}
        lane[key] = now + within(duration)

    def forget(self, key: Any, duration: float) -> float | None:
        """Drop `key`; return its deadline, or None where it has expired already."""
        lane = self._lanes.get(duration)
        if lane is None:
            return None
        return lane.pop(key, None)

    @property
    def next(self) -> float | None:
        """The next deadline, or None.

        Lanes that are empty end here and not where they become empty: in a chain of tasks that would be
        after each, and each would need an alarm of its own. As long as a lane is kept, the alarm that was
        set for its last first entry comes early enough for all that follow.
        """
        while self._heap and self._heap[0][2].callback is None:
            self._pop()
        for duration in [duration for duration, lane in self._lanes.items() if not lane]:
            del self._lanes[duration]
        dues = [next(iter(lane.values())) for lane in self._lanes.values()]
        if self._heap:
            dues.append(self._heap[0][0])
        return min(dues, default=None)

    def due(self, now: float, limit: int | None = None) -> tuple[list[Callable[[], None]], list[Any]]:
        """Take out what is due, at most `limit` of each: the callbacks, and the keys that expired."""
        callbacks: list[Callable[[], None]] = []
        while self._heap and self._heap[0][0] <= now and len(callbacks) != limit:
            callback = self._pop()
            if callback is not None:
                callbacks.append(callback)
        expired: list[Any] = []
        for duration, lane in list(self._lanes.items()):
            while lane and len(expired) != limit:
                key, when = next(iter(lane.items()))
                if when > now:
                    break
                del lane[key]
                expired.append(key)
            if not lane:
                del self._lanes[duration]
        return callbacks, expired

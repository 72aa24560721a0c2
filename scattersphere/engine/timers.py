"""The engine's time: its deadlines behind one alarm of the loop, how much it does in a turn of that, the wall's clock.

For deadlines there are two structures, because they are used differently: a heap for the few (retries, run
timeouts), and for the timeouts and graces of attempts one insertion-ordered dict for each duration. Attempts with
the same timeout expire in the order in which they started, so that the first entry of each dict is
the next one due, and starting and ending cost O(1) (a timer of the loop for each attempt costs
0.7 of a bare task).

A deadline that is not needed any more goes: at once out of its dict, and out of the heap as soon as the forgotten ones
are the larger part of it. Else the timeouts of runs that have long ended would stay for hours.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE = 0.002
"""Seconds of the engine's own work after which the loop gets a turn (docs/explanation/performance.md). Real
time, also where the loop's clock is virtual: it is the processor that is shared."""
DUE_AT_ONCE = 64
"""Deadlines that are met between two looks at the clock."""

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
    """A pure queue of deadlines: `meet(now, ...)` calls what is due, `next` says when to look again."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._forgotten = 0
        """Entries of the heap whose timer was cancelled."""
        self._lanes: dict[float, dict[object, float]] = {}
        self._firsts: list[tuple[float, float]] = []
        """A heap with one entry for each lane: no deadline of it is earlier, and its duration.

        Where each caller has a duration of its own, there are as many lanes as keys: then they cannot all be looked at.
        """
        self._lanes_until_sweep = FEW
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

    def expire(self, key: object, now: float, duration: float) -> None:
        """Let `key` expire `duration` seconds from now, unless `forget` comes first."""
        lane = self._lanes.get(duration)
        if lane is None:
            self.changed = True  # a lane that exists has an earlier deadline already
            lane = self._new_lane(duration)
            heapq.heappush(self._firsts, (now + within(duration), duration))
        elif key in lane:  # it comes last now: each lane is in the order of its deadlines
            del lane[key]
        lane[key] = now + within(duration)

    def _new_lane(self, duration: float) -> dict[object, float]:
        """Make a lane; where there have come to be twice as many, drop those that are empty."""
        if len(self._lanes) >= self._lanes_until_sweep:
            self._lanes = {each: lane for each, lane in self._lanes.items() if lane}
            self._firsts = [entry for entry in self._firsts if entry[1] in self._lanes]
            heapq.heapify(self._firsts)
            self._lanes_until_sweep = max(FEW, 2 * len(self._lanes))
        lane = self._lanes[duration] = {}
        return lane

    def forget(self, key: object, duration: float) -> float | None:
        """Drop `key`; return its deadline, or None where it has expired already."""
        lane = self._lanes.get(duration)
        if lane is None:
            return None
        return lane.pop(key, None)

    @property
    def next(self) -> float | None:
        """The next deadline, or None.

        Lanes that are empty end here, when it is their turn, and not where they become empty: in a chain of tasks
        that would be after each, and each would need an alarm of its own. As long as a lane is kept, the alarm that
        was set for its last first entry comes early enough for all that follow.
        """
        while self._heap and self._heap[0][2].callback is None:
            self._pop()
        first = self._first_of_lanes()
        if not self._heap:
            return first
        return self._heap[0][0] if first is None else min(first, self._heap[0][0])

    def _first_of_lanes(self) -> float | None:
        """Return the next deadline of all lanes, or None; what was forgotten since the last look is passed over."""
        firsts = self._firsts
        while firsts:
            when, duration = firsts[0]
            due = next(iter(self._lanes[duration].values()), None)
            if due == when:
                return when
            if due is None:
                heapq.heappop(firsts)
                del self._lanes[duration]
            else:
                heapq.heapreplace(firsts, (due, duration))
        return None

    def meet(self, now: float, expired: Callable[[Any], None], limit: int | None = None) -> bool:
        """Call what is due, and `expired` with each key whose time has come; return whether there was anything.

        At most `limit` of each. Each is taken out when it is its turn, and not before: what is called until then may
        cancel it, forget it or give it another deadline.
        """
        called = 0
        while self._heap and self._heap[0][0] <= now and called != limit:
            callback = self._pop()
            if callback is not None:
                called += 1
                callback()
        due = self._due(now, limit)
        for duration, key, when in due:
            lane = self._lanes.get(duration)
            if lane is not None and lane.get(key) == when:
                del lane[key]
                expired(key)
        return bool(called or due)

    def _due(self, now: float, limit: int | None) -> list[tuple[float, object, float]]:
        """Return at most `limit` keys whose time has come, each with its lane and its deadline."""
        # In one pass: each look at a dict's first entry goes over all that were taken out before it.
        due: list[tuple[float, object, float]] = []
        looked_at: list[tuple[float, float]] = []
        while len(due) != limit:
            first = self._first_of_lanes()
            if first is None or first > now:
                break
            looked_at.append(heapq.heappop(self._firsts))
            duration = looked_at[-1][1]
            for key, when in self._lanes[duration].items():
                if when > now or len(due) == limit:
                    break
                due.append((duration, key, when))
        for entry in looked_at:
            heapq.heappush(self._firsts, entry)
        return due


class AlarmClock(Protocol):
    """What deadlines need of the loop."""

    def clock(self) -> float:
        """Return monotonic seconds."""
        ...

    def set_alarm(self, when: float | None) -> None:
        """Have `Deadlines.meet` called at `when`; replaces the last one."""


class Deadlines:
    """Has the loop call back at the next deadline of an executor, and meets those that have come.

    `guard` does something on behalf of a run; `expired` is called with each key of `Timers.expire` whose time has come.
    """

    def __init__(self, guard: Callable[..., None], expired: Callable[[Any], None]) -> None:
        self.timers: Timers = Timers()
        self._guard = guard
        self._expired = expired
        self._loop: AlarmClock | None = None
        self._alarm: float | None = None

    def open(self, loop: AlarmClock) -> None:
        """Take up the loop whose clock it is."""
        self._loop, self._clock = loop, loop.clock

    def close(self) -> None:
        """Let go of the loop."""
        self._loop = None

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called at `when`; the timer that is returned can be cancelled."""
        timer = self.timers.at(when, callback)
        if self._alarm is None or when < self._alarm:  # else the alarm that is set comes early enough
            self.set_alarm()
        return timer

    def call_later(self, run: object, seconds: float, action: Callable[[], object]) -> Timer:
        """Do something on behalf of a run in so many seconds."""
        return self.call_at(self._clock() + within(seconds), lambda: self._guard(run, action))

    def set_alarm(self) -> None:
        """Have the loop call back at the next deadline."""
        self.timers.changed = False
        due = self.timers.next
        if due != self._alarm and self._loop is not None:
            self._alarm = due
            self._loop.set_alarm(due)

    def meet(self) -> None:
        """Meet the deadlines that have come, for a slice. What is left is due at once: in the next turn."""
        self._alarm = None
        end = time.perf_counter() + SLICE
        now = self._clock()
        while self.timers.meet(now, self._expired, DUE_AT_ONCE) and time.perf_counter() < end:
            pass


# ---- how much is done in a turn of the loop

LEAST = 16
TOO_LONG = 0.008
"""Seconds between two turns of the pump after which fewer are started."""
SHARE = 1.25
"""How much longer a slow loop may be away because of what we start: a fifth of the time is ours then."""
MOST_IN_A_SLOW_LOOP = 512


class AdaptiveBatchSize:
    """How many attempts are started in a turn of the loop that have steps to take in the next one.

    How long such steps take is known when they are over. So the number is halved when the loop was away for
    too long, and doubled again when it was not: additive steps would be slow to find a number between 16 and
    256, and TCP's slow start (RFC 5681) does it the same way.

    A loop may also be slow by itself: a host whose own turns take 20 milliseconds would wait long for 10,000
    starts. So it is kept in mind how long the loop was away when the fewest were started, and where more of them do
    not make it much longer, it is not we who hold it.
    """

    def __init__(self, most: int) -> None:
        self._least = min(LEAST, most)
        self._most = most
        self.size: int = most
        """How many to start in this turn."""
        self.left_at: float | None = None
        """When the pump has left for a turn of the loop, if its own turn was full."""
        self._slow = 0.0
        """Seconds that the loop was away when the fewest were started; 0 as long as it was quick then."""

    def adapt(self) -> None:
        """Draw the conclusion from how long the loop was away since the last full turn."""
        if self.left_at is None:
            return
        away, self.left_at = time.perf_counter() - self.left_at, None
        if away <= TOO_LONG:
            self._slow = 0.0
            self.size = min(self._most, self.size * 2)
            return
        if self.size <= self._least:
            self._slow = away
        if self._slow / SHARE <= away <= self._slow * SHARE:
            self.size = min(MOST_IN_A_SLOW_LOOP, self.size * 2)
        else:  # by us, or it is as slow as it was no longer: then it is found out anew
            self.size = max(self._least, self.size // 2)


class WorkBudget:
    """Does what it is given until a turn's share of time is spent; keeps the rest in order, for later turns.

    It is for work that comes in bursts and is dear: to put a failure into words costs a hundred times what a success
    costs. If a thousand bodies fail in one turn, because the connection that they share is lost, the loop is not held
    for all of them.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        """Seconds of each turn."""
        self._spent = 0.0
        self.waiting: deque[Callable[[], None]] = deque()
        """What is to be done in later turns."""

    def do(self, action: Callable[[], None]) -> bool:
        """Do it now, or keep it where others wait or the share is spent. Return whether it was done."""
        if self.waiting or self._spent > self._share:
            self.waiting.append(action)
            return False
        self._take(action)
        return True

    def later(self, action: Callable[[], None]) -> None:
        """Do it in a later turn."""
        self.waiting.append(action)

    def in_pieces(self, pieces: Iterator[None]) -> None:
        """Take one piece after the other, as the turns to come have time for them."""

        def take_one() -> None:
            for _ in pieces:
                self.later(take_one)
                return

        self.later(take_one)

    def new_turn(self) -> bool:
        """Another turn has come: go on with what waits. Return whether there is more."""
        self._spent = 0.0
        while self.waiting and self._spent <= self._share:
            self._take(self.waiting.popleft())
        return bool(self.waiting)

    def clear(self) -> None:
        """Forget what waits."""
        self.waiting.clear()

    def _take(self, action: Callable[[], None]) -> None:
        before = time.perf_counter()
        action()
        self._spent += time.perf_counter() - before


# ---- the time on the wall

STEP = 0.001
"""Seconds by which two looks at the wall may differ without its having been set: between two clocks of one look another
thread may have its turn."""


class WallClock:
    """Seconds since 1970 by the clock of a loop, which may be virtual. For any thread, but one that looks again.

    A loop's clock is never set, so that it orders what happens; when it was, in UTC, the wall's clock says, which is
    set now and then. So a stream (the events of a run, with its lines and times; the Server's own events) looks at the
    wall once, and tells the times of everything by the loop's clock from there.
    """

    def __init__(self, clock: Callable[[], float], epoch: float | None = None) -> None:
        self._clock = clock
        self._epoch = time.time() - clock() if epoch is None else epoch
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

"""The driver of schedules: one heap for all of them, one timer, and the wall clock.

It sleeps on the monotonic clock, half a minute at most, and then looks at the wall anew: so a laptop that slept and a
clock that was set are noticed. What is due when is decided by `occurrences`, in UTC.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs

from scattersphere.errors import BusyError, ClosedError, ConflictError, ScattersphereError, UnresolvedError
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import MissedPolicy
from scattersphere.schedules.occurrences import (
    ScheduledFor,
    expire,
    fill_scheduled,
    missed_times,
    started,
    take_due,
)
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scattersphere.engine.run import Run
    from scattersphere.schedules.backfill import Backfill
    from scattersphere.schedules.occurrences import MissedTimes, ScheduleState
    from scattersphere.schedules.schedule import Schedule

LOOK = 30.0
"""Seconds after which the wall is looked at again: suspended machines and clocks that are set tell nobody."""
AT_A_TIME = 10
"""Live runs of one schedule while it makes up for missed times."""
SLICE = 0.005
"""Seconds of work before the loop has a turn."""
REASON = 500
"""Characters of a reason; the words for a job that lacks code may be many lines."""
WENT_BACK = 60.0
"""Seconds by which the wall clock must go back to be worth a warning."""
_log = logging.getLogger("scattersphere.schedules")


class Cancellable(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None:
        """Call no more."""


class Start(Protocol):
    """Starts a run of a job now, or raises why not."""

    def __call__(
        self,
        job: str,
        params: Mapping[str, object],
        key: str | None,
        scheduled: ScheduledFor,
        state: ScheduleState | None,
    ) -> Run:
        """Return the run; with a key that is known, the one that it stands for.

        `state` is what is remembered of the schedule once there is the run: to be stored together with it.
        """
        ...


@attrs.frozen
class Clocks:
    """The clocks of the loop on which a Server lives."""

    monotonic: Callable[[], float]
    wall: Callable[[], dt.datetime]
    """The time now, in UTC, whatever it was before."""
    call_at: Callable[[float, Callable[[], None]], Cancellable]
    """Call back at a monotonic time."""
    look: float = LOOK
    """Seconds after which the wall must be looked at again; infinite where it cannot be set."""


class ScheduleDriver:
    """Looks at schedules when something of them is due, and starts their runs with `start`.

    `tell` adds an event to the Server's stream. What it fires is given to it by `push`, again after each change.
    """

    def __init__(self, start: Start, tell: Callable[..., None]) -> None:
        self.start = start
        self._tell = tell
        self.clocks: Clocks | None = None
        self.is_stopped: bool = False
        self.remember: Callable[[ScheduleState, dt.datetime | None], None] | None = None
        """Called with each new state, to store it, and with since when the schedule is not defined any more."""
        self._heap: list[tuple[float, int, int, Schedule]] = []
        self._most = 64
        """With more entries the stale ones among them are taken out."""
        self._order = itertools.count()
        self._timer: Cancellable | None = None
        self._timer_at = 0.0
        self._seen = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._lag = 0.0
        self.waiting: dict[str, set[Schedule]] = {}
        """By job the schedules that wait for the end of a run, or for code."""

    def stop(self) -> None:
        """Fire no more."""
        self.is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> dt.datetime:
        """Return the time on the wall, in UTC."""
        if self.clocks is None:
            return dt.datetime.now(dt.UTC)
        return self.clocks.wall()

    # ---- time

    def look(self) -> None:
        """Look at the wall, and fire what is due: for one slice of time."""
        self._timer = None
        if self.is_stopped:
            return
        began = time.perf_counter()
        now = self.now()
        self._notice_step(now)
        stamp = now.timestamp()
        while self._heap and self._heap[0][0] <= stamp:
            _, _, token, schedule = heapq.heappop(self._heap)
            if token != schedule.token:
                continue
            try:
                self._advance(schedule, now)
            except Exception:  # noqa: BLE001 - a defect of one schedule ends no other, and not the loop's alarm
                _log.exception(
                    "schedule %s of %s: looked at again in %g s", schedule.name, schedule.job, LOOK
                )
                schedule.token += 1
                heapq.heappush(self._heap, (stamp + LOOK, next(self._order), schedule.token, schedule))
            if time.perf_counter() - began > SLICE:
                break
        self.arm()

    def _notice_step(self, now: dt.datetime) -> None:
        back = (self._seen - now).total_seconds()
        if back > WENT_BACK:
            _log.warning(
                "the clock was put back by %.0f s: no schedule fires until it is %s again", back, self._seen
            )
        self._seen = now

    def _advance(self, schedule: Schedule, now: dt.datetime) -> None:
        if schedule.fires:
            self.take_due(schedule, now)
            schedule.state, gone = expire(schedule.table, schedule.state, now)
            self.note(schedule, gone)
            self._start_pending(schedule, now)
        for backfill in list(schedule.backfills):
            self._go_on(schedule, backfill)
        if not self.is_stopped:
            self.push(schedule)

    def take_due(self, schedule: Schedule, now: dt.datetime, found: str = "found") -> None:
        """Have what a schedule should have started up to now wait for its start; what is too late is missed."""
        schedule.state, gone = take_due(schedule.table, schedule.state, now, found)
        self.note(schedule, gone)

    def _start_pending(self, schedule: Schedule, now: dt.datetime) -> None:
        table = schedule.table
        for nominal in schedule.state.pending:
            if table.missed is MissedPolicy.ALL and len(schedule.live) >= AT_A_TIME:
                break
            refused = self._fire(schedule, nominal, started(schedule.state, nominal))
            if refused is None:
                self._lag = max(0.0, (now - table.due(nominal)).total_seconds())
                schedule.state = started(schedule.state, nominal)
                self.say(
                    EventKind.SCHEDULE_FIRED, schedule, f"for {show_instant(nominal)}", run=schedule.last_run
                )
            elif self.is_stopped:
                return
            elif refused.for_good:
                left = tuple(time for time in schedule.state.pending if time != nominal)
                schedule.state = attrs.evolve(schedule.state, pending=left, missed=schedule.state.missed + 1)
                self.note(schedule, missed_times([nominal], refused.words))
            else:
                schedule.state = attrs.evolve(schedule.state, refused=refused.words)
                schedule.state, gone = expire(table, schedule.state, now)
                self.note(schedule, gone)
                break

    def _fire(self, schedule: Schedule, nominal: dt.datetime, state: ScheduleState | None) -> _Refusal | None:
        """Start the run for a nominal time, or return why not; `state` is that of then, None for a backfill."""
        table = schedule.table
        try:
            params = fill_scheduled(schedule.definition.params, table, nominal)
            scheduled = ScheduledFor(schedule.name, nominal, schedule.definition.zone, backfill=state is None)
            run = self.start(schedule.job, params, table.key(nominal), scheduled, state)
        except ClosedError as error:
            self.is_stopped = True
            return _Refusal(str(error), error)
        except UnresolvedError as error:
            # The problems may name bundles that not everybody sees who sees the event.
            count = len(error.problems)
            words = f"it lacks code ({count} problem{'' if count == 1 else 's'}; see `unresolved`)"
            return _Refusal(words, error)
        except ScattersphereError as error:
            return _Refusal(" ".join(str(error).split())[:REASON], error)
        except Exception as error:  # noqa: BLE001 - a defect of one job ends no other's schedule
            _log.exception("schedule %s of %s could not be started", schedule.name, schedule.job)
            return _Refusal(f"{type(error).__name__}: {error}", error)
        schedule.last_run = run.id
        if not run.state.ended:
            schedule.live.add(run.id)
        return None

    def _go_on(self, schedule: Schedule, backfill: Backfill) -> None:
        """Start what a backfill may start now."""
        while (nominal := backfill.take()) is not None:
            refused = self._fire(schedule, nominal, None)
            if refused is None:
                run = schedule.last_run
                backfill.started(nominal, run, live=run in schedule.live)
            elif refused.is_busy:
                backfill.put_back(nominal)
                break
            else:
                backfill.refuse(nominal, refused.words)
        if backfill.ended and backfill in schedule.backfills:
            schedule.backfills.remove(backfill)

    def try_again(self, job: str | None = None) -> None:
        """Something has changed that may have refused runs: code has come, a run has ended."""
        jobs = list(self.waiting) if job is None else [job]
        found = [schedule for name in jobs for schedule in self.waiting.get(name, ())]
        for schedule in found:
            self.push(schedule, at=0.0)
        if found:
            self.arm()

    # ---- the heap

    def push(self, schedule: Schedule, *, at: float | None = None) -> None:
        """Have a schedule looked at when something of it is due; `at` names another time on the wall."""
        schedule.token += 1
        state, table = schedule.state, schedule.table
        if self.remember is not None and state is not schedule.stored and not self.is_stopped:
            schedule.stored = state
            self.remember(state, None)
        waits = bool(schedule.backfills) or (schedule.fires and bool(state.pending))
        self.wait(schedule, waits=waits)
        if self.clocks is None or self.is_stopped:
            return
        when = [] if at is None else [at]
        # Found at that look, where there is one: for a rare expression it takes a millisecond.
        schedule.upcoming = None
        if schedule.fires and at is None:
            try:
                schedule.upcoming = table.next(state.last)
            except Exception:  # noqa: BLE001 - a trigger of the host's: its defect stops nothing else
                _log.exception("the trigger of schedule %s of %s has failed", schedule.name, schedule.job)
                when.append(self.now().timestamp() + LOOK)
            if schedule.upcoming is not None:
                when.append(table.due(schedule.upcoming).timestamp())
        if waits:
            now = self.now().timestamp()
            when.append(now + LOOK)
            if state.pending and state.refused:
                first = state.pending[0]
                when.append(table.due(first).timestamp() + table.tried_for(first) + 0.001)
        if when:
            heapq.heappush(self._heap, (min(when), next(self._order), schedule.token, schedule))
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if entry[2] == entry[3].token]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + 64

    def wait(self, schedule: Schedule, *, waits: bool) -> None:
        """Note whether a schedule waits for the end of a run, or for code."""
        job = schedule.job
        if waits:
            self.waiting.setdefault(job, set()).add(schedule)
        elif job in self.waiting:
            self.waiting[job].discard(schedule)
            if not self.waiting[job]:
                del self.waiting[job]

    def arm(self) -> None:
        """Set the one timer: to when the first of the heap is due, and never further off than a look at the wall."""
        clocks, heap = self.clocks, self._heap
        if clocks is None or self.is_stopped or not heap:
            return
        delay = heap[0][0] - clocks.wall().timestamp()
        # Not due yet by less than the clocks can tell apart: a thousandth of a second later it is.
        at = clocks.monotonic() + (0.0 if delay <= 0 else min(max(delay, 0.001), clocks.look))
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = clocks.call_at(at, self.look), at

    # ---- what is told

    def note(self, schedule: Schedule, gone: Iterable[MissedTimes]) -> None:
        """Tell of times that are missed."""
        for missed in gone:
            self.say(EventKind.SCHEDULE_MISSED, schedule, str(missed))
            extra = {"job": schedule.job, "schedule": schedule.name}
            _log.warning("schedule %s of %s: %s", schedule.name, schedule.job, missed, extra=extra)

    def say(self, kind: EventKind, schedule: Schedule, message: str, *, run: int | None = None) -> None:
        """Add an event of a schedule to the Server's stream."""
        self._tell(kind, job=schedule.job, schedule=schedule.name, message=message, run=run)

    def lag(self) -> float:
        """Return by how many seconds the newest start was late, or what waits to be started is by now."""
        now = self.now()
        late = [
            (now - schedule.table.due(schedule.state.pending[0])).total_seconds()
            for schedules in self.waiting.values()
            for schedule in schedules
            if schedule.state.pending
        ]
        return round(max([self._lag, *late]), 3)


@attrs.frozen
class _Refusal:
    """Why a run was not started."""

    words: str
    error: Exception

    @property
    def is_busy(self) -> bool:
        """Whether it may be started when some run has ended."""
        return isinstance(self.error, BusyError | ClosedError)

    @property
    def for_good(self) -> bool:
        """Whether its key stands for another run, with other parameters: it was started before."""
        return type(self.error) is ConflictError

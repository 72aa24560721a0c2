"""The driver of schedules: one heap for all of them, one timer, and the clock on the wall.

It sleeps on the monotonic clock, half a minute at most, and then looks at the wall anew: so a laptop that slept and a
clock that was set are noticed. What is due when is decided by `occurrences`, in UTC.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from scattersphere._lifecycle import ForkGuard
from scattersphere._text import did_you_mean
from scattersphere.errors import (
    BusyError,
    ClosedError,
    ConflictError,
    NoSuchScheduleError,
    ScattersphereError,
    UnresolvedError,
)
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import MissedPolicy
from scattersphere.schedules.backfill import Backfill
from scattersphere.schedules.occurrences import (
    ScheduledFor,
    ScheduleState,
    expire,
    fill_scheduled,
    missed_times,
    started,
    take_due,
    timetable_of,
    timing_of,
)
from scattersphere.schedules.schedule import Schedule
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    from scattersphere.abc.triggers import Trigger
    from scattersphere.engine.run import Run
    from scattersphere.model.schedules import ScheduleDefinition
    from scattersphere.schedules.occurrences import MissedTimes

LOOK = 30.0
"""Seconds after which the wall is looked at again: suspended machines and clocks that are set tell nobody."""
AT_A_TIME = 10
"""Live runs of one schedule while it makes up for missed times."""
SLICE = 0.005
"""Seconds of work before the loop has a turn."""
PARKED = 10_000
"""Schedules that are no longer defined and whose state (paused, counts) is kept for when they are again."""
REASON = 500
"""Characters of a reason; the words for a job that lacks code may be many lines."""
WENT_BACK = 60.0
"""Seconds by which the wall clock must go back to be worth a warning."""
_log = logging.getLogger("scattersphere.schedules")

Key = tuple[str, str]
"""A job, and the name of one of its schedules."""


class Cancellable(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None:
        """Call no more."""


class Start(Protocol):
    """Starts a run of a job now, or raises why not."""

    def __call__(
        self,
        job: str,
        params: Mapping[str, Any],
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


class Scheduler(ForkGuard, Mapping[Key, Schedule]):
    """Fires the schedules of a Server's jobs.

    `start` starts a run; `tell` adds an event to the Server's stream; `check` raises where a request comes from another
    thread or loop. `missed` is the policy of schedules that name none. Where `fires` is false nothing is started by
    itself.
    """

    def __init__(
        self,
        start: Start,
        tell: Callable[..., None],
        *,
        fires: bool = True,
        check: Callable[[], None] = lambda: None,
        missed: MissedPolicy = MissedPolicy.SKIP,
    ) -> None:
        self._start = start
        self._tell = tell
        self._check = check
        self.fires: bool = fires
        self._missed = missed
        self._clocks: Clocks | None = None
        self._stopped = False
        self._schedules: dict[Key, Schedule] = {}
        self._own: dict[str, dict[str, tuple[ScheduleDefinition, Trigger]]] = {}
        """By job and name those with a trigger of the host's: they are no part of any definition."""
        self.by_job: dict[str, dict[str, Schedule]] = {}
        """The jobs that have schedules, and these by their names."""
        self.remember: Callable[[ScheduleState, dt.datetime | None], None] | None = None
        """Called with each new state, to store it, and with since when the schedule is not defined any more."""
        self.started_before: Callable[[str, Iterable[str]], Awaitable[dict[str, int]]] | None = None
        """Where starts are stored: returns which keys of a job stand for runs, also for such as are kept no more."""
        self.durable: Callable[[Run], Awaitable[None]] | None = None
        """Waits until a run is stored."""
        self._parked: OrderedDict[Key, ScheduleState] = OrderedDict()
        self._restored: dict[Key, ScheduleState] = {}
        self._live: dict[str, dict[str, set[int]]] = {}
        """By job and name the runs that have not ended, also of an earlier life and of what is no longer defined."""
        self._early: set[Schedule] = set()
        """Defined, and not restored, before there was a clock."""
        self._heap: list[tuple[float, int, int, Schedule]] = []
        self._order = itertools.count()
        self._timer: Cancellable | None = None
        self._timer_at = 0.0
        self._seen = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._lag = 0.0
        self.waiting: dict[str, set[Schedule]] = {}
        """By job the schedules that wait for the end of a run, or for code."""

    # ---- a mapping

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, key: Key) -> Schedule:
        try:
            return self._schedules[key]
        except (KeyError, TypeError):
            raise NoSuchScheduleError(self._no_such(key)) from None

    def _no_such(self, key: object) -> str:
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)):  # noqa: PLR2004 - a pair
            return f"a schedule is named by its job and its name, schedules[job, name], not by {key!r}"
        job, name = key
        if job not in self.by_job:
            return f"no job {job!r} with schedules{did_you_mean(job, self.by_job)}"
        return f"no schedule {name!r} in job {job!r}{did_you_mean(name, self.by_job[job])}"

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._schedules))

    def __len__(self) -> int:
        return len(self._schedules)

    def __repr__(self) -> str:
        return f"<{len(self._schedules)} schedules of {len(self.by_job)} jobs>"

    # ---- life

    def open(self, clocks: Clocks) -> None:
        """Begin to fire, with these clocks."""
        self._bind()
        self._clocks = clocks
        for schedule in self._schedules.values():
            if schedule in self._early:
                self._forget_time(schedule)
            self._push(schedule)
        self._early.clear()
        self._arm()

    def stop(self) -> None:
        """Fire no more, and let backfills end where they are."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for schedule in self._schedules.values():
            for backfill in schedule.backfills:
                backfill.end("the server is closing")

    def now(self) -> dt.datetime:
        """Return the time on the wall, in UTC."""
        if self._clocks is None:
            return dt.datetime.now(dt.UTC)
        return self._clocks.wall()

    # ---- what is defined

    def define(self, job: str, definitions: Mapping[str, ScheduleDefinition]) -> None:
        """Take up the schedules of a job in place of those that it had; those with a trigger of the host's stay."""
        own = {name: kept for name, kept in self._own.pop(job, {}).items() if name not in definitions}
        if own:
            self._own[job] = own
            definitions = {**definitions, **{name: definition for name, (definition, _) in own.items()}}
        known = self.by_job.pop(job, {})
        for name, schedule in known.items():
            if name not in definitions:
                self._drop(schedule)
        if definitions:
            self.by_job[job] = {
                name: self._take_up(job, name, definition, known.get(name))
                for name, definition in definitions.items()
            }
        self._forget_ended(job)
        self._arm()

    def define_own(self, job: str, name: str, definition: ScheduleDefinition, trigger: Trigger) -> Schedule:
        """Give a job a schedule with a trigger of the host's. Raises `ValueError` where that is none."""
        table = timetable_of(job, name, definition, self._missed, trigger)
        table.next(self.now())
        table.previous(self.now())
        self._own.setdefault(job, {})[name] = definition, trigger
        schedules = self.by_job.setdefault(job, {})
        schedules[name] = self._take_up(job, name, definition, schedules.get(name))
        self._arm()
        return schedules[name]

    def undefine_own(self, job: str, name: str) -> bool:
        """Take away a schedule with a trigger of the host's. Return whether there was one."""
        if self._own.get(job, {}).pop(name, None) is None:
            return False
        self._drop(self.by_job[job].pop(name))
        for table in (self._own, self.by_job):
            if not table[job]:
                del table[job]
        self._forget_ended(job)
        return True

    def _take_up(
        self, job: str, name: str, definition: ScheduleDefinition, schedule: Schedule | None
    ) -> Schedule:
        _, trigger = self._own.get(job, {}).get(name, (None, None))
        table = timetable_of(job, name, definition, self._missed, trigger)
        timing, now = timing_of(definition, trigger), self.now()
        if schedule is None:
            down = self._restored.get((job, name))
            state = self._state_of(job, name, timing, now)
            live = self._live.setdefault(job, {}).setdefault(name, set())
            schedule = self._schedules[job, name] = Schedule(self, definition, table, state, live)
            schedule.stored = down
            if self._clocks is None and down is None:
                self._early.add(schedule)
        else:
            was_enabled = schedule.enabled
            schedule.definition, schedule.table = definition, table
            if schedule.state.timing != timing:
                self._give_up(schedule, "the schedule was changed")
                self._forget_time(schedule)
                schedule.state = attrs.evolve(schedule.state, timing=timing)
            elif was_enabled and not definition.enabled:
                self._give_up(schedule, "the schedule was disabled")
            elif definition.enabled and not was_enabled:
                self._forget_time(schedule)
        # A job may have a hundred, and the first time of each may take long to find: they are looked at in slices.
        self._push(schedule, at=0.0 if schedule.fires else None)
        return schedule

    def _state_of(self, job: str, name: str, timing: str, now: dt.datetime) -> ScheduleState:
        """Return what is remembered of a schedule that was not defined by now."""
        down = self._restored.pop((job, name), None)
        if down is not None and down.timing == timing:
            return down  # the time since is downtime
        known = down or self._parked.pop((job, name), None)
        if known is None:
            return ScheduleState(job=job, name=name, timing=timing, last=now)
        last = max(known.last, now)  # also with another timing: the clock may have been put back
        return attrs.evolve(known, timing=timing, last=last, pending=(), refused="")

    def _give_up(self, schedule: Schedule, reason: str) -> None:
        """What waits to be started is missed."""
        pending = schedule.state.pending
        missed = schedule.state.missed + len(pending)
        schedule.state = attrs.evolve(schedule.state, pending=(), refused="", missed=missed)
        self._note(schedule, missed_times(list(pending), reason))

    def _forget_time(self, schedule: Schedule) -> None:
        """Nothing up to now is missed."""
        schedule.state = attrs.evolve(schedule.state, last=max(schedule.state.last, self.now()))

    def _drop(self, schedule: Schedule) -> None:
        schedule.is_defined = False
        schedule.token += 1
        del self._schedules[schedule.job, schedule.name]
        self._wait(schedule, waits=False)
        for backfill in schedule.backfills:
            backfill.end("the schedule is no longer defined")
        self._park(schedule.state)
        if self.remember is not None and not self._stopped:
            self.remember(schedule.state, self.now())

    def _park(self, state: ScheduleState) -> None:
        self._parked[state.job, state.name] = state
        if len(self._parked) > PARKED:
            self._parked.popitem(last=False)

    def undefine(self, job: str) -> None:
        """The job is no longer defined: its schedules fire no more, and miss nothing from now on."""
        self._own.pop(job, None)
        self.define(job, {})

    def states(self) -> list[ScheduleState]:
        """Return what is remembered, to be stored."""
        return [schedule.state for schedule in self._schedules.values()]

    def restore(self, states: Iterable[ScheduleState], gone: Iterable[ScheduleState] = ()) -> None:
        """Remember again what was stored: what passes until a schedule is defined is downtime. Before `open`.

        `gone` are the states of those that were not defined any more: what passed since is not missed.
        """
        for state in gone:
            self._park(state)
        self._restored.update({(state.job, state.name): state for state in states})
        for schedule in [each for key, each in self._schedules.items() if key in self._restored]:
            down = schedule.state  # it was defined before the Server was entered
            schedule.state = self._state_of(down.job, down.name, down.timing, down.last)
            self._early.discard(schedule)

    # ---- requests

    def _defined(self, schedule: Schedule) -> None:
        self._check()
        if not schedule.is_defined:
            raise NoSuchScheduleError(f"schedule {schedule.name!r} of {schedule.job!r} is defined no more")

    def pause(self, schedule: Schedule) -> None:
        """See `Schedule.pause`. One that is paused stays so."""
        self._defined(schedule)
        if schedule.paused:
            return
        schedule.state = attrs.evolve(schedule.state, paused=True)
        self._push(schedule)
        self._say(EventKind.SCHEDULE_PAUSED, schedule, "")

    def resume(self, schedule: Schedule) -> None:
        """See `Schedule.resume`."""
        self._defined(schedule)
        if not schedule.paused:
            return
        schedule.state = attrs.evolve(schedule.state, paused=False)
        self._say(EventKind.SCHEDULE_RESUMED, schedule, "")
        if schedule.fires:
            self._take_due(schedule, self.now(), "it was paused;")
        else:
            self._forget_time(schedule)
        self._push(schedule, at=0.0)
        self._arm()

    async def run_now(self, schedule: Schedule, params: Mapping[str, Any]) -> Run:
        """See `Schedule.run_now`."""
        self._defined(schedule)
        now = self.now().replace(microsecond=0)
        filled = fill_scheduled(schedule.definition.params, schedule.table, now)
        zone = schedule.definition.zone
        scheduled = ScheduledFor(schedule.name, None, zone)
        run = self._start(schedule.job, {**filled, **params}, None, scheduled, None)
        schedule.last_run = run.id
        if self.durable is not None:
            await self.durable(run)
        return run

    async def backfill(
        self, schedule: Schedule, since: dt.datetime, until: dt.datetime, *, max_parallel: int, dry_run: bool
    ) -> Backfill:
        """See `Schedule.backfill`."""
        self._defined(schedule)
        if self._stopped:
            raise ClosedError("the server is closing and starts nothing more")
        backfill = await Backfill.of(schedule.table, since, until, max_parallel, now=self.now())
        if self.started_before is not None:
            keys = {schedule.table.key(nominal): nominal for nominal in backfill.times}
            known = await self.started_before(schedule.job, keys)
            backfill.was_done({keys[key]: run for key, run in known.items()})
        self._defined(schedule)
        if self._stopped:
            raise ClosedError("the server is closing and starts nothing more")
        if dry_run or not backfill.times:
            backfill.end("a dry run" if dry_run else "there is no such time")
            return backfill
        schedule.backfills.append(backfill)
        self._push(
            schedule, at=0.0
        )  # from the next look on: in the Server's context, as all that schedules start
        self._arm()
        return backfill

    # ---- time

    def look(self) -> None:
        """Look at the wall, and fire what is due: for one slice of time."""
        self._timer = None
        if self._stopped:
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
        self._arm()

    def _notice_step(self, now: dt.datetime) -> None:
        back = (self._seen - now).total_seconds()
        if back > WENT_BACK:
            _log.warning(
                "the clock was put back by %.0f s: no schedule fires until it is %s again", back, self._seen
            )
        self._seen = now

    def _advance(self, schedule: Schedule, now: dt.datetime) -> None:
        if schedule.fires:
            self._take_due(schedule, now)
            schedule.state, gone = expire(schedule.table, schedule.state, now)
            self._note(schedule, gone)
            self._start_pending(schedule, now)
        for backfill in list(schedule.backfills):
            self._go_on(schedule, backfill)
        if not self._stopped:
            self._push(schedule)

    def _take_due(self, schedule: Schedule, now: dt.datetime, found: str = "found") -> None:
        schedule.state, gone = take_due(schedule.table, schedule.state, now, found)
        self._note(schedule, gone)

    def _start_pending(self, schedule: Schedule, now: dt.datetime) -> None:
        table = schedule.table
        for nominal in schedule.state.pending:
            if table.missed is MissedPolicy.ALL and len(schedule.live) >= AT_A_TIME:
                break
            refused = self._fire(schedule, nominal, started(schedule.state, nominal))
            if refused is None:
                self._lag = max(0.0, (now - table.due(nominal)).total_seconds())
                schedule.state = started(schedule.state, nominal)
                self._say(
                    EventKind.SCHEDULE_FIRED, schedule, f"for {show_instant(nominal)}", run=schedule.last_run
                )
            elif self._stopped:
                return
            elif refused.for_good:
                left = tuple(time for time in schedule.state.pending if time != nominal)
                schedule.state = attrs.evolve(schedule.state, pending=left, missed=schedule.state.missed + 1)
                self._note(schedule, missed_times([nominal], refused.words))
            else:
                schedule.state = attrs.evolve(schedule.state, refused=refused.words)
                schedule.state, gone = expire(table, schedule.state, now)
                self._note(schedule, gone)
                break

    def _fire(self, schedule: Schedule, nominal: dt.datetime, state: ScheduleState | None) -> _Refusal | None:
        """Start the run for a nominal time, or return why not; `state` is that of then, None for a backfill."""
        table = schedule.table
        try:
            params = fill_scheduled(schedule.definition.params, table, nominal)
            scheduled = ScheduledFor(schedule.name, nominal, schedule.definition.zone, backfill=state is None)
            run = self._start(schedule.job, params, table.key(nominal), scheduled, state)
        except ClosedError as error:
            self._stopped = True
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

    def run_ended(self, run: int, job: str) -> None:
        """A run of a job has ended: what waited for that goes on."""
        if job not in self._live:  # as most jobs
            return
        for live in self._live[job].values():
            live.discard(run)
        for schedule in self.by_job.get(job, {}).values():
            for backfill in schedule.backfills:
                backfill.run_ended(run)
        self._forget_ended(job)
        self.try_again(job)

    def lives(self, run: int, job: str, name: str) -> None:
        """A run of an earlier life goes on that a schedule has started, which may be defined later."""
        self._live.setdefault(job, {}).setdefault(name, set()).add(run)

    def _forget_ended(self, job: str) -> None:
        """Forget that schedules had runs which are no longer defined, and whose runs have ended."""
        live, defined = self._live.get(job, {}), self.by_job.get(job, {})
        for name in [name for name, runs in live.items() if not runs and name not in defined]:
            del live[name]
        if not live:
            self._live.pop(job, None)

    def try_again(self, job: str | None = None) -> None:
        """Something has changed that may have refused runs: code has come, a run has ended."""
        jobs = list(self.waiting) if job is None else [job]
        found = [schedule for name in jobs for schedule in self.waiting.get(name, ())]
        for schedule in found:
            self._push(schedule, at=0.0)
        if found:
            self._arm()

    # ---- the heap

    def _push(self, schedule: Schedule, *, at: float | None = None) -> None:
        """Have a schedule looked at when something of it is due; `at` names another time on the wall."""
        schedule.token += 1
        state, table = schedule.state, schedule.table
        if self.remember is not None and state is not schedule.stored and not self._stopped:
            schedule.stored = state
            self.remember(state, None)
        waits = bool(schedule.backfills) or (schedule.fires and bool(state.pending))
        self._wait(schedule, waits=waits)
        if self._clocks is None or self._stopped:
            return
        when = [] if at is None else [at]
        schedule.upcoming = (
            None  # found at that look, where there is one: for a rare expression it takes a millisecond
        )
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
        if len(self._heap) > 2 * len(self._schedules) + 64:
            self._heap = [entry for entry in self._heap if entry[2] == entry[3].token]
            heapq.heapify(self._heap)

    def _wait(self, schedule: Schedule, *, waits: bool) -> None:
        job = schedule.job
        if waits:
            self.waiting.setdefault(job, set()).add(schedule)
        elif job in self.waiting:
            self.waiting[job].discard(schedule)
            if not self.waiting[job]:
                del self.waiting[job]

    def _arm(self) -> None:
        """Set the one timer: to when the first of the heap is due, and never further off than a look at the wall."""
        clocks, heap = self._clocks, self._heap
        if clocks is None or self._stopped or not heap:
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

    def _note(self, schedule: Schedule, gone: Iterable[MissedTimes]) -> None:
        for missed in gone:
            self._say(EventKind.SCHEDULE_MISSED, schedule, str(missed))
            extra = {"job": schedule.job, "schedule": schedule.name}
            _log.warning("schedule %s of %s: %s", schedule.name, schedule.job, missed, extra=extra)

    def _say(self, kind: EventKind, schedule: Schedule, message: str, *, run: int | None = None) -> None:
        self._tell(kind, job=schedule.job, schedule=schedule.name, message=message, run=run)

    def statistics(self) -> dict[str, int | float]:
        """Return how many there are and are paused, how many times were missed, and by how many seconds starts lag.

        The lag is that of the newest start, or of what waits to be started by now.
        """
        now = self.now()
        waiting = [schedule for schedules in self.waiting.values() for schedule in schedules]
        late = [
            (now - schedule.table.due(schedule.state.pending[0])).total_seconds()
            for schedule in waiting
            if schedule.state.pending
        ]
        states = [schedule.state for schedule in self._schedules.values()]
        return {
            "schedules": len(states),
            "schedules_paused": sum(state.paused for state in states),
            "schedules_missed": sum(state.missed for state in states),
            "schedule_lag": round(max([self._lag, *late]), 3),
        }


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

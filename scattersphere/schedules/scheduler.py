"""The schedules of a Server's jobs: which are defined, what is remembered of each, and what may be asked of them.

When they fire, and what becomes of each firing, is the part of the `ScheduleDriver`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._lifecycle import ForkGuard
from scattersphere._text import did_you_mean
from scattersphere.abc.ports import Trigger
from scattersphere.errors import ArgumentError, ClosedError, ConflictError, NoSuchScheduleError
from scattersphere.model.events import EventKind
from scattersphere.model.schedules import MissedPolicy, ScheduleDefinition
from scattersphere.schedules.backfill import Backfill
from scattersphere.schedules.driver import ScheduleDriver
from scattersphere.schedules.occurrences import (
    TRIGGERS,
    ScheduledFor,
    ScheduleState,
    fill_scheduled,
    missed_times,
    timetable_of,
    timing_of,
)
from scattersphere.schedules.schedule import Schedule

if TYPE_CHECKING:
    import datetime as dt

    from scattersphere.engine.run import Run
    from scattersphere.model.definition import JobDefinition
    from scattersphere.schedules.driver import Clocks, Start

YEAR = 365 * 86_400
"""Stands for the times of a trigger of the host's while the other fields of its schedule are looked at."""
PARKED = 10_000
"""Schedules that are no longer defined and whose state (paused, counts) is kept for when they are again."""

Key = tuple[str, str]
"""A job, and the name of one of its schedules."""


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
        self.driver: ScheduleDriver = ScheduleDriver(start, tell)
        self._check = check
        self.fires: bool = fires
        self._missed = missed
        self._schedules: dict[Key, Schedule] = {}
        self._own: dict[str, dict[str, tuple[ScheduleDefinition, Trigger]]] = {}
        """By job and name those with a trigger of the host's: they are no part of any definition."""
        self.by_job: dict[str, dict[str, Schedule]] = {}
        """The jobs that have schedules, and these by their names."""
        self.started_before: Callable[[str, Iterable[str]], Awaitable[dict[str, int]]] | None = None
        """Where starts are stored: returns which keys of a job stand for runs, also for such as are kept no more."""
        self.durable: Callable[[Run], Awaitable[None]] | None = None
        """Waits until a run is stored."""
        self.ready: Callable[[str, Mapping[str, object]], Awaitable[None]] | None = None
        """Waits until the secrets are read of a run of a job with parameters."""
        self._parked: OrderedDict[Key, ScheduleState] = OrderedDict()
        self._restored: dict[Key, ScheduleState] = {}
        self._live: dict[str, dict[str, set[int]]] = {}
        """By job and name the runs that have not ended, also of an earlier life and of what is no longer defined."""
        self._early: set[Schedule] = set()
        """Defined, and not restored, before there was a clock."""

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
        self.driver.clocks = clocks
        for schedule in self._schedules.values():
            if schedule in self._early:
                self._forget_time(schedule)
            self.driver.push(schedule)
        self._early.clear()
        self.driver.arm()

    def stop(self) -> None:
        """Fire no more, and let backfills end where they are."""
        self.driver.stop()
        for schedule in self._schedules.values():
            for backfill in schedule.backfills:
                backfill.end("the server is closing")

    def now(self) -> dt.datetime:
        """Return the time on the wall, in UTC."""
        return self.driver.now()

    # ---- what is defined

    def job_changed(self, job: str, definition: JobDefinition | None) -> None:
        """Follow a job that is defined anew, or (None) is no more."""
        if definition is None:
            self.undefine(job)
        else:
            self.define(job, definition.schedules)
            self.driver.try_again(job)

    def define(self, job: str, definitions: Mapping[str, ScheduleDefinition]) -> None:
        """Replace the schedules of a job by these; those with a trigger of the host's stay."""
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
        self.driver.arm()

    def define_own(
        self,
        job: JobDefinition,
        name: str,
        trigger: Trigger,
        fields: Mapping[str, Any],
        judge: Callable[[JobDefinition], object],
    ) -> Schedule:
        """Give a job a schedule with a trigger of the host's, whose other fields are as right as any: `judge` raises.

        Raises `ArgumentError`, `ConflictError`, and `ValueError` for what a trigger may not answer.
        """
        if not isinstance(trigger, Trigger):
            raise ArgumentError(
                f"trigger has next, previous and words, as scattersphere.abc.Trigger says; {trigger!r} has not"
            )
        if given := [word for word in TRIGGERS if word in fields]:
            raise ArgumentError(f"the trigger says when {name!r} fires: leave out {given[0]!r}")
        if name in job.schedules:
            raise ConflictError(f"the definition of job {job.name!r} has a schedule {name!r} itself")
        yearly = ScheduleDefinition(every=YEAR, **fields)
        judge(job.evolve(schedules={**job.schedules, name: yearly}))
        return self._take_up_own(job.name, name, ScheduleDefinition(**fields), trigger)

    def _take_up_own(self, job: str, name: str, definition: ScheduleDefinition, trigger: Trigger) -> Schedule:
        table = timetable_of(job, name, definition, self._missed, trigger)
        table.next(self.now())
        table.previous(self.now())
        self._own.setdefault(job, {})[name] = definition, trigger
        schedules = self.by_job.setdefault(job, {})
        schedules[name] = self._take_up(job, name, definition, schedules.get(name))
        self.driver.arm()
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
            if self.driver.clocks is None and down is None:
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
        self.driver.push(schedule, at=0.0 if schedule.fires else None)
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
        self.driver.note(schedule, missed_times(list(pending), reason))

    def _forget_time(self, schedule: Schedule) -> None:
        """Nothing up to now is missed."""
        schedule.state = attrs.evolve(schedule.state, last=max(schedule.state.last, self.now()))

    def _drop(self, schedule: Schedule) -> None:
        schedule.is_defined = False
        schedule.token += 1
        del self._schedules[schedule.job, schedule.name]
        self.driver.wait(schedule, waits=False)
        for backfill in schedule.backfills:
            backfill.end("the schedule is no longer defined")
        self._park(schedule.state)
        if self.driver.remember is not None and not self.driver.is_stopped:
            self.driver.remember(schedule.state, self.now())

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
        self.driver.push(schedule)
        self.driver.say(EventKind.SCHEDULE_PAUSED, schedule, "")

    def resume(self, schedule: Schedule) -> None:
        """See `Schedule.resume`."""
        self._defined(schedule)
        if not schedule.paused:
            return
        schedule.state = attrs.evolve(schedule.state, paused=False)
        self.driver.say(EventKind.SCHEDULE_RESUMED, schedule, "")
        if schedule.fires:
            self.driver.take_due(schedule, self.now(), "it was paused;")
        else:
            self._forget_time(schedule)
        self.driver.push(schedule, at=0.0)
        self.driver.arm()

    async def run_now(self, schedule: Schedule, params: Mapping[str, object]) -> Run:
        """See `Schedule.run_now`."""
        self._defined(schedule)
        now = self.now().replace(microsecond=0)
        filled = fill_scheduled(schedule.definition.params, schedule.table, now)
        zone = schedule.definition.zone
        scheduled = ScheduledFor(schedule.name, None, zone)
        if self.ready is not None:
            await self.ready(schedule.job, {**filled, **params})
        run = self.driver.start(schedule.job, {**filled, **params}, None, scheduled, None)
        schedule.last_run = run.id
        if self.durable is not None:
            await self.durable(run)
        return run

    async def backfill(
        self, schedule: Schedule, since: dt.datetime, until: dt.datetime, *, max_parallel: int, dry_run: bool
    ) -> Backfill:
        """See `Schedule.backfill`."""
        self._defined(schedule)
        if self.driver.is_stopped:
            raise ClosedError("the server is closing and starts nothing more")
        backfill = await Backfill.of(schedule.table, since, until, max_parallel, now=self.now())
        if self.started_before is not None:
            keys = {schedule.table.key(nominal): nominal for nominal in backfill.times}
            known = await self.started_before(schedule.job, keys)
            backfill.was_done({keys[key]: run for key, run in known.items()})
        self._defined(schedule)
        if self.driver.is_stopped:
            raise ClosedError("the server is closing and starts nothing more")
        if dry_run or not backfill.times:
            backfill.end("a dry run" if dry_run else "there is no such time")
            return backfill
        schedule.backfills.append(backfill)
        self.driver.push(
            schedule, at=0.0
        )  # from the next look on: in the Server's context, as all that schedules start
        self.driver.arm()
        return backfill

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
        self.driver.try_again(job)

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

    def statistics(self) -> dict[str, int | float]:
        """Return how many there are and are paused, how many times were missed, and by how many seconds starts lag.

        The lag is that of the newest start, or of what waits to be started by now.
        """
        states = self.states()
        return {
            "schedules": len(states),
            "schedules_paused": sum(state.paused for state in states),
            "schedules_missed": sum(state.missed for state in states),
            "schedule_lag": self.driver.lag(),
        }

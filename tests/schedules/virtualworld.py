"""A scheduler in a world without a loop: a wall clock that is set by hand, timers, and runs that end when told to."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.errors import BusyError
from scattersphere.model.schedules import ScheduleDefinition
from scattersphere.schedules.driver import Clocks
from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState
from scattersphere.schedules.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@attrs.define(eq=False)
class Run:
    id: int
    job: str
    params: dict[str, Any]
    key: str | None
    scheduled: ScheduledFor
    at: dt.datetime
    state: SimpleNamespace


@attrs.define(eq=False)
class Timer:
    at: float
    callback: Any

    def cancel(self) -> None:
        self.callback = None


class World:
    """`wall` and `monotonic` go together until `step` or `suspend` parts them."""

    def __init__(self, start: str, jobs: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None) -> None:
        self.wall = utc(start)
        self.monotonic = 1_000.0
        self.timers: list[Timer] = []
        self.runs: list[Run] = []
        self.events: list[tuple[str, str, str]] = []
        self.refuse: Any = None
        """An error that each start raises, or a function of a run's job that returns one or None."""
        self.looks = 0
        self.ends_at_once = True
        self.keys: dict[str, Run] = {}
        """The start keys: they outlive a crash where there is a journal."""
        self.jobs = jobs or {}
        self.scheduler = self.begin([])

    def begin(self, states: list[ScheduleState]) -> Scheduler:
        self.timers.clear()
        scheduler = Scheduler(self.start, self.tell)
        scheduler.restore(states)
        self.scheduler = scheduler
        scheduler.open(Clocks(lambda: self.monotonic, lambda: self.wall, self.call_at))
        for job, schedules in self.jobs.items():
            self.define(job, schedules)
        return scheduler

    def define(self, job: str, schedules: Mapping[str, Mapping[str, Any]]) -> None:
        self.scheduler.define(job, {name: ScheduleDefinition(**fields) for name, fields in schedules.items()})

    def call_at(self, when: float, callback: Any) -> Timer:
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def start(
        self,
        job: str,
        params: Mapping[str, Any],
        key: str | None,
        scheduled: ScheduledFor,
        state: ScheduleState | None,
    ) -> Run:
        if key is not None and key in self.keys:
            return self.keys[key]
        error = (
            self.refuse(job) if callable(self.refuse) and not isinstance(self.refuse, type) else self.refuse
        )
        if error is not None:
            raise error
        run = Run(
            len(self.runs) + 1,
            job,
            dict(params),
            key,
            scheduled,
            self.wall,
            SimpleNamespace(ended=self.ends_at_once),
        )
        self.runs.append(run)
        if key is not None:
            self.keys[key] = run
        return run

    def end(self, run: Run) -> None:
        run.state.ended = True
        self.scheduler.run_ended(run.id, run.job)

    def tell(self, kind: str, *, job: str, schedule: str, message: str, run: int | None) -> None:
        self.events.append((str(kind), f"{job}/{schedule}", message))

    # ---- time

    def go(self, seconds: float) -> None:
        """Let time pass on both clocks, from timer to timer."""
        end = self.monotonic + seconds
        while True:
            live = [timer for timer in self.timers if timer.callback is not None and timer.at <= end]
            if not live:
                break
            timer = min(live, key=lambda timer: timer.at)
            self.timers.remove(timer)
            self._advance(max(0.0, timer.at - self.monotonic))
            callback, timer.callback = timer.callback, None
            self.looks += 1
            callback()
        self._advance(end - self.monotonic)
        self.timers = [timer for timer in self.timers if timer.callback is not None]

    def _advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += dt.timedelta(seconds=seconds)

    def until(self, text: str) -> None:
        self.go((utc(text) - self.wall).total_seconds())

    def step(self, seconds: float) -> None:
        """Set the wall clock, or let the machine sleep: the monotonic clock knows nothing of either."""
        self.wall += dt.timedelta(seconds=seconds)

    def do(self, what: str, seconds: int, fields: dict[str, Any]) -> None:
        """Let something happen to the schedule "it" of "job"."""
        schedule = self.scheduler["job", "it"]
        operations: dict[str, Callable[[], Any]] = {
            "go": lambda: self.go(seconds),
            "step": lambda: self.step(seconds),
            "pause": schedule.pause,
            "resume": schedule.resume,
            "code": self.scheduler.driver.try_again,
            "redefine": lambda: self.define("job", {"it": {**fields, "params": {"n": len(self.runs)}}}),
            "refuse": lambda: setattr(self, "refuse", BusyError("busy")),
            "accept": lambda: setattr(self, "refuse", None),
            "end": lambda: [self.end(run) for run in [run for run in self.runs if not run.state.ended][:3]],
        }
        operations[what]()

    @property
    def fired(self) -> list[str]:
        """The nominal times for which runs were started."""
        return [f"{run.scheduled.time:%d %H:%M}" for run in self.runs if run.scheduled.time is not None]

    @property
    def missed(self) -> list[str]:
        return [message for kind, _, message in self.events if kind == "schedule-missed"]

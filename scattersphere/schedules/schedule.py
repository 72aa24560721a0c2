"""One schedule of a defined job, as a host holds it: its next times, and what may be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from scattersphere.errors import ArgumentError
from scattersphere.schedules.occurrences import first_times
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from scattersphere.engine.run import Run
    from scattersphere.model.schedules import ScheduleDefinition
    from scattersphere.schedules.backfill import Backfill
    from scattersphere.schedules.occurrences import ScheduleState, Timetable


class Requests(Protocol):
    """Where a schedule takes what is asked of it: the scheduler."""

    fires: bool

    def now(self) -> dt.datetime:
        """Return the time on the wall, in UTC."""
        ...

    def pause(self, schedule: Schedule) -> None:
        """Fire it no more."""

    def resume(self, schedule: Schedule) -> None:
        """Fire it again."""

    async def run_now(self, schedule: Schedule, params: Mapping[str, object]) -> Run:
        """Start a run of it."""
        ...

    async def backfill(
        self, schedule: Schedule, since: dt.datetime, until: dt.datetime, *, max_parallel: int, dry_run: bool
    ) -> Backfill:
        """Start runs for times in the past."""
        ...


class Schedule:
    """One schedule of a defined job, as `server.schedules[job, name]` gives it. All times are aware UTC."""

    def __init__(
        self,
        scheduler: Requests,
        definition: ScheduleDefinition,
        table: Timetable,
        state: ScheduleState,
        live: set[int],
    ) -> None:
        self._scheduler = scheduler
        self.definition: ScheduleDefinition = definition
        self.table: Timetable = table
        self.state: ScheduleState = state
        """What is remembered of it."""
        self.stored: ScheduleState | None = None
        """What was stored of it; other than `state` while that is new."""
        self.is_defined: bool = True
        self.upcoming: dt.datetime | None = None
        """The next nominal time after `state.last`."""
        self.token: int = 0
        """Which entry of the heap is meant; others are stale."""
        self.live: set[int] = live
        """Its runs that have not ended."""
        self.backfills: list[Backfill] = []
        self._said: tuple[Timetable, str] | None = None
        self.last_run: int | None = None
        """The id of the newest run that it started."""

    def __repr__(self) -> str:
        return f"<Schedule {self.job}/{self.name}: {self.words()}{', paused' if self.paused else ''}>"

    @property
    def job(self) -> str:
        """The name of its job."""
        return self.state.job

    @property
    def name(self) -> str:
        """Its name in the job's `schedules`."""
        return self.state.name

    @property
    def enabled(self) -> bool:
        """What its definition says; `paused` is another switch."""
        return self.definition.enabled

    @property
    def paused(self) -> bool:
        """Whether `pause` was called, and `resume` not since."""
        return self.state.paused

    @property
    def fires(self) -> bool:
        """Whether it is defined, enabled and not paused, on a Server that fires schedules."""
        return self.is_defined and self.enabled and not self.paused and self._scheduler.fires

    def words(self) -> str:
        """Say in words when it fires: "at 02:30 every day (Europe/Berlin)"."""
        if self._said is None or self._said[0] is not self.table:
            self._said = self.table, self.table.words()
        return self._said[1]

    def next(self, n: int = 1) -> list[dt.datetime]:
        """Return the next `n` times, fewer where there are no more; also of one that is paused.

        A time that is decided about already is none of them, even where the clock was put back since.
        """
        if n < 0:
            raise ArgumentError(f"n is at least 0, not {n}")
        return first_times(self.table, max(self._scheduler.now(), self.state.last), n)

    @property
    def previous(self) -> dt.datetime | None:
        """The last time before now, whether it fired or not."""
        return self.table.previous(self._scheduler.now())

    def pause(self) -> None:
        """Fire no more until `resume`. Raises `NoSuchScheduleError` if it is defined no more."""
        self._scheduler.pause(self)

    def resume(self) -> None:
        """Fire again. For times that passed meanwhile at most one run is started, unless `missed` is "all"."""
        self._scheduler.resume(self)

    async def run_now(self, params: Mapping[str, object] | None = None) -> Run:
        """Start a run at once, with the schedule's parameters and `params` over them; also while it is paused.

        `{"$scheduled": ..}` means now. Raises what `Server.start` raises.
        """
        return await self._scheduler.run_now(self, params or {})

    async def backfill(
        self,
        since: dt.datetime,
        until: dt.datetime,
        *,
        max_parallel: int = 1,
        dry_run: bool = False,
    ) -> Backfill:
        """Start a run for each time from `since` on and before `until`, at most `max_parallel` at once, in order.

        Returns at once, before the first of them; `await backfill.wait()`. A time for which a run was started that is
        kept, by the journal if there is one, is not run again: it is in `.runs` from the beginning. With `dry_run`
        nothing is started: `.times` says what would be. Raises `ArgumentError`, also for an `until` in the future.
        """
        return await self._scheduler.backfill(self, since, until, max_parallel=max_parallel, dry_run=dry_run)

    def as_dict(self) -> dict[str, Any]:
        """Return the schedule and its state as a dict that JSON can say."""
        known = self.upcoming is not None and self.fires and self.upcoming > self._scheduler.now()
        following = [self.upcoming] if known and self.upcoming is not None else self.next()
        return {
            "job": self.job,
            "name": self.name,
            "words": self.words(),
            "zone": self.definition.zone,
            "enabled": self.enabled,
            "paused": self.paused,
            "next": show_instant(following[0]) if following else None,
            "waiting": [show_instant(time) for time in self.state.pending],
            "refused": self.state.refused,
            "fired": self.state.fired,
            "missed": self.state.missed,
            "last_run": self.last_run,
        }

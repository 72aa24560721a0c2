"""SyncSchedule: a Schedule whose methods block, for `SyncServer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scattersphere._lifecycle import ForkGuard
from scattersphere.syncrun import SyncRun

if TYPE_CHECKING:
    import datetime as dt

    from scattersphere.model.schedules import ScheduleDefinition
    from scattersphere.schedules.backfill import Backfill
    from scattersphere.schedules.occurrences import ScheduleState
    from scattersphere.schedules.scheduler import Schedule
    from scattersphere.syncrun import Door


class SyncSchedule(ForkGuard):
    """A `Schedule` whose methods block. May be used from any thread."""

    def __init__(self, schedule: Schedule, door: Door) -> None:
        self._original = schedule
        self._door = door
        self._bind()

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._original))

    @property
    def job(self) -> str:
        """The name of its job."""
        return self._original.job

    @property
    def name(self) -> str:
        """Its name in the job's `schedules`."""
        return self._original.name

    @property
    def definition(self) -> ScheduleDefinition:
        """What the job's definition says of it."""
        return self._original.definition

    @property
    def state(self) -> ScheduleState:
        """What is remembered of it."""
        return self._original.state

    @property
    def enabled(self) -> bool:
        """See `Schedule.enabled`."""
        return self._original.enabled

    @property
    def paused(self) -> bool:
        """See `Schedule.paused`."""
        return self._original.paused

    @property
    def previous(self) -> dt.datetime | None:
        """See `Schedule.previous`."""
        return self._door.read(lambda: self._original.previous)

    def words(self) -> str:
        """See `Schedule.words`."""
        return self._door.read(self._original.words)

    def next(self, n: int = 1) -> list[dt.datetime]:
        """See `Schedule.next`."""
        return self._door.read(lambda: self._original.next(n))

    def pause(self) -> None:
        """See `Schedule.pause`."""
        self._door.call(self._original.pause)

    def resume(self) -> None:
        """See `Schedule.resume`."""
        self._door.call(self._original.resume)

    def run_now(self, params: Mapping[str, Any] | None = None) -> SyncRun:
        """See `Schedule.run_now`."""
        return SyncRun(self._door.call(self._original.run_now, params), self._door)

    def backfill(
        self, since: dt.datetime, until: dt.datetime, *, max_parallel: int = 1, dry_run: bool = False
    ) -> Backfill:
        """See `Schedule.backfill`; blocks until the last run has ended."""

        async def made_up() -> Backfill:
            made = await self._original.backfill(since, until, max_parallel=max_parallel, dry_run=dry_run)
            return await made.wait()

        made: Backfill = self._door.call(made_up)
        return made

    def as_dict(self) -> dict[str, Any]:
        """See `Schedule.as_dict`."""
        return self._door.read(self._original.as_dict)


class SyncSchedules(Mapping[tuple[str, str], SyncSchedule]):
    """The schedules of a Server, by job and name."""

    def __init__(self, door: Door, schedules: Mapping[tuple[str, str], Schedule]) -> None:
        self._door = door
        self._schedules = schedules

    def __getitem__(self, key: tuple[str, str]) -> SyncSchedule:
        return SyncSchedule(self._door.read(lambda: self._schedules[key]), self._door)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._door.read(lambda: list(self._schedules)))

    def __len__(self) -> int:
        return self._door.read(lambda: len(self._schedules))

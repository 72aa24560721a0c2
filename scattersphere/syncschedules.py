"""SyncSchedule: a Schedule whose methods block, for `SyncServer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from scattersphere._blocking import Value, calling, reading
from scattersphere._lifecycle import ForkGuard
from scattersphere.schedules.schedule import Schedule
from scattersphere.syncrun import SyncRun

if TYPE_CHECKING:
    import datetime as dt

    from scattersphere._blocking import Door
    from scattersphere.schedules.backfill import Backfill

T = TypeVar("T")


def _of_schedule(get: Callable[[Schedule], T], *, at_once: bool = False) -> Value[Schedule, T]:
    return Value(get, at_once=at_once)


class SyncSchedule(ForkGuard):
    """A `Schedule` whose methods block. May be used from any thread."""

    _original_class: ClassVar[type] = Schedule

    def __init__(self, schedule: Schedule, door: Door) -> None:
        self._original = schedule
        self._door = door
        self._bind()

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._original))

    job: Final = _of_schedule(lambda schedule: schedule.job, at_once=True)
    name: Final = _of_schedule(lambda schedule: schedule.name, at_once=True)
    definition: Final = _of_schedule(lambda schedule: schedule.definition, at_once=True)
    state: Final = _of_schedule(lambda schedule: schedule.state, at_once=True)
    enabled: Final = _of_schedule(lambda schedule: schedule.enabled, at_once=True)
    paused: Final = _of_schedule(lambda schedule: schedule.paused, at_once=True)
    fires: Final = _of_schedule(lambda schedule: schedule.fires, at_once=True)
    previous: Final = _of_schedule(lambda schedule: schedule.previous)
    words: Final = reading(Schedule.words)
    next: Final = reading(Schedule.next)
    pause: Final = calling(Schedule.pause)
    resume: Final = calling(Schedule.resume)
    as_dict: Final = reading(Schedule.as_dict)

    def run_now(self, params: Mapping[str, object] | None = None) -> SyncRun:
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

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._schedules))

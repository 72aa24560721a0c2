"""A backfill: runs for times of a schedule that lie in the past, some at once, in order."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from scattersphere.errors import ArgumentError
from scattersphere.model.arguments import check_count, describe

if TYPE_CHECKING:
    from scattersphere.schedules.occurrences import Timetable

SLICE = 10
"""Times that are looked for in one turn of the loop: of a rare expression each takes a millisecond or two."""
MOST = 1_000
"""Times of one backfill."""


class Backfill:
    """The runs that `Schedule.backfill` starts. `await wait()` returns when all have ended."""

    def __init__(self, times: list[dt.datetime], max_parallel: int) -> None:
        self.times: tuple[dt.datetime, ...] = tuple(times)
        """The times that are made up for, in UTC."""
        self.runs: dict[dt.datetime, int] = {}
        """The id of the run for each time, where one was started by now, or had been before."""
        self.refused: dict[dt.datetime, str] = {}
        """Why a run could not be started, by time."""
        self.reason: str = ""
        """Why it ended before all were started."""
        self._max_parallel = max_parallel
        self._left = list(reversed(times))
        self._live: set[int] = set()
        self._over = anyio.Event()

    @classmethod
    async def of(
        cls, table: Timetable, since: dt.datetime, until: dt.datetime, max_parallel: int, *, now: dt.datetime
    ) -> Backfill:
        """Collect the times from `since` on and before `until`, which are over by `now`.

        Raises `ArgumentError`, `TypeError`.
        """
        check_count(max_parallel, "max_parallel")
        for name, value in (("since", since), ("until", until)):
            if not isinstance(value, dt.datetime):
                raise TypeError(f"{name} is an aware datetime, not {describe(value)}")
            if value.utcoffset() is None:
                raise ArgumentError(f"{name} needs a zone, like datetime(.., tzinfo=UTC): {value} has none")
        since, until = since.astimezone(dt.UTC), until.astimezone(dt.UTC)
        if until < since:
            raise ArgumentError(f"until ({until}) lies before since ({since})")
        if until > now:
            raise ArgumentError(
                f"until ({until}) has not come yet (it is {now:%Y-%m-%d %H:%M:%S%z}): a backfill is of the past, "
                "and the schedule itself starts what is to come"
            )
        times = []
        for time in itertools.islice(table.times(since, until), MOST + 1):
            times.append(time)
            if len(times) % SLICE == 0:
                await anyio.lowlevel.checkpoint()
        if len(times) > MOST:
            raise ArgumentError(f"there are more than {MOST:,} times in between; choose a shorter span")
        return cls(times, max_parallel)

    def __repr__(self) -> str:
        return f"<Backfill of {len(self.times)} times, {len(self.runs)} started, {len(self._live)} live>"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be started or waited for."""
        return self._over.is_set()

    async def wait(self) -> Backfill:
        """Wait until the last run has ended, and return this."""
        await self._over.wait()
        return self

    def cancel(self) -> None:
        """Start no more; the runs that live go on."""
        self.end("cancelled")

    # ---- for the scheduler

    def take(self) -> dt.datetime | None:
        """Return the next time, if a run for it may be started now."""
        if self.ended or not self._left or len(self._live) >= self._max_parallel:
            self._look_whether_over()
            return None
        return self._left.pop()

    def put_back(self, nominal: dt.datetime) -> None:
        """It could not be started yet."""
        self._left.append(nominal)

    def was_done(self, runs: dict[dt.datetime, int]) -> None:
        """Runs for these times were started before, and are not again."""
        self.runs.update(runs)
        self._left = [nominal for nominal in self._left if nominal not in runs]

    def started(self, nominal: dt.datetime, run: int | None, *, live: bool) -> None:
        """A run was started for a time, or was found that had been."""
        if run is not None:
            self.runs[nominal] = run
            if live:
                self._live.add(run)

    def refuse(self, nominal: dt.datetime, words: str) -> None:
        """A run cannot be started."""
        self.refused[nominal] = words

    def run_ended(self, run: int) -> None:
        """A run has ended, perhaps one of these."""
        self._live.discard(run)

    def end(self, reason: str) -> None:
        """Start no more, and wait for none."""
        if not self.ended:
            self.reason = reason
            self._left.clear()
            self._over.set()

    def _look_whether_over(self) -> None:
        if not self._left and not self._live:
            self._over.set()

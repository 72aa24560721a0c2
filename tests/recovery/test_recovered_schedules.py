"""Schedules go on after a crash: each time is started once, whatever commit was the last one."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import anyio
import pytest
from recoveryworld import WORLD, Life, World
from virtualtime import both_loops, run_virtually

from scattersphere import JobDefinition, Server
from scattersphere.engine.wallclock import WallClock
from scattersphere.testing import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600
KNOWN = 2
"""The commit after which it is durable that there is a schedule: the first is that of the life itself."""
KILLS = range(1, 40)
"""After which commit the program dies; three lives of it have some thirty."""


BEGAN = dt.datetime(2026, 11, 30, 0, 10, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wall for all lives, which goes with the virtual clock and begins at ten past midnight."""
    WORLD["now"] = World()
    real, epochs = WallClock.__init__, []

    def init(self: WallClock, clock: Callable[[], float]) -> None:
        real(self, clock)
        epochs.append(BEGAN.timestamp() - clock())
        self._epoch = epochs[0]

    monkeypatch.setattr(WallClock, "__init__", init)


def job(**schedule: object) -> JobDefinition:
    fields = {"every": HOUR, **schedule}
    task = {"task": "Note", "args": {"name": {"$param": "at"}}}
    text = {
        "format": 2, "name": "job", "params": {"at": "none"}, "tasks": {"t": task},
        "schedules": {"hourly": {"params": {"at": {"$scheduled": "time"}}, **fields}},
    }  # fmt: skip
    return JobDefinition.loads(json.dumps(text))


def started(journal: MemoryJournal) -> list[str]:
    """Return for which times runs were started, in order."""
    runs = journal.find_runs(limit=1000)
    return sorted(json.loads(found.run.scheduled)["time"][:16] for found in runs if found.run.scheduled)


def hours(first: dt.datetime, last: dt.datetime) -> list[str]:
    """Return the full hours after an instant, up to another."""
    hour = first.replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=1)
    found = []
    while hour <= last:
        found.append(hour.isoformat()[:16])
        hour += dt.timedelta(hours=1)
    return found


@pytest.mark.parametrize("after", KILLS)
@both_loops
def test_each_time_is_started_once_whatever_commit_was_the_last(backend: str, after: int) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        journal.crash_after = after
        async with Life(journal, jobs=[job(missed="all")]) as life:
            began = life.server._scheduler.now()
            await anyio.sleep(3.5 * HOUR)
            journal = await life.crash()
        await anyio.sleep(2 * HOUR)  # downtime
        async with Life(journal, jobs=[job(missed="all")]) as life:
            await anyio.sleep(1.2 * HOUR)
            ended = life.server._scheduler.now()
            times = started(journal)
        assert times == sorted(set(times))
        if after >= KNOWN:
            assert times == hours(began, ended)
        else:  # the program died before it was durable that there is a schedule
            assert times == hours(began + dt.timedelta(hours=5.5), ended)
        assert {name[:16] for name in WORLD["now"].begun} >= set(times)

    run_virtually(backend, main)


@both_loops
def test_of_what_was_due_while_the_program_was_down_the_last_is_made_up_for(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Life(journal, jobs=[job(catch_up_within=HOUR)]) as life:
            await anyio.sleep(1.5 * HOUR)
            before = started(journal)
            journal = await life.crash()
        await anyio.sleep(5 * HOUR)
        async with Life(journal, jobs=[job(catch_up_within=HOUR)]) as life:
            await anyio.sleep(60)
            now = life.server._scheduler.now()
            assert life.server.schedules["job", "hourly"].state.missed == 4
            assert started(journal) == [*before, now.replace(minute=0).isoformat()[:16]]

    run_virtually(backend, main)


@both_loops
def test_a_paused_schedule_is_paused_in_the_next_life(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Life(journal, jobs=[job()]) as life:
            life.server.schedules["job", "hourly"].pause()
            await anyio.sleep(1)
            journal = await life.crash()
        async with Life(journal, jobs=[job()]) as life:
            assert life.server.schedules["job", "hourly"].paused
            await anyio.sleep(2 * HOUR)
            assert started(journal) == []
            life.server.schedules["job", "hourly"].resume()

    run_virtually(backend, main)


@both_loops
def test_what_was_defined_before_the_server_was_entered_is_remembered_too(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Life(journal, jobs=[job()]) as life:
            life.server.schedules["job", "hourly"].pause()
            await anyio.sleep(1)
            journal = await life.crash()
        server = Server(journal=journal, watch=False)
        server.register_tasks("app", list(life.classes))
        server.define(job())
        async with server:
            assert server.schedules["job", "hourly"].paused

    run_virtually(backend, main)


@both_loops
def test_downtime_counts_for_what_was_defined_before_the_server_was_entered(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Life(journal, jobs=[job(missed="all")]) as life:
            await anyio.sleep(1)
            journal = await life.crash()
        await anyio.sleep(3 * HOUR)
        server = Server(journal=journal, watch=False)
        server.register_tasks("app", list(life.classes))
        server.define(job(missed="all"))
        async with server:
            await anyio.sleep(60)
            assert len(started(journal)) == 3

    run_virtually(backend, main)


@both_loops
def test_a_schedule_that_was_taken_away_misses_nothing_until_it_is_back(backend: str) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Life(journal, jobs=[job(missed="all")]) as life:
            await anyio.sleep(1.5 * HOUR)
            before = started(journal)
            life.server.undefine("job")
            await anyio.sleep(1)
            journal = await life.crash()
        await anyio.sleep(5 * HOUR)
        async with Life(journal, jobs=[job(missed="all")]) as life:
            await anyio.sleep(60)
            assert life.server.schedules["job", "hourly"].state.fired == len(before)
            assert started(journal) == before

    run_virtually(backend, main)

"""Schedules go on after a crash: each time is started once, whatever commit was the last one."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Self

import anyio
import attrs
import pytest
from recoveryworld import WORLD, Life, Note, World
from virtualtime import virtually

from scattersphere import JobDefinition, Server
from scattersphere.engine.timers import WallClock
from scattersphere.testing import MemoryJournal
from scattersphere.testing.clocks import running_clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scattersphere.schedules.driver import Clocks
    from scattersphere.schedules.schedule import Schedule

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

    def init(self: WallClock, clock: Callable[[], float], _: float | None = None) -> None:
        real(self, clock)
        epochs.append(BEGAN.timestamp() - clock())
        self._epoch = epochs[0]

    monkeypatch.setattr(WallClock, "__init__", init)


def job(path: str = "Note", **schedule: object) -> JobDefinition:
    fields = {"every": HOUR, **schedule}
    task = {"task": path, "args": {"name": {"$param": "at"}}}
    text = {
        "format": 2, "name": "job", "params": {"at": "none"}, "tasks": {"t": task},
        "schedules": {"hourly": {"params": {"at": {"$scheduled": "time"}}, **fields}},
    }  # fmt: skip
    return JobDefinition.loads(json.dumps(text))


class BundleLife(Life):
    """A life whose code comes from a file: the journal gets a copy of it, made in a thread, with the first run."""

    def __init__(self, file: Path, journal: MemoryJournal, **options: object) -> None:
        super().__init__(journal, classes=(), jobs=[], **options)
        self.file = file

    async def __aenter__(self) -> Self:
        clock = running_clock()
        clock.hold()  # code is loaded in threads
        try:
            await super().__aenter__()
            await self.server.register(self.file, name="app")
        finally:
            clock.release()
        self.server.define(job("app.Note", missed="all"))
        return self


def hourly(life: Life) -> Schedule:
    """Return the schedule of the job."""
    return life.server.schedules["job", "hourly"]


CODE = """
from scattersphere import RunnableTask
class Note(RunnableTask):
    name: str
    async def run(self, context):
        return self.name
"""


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
@virtually
async def test_each_time_is_started_once_whatever_commit_was_the_last(after: int) -> None:
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


@pytest.mark.parametrize("after", range(1, 16))
@virtually
async def test_so_is_it_where_code_must_be_copied_into_the_journal_before_the_first_run(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "app.py"
    file.write_text(CODE)

    async def takes_its_time(work: Callable[[], object]) -> object:
        await anyio.sleep(90)
        return work()

    monkeypatch.setattr("scattersphere.engine.recorder._in_thread", takes_its_time)

    journal = MemoryJournal()
    journal.crash_after = after
    async with BundleLife(file, journal) as life:
        began = life.server._scheduler.now()
        await anyio.sleep(50 * 60 + 30)
        hourly(life).pause()  # it is noted after the copy, too
        await anyio.sleep(10)
        hourly(life).resume()
        await anyio.sleep(1.5 * HOUR)
        journal = await life.crash()
    async with BundleLife(file, journal) as life:
        again = life.server._scheduler.now()
        hourly(life).resume()
        await anyio.sleep(1.2 * HOUR)
        times, ended = started(journal), life.server._scheduler.now()
    assert times == sorted(set(times))
    assert times == hours(began if after >= KNOWN else again, ended)


@virtually
async def test_a_time_and_its_run_are_one_commit() -> None:
    journal = MemoryJournal()
    fired = []

    def look(_: object) -> None:
        (row,) = journal._tables.schedules.values() or (None,)
        runs = [json.loads(run.scheduled)["time"] for run in journal._tables.runs.values()]
        fired.append((len(runs), 0 if row is None else json.loads(row.state)["fired"]))

    async with Life(journal, jobs=[job()]) as life:
        await anyio.sleep(1)
        journal.on_commit = look
        await anyio.sleep(3 * HOUR)
        journal.on_commit = None
        assert life.server.stats()["schedules"] == 1
    assert fired[-1] == (3, 3)
    assert all(runs == counted for runs, counted in fired)


@virtually
async def test_a_time_that_an_earlier_life_has_made_up_for_is_not_made_up_for_again() -> None:
    journal = MemoryJournal()
    since, ids = BEGAN - dt.timedelta(days=1), []
    for hours_more in (2, 4):
        async with Life(journal, jobs=[job()]) as life:
            schedule = hourly(life)
            until = since + dt.timedelta(hours=hours_more)
            planned = await schedule.backfill(since, until, dry_run=True)
            assert sorted(planned.runs.values()) == ids
            backfill = await (await schedule.backfill(since, until)).wait()
            ids = sorted(backfill.runs.values())
            assert (len(set(ids)), backfill.refused) == (hours_more, {})
            await life.server.start("job")  # the journal goes on
        journal = journal.again()
    assert len(journal.find_runs(limit=100)) == 6


@virtually
async def test_making_up_for_many_starts_ten_at_a_time_counting_those_of_the_earlier_life() -> None:
    slow = job(missed="all")
    slow = slow.evolve(tasks={"t": slow.tasks["t"].evolve(args={"name": "n", "gate": "g"})}, max_runs=100)

    journal = MemoryJournal()
    async with Life(journal, jobs=[slow]) as life:
        await anyio.sleep(4 * HOUR)
        assert len(started(journal)) == 4
        journal = await life.crash()
    await anyio.sleep(20 * HOUR)
    async with Life(journal, jobs=[slow]) as life:
        await anyio.sleep(60)
        assert len(started(journal)) == 10
        life.server.undefine("job")
        life.server.define(slow)
        await anyio.sleep(HOUR)
        assert len(started(journal)) == 10
        WORLD["now"].gate("g").set()
        await anyio.sleep(60)
        assert not life.server._scheduler.driver.waiting


@virtually
async def test_run_now_returns_when_the_run_is_durable() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job()]) as life, anyio.create_task_group() as tasks:
        await anyio.sleep(1)
        journal.auto, known = False, []

        async def ask() -> None:
            known.append(await hourly(life).run_now())

        tasks.start_soon(ask)
        await anyio.sleep(1)
        assert known == []
        journal.auto = True
        journal.commit_all()
        await anyio.sleep(1)
        assert len(known) == 1


@virtually
async def test_another_timing_while_the_clock_is_back_fires_no_time_again() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job()]) as life:
        await anyio.sleep(2.5 * HOUR)
        before = started(journal)
        journal = await life.crash()
    life = Life(journal, jobs=[job()])
    life.server._clocks = clocks_behind(life.server, 2 * HOUR)
    async with life:
        changed = job(every=HOUR / 2, params={"at": "another"})
        life.server.define(changed, replace=True)
        await anyio.sleep(1.8 * HOUR)
        assert started(journal) == before
        await anyio.sleep(0.7 * HOUR)
        assert len(started(journal)) == len(before) + 2
        assert not life.server.problems


def clocks_behind(server: Server, seconds: float) -> Callable[[], Clocks]:
    """Return what gives the clocks of a Server whose wall was put back."""
    clocks = server._clocks

    def behind() -> Clocks:
        known = clocks()
        return attrs.evolve(known, wall=lambda: known.wall() - dt.timedelta(seconds=seconds))

    return behind


@virtually
async def test_of_what_was_due_while_the_program_was_down_the_last_is_made_up_for() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job(catch_up_within=HOUR)]) as life:
        await anyio.sleep(1.5 * HOUR)
        before = started(journal)
        journal = await life.crash()
    await anyio.sleep(5 * HOUR)
    async with Life(journal, jobs=[job(catch_up_within=HOUR)]) as life:
        await anyio.sleep(60)
        now = life.server._scheduler.now()
        assert hourly(life).state.missed == 4
        assert started(journal) == [*before, now.replace(minute=0).isoformat()[:16]]


@virtually
async def test_a_paused_schedule_is_paused_in_the_next_life() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job()]) as life:
        hourly(life).pause()
        await anyio.sleep(1)
        journal = await life.crash()
    async with Life(journal, jobs=[job()]) as life:
        assert hourly(life).paused
        await anyio.sleep(2 * HOUR)
        assert started(journal) == []
        hourly(life).resume()


def defined_before(journal: MemoryJournal, definition: JobDefinition) -> Server:
    """Return a Server that is not entered yet, and whose job is defined."""
    server = Server(journal=journal, watch=False)
    server.register_tasks("app", [Note])
    server.define(definition)
    return server


@virtually
async def test_what_was_defined_before_the_server_was_entered_is_remembered_too() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job()]) as life:
        hourly(life).pause()
        await anyio.sleep(1)
        journal = await life.crash()
    async with defined_before(journal, job()) as server:
        assert server.schedules["job", "hourly"].paused


@virtually
async def test_downtime_counts_for_what_was_defined_before_the_server_was_entered() -> None:
    journal = MemoryJournal()
    async with Life(journal, jobs=[job(missed="all")]) as life:
        await anyio.sleep(1)
        journal = await life.crash()
    await anyio.sleep(3 * HOUR)
    async with defined_before(journal, job(missed="all")):
        await anyio.sleep(60)
        assert len(started(journal)) == 3


@virtually
async def test_a_schedule_that_was_taken_away_misses_nothing_until_it_is_back() -> None:
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
        assert hourly(life).state.fired == len(before)
        assert started(journal) == before

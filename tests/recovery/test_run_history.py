"""Runs that only the journal has: listed, looked at, followed and run again as if they had never left memory."""

import datetime as dt
import math

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, Note, World

from scattersphere import (
    ArgumentError,
    JobDefinition,
    NoSuchBundleError,
    NoSuchRunError,
    RetryPolicy,
    RunState,
    RunStateError,
    TaskDefinition,
)
from scattersphere.jobs import history
from scattersphere.journal import SqliteJournal
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio
NOTHING = {"history": (0, math.inf)}
"""Ended runs leave memory at once."""


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


def note(name, *upstreams, **fields):
    args = {key: fields.pop(key) for key in ("value", "gate", "fails") if key in fields}
    return TaskDefinition(task="Note", args={"name": name, **args}, depends_on=upstreams, **fields)


def job(name="etl", **tasks):
    return JobDefinition(name=name, tasks=tasks)


async def settle():
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def ended(life, name="etl"):
    run = await life.server.start(name)
    with anyio.fail_after(PATIENCE):
        await run.wait()
    return run


async def test_a_run_that_left_memory_is_as_it_was(world):
    jobs = [
        job(
            a=note("a", value={"x": [1, 2]}, fails=1, retry=RetryPolicy(max_attempts=2)),
            b=note("b", "a", fails=9),
            c=note("c", "b"),
        )
    ]
    async with Life(MemoryJournal(), jobs=jobs, **NOTHING) as life:
        run = await ended(life)
        assert run.id not in life.server.runs
        again = await life.server.history.get(run.id)
        assert again is not run
        assert (again.id, again.job, again.state, again.reason) == (
            run.id,
            "etl",
            RunState.FAILED,
            run.reason,
        )
        assert {name: str(status.state) for name, status in again.tasks.items()} == {
            "a": "succeeded", "b": "failed", "c": "upstream_failed",
        }  # fmt: skip
        for name in ("a", "b", "c"):
            mine, its = again.tasks[name], run.tasks[name]
            assert (mine.attempts, str(mine.failure)) == (its.attempts, str(its.failure))
            for time in ("started_at", "ended_at"):
                assert near(getattr(mine, time), getattr(its, time))
        assert again.results["a"] == {"x": [1, 2]}
        assert near(again.created_at, run.created_at)
        assert near(again.ended_at, run.ended_at)
        told = [
            (str(event.kind), event.task, event.attempt, str(event.state)) async for event in again.events()
        ]
        assert told == [
            (str(event.kind), event.task, event.attempt, str(event.state))
            async for event in run.events()
            if event.kind != "log"
        ]
        assert [line.message for line in again.logs()][:2] == [line.message for line in run.logs()][:2]
        assert "RuntimeError: failure 1" in again.explain()
        assert await life.server.history.get(run.id) is again  # who looks again finds it read
        await again.wait()
        with pytest.raises(RunStateError):
            again.cancel()


def near(mine, its):
    return (mine is None) is (its is None) and (mine is None or abs(mine - its) < dt.timedelta(seconds=0.01))


async def test_lists_have_runs_of_memory_and_of_the_journal_newest_first(world):
    jobs = [job(a=note("a", value=1)), job("bad", a=note("b", fails=9)), job("long", a=note("c", gate="g"))]
    async with Life(MemoryJournal(), jobs=jobs, history=(1, math.inf)) as life:
        runs = [await ended(life, name) for name in ("etl", "bad", "etl", "etl")]
        long = await life.server.start("long")
        history = life.server.history
        every = await history.list()
        assert [record.id for record in every] == [5, 4, 3, 2, 1]
        assert [record.is_in_memory for record in every] == [True, True, False, False, False]
        assert [record.id for record in await history.list(job="etl")] == [4, 3, 1]
        assert [record.id for record in await history.list(state="failed")] == [2]
        assert [record.id for record in await history.list(before=4, limit=2)] == [3, 2]
        assert [record.id for record in await history.list(since=runs[2].created_at)] == [5, 4, 3]
        assert [record.id for record in await history.list(where=lambda record: record.id % 2)] == [5, 3, 1]
        failed = every[3]
        assert failed.as_dict() | {"created_at": "", "started_at": "", "ended_at": ""} == {
            "id": 2, "job": "bad", "state": "failed", "reason": "", "created_at": "", "started_at": "",
            "ended_at": "", "parent": None, "key": None, "recovered": 0, "is_in_memory": False,
        }  # fmt: skip
        world.gate("g").set()
        await long.wait(PATIENCE)


async def test_without_a_journal_history_is_what_memory_has(world):
    async with Life(None, jobs=[job(a=note("a", value=1))]) as life:
        run = await ended(life)
        assert [record.id for record in await life.server.history.list()] == [run.id]
        assert await life.server.history.get(run.id) is run
        with pytest.raises(NoSuchRunError, match="no run 9"):
            await life.server.history.get(9)


async def test_what_cannot_be_meant_is_said(world):
    async with Life(MemoryJournal()) as life:
        history = life.server.history
        with pytest.raises(NoSuchRunError, match="neither in memory nor in the journal"):
            await history.get(9)
        with pytest.raises(ArgumentError, match="failed"):
            await history.list(state="faild")
        with pytest.raises(ArgumentError, match="time zone"):
            await history.list(since=dt.datetime(2026, 1, 1))
        with pytest.raises(ArgumentError, match="limit is at least 1"):
            await history.list(limit=0)


async def test_a_run_of_an_earlier_life_is_run_again_from_what_failed(world):
    jobs = [job(a=note("a", value=[1]), b=note("b", "a", fails=1), c=note("c", "b"))]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    first = await ended(life)
    assert first.state is RunState.FAILED
    async with Life(await life.crash(), jobs=jobs) as life:
        assert first.id not in life.server.runs
        again = await life.server.rerun(first.id)
        with anyio.fail_after(PATIENCE):
            await again.wait()
        assert again.state is RunState.SUCCEEDED
        assert (again.parent, again.results["a"]) == (first.id, [1])
        assert again.reused["a"].run == first.id
    assert dict(world.begun) == {"a": 1, "b": 2, "c": 1}


async def test_a_run_whose_code_is_gone_can_be_looked_at_and_says_so_where_it_is_run_again(world):
    life = await Life(
        MemoryJournal(), jobs=[job(a=note("a", value=[1]), b=note("b", "a", fails=1))]
    ).__aenter__()
    first = await ended(life)
    async with Life(await life.crash(), classes=()) as life:
        run = await life.server.history.get(first.id)
        assert run.results["a"] == [1]
        assert run.tasks["b"].failure.type == "RuntimeError"
        with pytest.raises(NoSuchBundleError, match="code that run 1 had is not here"):
            await life.server.rerun(first.id)
        life.server.register_tasks("app", [Note])
        assert (await (await life.server.rerun(first.id)).wait()).succeeded


async def test_a_result_that_was_not_kept_says_why(world):
    class Odd(Note):
        """Returns what no journal can keep."""

        async def run(self, context):
            return object()

    Odd.__qualname__ = "Odd"
    jobs = [JobDefinition(name="etl", tasks={"a": TaskDefinition(task="Odd", args={"name": "a"})})]
    async with Life(MemoryJournal(), classes=[Odd], jobs=jobs, **NOTHING) as life:
        run = await life.server.history.get((await ended(life)).id)
        with pytest.raises(KeyError, match=r"the journal does not have its result: .*object"):
            run.results["a"]


async def test_a_journal_on_disk_gives_them_in_the_next_process(world, tmp_path):
    tmp_path.chmod(0o700)
    jobs = [job(a=note("a", value=[1, "x"])), job("bad", a=note("b", fails=9))]
    async with Life(SqliteJournal(tmp_path / "runs.db"), jobs=jobs) as life:
        for name in ("etl", "bad", "etl"):
            await ended(life, name)
    async with Life(SqliteJournal(tmp_path / "runs.db")) as life:
        assert not life.server.runs
        assert [(r.id, str(r.state)) for r in await life.server.history.list()] == [
            (3, "succeeded"), (2, "failed"), (1, "succeeded"),
        ]  # fmt: skip
        assert [record.id for record in await life.server.history.list(job="etl", before=3)] == [1]
        run = await life.server.history.get(1, results=False)
        assert run.tasks["a"].state == "succeeded"
        assert (await life.server.history.get(1)).results["a"] == [1, "x"]


async def test_those_that_were_looked_at_last_are_not_read_again(world, monkeypatch):
    monkeypatch.setattr(history, "LOOKED_AT", 2)
    async with Life(MemoryJournal(), jobs=[job(a=note("a", value=1))], history=(1, math.inf)) as life:
        for _ in range(4):
            await ended(life)
        get = life.server.history.get
        first, second = await get(1), await get(2)
        assert await get(1) is first
        await get(3)
        assert await get(1) is first  # it was asked for after the second
        assert await get(2) is not second


async def test_a_search_that_finds_nothing_ends_and_says_where_it_goes_on(world, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 3)
    monkeypatch.setattr(history, "MOST_LOOKED_AT", 6)
    journal = MemoryJournal()
    reads = []
    find = journal.find_runs
    monkeypatch.setattr(journal, "find_runs", lambda **how: reads.append(how) or find(**how))
    async with Life(journal, jobs=[job(a=note("a", value=1))], history=(2, math.inf)) as life:
        for _ in range(20):
            await ended(life)
        list_ = life.server.history.list
        found = await list_(where=lambda record: record.id == 3)
        assert (list(found), found.before, len(reads)) == ([], 15, 2)
        while not found:
            reads.clear()
            found = await list_(where=lambda record: record.id == 3, before=found.before)
            assert len(reads) <= 2
        assert [record.id for record in found] == [3]
        assert found.before in {3, None}
        rest = await list_(where=lambda record: record.id == 1, before=3)
        assert ([record.id for record in rest], rest.before) == ([1], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 13, 50])
@pytest.mark.parametrize("kept", [0, 1, 5, 50])
async def test_pages_hold_every_run_once_whatever_memory_still_has(world, monkeypatch, limit, kept):
    monkeypatch.setattr(history, "PAGE", 2)
    monkeypatch.setattr(history, "MOST_LOOKED_AT", 4)
    odd = [{"where": lambda record: record.id % 2}, range(13, 0, -2)]
    async with Life(MemoryJournal(), jobs=[job(a=note("a", value=1))], history=(kept, math.inf)) as life:
        for _ in range(13):
            await ended(life)
        for how, numbers in ([{}, range(13, 0, -1)], odd):
            seen, before = [], None
            while True:
                found = await life.server.history.list(limit=limit, before=before, **how)
                assert len(found) <= limit
                seen += [record.id for record in found]
                before = found.before
                if before is None:
                    break
            assert seen == [*numbers]

"""Outcomes of one turn of the loop are written together; each of them is still one, whatever comes meanwhile."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from recoveryworld import WORLD, Life, World

from scattersphere import JobDefinition, RunnableTask
from scattersphere.abc.journal import MovesRow, StepRow, SuccessesRow
from scattersphere.model.states import RunState, TaskState
from scattersphere.testing.memory_journal import MemoryJournal

pytestmark = pytest.mark.anyio

MANY = 2_000


class NoOp(RunnableTask):
    async def run(self, context):
        return None


class OneTurn(RunnableTask):
    async def run(self, context):
        await anyio.lowlevel.checkpoint()


class Numbered(RunnableTask):
    number: int

    async def run(self, context):
        return [self.number]


@pytest.fixture
def world():
    WORLD["now"] = World()
    return WORLD["now"]


async def settle():
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


def wide(durability, count=MANY, task="NoOp"):
    build = JobDefinition.build("wide", durability=durability)
    for number in range(count):
        build.task(f"t{number}", task, **({"args": {"number": number}} if task == "Numbered" else {}))
    return build.done()


def rows_of(journal):
    """Return the rows as they are committed from now on."""
    rows = []
    journal.on_commit = lambda transaction: rows.extend(transaction.rows)
    return rows


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_tasks_that_succeed_in_a_turn_are_a_row_together(durability):
    """Ten times the task is what a row and a transaction for each would cost."""
    journal = MemoryJournal()
    async with Life(journal, classes=[NoOp], jobs=[wide(durability)]) as life:
        rows = rows_of(journal)
        await (await life.server.start("wide")).wait()
    together = [row for row in rows if isinstance(row, SuccessesRow)]
    assert sum(row.number for row in together) == MANY
    assert len(together) < MANY / 4
    assert not [row for row in rows if isinstance(row, StepRow)]
    assert len([row for row in rows if isinstance(row, MovesRow)]) < MANY / 4
    (stored,) = journal.again().read_runs([1])
    assert [step.unit for step in stored.steps] == list(range(MANY))


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_each_has_its_value_after_a_restart(durability):
    journal = MemoryJournal()
    definition = wide(durability, 100, "Numbered")
    async with Life(journal, classes=[Numbered], jobs=[definition]) as life:
        await (await life.server.start("wide")).wait()
    async with Life(journal.again(), classes=[Numbered], jobs=[definition]) as life:
        (stored,) = life.journal.read_runs([1])
        assert [step.value for step in stored.steps] == [b"[%d]" % number for number in range(100)]


async def test_a_cancel_that_comes_when_a_body_has_returned_takes_nothing_of_its_result_back(world):
    """The row of the result was written over by one that said `cancelling`: after a crash it was cancelled."""
    build = JobDefinition.build("etl")
    build.task("a", "Note", args={"name": "a", "value": 1, "gate": "a"})
    build.task("b", "Note", args={"name": "b"}, depends_on=["a"])
    journal = MemoryJournal()
    life = await Life(journal, jobs=[build.done()]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    journal.auto = False
    world.gate("a").set()
    while not run.execution.recording.at_gate:
        await anyio.lowlevel.checkpoint()
    run.cancel()
    await settle()
    together = [row for transaction in journal.waiting for row in transaction.rows]
    journal.waiting.clear()
    journal.write(together)  # as a commit does that has taken long
    journal.commit()
    after = await life.crash()
    (stored,) = after.read_runs([run.id])
    states = {step.unit: tuple(TaskState)[step.state] for step in stored.steps}
    assert states == {0: TaskState.SUCCEEDED, 1: TaskState.CANCELLED}
    after.auto = True
    async with Life(after) as life:
        run = await life.server.runs[run.id].wait()
        assert run.state is RunState.CANCELLED
        assert [str(task.state) for task in run.tasks.values()] == ["succeeded", "cancelled"]
    assert dict(world.begun) == {"a": 1}


async def test_relaxed_runs_hold_too_while_too_much_of_them_is_not_committed(monkeypatch):
    monkeypatch.setattr("scattersphere.engine.recorder.BACKLOG_ROWS", 10)
    build = JobDefinition.build("chain")
    for number in range(40):
        before = [f"t{number - 1}"] if number else []
        build.task(f"t{number}", "OneTurn", depends_on=before)
    journal = MemoryJournal()
    async with Life(journal, classes=[OneTurn], jobs=[build.done().evolve(durability="relaxed")]) as life:
        run = await life.server.start("chain")
        journal.auto = False
        for _ in range(20):
            await settle()
        ended = sum(status.state.ended for status in run.tasks.values())
        assert ended < 40
        for _ in range(20):
            await settle()
        assert sum(status.state.ended for status in run.tasks.values()) == ended  # all hold
        journal.auto = True
        journal.commit_all()
        await run.wait()
        assert run.state is RunState.SUCCEEDED

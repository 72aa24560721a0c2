"""An attempt that refuses to end is given up: also that is believed only when it is durable."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from recoveryworld import Life
from virtualtime import virtually

from scattersphere import JobDefinition, RunnableTask, RunState, TaskDefinition
from scattersphere.engine.machine.codes import CANCELLED, FAILED
from scattersphere.testing import MemoryJournal

SEEN: list[str] = []
LET_GO: dict[str, anyio.Event] = {}


class Refuser(RunnableTask):
    """Goes on whatever it is asked, until the test lets it go."""

    async def run(self, context):
        SEEN.append("begun")
        while not LET_GO["event"].is_set():
            with suppress(anyio.get_cancelled_exc_class()), anyio.CancelScope(shield=True):
                await LET_GO["event"].wait()
        return "late"


class Tidy(RunnableTask):
    """Notes that it was there."""

    async def run(self, context):
        SEEN.append("tidied")


def life_on(journal, how="cancel"):
    """A life with a job whose task refuses, and may be timed out."""
    refuser = TaskDefinition(task="Refuser", timeout=5 if how == "timeout" else None, pool="p")
    tasks = {"r": refuser, "tidy": TaskDefinition(task="Tidy", finally_=True)}
    job = JobDefinition(name="job", tasks=tasks)
    return Life(journal, classes=[Refuser, Tidy], jobs=[job], pools={"p": 1})


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


async def settle():
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def refusing(life, journal, how):
    """Let a run be cancelled, or time out, and its attempt refuse; nothing is committed since."""
    LET_GO["event"] = anyio.Event()
    run = await life.server.start("job")
    await settle()
    journal.auto = False
    if how == "cancel":
        run.cancel()
    await anyio.sleep(8)  # the grace is over
    return run


STATES = {"cancel": ("cancelling", "cancelled"), "timeout": ("cancelling", "failed")}
how_it_is_asked = pytest.mark.parametrize("how", STATES)


@how_it_is_asked
@virtually
async def test_nothing_is_seen_of_it_and_nothing_starts_before_that_is_committed(how):
    journal = MemoryJournal()
    async with life_on(journal, how) as life:
        run = await refusing(life, journal, how)
        before, after = STATES[how]
        assert run.tasks["r"].state == before
        assert SEEN == ["begun"]
        assert not life.server.stuck
        journal.auto = True
        journal.commit_all()
        await settle()
        assert run.tasks["r"].state == after
        assert SEEN == ["begun", "tidied"]
        assert list(life.server.stuck) == ["job#1/r"]
        LET_GO["event"].set()
        await run.wait()
        await settle()
        assert not life.server.stuck
        assert run.tasks["r"].state == after
        (stored,) = journal.read_runs([run.id])
        assert [step.state for step in stored.steps if step.task == 0] == [
            {"cancelled": CANCELLED, "failed": FAILED}[after]
        ]


@how_it_is_asked
@virtually
async def test_what_it_returns_before_that_is_committed_comes_too_late(how):
    journal = MemoryJournal()
    async with life_on(journal, how) as life:
        run = await refusing(life, journal, how)
        LET_GO["event"].set()
        await settle()
        before, after = STATES[how]
        assert run.tasks["r"].state == before
        journal.auto = True
        journal.commit_all()
        await run.wait()
        assert run.tasks["r"].state == after
        assert not life.server.stuck
        (stored,) = journal.read_runs([run.id])
        (step,) = [step for step in stored.steps if step.task == 0]
        assert step.value is None
        assert [step.form for step in stored.steps if step.task == 0] == [0]
        again = await life.server.start("job")  # its place of the pool is free
        await again.wait()
        assert again.tasks["r"].state == "succeeded"


@virtually
async def test_killed_meanwhile_it_comes_to_the_same():
    journal = MemoryJournal()
    async with life_on(journal) as life:
        run = await refusing(life, journal, "cancel")
        run.kill()
        await anyio.sleep(60)
        assert run.tasks["r"].state == "cancelling"
        journal.auto = True
        journal.commit_all()
        await anyio.sleep(60)
        assert run.state is RunState.CANCELLED
        LET_GO["event"].set()
        await settle()
        assert not life.server.stuck


@how_it_is_asked
@virtually
async def test_crashed_before_that_was_committed_it_is_as_it_was_asked(how):
    journal = MemoryJournal()
    life = await life_on(journal, how).__aenter__()
    run = await refusing(life, journal, how)
    after = journal.crash()
    LET_GO["event"].set()
    await life.server.aclose(finish=0)
    LET_GO["event"] = anyio.Event()
    after.auto = True
    async with life_on(after, how) as life:
        run = life.server.runs[run.id]
        LET_GO["event"].set()
        await run.wait()
        assert run.state.ended

"""A body that is executed again after a restart may be quicker than its program, which defines the job of its child."""

import anyio
import pytest
from recoveryworld import WORLD, Life, Note, Parent, World
from virtualtime import virtually

from scattersphere import JobDefinition, RunState, TaskDefinition
from scattersphere.testing import MemoryJournal

PARENT = JobDefinition(name="parent", tasks={"p": TaskDefinition(task="Parent")})
CHILD = JobDefinition(name="child", tasks={"c": TaskDefinition(task="Note", args={"name": "c", "value": 1})})


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


async def crashed_before_its_child():
    """Return the journal of a life in which a parent could not start its child yet."""
    journal = MemoryJournal()
    life = Life(journal, classes=[Parent, Note], jobs=[PARENT, CHILD])
    await life.__aenter__()
    journal.auto = False
    async with anyio.create_task_group() as group:
        group.start_soon(life.server.start, "parent")
        await anyio.sleep(1)
        journal.commit()
        await anyio.sleep(1)
    journal.auto = True  # what waits is lost all the same
    after = await life.crash()
    assert len(after.read_runs([1, 2])) == 1
    return after


@virtually
@pytest.mark.parametrize("late", ["job", "code"])
async def test_a_body_waits_for_the_job_of_its_child_while_the_program_starts(late):
    after = await crashed_before_its_child()
    life = Life(after, classes=[Parent], jobs=[CHILD] if late == "code" else [])
    async with life:
        run = life.server.runs[1]
        await anyio.sleep(5)
        assert run.state is RunState.RUNNING
        (line,) = [line.message for line in run.logs() if "not there yet after the restart" in line.message]
        assert "child" in line
        if late == "job":
            life.server.define(CHILD)
        await anyio.sleep(1)
        life.server.register_tasks("notes", [Note])
        await run.wait()
        assert run.state is RunState.SUCCEEDED
        assert WORLD["now"].begun["c"] == 1
        assert len(life.server.runs) == 2


@virtually
async def test_a_job_that_never_comes_is_missed_when_the_program_has_had_its_time():
    after = await crashed_before_its_child()
    async with Life(after, classes=[Parent], load_timeout=10) as life:
        run = life.server.runs[1]
        began = anyio.current_time()
        await run.wait()
        assert run.state is RunState.FAILED
        assert "no job 'child'" in str(run.failures["p"])
        assert anyio.current_time() - began <= 11


@virtually
async def test_a_new_run_waits_for_nothing():
    async with Life(MemoryJournal(), classes=[Parent], jobs=[PARENT]) as life:
        began = anyio.current_time()
        run = await (await life.server.start("parent")).wait()
        assert run.state is RunState.FAILED
        assert anyio.current_time() == began

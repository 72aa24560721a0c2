"""What is asked of a parent whose child still waits for its code reaches that child when its code is there."""

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, Note, Parent, World

from scattersphere import JobDefinition, RunState, TaskDefinition
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


async def settle():
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_paused", [True, False])
async def test_what_is_asked_of_a_parent_reaches_a_child_whose_code_comes_later(world, is_paused):
    options = {
        "classes": (Parent,),
        "jobs": [JobDefinition(name="parent", tasks={"p": TaskDefinition(task="Parent")})],
    }
    c = TaskDefinition(task="Note", args={"name": "c", "gate": "c"})
    options["jobs"].append(JobDefinition(name="child", tasks={"c": c}))
    life = Life(MemoryJournal(), **options)
    async with life.server:
        life.server.register_tasks("app", [Parent])
        life.server.register_tasks("notes", [Note])
        for job in options["jobs"]:
            life.server.define(job)
        run = await life.server.start("parent")
        await settle()
        if is_paused:
            run.pause()
            await settle()
        after = await life.crash()
    async with Life(after, **options) as life:
        run, child = life.server.runs[run.id], life.server.runs[run.id + 1]
        await settle()
        assert "code" in child.waits_for
        (run.resume if is_paused else run.pause)()
        await settle()
        life.server.register_tasks("notes", [Note])
        asked = RunState.RUNNING if is_paused else RunState.PAUSED
        with anyio.fail_after(PATIENCE):
            while "code" in child.waits_for or child.state is not asked:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        world.gate("c").set()
        if not is_paused:
            run.resume()
        with anyio.fail_after(PATIENCE):
            assert (await run.wait()).state is RunState.SUCCEEDED

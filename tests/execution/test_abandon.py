"""What a kill does to bodies on asyncio that raise while they are closed."""

import anyio
import pytest

from scattersphere import RunnableTask, RunState, Server


class InScope(RunnableTask):
    """Refuse to end, inside a scope that may only be left in its own task."""

    async def run(self, context):
        context.log.info("up")
        with anyio.CancelScope(shield=True):
            while True:
                try:
                    await anyio.sleep(600)
                except anyio.get_cancelled_exc_class():
                    context.log.info("no")


class Loud(RunnableTask):
    """Refuse to end, and raise while it is closed."""

    async def run(self, context):
        context.log.info("up")
        try:
            while True:
                try:
                    await anyio.sleep(600)
                except anyio.get_cancelled_exc_class():
                    context.log.info("no")
        finally:
            raise ValueError("loud")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has no way to close a coroutine
@pytest.mark.parametrize("task", ["InScope", "Loud"])
async def test_a_kill_ends_a_refuser_that_raises_while_it_is_closed(task):
    async with Server() as server:
        server.register_tasks("app", [InScope, Loud])
        run = await server.start_task(task)
        while not run.logs():
            await anyio.lowlevel.checkpoint()
        run.kill()
        await run.wait(60)
        assert run.state is RunState.CANCELLED
        assert not run.stuck
        assert [line.message for line in run.logs()] == ["up", "no"]

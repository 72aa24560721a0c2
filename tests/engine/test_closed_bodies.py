"""A body that refuses a kill is closed: what it raises then is told once, and stays."""

import asyncio
import logging

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

from scattersphere import RunnableTask, RunState, Server

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Sulks(RunnableTask):
    """Swallows its cancels, and raises when it is closed."""

    async def run(self, context):
        del context
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
            except GeneratorExit:
                raise ValueError("closed") from None


async def test_what_a_body_raises_when_it_is_closed_is_why_it_failed_and_is_told_once(caplog):
    async with Server(watch=False) as server:
        server.register_tasks("app", [Sulks])
        run = await server.start_task("Sulks")
        with anyio.fail_after(PATIENCE):
            while not run.execution.live:
                await anyio.lowlevel.checkpoint()
        with caplog.at_level(logging.ERROR, logger="scattersphere"):
            run.kill()
            await run.wait(PATIENCE)
        assert run.state is RunState.CANCELLED
        assert str(run.tasks["Sulks"].failure) == "ValueError: closed"
        told = [record.getMessage() for record in caplog.records if "task Sulks" in record.getMessage()]
        assert told == [f"task Sulks#{run.id}/Sulks failed: ValueError: closed"]

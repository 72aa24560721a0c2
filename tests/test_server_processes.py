"""A Server whose tasks run in worker processes: what they give back, and that their deaths are theirs alone."""

import os

import pytest

from scattersphere import JobDefinition, RunState, Server, TaskState

pytestmark = pytest.mark.anyio

BUNDLE = '''
import os, time
from scattersphere import RunnableTask

class Pid(RunnableTask):
    """Say where it runs."""

    def run(self, context):
        context.log.info("in a worker")
        return os.getpid()

class Die(RunnableTask):
    """End the process."""

    def run(self, context):
        os._exit(3)

class Fail(RunnableTask):
    """Fail in the ordinary way."""

    def run(self, context):
        raise ValueError("kaputt")

class Stone(RunnableTask):
    """Never end, and never look whether it should."""

    def run(self, context):
        while True:
            time.sleep(0.05)
'''


@pytest.fixture
async def server(tmp_path):
    path = tmp_path / "work.py"
    path.write_text(BUNDLE)
    async with Server(grace=0.2, processes=2) as server:
        await server.register(path)
        yield server


async def start(server, name):
    job = JobDefinition.build(name.lower()).task("t", f"work.{name}", backend="process").done()
    server.define(job)
    return await server.start(job.name)


async def test_result_and_log_come_back_from_another_process(server):
    run = await (await start(server, "Pid")).wait(60)
    assert run.succeeded, run.explain()
    assert run.results["t"] != os.getpid()
    assert [line.message for line in run.logs(task="t")] == ["in a worker"]


async def test_a_process_that_ends_crashes_its_task_and_nothing_else(server):
    run = await (await start(server, "Die")).wait(60)
    assert run.tasks["t"].state is TaskState.CRASHED
    assert "exit code 3" in run.explain()
    assert (await (await start(server, "Pid")).wait(60)).succeeded


async def test_a_failure_keeps_its_type_message_and_source(server):
    run = await (await start(server, "Fail")).wait(60)
    assert run.state is RunState.FAILED
    assert "ValueError: kaputt" in run.explain()
    assert 'raise ValueError("kaputt")' in run.explain()


async def test_a_kill_ends_a_process_that_listens_to_nobody(server):
    run = await start(server, "Stone")
    run.kill()
    await run.wait(60)
    assert run.state is RunState.CANCELLED
    assert not run.stuck

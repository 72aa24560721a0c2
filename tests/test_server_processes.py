"""A Server whose tasks run in worker processes: what they give back, and that their deaths are theirs alone."""

import os

import pytest
from patience import PATIENCE

from scattersphere import EventKind, JobDefinition, RunState, Server, TaskState, result

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

class Step(RunnableTask):
    """Report progress, and hold where it is told to."""

    def run(self, context):
        context.progress(1, 2, "half")
        while True:
            context.check()

class Echo(RunnableTask):
    """Return what it is given, times so many."""

    value: object
    times: int = 1

    def run(self, context):
        return self.value * self.times

class Odd(RunnableTask):
    """Return what cannot be sent."""

    def run(self, context):
        return lambda: 1

class Make(RunnableTask):
    """Return what cannot be sent, to a task on the loop."""

    async def run(self, context):
        return lambda: 1

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
    run = await (await start(server, "Pid")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert run.results["t"] != os.getpid()
    assert [line.message for line in run.logs(task="t")] == ["in a worker"]


async def test_a_process_that_ends_crashes_its_task_and_nothing_else(server):
    run = await (await start(server, "Die")).wait(PATIENCE)
    assert run.tasks["t"].state is TaskState.CRASHED
    assert "exit code 3" in run.explain()
    assert (await (await start(server, "Pid")).wait(PATIENCE)).succeeded


async def test_a_failure_keeps_its_type_message_and_source(server):
    run = await (await start(server, "Fail")).wait(PATIENCE)
    assert run.state is RunState.FAILED
    assert "ValueError: kaputt" in run.explain()
    assert 'raise ValueError("kaputt")' in run.explain()


async def test_a_kill_ends_a_process_that_listens_to_nobody(server):
    run = await start(server, "Stone")
    run.kill()
    await run.wait(PATIENCE)
    assert run.state is RunState.CANCELLED
    assert not run.stuck


async def test_progress_pause_and_cancel_travel(server):
    run = await start(server, "Step")
    async for event in run.events():
        if event.kind is EventKind.TASK_PROGRESS:
            assert (event.done, event.total, event.message) == (1, 2, "half")
            break
    run.pause()
    async for event in run.events():
        if event.kind is EventKind.RUN_PAUSED:
            break
    run.resume()
    run.cancel()
    assert (await run.wait(PATIENCE)).state is RunState.CANCELLED
    assert not run.stuck


async def test_what_cannot_be_sent_is_named(server):
    job = JobDefinition.build("make").task("made", "work.Make")
    server.define(job.task("t", "work.Echo", args={"value": result("made")}, backend="process").done())
    run = await (await server.start("make")).wait(PATIENCE)
    assert run.tasks["t"].state is TaskState.FAILED
    assert (
        "the argument 'value' (a function) cannot be sent to a worker process"
        in run.tasks["t"].failure.message
    )
    run = await (await start(server, "Odd")).wait(PATIENCE)
    assert "its result (a function) cannot be sent from the worker process" in run.tasks["t"].failure.message


async def test_large_values_come_back(server):
    job = JobDefinition.build("big").task("t", "work.Echo", args={"value": "x" * 1000, "times": 20_000})
    job = job.task("u", "work.Echo", args={"value": result("t")}, backend="process")
    server.define(job.done())
    run = await (await server.start("big")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert len(run.results["u"]) == 20_000_000

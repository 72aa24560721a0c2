"""Two hundred runs side by side: each line, each context variable and each failure stays in its own run."""

import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Server, param

pytestmark = pytest.mark.anyio

RUNS = 200

BUNDLE = """
import contextvars
import logging
import threading

import anyio

from scattersphere import RunnableTask

log = logging.getLogger(__name__)
mine = contextvars.ContextVar("mine", default=None)


def say(context, number):
    assert mine.get() is None, "another body's context is seen here"
    mine.set(number)
    context.log.info("log %d", number)
    log.warning("logger %d", number)
    print(f"print {number}")


class OnLoop(RunnableTask):
    number: int

    async def run(self, context):
        say(context, self.number)
        await anyio.lowlevel.checkpoint()
        assert mine.get() == self.number
        log.info("again %d", self.number)


class InThread(RunnableTask):
    number: int

    def run(self, context):
        say(context, self.number)
        assert mine.get() == self.number
        log.info("again %d", self.number)


class InProcess(InThread):
    pass


class Fails(RunnableTask):
    number: int

    async def run(self, context):
        raise ValueError(f"broken {self.number}")
"""


async def test_no_line_and_no_context_variable_gets_into_another_run(tmp_path):
    bundle = tmp_path / "talk.py"
    bundle.write_text(BUNDLE)
    job = JobDefinition.build("talk", params={"number": 0})
    for name in ("OnLoop", "InThread", "Fails"):
        job = job.task(name, f"talk.{name}", args={"number": param("number")})
    async with Server(capture_print=True, history=(RUNS, 3600.0)) as server:
        await server.register(bundle)
        server.define(job.done())
        runs = [await server.start("talk", {"number": number}) for number in range(RUNS)]
        for number, run in enumerate(runs):
            await run.wait(PATIENCE)
            said = [f"{word} {number}" for word in ("log", "logger", "print", "again")]
            for name in ("OnLoop", "InThread"):
                lines = run.logs(name)
                assert [line.message for line in lines] == said
                assert {(line.run, line.task, line.attempt) for line in lines} == {(run.id, name, 1)}
                assert [line.logger for line in lines] == ["task", "talk", "print", "talk"]
            (failure,) = run.logs("Fails")
            assert f"ValueError: broken {number}" in failure.message
            assert len(run.logs()) == 9


async def test_lines_of_processes_are_in_their_runs(tmp_path):
    bundle = tmp_path / "talk.py"
    bundle.write_text(BUNDLE)
    job = JobDefinition.build("talk", params={"number": 0})
    job = job.task("p", "talk.InProcess", args={"number": param("number")}, backend="process")
    async with Server(capture_print=True, processes=2) as server:
        await server.register(bundle)
        server.define(job.done())
        runs = [await server.start("talk", {"number": number}) for number in range(10)]
        for number, run in enumerate(runs):
            await run.wait(PATIENCE)
            assert run.succeeded, run.explain()
            assert [line.message for line in run.logs("p")] == [
                f"{word} {number}" for word in ("log", "logger", "print", "again")
            ]
            kinds = [str(event.kind) async for event in run.events()]
            assert kinds == ["run-started", "task-started", *["log"] * 4, "task-ended", "run-ended"]

# ruff: noqa: T201 - prints are what is tested
"""Where lines go that tasks write by standard means: into the log of their own run, and of no other (promise 8)."""

import logging
import logging.config
import sys
import threading
from contextlib import asynccontextmanager

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server

pytestmark = pytest.mark.anyio

BUNDLE = '''
import contextvars, logging, threading
import anyio
from scattersphere import RunnableTask

log = logging.getLogger(__name__)
log.info("imported")
seen = contextvars.ContextVar("seen", default=None)

class Base(RunnableTask):
    """Write by all means, several times, and say what another body has left behind."""

    word: str
    times: int = 2

    def say(self, context, number):
        log.info("logger %s %d", self.word, number)
        context.log.info("context %s %d", self.word, number)
        print("print", self.word, number)

    def mark(self):
        before = seen.get()
        seen.set(self.word)
        return before

class OnLoop(Base):
    """On the loop."""

    async def run(self, context):
        before = self.mark()
        for number in range(self.times):
            self.say(context, number)
            await anyio.lowlevel.checkpoint()
        assert seen.get() == self.word
        return before

class Elsewhere(Base):
    """In a thread or a process."""

    def run(self, context):
        before = self.mark()
        for number in range(self.times):
            self.say(context, number)
        return before

class Stray(RunnableTask):
    """Log in a thread of its own, with and without the task's context."""

    def run(self, context):
        inherit = contextvars.copy_context()
        for target in (lambda: log.warning("astray"), lambda: inherit.run(log.warning, "at home")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
'''

PLACES = [("OnLoop", "loop"), ("Elsewhere", "thread"), ("Elsewhere", "process"), ("OnLoop", "process")]


@asynccontextmanager
async def talking(tmp_path):
    """Enter a Server; no fixture, because pytest puts its own standard output in place after those."""
    path = tmp_path / "talk.py"
    path.write_text(BUNDLE)
    async with Server(grace=0.2, processes=2, capture_print=True) as server:
        await server.register(path)
        yield server


def job(name, backend, **task):
    return JobDefinition.build(f"{name}-{backend}").task("t", f"talk.{name}", backend=backend, **task).done()


async def start(server, name, backend, word):
    definition = job(name, backend, args={"word": word})
    server.define(definition, replace=True)
    return await server.start(definition.name)


@pytest.mark.parametrize(("name", "backend"), PLACES)
async def test_loggers_and_prints_of_a_bundle_reach_the_log_of_the_run(tmp_path, name, backend, capfd):
    async with talking(tmp_path) as server:
        run = await (await start(server, name, backend, "w")).wait(PATIENCE)
        assert run.succeeded, run.explain()
        assert [(line.logger, line.message) for line in run.logs(task="t")] == [
            (logger, f"{word} w {number}")
            for number in range(2)
            for logger, word in (("talk", "logger"), ("task", "context"), ("print", "print"))
        ]
        for line in run.logs():
            assert (line.run, line.task, line.index, line.attempt, line.level) == (
                run.id,
                "t",
                None,
                1,
                logging.INFO,
            )
            assert run.started_at <= line.time <= run.ended_at
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "backend"), PLACES[:3])
async def test_no_line_lands_in_a_wrong_run_with_200_runs_side_by_side(tmp_path, name, backend):
    async with talking(tmp_path) as server:
        runs = [await start(server, name, backend, f"run{number}") for number in range(200)]
        for number, run in enumerate(runs):
            await run.wait(PATIENCE)
            assert run.succeeded, run.explain()
            lines = run.logs()
            assert len(lines) == 6
            assert {line.message.split()[1] for line in lines} == {f"run{number}"}
            assert {line.run for line in lines} == {run.id}
        # What one body has set in a context variable no other one has seen.
        assert {run.results["t"] for run in runs} == {None}


async def test_what_a_module_logs_while_it_is_imported_is_kept_by_the_server(tmp_path):
    async with talking(tmp_path) as server:
        (line,) = server.bundle_logs()
        assert (line.run, line.task, line.logger, line.message) == (0, "", "talk", "imported")


async def test_a_worker_process_sends_home_what_a_module_logs_while_it_is_imported(tmp_path):
    async with talking(tmp_path) as server:
        run = await (await start(server, "Elsewhere", "process", "w")).wait(PATIENCE)
        assert [line.message for line in server.bundle_logs()] == ["imported", "imported"]
        assert "imported" not in {line.message for line in run.logs()}


@pytest.mark.parametrize("backend", ["thread", "process"])
async def test_a_thread_without_the_tasks_context_is_filed_with_the_server_and_nowhere_else(
    tmp_path, backend
):
    async with talking(tmp_path) as server:
        definition = job("Stray", backend)
        server.define(definition)
        other = await start(server, "OnLoop", "loop", "other")
        run = await (await server.start(definition.name)).wait(PATIENCE)
        await other.wait(PATIENCE)
        assert [line.message for line in run.logs()] == ["at home"]
        assert "astray" not in {line.message for line in other.logs()}
        assert [line.message for line in server.bundle_logs()].count("astray") == 1


async def test_strays_are_kept_by_the_server_whose_bundle_it_is(tmp_path):
    async with talking(tmp_path) as server:
        path = tmp_path / "talk2.py"
        path.write_text(BUNDLE.replace('"imported"', '"imported two"'))
        async with Server() as second:
            await second.register(path)
            assert [line.message for line in second.bundle_logs()] == ["imported two"]
            assert [line.message for line in server.bundle_logs()] == ["imported"]


class HostTask(RunnableTask):
    """Print from a class of the host."""

    def run(self, context):
        print("to whom it may concern")


async def test_prints_go_to_the_run_only_where_its_server_has_asked(tmp_path, capfd):
    async with talking(tmp_path) as server:
        server.register_tasks("app", [HostTask])
        async with Server() as second:
            second.register_tasks("app", [HostTask])
            silent = await (await second.start_task("HostTask")).wait(PATIENCE)
            asked = await (await server.start_task("HostTask")).wait(PATIENCE)
        assert [line.message for line in asked.logs()] == ["to whom it may concern"]
        assert silent.logs() == []
        assert capfd.readouterr().out == "to whom it may concern\n"


async def test_the_process_is_as_it_was_when_the_last_server_has_left():
    bundles = logging.getLogger("scattersphere.bundles")

    def attached():
        logs = (bundles.level, bundles.propagate, bundles.handlers[:], logging.getLoggerClass())
        return (sys.stdout, *logs, threading.active_count())

    before = attached()
    async with Server(capture_print=True), Server(capture_print=True):
        assert sys.stdout is not before[0]
        assert logging.getLoggerClass() is not before[4]
    assert attached() == before


class Fails(RunnableTask):
    """On the loop or in a thread: a line, then an error."""

    async def run(self, context):
        context.log.info("a line")
        raise ValueError("boom")


class FailsInThread(RunnableTask):
    def run(self, context):
        context.log.info("a line")
        raise ValueError("boom")


@pytest.mark.parametrize("backend", [None, "process"])
async def test_why_a_task_failed_is_in_the_log_though_the_host_has_switched_logging_off(tmp_path, backend):
    bundle = tmp_path / "app.py"
    bundle.write_text(
        "import logging\nfrom scattersphere import RunnableTask\nlog = logging.getLogger(__name__)\n"
        "class Fails(RunnableTask):\n    async def run(self, context):\n"
        "        log.info('a line')\n        raise ValueError('boom')\n"
    )
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    enabled = [one for one in loggers if not one.disabled]
    async with Server() as server:
        server.register_tasks("host", [Fails, FailsInThread])
        await server.register(bundle)
        logging.config.dictConfig({"version": 1})
        logging.disable(logging.CRITICAL)
        try:
            for task in ("Fails", "FailsInThread", "app.Fails"):
                job = JobDefinition.build("j").task("t", task, backend=backend if "app" in task else None)
                server.define(job.done(), replace=True)
                run = await (await server.start("j")).wait()
                line, failure = (line.message for line in run.logs())
                assert line == "a line"
                assert "raise ValueError" in failure
                assert failure in run.explain().replace("    Traceback", "Traceback", 1).replace(
                    "\n    ", "\n"
                )
        finally:
            logging.disable(logging.NOTSET)
            for one in enabled:
                one.disabled = False


class PrintsOnLoop(RunnableTask):
    fails: bool = False

    async def run(self, context):
        print("on its", end="")
        if self.fails:
            raise ValueError("no")
        print(" way", end="")


class PrintsInThread(RunnableTask):
    fails: bool = False

    def run(self, context):
        print("on its", end="")
        if self.fails:
            raise ValueError("no")
        print(" way", end="")


class PrintsInChildren(RunnableTask):
    async def run(self, context):
        async def child(number):
            print("child", number, end="")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child, 0)
        await anyio.to_thread.run_sync(lambda: print("thread", end=""))


@pytest.mark.parametrize("task", [PrintsOnLoop, PrintsInThread])
async def test_a_print_without_its_newline_is_in_the_log_before_the_attempt_has_ended(task):
    async with Server(capture_print=True) as server:
        server.register_tasks("app", [task])
        run = await (await server.start_task(task.__name__)).wait()
        assert [line.message for line in run.logs()] == ["on its way"]
        kinds = [str(event.kind) async for event in run.events()]
        assert kinds.index("log") < kinds.index("task-ended")
        run = await (await server.start_task(task.__name__, {"fails": True})).wait()
        words, failure = (line.message for line in run.logs())
        assert words == "on its"
        assert "ValueError: no" in failure


async def test_what_the_tasks_and_threads_of_a_body_print_without_a_newline_is_there_too():
    async with Server(capture_print=True) as server:
        server.register_tasks("app", [PrintsInChildren])
        run = await (await server.start_task("PrintsInChildren")).wait()
        assert [line.message for line in run.logs()] == ["child 0", "thread"]


async def test_a_print_without_its_newline_comes_from_a_worker_process_in_time(tmp_path):
    bundle = tmp_path / "app.py"
    bundle.write_text(
        "from scattersphere import RunnableTask\nclass Prints(RunnableTask):\n"
        "    def run(self, context):\n        print('half', end='')\n"
        "class PrintsAsync(RunnableTask):\n"
        "    async def run(self, context):\n        print('half', end='')\n"
    )
    async with Server(capture_print=True) as server:
        await server.register(bundle)
        job = JobDefinition.build("j").task("plain", "app.Prints", backend="process")
        server.define(job.task("async", "app.PrintsAsync", backend="process").done())
        run = await (await server.start("j")).wait()
        assert sorted((line.task, line.message) for line in run.logs()) == [
            ("async", "half"),
            ("plain", "half"),
        ]

"""Tasks of bundles in worker processes, driven by a real Server."""

from __future__ import annotations

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Server
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.model.states import RunState, TaskState

pytestmark = pytest.mark.anyio

BUNDLE = """
import logging
import os
import time
from scattersphere import RunnableTask, TaskContext

VERSION = {version}

class Point:
    def __init__(self, x):
        self.x = x

class LoadError(Exception):
    pass

class Make(RunnableTask):
    x: int
    def run(self, context: TaskContext):
        logging.getLogger(__name__).info("made in %d", os.getpid() != {pid})
        return Point(self.x)

class Read(RunnableTask):
    point: object
    def run(self, context: TaskContext):
        import lazy
        return [self.point.x, type(self.point) is Point, VERSION, lazy.VERSION, os.getpid()]

class Fail(RunnableTask):
    def run(self, context: TaskContext):
        raise LoadError("no such day")

class Crash(RunnableTask):
    def run(self, context: TaskContext):
        os.kill(os.getpid(), 11)

class Wait(RunnableTask):
    def run(self, context: TaskContext):
        context.log.info("begun")
        while True:
            context.check()
            time.sleep(0.002)

class Sleep(RunnableTask):
    def run(self, context: TaskContext):
        context.log.info("begun")
        time.sleep(3600)
"""


def write_bundle(folder, version: int) -> None:
    import os

    folder.mkdir(exist_ok=True)
    (folder / "work.py").write_text(BUNDLE.format(version=version, pid=os.getpid()))
    (folder / "lazy.py").write_text(f"VERSION = {version}\n")


def job(**tasks) -> JobDefinition:
    build = JobDefinition.build("job")
    for name, (path, options) in tasks.items():
        build = build.task(name, path, backend="process", **options)
    return build.done()


def make_server() -> Server:
    server: Server

    def environment():  # the registry is there only when the Server is
        return server.registry.child_environment()

    server = Server(backends={"process": ProcessBackend(2, environment=environment)})
    return server


async def until(condition) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await anyio.sleep(0.005)


async def begun(run) -> None:
    await until(lambda: any(line.message == "begun" for line in run.logs()))


async def test_objects_of_a_bundle_cross_and_each_run_sees_its_own_version(tmp_path):
    folder = tmp_path / "bundle"
    write_bundle(folder, 1)
    async with make_server() as server:
        await server.register(folder, name="b")
        server.define(
            job(
                make=("work.Make", {"args": {"x": 7}}),
                read=("work.Read", {"args": {"point": {"$result": "make"}}}),
            )
        )
        first = await server.start("job")
        await first.wait()
        assert first.state is RunState.SUCCEEDED, first.explain()
        write_bundle(folder, 2)
        await server.reload("b")
        second = await server.start("job")
        await second.wait()
        assert first.results["read"][:4] == [7, True, 1, 1]
        assert second.results["read"][:4] == [7, True, 2, 2]


async def test_a_failure_in_a_process_is_logged_with_source_and_logical_names(tmp_path):
    write_bundle(tmp_path / "bundle", 1)
    async with make_server() as server:
        await server.register(tmp_path / "bundle", name="b")
        server.define(job(fail=("work.Fail", {})))
        run = await server.start("job")
        await run.wait()
        text = "\n".join(line.message for line in run.logs(task="fail"))
        assert run.state is RunState.FAILED
        assert 'raise LoadError("no such day")' in text
        assert "work.LoadError: no such day" in text
        assert "scattersphere.bundles" not in text


async def test_a_crash_ends_only_its_own_run(tmp_path):
    write_bundle(tmp_path / "bundle", 1)
    async with make_server() as server:
        await server.register(tmp_path / "bundle", name="b")
        server.define(job(crash=("work.Crash", {})))
        run = await server.start("job")
        await run.wait()
        assert run.tasks["crash"].state is TaskState.CRASHED
        assert any("killed by SIGSEGV" in line.message for line in run.logs())


async def test_a_run_in_a_process_is_paused_resumed_and_cancelled(tmp_path):
    write_bundle(tmp_path / "bundle", 1)
    async with make_server() as server:
        await server.register(tmp_path / "bundle", name="b")
        server.define(job(wait=("work.Wait", {})))
        run = await server.start("job")
        await begun(run)
        run.pause()
        await until(lambda: run.state is RunState.PAUSED)
        run.resume()
        run.cancel("enough")
        await run.wait()
        assert run.state is RunState.CANCELLED
        assert not run.stuck


async def test_a_cancel_reaches_a_body_that_is_held(tmp_path):
    write_bundle(tmp_path / "bundle", 1)
    async with make_server() as server:
        await server.register(tmp_path / "bundle", name="b")
        server.define(job(wait=("work.Wait", {})))
        run = await server.start("job")
        await begun(run)
        run.pause()
        await until(lambda: run.state is RunState.PAUSED)
        run.cancel("enough")
        await run.wait()
        assert run.state is RunState.CANCELLED


async def test_a_kill_ends_a_body_that_listens_to_nothing(tmp_path):
    write_bundle(tmp_path / "bundle", 1)
    async with make_server() as server:
        await server.register(tmp_path / "bundle", name="b")
        server.define(job(sleep=("work.Sleep", {})))
        run = await server.start("job")
        await begun(run)
        run.kill()
        await run.wait()
        assert run.state is RunState.CANCELLED
        assert run.tasks["sleep"].state is TaskState.CANCELLED

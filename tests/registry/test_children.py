"""Loaded versions in child processes, after the origin has changed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from multiprocessing import forkserver, resource_tracker, util
from types import SimpleNamespace

import anyio
import anyio.to_thread
import pytest
from bundlefiles import write

from scattersphere.registry.modules import children
from scattersphere.registry.modules.children import ancestors

pytestmark = pytest.mark.anyio

FILES = {
    "etl/__init__.py": "",
    "etl/util.py": "VALUE = {v}\n",
    "etl/main.py": """
        import multiprocessing
        from scattersphere.runnable import RunnableTask
        def work(sender):
            from etl.util import VALUE
            sender.send(VALUE)
        def value():
            from etl.util import VALUE
            return VALUE
        def work_in_a_child_of_mine(method, sender):
            context = multiprocessing.get_context(method)
            child = context.Process(target=work, args=[sender])
            child.start()
            child.join()
        class Job(RunnableTask):
            def run(self, context):
                return value
        """,
}


async def changed_bundle(registry, tmp_path):
    """Return the first version, pinned, and its task, after its files were changed."""
    bundle = await registry.register(write(tmp_path, FILES, v=1) / "etl")
    version = bundle.current
    registry.pin(1, [version])
    task = registry.find("etl.main.Job").cls
    write(tmp_path, FILES, v=2)
    await registry.reload("etl")
    return version, task


def answer_of(context, target, *args):
    """Call `target` in a child process; return what it sends."""
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=[*args, sender])
    child.start()
    sender.close()
    try:
        assert receiver.poll(60)
        return receiver.recv()
    finally:
        child.join()
        child.close()
        receiver.close()
        # Helpers of multiprocessing live as long as this process would; end them for the house rules.
        forkserver._forkserver._stop()
        resource_tracker._resource_tracker._stop()
        util._run_finalizers()  # its temporary folder
        multiprocessing.current_process()._config.pop("tempdir", None)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_of_multiprocessing_sees_the_version_of_its_parent(registry, tmp_path, method):
    version, _ = await changed_bundle(registry, tmp_path)
    work = version.namespace.module("etl.main").work
    context = multiprocessing.get_context(method)
    assert await anyio.to_thread.run_sync(answer_of, context, work) == 1


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
async def test_a_child_of_a_child_sees_it_too(registry, tmp_path, method):
    version, _ = await changed_bundle(registry, tmp_path)
    work = version.namespace.module("etl.main").work_in_a_child_of_mine
    context = multiprocessing.get_context(method)
    assert await anyio.to_thread.run_sync(answer_of, context, work, method) == 1


async def test_a_fork_server_that_knew_this_library_serves_as_well(registry, tmp_path):
    version, _ = await changed_bundle(registry, tmp_path)
    work = version.namespace.module("etl.main").work
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scattersphere.registry.registry"])
    assert await anyio.to_thread.run_sync(answer_of, context, work) == 1
    context.set_forkserver_preload(["__main__"])


def test_the_ancestors_of_a_process_begin_with_its_parent():
    found = list(ancestors())
    assert found[0] == os.getppid()
    assert len(found) == len(set(found))


def test_the_parent_of_a_process_is_found_without_proc(monkeypatch):
    monkeypatch.setattr(children, "Path", lambda *_: (_ for _ in ()).throw(OSError))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=" 41\n"))
    assert children._parent_of(42) == 41
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    assert children._parent_of(42) == 0


async def test_a_worker_finds_versions_through_its_environment(registry, tmp_path):
    _, task = await changed_bundle(registry, tmp_path)
    pickled = pickle.dumps(task().run(None))
    program = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())())"
    environment = {**os.environ, **registry.child_environment()}
    done = await anyio.run_process([sys.executable, "-c", program], input=pickled, env=environment)
    assert done.stdout.strip() == b"1"


async def test_the_environment_of_this_process_is_left_alone(registry, tmp_path):
    before = dict(os.environ)
    await changed_bundle(registry, tmp_path)
    assert dict(os.environ) == before


async def test_without_the_environment_the_error_is_clear(registry, tmp_path):
    _, task = await changed_bundle(registry, tmp_path)
    program = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = await anyio.run_process(
        [sys.executable, "-c", program], input=pickle.dumps(task().run(None)), check=False
    )
    assert b"No module named 'scattersphere.bundles." in done.stderr

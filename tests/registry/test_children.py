"""Loaded versions in child processes, after the origin has changed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys

import anyio
import pytest
from bundlefiles import write

pytestmark = pytest.mark.anyio

FILES = {
    "etl/__init__.py": "",
    "etl/util.py": "VALUE = {v}\n",
    "etl/main.py": """
        import multiprocessing
        from scattersphere.task import RunnableTask
        def work(sender):
            from etl.util import VALUE
            sender.send(VALUE)
        def value():
            from etl.util import VALUE
            return VALUE
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


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_of_multiprocessing_sees_the_version_of_its_parent(registry, tmp_path, method):
    version, _ = await changed_bundle(registry, tmp_path)
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=version.space.module("etl.main").work, args=[sender])
    child.start()
    sender.close()
    assert receiver.poll(30)
    assert receiver.recv() == 1
    child.join()
    child.close()
    receiver.close()
    # Its resource tracker is a process that lives as long as this one would; end it for the house rules.
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()


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

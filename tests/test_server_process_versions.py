"""What a version has changed in a worker process is not there for the next version, nor in the way of it."""

import json
import os

import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, Server

pytestmark = pytest.mark.anyio

PATCH = """
import json, os
from scattersphere import RunnableTask, replace_attribute

def loads(*args, **options):
    return [VERSION, patch.below(*args, **options)]

patch = replace_attribute(json, "loads", loads)

def on_release():
    patch()

class Read(RunnableTask):
    def run(self, context):
        return os.getpid(), json.loads("0")
"""
SPOIL = f"""
import json, os
from scattersphere import RunnableTask

if os.getpid() != {os.getpid()}:
    json.loads = lambda *_: VERSION

class Read(RunnableTask):
    def run(self, context):
        return os.getpid(), json.loads("0")
"""


async def read(server, file, code, version):
    file.write_text(code.replace("VERSION", str(version)))
    await (server.reload("t") if "t" in server.registry.bundles else server.register(file))
    job = JobDefinition.build("read").task("a", "t.Read", backend="process").done()
    run = await (await server.start(job)).wait(PATIENCE)
    return run.raise_if_failed().results["a"]


async def test_a_worker_that_holds_what_a_version_would_undo_is_not_used_for_the_next(tmp_path):
    async with Server(watch=False, processes=1) as server:
        seen = [await read(server, tmp_path / "t.py", PATCH, version) for version in (1, 1, 2, 3)]
    assert [value for _, value in seen] == [[1, 0], [1, 0], [2, 0], [3, 0]]
    workers = [process for process, _ in seen]
    assert workers[0] == workers[1]
    assert len(set(workers)) == 3
    assert json.loads("0") == 0


async def test_a_worker_whose_standard_library_a_version_has_spoilt_loads_the_next(tmp_path):
    async with Server(watch=False, processes=1) as server:
        seen = [await read(server, tmp_path / "t.py", SPOIL, version) for version in (1, 2, 3)]
    assert [value for _, value in seen] == [1, 2, 3]

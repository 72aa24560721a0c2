"""A Server and the versions of its bundles: which files its kept runs name."""

from __future__ import annotations

import sys

import anyio
import pytest
from patience import PATIENCE

from scattersphere import BundleRefusedError, NoSuchBundleError, Server, SourceLimits

pytestmark = pytest.mark.anyio

TASK = """
from scattersphere import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        return {v}
"""


async def test_the_code_of_a_kept_run_can_be_revived_until_the_run_is_evicted(tmp_path):
    file = tmp_path / "one.py"
    async with Server(history=(1, 3600.0)) as server:
        file.write_text(TASK.format(v=1))
        version = (await server.register(file)).current
        run = await server.start_task("one.Job")
        await run.wait()
        file.write_text(TASK.format(v=2))
        await server.reload("one")
        async with server.registry.revived([version]) as code:
            assert code.find("one.Job").cls().run(None) == 1
        await (await server.start_task("one.Job")).wait()  # only one run is kept
        assert run.id not in server.runs
        with pytest.raises(NoSuchBundleError, match="no longer kept"):
            async with server.registry.revived([version]):
                pass


async def test_the_limits_of_bundles_are_those_of_the_server(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(TASK.format(v=1))
    async with Server(bundle_limits=SourceLimits(unpacked=50)) as server:
        with pytest.raises(BundleRefusedError, match=r"larger than the limit.*SourceLimits\.unpacked"):
            await server.register(file)
    async with Server(bundle_limits=SourceLimits(kept=50)) as server:
        version = (await server.register(file)).current
        await (await server.start_task("one.Job")).wait()
        file.write_text(TASK.format(v=2))
        await server.reload("one")
        with pytest.raises(NoSuchBundleError, match="no longer kept"):
            async with server.registry.revived([version]):
                pass
    with pytest.raises(TypeError, match=r"bundle_limits is SourceLimits\(\.\.\.\), not "):
        Server(bundle_limits=5)


async def test_a_file_that_code_writes_beside_itself_is_warned_of_while_it_is_still_there(tmp_path, caplog):
    code = (
        "from pathlib import Path\nfrom scattersphere import RunnableTask\n"
        "class Job(RunnableTask):\n    def run(self, context):\n"
        "        Path(__file__).with_name('state.json').write_text('{}')\n"
    )
    (tmp_path / "a.py").write_text(code)
    async with Server() as server:
        bundle = await server.register(tmp_path / "a.py", watch=False)
        version = bundle.current
        await (await server.start_task("a.Job")).wait()
        with anyio.fail_after(PATIENCE):
            while not bundle.warnings:  # noqa: ASYNC110 - the loader's thread notes it when idle
                await anyio.sleep(0.01)
        (warning,) = bundle.warnings
        assert "has written state.json beside itself" in warning
        assert (version.snapshot / "state.json").exists()
        assert caplog.text.count("state.json") == 1


async def test_a_file_that_code_wrote_at_import_is_told_of_at_its_release_at_the_latest(tmp_path, caplog):
    before = "from pathlib import Path\nPath(__file__).with_name('cache.bin').write_bytes(b'x')\n"
    (tmp_path / "a.py").write_text(
        before + "from scattersphere import RunnableTask\n"
        "class Job(RunnableTask):\n    def run(self, context): ...\n"
    )
    async with Server() as server:
        await server.register(tmp_path / "a.py", watch=False)
        await server.deregister("a")
    assert "has written cache.bin beside itself, in the private copy of a@" in caplog.text


PROGRAM = """
import anyio, sys
from pathlib import Path
from scattersphere import Server

CODE = '''
import anyio.to_process
from scattersphere import RunnableTask
def work(x): return VERSION, x + 1
class Job(RunnableTask):
    async def run(self, context): return await anyio.to_process.run_sync(work, 1)
'''

async def main(file):
    async with Server() as server:
        for version in (1, 2):
            file.write_text(CODE.replace("VERSION", str(version)))
            await (server.register(file, watch=False) if version == 1 else server.reload(file.stem))
            run = await (await server.start_task("a.Job")).wait()
            print(run.results["a.Job"])

anyio.run(main, Path(sys.argv[1]), backend=sys.argv[2])
"""


async def test_a_worker_of_anyio_sees_the_version_that_its_task_has(tmp_path, anyio_backend_name):
    """In a program of its own: the pool of such workers lives as long as its loop."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "a.py"), anyio_backend_name]
    done = await anyio.run_process(command, cwd=tmp_path)
    assert done.stdout.decode().split("\n")[:2] == ["(1, 2)", "(2, 2)"]

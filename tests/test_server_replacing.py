"""Code is replaced and removed while jobs run: each run sees the version with which it began."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

from scattersphere import BundleBusyError, NoSuchBundleError, Server

pytestmark = pytest.mark.anyio

GATE = "scattersphere_test_replacing"

CODE = """
import {gate} as gate
from scattersphere import RunnableTask
class Job(RunnableTask):
    def run(self, context):
        gate.reached.release()
        gate.open.wait(60)
        context.check()
        from etl.test_late import VALUE
        return VALUE
"""


@pytest.fixture
def gate(monkeypatch):
    module = SimpleNamespace(reached=threading.Semaphore(0), open=threading.Event())
    monkeypatch.setitem(sys.modules, GATE, module)
    yield module
    module.open.set()


def write(root, value):
    folder = root / "etl"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").write_text("")
    (folder / "main.py").write_text(CODE.format(gate=GATE))
    (folder / "test_late.py").write_text(f"VALUE = {value}\n")
    return folder


async def begun(server, gate):
    """Start a run, and wait until its task executes."""
    import anyio

    run = await server.start_task("etl.main.Job")
    await anyio.to_thread.run_sync(gate.reached.acquire)
    return run


async def test_three_versions_with_running_jobs(tmp_path, gate):
    async with Server(grace=0) as server:
        bundle = await server.register(write(tmp_path, 1))
        runs, refs = [], []
        for value in (1, 2, 3):
            if value > 1:
                write(tmp_path, value)
                await server.reload("etl")
            runs.append(await begun(server, gate))
            refs.append(weakref.ref(server.registry.find("etl.main.Job").cls))
        held = {version.number: runs for version, runs in bundle.versions.items()}
        assert held == {1: frozenset({1}), 2: frozenset({2})}
        gate.open.set()
        results = [(await run.wait()).results["etl.main.Job"] for run in runs]
        assert results == [1, 2, 3]
        assert not bundle.versions
        # The frame in which an attempt ended may need some turns of the loop to be gone.
        with anyio.fail_after(PATIENCE):
            while [ref() is None for ref in refs] != [True, True, False]:
                await anyio.lowlevel.checkpoint()
                gc.collect()


async def test_deregistering_while_a_job_runs_and_registering_again_meanwhile(tmp_path, gate):
    async with Server(grace=0) as server:
        await server.register(write(tmp_path, 1))
        first = await begun(server, gate)
        await server.deregister("etl")
        assert not server.registry.bundles
        bundle = await server.register(write(tmp_path, 2))
        assert {version.number: set(runs) for version, runs in bundle.versions.items()} == {1: {first.id}}
        second = await begun(server, gate)
        gate.open.set()
        assert (await first.wait()).results["etl.main.Job"] == 1
        assert (await second.wait()).results["etl.main.Job"] == 2
        assert not bundle.versions


async def test_require_idle_raises_and_lists_the_runs_and_changes_nothing(tmp_path, gate):
    async with Server(grace=0) as server:
        bundle = await server.register(write(tmp_path, 1))
        runs = [await begun(server, gate), await begun(server, gate)]
        with pytest.raises(BundleBusyError, match=r"needed by runs \[1, 2\]") as caught:
            await server.deregister("etl", require_idle=True)
        assert caught.value.runs == (1, 2)
        assert server.registry.bundles["etl"] is bundle
        gate.open.set()
        for run in runs:
            await run.wait()
        await server.deregister("etl", require_idle=True)
        assert not server.registry.bundles


async def test_force_cancels_the_runs_first(tmp_path, gate):
    async with Server(grace=30) as server:
        await server.register(write(tmp_path, 1))
        run = await begun(server, gate)
        threading.Timer(0.05, gate.open.set).start()
        await server.deregister("etl", force=True)
        assert run.state == "cancelled"
        assert "'etl' is deregistered" in run.reason
        assert not server.registry.bundles
        with pytest.raises(NoSuchBundleError, match="no bundle 'etl'"):
            await server.deregister("etl")


async def test_softly_a_queued_run_keeps_its_version_too(tmp_path, gate):
    async with Server(grace=0, max_runs=1) as server:
        await server.register(write(tmp_path, 1))
        first = await begun(server, gate)
        queued = await server.start_task("etl.main.Job")
        assert queued.state == "queued"
        await server.deregister("etl")
        gate.open.set()
        assert (await first.wait()).results["etl.main.Job"] == 1
        assert (await queued.wait()).results["etl.main.Job"] == 1
        gc.collect()
        assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.etl_g")]

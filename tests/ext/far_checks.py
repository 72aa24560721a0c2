"""What holds where a link is cut, for workers that are far away. test_dask_far_away.py runs this in a network of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import far_network
import pytest
from dask_cluster import cluster
from patience import PATIENCE

from scattersphere import JobDefinition, Server
from scattersphere.ext.dask import DaskBackend

pytestmark = pytest.mark.anyio

BUNDLE = """
import os
import time
from pathlib import Path

from scattersphere import RunnableTask


class Tick(RunnableTask):
    '''Write who it is and when, again and again, until the file is there.'''

    folder: str

    def run(self, context):
        context.log.info("begun %d of %d", os.getpid(), os.getppid())
        with open(os.path.join(self.folder, "ticks"), "a", buffering=1) as ticks:
            while not Path(self.folder, "go").exists():
                ticks.write(f"{os.getpid()} {time.monotonic()}\\n")
                time.sleep(0.005)
        return context.attempt
"""


@pytest.fixture
def far(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask"), workers=2) as made:
        yield made


def ticks(folder):
    """Return the times of all ticks of each process, in the order in which these began."""
    found: dict[str, list[float]] = {}
    file = Path(folder, "ticks")
    for line in file.read_text().splitlines() if file.exists() else ():
        pid, when = line.split()
        found.setdefault(pid, []).append(float(when))
    return found


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what happens in another process sets no event here
            await anyio.sleep(0.01)


async def begun(run, times=1):
    """Wait until the body has begun so often; return the ids of its process and of the Dask worker above it."""

    def said():
        return [line.message.split() for line in run.logs() if line.message.startswith("begun ")]

    await until(lambda: len(said()) >= times or run.state.ended)
    assert not run.state.ended, run.explain()
    words = said()[-1]
    return words[1], int(words[3])


@pytest.fixture
async def server(far, tmp_path):
    path = tmp_path / "work.py"
    path.write_text(BUNDLE)
    async with Server(grace=0.5, backends={"dask": DaskBackend(far.address)}) as server:
        await server.register(path)
        definition = JobDefinition.build("job").task(
            "t", "work.Tick", backend="dask", args={"folder": str(tmp_path)}
        )
        server.define(definition.done())
        yield server


async def test_a_call_in_a_worker_that_is_cut_off_has_ended_before_it_begins_elsewhere(server, far, tmp_path):
    run = await server.start("job")
    first, worker = await begun(run)
    cut = far.far(worker) / "cut"
    cut.touch()
    second, _ = await begun(run, 2)
    cut.unlink()
    await until(lambda: second in ticks(tmp_path))
    (tmp_path / "go").touch()
    end = await run.wait(PATIENCE)
    assert end.succeeded, (
        run.explain()
    )  # a place that was lost counts as no attempt: none was to be tried again
    found = ticks(tmp_path)
    assert list(found) == [first, second]
    assert found[first][-1] < found[second][0]


async def test_a_short_cut_costs_nothing(server, far, tmp_path):
    run = await server.start("job")
    first, worker = await begun(run)
    cut = far.far(worker) / "cut"
    cut.touch()
    seen = len(ticks(tmp_path)[first])
    await until(lambda: len(ticks(tmp_path)[first]) > seen + 20)
    cut.unlink()
    (tmp_path / "go").touch()
    assert (await run.wait(PATIENCE)).succeeded, run.explain()
    assert list(ticks(tmp_path)) == [first]


ENGINE = """
import sys
import anyio
from scattersphere import JobDefinition, Server
from scattersphere.ext.dask import DaskBackend

async def main(address, path, folder):
    async with Server(backends={"dask": DaskBackend(address)}) as server:
        await server.register(path)
        task = JobDefinition.build("job").task("t", "work.Tick", backend="dask", args={"folder": folder})
        server.define(task.done())
        print(await server.run("job"))

anyio.run(main, *sys.argv[1:])
"""


async def test_what_an_engine_was_cut_off_from_has_ended_before_it_begins_again(far, tmp_path):
    bundle, cut = tmp_path / "work.py", tmp_path / "cut"
    bundle.write_text(BUNDLE)
    near, port = "10.213.100.1", far.address.rpartition(":")[2]
    link = [sys.executable, far_network.__file__, near, "10.213.100.2", "0.02", "0.01"]
    engine = [sys.executable, "-c", ENGINE, f"tcp://{near}:{port}", str(bundle), str(tmp_path)]
    async with await anyio.open_process([*link, *engine], cwd=tmp_path, stderr=None) as process:
        await until(lambda: ticks(tmp_path))
        cut.touch()
        (first,) = ticks(tmp_path)
        await until(lambda: not Path("/proc", first).exists())
        cut.unlink()
        await until(lambda: len(ticks(tmp_path)) == 2)
        (tmp_path / "go").touch()
        with anyio.fail_after(PATIENCE):
            assert await process.wait() == 0
    found = ticks(tmp_path)
    second = list(found)[1]
    assert found[first][-1] < found[second][0]

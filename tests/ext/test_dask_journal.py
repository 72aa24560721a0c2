"""A run on a Dask cluster goes on from its journal at another engine: what the first one had begun there has ended by then.

The machine of the first engine stops: its connections stay, nobody hears of it, and it comes back when another engine
has long gone on with the journal. (`test_dask.py` has the engine that is killed.)
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import anyio
import pytest
from patience import PATIENCE

pytest.importorskip("distributed")

from dask_cluster import cluster

from scattersphere import Server
from scattersphere.ext.dask import DaskBackend

pytestmark = pytest.mark.anyio

BUNDLE = """
import itertools
import os
import time
from pathlib import Path

from scattersphere import RunnableTask


class Tick(RunnableTask):
    '''Write who it is and when, again and again, until the file `go` is there.'''

    folder: str

    def run(self, context):
        with open(os.path.join(self.folder, "ticks"), "a", buffering=1) as ticks:
            while not Path(self.folder, "go").exists():
                ticks.write(f"{os.getpid()} {time.monotonic()}\\n")
                time.sleep(0.005)
"""

ENGINE = """
import sys
import anyio
from scattersphere import JobDefinition, Server
from scattersphere.ext.dask import DaskBackend

async def main(address, folder, tasks):
    async with Server(backends={"dask": DaskBackend(address, limit=8)}, journal=f"{folder}/runs.db") as server:
        await server.register(f"{folder}/work.py")
        job = JobDefinition.build("job")
        for number in range(int(tasks)):
            job.task(f"t{number}", "work.Tick", backend="dask", args={"folder": folder})
        server.define(job.done())
        await server.start("job")
        await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""

KILLS = int(os.environ.get("KILLS", "4"))
"""How often the engine is killed; more by hand."""

WORK = """
import os
import time

from scattersphere import RunnableTask


class Work(RunnableTask):
    '''Write which one it is, in which process and when, ten times.'''

    folder: str
    number: int

    def run(self, context):
        with open(os.path.join(self.folder, "ticks"), "a", buffering=1) as ticks:
            for _ in range(10):
                ticks.write(f"{self.number:03} {os.getpid():07} {time.monotonic()}\\n")
                time.sleep(0.002)
        return self.number
"""

KILLED = """
import sys
from pathlib import Path
import anyio
from scattersphere import JobDefinition, Server
from scattersphere.ext.dask import DaskBackend

async def main(address, folder):
    async with Server(backends={"dask": DaskBackend(address, limit=6)}, journal=f"{folder}/runs.db") as server:
        await server.register(f"{folder}/work.py")
        if server.life == 1:
            job = JobDefinition.build("job").task(
                "t", "work.Work", backend="dask", args={"folder": folder},
                map={"number": {"$literal": list(range(300))}},
            )
            server.define(job.done())
            await server.start("job")
            await server.committed()
            Path(folder, "started").touch()
        run = await server.runs[1].wait()
        assert run.succeeded, run.explain()
        assert run.results["t"] == list(range(300))

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def one(tmp_path_factory):
    """Give a cluster that executes one call at a time: another one that it was given waits in the worker."""
    with cluster(tmp_path_factory.mktemp("dask"), workers=1) as made:
        yield made


@contextmanager
def engine(address, folder, tasks):
    """Start an engine with a job of so many tasks, of which one executes at a time."""
    (folder / "work.py").write_text(BUNDLE)
    command = [sys.executable, "-c", ENGINE, address, str(folder), str(tasks)]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)}) as process:
        try:
            yield process
        finally:
            process.kill()


def ticks(folder):
    """Return the times of all ticks of each process, in the order in which these began."""
    found: dict[str, list[float]] = {}
    file = folder / "ticks"
    for line in file.read_text().splitlines() if file.exists() else ():
        pid, when = line.split()
        found.setdefault(pid, []).append(float(when))
    return found


def copy_of(journal):
    """Copy a journal that somebody holds, as from a disk that two machines see."""
    copy = journal.with_name("copy.db")
    copy.touch(0o600)
    with closing(sqlite3.connect(journal)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    return copy


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what happens in another process sets no event here
            await anyio.sleep(0.01)


def assert_one_after_the_other(folder):
    """No two processes have executed at the same time."""
    spans = [(times[0], times[-1]) for times in ticks(folder).values()]
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans)), spans


async def test_an_engine_that_vanishes_and_comes_back_has_nothing_executed_beside_who_took_its_journal(
    one, tmp_path
):
    with engine(one.address, tmp_path, 3) as first:
        await until(lambda: ticks(tmp_path))
        first.send_signal(signal.SIGSTOP)
        copy = copy_of(tmp_path / "runs.db")
        (begun,) = ticks(tmp_path)
        backend = DaskBackend(one.address, limit=8)
        async with Server(grace=0.5, backends={"dask": backend}, journal=copy) as server:
            await server.register(tmp_path / "work.py")
            await until(lambda: list(ticks(tmp_path)) != [begun])
            first.send_signal(signal.SIGCONT)
            seen = len(list(ticks(tmp_path).values())[1])
            await until(lambda: len(list(ticks(tmp_path).values())[1]) > seen + 50)
            (tmp_path / "go").touch()
            run = server.runs[1]
            assert (await run.wait(PATIENCE)).succeeded, run.explain()
    assert_one_after_the_other(tmp_path)


def executions(folder):
    """Return by task the times of the ticks of each process that has executed it."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in (folder / "ticks").read_text().splitlines():
        name, pid, when = line.split()
        found.setdefault(name, {}).setdefault(pid, []).append(float(when))
    return found


def bytes_of(file):
    return file.stat().st_size if file.exists() else 0


@pytest.fixture
def two(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask"), workers=2) as made:
        yield made


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_that_is_killed_again_and_again_has_no_task_executed_twice_at_once(two, tmp_path):
    """Wherever it is killed: what it had on the cluster has ended before its journal has it begin again."""
    (tmp_path / "work.py").write_text(WORK)
    ticks, chance = tmp_path / "ticks", random.Random(29)
    command = [sys.executable, "-c", KILLED, two.address, str(tmp_path)]
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    for number in range(KILLS):
        async with await anyio.open_process(command, env=own, stderr=None) as process:
            await until((tmp_path / "started").exists)
            # At once, or after some have ended: a task that is hit three times in a row is taken for the culprit.
            enough = bytes_of(ticks) + chance.randrange(300) + (2000 if number % 2 else 0)
            await until(lambda enough=enough: bytes_of(ticks) >= enough)
            process.kill()
    async with await anyio.open_process(command, env=own, stderr=None) as process:
        with anyio.fail_after(PATIENCE):
            assert await process.wait() == 0
    found = executions(tmp_path)
    for name, times in found.items():
        spans = sorted((each[0], each[-1]) for each in times.values())
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans)), (name, spans)
    assert max(map(len, found.values())) > 1, "nothing was ever begun again"

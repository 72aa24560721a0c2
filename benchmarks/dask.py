"""Calls on a Dask cluster, beside bare Dask: `python -m benchmarks.dask [repetitions]`. Needs the extra `dask`.

A cluster of two workers on this machine, in a process of its own. Rows of one table are measured in turn, so that a
busy machine slows all of them; medians, and the ratio to the row that the goal names. Beside it the processor time of
all that takes part, and its ratio: client or engine, scheduler, workers, and the processes below them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio
import psutil
from distributed import Client

from scattersphere import JobDefinition, Server, result
from scattersphere.ext.dask import DaskBackend
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Echo, Obey, Refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

SIZE = 64 * 2**20
ONE, MANY = 30, 400
"""Calls of a sample: one after the other; many at once."""

CLUSTER = """
import sys
import dask
from distributed import LocalCluster
if __name__ == "__main__":
    dask.config.set({"distributed.worker.profile.enabled": False})
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                      silence_logs=50) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


BUNDLE = """
from scattersphere import RunnableTask

class Make(RunnableTask):
    size: int

    def run(self, context):
        return bytes(self.size)

class Size(RunnableTask):
    value: object

    def run(self, context):
        return len(self.value)
"""


def echo(value: Any = None) -> Any:
    return value


def lay(file: str) -> None:
    Path(file).unlink(missing_ok=True)
    with Path(file).open("wb") as stream:
        pickle.dump(bytes(SIZE), stream)


def read(file: str) -> int:
    with Path(file).open("rb") as stream:
        return len(pickle.load(stream))  # noqa: S301 - our own


class Bench:
    """What the rows need: a backend, a Server with another one, a client of Dask's, all on one cluster."""

    def __init__(self, stage: Stage, server: Server, client: Any, pool: Executor, folder: Path) -> None:
        self.stage = stage
        self.pool = pool
        self.folder = folder
        self.server = server
        self.client = client
        self.ends: dict[str, list[float]] = {}

    async def ours(self) -> None:
        for _ in range(ONE):
            await self.stage.run(Echo, value=1)

    async def bare(self) -> None:
        for _ in range(ONE):
            await self.client.submit(echo, 1, pure=False)

    async def ours_many(self) -> None:
        for call in [self.stage.start(Echo, value=number) for number in range(MANY)]:
            await call.outcome()

    async def run(self) -> None:
        run = await (await self.server.start("many")).wait(300)
        assert run.succeeded, run.explain()

    async def bare_many(self) -> None:
        await self.client.gather([self.client.submit(echo, number, pure=False) for number in range(MANY)])

    async def bare_each(self) -> None:
        futures = [self.client.submit(echo, number, pure=False) for number in range(MANY)]
        await asyncio.gather(*[future.result() for future in futures])

    async def cancel(self) -> None:
        await self._end_running("cancel")

    async def kill(self) -> None:
        await self._end_running("kill")

    async def _end_running(self, verb: str) -> None:
        refusing = verb == "kill"
        call = self.stage.start(Refuse, until="/nonexistent") if refusing else self.stage.start(Obey)
        await call.begun()
        started = perf_counter()
        if verb == "kill":
            call.handle.kill()
        else:
            call.cancel()
        await call.outcome()
        self.ends.setdefault(verb, []).append((perf_counter() - started) * 1e3)

    async def two_by_reference(self) -> None:
        """Have a task make 64 MiB, and another take them."""
        run = await (await self.server.start("stay")).wait(300)
        assert run.results["size"] == SIZE, run.explain()

    async def two_through_the_engine(self) -> None:
        run = await (await self.server.start("come")).wait(300)
        assert run.results["size"] == SIZE, run.explain()

    async def bare_by_reference(self) -> None:
        made = self.client.submit(bytes, SIZE, pure=False)
        assert await self.client.submit(len, made, pure=False) == SIZE

    async def by_a_file(self) -> None:
        """Do what cannot be done without where no memory is shared: one process writes, another one reads."""
        file = str(self.folder / "value")
        await self._in_pool(lay, file)
        assert await self._in_pool(read, file) == SIZE

    async def by_a_pool(self) -> None:
        assert await self._in_pool(len, await self._in_pool(bytes, SIZE)) == SIZE

    async def _in_pool(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *args)

    async def ours_large(self) -> None:
        value = await self.stage.run(Echo, value=b"x" * 16_000_000)
        assert len(value.value) == 16_000_000

    async def bare_large(self) -> None:
        ahead = await self.client.scatter(b"x" * 16_000_000, hash=False)
        assert len(await self.client.submit(echo, ahead, pure=False)) == 16_000_000


def spent() -> float:
    """Return the processor seconds of this process and of all that it has started, as far as they live."""
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def table(
    title: str, baseline: str, rows: dict[str, Callable[[], Awaitable[None]]], calls: int, repetitions: int
) -> None:
    walls: dict[str, list[float]] = {name: [] for name in rows}
    works: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, sample in rows.items():
            wall, work = perf_counter(), spent()
            await sample()
            walls[name].append((perf_counter() - wall) / calls * 1e3)
            works[name].append((spent() - work) / calls * 1e3)
    print(f"\n{title}  (ms a call, times {baseline}; ms of processor, the same)")
    for name, taken in walls.items():
        ratio = statistics.median(a / b for a, b in zip(taken, walls[baseline], strict=True))
        work = statistics.median(works[name])
        more = work / statistics.median(works[baseline])
        print(
            f"  {name:44} {statistics.median(taken):8.2f} {ratio:6.2f}   {work:8.2f} {more:6.2f}", flush=True
        )


async def main(repetitions: int, address: str, folder: str) -> None:
    job = JobDefinition.build("many")
    for number in range(MANY):
        job.task(f"t{number}", "Echo", backend="dask", args={"value": number})
    async with (
        Stage(lambda: DaskBackend(address, limit=MANY)) as stage,
        Server(backends={"dask": DaskBackend(address, limit=MANY, keep_from=2**20)}) as server,
        Client(address, asynchronous=True, set_as_default=False) as client,
    ):
        pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
        server.register_tasks("bench", [Echo])
        await server.register(Path(folder, "passing.py"))
        server.define(job.done())
        for name, backend in (("stay", "dask"), ("come", "thread")):
            both = JobDefinition.build(name).task("make", "passing.Make", backend="dask", args={"size": SIZE})
            server.define(
                both.task("size", "passing.Size", backend=backend, args={"value": result("make")}).done()
            )
        bench = Bench(stage, server, client, pool, Path(folder))
        for warm in (bench.ours, bench.run, bench.bare):
            await warm()
        one = {"DaskBackend": bench.ours, "client.submit, awaited": bench.bare}
        await table("one after the other: goal 1.15", "client.submit, awaited", one, ONE, repetitions)
        many = {
            "DaskBackend": bench.ours_many,
            "a run of as many tasks, all of the engine": bench.run,
            "client.submit and gather": bench.bare_many,
            "client.submit, each awaited": bench.bare_each,
        }
        await table(f"{MANY} at once: goal 1.3", "client.submit and gather", many, MANY, repetitions)
        large = {"DaskBackend": bench.ours_large, "scatter, submit, gather": bench.bare_large}
        await table("16 MB there and back", "scatter, submit, gather", large, 1, repetitions)
        passed = {
            "a job of two tasks, by reference": bench.two_by_reference,
            "the second in a thread of the engine": bench.two_through_the_engine,
            "two submits, by reference": bench.bare_by_reference,
            "ProcessPoolExecutor, through the parent": bench.by_a_pool,
            "one process writes a file, another reads it": bench.by_a_file,
        }
        for warm in passed.values():
            await warm()
        await table(
            "64 MiB from task to task", "ProcessPoolExecutor, through the parent", passed, 1, repetitions
        )
        pool.shutdown()
        for _ in range(10 * repetitions):
            await bench.cancel()
        for _ in range(repetitions):
            await bench.kill()
        print("\nfrom the wish to the end  (ms; median, longest)")
        for verb, taken in bench.ends.items():
            print(f"  {verb:44} {statistics.median(taken):8.1f} {max(taken):8.1f}")


def with_cluster(repetitions: int) -> None:
    command = [sys.executable, "-c", CLUSTER]
    # A worker of a LocalCluster reads the main program again, and "-c" has none to read.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own text
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "passing.py").write_text(BUNDLE, encoding="utf-8")
                anyio.run(main, repetitions, address, folder)
        finally:
            process.stdin.close()


if __name__ == "__main__":
    with_cluster(int(sys.argv[1]) if len(sys.argv) > 1 else 7)

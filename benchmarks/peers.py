"""The cost of a task beside other libraries that run graphs or tasks in one process: dask, Hamilton, taskiq.

`python -m benchmarks peers [--tasks 1000] [--repetitions 9]`, with the dependency group `bench` installed; what
is not installed is left out and named. All run the same graph of functions that do nothing, in turns, on
asyncio. Shown are microseconds of the processor for each task and how many times the Server's cost that is
(goals: layered, dask 5 x and Hamilton 5 x; flat, taskiq 4 x).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import statistics
import sys
import types
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import Links, kahn
from benchmarks.dispatch import BODIES, job, no_op
from benchmarks.graphs import SHAPES
from scattersphere import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.graphs import Graph

    Contestant = Callable[[], Awaitable[object]]

GOALS = {("layered", "dask"): 5.0, ("layered", "hamilton"): 5.0, ("wide", "taskiq"): 4.0}


def dask(graph: Graph) -> Contestant:
    """`dask.get`, the synchronous scheduler, on a graph of plain functions."""
    import dask as library  # noqa: PLC0415 - the group `bench`

    def nothing(*_: object) -> None:
        pass

    tasks: dict[str, Any] = {
        f"t{index}": (nothing, *(f"t{upstream}" for upstream in upstreams))
        for index, upstreams in enumerate(graph)
    }
    wanted = list(tasks)

    async def run() -> None:
        library.get(tasks, wanted)

    return run


def hamilton(graph: Graph) -> Contestant:
    """Hamilton's asynchronous driver, on a module of coroutine functions whose parameters are upstreams."""
    from hamilton import async_driver  # noqa: PLC0415 - the group `bench`

    module = types.ModuleType("nodes")
    lines = [
        f"async def t{index}({', '.join(f't{upstream}: object' for upstream in upstreams)}) -> object:\n"
        "    return None\n"
        for index, upstreams in enumerate(graph)
    ]
    exec("\n".join(lines), module.__dict__)  # noqa: S102 - Hamilton reads functions from a module
    for index in range(len(graph)):
        getattr(module, f"t{index}").__module__ = "nodes"
    sys.modules["nodes"] = module
    driver = async_driver.AsyncDriver({}, module)
    wanted = [f"t{index}" for index in range(len(graph))]

    async def run() -> None:
        await driver.raw_execute(wanted)

    return run


def taskiq(graph: Graph) -> Contestant:
    """Taskiq's broker in memory; it knows no dependencies, so that only flat graphs are fair."""
    from taskiq import InMemoryBroker  # noqa: PLC0415 - the group `bench`

    broker = InMemoryBroker(await_inplace=False)
    task = broker.task(task_name="no_op")(no_op)

    async def run() -> None:
        for _ in graph:
            await task.kiq()
        await broker.wait_all()

    return run


PEERS: dict[str, tuple[Callable[[Graph], Contestant], tuple[str, ...], str]] = {
    "dask": (dask, ("layered", "wide"), "dask"),
    "hamilton": (hamilton, ("layered",), "sf-hamilton"),
    "taskiq": (taskiq, ("wide",), "taskiq"),
}


async def measure(options: argparse.Namespace) -> None:
    async with Server(history=(3, 3600.0)) as server:
        server.register_tasks("bench", [cls for cls, _ in BODIES.values()])
        print(f"{'graph':8} {'tasks':>6} {'who':10} {'us':>9}  times the Server (goal)")
        for shape in ("layered", "wide"):
            await contest(server, shape, SHAPES[shape](options.tasks), options.repetitions)


async def contest(server: Server, shape: str, graph: Graph, repetitions: int) -> None:
    """Let all run the graph in turns, and show medians."""
    server.define(job("bench", graph, "no-op"), replace=True)

    async def run_job() -> None:
        assert (await (await server.start("bench")).wait()).succeeded

    links = Links.of(graph)
    contestants: dict[str, Contestant] = {"Server": run_job, "L0": lambda: kahn(links, no_op)}
    for name, (make, shapes, package) in PEERS.items():
        if shape in shapes:
            try:
                contestants[name] = make(graph)
            except ImportError:
                print(f"{shape:8} {len(graph):6} {name:10} not installed ({package})")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repetitions + 1):
        for name, contestant in contestants.items():
            gc.collect()
            started = process_time()
            await contestant()
            if turn:
                times[name].append(process_time() - started)
    base = statistics.median(times["Server"])
    for name, taken in times.items():
        cost = statistics.median(taken)
        goal = GOALS.get((shape, name))
        version = importlib.metadata.version(PEERS[name][2]) if name in PEERS else ""
        beside = f" (goal {goal:g})" if goal else ""
        print(
            f"{shape:8} {len(graph):6} {name:10} {cost / len(graph) * 1e6:9.2f}  {cost / base:6.2f}{beside}  {version}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}; medians of {options.repetitions}")
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()

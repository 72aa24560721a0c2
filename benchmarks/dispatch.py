"""The cost of a task, from `Server.start` to the end of the run, against loops written by hand.

Times are those of the processor for whole runs, divided by the number of tasks, in microseconds: medians of
repetitions that take turns with those of the baselines. Only ratios to L0 within one run count. What the Server must
reach is shown beside what it does (docs/explanation/performance.md); the goals are for Python 3.12 and newer, on 3.11
there is one for bodies that do nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import statistics
import sys
import tracemalloc
from time import process_time, thread_time
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks import baselines
from benchmarks.baselines import Body, Links
from benchmarks.graphs import SHAPES
from scattersphere import JobDefinition, RunnableTask, Server, TaskContext, TaskDefinition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.graphs import Graph

SLEEP = 0.02

GOALS: Mapping[str, Mapping[str, float]] = {
    "no-op": {"chain": 1.0, "wide": 1.0, "layered": 1.25},
    "suspends": dict.fromkeys(SHAPES, 1.5),
    "sleeps": {"wide": 1.5},
    "1 readers": {"layered": 1.3},
    "10 readers": {"layered": 2.0},
}
"""Times L0, at 10,000 tasks."""
NO_OP_ON_311, TRIO = 1.7, 3.5
STALL = {"no-op": 10, "suspends": 20}
"""Milliseconds for which nobody else may have a turn of the loop."""
KEPT, GROWTH, FIRST_LINE = 400, 1.8, 150
"""Bytes a task of an ended run; times the cost of a task in a small job; microseconds."""


class NoOp(RunnableTask):
    """Do nothing."""

    async def run(self, context: TaskContext) -> None:
        """Return at once."""


class Suspend(RunnableTask):
    """Give the loop one turn."""

    async def run(self, context: TaskContext) -> None:
        """Suspend once."""
        await suspend()


class Sleep(RunnableTask):
    """Sleep a little."""

    async def run(self, context: TaskContext) -> None:
        """Sleep 20 ms."""
        await anyio.sleep(SLEEP)


FIRST: list[float] = []


class First(RunnableTask):
    """Note when its first line is reached."""

    async def run(self, context: TaskContext) -> None:
        """Note the time."""
        FIRST.append(thread_time())


async def no_op() -> None:
    pass


async def suspend() -> None:
    await (asyncio.sleep(0) if "trio" not in sys.modules else anyio.lowlevel.checkpoint())


async def sleep() -> None:
    await anyio.sleep(SLEEP)


BODIES: Mapping[str, tuple[type[RunnableTask], Body]] = {
    "no-op": (NoOp, no_op),
    "suspends": (Suspend, suspend),
    "sleeps": (Sleep, sleep),
}


def job(name: str, graph: Graph, body: str, **policies: Any) -> JobDefinition:
    """Return the graph as a definition; its tasks wait for each other and pass nothing on."""
    path = BODIES[body][0].__qualname__
    return JobDefinition(
        name=name,
        tasks={
            f"t{index}": TaskDefinition(
                task=path, depends_on=tuple(f"t{upstream}" for upstream in upstreams), **policies
            )
            for index, upstreams in enumerate(graph)
        },
    )


class Contest:
    """The Server and the baselines on one graph, in turns."""

    def __init__(self, server: Server, loops: Mapping[str, Callable[[Links, Body], Awaitable[None]]]) -> None:
        self._server = server
        self._loops = loops

    async def costs(self, graph: Graph, body: str, repetitions: int, **options: Any) -> dict[str, float]:
        """Return the microseconds of a task for each contestant."""
        links, function = Links.of(graph), BODIES[body][1]
        self._define(graph, body, options.pop("policies", {}))
        contestants: dict[str, Callable[[], Awaitable[None]]] = {
            name: functools.partial(loop, links, function) for name, loop in self._loops.items()
        }
        contestants["Server"] = lambda: self.run_job(**options)
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(repetitions + 1):
            for name, contestant in contestants.items():
                gc.collect()
                started = process_time()
                await contestant()
                if turn:  # the first one compiles the plan and warms the caches of all
                    times[name].append(process_time() - started)
        return {name: statistics.median(taken) / len(graph) * 1e6 for name, taken in times.items()}

    def _define(self, graph: Graph, body: str, policies: Mapping[str, Any]) -> None:
        self._server.define(job("bench", graph, body, **policies), replace=True)

    async def run_job(self, subscribers: int = 0) -> None:
        """Run the defined job once, with so many readers of its events."""
        run = await self._server.start("bench")
        if not subscribers:
            await run.wait()
        else:

            async def read() -> None:
                async for _ in run.events():
                    pass

            async with anyio.create_task_group() as readers:
                for _ in range(subscribers):
                    readers.start_soon(read)
        assert run.succeeded, run.explain()

    async def stall(self, graph: Graph, body: str) -> float:
        """Return the longest time, in milliseconds, for which the loop gave nobody else a turn."""
        self._define(graph, body, {})
        await self.run_job()  # the plan is compiled here
        gc.collect()
        longest, ended = 0.0, False

        async def tick() -> None:
            # By the processor: by the clock it would also be how busy others keep the machine.
            nonlocal longest
            before = thread_time()
            while not ended:
                await anyio.lowlevel.checkpoint()
                now = thread_time()
                longest, before = max(longest, now - before), now

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            await anyio.lowlevel.checkpoint()
            await self.run_job()
            ended = True
        return longest * 1e3

    async def latency(self, times: int = 500) -> float:
        """Return the microseconds from `start()` of a job of one task to the first line of its body."""
        self._server.register_tasks("first", [First])
        self._server.define(JobDefinition(name="first", tasks={"t": TaskDefinition(task="First")}))
        taken: list[float] = []
        for _ in range(times):
            started = thread_time()
            run = await self._server.start("first")
            await run.wait()
            taken.append(FIRST.pop() - started)
        return statistics.median(taken) * 1e6

    async def kept(self, graph: Graph) -> float:
        """Return the bytes for each task that an ended run keeps while it is in the history."""
        self._define(graph, "no-op", {})
        await self.run_job()
        gc.collect()
        tracemalloc.start()
        await self.run_job()
        await anyio.sleep(0.05)  # a large run gives back what it no longer needs in a turn of its own
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size / len(graph)


def goal_of(shape: str, body: str) -> float | None:
    """Return what must hold of this line, times L0."""
    if "trio" in sys.modules:
        return TRIO if body == "no-op" else None
    if sys.version_info < (3, 12):
        return NO_OP_ON_311 if body == "no-op" else None
    return GOALS.get(body, {}).get(shape)


def show(name: str, size: int, body: str, costs: Mapping[str, float], rest: str = "") -> None:
    base, goal = costs["L0"], goal_of(name, body)
    ratios = "  ".join(
        f"{cost:6.2f} ({cost / base:4.2f})" for contestant, cost in costs.items() if contestant != "L0"
    )
    wanted = "" if goal is None else f"<{goal:.2f}"
    print(f"{name:8} {size:>7} {body:12} {base:6.2f}  {ratios}  {wanted:>5}{rest}", flush=True)


async def measure(options: argparse.Namespace) -> None:
    loops = baselines.TRIO if options.trio else baselines.ASYNCIO
    async with Server(history=(3, 3600.0)) as server:
        server.register_tasks("bench", [cls for cls, _ in BODIES.values()])
        contest = Contest(server, loops)
        names = "  ".join(f"{name:>13}" for name in [*list(loops)[1:], "Server"])
        print(
            f"{'graph':8} {'tasks':>7} {'body':12} {'L0 us':>6}  {names}   goal  {'stall':>12}  {'kept':>13}"
        )
        growth = await _measure_sizes(contest, options)
        await _measure_extras(contest, options)
    for (shape, body), costs in growth.items():
        if len(costs) > 1:
            small, large = min(costs), max(costs)
            grown = costs[large] / costs[small]
            print(f"growth from {small} to {large}, {shape}, {body}: {grown:.2f} <{GROWTH}")


async def _measure_sizes(
    contest: Contest, options: argparse.Namespace
) -> dict[tuple[str, str], dict[int, float]]:
    """Measure every shape at every size; return the Server's cost by size for each shape and body."""
    growth: dict[tuple[str, str], dict[int, float]] = {}
    for size in options.sizes:
        repetitions = max(3, options.repetitions * 10_000 // max(size, 10_000))
        for shape, make in SHAPES.items():
            graph = make(size)
            for body in ("no-op", "suspends"):
                costs = await contest.costs(graph, body, repetitions)
                stall = await contest.stall(graph, body)
                kept = f"{await contest.kept(graph):5.0f} B <{KEPT}" if body == "no-op" else ""
                show(shape, size, body, costs, f"  {stall:5.1f} ms <{STALL[body]:2}  {kept:>12}")
                growth.setdefault((shape, body), {})[size] = costs["Server"]
    return growth


async def _measure_extras(contest: Contest, options: argparse.Namespace) -> None:
    """Measure what readers, timeouts and waiting bodies add, and how soon a single task begins."""
    print(f"start() to the first line of the first task: {await contest.latency():.0f} us <{FIRST_LINE}")
    size = min(10_000, max(options.sizes))
    graph = SHAPES["layered"](size)
    for subscribers in (1, 10):
        costs = await contest.costs(graph, "no-op", options.repetitions, subscribers=subscribers)
        show("layered", size, f"{subscribers} readers", costs)
    costs = await contest.costs(graph, "no-op", options.repetitions, policies={"timeout": 60.0})
    show("layered", size, "time-outs", costs)
    costs = await contest.costs(SHAPES["wide"](size), "sleeps", options.repetitions)
    show("wide", size, f"sleep({SLEEP})", costs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks dispatch", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], metavar="TASKS")
    parser.add_argument("--repetitions", type=int, default=7, help="at 10,000 tasks; larger jobs get fewer")
    parser.add_argument("--trio", action="store_true", help="on trio, against a nursery")
    options = parser.parse_args()
    loop = "trio" if options.trio else "asyncio"
    print(f"Python {sys.version.split()[0]} on {loop}; in brackets: times L0")
    if options.trio:
        import trio  # noqa: F401, PLC0415 - `suspend` asks whether it is there
    anyio.run(measure, options, backend=loop)


if __name__ == "__main__":
    main()

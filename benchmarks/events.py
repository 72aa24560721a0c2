"""What watching costs: readers of events, log lines, progress; and what runs leave behind in memory.

Readers: whole runs of no-op tasks, divided by the number of tasks, against L0 (`baselines.kahn`) without
any reader; medians of repetitions that take turns. Only ratios within one run count. Nothing here waits, so that
processor time is measured, which other programs on the machine disturb less than time on the wall.
"""

from __future__ import annotations

import argparse
import functools
import gc
import io
import logging
import resource
import statistics
import sys
import tracemalloc
from time import process_time
from typing import TYPE_CHECKING

import anyio

from benchmarks import baselines
from benchmarks.baselines import Links
from benchmarks.dispatch import NoOp, job, no_op
from benchmarks.graphs import SHAPES
from scattersphere import RunnableTask, Server, TaskContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.graphs import Graph

READERS = {0: None, 1: 1.3, 10: 2.0}
"""Readers, and the goal: times L0."""
KEPT_GOAL = 400
LINES = 20_000


class Talk(RunnableTask):
    """Log lines, or report progress, or write to a plain logger; say how long one took."""

    how: str = "log"
    lines: int = LINES

    async def run(self, context: TaskContext) -> float:
        """Return the microseconds of one line."""
        act = self._act(context)
        started = process_time()
        for number in range(self.lines):
            act(number)
        return (process_time() - started) / self.lines * 1e6

    def _act(self, context: TaskContext) -> Callable[[int], None]:
        if self.how == "progress":
            return functools.partial(context.progress, total=self.lines)
        if self.how == "debug":
            return lambda number: context.log.debug("line %d of many", number)
        if self.how == "log":
            return lambda number: context.log.info("line %d of many", number)
        plain = logging.Logger("plain")  # noqa: LOG001 - outside the tree, as those of attempts are
        plain.addHandler(logging.StreamHandler(io.StringIO()))
        return lambda number: plain.info("line %d of many", number)


class OneTask(RunnableTask):
    """A small run: one line, one result."""

    async def run(self, context: TaskContext) -> int:
        """Log a line."""
        context.log.info("at work")
        return context.run_id


async def run_with(server: Server, readers: int) -> None:
    """Run the defined job once while so many readers read all its events."""
    run = await server.start("bench")

    async def read() -> None:
        async for _ in run.events():
            pass

    if readers:
        async with anyio.create_task_group() as group:
            for _ in range(readers):
                group.start_soon(read)
    await run.wait()
    assert run.succeeded, run.explain()


async def take_turns(
    contestants: Mapping[str, Callable[[], Awaitable[None]]], repetitions: int
) -> dict[str, float]:
    """Return the median seconds of each contestant."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repetitions + 1):
        for name, contestant in contestants.items():
            gc.collect()
            started = process_time()
            await contestant()
            if turn:  # the first one compiles the plan and warms all caches
                times[name].append(process_time() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


async def measure_readers(server: Server, sizes: Sequence[int], repetitions: int) -> None:
    """Show the cost of a task with no reader, one and ten, and how it grows."""
    goals = ", ".join(f"{goal} with {readers}" for readers, goal in READERS.items() if goal)
    print(f"readers: us a task, in brackets times L0; goals: {goals} (Python 3.12 or newer)")
    print(f"{'graph':8} {'tasks':>7} {'L0':>6}  " + "  ".join(f"{n:>6} readers" for n in READERS))
    for shape, make in SHAPES.items():
        for size in sizes:
            graph = make(size)
            server.define(job("bench", graph, "no-op"), replace=True)
            links = Links.of(graph)
            contestants: dict[str, Callable[[], Awaitable[None]]] = {
                "L0": functools.partial(baselines.kahn, links, no_op)
            }
            for readers in READERS:
                contestants[str(readers)] = functools.partial(run_with, server, readers)
            medians = await take_turns(contestants, max(3, repetitions * 10_000 // max(size, 10_000)))
            costs = {name: median / size * 1e6 for name, median in medians.items()}
            shown = "  ".join(f"{costs[str(n)]:6.2f} ({costs[str(n)] / costs['L0']:4.2f})" for n in READERS)
            print(f"{shape:8} {size:>7} {costs['L0']:6.2f}  {shown}", flush=True)


async def measure_lines(server: Server, repetitions: int) -> None:
    """Show what a line of the log and a report of progress cost, with and without a reader."""
    costs: dict[tuple[str, int], list[float]] = {}
    for _ in range(repetitions):
        for how in ("plain", "log", "debug", "progress"):
            for readers in (0,) if how in ("plain", "debug") else (0, 1):
                costs.setdefault((how, readers), []).append(await talk(server, how, readers))
    base = statistics.median(costs["plain", 0])
    print("\na line: us, in brackets times a plain logger with a handler that writes to memory")
    for (how, readers), found in costs.items():
        median = statistics.median(found)
        with_reader = "a reader" if readers else "nobody listens"
        print(f"{how:10} {with_reader:15} {median:6.2f} ({median / base:4.2f})", flush=True)


async def talk(server: Server, how: str, readers: int) -> float:
    """Run `Talk` once; return what it says."""
    run = await server.start_task("Talk", {"how": how})

    async def read() -> None:
        async for _ in run.events():
            pass

    async with anyio.create_task_group() as group:
        for _ in range(readers):
            group.start_soon(read)
    await run.wait()
    return float(run.results["Talk"])


async def kept_bytes(server: Server, graph: Graph) -> float:
    """Return what an ended run keeps for each task, while it is in the history."""
    server.define(job("bench", graph, "no-op"), replace=True)
    await run_with(server, 0)
    gc.collect()
    tracemalloc.start()
    await run_with(server, 1)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(graph)


async def measure_kept(server: Server, sizes: Sequence[int]) -> None:
    """Show the memory of a kept run."""
    print(f"\nkept of an ended run: bytes a task; goal {KEPT_GOAL}")
    for shape, make in SHAPES.items():
        found = [f"{size}: {await kept_bytes(server, make(size)):5.0f}" for size in sizes]
        print(f"{shape:8} " + "   ".join(found), flush=True)


async def measure_many(runs: int) -> None:
    """Show that runs through one Server leave memory as it was, once the history is full."""
    print(
        f"\n{runs} runs of one task, 1,000 kept: blocks of memory that Python has allocated, peak of the process"
    )
    async with Server(history=(1_000, 3600.0)) as server:
        server.register_tasks("bench", [OneTask])
        blocks: list[int] = []
        started = process_time()
        for number in range(1, runs + 1):
            await (await server.start_task("OneTask")).wait()
            # From 10,000 on the two logs of the Server are full; before, they grow.
            if number in {10_000, runs // 4, runs // 2, runs}:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                cost = (process_time() - started) / number * 1e6
                print(
                    f"{number:>9} runs  {blocks[-1]:>9} blocks  {peak:6.1f} MB  {cost:4.0f} us a run",
                    flush=True,
                )
    print(f"growth from the first to the last of these: {blocks[-1] / blocks[0]:.3f}")


async def measure(options: argparse.Namespace) -> None:
    async with Server(history=(3, 3600.0), log_limit=64 << 20) as server:
        server.register_tasks("bench", [NoOp, Talk])
        await measure_readers(server, options.sizes, options.repetitions)
        await measure_lines(server, options.repetitions)
        await measure_kept(server, options.sizes)
    if options.runs:
        await measure_many(options.runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks events", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], metavar="TASKS")
    parser.add_argument("--repetitions", type=int, default=7, help="at 10,000 tasks; larger jobs get fewer")
    parser.add_argument("--runs", type=int, default=100_000, help="small runs through one Server; 0 for none")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]} on asyncio")
    anyio.run(measure, options)


if __name__ == "__main__":
    main()

"""What watching the loop costs, and what a capture of prints does: the same job with and without, in turns.

Servers with `blocked_after=1` (the default), `blocked_after=None`, and `capture_print=True` run the same job of no-op
tasks in turns; the median of the ratios of neighbouring turns is what counts. Then the processor time that a
waiting run takes in a second.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any

import anyio

from scattersphere import JobDefinition, RunnableTask, Server, TaskContext, TaskDefinition


class NoOp(RunnableTask):
    """Do nothing."""

    async def run(self, context: TaskContext) -> None:
        """Return at once."""


class Wait(RunnableTask):
    """Wait for ever."""

    async def run(self, context: TaskContext) -> None:
        """Sleep."""
        await anyio.sleep_forever()


VARIANTS: dict[str, dict[str, Any]] = {
    "nobody watches": {"blocked_after": None},
    "watched (default)": {},
    "watched, prints captured": {"capture_print": True},
}


async def whole_run(server: Server) -> float:
    gc.collect()
    started = perf_counter()
    run = await server.start("bench")
    await run.wait()
    return perf_counter() - started


async def while_waiting(seconds: float, **options: Any) -> float:
    """Return the processor time, in microseconds a second, that a Server takes whose only run waits."""
    async with Server(grace=0.1, **options) as server:
        server.register_tasks("app", [Wait])
        await server.start_task("Wait")
        await anyio.sleep(0.1)
        started, used = perf_counter(), time.process_time()
        await anyio.sleep(seconds)
        return (time.process_time() - used) / (perf_counter() - started) * 1e6


async def main(tasks: int, repetitions: int) -> None:
    definition = JobDefinition(
        name="bench", tasks={f"t{number}": TaskDefinition(task="NoOp") for number in range(tasks)}
    )
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with AsyncExitStack() as stack:
        servers = {}
        for name, options in VARIANTS.items():
            server = servers[name] = await stack.enter_async_context(Server(history=(0, 0), **options))
            server.register_tasks("app", [NoOp])
            server.define(definition)
        for turn in range(repetitions + 1):
            for name, server in servers.items():
                took = await whole_run(server)
                if turn:
                    times[name].append(took / tasks * 1e6)
    print(f"Python {sys.version.split()[0]}, {tasks} no-op tasks, medians of {repetitions}")
    print("microseconds a task, and times the first row; goal: nothing measurable")
    base = times["nobody watches"]
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, base, strict=True))
        print(f"  {name:28} {statistics.median(taken):8.2f}   {ratio:6.3f}")
    print("processor time of a Server whose only run waits, in microseconds a second")
    for name in ("nobody watches", "watched (default)"):
        print(f"  {name:28} {await while_waiting(3.0, **VARIANTS[name]):8.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=15)
    given = parser.parse_args()
    anyio.run(main, given.tasks, given.repetitions)

"""Mass moves: what a cancel, a failure or a time-out of very many tasks does to others on the loop.

`python -m benchmarks mass [--sizes 10000 100000] [--trio]`. Shown are the longest time without a turn of the
loop, by the processor and by the clock (on a machine that others use, the clock also counts them), and the
whole cost for each task, beside what `task.cancel()` for as many sleeping tasks costs by hand. The goal is
20 ms (issue 5). Python's collector of cycles stops everything whenever it looks at all objects; its longest
pause is shown by itself and left out of the others, because it depends on what a program keeps. Bodies wait for
an event and not for a time: asyncio takes 100,000 cancelled timers out of its heap in one go, 20 ms, whoever cancels.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskContext, TaskDefinition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scattersphere import Run

GOAL = 0.020


class Sleep(RunnableTask):
    """Sleep until cancelled."""

    async def run(self, context: TaskContext) -> None:
        """Wait for what never comes."""
        await anyio.Event().wait()


class Fail(RunnableTask):
    """Fail at once."""

    async def run(self, context: TaskContext) -> None:
        """Raise."""
        raise ValueError("on purpose")


DOORS: list[anyio.Event] = []
"""Opened one after another: if all bodies went on at the same moment, that would be a stall of their own."""
BEHIND_A_DOOR = 100


class Checkpoint(RunnableTask):
    """Pass one checkpoint, when its door is open; then wait until cancelled."""

    async def run(self, context: TaskContext) -> None:
        """Wait, pass, wait."""
        await DOORS[int(context.task[1:]) // BEHIND_A_DOOR].wait()
        await context.checkpoint()
        await anyio.Event().wait()


class Turns:
    """Takes a turn of the loop whenever it can, and notes the longest time between two."""

    def __init__(self) -> None:
        self.clock = self.processor = self.collector = 0.0
        self._collecting = self._collected = 0.0
        self._stopped = False

    async def run(self) -> None:
        """Take turns until stopped."""
        gc.callbacks.append(self._collects)
        clock, processor = perf_counter(), thread_time()
        while not self._stopped:
            self._collected = 0.0
            await anyio.lowlevel.checkpoint()
            now, used = perf_counter(), thread_time()
            self.clock = max(self.clock, now - clock - self._collected)
            self.processor = max(self.processor, used - processor - self._collected)
            clock, processor = now, used
        gc.callbacks.remove(self._collects)

    def _collects(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = thread_time()
        else:
            took = thread_time() - self._collecting
            self._collected += took
            self.collector = max(self.collector, took)

    def stop(self) -> None:
        """Take no more turns."""
        self._stopped = True


def flat(size: int, task: str, **policies: Any) -> JobDefinition:
    tasks = {f"t{n}": TaskDefinition(task=task, **policies) for n in range(size)}
    return JobDefinition(name="mass", tasks=tasks)


def fan(size: int) -> JobDefinition:
    tasks = {"root": TaskDefinition(task="Fail")}
    tasks |= {f"t{n}": TaskDefinition(task="Sleep", depends_on=("root",)) for n in range(size)}
    return JobDefinition(name="mass", tasks=tasks)


def line(size: int) -> JobDefinition:
    tasks = {"t0": TaskDefinition(task="Fail")}
    tasks |= {f"t{n}": TaskDefinition(task="Sleep", depends_on=(f"t{n - 1}",)) for n in range(1, size)}
    return JobDefinition(name="mass", tasks=tasks)


async def until_started(run: Run, size: int) -> None:
    """Wait until so many attempts execute and have suspended."""
    while len(run._execution.live) < size:  # noqa: SLF001 - nothing public counts them without cost
        await anyio.lowlevel.checkpoint()
    await anyio.sleep(0.1)


async def cancel(run: Run, size: int) -> None:
    await until_started(run, size)
    run.cancel()


async def kill(run: Run, size: int) -> None:
    await until_started(run, size)
    run.kill()


async def cancel_pending(run: Run, size: int) -> None:
    del size
    await anyio.lowlevel.checkpoint()
    run.cancel()


async def pause_and_resume(run: Run, size: int) -> None:
    await until_started(run, size)
    run.pause()
    for door in DOORS:
        door.set()
        await anyio.lowlevel.checkpoint()
    while run.state is not RunState.PAUSED:
        await anyio.lowlevel.checkpoint()
    run.resume()
    await anyio.sleep(1)
    run.cancel()


async def nothing(run: Run, size: int) -> None:
    del run, size


SCENARIOS: dict[str, tuple[Callable[[int], JobDefinition], Callable[[Run, int], Awaitable[None]]]] = {
    "cancel, all execute": (lambda size: flat(size, "Sleep"), cancel),
    "cancel, one executes": (lambda size: flat(size, "Sleep").evolve(max_parallel=1), cancel_pending),
    "kill, all execute": (lambda size: flat(size, "Sleep"), kill),
    "pause, resume, all held": (lambda size: flat(size, "Checkpoint"), pause_and_resume),
    "one failure, all below": (fan, nothing),
    "one failure, a chain": (line, nothing),
    "all fail": (lambda size: flat(size, "Fail"), nothing),
    "all time out at once": (lambda size: flat(size, "Sleep", timeout=2.0), nothing),
}


async def measure(server: Server, name: str, size: int) -> None:
    make, act = SCENARIOS[name]
    DOORS[:] = [anyio.Event() for _ in range(size // BEHIND_A_DOOR + 1)]
    server.define(make(size), replace=True)
    warm = await server.start("mass")  # the plan is compiled here
    warm.kill()
    await warm.wait()
    gc.collect()
    gc.freeze()
    turns = Turns()
    async with anyio.create_task_group() as group:
        run = await server.start("mass")
        group.start_soon(turns.run)
        started = perf_counter()
        await act(run, size)
        await run.wait()
        took = perf_counter() - started
        turns.stop()
    gc.unfreeze()
    show(name, size, turns, took)


def show(name: str, size: int, turns: Turns, took: float) -> None:
    verdict = "" if turns.processor <= GOAL else "  above the goal"
    print(
        f"{name:24} {size:>7}  {turns.processor * 1e3:6.1f} ms  {turns.clock * 1e3:6.1f} ms"
        f"  {turns.collector * 1e3:6.1f} ms  {took / size * 1e6:7.2f} us{verdict}",
        flush=True,
    )


async def by_hand(size: int) -> None:
    """Cancel as many tasks of asyncio as a person would: one stall for all of them."""
    tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(size)]
    await asyncio.sleep(0)
    turns = Turns()
    watching = asyncio.create_task(turns.run())
    await asyncio.sleep(0)
    started = perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    took = perf_counter() - started
    turns.stop()
    await watching
    show("by hand: task.cancel()", size, turns, took)


async def main_async(options: argparse.Namespace) -> None:
    print(f"{'what':24} {'tasks':>7}  {'processor':>9}  {'clock':>9}  {'collector':>9}  {'each':>10}")
    for size in options.sizes:
        if not options.trio:
            await by_hand(size)
        for name in SCENARIOS:
            async with Server(history=(0, 0.0)) as server:
                server.register_tasks("bench", [Sleep, Fail, Checkpoint])
                await measure(server, name, size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mass", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="TASKS")
    parser.add_argument("--trio", action="store_true")
    options = parser.parse_args()
    loop = "trio" if options.trio else "asyncio"
    print(f"Python {sys.version.split()[0]} on {loop}, {time.strftime('%Y-%m-%d')}")
    anyio.run(main_async, options, backend=loop)


if __name__ == "__main__":
    main()

"""Calls in threads and processes: `python -m benchmarks.backends [repetitions]`.

Rows of one table are measured in turn, so that a busy machine
slows all of them; medians, and the ratio to the row that the goal names.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_process
import anyio.to_thread

from scattersphere.abc.backend import Call, Outcome, OutcomeKind
from scattersphere.engine.backends.processes import ProcessBackend
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.testing.backends import Stage, task_class_of
from scattersphere.testing.bodies import Echo, Refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scattersphere.abc.backend import Backend

ONE, MANY = 400, 4_000
"""Calls of a sample: one after the other; many at once."""

_DONE = Outcome(OutcomeKind.VALUE, None)
_ECHO = "import os, sys\nr, w = map(int, sys.argv[1:])\nwhile data := os.read(r, 65536): os.write(w, data)"


def nothing() -> Outcome:
    return _DONE


async def one_by_one(call: Callable[[], Awaitable[Any]]) -> float:
    started = perf_counter()
    for _ in range(ONE):
        await call()
    return (perf_counter() - started) / ONE * 1e6


class Bench:
    """What the rows need: a loop, a backend of each kind, an echo in a thread and one in a process."""

    def __init__(self, stage: Stage, backend: Backend) -> None:
        self.loop = asyncio.get_running_loop()
        self.backend = backend
        self.context = contextvars.copy_context()
        self.task_class = task_class_of(Echo)
        self.task_context = stage.make_context(Echo, {})

    def call(self) -> Call:
        """Make a call that does nothing."""
        return Call(
            invoke=nothing,
            context=self.context.copy(),  # as the executor does: one for each attempt
            task_class=self.task_class,
            arguments={},
            task_context=self.task_context,
            name="bench",
        )

    async def one(self) -> None:
        """Run one call."""
        ended: asyncio.Future[Outcome] = self.loop.create_future()
        self.backend.start(self.call(), ended.set_result)
        await ended

    async def many(self) -> float:
        """Keep as many calls in the backend as it takes, as the dispatcher does."""
        to_start, to_end = MANY, MANY
        all_ended: asyncio.Future[None] = self.loop.create_future()

        def start() -> None:
            nonlocal to_start
            to_start -= 1
            self.backend.start(self.call(), done)

        def done(_: Outcome) -> None:
            nonlocal to_end
            to_end -= 1
            if to_start:
                start()
            if not to_end:
                all_ended.set_result(None)

        started = perf_counter()
        for _ in range(min(self.backend.limit or MANY, MANY)):
            start()
        await all_ended
        return (perf_counter() - started) / MANY * 1e6


async def queue_limit() -> float:
    """Two threads and two SimpleQueues, no event loop: less than this no thread can cost."""
    to, back = queue.SimpleQueue[Any](), queue.SimpleQueue[Any]()

    def serve() -> None:
        while (item := to.get()) is not None:
            back.put(item)

    thread = threading.Thread(target=serve)
    thread.start()
    started = perf_counter()
    for _ in range(ONE):
        to.put(1)
        back.get()
    took = perf_counter() - started
    to.put(None)
    thread.join()
    return took / ONE * 1e6


async def pipe_limit() -> float:
    """Bytes to a process and back, no event loop: less than this no process can cost."""
    (r1, w1), (r2, w2) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", _ECHO, str(r1), str(w2)]
    process = subprocess.Popen(command, pass_fds=(r1, w2))  # noqa: S603, ASYNC220 - our own text; it takes no time
    os.write(w1, b"x")
    os.read(r2, 1)
    started = perf_counter()
    for _ in range(ONE):
        os.write(w1, b"x" * 200)
        os.read(r2, 65536)
    took = perf_counter() - started
    os.close(w1)
    process.wait()
    for end in (r1, r2, w2):
        os.close(end)
    return took / ONE * 1e6


async def gather_of_executor() -> float:
    loop = asyncio.get_running_loop()
    started = perf_counter()
    await asyncio.gather(*(loop.run_in_executor(None, nothing) for _ in range(MANY)))
    return (perf_counter() - started) / MANY * 1e6


async def group_of_threads() -> float:
    started = perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(MANY):
            group.start_soon(anyio.to_thread.run_sync, nothing)
    return (perf_counter() - started) / MANY * 1e6


async def pool_of_processes(pool: ProcessPoolExecutor) -> float:
    loop = asyncio.get_running_loop()
    count = MANY // 4
    started = perf_counter()
    await asyncio.gather(*(loop.run_in_executor(pool, abs, 1) for _ in range(count)))
    return (perf_counter() - started) / count * 1e6


async def table(title: str, baseline: str, rows: dict[str, Any], repetitions: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, sample in rows.items():
            times[name].append(await sample())
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times[baseline], strict=True))
        for name in rows
    }
    print(f"\n{title}  (us a call; times {baseline})")
    for name, taken in times.items():
        print(f"  {name:44} {statistics.median(taken):8.1f}   {ratios[name]:6.2f}", flush=True)


async def first_call() -> None:
    backend = ProcessBackend(1)
    async with Stage(lambda: backend) as stage:
        started = perf_counter()
        await stage.run(Echo)
        print(
            f"\nfirst call in a process: {(perf_counter() - started) * 1e3:.0f} ms (Python's start and our imports)"
        )


async def beside_deaths(kills: int) -> None:
    """Measure calls of a sound task while the worker of a neighbour is killed again and again."""
    times: dict[str, list[float]] = {"alone": [], "beside a worker that is killed": []}

    async def sample(stage: Stage, name: str) -> None:
        for _ in range(100):
            started = perf_counter()
            await stage.run(Echo)
            times[name].append(perf_counter() - started)

    backend = ProcessBackend(2)
    async with Stage(lambda: backend) as stage:
        for call in [stage.start(Echo), stage.start(Echo)]:
            await call.outcome()
        for _ in range(kills):
            while len(backend._workers) < 2:  # noqa: SLF001, ASYNC110 - it is measured, not used
                await anyio.sleep(0.01)
            await stage.run(Echo)
            await sample(stage, "alone")
            victim = stage.start(Refuse, until="/nonexistent")
            victim.handle.kill()
            await sample(stage, "beside a worker that is killed")
            await victim.outcome()
    print("\na call beside a killed worker: goal: not delayed  (us; median, 99th of 100)")
    for name, taken in times.items():
        percentiles = statistics.quantiles(taken, n=100)
        print(f"  {name:44} {percentiles[49] * 1e6:8.1f}   {percentiles[98] * 1e6:8.1f}")


async def one_at_a_time(repetitions: int) -> None:
    """Measure round trips. Run it on one core: between two virtual ones they measure how the machine wakes them."""
    loop = asyncio.get_running_loop()
    async with Stage(ThreadBackend) as threads, Stage(lambda: ProcessBackend(2)) as processes:
        lanes = Bench(threads, threads.backend)
        workers = Bench(processes, processes.backend)
        with ProcessPoolExecutor(2) as pool:
            await one_by_one(workers.one)
            await one_by_one(lambda: anyio.to_process.run_sync(abs, 1))
            await table(
                "threads, one at a time, one core: goal 0.65",
                "anyio.to_thread",
                {
                    "two threads, SimpleQueues, no loop (limit)": queue_limit,
                    "ours": lambda: one_by_one(lanes.one),
                    "loop.run_in_executor": lambda: one_by_one(lambda: loop.run_in_executor(None, nothing)),
                    "asyncio.to_thread": lambda: one_by_one(lambda: asyncio.to_thread(nothing)),
                    "anyio.to_thread": lambda: one_by_one(lambda: anyio.to_thread.run_sync(nothing)),
                },
                repetitions,
            )
            await table(
                "processes, one at a time, one core: goal 1.5",
                "anyio.to_process, warm",
                {
                    "pipe to one process, no loop (limit)": pipe_limit,
                    "ours, warm": lambda: one_by_one(workers.one),
                    "anyio.to_process, warm": lambda: one_by_one(lambda: anyio.to_process.run_sync(abs, 1)),
                    "ProcessPoolExecutor": lambda: one_by_one(lambda: loop.run_in_executor(pool, abs, 1)),
                },
                repetitions,
            )


async def many_at_once(repetitions: int) -> None:
    """Measure throughput, on all cores."""
    async with Stage(ThreadBackend) as threads, Stage(lambda: ProcessBackend(2)) as processes:
        lanes = Bench(threads, threads.backend)
        workers = Bench(processes, processes.backend)
        with ProcessPoolExecutor(2) as pool:
            await one_by_one(workers.one)
            await table(
                "threads, many at once: goal 0.25",
                "gather of run_in_executor",
                {
                    "ours": lanes.many,
                    "gather of run_in_executor": gather_of_executor,
                    "anyio task group, to_thread": group_of_threads,
                },
                repetitions,
            )
            await table(
                "processes, many at once",
                "ProcessPoolExecutor",
                {"ours": workers.many, "ProcessPoolExecutor": lambda: pool_of_processes(pool)},
                repetitions,
            )


async def the_rest(repetitions: int) -> None:
    await first_call()
    await beside_deaths(repetitions)


def main(repetitions: int) -> None:
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians of {repetitions}")
    if sys.platform == "linux":  # threads and processes that are made from here on stay on that core too
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        anyio.run(one_at_a_time, repetitions)
        os.sched_setaffinity(0, cores)
    else:
        anyio.run(one_at_a_time, repetitions)
    anyio.run(many_at_once, repetitions)
    anyio.run(the_rest, repetitions)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

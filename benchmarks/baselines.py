"""What people write by hand instead of using an engine: the yardsticks of `dispatch`.

Each baseline takes links that were made before (as the Server's plan is), awaits `body()` once for each task
in a valid order, and returns when all have ended. None of them keeps states, times, results, logs or
limits, and none could be paused or cancelled task by task.
"""

from __future__ import annotations

import asyncio
import graphlib
from collections.abc import Awaitable, Callable

import attrs

from benchmarks.graphs import Graph

Body = Callable[[], Awaitable[object]]


@attrs.frozen
class Links:
    """A graph, ready to be run any number of times."""

    graph: Graph
    successors: list[list[int]]
    degrees: list[int]

    @classmethod
    def of(cls, graph: Graph) -> Links:
        """Turn "waits for" around."""
        successors: list[list[int]] = [[] for _ in graph]
        for index, upstreams in enumerate(graph):
            for upstream in upstreams:
                successors[upstream].append(index)
        return cls(graph, successors, [len(upstreams) for upstreams in graph])

    def start(self) -> tuple[list[int], list[int]]:
        """Return how many each task still waits for, and those that wait for none."""
        return self.degrees.copy(), [index for index, degree in enumerate(self.degrees) if not degree]


async def kahn(links: Links, body: Body) -> None:
    """L0: Kahn's algorithm, `asyncio.create_task` for each task when its last upstream has ended."""
    loop = asyncio.get_running_loop()
    waited, ready = links.start()
    successors = links.successors
    left, ended = len(waited), loop.create_future()
    tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def work(index: int) -> None:
        nonlocal left
        await body()
        for successor in successors[index]:
            waited[successor] -= 1
            if not waited[successor]:
                begin(successor)
        left -= 1
        if not left:
            ended.set_result(None)

    def begin(index: int) -> None:
        task = loop.create_task(work(index))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for index in ready:
        begin(index)
    await ended


async def task_group(links: Links, body: Body) -> None:
    """The same with `asyncio.TaskGroup`."""
    waited, ready = links.start()
    successors = links.successors

    async def work(index: int) -> None:
        await body()
        for successor in successors[index]:
            waited[successor] -= 1
            if not waited[successor]:
                group.create_task(work(successor))

    async with asyncio.TaskGroup() as group:
        for index in ready:
            group.create_task(work(index))


async def graphlib_queue(links: Links, body: Body) -> None:
    """`graphlib.TopologicalSorter` and a queue of what has ended, as the standard library's pages show."""
    sorter = graphlib.TopologicalSorter(dict(enumerate(links.graph)))
    sorter.prepare()
    ended: asyncio.Queue[int] = asyncio.Queue()

    async def work(index: int) -> None:
        await body()
        ended.put_nowait(index)

    async with asyncio.TaskGroup() as group:
        while sorter.is_active():
            for index in sorter.get_ready():
                group.create_task(work(index))
            sorter.done(await ended.get())


async def nursery(links: Links, body: Body) -> None:
    """L0 on trio: a nursery instead of raw tasks."""
    import trio  # noqa: PLC0415 - asyncio's measurements do without it

    waited, ready = links.start()
    successors = links.successors

    async def work(index: int) -> None:
        await body()
        for successor in successors[index]:
            waited[successor] -= 1
            if not waited[successor]:
                group.start_soon(work, successor)

    async with trio.open_nursery() as group:
        for index in ready:
            group.start_soon(work, index)


ASYNCIO = {"L0": kahn, "TaskGroup": task_group, "graphlib": graphlib_queue}
TRIO = {"L0": nursery}

"""Calls in worker processes that are kept warm.

A worker is spoken with over pipes, by the event loop itself as long as that is a matter of microseconds
(`direct`), else by a lane, a thread that may wait (`processlane`): both cost less for a round trip than the event
loop's own process machinery. What crosses the pipes is pickled; both ends are the same code under the same user, and a
task's code may do in the engine what it likes anyhow.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from typing import TYPE_CHECKING

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.engine.backends.threads import DaemonThreadPool
from scattersphere.engine.backends.workerlane import DirectCalls, ProcessHandle, WorkerLane
from scattersphere.engine.backends.workerprocess import IdleWorkers
from scattersphere.engine.loops import TrioLoop, current_loop
from scattersphere.worker.messages import CallMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.abc.backend import BackendHost, Call
    from scattersphere.worker.process import LateLine


def core_count() -> int:
    """Return how many cores this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class ProcessBackend:
    """Runs calls in worker processes, made when needed, at most `limit` (None: the number of cores).

    The class is imported in the worker by its module's name: modules of the host as they are on
    `sys.path`, modules of bundles from the snapshot of their version. `__main__` is not run there.
    Arguments, results and upstream results must be picklable. `context.start` is not available.
    `environment` is asked before each call for variables that the worker needs, beside the host's own.
    `on_late_line` is given the lines (level, message, logger, how long ago) of workers that belong to no run any more.
    """

    runs_async: bool = True

    def __init__(
        self,
        limit: int | None = None,
        *,
        environment: Callable[[], Mapping[str, str]] = dict,
        on_late_line: LateLine | None = None,
    ) -> None:
        workers = IdleWorkers(core_count() if limit is None else limit, environment, on_late_line)
        self.limit: int | None = workers.limit
        self._workers = workers
        self._numbers = itertools.count(1)
        self._library = "asyncio"
        self._lanes: DaemonThreadPool[ProcessHandle] = DaemonThreadPool(
            "process",
            lambda: WorkerLane(workers, lambda: self._closing),
            limit=self.limit,
            idle_seconds=None,
        )
        self._direct: DirectCalls | None = None
        self._active = 0
        self._waiting: deque[ProcessHandle] = deque()
        self._host: BackendHost | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"<ProcessBackend: {self._active} calls, {len(self._waiting)} waiting>"

    async def open(self, host: BackendHost) -> None:
        """Get ready; no process is made before the first call."""
        loop = current_loop()
        self._library = "trio" if isinstance(loop, TrioLoop) else "asyncio"
        self._host = host
        self._lanes.open(host)
        if loop.can_watch:
            self._direct = DirectCalls(loop, self._workers, self._lanes.put)

    def start(self, call: Call, done: Callable[[Outcome], None]) -> ProcessHandle:
        """Hand `call` to a worker.

        Raises TypeError if no other process could find its class, RuntimeError if the backend is not open.
        """
        if self._host is None or self._closing:
            raise RuntimeError("the process backend is not open: its Server opens and closes it")
        order = CallMessage.of(call, next(self._numbers), self._library)
        handle = ProcessHandle(call, lambda outcome: self._ended(done, outcome), order)
        if self._active < self._workers.limit:
            self._begin(handle)
        else:
            self._waiting.append(handle)
        return handle

    def _begin(self, handle: ProcessHandle) -> None:
        self._active += 1
        if self._direct is None or not self._direct.begin(handle):
            self._lanes.put(handle)

    def _ended(self, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        self._active -= 1
        if self._waiting and not self._closing:
            self._begin(self._waiting.popleft())
        done(outcome)

    async def aclose(self) -> None:
        """Kill the processes that have a call, stop the others, and wait until all have gone."""
        self._closing = True
        while self._waiting and self._host is not None:
            self._active += 1
            self._host.soon(self._waiting.popleft().done, Outcome(OutcomeKind.CANCELLED))
        if self._direct is not None:
            self._direct.close()
        for handle in self._lanes.close():
            handle.kill()
        await self._lanes.wait_all_left()

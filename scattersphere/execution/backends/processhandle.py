"""A call in a worker process, as the executor holds it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from scattersphere.execution.backends.lanes import LaneHandle
from scattersphere.execution.backends.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.backends.direct import DirectCall
    from scattersphere.execution.backends.order import Order
    from scattersphere.execution.backends.protocol import Call, Outcome
    from scattersphere.execution.backends.workerprocess import WorkerProcess

_WHERE_WAIT = 0.05
"""Seconds that `where()` waits for the worker's answer; usually it takes a tenth of a millisecond."""


class ProcessHandle(LaneHandle):
    """A call in a worker process."""

    __slots__ = ("_answered", "_place", "cancelled", "direct", "killed", "number", "order", "worker")

    def __init__(self, call: Call, done: Callable[[Outcome], None], order: Order) -> None:
        super().__init__(call, done)
        self.order: Order = order
        self.number: int = order.number
        self.cancelled: bool = False
        self.killed: bool = False
        self.worker: WorkerProcess | None = None
        """The process that carries it out at this moment."""
        self.direct: DirectCall | None = None
        """What listens to that process, as long as no lane does."""
        self._place = ""
        self._answered: threading.Event | None = None

    def cancel(self) -> None:
        """Ask it to end: its next `check()` or `checkpoint()` raises, and an async body is cancelled."""
        self.cancelled = True
        if (worker := self.worker) is not None:
            worker.tell(self, Kind.CANCEL, self.number)

    def kill(self) -> None:
        """Kill its process, and what that has started."""
        self.killed = True
        if (worker := self.worker) is not None:
            worker.kill(self)

    def where(self) -> str:
        """Ask the process which line it executes. An old answer where it does not react (C code)."""
        worker = self.worker
        if worker is None:
            return ""
        if self.direct is not None:
            self.direct.hand_over()  # the answer would come to this thread, which waits for it
        self._answered = threading.Event()
        worker.tell(self, Kind.WHERE, self.number)
        self._answered.wait(_WHERE_WAIT)
        place = self._place or "no line known"
        return f"{place} (process {worker.pid})"

    def answered(self, place: str) -> None:
        """Take the worker's answer to `where`."""
        self._place = place
        if self._answered is not None:
            self._answered.set()

    def enter(self, worker: WorkerProcess) -> bool:
        """Be carried out by `worker` from now on. False if it was killed before."""
        worker.begin(self)
        self.worker = worker  # first this, then the flags; `cancel` and `kill` do it the other way round
        if self.cancelled:
            worker.tell(self, Kind.CANCEL, self.number)
        return not self.killed

    def leave(self, worker: WorkerProcess) -> None:
        """Be carried out by it no longer."""
        self.worker = None
        worker.end()
        worker.late.remember(self.number, self.call.task_context)

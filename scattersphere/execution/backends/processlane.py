"""A thread's conversation with worker processes: it may block, and so can do what the loop may not."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from scattersphere.execution.backends.conversation import died, refused, take
from scattersphere.execution.backends.idleworkers import IdleWorkers, is_worn, version_of
from scattersphere.execution.backends.order import pack
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.backends.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.backends.processhandle import ProcessHandle
    from scattersphere.execution.backends.workerprocess import WorkerProcess


class ProcessLane:
    """What a lane does with a call: take an idle worker, or start one, and talk to it until the call has ended."""

    def __init__(self, workers: IdleWorkers, closing: Callable[[], bool]) -> None:
        self._workers = workers
        self._closing = closing
        self._worn: list[WorkerProcess] = []
        self._refill = False

    def run(self, handle: ProcessHandle) -> Outcome:
        """Have a worker carry out one call; a new one if it had died while it was idle."""
        if (worker := handle.worker) is not None:  # the loop has begun it
            return self._finish(handle, worker)
        return (
            self._attempt(handle, again=True)
            or self._attempt(handle, again=False)
            or died("lost its worker twice")
        )

    def _attempt(self, handle: ProcessHandle, *, again: bool) -> Outcome | None:
        """Carry out the call. None if the worker had gone before; not where there is no other try."""
        try:
            environment = self._workers.environment()
            worker = self._fresh_enough() or self._workers.start(environment)
        except Exception as exc:  # noqa: BLE001 - without a process the call fails
            return refused(exc)
        try:
            same = worker.environment == environment
            order = pack(handle.call, handle.order, None if same else dict(environment))
        except Exception as exc:  # noqa: BLE001 - what cannot be sent fails the call
            self._workers.put(worker)
            return refused(exc)
        if not handle.enter(worker):
            handle.leave(worker)
            self._workers.put(worker)
            return died("killed before it began")
        self._await_start(handle, worker)
        if worker.started and not handle.call.begins():
            handle.leave(worker)
            self._workers.put(worker)
            return Outcome(Ending.CANCELLED)
        try:
            worker.calls.send(Kind.CALL, order)
        except OSError:
            # A call that was not read to its end has not begun, so it may go to another worker; but not to
            # a third one: the order itself may be what no process survives.
            if again and worker.started:
                handle.leave(worker)
                self._workers.bury(worker)
                return None
        worker.environment = dict(environment)
        return self._finish(handle, worker)

    def _await_start(self, handle: ProcessHandle, worker: WorkerProcess) -> None:
        """Wait until a new worker can begin a call; one that ends before that is noticed by who talks to it."""
        with suppress(OSError, ValueError):
            while not worker.started and (frame := worker.replies.receive()) is not None:
                take(handle, worker, *frame)

    def _fresh_enough(self) -> WorkerProcess | None:
        while (worker := self._workers.take()) is not None and is_worn(worker):
            self._worn.append(worker)  # dismissed when the call is done: it may take its time to end
            self._refill = True
        return worker

    def _finish(self, handle: ProcessHandle, worker: WorkerProcess) -> Outcome:
        """Answer what the body asks, until it ends or the process does."""
        worker.versions.add(version_of(handle.order.module))
        why = ""
        try:
            while (frame := worker.replies.receive()) is not None:
                outcome = take(handle, worker, *frame)
                if outcome is not None:
                    handle.leave(worker)
                    self._give_back(worker)
                    return outcome
        except ValueError:
            why = "wrote into the pipe of its worker process, which was ended"
        except OSError:
            pass  # the pipe broke while an answer was sent: as if it had ended
        outcome = self._lost(handle, worker, why)
        handle.leave(worker)
        return outcome

    def _give_back(self, worker: WorkerProcess) -> None:
        if is_worn(worker):
            self._worn.append(worker)
            self._refill = True
        else:
            self._workers.put(worker)

    def _lost(self, handle: ProcessHandle, worker: WorkerProcess, why: str) -> Outcome:
        """Bury the worker, and tell how it ended."""
        self._refill = worker.started
        how = self._workers.bury(worker)
        if not worker.started:
            return died(f"the worker process did not start: {how}; its standard error says more")
        if "SIGKILL" in how and not handle.killed:
            how += " (out of memory?)"
        return died(why or how)

    def rest(self) -> None:
        """Put a fresh worker in the place of one that died, has loaded many versions, or is out of memory."""
        while self._worn:
            self._workers.dismiss(self._worn.pop())
        if self._refill and not self._closing():
            self._refill = False
            try:
                self._workers.refill()
            except OSError:  # no memory, no process number: the next call tries again, and then fails by it
                return

    def close(self) -> None:
        """The lane ends: so do the workers that have no call."""
        while (worker := self._workers.take()) is not None:
            self._workers.dismiss(worker)

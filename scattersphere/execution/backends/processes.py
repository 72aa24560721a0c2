"""Calls in worker processes that are kept warm.

Each process belongs to a lane, a thread that speaks with it: pipes and threads cost less for a round trip
than the event loop's own process machinery, and are the same on asyncio and trio. What crosses the pipes is pickled;
both ends are the same code under the same user, and a task's code may do in the engine what it likes anyhow.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

from scattersphere.errors import TaskCancelled
from scattersphere.execution.backends.lanes import LaneHandle, Lanes
from scattersphere.execution.backends.latelines import LateLines
from scattersphere.execution.backends.order import Order, dumps, make_order, pack
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.backends.wire import Kind
from scattersphere.execution.backends.workerprocess import WorkerProcess
from scattersphere.execution.failures import text_of
from scattersphere.execution.loops import TrioLoop, current_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.execution.backends.latelines import LateLine
    from scattersphere.execution.backends.protocol import Call, Host
    from scattersphere.execution.backends.remotefailure import RemoteFailure

VERSIONS_KEPT = 16
"""Bundle versions that a worker loads before it is replaced: old versions are never unloaded in it."""

_WHERE_WAIT = 0.05
"""Seconds that `where()` waits for the worker's answer; usually it takes a tenth of a millisecond."""


def core_count() -> int:
    """Return how many cores this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class ProcessHandle(LaneHandle):
    """A call in a worker process."""

    __slots__ = ("_answered", "_place", "_worker", "cancelled", "killed", "number", "order")

    def __init__(self, call: Call, done: Callable[[Outcome], None], order: Order) -> None:
        super().__init__(call, done)
        self.order: Order = order
        self.number: int = order.number
        self.cancelled: bool = False
        self.killed: bool = False
        self._worker: WorkerProcess | None = None
        self._place = ""
        self._answered: threading.Event | None = None

    def cancel(self) -> None:
        """Ask it to end: its next `check()` or `checkpoint()` raises, and an async body is cancelled."""
        self.cancelled = True
        if (worker := self._worker) is not None:
            worker.tell(self, Kind.CANCEL, self.number)

    def kill(self) -> None:
        """Kill its process, and what that has started."""
        self.killed = True
        if (worker := self._worker) is not None:
            worker.kill(self)

    def where(self) -> str:
        """Ask the process which line it executes. An old answer where it does not react (C code)."""
        worker = self._worker
        if worker is None:
            return ""
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
        self._worker = worker  # first this, then the flags; `cancel` and `kill` do it the other way round
        if self.cancelled:
            worker.tell(self, Kind.CANCEL, self.number)
        return not self.killed

    def leave(self, worker: WorkerProcess) -> None:
        """Be carried out by it no longer."""
        self._worker = None
        worker.end()


class ProcessBackend:
    """Runs calls in worker processes, made when needed, at most `limit` (None: the number of cores).

    The class is imported in the worker by its module's name: modules of the host as they are on
    `sys.path`, modules of bundles from the snapshot of their version. `__main__` is not run there.
    Arguments, results and upstream results must be picklable. `context.start` is not available.
    `environment` is asked before each call for variables that the worker needs, beside the host's own.
    `on_late_line` is given the lines (level, message, logger, time) of workers that belong to no run any more.
    """

    def __init__(
        self,
        limit: int | None = None,
        *,
        environment: Callable[[], Mapping[str, str]] = dict,
        on_late_line: LateLine | None = None,
    ) -> None:
        self.limit: int | None = core_count() if limit is None else limit
        self._environment = environment
        self._on_late_line = on_late_line
        self._numbers = itertools.count(1)
        self._library = "asyncio"
        self._lanes: Lanes[ProcessHandle] = Lanes(
            "process", self._make_worker, limit=self.limit, idle_seconds=None
        )
        self._closing = False

    def __repr__(self) -> str:
        return f"<ProcessBackend: {self._lanes!r}>"

    async def open(self, host: Host) -> None:
        """Get ready; no process is made before the first call."""
        self._library = "trio" if isinstance(current_loop(), TrioLoop) else "asyncio"
        self._lanes.open(host)

    def start(self, call: Call, done: Callable[[Outcome], None]) -> ProcessHandle:
        """Hand `call` to a worker.

        Raises TypeError if no other process could find its class, RuntimeError if the backend is not open.
        """
        handle = ProcessHandle(call, done, make_order(call, next(self._numbers), self._library))
        self._lanes.put(handle)
        return handle

    async def aclose(self) -> None:
        """Kill the processes that have a call, dismiss the others, and wait until all have gone."""
        self._closing = True
        for handle in self._lanes.close():
            handle.kill()
        await self._lanes.wait_all_left()

    def _make_worker(self) -> _ProcessLane:
        return _ProcessLane(self._environment, lambda: self._closing, self._on_late_line)


class _ProcessLane:
    """Speaks with one worker process after the other."""

    def __init__(
        self,
        environment: Callable[[], Mapping[str, str]],
        closing: Callable[[], bool],
        on_late_line: LateLine | None,
    ) -> None:
        self._environment = environment
        self._late = LateLines(on_late_line)
        self._closing = closing
        self._worker: WorkerProcess | None = None
        self._modules: set[str] = set()
        self._replace = False
        self._worn = False
        """Whether the worker ran out of memory: what it holds nobody can know."""

    # -- a call

    def run(self, handle: ProcessHandle) -> Outcome:
        """Have the worker carry out one call; a new one if it had died while it was idle."""
        return (
            self._attempt(handle, again=True)
            or self._attempt(handle, again=False)
            or _died("lost its worker twice")
        )

    def _attempt(self, handle: ProcessHandle, *, again: bool) -> Outcome | None:
        """Carry out the call. None if the worker had gone before; not where there is no other try."""
        try:
            environment = self._environment()
            worker = self._worker or self._start_worker(environment)
            same = worker.environment == environment
            order = pack(handle.call, handle.order, None if same else dict(environment))
        except Exception as exc:  # noqa: BLE001 - what cannot be sent, or no process, fails the call
            return _refused(exc)
        try:
            if not handle.enter(worker):
                return _died("killed before it began")
            try:
                worker.calls.send(Kind.CALL, order)
            except BrokenPipeError:
                # A call that was not read to its end has not begun, so it may go to another worker; but not to
                # a third one: the order itself may be what no process survives.
                if again and worker.started:
                    self._worker = None
                    worker.bury()
                    return None
            worker.environment = dict(environment)
            return self._converse(handle, worker)
        finally:
            handle.leave(worker)
            self._late.remember(handle.number, handle.call.task_context)

    def rest(self) -> None:
        """Put a fresh worker in the place of one that died, has loaded many versions, or is out of memory."""
        if (self._worn or len(self._modules) > VERSIONS_KEPT) and self._worker is not None:
            worker, self._worker, self._worn = self._worker, None, False
            worker.dismiss()
            self._replace = True
        if self._replace and not self._closing():
            self._replace = False
            try:
                self._start_worker(self._environment())
            except OSError:  # no memory, no process number: the next call tries again, and then fails by it
                self._worker = None

    def close(self) -> None:
        """The lane ends: so does its worker."""
        if self._worker is not None:
            self._worker.dismiss()
            self._worker = None

    def _start_worker(self, environment: Mapping[str, str]) -> WorkerProcess:
        self._worker = WorkerProcess(environment)
        self._modules.clear()
        return self._worker

    def _converse(self, handle: ProcessHandle, worker: WorkerProcess) -> Outcome:
        """Answer what the body asks, until it ends or the process does."""
        self._modules.add(_version_of(handle.order.module))
        try:
            while (frame := worker.replies.receive()) is not None:
                outcome = self._take(handle, worker, *frame)
                if outcome is not None:
                    return outcome
        except ValueError:
            return self._lost(handle, worker, "wrote into the pipe of its worker process, which was ended")
        except OSError:
            pass  # the pipe broke while an answer was sent: as if it had ended
        return self._lost(handle, worker)

    def _lost(self, handle: ProcessHandle, worker: WorkerProcess, why: str = "") -> Outcome:
        """Bury the worker, and tell how it ended."""
        self._worker = None
        self._replace = worker.started
        how = worker.bury()
        if not worker.started:
            return _died(f"the worker process did not start: {how}; its standard error says more")
        if "SIGKILL" in how and not handle.killed:
            how += " (out of memory?)"
        return _died(why or how)

    def _take(
        self, handle: ProcessHandle, worker: WorkerProcess, kind: Kind, payload: bytes
    ) -> Outcome | None:
        """Handle one frame; return the outcome if it is the last one of the call."""
        match kind:
            case Kind.VALUE:
                return _value(handle.call.name, payload)
            case Kind.FAILURE:
                failure: RemoteFailure = pickle.loads(payload)  # noqa: S301 - see the module's docstring
                self._worn = self._worn or ("builtins", "MemoryError") in failure.lineage
                return Outcome(Ending.EXCEPTION, error=failure.rebuild(), traceback=failure.traceback)
            case Kind.CANCELLED:
                return Outcome(Ending.CANCELLED)
            case Kind.CHECK:
                worker.calls.send(Kind.ANSWER, dumps(_check(handle)))
            case Kind.RESULTS:
                worker.calls.send(Kind.ANSWER, _results(handle))
            case Kind.READY:
                worker.started = True
            case Kind.LOG | Kind.PROGRESS | Kind.HERE:
                number, *content = pickle.loads(payload)  # noqa: S301 - as above
                if number == handle.number:
                    _tell(handle, kind, content)
                elif kind is Kind.LOG:  # a thread that outlived an earlier call, or a module's import
                    self._late.take(number, *content)
        return None


def _version_of(module: str) -> str:
    """Name the bundle version that a module belongs to; "" for modules of the host."""
    return ".".join(module.split(".")[:3]) if module.startswith("scattersphere.bundles.") else ""


def _died(how: str) -> Outcome:
    return Outcome(Ending.DIED, error=ChildProcessError(how))


def _refused(exc: Exception) -> Outcome:
    """The call did not come to the user's code: the message says all, and the frames would all be ours."""
    return Outcome(Ending.EXCEPTION, error=exc, traceback=f"{type(exc).__name__}: {text_of(exc)}")


def _value(name: str, payload: bytes) -> Outcome:
    try:
        return Outcome(Ending.VALUE, pickle.loads(payload))  # noqa: S301 - see the module's docstring
    except Exception as exc:  # noqa: BLE001 - unpickling runs code of the result's classes
        error = TypeError(
            f"{name}: its result arrived from the worker process but cannot be read: {text_of(exc)}"
        )
        return _refused(error)


def _check(handle: ProcessHandle) -> tuple[str, str]:
    """Ask the attempt's own context, on behalf of the body: this blocks while the run is paused."""
    try:
        handle.call.task_context.check()
    except TaskCancelled as exc:
        return "cancelled", text_of(exc)
    return ("cancelled", "") if handle.cancelled else ("go on", "")


def _results(handle: ProcessHandle) -> bytes:
    try:
        return dumps(("results", dict(handle.call.task_context.results)))
    except Exception as exc:  # noqa: BLE001 - the results' own __reduce__ may raise anything
        return dumps(
            ("error", f"the results of the upstream tasks cannot be sent to a worker process: {exc}")
        )


def _tell(handle: ProcessHandle, kind: Kind, content: list[Any]) -> None:
    context = handle.call.task_context
    if kind is Kind.HERE:
        handle.answered(*content)
    elif kind is Kind.PROGRESS:
        context.progress(*content)
    else:
        level, message, logger, when = content
        log = getattr(context, "run_log", None)
        if log is None:  # a context of somebody else's executor
            context.log.log(level, "%s", message)
            return
        log.append(
            level, message, task=context.task, index=context.index, attempt=context.attempt,
            logger=logger, when=when,
        )  # fmt: skip

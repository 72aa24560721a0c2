"""What is said between the engine and a worker process about one call, whoever holds the engine's end of the pipes."""

from __future__ import annotations

import pickle
from time import monotonic
from typing import TYPE_CHECKING, cast

from scattersphere.errors import TaskCancelled
from scattersphere.execution.backends.order import dumps
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.backends.wire import Kind
from scattersphere.execution.logs.failures import text_of
from scattersphere.execution.logs.hostlog import pass_on_line
from scattersphere.execution.logs.runlog import TASK_LOGGER

if TYPE_CHECKING:
    from scattersphere.execution.backends.processhandle import ProcessHandle
    from scattersphere.execution.backends.remotefailure import RemoteFailure
    from scattersphere.execution.backends.workerprocess import WorkerProcess
    from scattersphere.execution.logs.runlog import LoggedAttempt


def take(handle: ProcessHandle, worker: WorkerProcess, kind: Kind, payload: bytes) -> Outcome | None:
    """Handle one frame; return the outcome if it is the last one of the call. CHECK blocks while the run is paused."""
    match kind:
        case Kind.VALUE:
            return _value(handle.call.name, payload)
        case Kind.FAILURE:
            failure: RemoteFailure = pickle.loads(payload)  # noqa: S301 - from the worker that we started
            worker.worn = worker.worn or ("builtins", "MemoryError") in failure.lineage
            return Outcome(Ending.EXCEPTION, error=failure.rebuild(), traceback=failure.traceback)
        case Kind.CANCELLED:
            return Outcome(Ending.CANCELLED)
        case Kind.CHECK:
            worker.calls.send(Kind.ANSWER, dumps(_check(handle)))
        case Kind.RESULTS:
            worker.calls.send(Kind.ANSWER, _results(handle))
        case Kind.READY:
            worker.started = True
        case Kind.LOG:
            _log_line(handle, worker, *pickle.loads(payload))  # noqa: S301 - as above
        case Kind.PROGRESS | Kind.HERE:
            number, *content = pickle.loads(payload)  # noqa: S301 - as above
            if number == handle.number:
                (handle.answered if kind is Kind.HERE else handle.call.task_context.progress)(*content)
    return None


def died(how: str) -> Outcome:
    """The process is gone."""
    return Outcome(Ending.DIED, error=ChildProcessError(how))


def refused(exc: Exception) -> Outcome:
    """The call did not come to the user's code: the message says all, and the frames would all be ours."""
    return Outcome(Ending.EXCEPTION, error=exc, traceback=f"{type(exc).__name__}: {text_of(exc)}")


def _value(name: str, payload: bytes) -> Outcome:
    try:
        return Outcome(Ending.VALUE, pickle.loads(payload))  # noqa: S301 - as above
    except BaseException as exc:  # noqa: BLE001 - unpickling runs code of the result's classes
        error = TypeError(
            f"{name}: its result arrived from the worker process but cannot be read: {text_of(exc)}"
        )
        return refused(error)


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


def _log_line(
    handle: ProcessHandle,
    worker: WorkerProcess,
    number: int,
    level: int,
    message: str,
    logger: str,
    when: float,
) -> None:
    ago = max(0.0, monotonic() - when)  # one clock for all processes of a machine, which nobody sets
    context = handle.call.task_context
    log = getattr(context, "run_log", None)
    if number != handle.number:  # a thread that outlived an earlier call, or a module's import
        worker.late.take(number, level, message, logger, ago)
    elif log is None:  # a context of somebody else's executor
        context.log.log(level, "%s", message)
    else:
        log.append(
            level, message, task=context.task, index=context.index, attempt=context.attempt,
            logger=logger, ago=ago,
        )  # fmt: skip
        if logger == TASK_LOGGER:
            pass_on_line(cast("LoggedAttempt", context), level, message)

"""The main program of a worker process: carries out one call after the other, until its pipe ends."""

from __future__ import annotations

import contextvars
import functools
import gc
import importlib
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from scattersphere.execution.backends.remotefailure import RemoteFailure
from scattersphere.execution.backends.wire import NO_CALL, CallMessage, Kind, Receiver, Sender, dumps
from scattersphere.execution.backends.workercontext import WorkerAttempt
from scattersphere.execution.logs.capture import capture_bundle_loggers, capture_print
from scattersphere.execution.logs.frames import logical_names
from scattersphere.execution.logs.runlog import current_attempt, format_record
from scattersphere.registry.modules.children import attach

if TYPE_CHECKING:
    import logging

    from scattersphere.execution.backends.protocol import Outcome


class Worker:
    """The pipes of this process, and the call that it carries out."""

    def __init__(self, calls: int, replies: int, control: int) -> None:
        self.calls: Receiver = Receiver(calls)
        self.replies: Sender = Sender(replies)
        self.control: Receiver = Receiver(control)
        self.attempt: WorkerAttempt | None = None
        self.cancelled: int = 0
        """The number of the call that is asked to end; it may not have come here yet."""
        self._asking = threading.Lock()

    def ask(self, kind: Kind) -> tuple[str, Any]:
        """Ask the engine and wait for its answer. For any thread of the call."""
        with self._asking:
            self.replies.send(kind)
            frame = self.calls.receive()
        if frame is None:
            _end()
        answer: tuple[str, Any] = pickle.loads(frame[1])  # noqa: S301 - from the engine that started us
        return answer

    def serve(self) -> None:
        """Carry out calls until the engine closes the pipe."""
        self.replies.send(Kind.READY)
        while (frame := self.calls.receive()) is not None:
            order = CallMessage.read(frame[1])
            if order.environment is not None:
                os.environ.update(order.environment)
            kind, payload = contextvars.copy_context().run(self._carry_out, order)
            self.attempt = None
            self.replies.send(kind, payload)

    def watch(self) -> None:
        """Take control frames, beside the body. When they end unannounced, the engine has gone: so do we."""
        while (frame := self.control.receive()) is not None:
            if frame[0] is Kind.LEAVE:
                return
            kind, number = frame[0], int.from_bytes(frame[1], "little")
            attempt = self.attempt
            if kind is Kind.CANCEL:
                self.cancelled = number
                attempt = self.attempt  # again: set meanwhile, it would have missed the number
                if attempt is not None and attempt.order.number == number:
                    attempt.cancel()
            elif attempt is not None and attempt.order.number == number:
                self.replies.send(Kind.HERE, dumps((number, attempt.where())))
        _end()

    def stray(self, record: logging.LogRecord) -> None:
        """Send a line that no attempt has written: a module's, while it is imported, or a thread's of its own."""
        name = logical_names(record.name)
        self.replies.send(
            Kind.LOG, dumps((NO_CALL, record.levelno, format_record(record), name, monotonic()))
        )

    def _carry_out(self, order: CallMessage) -> tuple[Kind, bytes]:
        """Run one call and pack its outcome. Never raises."""
        try:
            attempt = WorkerAttempt(self, order, *_unpack(order))
        except BaseException as exc:  # noqa: BLE001 - the bundle's import, or an argument's class, may do anything
            return Kind.FAILURE, dumps(RemoteFailure.of(exc))
        current_attempt.set(attempt)
        self.attempt = attempt
        if self.cancelled == order.number:
            attempt.cancel()
        if order.captures_print:
            with capture_print():
                return _pack(order.name, attempt.run_body())
        return _pack(order.name, attempt.run_body())

    def forget(self) -> None:
        """In a child that a body forked: it must neither speak for us nor keep our pipes open."""
        for end in (self.calls, self.replies, self.control):
            descriptor, end.descriptor = end.descriptor, -1  # not `close`: its lock may be held by a thread
            os.close(descriptor)  # that does not exist here


def _unpack(order: CallMessage) -> tuple[type, dict[str, Any], dict[str, Any]]:
    module = importlib.import_module(order.module)
    cls: type = functools.reduce(getattr, order.qualname.split("."), module)  # type: ignore[assignment]
    try:
        arguments, params = pickle.loads(order.arguments)  # noqa: S301 - from the engine that started us
    except Exception as exc:
        raise TypeError(
            f"{order.name}: its arguments cannot be read in a worker process: {exc}; "
            'pass plain data, or use backend "thread"'
        ) from exc
    return cls, arguments, params


def _pack(name: str, outcome: Outcome) -> tuple[Kind, bytes]:
    if outcome.error is not None:
        return Kind.FAILURE, dumps(RemoteFailure.of(outcome.error, outcome.traceback))
    if outcome.ending.value == "cancelled":
        return Kind.CANCELLED, b""
    try:
        return Kind.VALUE, dumps(outcome.value)
    except BaseException as exc:  # noqa: BLE001 - the result's own __reduce__ may raise anything
        error = TypeError(
            f"{name}: its result (a {type(outcome.value).__name__}) cannot be sent from the worker process: {exc}; "
            'return plain data, or use backend "thread"'
        )
        return Kind.FAILURE, dumps(RemoteFailure.of(error))


def _end() -> NoReturn:
    """The engine has gone, killed perhaps: nobody waits for us, so we end with all that bodies have started."""
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # for type checkers: nobody comes here


def main(calls: int, replies: int, control: int) -> None:
    """Be a worker process. The arguments are file descriptors."""
    sys.argv[1:] = []
    for descriptor in (calls, replies, control):
        os.set_inheritable(descriptor, False)
    worker = Worker(calls, replies, control)
    os.register_at_fork(after_in_child=worker.forget)
    attach()
    gc.freeze()  # what is loaded by now stays: no collection need look at it again
    threading.Thread(target=worker.watch, name="scattersphere-control", daemon=True).start()
    # Nobody configures logging here, so there is no host's logging to hand records on to. The pipe breaks when
    # the engine has gone, or needs us no longer.
    with capture_bundle_loggers(forward=False, stray=worker.stray), suppress(BrokenPipeError):
        worker.serve()

"""The main program of a worker process: carries out one call after the other, until its pipe ends."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from scattersphere.abc.backend import OutcomeKind
from scattersphere.logs.capture import capture_bundle_loggers
from scattersphere.logs.frames import logical_names
from scattersphere.logs.runlog import format_record
from scattersphere.registry.modules.children import attach
from scattersphere.worker.attempt import run_call
from scattersphere.worker.messages import CallMessage, dumps
from scattersphere.worker.pipes import LARGE, NO_CALL, REPLIES, Kind, Receiver, Sender

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from scattersphere.worker.channel import CallControl


class Worker:
    """The pipes of this process, and the call that it carries out."""

    def __init__(self, calls: int, replies: int, control: int) -> None:
        self.calls: Receiver = Receiver(calls)
        self.replies: Sender = Sender(replies)
        self.control: Receiver = Receiver(control)
        self.current: PipeChannel | None = None
        self.cancelled: int = 0
        """The number of the call that is asked to end; it may not have come here yet."""
        self.paused: int = 0
        """The number of the call whose run is being paused; nor may that."""
        self._asking = threading.Lock()

    def ask(self, kind: Kind) -> tuple[str, Any]:
        """Ask the engine and wait for its answer. For any thread of the call."""
        with self._asking:
            self.replies.send(kind)
            frame = self.calls.receive()
        if frame is None:
            _end()
        answer: tuple[str, object] = pickle.loads(frame[1])  # noqa: S301 - from the engine that started us
        return answer

    def serve(self) -> None:
        """Carry out calls until the engine closes the pipe."""
        self.replies.send(Kind.READY)
        while (frame := self.calls.receive()) is not None:
            message = CallMessage.read(frame[1])
            reply = run_call(message, PipeChannel(self, message.number))
            self.current = None
            if reply.size:
                self.replies.send(Kind.FILED, dumps((reply.type, reply.size)))
                continue
            if reply.kind is OutcomeKind.VALUE and len(reply.payload) > LARGE:
                self.replies.send(Kind.TYPE, reply.type.encode())
            self.replies.send(REPLIES[reply.kind], reply.payload)

    def watch(self) -> None:
        """Take control frames, beside the body. When they end unannounced, the engine has gone: so do we."""
        while (frame := self.control.receive()) is not None:
            if frame[0] is Kind.LEAVE:
                return
            kind, number = frame[0], int.from_bytes(frame[1], "little")
            if kind is Kind.CANCEL:
                self.cancelled = number
            elif kind is not Kind.WHERE:
                self.paused = number if kind is Kind.PAUSE else 0
            current = self.current  # after the number was noted: set meanwhile, it would have missed that
            if current is not None and current.number == number:
                current.obey(kind)
        _end()

    def stray(self, record: logging.LogRecord) -> None:
        """Send a line that no attempt has written: a module's, while it is imported, or a thread's of its own."""
        self.send_line(NO_CALL, record.levelno, format_record(record), logical_names(record.name), 0.0)

    def send_line(self, number: int, level: int, message: str, logger: str, ago: float) -> None:
        """Send a line of a call. One clock for all processes of a machine, which nobody sets."""
        self.replies.send(Kind.LOG, dumps((number, level, message, logger, monotonic() - ago)))

    def forget(self) -> None:
        """In a child that a body forked: it must neither speak for us nor keep our pipes open."""
        for end in (self.calls, self.replies, self.control):
            descriptor, end.descriptor = end.descriptor, -1  # not `close`: its lock may be held by a thread
            os.close(descriptor)  # that does not exist here


class PipeChannel:
    """How one call speaks over the pipes of this process (`Channel`)."""

    def __init__(self, worker: Worker, number: int) -> None:
        self.number: int = number
        self._worker = worker
        self._control: CallControl | None = None

    def begun(self, control: CallControl) -> None:
        """Be the call that control frames are meant for."""
        self._control = control
        self._worker.current = self
        if self._worker.cancelled == self.number:
            control.cancel()
        if self._worker.paused == self.number:
            control.pause()
            if self._worker.paused != self.number:  # resumed in between, perhaps before the line above
                control.resume()

    def obey(self, kind: Kind) -> None:
        """Pass a control frame on; in the thread that reads those."""
        control = self._control
        if control is None:
            return
        match kind:
            case Kind.CANCEL:
                control.cancel()
            case Kind.PAUSE:
                control.pause()
            case Kind.RESUME:
                control.resume()
            case _:
                self._worker.replies.send(Kind.HERE, dumps((self.number, control.where())))

    def log(self, level: int, message: str, logger: str, ago: float) -> None:
        """Send a line."""
        self._worker.send_line(self.number, level, message, logger, ago)

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Send a report."""
        self._worker.replies.send(Kind.PROGRESS, dumps((self.number, done, total, message)))

    def held(self) -> None:
        """Say so."""
        self._worker.replies.send(Kind.HELD, dumps((self.number,)))

    def check(self) -> str | None:
        """Ask, and wait for the answer."""
        word, reason = self._worker.ask(Kind.CHECK)
        return None if word == "go on" else reason or word

    def results(self) -> Mapping[str, Any]:
        """Fetch them."""
        word, content = self._worker.ask(Kind.RESULTS)
        if word == "error":
            raise TypeError(content)
        results: Mapping[str, object] = content
        return results


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

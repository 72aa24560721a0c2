"""One call in a Dask worker: between the engine and the process that executes it."""

from __future__ import annotations

import pickle
import select
import threading
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from scattersphere.ext.dask.messages import SHORT, WINDOW, Signal
from scattersphere.ext.dask.values import LongValue, laid_out, take_file
from scattersphere.logs.remotefailure import RemoteFailure
from scattersphere.worker.longvalues import FOLDER
from scattersphere.worker.messages import dumps
from scattersphere.worker.pipes import Kind

if TYPE_CHECKING:
    from scattersphere.ext.dask.guest import Guest
    from scattersphere.ext.dask.messages import CallOrder
    from scattersphere.ext.dask.values import Stored
    from scattersphere.worker.process import WorkerProcess

_RESULT = {Kind.VALUE: Signal.VALUE, Kind.FAILURE: Signal.FAILURE, Kind.CANCELLED: Signal.CANCELLED}
_GO_ON = dumps(("go on", ""))
QUICK = 0.002
"""Seconds for which it is not said that a body has begun: what ends in that time says both at once."""


class _EndedError(Exception):
    """The call is to end while it waits for an answer."""


class Speaker(Protocol):
    """Who tells the engine what a call has to say: the `Site`."""

    def say(self, key: str, word: Signal, payload: bytes = b"", *, at_once: bool = True) -> None:
        """Say it `at_once`, or with what is said next."""

    def flush(self) -> None:
        """Send what is to be said."""


class SiteCall:
    """A call that has come to a Dask worker. `run` is for the thread that Dask gives it, `hear` for any."""

    def __init__(
        self, site: Speaker, guest: Guest, order: CallOrder, values: tuple[Stored | None, ...], *, held: bool
    ) -> None:
        self._site = site
        self._guest = guest
        self._order = order
        self._values = values
        self._type = ""
        self._file = guest.store / FOLDER / str(order.number)
        """Where its process lays a long result."""
        self._where = ""
        self._held = held
        """Whether the engine is to be asked before it begins, and at its checkpoints."""
        self._cancelled = False
        self._killed = False
        self._lost_for = ""
        """Why it was ended by the Dask worker, and not by its engine."""
        self._process: WorkerProcess | None = None
        self._answers: SimpleQueue[bytes | None] = SimpleQueue()
        self._result: Stored | None = None
        self._credit = threading.Semaphore(WINDOW)
        """Lines and reports that may be sent."""

    # ---- what the engine says

    def hear(self, word: Signal, payload: bytes) -> None:
        """Take what the engine says."""
        process = self._process
        match word:
            case Signal.ANSWER:
                self._answers.put(payload)
            case Signal.TAKEN:
                self._credit.release(WINDOW // 2)
            case Signal.HOLD | Signal.GO:
                self._held = word is Signal.HOLD
                if (
                    process := self._process
                ) is not None:  # after the flag; `_enter` does it the other way round
                    process.tell(self, Kind.PAUSE if self._held else Kind.RESUME, self._order.number)
            case Signal.CANCEL:
                self._cancelled = True
                if (
                    process := self._process
                ) is not None:  # after the flag; `_enter` does it the other way round
                    process.tell(self, Kind.CANCEL, self._order.number)
            case Signal.KILL:
                self._killed = True
                if (process := self._process) is not None:
                    process.kill(self)
                self._answers.put(None)
                self._credit.release(WINDOW)
            case Signal.WHERE if process is not None:
                process.tell(self, Kind.WHERE, self._order.number)
            case _:
                pass

    def ask(self, word: Signal, payload: bytes = b"") -> bytes:
        """Ask the engine, and wait for its answer. Raises an error of ours if the call is to end instead."""
        if not self._killed:
            self._site.say(self._order.key, word, payload)
            answer = self._answers.get()
            if answer is not None:
                return answer
        raise _EndedError

    def fetch(self, word: Signal, payload: bytes) -> object:
        """Ask, and unpack the answer. Raises RuntimeError with the engine's words if it has not what was asked for."""
        good, content = pickle.loads(self.ask(word, payload))  # noqa: S301 - from the engine that this worker serves
        if not good:
            raise RuntimeError(content)
        return content

    def lose(self, why: str) -> None:
        """End it here, because it may begin elsewhere."""
        self._lost_for = why
        self.hear(Signal.KILL, b"")

    # ---- carrying it out

    def run(self) -> Stored | None:
        """Have a process carry it out; a new one if it had died while it was idle. Return a long result."""
        try:
            self._guest.have(self.fetch, self._order.code)
            with laid_out(self._guest.store, self._order.number, self._values):
                told = (
                    self._attempt(again=True) or self._attempt(again=False) or _died("lost its process twice")
                )
        except _EndedError:
            told = _died("killed before it began")
        except Exception as exc:  # noqa: BLE001 - without code or process the call fails
            told = Signal.FAILURE, dumps(RemoteFailure.of(exc, f"{type(exc).__name__}: {exc}"))
        if self._lost_for and told[0] is Signal.DIED:
            told = Signal.LOST, f"the Dask worker {self._guest.place} {self._lost_for}".encode()
        self._site.say(self._order.key, *told, at_once=False)  # the site sends it when Dask hears of the end
        return self._result

    def _attempt(self, *, again: bool) -> tuple[Signal, bytes] | None:
        """Have one process carry it out. None if that had gone before; not where there is no other try."""
        process = self._guest.take()
        if not self._enter(process):
            self._leave(process)
            self._guest.put(process)
            return _died("killed before it began")
        self._await_start(process)
        try:
            if process.started and not self._may_begin(process):
                self._leave(process)
                self._guest.put(process)
                return Signal.CANCELLED, b""
        except _EndedError:
            return self._lost(process, "")
        try:
            process.calls.send(Kind.CALL, self._order.message)
        except OSError:
            if again and process.started:
                self._leave(process)
                self._guest.reap(process)
                return None
        return self._listen(process)

    def _enter(self, process: WorkerProcess) -> bool:
        process.begin(self)
        self._process = process
        if self._cancelled:
            process.tell(self, Kind.CANCEL, self._order.number)
        if self._held:
            process.tell(self, Kind.PAUSE, self._order.number)
        return not self._killed

    def _leave(self, process: WorkerProcess) -> None:
        self._process = None
        process.end()

    def _await_start(self, process: WorkerProcess) -> None:
        with suppress(OSError, ValueError):
            while not process.started and (frame := process.replies.receive()) is not None:
                self._take(process, *frame)

    def _may_begin(self, process: WorkerProcess) -> bool:
        self._where = self._guest.describe(process)
        if not self._held:
            self._site.say(self._order.key, Signal.BEGUN, self._where.encode(), at_once=False)
            return True
        word, _ = pickle.loads(self.ask(Signal.MAY_BEGIN, self._where.encode()))  # noqa: S301 - from the engine
        return bool(word == "go on")

    def _listen(self, process: WorkerProcess) -> tuple[Signal, bytes]:
        """Pass on what the process says, until the body ends or the process does."""
        process.versions.update(slug for slug, _ in self._order.code)
        why = ""
        try:
            if not _is_readable(process.replies.descriptor, QUICK):
                self._site.flush()
            while (frame := process.replies.receive()) is not None:
                told = self._take(process, *frame)
                if told is not None:
                    self._leave(process)
                    self._guest.put(process)
                    return told
        except ValueError:
            why = "wrote into the pipe of its worker process, which was ended"
        except (OSError, _EndedError):
            pass  # it is ending
        return self._lost(process, why)

    def _lost(self, process: WorkerProcess, why: str) -> tuple[Signal, bytes]:
        """Wait until the process has gone, and tell how."""
        how = self._guest.reap(process)
        self._leave(process)
        self._file.unlink(missing_ok=True)
        if not process.started:
            return _died(f"the process did not start: {how}; the Dask worker's standard error says more")
        if "SIGKILL" in how and not self._killed:
            how += " (out of memory?)"
        return _died(f"{why or how} ({self._guest.describe(process)})")

    def _take(self, process: WorkerProcess, kind: Kind, payload: bytes) -> tuple[Signal, bytes] | None:
        """Handle one frame; return what the engine is to be told if it is the last one."""
        match kind:
            case Kind.VALUE | Kind.FAILURE | Kind.CANCELLED:
                return self._ended(process, kind, payload)
            case Kind.FILED:
                self._type, size = pickle.loads(payload)  # noqa: S301 - from our process
                if self._stays(size):
                    return self._store(LongValue(self._file, size), size)
                return self._store(take_file(self._file), size)
            case Kind.CHECK:
                process.calls.send(Kind.ANSWER, self.ask(Signal.CHECK) if self._held else _GO_ON)
            case Kind.RESULTS:
                process.calls.send(Kind.ANSWER, self.ask(Signal.RESULTS))
            case Kind.READY:
                process.started = True
            case Kind.LOG | Kind.PROGRESS:
                self._credit.acquire()
                self._pass_on(kind, payload)
            case Kind.TYPE:
                self._type = payload.decode()
            case _:
                self._pass_on(kind, payload)
        return None

    def _pass_on(self, kind: Kind, payload: bytes) -> None:
        """Tell the engine what needs no answer."""
        key, say = self._order.key, self._site.say
        match kind:
            case Kind.LOG:
                number, level, message, logger, when = pickle.loads(payload)  # noqa: S301 - from our process
                ago = max(0.0, monotonic() - when)  # each machine has a clock of its own
                say(key, Signal.LOG, dumps((number, level, message, logger, ago)))
            case Kind.PROGRESS:
                say(key, Signal.PROGRESS, payload)
            case Kind.HELD:
                say(key, Signal.HELD, payload)
            case Kind.HERE:
                number, place = pickle.loads(payload)  # noqa: S301 - as above
                if number == self._order.number and place:
                    say(key, Signal.HERE, f"{place} ({self._where})".encode())
            case _:
                pass

    def _ended(self, process: WorkerProcess, kind: Kind, payload: bytes) -> tuple[Signal, bytes]:
        if kind is Kind.FAILURE:
            failure: RemoteFailure = pickle.loads(payload)  # noqa: S301 - as above
            process.exhausted = process.exhausted or ("builtins", "MemoryError") in failure.lineage
        elif kind is Kind.VALUE and len(payload) > SHORT:
            return self._store(payload, len(payload))
        return _RESULT[kind], payload

    def _stays(self, size: int) -> bool:
        return bool(self._order.keep) and size >= self._order.keep

    def _store(self, result: Stored, size: int) -> tuple[Signal, bytes]:
        """Have the result be that of the Dask task."""
        self._result = result
        return (Signal.STAYS, dumps((self._type, size))) if self._stays(size) else (Signal.STORED, b"")


def _is_readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, at most so long."""
    poll = select.poll()  # `select.select` takes no descriptor above 1,023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1e3))


def _died(how: str) -> tuple[Signal, bytes]:
    return Signal.DIED, how.encode()

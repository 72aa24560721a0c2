"""What is said with a worker process about one call, by the event loop itself or by a lane, a thread that may wait.

A round trip over a lane wakes the lane, the worker, the lane and the loop; on a loaded machine each of these may cost
more than the call. So where an idle worker is there and all is small, the loop writes the call into the pipe and
reads the answer when it has come. Whatever could keep the loop waiting is left to a lane, at any
point of the conversation: large values, values whose pickling runs code, checkpoints, a death.
"""

from __future__ import annotations

import logging
import pickle
import threading
from contextlib import suppress
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.engine.backends.threads import LaneHandle
from scattersphere.engine.backends.workerprocess import IdleWorkers, is_exhausted, note_version
from scattersphere.worker.channel import CallChannel
from scattersphere.worker.messages import Reply, dumps, refused
from scattersphere.worker.pipes import OUTCOMES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.backend import Call
    from scattersphere.engine.loops import Loop
    from scattersphere.worker.messages import CallMessage
    from scattersphere.worker.process import WorkerProcess


def take(handle: ProcessHandle, worker: WorkerProcess, kind: Kind, payload: bytes) -> Outcome | None:
    """Handle one frame; return the outcome if it is the last one of the call. CHECK blocks while the run is paused."""
    match kind:
        case Kind.VALUE | Kind.FAILURE | Kind.CANCELLED:
            outcome = Reply(OUTCOMES[kind], payload).outcome(handle.call.name)
            worker.exhausted = worker.exhausted or isinstance(outcome.error, MemoryError)
            return outcome
        case Kind.CHECK:
            worker.calls.send(Kind.ANSWER, dumps(_check(handle)))
        case Kind.RESULTS:
            worker.calls.send(Kind.ANSWER, _results(handle))
        case Kind.READY:
            worker.started = True
        case Kind.LOG:
            number, level, message, logger, when = pickle.loads(payload)  # noqa: S301 - as above
            ago = max(0.0, monotonic() - when)
            if number == handle.number:
                handle.channel.log(level, message, logger, ago)
            else:  # a thread that outlived an earlier call, or a module's import
                worker.late.take(number, level, message, logger, ago)
        case Kind.PROGRESS | Kind.HELD | Kind.HERE:
            number, *content = pickle.loads(payload)  # noqa: S301 - as above
            if number == handle.number:
                handle.told(kind)(*content)
        case Kind.TYPE:
            pass  # for backends that leave large values where they are: here the value follows
    return None


def died(how: str) -> Outcome:
    """The process is gone."""
    return Outcome(OutcomeKind.DIED, error=ChildProcessError(how))


def _check(handle: ProcessHandle) -> tuple[str, str]:
    """Ask the attempt's own context, on behalf of the body: this blocks while the run is paused."""
    reason = handle.channel.check()
    return ("go on", "") if reason is None and not handle.cancelled else ("cancelled", reason or "")


def _results(handle: ProcessHandle) -> bytes:
    try:
        return dumps(("results", dict(handle.channel.results())))
    except Exception as exc:  # noqa: BLE001 - the results' own __reduce__ may raise anything
        return dumps(
            ("error", f"the results of the upstream tasks cannot be sent to a worker process: {exc}")
        )


_WHERE_WAIT = 0.05
"""Seconds that `where()` waits for the worker's answer; usually it takes a tenth of a millisecond."""


class ProcessHandle(LaneHandle):
    """A call in a worker process."""

    __slots__ = (
        "_answered",
        "_place",
        "cancelled",
        "channel",
        "direct",
        "killed",
        "number",
        "order",
        "paused",
        "worker",
    )

    def __init__(self, call: Call, done: Callable[[Outcome], None], order: CallMessage) -> None:
        super().__init__(call, done)
        self.channel: CallChannel = CallChannel(call)
        self.order: CallMessage = order
        self.number: int = order.number
        self.cancelled: bool = False
        self.killed: bool = False
        self.paused: bool = False
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

    def pause(self) -> None:
        """Have what the body has registered with `on_pause` held."""
        self._pause(Kind.PAUSE)

    def resume(self) -> None:
        """Have it go on."""
        self._pause(Kind.RESUME)

    def _pause(self, kind: Kind) -> None:
        self.paused = kind is Kind.PAUSE
        if (worker := self.worker) is not None:
            worker.tell(self, kind, self.number)

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

    def told(self, kind: Kind) -> Callable[..., object]:
        """Return what takes the content of a frame about this call."""
        if kind is Kind.HERE:
            return self.answered
        return self.channel.held if kind is Kind.HELD else self.channel.progress

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
        if self.paused:
            worker.tell(self, Kind.PAUSE, self.number)
        return not self.killed

    def leave(self, worker: WorkerProcess) -> None:
        """Be carried out by it no longer."""
        self.worker = None
        worker.end()
        worker.late.remember(self.number, self.call.task_context)


_log = logging.getLogger("scattersphere.engine")

SHORT = 1_000
"""Characters or bytes of a text that is sent from the loop."""

FEW = 50
"""Values in the arguments of a call that is sent from the loop: all in all at most 50 KB, less than a pipe holds."""

LISTEN_LIMIT = 64 * 1024
"""Bytes of an answer that is read and unpickled on the loop; a tenth of a millisecond."""

_WAITS = frozenset({Kind.CHECK, Kind.RESULTS})
"""What the loop must not answer: the one blocks while the run is paused, the other may be large."""


class DirectCalls:
    """The calls of one backend that no lane carries out. For the loop's thread."""

    def __init__(self, loop: Loop, workers: IdleWorkers, to_lane: Callable[[ProcessHandle], None]) -> None:
        self.loop: Loop = loop
        self.workers: IdleWorkers = workers
        self.to_lane: Callable[[ProcessHandle], None] = to_lane
        self.live: set[DirectCall] = set()

    def begin(self, handle: ProcessHandle) -> bool:
        """Send a call to an idle worker. False if that is a lane's business; then nothing has happened."""
        call = handle.call
        if handle.killed or not (is_small(call.arguments) and is_small(call.task_context.params)):
            return False
        workers = self.workers
        worker = workers.take()
        if worker is None:
            return False
        sent = False
        fresh = not is_exhausted(worker, handle.order.module)
        if fresh and worker.environment == workers.environment() and call.begins():
            order = handle.order.pack(call)
            handle.enter(worker)
            try:
                worker.calls.send(Kind.CALL, order)  # into an empty pipe, which has room for it
                sent = True
            except OSError:  # it died while it was idle
                handle.leave(worker)
        if not sent:
            workers.put(worker)
            return False
        note_version(worker, handle.order.module)
        handle.direct = DirectCall(self, handle, worker)
        return True

    def close(self) -> None:
        """Kill the workers of all that executes, and say so."""
        for direct in list(self.live):
            direct.handle.kill()
            direct.end(
                Outcome(OutcomeKind.DIED, error=ChildProcessError("killed when its Server was closed"))
            )


class DirectCall:
    """Listens to the worker of one call."""

    __slots__ = ("_calls", "_worker", "handle")

    def __init__(self, calls: DirectCalls, handle: ProcessHandle, worker: WorkerProcess) -> None:
        self._calls = calls
        self._worker = worker
        self.handle: ProcessHandle = handle
        calls.live.add(self)
        calls.loop.watch(worker.replies.descriptor, self._readable)

    def _readable(self) -> None:
        try:
            outcome = self._listen()
        except Exception:  # noqa: BLE001 - a defect: the worker is in the middle of something, so it is of no use any more
            _log.exception("listening to the worker process of %s", self.handle.call.name)
            self.handle.kill()
            self.hand_over()
            return
        if outcome is not None:
            self.end(outcome)

    def _listen(self) -> Outcome | None:
        """Read what has come. None: there is more to come, or a lane goes on with it."""
        replies = self._worker.replies
        if not replies.read_some():
            self.hand_over()  # the process is gone: to take leave of it takes time
            return None
        while True:
            head = replies.head()
            if head is None:
                return None
            kind, length = head
            if kind is None or kind in _WAITS or length > LISTEN_LIMIT:
                self.hand_over()
                return None
            payload = replies.pop(length)
            if payload is None:
                return None
            outcome = take(self.handle, self._worker, kind, payload)
            if outcome is not None:
                return outcome

    def hand_over(self) -> None:
        """Let a lane go on from here."""
        self._stop_listening()
        self._calls.to_lane(self.handle)

    def end(self, outcome: Outcome) -> None:
        """The call is over."""
        self._stop_listening()
        self.handle.leave(self._worker)
        self._calls.workers.put(self._worker)
        self.handle.done(outcome)

    def _stop_listening(self) -> None:
        calls = self._calls
        if self in calls.live:
            calls.live.discard(self)
            calls.loop.unwatch(self._worker.replies.descriptor)
            self.handle.direct = None


_PLAIN = frozenset({int, float, bool, type(None)})
_HOLDERS = frozenset({list, tuple, dict, MappingProxyType})


def is_small(value: Any) -> bool:
    """Whether a value is plain data, and so little of it that pickling takes no time and runs nobody's code."""
    todo, seen = [value], 0
    while todo:
        each = todo.pop()
        seen += 1
        if seen > FEW:
            return False
        kind = type(each)
        if kind in _PLAIN:
            if kind is int and each.bit_length() > SHORT:
                return False
        elif kind is str or kind is bytes:
            if len(each) > SHORT:
                return False
        elif len(todo) + seen > FEW or kind not in _HOLDERS or len(each) > FEW:
            return False
        elif kind is list or kind is tuple:
            todo.extend(each)
        else:
            todo.extend(each.keys())
            todo.extend(each.values())
    return True


class WorkerLane:
    """What a lane does with a call: take an idle worker, or start one, and talk to it until the call has ended."""

    def __init__(self, workers: IdleWorkers, closing: Callable[[], bool]) -> None:
        self._workers = workers
        self._closing = closing
        self._exhausted: list[WorkerProcess] = []
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
            worker = self._fresh_enough(handle.order.module) or self._workers.start(environment)
        except Exception as exc:  # noqa: BLE001 - without a process the call fails
            return refused(exc)
        try:
            same = worker.environment == environment
            order = handle.order.pack(handle.call, None if same else environment)
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
            return Outcome(OutcomeKind.CANCELLED)
        try:
            worker.calls.send(Kind.CALL, order)
        except OSError:
            # A call that was not read to its end has not begun, so it may go to another worker; but not to
            # a third one: the order itself may be what no process survives.
            if again and worker.started:
                handle.leave(worker)
                self._workers.reap(worker)
                return None
        worker.environment = dict(environment)
        return self._finish(handle, worker)

    def _await_start(self, handle: ProcessHandle, worker: WorkerProcess) -> None:
        """Wait until a new worker can begin a call; one that ends before that is noticed by who talks to it."""
        with suppress(OSError, ValueError):
            while not worker.started and (frame := worker.replies.receive()) is not None:
                take(handle, worker, *frame)

    def _fresh_enough(self, module: str) -> WorkerProcess | None:
        while (worker := self._workers.take()) is not None and is_exhausted(worker, module):
            self._exhausted.append(worker)  # dismissed when the call is done: it may take its time to end
            self._refill = True
        return worker

    def _finish(self, handle: ProcessHandle, worker: WorkerProcess) -> Outcome:
        """Answer what the body asks, until it ends or the process does."""
        note_version(worker, handle.order.module)
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
        if is_exhausted(worker):
            self._exhausted.append(worker)
            self._refill = True
        else:
            self._workers.put(worker)

    def _lost(self, handle: ProcessHandle, worker: WorkerProcess, why: str) -> Outcome:
        """Reap the worker, and tell how it ended."""
        self._refill = worker.started
        how = self._workers.reap(worker)
        if not worker.started:
            return died(f"the worker process did not start: {how}; its standard error says more")
        if "SIGKILL" in how and not handle.killed:
            how += " (out of memory?)"
        return died(why or how)

    def rest(self) -> None:
        """Put a fresh worker in the place of one that died, has loaded many versions, or is out of memory."""
        while self._exhausted:
            self._workers.stop(self._exhausted.pop())
        if self._refill and not self._closing():
            self._refill = False
            try:
                self._workers.refill()
            except OSError:  # no memory, no process number: the next call tries again, and then fails by it
                return

    def close(self) -> None:
        """The lane ends: so do the workers that have no call."""
        while (worker := self._workers.take()) is not None:
            self._workers.stop(worker)

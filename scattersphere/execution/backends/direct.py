"""Short calls that the event loop sends to a warm worker, and hears of, by itself: two switches of threads less.

A round trip over a lane wakes the lane, the worker, the lane and the loop; on a loaded machine each of these may cost
more than the call. So where an idle worker is there and all is small, the loop writes the call into the pipe and
reads the answer when it has come. Whatever could keep the loop waiting is left to a lane, at any
point of the conversation: large values, values whose pickling runs code, checkpoints, a death.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scattersphere.execution.backends.conversation import take
from scattersphere.execution.backends.idleworkers import is_worn, version_of
from scattersphere.execution.backends.order import pack
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.backends.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.backends.idleworkers import IdleWorkers
    from scattersphere.execution.backends.processhandle import ProcessHandle
    from scattersphere.execution.backends.workerprocess import WorkerProcess
    from scattersphere.execution.loops import Loop

_log = logging.getLogger("scattersphere.execution")

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
        if not is_worn(worker) and worker.environment == workers.environment() and call.begins():
            order = pack(call, handle.order, None)
            handle.enter(worker)
            try:
                worker.calls.send(Kind.CALL, order)  # into an empty pipe, which has room for it
                sent = True
            except OSError:  # it died while it was idle
                handle.leave(worker)
        if not sent:
            workers.put(worker)
            return False
        worker.versions.add(version_of(handle.order.module))
        handle.direct = DirectCall(self, handle, worker)
        return True

    def close(self) -> None:
        """Kill the workers of all that executes, and say so."""
        for direct in list(self.live):
            direct.handle.kill()
            direct.end(Outcome(Ending.DIED, error=ChildProcessError("killed when its Server was closed")))


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

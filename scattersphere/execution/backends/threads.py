"""Worker threads of our own, called lanes.

Why not a `ThreadPoolExecutor` or `anyio.to_thread`: their threads delay the exit of the process when one
never ends, and each call of theirs wakes the loop on its own. Here calls go out through one `SimpleQueue`,
and outcomes come back through one deque and at most one pending callback on the loop.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.failures import format_failure
from scattersphere.execution.frames import user_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.backends.protocol import Call, Host

THREAD_LIMIT = 40
"""Calls at once (design, section 8); anyio's and Starlette's default too."""

IDLE_SECONDS = 30.0
"""A lane without a call for so long ends."""

_TURN = 0.002
"""Seconds of outcomes delivered before the loop gets a turn (performance.md, section 1)."""

_FAREWELL = 1.0
"""Seconds that closing waits for idle lanes to end: they need microseconds, unless the machine is stalled."""

_JOIN_SLICE = 0.01
"""Seconds after which closing looks again whether a lane had just taken a call after all."""


class ThreadHandle:
    """A call in a lane."""

    __slots__ = ("call", "done", "ident")

    def __init__(self, call: Call, done: Callable[[Outcome], None]) -> None:
        self.call: Call = call
        self.done: Callable[[Outcome], None] = done
        self.ident: int | None = None
        """The thread that executes it at this moment."""

    def cancel(self) -> None:
        """Do nothing: a thread cannot be interrupted. The task context's flag makes `check()` raise."""

    def kill(self) -> None:
        """Do nothing: a thread cannot be killed. The executor gives it up."""

    def where(self) -> str:
        """Say which line of the user's code it is executing, or "" if it is not executing."""
        ident = self.ident
        if ident is None:
            return ""
        frame = sys._current_frames().get(ident)  # noqa: SLF001 -- documented, in spite of its name
        # The lane may have gone on to another call meanwhile.
        return user_place(frame) if self.ident == ident else ""


class ThreadBackend:
    """Runs calls in daemon threads, made when needed, at most `limit` (None: no limit).

    A thread that has been without a call for `idle_seconds` ends. One whose call never ends delays
    nothing: closing leaves it behind, and `where()` of its handle names its line.
    """

    def __init__(self, limit: int | None = THREAD_LIMIT, *, idle_seconds: float = IDLE_SECONDS) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit: at least one thread is needed, not {limit}; None means no limit")
        self.limit = limit
        self.idle_seconds = idle_seconds
        self._calls: SimpleQueue[ThreadHandle | None] = SimpleQueue()
        self._outcomes: deque[tuple[ThreadHandle, Outcome]] = deque()
        self._wake_pending = False
        self._guard = threading.Lock()
        self._lanes: set[_Lane] = set()
        self._busy = 0
        """Calls started whose outcome was not delivered yet."""
        self._made = 0
        self._closing = False
        self._host: Host | None = None

    def __repr__(self) -> str:
        return f"<ThreadBackend: {len(self._lanes)} threads, {self._busy} calls>"

    async def open(self, host: Host) -> None:
        """Get ready; no thread is made before the first call."""
        self._host = host

    def start(self, call: Call, done: Callable[[Outcome], None]) -> ThreadHandle:
        """Hand `call` to a lane. Raises RuntimeError if the backend is not open."""
        if self._host is None or self._closing:
            raise RuntimeError("the thread backend is not open: it is opened and closed by its Server")
        handle = ThreadHandle(call, done)
        with self._guard:
            self._busy += 1
            self._calls.put(handle)
            lanes = len(self._lanes)
            if self._busy > lanes and (self.limit is None or lanes < self.limit):
                self._add_lane()
        return handle

    async def aclose(self) -> None:
        """End the idle lanes; leave the busy ones, which end after their call. Idempotent.

        A call that no lane has taken yet ends as cancelled.
        """
        if self._closing:
            return
        self._closing = True
        with self._guard:
            for handle in self._take_waiting():
                self._report(handle, Outcome(Ending.CANCELLED))
            lanes = list(self._lanes)
            for _ in lanes:
                self._calls.put(None)
        end = monotonic() + _FAREWELL
        for lane in lanes:
            # Blocks the loop for some microseconds a lane; an Event would cost more, and on trio's
            # MockClock its time limit would be over before a real thread can move.
            while lane.handle is None and lane.is_alive() and monotonic() < end:
                lane.join(_JOIN_SLICE)

    def _add_lane(self) -> None:
        self._made += 1
        lane = _Lane(self, self._made)
        self._lanes.add(lane)
        try:
            lane.start()
        except RuntimeError as exc:  # the system has no further thread for us
            self._lanes.discard(lane)
            if not self._lanes:
                for handle in self._take_waiting():
                    self._report(handle, Outcome(Ending.EXCEPTION, error=exc, traceback=format_failure(exc)))

    def _take_waiting(self) -> list[ThreadHandle]:
        waiting: list[ThreadHandle] = []
        while True:
            try:
                handle = self._calls.get_nowait()
            except Empty:
                return waiting
            if handle is not None:
                waiting.append(handle)

    # -- in the lanes ------------------------------------------------------------------------

    def _serve(self, lane: _Lane) -> None:
        """Take calls until told to end, or idle for long."""
        get, wait = self._calls.get, self.idle_seconds
        while True:
            try:
                handle = get(timeout=wait)
            except Empty:
                handle = None
            if handle is None:
                if self._leave(lane):
                    return
                continue
            lane.handle = handle
            outcome = _run(handle)
            lane.handle = None
            self._report(handle, outcome)
            del handle, outcome  # an idle lane must not keep the objects of its last call alive

    def _leave(self, lane: _Lane) -> bool:
        with self._guard:
            # `start` counts lanes under the same guard: a call that it has just put here must be served.
            if not self._calls.empty() and not self._closing:
                return False
            self._lanes.discard(lane)
            return True

    def _report(self, handle: ThreadHandle, outcome: Outcome) -> None:
        self._outcomes.append((handle, outcome))
        # Appended first, asked second; `_deliver` clears first, takes second: no outcome is left lying.
        if not self._wake_pending and self._host is not None:
            self._wake_pending = True
            self._host.soon(self._deliver)

    # -- on the loop -------------------------------------------------------------------------

    def _deliver(self) -> None:
        self._wake_pending = False
        end = monotonic() + _TURN
        outcomes = self._outcomes
        while outcomes:
            handle, outcome = outcomes.popleft()
            self._busy -= 1
            handle.done(outcome)
            if monotonic() > end:
                break
        if outcomes and not self._wake_pending and self._host is not None:
            self._wake_pending = True
            self._host.soon(self._deliver)


class _Lane(threading.Thread):
    """A worker thread. A daemon: one whose call never ends must not delay the exit of the process."""

    def __init__(self, backend: ThreadBackend, number: int) -> None:
        super().__init__(name=f"scattersphere-lane-{number}", daemon=True)
        self._backend = backend
        self.handle: ThreadHandle | None = None
        """The call that it executes."""

    def run(self) -> None:
        self._backend._serve(self)  # noqa: SLF001 -- the two classes are one thing, split by thread


def _run(handle: ThreadHandle) -> Outcome:
    call = handle.call
    handle.ident = threading.get_ident()
    try:
        return call.context.run(call.invoke)
    except BaseException as exc:  # noqa: BLE001 - it may be raised by a user's code
        # `invoke` never raises, so this is a defect; a thread that dies in silence would lose the call.
        return Outcome(Ending.EXCEPTION, error=exc, traceback=format_failure(exc))
    finally:
        handle.ident = None

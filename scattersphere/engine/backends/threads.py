"""Calls in daemon threads of our own.

Why not a `ThreadPoolExecutor` or `anyio.to_thread`: their threads delay the exit of the process when one
never ends, and each call of theirs wakes a thread and the loop on its own. Here outcomes come back through
one deque and at most one pending callback on the loop; and of the lanes that sleep only one at a time is being
woken: if it finds more than one handle it wakes the next before it begins. (Go and tokio wake their workers
so.) Else forty threads woken for forty short calls would fight for the interpreter's lock.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio

from scattersphere.abc.backend import Handle, Outcome, OutcomeKind
from scattersphere.logs.frames import user_place
from scattersphere.worker.body import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.backend import BackendHost, Call

_TURN = 0.002
"""Seconds of outcomes delivered before the loop gets a turn (docs/explanation/performance.md)."""

_FAREWELL = 1.0
"""Seconds that closing waits for idle lanes to end: they need microseconds, unless the machine is stalled."""

_JOIN_SLICE = 0.01
"""Seconds after which closing looks again whether a lane had just taken a handle after all."""


class LaneHandle(Handle):
    """What goes through a lane: a call, and whom to tell its outcome on the loop's thread."""

    __slots__ = ("call", "done")

    def __init__(self, call: Call, done: Callable[[Outcome], None]) -> None:
        self.call: Call = call
        self.done: Callable[[Outcome], None] = done


H = TypeVar("H", bound=LaneHandle)
H_contra = TypeVar("H_contra", bound=LaneHandle, contravariant=True)


class WorkerThread(Protocol[H_contra]):
    """What a lane does. All of it in the lane's own thread."""

    def run(self, handle: H_contra) -> Outcome:
        """Carry out one call and say what it came to."""
        ...

    def rest(self) -> None:
        """Get ready for the next call, after the outcome of the last one was reported."""

    def close(self) -> None:
        """The lane ends."""


class DaemonThreadPool(Generic[H]):
    """At most `limit` lanes (None: no limit), each made when all others have something to do.

    A lane without a call for `idle_seconds` ends; None keeps it. The methods are the loop's.
    """

    def __init__(
        self,
        name: str,
        make_worker: Callable[[], WorkerThread[H]],
        *,
        limit: int | None,
        idle_seconds: float | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit: at least one {name} is needed, not {limit}; None means no limit")
        self.name = name
        self.limit = limit
        self.idle_seconds = idle_seconds
        self._make_worker = make_worker
        self._handles: deque[H] = deque()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        """What sleeping lanes wait for."""
        self._sleeping = 0
        self._waking = False
        """Whether a lane is being woken that has not looked at the handles yet."""
        self._outcomes: deque[tuple[H, Outcome]] = deque()
        self._wake_pending = False
        self._guard = threading.Lock()
        self._lanes: set[_Lane[H]] = set()
        self._busy = 0
        """Handles put whose outcome was not delivered yet."""
        self._made = 0
        self._closing = False
        self._host: BackendHost | None = None
        self._all_left: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"{len(self._lanes)} {self.name}s, {self._busy} calls"

    def open(self, host: BackendHost) -> None:
        """Get ready; no thread is made before the first handle."""
        self._host = host
        self._all_left = anyio.Event()

    def put(self, handle: H) -> None:
        """Have `handle` run. Raises RuntimeError if the lanes are not open."""
        if self._host is None or self._closing:
            raise RuntimeError(f"the {self.name} backend is not open: its Server opens and closes it")
        with self._guard:
            self._busy += 1
            self._handles.append(handle)
            lanes = len(self._lanes)
            if self._busy > lanes and (self.limit is None or lanes < self.limit):
                self._add_lane()
        self._wake_one()

    def close(self) -> list[H]:
        """Tell all lanes to end after their call, and return the handles that are in a lane.

        A handle that no lane has taken yet ends as cancelled.
        """
        with self._guard:
            if not self._closing:
                self._closing = True
                for handle in self._take_waiting():
                    self._report(handle, Outcome(OutcomeKind.CANCELLED))
                for _ in self._lanes:
                    self._wakes.put(None)
                if not self._lanes:
                    self._tell_all_left()
            return [lane.handle for lane in self._lanes if lane.handle is not None]

    def join_idle(self) -> None:
        """After `close`: wait for the lanes that have no call. Blocks for some microseconds each.

        An Event would cost more, and on trio's MockClock its time limit would be over before a real
        thread can move.
        """
        end = monotonic() + _FAREWELL
        for lane in self._list():
            while lane.handle is None and lane.is_alive() and monotonic() < end:
                lane.join(_JOIN_SLICE)

    async def wait_all_left(self) -> None:
        """After `close`: wait until no lane is left. Only for workers that certainly end."""
        if self._all_left is not None:
            lanes = self._list()
            await self._all_left.wait()
            for lane in lanes:
                lane.join(_FAREWELL)  # it has said goodbye, so only its last few instructions are awaited

    def _list(self) -> list[_Lane[H]]:
        with self._guard:
            return list(self._lanes)

    def _add_lane(self) -> None:
        self._made += 1
        lane = _Lane(self, self._make_worker(), f"scattersphere-{self.name}-{self._made}")
        self._lanes.add(lane)
        try:
            lane.start()
        except RuntimeError as exc:  # the system has no further thread for us
            self._lanes.discard(lane)
            if not self._lanes:
                for handle in self._take_waiting():
                    self._report(handle, failed(exc))

    def _take_waiting(self) -> list[H]:
        waiting: list[H] = []
        while True:
            try:
                waiting.append(self._handles.popleft())
            except IndexError:
                return waiting

    def _wake_one(self) -> None:
        """Wake a lane if one sleeps and none is being woken; for any thread.

        Without the guard: whoever puts a handle appends it first and looks for sleepers second; whoever goes to
        sleep counts himself first and looks for handles second. And who is being woken says so before he
        looks. So no handle is overlooked; a lane woken too many goes to sleep again.
        """
        if self._sleeping and not self._waking:
            self._waking = True
            self._wakes.put(None)

    # -- in the lanes ------------------------------------------------------------------------

    def serve(self, lane: _Lane[H]) -> None:
        """Take handles until told to end, or idle for long."""
        handles, worker = self._handles, lane.worker
        while True:
            try:
                handle = handles.popleft()
            except IndexError:
                if not self._sleep() and self._may_leave(lane):
                    break
                continue
            if handles:
                self._wake_one()
            lane.handle = handle
            outcome = _run(worker, handle)
            lane.handle = None
            self._report(handle, outcome)
            del handle, outcome  # an idle lane must not keep the objects of its last call alive
            worker.rest()
        worker.close()
        with self._guard:
            self._lanes.discard(lane)  # again: while closing it stays listed until here
            if self._closing and not self._lanes:
                self._tell_all_left()

    def _sleep(self) -> bool:
        """Wait until there may be a handle; False if it is time to leave."""
        with self._guard:
            self._sleeping += 1
        woken = bool(self._handles)
        if not woken:
            try:
                self._wakes.get(timeout=self.idle_seconds)
            except Empty:
                pass
            else:
                self._waking, woken = False, not self._closing
        with self._guard:
            self._sleeping -= 1
        return woken

    def _may_leave(self, lane: _Lane[H]) -> bool:
        with self._guard:
            if self._closing:
                return True
            # `put` counts lanes under the same guard: a handle that it has just put here must be served.
            if self._handles:
                return False
            self._lanes.discard(lane)
            return True

    def _report(self, handle: H, outcome: Outcome) -> None:
        self._outcomes.append((handle, outcome))
        # Appended first, asked second; `_deliver` clears first, takes second: no outcome is left lying.
        if not self._wake_pending and self._host is not None:
            self._wake_pending = True
            self._host.soon(self._deliver)

    def _tell_all_left(self) -> None:
        if self._host is not None and self._all_left is not None:
            self._host.soon(self._all_left.set)

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


class _Lane(threading.Thread, Generic[H]):
    """A thread. A daemon: one whose call never ends must not delay the exit of the process."""

    def __init__(self, lanes: DaemonThreadPool[H], worker: WorkerThread[H], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._served = lanes
        self.worker = worker
        self.handle: H | None = None
        """What it carries out."""

    def run(self) -> None:
        self._served.serve(self)


def _run(worker: WorkerThread[H], handle: H) -> Outcome:
    try:
        return worker.run(handle)
    except BaseException as exc:  # noqa: BLE001 - a defect; but a thread that dies in silence loses the call
        return failed(exc)


THREAD_LIMIT = 40
"""Calls at once (design, section 8); anyio's and Starlette's default too."""

IDLE_SECONDS = 30.0
"""A thread without a call for so long ends."""


class ThreadHandle(LaneHandle):
    """A call in a thread."""

    __slots__ = ("ident",)

    def __init__(self, call: Call, done: Callable[[Outcome], None]) -> None:
        super().__init__(call, done)
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
        # The thread may have gone on to another call meanwhile.
        return user_place(frame) if self.ident == ident else ""


class ThreadBackend:
    """Runs calls in daemon threads, made when needed, at most `limit` (None: no limit).

    A thread that has been without a call for `idle_seconds` ends. One whose call never ends delays
    nothing: closing leaves it behind, and `where()` of its handle names its line.
    """

    kill_grace: float = 0.05
    """A thread cannot be killed, so that nothing is worth waiting for."""
    keeps_context: bool = True

    def __init__(self, limit: int | None = THREAD_LIMIT, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.limit = limit
        self._lanes: DaemonThreadPool[ThreadHandle] = DaemonThreadPool(
            "thread", _ThreadWorker, limit=limit, idle_seconds=idle_seconds
        )

    def __repr__(self) -> str:
        return f"<ThreadBackend: {self._lanes!r}>"

    async def open(self, host: BackendHost) -> None:
        """Get ready; no thread is made before the first call."""
        self._lanes.open(host)

    def start(self, call: Call, done: Callable[[Outcome], None]) -> ThreadHandle:
        """Hand `call` to a thread. Raises RuntimeError if the backend is not open."""
        handle = ThreadHandle(call, done)
        self._lanes.put(handle)
        return handle

    async def aclose(self) -> None:
        """End the idle threads; leave the busy ones, which end after their call. Idempotent.

        A call that no thread has taken yet ends as cancelled.
        """
        self._lanes.close()
        self._lanes.join_idle()


class _ThreadWorker:
    """What a thread does with a call: next to nothing."""

    def run(self, handle: ThreadHandle) -> Outcome:
        call = handle.call
        handle.ident = threading.get_ident()
        try:
            return call.context.run(call.invoke)
        finally:
            handle.ident = None

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass

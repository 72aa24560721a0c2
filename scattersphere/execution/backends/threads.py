"""Calls in daemon threads of our own."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from scattersphere.execution.backends.lanes import LaneHandle, Lanes
from scattersphere.execution.logs.frames import user_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.backends.protocol import Call, Host, Outcome

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
        self._lanes: Lanes[ThreadHandle] = Lanes(
            "thread", _ThreadWorker, limit=limit, idle_seconds=idle_seconds
        )

    def __repr__(self) -> str:
        return f"<ThreadBackend: {self._lanes!r}>"

    async def open(self, host: Host) -> None:
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

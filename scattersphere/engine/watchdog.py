"""Names the task that blocks the event loop, with its line (promise 11).

A thread asks the loop for a sign of life while runs are live. When the sign stays out, it looks at the stack
of the loop's thread. The loop's own code pays nothing: two callbacks a second, none while it is idle.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import attrs

from scattersphere.logs.frames import is_engine_file, user_place
from scattersphere.logs.runlog import LoggedAttempt, current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from scattersphere.abc.backend import BackendHost

BLOCKED_SECONDS = 1.0
"""A loop that does not react for so long is blocked (promise 11)."""

_DEEPEST = 10_000
"""Frames looked at; a body may recurse."""


@attrs.frozen
class Blocked:
    """The loop has been blocked for `seconds`, by `attempt` (None: not by a task), at the line `place`."""

    seconds: float
    place: str
    attempt: LoggedAttempt | None

    def __str__(self) -> str:
        return (
            f"blocks the event loop for {self.seconds:.1f} s so far, at {self.place or 'an unknown line'}; "
            'use `await`, `def run` or backend "thread" for work that takes long'
        )


def warn(blocked: Blocked) -> None:
    """Put the warning into the log of the run; nothing if it is not a task that blocks."""
    attempt = blocked.attempt
    if attempt is not None:
        attempt.run_log.append(
            logging.WARNING, str(blocked), task=attempt.task, index=attempt.index, attempt=attempt.attempt,
            logger="scattersphere",
        )  # fmt: skip


class LoopWatchdog:
    """Watches the thread that makes it, from `start` to `close`.

    `is_busy` says whether the loop need be watched; it is called in the watchdog's thread, as is `on_blocked`, once
    for each time that the loop is blocked: it may be blocked for ever, so waiting for it is no good.
    """

    def __init__(
        self,
        host: BackendHost,
        is_busy: Callable[[], bool],
        on_blocked: Callable[[Blocked], None] = warn,
        *,
        limit: float = BLOCKED_SECONDS,
    ) -> None:
        self._host = host
        self._is_busy = is_busy
        self._on_blocked = on_blocked
        self._limit = limit
        self._watched = threading.get_ident()
        self._answered = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="scattersphere-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. Safe to repeat, and without `start`."""
        self._ended.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._limit)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> None:
        self._answered = True

    def _watch(self) -> None:
        pause, asked, reported = self._limit / 2, 0.0, False
        before = monotonic()
        while not self._ended.wait(pause):
            now = monotonic()
            late, before = now - before > 2 * pause, now
            if self._answered:
                reported = False
                if self._is_busy():
                    self._answered, asked = False, now
                    self._host.soon(self._answer)
            elif late:
                asked = now  # the whole process did not get on: the machine slept, or is overloaded
            elif not reported and now - asked >= self._limit:
                reported = True
                self._report(now - asked)

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 -- documented, in spite of its name
        blocked = Blocked(seconds, user_place(frame), _attempt_on(frame))
        del frame  # it must not outlive the look: it holds the locals of the user's code
        if not self._answered:  # else the loop came free while we looked, and the line may be anybody's
            self._on_blocked(blocked)


def _attempt_on(frame: FrameType | None) -> LoggedAttempt | None:
    """Find the attempt whose body is on the stack: the engine's frame below it holds it as `attempt`.

    What a body has started as a task of its own has no such frame below it, but the loop's, which holds the context.
    Keeping note of the current attempt instead would cost each task, and each resumption of one, some time.
    """
    for _ in range(_DEEPEST):
        if frame is None:
            break
        if is_engine_file(frame.f_code.co_filename) and "attempt" in frame.f_code.co_varnames:
            attempt: Any = frame.f_locals.get("attempt")
            if hasattr(attempt, "run_log"):
                found: LoggedAttempt = attempt
                return found
        elif (context := _context_in(frame)) is not None:
            return context.get(current_attempt)
        frame = frame.f_back
    return None


def _context_in(frame: FrameType) -> Context | None:
    """Return the context of what the loop runs at this frame, if the frame is one of asyncio's or trio's steps."""
    module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
    context: object = None
    if module == "asyncio.events" and name == "_run":
        context = getattr(frame.f_locals.get("self"), "_context", None)
    elif module == "trio._core._run" and name == "unrolled_run":
        context = getattr(frame.f_locals.get("task"), "context", None)
    return context if isinstance(context, Context) else None

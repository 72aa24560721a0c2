"""The callbacks of a body, `on_cancel` and `on_pause`: registered, and called one after the other.

One after the other, and never twice at once: what was held is resumed before anything is told of a cancel. On the loop
for async bodies, in a helper thread for others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import contextvars
    import logging

Callback = Callable[[], object]
Steps = Generator[tuple[str, Callback], "BaseException | None", None]
"""Yields the name of a callback and the callback; is sent what it has raised, or None."""

LIMIT = 30.0
"""Seconds that an async callback may take. What a thread executes cannot be ended."""


class _Pair:
    """A `hold` and its `resume`."""

    def __init__(self, hold: Callback, resume: Callback) -> None:
        self.hold = hold
        self.resume = resume
        self.is_held = False
        self.tried = 0
        """The pause in which it was last asked to hold."""


class Callbacks:
    """The callbacks of one attempt. For any thread.

    `start` has steps carried out; `held` is called when all that can be held is.
    """

    def __init__(self, start: Callable[[Steps], object], held: Callable[[], object]) -> None:
        self._start = start
        self._held = held
        self._guard = threading.Lock()
        self._cancels: deque[Callback] = deque()
        self._pairs: list[_Pair] = []
        self._is_cancelled = False
        self._is_pausing = False
        self._pause = 0
        """The number of the pause."""
        self._is_driving = False
        self._is_closed = False

    # ---- what the body registers

    def on_cancel(self, callback: Callback) -> None:
        """Have `callback` called when the attempt is asked to end; now if it was already."""
        with self._guard:
            self._cancels.append(callback)
        self._go_on()

    def on_pause(self, hold: Callback, resume: Callback) -> None:
        """Have `hold` called at a pause, now if there is one, and `resume` after it."""
        with self._guard:
            self._pairs.append(_Pair(hold, resume))
        self._go_on()

    # ---- what happens to the attempt

    def cancel(self) -> None:
        """The attempt is asked to end; may be repeated."""
        with self._guard:
            self._is_cancelled = True
        self._go_on()

    def pause(self) -> None:
        """The run is being paused; may be repeated."""
        with self._guard:
            if not self._is_pausing:
                self._is_pausing = True
                self._pause += 1
        self._go_on()

    def resume(self) -> None:
        """The run goes on; may be repeated."""
        with self._guard:
            self._is_pausing = False
        self._go_on()

    def close(self) -> None:
        """The attempt has ended: what holds is resumed, what is told of a cancel is told; no more."""
        with self._guard:
            self._is_closed = True
        self._go_on()

    @property
    def is_held(self) -> bool:
        """Whether the run is being paused and all pairs hold."""
        with self._guard:
            return self._holds()

    def _holds(self) -> bool:
        wanted = self._is_pausing and not self._is_cancelled and not self._is_closed
        return wanted and bool(self._pairs) and all(pair.is_held for pair in self._pairs)

    # ---- calling

    def _go_on(self) -> None:
        with self._guard:
            if self._is_driving or self._next() is None:
                return
            self._is_driving = True
        self._start(self._steps())

    def _next(self) -> tuple[str, Callback, _Pair | None] | None:
        """Return what is to be called next."""
        if self._is_pausing and not self._is_cancelled and not self._is_closed:
            for pair in self._pairs:
                if not pair.is_held and pair.tried != self._pause:
                    return "hold", pair.hold, pair
            return None
        for pair in reversed(self._pairs):
            if pair.is_held:
                return "resume", pair.resume, pair
        return ("on_cancel", self._cancels[0], None) if self._is_cancelled and self._cancels else None

    def _steps(self) -> Steps:
        while True:
            with self._guard:
                step = self._next()
                if step is None:
                    self._is_driving = False
                    is_held = self._holds()
                    break
                word, callback, pair = step
                if pair is None:
                    self._cancels.popleft()
                elif word == "hold":
                    pair.tried = self._pause
                else:
                    pair.is_held = False
            failure = yield word, callback
            if pair is not None and word == "hold" and failure is None:
                with self._guard:
                    pair.is_held = True
        if is_held:
            self._held()


def call_in_thread(
    steps: Steps, context: contextvars.Context, log: logging.LoggerAdapter[logging.Logger], name: str
) -> None:
    """Carry out steps in a helper thread, in a copy of `context`: the body's own thread is busy with the body."""
    thread = threading.Thread(target=context.copy().run, args=(_drive, steps, log), name=name, daemon=True)
    thread.start()


def _drive(steps: Steps, log: logging.LoggerAdapter[logging.Logger]) -> None:
    failure: BaseException | None = None
    while True:
        try:
            word, callback = steps.send(failure) if failure is not None else next(steps)
        except StopIteration:
            return
        failure = None
        try:
            made = callback()
            if hasattr(type(made), "__await__"):
                _discard(made)
                raise TypeError(  # noqa: TRY301 - it is logged as what the callback raises is
                    f"{word}: {callback!r} is async, and the body is not: nothing can await it in its thread"
                )
        except BaseException as exc:
            log.exception("error in %s", word)
            failure = exc


def _discard(made: object) -> None:
    if isinstance(made, Coroutine):
        made.close()


class LoopCalls:
    """Steps that an event loop carries out, each in a task of its own that no scope of the body reaches."""

    def __init__(self) -> None:
        self._executing: set[_LoopCall] = set()

    def call(
        self,
        steps: Steps,
        context: contextvars.Context,
        log: logging.LoggerAdapter[logging.Logger],
        name: str,
    ) -> None:
        """Carry out steps in a copy of `context`; on the loop's thread."""
        context.copy().run(_LoopCall, self._executing, steps, log, name)

    async def wait(self) -> None:
        """Wait for the end of what executes."""
        for call in list(self._executing):
            await call.ended.wait()

    async def aclose(self, patience: float) -> None:
        """Cancel what executes, and wait for its end, at most so many seconds."""
        for call in list(self._executing):
            call.cancel()
        with anyio.move_on_after(patience):
            await self.wait()


class _LoopCall:
    """The steps of one attempt, in a task. Made by a callback of the loop, where there is no task of anyio's yet."""

    def __init__(
        self, executing: set[_LoopCall], steps: Steps, log: logging.LoggerAdapter[logging.Logger], name: str
    ) -> None:
        self._executing = executing
        self._steps = steps
        self._log = log
        self._scope: anyio.CancelScope | None = None
        self.ended: anyio.Event = anyio.Event()
        executing.add(self)
        from scattersphere._owntask import OwnTask  # noqa: PLC0415 - asyncio, of which plain bodies need nothing

        OwnTask(self._run(), name, self.cancel)

    def cancel(self) -> None:
        """End it."""
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with anyio.CancelScope() as self._scope:
                while True:
                    try:
                        word, callback = (
                            self._steps.send(failure) if failure is not None else next(self._steps)
                        )
                    except StopIteration:
                        return
                    failure = await _call(word, callback, self._log)
        finally:
            self._executing.discard(self)
            self.ended.set()


async def _call(
    word: str, callback: Callback, log: logging.LoggerAdapter[logging.Logger]
) -> BaseException | None:
    try:
        with anyio.fail_after(LIMIT):
            made = callback()
            if hasattr(type(made), "__await__"):
                await made  # type: ignore[misc]
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as exc:
        log.exception("error in %s", word)
        return exc
    return None

"""asyncio: each attempt is one raw task, which starts eagerly.

An anyio task group costs two to eight times as much for each child (docs/explanation/performance.md). A body that never
suspends costs no turn of the loop. From Python 3.12 on `asyncio.Task(..., eager_start=True)` takes the first step of a
task at once. On 3.11 it is taken out of the loop's queue just after the constructor has put it there; around it another
task stops being the current one, by the functions that asyncio documents for those who implement tasks.
`BaseEventLoop._ready` is private, but 3.11 gets security fixes only, so that it stays; a loop that has none
(uvloop), or calls back in another way, starts tasks as it always did.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import time
from asyncio.tasks import _enter_task, _leave_task  # "Extending", in asyncio's documentation
from collections import deque
from typing import TYPE_CHECKING, Any

from scattersphere.engine.loops.protocol import joins
from scattersphere.logs.frames import line_of
from scattersphere.logs.runlog import current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Mapping

    from scattersphere.engine.loops.protocol import BodyT

LOOKED_AT_ONCE = 256
"""Tasks that are looked at between two looks at the clock, at most half a millisecond."""
_OTHERS: tuple[type, ...] = (asyncio.Task, vars(asyncio.tasks)["_GatheringFuture"])
"""What a task awaits that waits for other tasks."""


class AsyncioLoop:
    """asyncio, or anything that poses as it (uvloop)."""

    can_abandon = True
    can_watch: bool = sys.platform != "win32"  # the loop that can start processes there cannot watch pipes

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_virtual: bool = getattr(self._loop, "is_virtual", False)
        self._is_eager = sys.version_info >= (3, 12) or can_start_eagerly(self._loop)
        # A task that is not eager only starts in the next turn: the cap keeps that turn short. Of those that are,
        # only bodies that suspend count. They need a turn anyhow, and where few wait for it at a time, they are gone
        # before the garbage collector counts them as old: it would go through the host's whole memory each time that
        # the old ones have grown by a quarter (100 ms, once in 10,000 tasks of a job of 100,000).
        self.starts_a_turn: int = 32 if self._is_eager else 256
        # Callbacks run in the context in which the Server was entered: `call_soon` from a user's
        # task would otherwise copy that task's context into ours.
        self._context = contextvars.copy_context()
        # The same clock without a call in between, unless somebody has replaced it (uvloop, tests).
        same = getattr(type(self._loop), "time", None) is asyncio.BaseEventLoop.time
        self.clock: Callable[[], float] = time.monotonic if same else self._loop.time
        self._pump: Callable[[bool], bool] = bool
        self._alarm: Callable[[], None] = lambda: None
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(
        self, pump: Callable[[bool], bool], alarm: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        del failed  # tasks of asyncio stand alone: no body can break another's place
        self._pump, self._alarm = pump, alarm

    async def aclose(self) -> None:
        self._closed = True
        self.set_alarm(None)

    def wake(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._scheduled = False
        if self._pump(False):
            self.wake()

    def pump_now(self, within_turn: bool) -> None:  # noqa: FBT001 - what `pump` is called with
        # In our own context, so that the next body's task does not copy that of the one which ends.
        if not self._scheduled and not self._closed and self._context.run(self._pump, within_turn):
            self.wake()

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        try:
            # A copy: what is called back may have the pump called in our own, which cannot be entered twice.
            self._loop.call_soon_threadsafe(callback, *args, context=self._context.copy())
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        self._loop.add_reader(descriptor, self._context.run, callback)

    def unwatch(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)

    def set_alarm(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._alarm, context=self._context)

    if sys.version_info >= (3, 12):

        def start(self, body: Coroutine[object, object, None], name: str) -> asyncio.Task[None] | None:
            task = asyncio.Task(body, loop=self._loop, name=name, eager_start=True)
            return None if task.done() else task

    else:

        def start(self, body: Coroutine[object, object, None], name: str) -> asyncio.Task[None] | None:
            if not self._is_eager:
                return asyncio.Task(body, loop=self._loop, name=name)
            task = eager_task(self._loop, body, name)
            return None if task.done() else task

    def cancel(self, handle: asyncio.Task[None]) -> None:
        # asyncio would throw the cancellation into a coroutine that has not begun: none of it would run,
        # not even what reports its end.
        if not _has_not_begun(handle):
            handle.cancel()

    def abandon(self, handle: asyncio.Task[None]) -> bool:
        coroutine = handle.get_coro()
        handle.add_done_callback(_retrieve)
        try:
            if coroutine is not None:
                coroutine.close()
        except RuntimeError:  # it swallowed GeneratorExit, or is executing just now
            return False
        handle.cancel()  # wakes the empty shell, so that it ends now and not when its future does
        return True

    def where(self, handle: asyncio.Task[None]) -> str:
        return line_of(handle.get_coro())

    def current(self) -> asyncio.Task[object] | None:
        return asyncio.current_task(self._loop)

    def survey(
        self, held: Mapping[BodyT, Collection[object]]
    ) -> Generator[None, None, Callable[[BodyT], bool]]:
        known = asyncio.all_tasks(self._loop)
        yield
        others, is_met = known.difference(*held.values()), False
        busy: set[BodyT] = set()
        joining: dict[BodyT, list[tuple[asyncio.Task[object], object]]] = {}
        for number, task in enumerate(others):
            if not number % LOOKED_AT_ONCE:
                yield
            attempt: Any = _context_of(task).get(current_attempt)
            if attempt not in held:
                continue
            is_met, awaited = True, _awaited(task)
            if awaited is not None and (isinstance(awaited, _OTHERS) or joins(task.get_coro())):
                joining.setdefault(attempt, []).append((task, awaited))
            elif not task.done():
                busy.add(attempt)
        if is_met:  # what is not held may have made others since; what is held cannot
            for number, task in enumerate(asyncio.all_tasks(self._loop).difference(known)):
                if not number % LOOKED_AT_ONCE:
                    yield
                attempt = _context_of(task).get(current_attempt)
                busy.add(attempt)

        def is_at_work(attempt: BodyT) -> bool:
            # A task that has taken a step since then awaits something else, or nothing.
            return attempt in busy or any(
                _awaited(task) is not awaited for task, awaited in joining.get(attempt, ())
            )

        return is_at_work

    def pass_on(self, exc: BaseException) -> None:
        pass  # `asyncio.run` cancels the host's main task first, and only a second Ctrl-C can end up in a body


def _has_not_begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    if getattr(coroutine, "cr_suspended", False):  # so are nearly all
        return False
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the exception of an abandoned task, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


def _awaited(task: asyncio.Task[object]) -> object:
    """Return the future that a suspended task awaits; None of one that has ended, or has its next step before it."""
    return getattr(task, "_fut_waiter", None)


def _context_of(task: asyncio.Task[object]) -> contextvars.Context:
    """Return the context of a task. Before 3.12 it is found among what the task refers to, where it comes first."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    found = getattr(task, "_context", None) or next(
        (thing for thing in gc.get_referents(task) if isinstance(thing, contextvars.Context)), None
    )
    return found or contextvars.Context()


# ---- eager tasks on Python 3.11


def can_start_eagerly(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop keeps what it is about to call where `eager_task` looks for it."""
    return isinstance(getattr(loop, "_ready", None), deque)


def eager_task(loop: Any, body: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
    """Make a task and take its first step; it has ended if that was its last one."""
    task = asyncio.Task(body, loop=loop, name=name)
    ready = loop._ready  # noqa: SLF001 - see above
    try:
        # No other thread can add to the queue between this look and `pop`: there is no call in between, and
        # only at calls and at loops does 3.11 hand on the interpreter.
        handle = ready[-1]
        is_ours: bool = handle._callback.__self__ is task  # noqa: SLF001 - see above
        if not is_ours:  # somebody was quicker to add another call: the first step comes in its turn
            return task
    except (AttributeError, IndexError):
        return task
    ready.pop()
    current = asyncio.current_task(loop)
    if current is None:
        handle._run()  # noqa: SLF001 - see above
        return task
    _leave_task(loop, current)
    try:
        handle._run()  # noqa: SLF001 - see above
    finally:
        _enter_task(loop, current)
    return task

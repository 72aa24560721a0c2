"""The one file that knows asyncio and trio apart: start, cancel, abandon, wake, alarm.

On asyncio each attempt is one raw `asyncio.Task` (docs/explanation/performance.md): an anyio task group
costs two to eight times as much for each child. It starts eagerly, so that a body that never
suspends costs no turn of the loop; how that is done on 3.11 stands in `eagertasks.py`. On trio attempts
live in a nursery of a system task, because a nursery opened in the host's task would be cancelled
together with the host's code.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from scattersphere.execution.eagertasks import can_start_eagerly, eager_task
from scattersphere.execution.logs.failures import is_from_file
from scattersphere.execution.logs.frames import user_place_in
from scattersphere.execution.logs.runlog import current_attempt
from scattersphere.execution.trioplaces import TrioCalmer, TrioPlace, tasks_below

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping
    from types import FrameType

    import trio

    from scattersphere.execution.attempt import Attempt


class Loop(Protocol):
    """What the executor needs of an event loop. All methods are for the loop's own thread, but `soon`."""

    starts_a_turn: int
    """How many attempts whose first step is not their last may be started before the loop must have a turn."""
    is_virtual: bool
    """Whether its clock is a test's: it jumps, and knows nothing of the time on the wall."""
    can_abandon: bool
    """Whether a coroutine that refuses to end can be closed."""
    can_watch: bool
    """Whether `watch` works."""

    def clock(self) -> float:
        """Return monotonic seconds, virtual under trio's MockClock; for any thread."""
        ...

    async def open(
        self, pump: Callable[[bool], bool], alarm: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Begin to call `pump(False)` after `wake()`, as long as it returns True, and `alarm` when it is due.

        `failed` is called if a body has broken the place where bodies live; no attempt can run then.
        """

    async def aclose(self) -> None:
        """Stop calling back. Attempts must have ended before."""

    def wake(self) -> None:
        """Have `pump` called soon; many wakes make one call."""

    def pump_now(self) -> None:
        """Have `pump(True)` called, now where that is possible, from inside a body's last step.

        A chain of bodies that suspend would else cost two turns of the loop for each.
        """

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back on the loop's thread; for any thread, in silence after the end."""

    def watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call back each time that there is something to read, until `unwatch`."""

    def unwatch(self, descriptor: int) -> None:
        """Call back no more."""

    def set_alarm(self, when: float | None) -> None:
        """Have `alarm` called at `when` of `clock()`; replaces the last one."""

    def start(self, body: Coroutine[Any, Any, None], name: str) -> Any:
        """Start `body` in a copy of the current context. Return its handle, or None if it ended."""

    def cancel(self, handle: Any) -> None:
        """Raise the loop's cancellation at the body's next suspension.

        A body that was started and has not had its first step begins all the same: it must look for
        itself whether it was asked to end.
        """

    def abandon(self, handle: Any) -> bool:
        """Close a body that swallows cancellation; False where the loop has no such way."""
        ...

    def where(self, handle: Any) -> str:
        """Say at which line a suspended body stands."""
        ...

    def current(self) -> Any:
        """Return the task that executes now, of whatever library made it."""
        ...

    def at_work(self, held: Mapping[Attempt, Collection[Any]]) -> set[Attempt]:
        """Return which of these attempts have a task that is neither held nor waits for its own children.

        `held` says which of their tasks wait at a checkpoint.
        """
        ...

    def pass_on(self, exc: BaseException) -> None:
        """Hand a KeyboardInterrupt that a body ended with on to the host, if it was a real Ctrl-C."""


def current_loop() -> Loop:
    """Return a `Loop` for the event loop that runs now. Raises `RuntimeError` outside of one."""
    return TrioLoop() if _in_trio() else AsyncioLoop()


def _in_trio() -> bool:
    # A program that never imported trio cannot be inside it; asking sys.modules keeps it unimported.
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def line_of(coroutine: Any) -> str:
    """Follow the await chain of a suspended coroutine; name the user's innermost line."""
    frames: list[FrameType] = []
    while coroutine is not None and len(frames) < DEEPEST_CHAIN:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return user_place_in(reversed(frames))


_JOINS = (
    ("/asyncio/taskgroups.py", "aexit"),
    ("/asyncio/tasks.py", "_wait"),
    ("/asyncio/threads.py", "to_thread"),
    ("/anyio/_backends/_asyncio.py", "__aexit__"),
    ("/anyio/_backends/_asyncio.py", "run_sync_in_worker_thread"),
    ("/trio/_core/_run.py", "_nested_child_finished"),
    ("/trio/_threads.py", "to_thread_run_sync"),
    ("/execution/requests.py", "finish"),
)
"""Where a task waits for others of its body: files and functions of the libraries, and ours of child runs."""


def joins(coroutine: Any) -> bool:
    """Whether a suspended task waits for other tasks or threads of its own."""
    links = 0
    while coroutine is not None and links < DEEPEST_CHAIN:
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        if code is not None and any(
            code.co_filename.endswith(path) and name in code.co_name for path, name in _JOINS
        ):
            return True
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        links += 1
    return False


def _context_of(task: asyncio.Task[Any]) -> contextvars.Context:
    """Return the context of a task. Before 3.12 it is found among what the task refers to, where it comes first."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    found = getattr(task, "_context", None) or next(
        (thing for thing in gc.get_referents(task) if isinstance(thing, contextvars.Context)), None
    )
    return found or contextvars.Context()


DEEPEST_CHAIN = 1_000
"""Links of an await chain that are followed; a deeper one is named by what was seen of it."""


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

    def pump_now(self) -> None:
        # In our own context, so that the next body's task does not copy that of the one which ends.
        if not self._scheduled and not self._closed and self._context.run(self._pump, True):
            self.wake()

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args, context=self._context)
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

        def start(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
            task = asyncio.Task(body, loop=self._loop, name=name, eager_start=True)
            return None if task.done() else task

    else:

        def start(self, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
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

    def current(self) -> asyncio.Task[Any] | None:
        return asyncio.current_task(self._loop)

    def at_work(self, held: Mapping[Attempt, Collection[Any]]) -> set[Attempt]:
        busy: set[Attempt] = set()
        for task in asyncio.all_tasks(self._loop):
            attempt: Any = _context_of(task).get(current_attempt)
            if attempt not in held or attempt in busy or task in held[attempt]:
                continue
            if not (joins(task.get_coro()) or isinstance(getattr(task, "_fut_waiter", None), _OTHERS)):
                busy.add(attempt)
        return busy

    def pass_on(self, exc: BaseException) -> None:
        pass  # `asyncio.run` cancels the host's main task first, and only a second Ctrl-C can end up in a body


def _has_not_begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the exception of an abandoned task, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


OBJECTS_OF_A_BODY = 64
"""Objects, seen by the collector, that a started attempt on trio consists of: task, coroutines, scope, context."""


class TrioLoop:
    """trio. Each attempt has a place with a cancel scope, which is its handle."""

    can_abandon = False
    can_watch = False

    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        self._trio = trio
        # Each attempt takes a turn, and is many objects meanwhile. Where the collector comes by then, they count as old
        # before long, and it goes through the host's whole memory.
        self.starts_a_turn: int = max(8, gc.get_threshold()[0] // OBJECTS_OF_A_BODY)
        self._token = trio.lowlevel.current_trio_token()
        # Not `trio.current_time`: backends ask the time in threads too.
        self.clock: Callable[[], float] = trio.lowlevel.current_clock().current_time
        mock = getattr(sys.modules.get("trio.testing"), "MockClock", ())
        self.is_virtual: bool = isinstance(trio.lowlevel.current_clock(), mock)
        self._event = trio.Event()
        self._deadline = float("inf")
        self._nursery: trio.Nursery | None = None
        self._calmer = TrioCalmer()
        self._places: set[TrioPlace] = set()
        self._broken: list[trio.lowlevel.Task] = []
        self._lost: BaseException | None = None
        """What ended the turns, or the nursery, before the Server was closed."""
        # While protected code executes, trio keeps a Ctrl-C for the host's main task.
        self._interrupt_host = trio.lowlevel.enable_ki_protection(_raise_interrupt)
        self._closing = False
        self._leaving, self._ended = trio.Event(), trio.Event()
        self._failed: Callable[[BaseException], None] = lambda _: None
        self._pump: Callable[[bool], bool] = bool
        self._context = contextvars.copy_context()

    async def open(
        self, pump: Callable[[bool], bool], alarm: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._failed, self._pump = failed, pump
        ready, spawn = self._trio.Event(), self._trio.lowlevel.spawn_system_task
        context = contextvars.copy_context()
        spawn(self._keep_bodies, ready, name="scattersphere-bodies", context=context.copy())
        with self._trio.CancelScope(shield=True):  # one turn; who would close it if this were cancelled?
            await ready.wait()
        spawn(self._turns, alarm, name="scattersphere", context=context.copy())

    async def _keep_bodies(self, ready: trio.Event) -> None:
        trio = self._trio
        try:
            # Cancelled for good: the places of the bodies are shielded, until they are to be cancelled.
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                async with trio.open_nursery() as self._nursery:
                    ready.set()
                    with trio.CancelScope(shield=True):
                        await self._leaving.wait()
                    for task in self._broken:
                        trio.lowlevel.reschedule(task)
        except BaseException as exc:  # noqa: BLE001 - an error in a system task would end the host's program
            if not self._broken:  # of those that are broken the nursery complains
                self._lost = exc
        finally:
            self._ended.set()
            if self._lost is not None:
                self._failed(self._lost)

    async def _turns(self, alarm: Callable[[], None]) -> None:
        trio = self._trio
        try:
            while not self._closing:
                with trio.move_on_at(self._deadline):
                    await self._event.wait()
                self._event = trio.Event()
                if self.clock() >= self._deadline:
                    self._deadline = float("inf")
                    alarm()
                if self._pump(False):
                    self._event.set()
        except BaseException as exc:  # noqa: BLE001 - trio's run ends, and nobody has closed the Server
            self._lost = exc
            for place in list(self._places):
                place.cancel()
        finally:
            self._leaving.set()

    async def aclose(self) -> None:
        self._closing = True
        self._event.set()
        with self._trio.CancelScope(shield=True):
            await self._ended.wait()

    def wake(self) -> None:
        self._event.set()

    def pump_now(self) -> None:
        # In our own context: a nursery's child copies that of whoever starts it.
        if self._context.run(self._pump, True):
            self.wake()

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(self._trio.RunFinishedError):  # the protocol drops such calls
            self._token.run_sync_soon(callback, *args)

    def watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        raise NotImplementedError  # it would need a task for each call: lanes do as well

    def unwatch(self, descriptor: int) -> None:
        raise NotImplementedError

    def set_alarm(self, when: float | None) -> None:
        self._deadline = float("inf") if when is None else when
        self._event.set()  # the main task sleeps until the old deadline

    def start(self, body: Coroutine[Any, Any, None], name: str) -> TrioPlace:
        if self._nursery is None:
            raise RuntimeError("the loop was not opened")
        place = TrioPlace(body, self._places, self._failed)
        self._nursery.start_soon(place.hold, self._broken, name=name)
        return place

    def cancel(self, handle: TrioPlace) -> None:
        handle.cancel()
        if self._nursery is not None:
            self._calmer.watch(handle, self._nursery)

    def abandon(self, handle: TrioPlace) -> bool:  # noqa: ARG002 - trio has no such way
        return False

    def where(self, handle: TrioPlace) -> str:
        return line_of(handle.body)

    def current(self) -> trio.lowlevel.Task:
        return self._trio.lowlevel.current_task()

    def at_work(self, held: Mapping[Attempt, Collection[Any]]) -> set[Attempt]:
        return {
            attempt
            for attempt, waiting in held.items()
            if attempt.planned.on_loop
            and attempt.handle is not None
            and any(task not in waiting and not joins(task.coro) for task in tasks_below(attempt.handle.task))
        }

    def pass_on(self, exc: BaseException) -> None:
        if is_from_file(exc, _TRIOS_HANDLER):
            self._interrupt_host()


_TRIOS_HANDLER = "/trio/_core/_ki.py"
"""The end of the path of the file in which trio raises KeyboardInterrupt for a real Ctrl-C."""


def _raise_interrupt() -> None:
    signal.raise_signal(signal.SIGINT)
    for _ in range(2):  # Python calls the handler between two turns of a loop, if it has not done so yet
        pass

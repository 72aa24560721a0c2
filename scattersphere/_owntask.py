"""A task that nobody who waits for it can cancel, for what must be done whole: opening, closing, taking a file in.

`anyio.CancelScope(shield=True)` alone does not do that. It keeps off the cancellation of anyio's own scopes; what asyncio
itself sends (`Task.cancel()`, `asyncio.timeout`, a `TaskGroup`, the end of `asyncio.run`) goes through it, once for each
call. And what runs in the host's task is gone when that task's coroutine is closed. So the work has a task of its own, outside
of all scopes; whoever waits for it is cancelled when it has been done, and not before. anyio has no such task, therefore this
file, like `execution.loops`, knows asyncio and trio apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")

_BY_ANYIO = "Cancelled via cancel scope "
"""How the message of a cancellation begins that comes from a scope of anyio: by this anyio itself tells them apart."""

_living: set[OwnTask[Any]] = set()
"""A loop holds its tasks by weak references only."""


def in_trio() -> bool:
    """Whether a task of trio is running. A program that never imported trio cannot be inside it: it stays unimported."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


async def whole(work: Coroutine[Any, Any, T], name: str) -> T:
    """Return what `work` returns, done in a task of its own; a cancellation comes to the caller when it is done."""
    return await OwnTask(work, name).wait()


class OwnTask(Generic[T]):
    """A coroutine in a task of its own, in a copy of the present context.

    `on_cancel` is called when the task itself is to be cancelled, because the host's program ends or cancels all tasks that
    it finds: it may hasten the work, which goes on.
    """

    def __init__(self, work: Coroutine[Any, Any, T], name: str, on_cancel: Callable[[], None] = bool) -> None:
        self._work = work
        self._on_cancel = on_cancel
        self._done = anyio.Event()
        self._result: T
        self._error: BaseException | None = None
        _living.add(self)
        if in_trio():
            import trio  # noqa: PLC0415 - an optional dependency

            trio.lowlevel.spawn_system_task(self._run_in_trio, name=name, context=contextvars.copy_context())
        else:
            self._task = asyncio.Task(self._run_in_asyncio(), loop=asyncio.get_running_loop(), name=name)

    async def wait(self) -> T:
        """Wait for the end, return the result or raise the error of the work; then be cancelled, if that was asked for."""
        if not self._done.is_set():
            with anyio.CancelScope(shield=True):
                await _to_the_end(self._done.wait())
        if self._error is not None:
            error, self._error = self._error, None  # once: it holds frames
            raise error
        return self._result

    async def _run_in_asyncio(self) -> None:
        await self._keep(_to_the_end(self._work, self._on_cancel))
        self._end()

    async def _run_in_trio(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        with contextlib.suppress(trio.Cancelled):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._await_the_end_of_trio)
                with trio.CancelScope(shield=True):
                    await self._keep(self._work)
                self._on_cancel = bool
                nursery.cancel_scope.cancel()
        self._end()

    async def _await_the_end_of_trio(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        try:
            await trio.sleep_forever()
        finally:
            self._on_cancel()

    async def _keep(self, work: Coroutine[Any, Any, T]) -> None:
        """Keep the outcome; an error in a task that nobody may look at would be reported, on trio end the program."""
        try:
            self._result = await work
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self._error = error

    def _end(self) -> None:
        """The last step of the task: who has waited finds no trace of it."""
        _living.discard(self)
        self._done.set()


async def _to_the_end(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = bool) -> T:
    """Await `work` in this task; a native cancellation is raised when it is done. Those of scopes inside it reach it."""
    return await work if in_trio() else await _stepped(work, on_cancel)


@types.coroutine
def _stepped(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None]) -> Generator[Any, None, T]:
    """Do as `asyncio.Task` does with a coroutine, but for this: cancelling the task does not cancel what it waits for."""
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    scope_said: asyncio.CancelledError | None = None
    try:
        while True:
            try:
                future = work.send(None) if scope_said is None else work.throw(scope_said)
            except StopIteration as end:
                if cancelled is None:
                    return end.value  # type: ignore[no-any-return]
                raise cancelled from None
            scope_said = None
            if future is not None:
                future._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between futures and tasks
            while True:
                try:
                    if future is None:
                        yield
                    else:
                        yield from _relay(loop, future)
                except asyncio.CancelledError as error:
                    if str(error).startswith(_BY_ANYIO):
                        scope_said = error
                        if future is not None:
                            future.cancel()
                        break
                    cancelled = error
                    on_cancel()
                if future is None or future.done():
                    break
    finally:
        work.close()


def _relay(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Generator[Any, None, None]:
    """Wait until `future` is done, by a future of our own: that one may be cancelled."""
    relay = loop.create_future()

    def pass_on(_: object) -> None:
        if not relay.done():
            relay.set_result(None)

    future.add_done_callback(pass_on)
    try:
        yield from relay
    finally:
        future.remove_done_callback(pass_on)

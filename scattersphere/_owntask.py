"""Work shielded from every cancellation of its caller, in a task of its own: opening, closing, binding a socket.

`anyio.CancelScope(shield=True)` alone does not do that. It keeps off the cancellation of anyio's own scopes; what
asyncio itself sends (`Task.cancel()`, `asyncio.timeout`, a `TaskGroup`, the end of `asyncio.run`) goes through it, once
for each call. And what runs in the host's task is gone when that task's coroutine is closed. So the work has a task of
its own, outside of all scopes; whoever waits for it is cancelled when it has been done, and not before. anyio has no
such task, therefore this file, like the files of `engine.loops`, knows asyncio and trio apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

_BY_ANYIO = "Cancelled via cancel scope "
"""How the message of a cancellation begins that comes from a scope of anyio: by this anyio itself tells them apart."""

_living: set[OwnTask[Any]] = set()
"""A loop holds its tasks by weak references only."""


def in_trio() -> bool:
    """Whether a task of trio is running. A program that never imported trio cannot be inside it, and is not made to."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def thread_door() -> Callable[[Callable[[], object]], object]:
    """Return what has a callback called on the loop that runs now; for any thread, in silence after its end."""
    if in_trio():
        import trio  # noqa: PLC0415 - an optional dependency

        run_soon: Callable[[Callable[[], object]], object] = trio.lowlevel.current_trio_token().run_sync_soon
        ended: type[Exception] = trio.RunFinishedError
    else:
        run_soon, ended = asyncio.get_running_loop().call_soon_threadsafe, RuntimeError

    def call(callback: Callable[[], object]) -> None:
        with contextlib.suppress(ended):
            run_soon(callback)

    return call


async def whole(work: Coroutine[object, object, T], name: str) -> T:
    """Return what `work` returns, done in a task of its own; a cancellation comes to the caller when it is done."""
    return await OwnTask(work, name).wait()


class OwnTask(Generic[T]):
    """A coroutine in a task of its own, in a copy of the present context.

    `on_cancel` is called when the task itself is to be cancelled, because the host's program ends or cancels all tasks
    that it finds: it may hasten the work, which goes on.
    """

    def __init__(
        self, work: Coroutine[object, object, T], name: str, on_cancel: Callable[[], object] = bool
    ) -> None:
        self._work = work
        self._on_cancel = on_cancel
        self._done = anyio.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        _living.add(self)
        if in_trio():
            import trio  # noqa: PLC0415 - an optional dependency

            trio.lowlevel.spawn_system_task(self._run_in_trio, name=name, context=contextvars.copy_context())
        else:
            _AsyncioTask(self._run(), name, on_cancel)

    async def wait(self) -> T:
        """Wait for the end; then be cancelled, if that was asked for, else return the result or raise the error."""
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not self._done.is_set():
                try:
                    await self._done.wait()
                except asyncio.CancelledError as native:  # no shield keeps it off
                    cancelled = native
        if cancelled is not None:
            raise cancelled
        if self._error is not None:
            error, self._error = self._error, None  # once: it holds frames
            raise error
        return cast("T", self._result)

    async def _run(self) -> None:
        await self._keep()
        self._end()

    async def _run_in_trio(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        with contextlib.suppress(trio.Cancelled):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._await_the_end_of_trio)
                with trio.CancelScope(shield=True):
                    await self._keep()
                self._on_cancel = bool
                nursery.cancel_scope.cancel()
        self._end()

    async def _await_the_end_of_trio(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        try:
            await trio.sleep_forever()
        finally:
            self._on_cancel()

    async def _keep(self) -> None:
        """Keep the outcome: an error in a task that nobody looks at would be reported, and on trio end the program."""
        try:
            self._result = await self._work
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self._error = error

    def _end(self) -> None:
        """The last step of the task: who has waited finds no trace of it."""
        _living.discard(self)
        self._done.set()


class _AsyncioTask(asyncio.Task[None]):
    """Obeys the scopes and time limits that its own work has entered, and nobody else."""

    def __init__(
        self, work: Coroutine[object, object, None], name: str, on_cancel: Callable[[], object]
    ) -> None:
        self._on_cancel = on_cancel
        super().__init__(work, loop=asyncio.get_running_loop(), name=name)

    def cancel(self, msg: object | None = None) -> bool:
        if isinstance(msg, str) and msg.startswith(_BY_ANYIO):
            return super().cancel(msg)
        self.get_loop().call_soon(self._on_cancel)  # at the end of `asyncio.run` nothing runs at this moment
        return False

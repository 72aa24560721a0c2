"""Lifecycle of objects: async context managers entered once and closed whole, bound to one process, thread and loop."""

from __future__ import annotations

import abc
import asyncio
import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, ClassVar, Self
from weakref import WeakSet

import anyio

from scattersphere._owntask import OwnTask
from scattersphere.errors import ClosedError, ForkedError, WrongLoopError

if TYPE_CHECKING:
    from types import TracebackType


class ForkGuard:
    """Derive from it, and in a child made by `fork` every public name of a bound object raises `ForkedError`.

    The child holds a copy of the object, but none of its threads, and shares its pipes and sockets with the parent:
    whatever the copy did would hang, or harm the parent. One hook of the process gives all bound objects another class
    in the child; nothing is asked in the parent.
    """

    home: int | None = None
    """The process; None as long as the object is bound to none."""

    def _bind(self) -> None:
        """Make this process its home."""
        self.home = os.getpid()
        _bound.add(self)

    def _let_go_in_child(self) -> None:
        """Let go of what is the parent's alone, in a child that was just forked; nothing may wait there."""


_bound: WeakSet[ForkGuard] = WeakSet()


def _forked() -> None:
    for guarded in list(_bound):
        guarded._let_go_in_child()  # noqa: SLF001 - its own hook
        cls: type = type(guarded)
        object.__setattr__(guarded, "__class__", _refusing(cls))
    _bound.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forked)


@functools.cache
def _refusing(cls: type) -> type:
    """Return the class of a forked copy: as `cls`, but all public names refuse."""

    def refuse(self: ForkGuard, name: str) -> object:
        if name.startswith("_") or name == "home" or not hasattr(cls, name):
            return object.__getattribute__(self, name)
        raise ForkedError(
            f"this process was forked from process {self.home}, which entered the Server; the Server and its runs stay "
            "there. Make a Server of its own here, or start the other process by `spawn`"
        )

    return type(cls.__name__, (cls,), {"__getattribute__": refuse, "__doc__": cls.__doc__})


class LoopHome:
    """The thread and event loop in which something was entered, and where alone it may be used."""

    __slots__ = ("_loop", "_name", "_thread")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._loop = _current_loop()
        self._name = _describe(self._loop)

    def check(self, what: str) -> None:
        """Raise `WrongLoopError` in another thread, and in another loop of the same thread.

        Code that the thread executes while no loop runs in it is let through: it cannot come between.
        """
        if threading.get_ident() == self._thread:
            loop = _current_loop()
            if loop is None or loop is self._loop:
                return
        else:
            loop = _current_loop()
        raise WrongLoopError(
            f"the {what} was entered in {self._name}, and is used in {_describe(loop)}: it would wait for ever. "
            "Use it in the loop that entered it (`anyio.from_thread.run`, `asyncio.run_coroutine_threadsafe`), or "
            "take a SyncServer, which may be used from any thread; with pytest-asyncio, fixture and test need one "
            "loop_scope"
        )


def _current_loop() -> object:
    """Return what identifies the event loop that runs in this thread; None where none does."""
    trio = sys.modules.get("trio")  # a program that never imported it cannot be inside it, and is not made to
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_trio_token()
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _describe(loop: object) -> str:
    thread = f"thread {threading.current_thread().name!r}"
    if loop is None:
        return f"{thread}, in no event loop"
    return f"the event loop {type(loop).__qualname__} at {id(loop):#x} of {thread}"


class AsyncResource(ForkGuard, abc.ABC):
    """Derive from it, and say how to open (`_open`) and how to let go of what was opened (`_release`).

    Both happen in one task of the resource's own. So the host may be cancelled at any step, any number of times, and
    somebody else may close while it is being entered: then opening is ended, all is let go of, and whoever waits is
    cancelled when that is done. All who close wait until it is closed.
    """

    _closing: bool = False
    """Nothing new is accepted. May be set without closing."""
    _closed: bool = False
    """All is let go of."""
    _loop_home: LoopHome | None = None
    _without_loop: ClassVar[str] = ""
    """What to write instead in a program without an event loop."""

    @abc.abstractmethod
    async def _open(self) -> None:
        """Open everything; where that fails, or is cancelled, `_release` comes next."""

    @abc.abstractmethod
    async def _release(self) -> None:
        """Let go of everything, also of what was opened by half. No cancellation comes here."""

    if not TYPE_CHECKING:  # a type checker says so itself

        def __enter__(self) -> None:
            raise TypeError(f"write `async with {type(self).__name__}(...)`{self._without_loop}")

        def __exit__(self, *_: object) -> None:
            """Nothing is left that was not entered; without it Python's own words come first."""

    async def __aenter__(self) -> Self:
        """Raises `ClosedError` if it was entered before, or is closed meanwhile."""
        if self.home is not None:
            raise ClosedError(f"a {type(self).__name__} is entered once; make a new one")
        self._bind()
        self._loop_home = LoopHome()
        self._opened, self._stay = anyio.Event(), anyio.CancelScope()
        self._life = OwnTask(self._live(), f"scattersphere {type(self).__name__}", self._leave)
        try:
            await self._opened.wait()
        except BaseException:  # cancelled: nobody leaves what was not entered
            await self.aclose()
            raise
        if self._stay.cancel_called:
            await self._life.wait()
            raise ClosedError(f"the {type(self).__name__} was closed while it started")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of everything. May be repeated; all who call it wait until it is done."""
        self._closing = True
        if self.home is not None:
            self._check_loop()
            self._leave()
            await self._life.wait()

    def _leave(self) -> None:
        self._closing = True
        self._stay.cancel()

    async def _live(self) -> None:
        try:
            with self._stay:
                await self._open()
                self._opened.set()
                await anyio.sleep_forever()
        finally:
            self._leave()
            try:
                await self._release()
            finally:
                self._closed = True
                self._opened.set()

    def _check_loop(self) -> None:
        """Raise `WrongLoopError` anywhere but in the thread and loop that entered it."""
        if self._loop_home is not None and not self._closed:
            self._loop_home.check(type(self).__name__)

    def _require_open(self, *, draining: bool = False) -> None:
        """Raise `ClosedError` outside `async with`; from the moment on where nothing new is accepted, too."""
        name = type(self).__name__
        if self.home is None:
            raise ClosedError(
                f"the {name} is not running: use it inside `async with {name}() as {name.lower()}`"
            )
        self._check_loop()
        if self._stay.cancel_called or (self._closing and not draining):
            raise ClosedError(f"the {name} is closing and takes no new work")

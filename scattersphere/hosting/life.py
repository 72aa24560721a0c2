"""An object that is entered once and closed once, also where the two meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import anyio

from scattersphere.errors import ClosedError
from scattersphere.hosting.home import StaysHome

if TYPE_CHECKING:
    from types import TracebackType


class EnteredOnce(StaysHome):
    """Derive from it, and say how to open (`_open`) and how to let go of what was opened (`_let_go`).

    Whoever enters may be cancelled, and somebody else may close while it is being entered: then opening is ended,
    and all is let go of. All who close wait until it is closed.
    """

    _closing: bool = False
    """Nothing new is accepted. May be set without closing."""
    _closed: anyio.Event | None = None
    """Set when all is closed; there from the moment on in which closing begins."""

    async def _open(self) -> None:
        raise NotImplementedError

    async def _let_go(self) -> None:
        """Also of what was opened by half. Shielded from cancellation."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Raises `ClosedError` if it was entered before, or is closed meanwhile."""
        if self.home is not None:
            raise ClosedError(f"a {type(self).__name__} is entered once; make a new one")
        self._settle()
        self._opened = anyio.Event()
        try:
            with anyio.CancelScope() as self._opening:
                await self._open()
        except BaseException:  # cancelled, perhaps: nobody leaves what was not entered
            self._opened.set()
            await self.aclose()
            raise
        self._opened.set()
        if self._closed is not None:
            await self._closed.wait()
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
        """Let go of everything. May be repeated."""
        self._closing = True
        if self.home is None:
            return
        if self._closed is not None:  # somebody is at it, or has done it
            await self._closed.wait()
            return
        self._closed = closed = anyio.Event()
        if not self._opened.is_set():
            self._opening.cancel()
        try:
            with anyio.CancelScope(shield=True):
                await self._opened.wait()
                await self._let_go()
        finally:
            closed.set()

    def _alive(self, *, draining: bool = False) -> None:
        """Raise `ClosedError` outside `async with`; from the moment on where nothing new is accepted, too."""
        name = type(self).__name__
        if self.home is None:
            raise ClosedError(
                f"the {name} is not running: use it inside `async with {name}() as {name.lower()}`"
            )
        if self._closed or (self._closing and not draining):
            raise ClosedError(f"the {name} is closing and takes no new work")

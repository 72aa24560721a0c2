"""`SystemExit` and `KeyboardInterrupt` of code that a command calls: they end that request, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from scattersphere.engine.loops import current_loop

if TYPE_CHECKING:
    from types import TracebackType


class CodeExitError(Exception):
    """Code that a command called raised what is no `Exception`; that is its cause."""


class Contained:
    """A block out of which nothing comes that would end the program, but `CodeExitError` instead.

    Cancellations pass. A real Ctrl-C on trio, which raises it wherever the program stands, is passed on to the task of
    the host; asyncio cancels that task, and raises only at the second Ctrl-C.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None and is_exit(exc):
            current_loop().pass_on(exc)
            raise CodeExitError(f"code that was called raised {type(exc).__name__}") from exc


CONTAINED: Final = Contained()


def is_exit(exc: BaseException) -> bool:
    """Whether an exception would end more than what raised it: no `Exception`, and no cancellation by the loop."""
    if isinstance(exc, Exception):
        return False
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(cancelled) is None
    return not isinstance(exc, cancelled)

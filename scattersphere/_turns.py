"""Cooperative yielding in long computations: `give_way` is called inside each loop over a stranger's input.

It does nothing but in work that is done for `_threads.in_thread`, which says what it does there.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
STEP = 1 << 18
"""Characters of a text that one call looks at: some tenths of a millisecond."""
WAY: ContextVar[Callable[[], None] | None] = ContextVar("scattersphere_give_way", default=None)
"""What `give_way` calls. A loop that is on everybody's short way asks for it once, before it begins."""


class _Each(Protocol):
    def __call__(self, items: Iterable[T], /) -> Iterator[T]: ...


EACH: ContextVar[_Each] = ContextVar("scattersphere_each", default=iter)
"""What hands on the items of a loop on the short way: as they are, or with `WAY` before each."""


def give_way() -> None:
    """Let others have their turns if this work has gone on for long enough."""
    if (way := WAY.get()) is not None:
        way()


def let_others_wait(way: Callable[[], None]) -> None:
    """Have this context's work call `way` in each of its long loops."""

    def each(items: Iterable[T], /) -> Iterator[T]:
        for item in items:
            way()
            yield item

    WAY.set(way)
    EACH.set(each)


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """Yield where the pieces of a text begin and end, and give way between them."""
    for start in range(0, size, STEP):
        yield start, min(start + STEP, size)
        give_way()


def count(text: str, mark: str) -> int:
    """Do as `text.count(mark)`, piece by piece; the mark overlaps nothing of itself."""
    return sum(text.count(mark, start, end + len(mark) - 1) for start, end in pieces(len(text)))


def holds(text: str, mark: str) -> bool:
    """Do as `mark in text`, piece by piece."""
    return any(text.find(mark, start, end + len(mark) - 1) >= 0 for start, end in pieces(len(text)))

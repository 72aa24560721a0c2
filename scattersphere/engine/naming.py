"""Whether other runs may be named in what is told of a run: who holds the place or the slot that it waits for.

The Server has no users; whoever tells somebody who does not see all runs says so with `naming_only`.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HIDDEN = "another run"
_MAY_NAME: ContextVar[Callable[[int, str], bool] | None] = ContextVar("scattersphere_may_name", default=None)


@contextmanager
def naming_only(may_name: Callable[[int, str], bool]) -> Iterator[None]:
    """Name only those runs in what is told inside of which `may_name(run, job)` is true."""
    token = _MAY_NAME.set(may_name)
    try:
        yield
    finally:
        _MAY_NAME.reset(token)


def names_all() -> bool:
    """Whether all runs may be named: words that are kept for others are made so."""
    return _MAY_NAME.get() is None


def name_of(run: int, job: str, name: str) -> str:
    """Return the name of something of a run, or "another run"."""
    may_name = _MAY_NAME.get()
    return name if may_name is None or may_name(run, job) else HIDDEN

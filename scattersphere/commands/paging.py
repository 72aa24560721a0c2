"""Pagination: a reply that leaves rows out has a `cursor`, with which the next request goes on.

A cursor is the key of the last row that was shown, so that rows that come or go meanwhile neither repeat nor skip one.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, TypeVar

from scattersphere.commands.arguments import Arg
from scattersphere.commands.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 1_000
"""Rows of a reply at most."""
Cursor = Annotated[str | None, Arg("the `cursor` of the reply before: go on after it")]
Limit = Annotated[int, Arg("at most so many", low=1, high=LIMIT)]
T = TypeVar("T", str, int)


def page(keys: Iterable[T], limit: int) -> tuple[list[T], dict[str, str]]:
    """Return the keys of a page, and the members of the reply that tell how to go on, if there is more."""
    found = list(islice(keys, limit + 1))
    if len(found) <= limit:
        return found, {}
    return found[:limit], {"cursor": str(found[limit - 1])}


def number_of(cursor: str | None) -> int | None:
    """Return a cursor that is a number. Raises `RequestError` (`bad-args`) for one that no reply gave."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):  # noqa: PLR2004 - no run has more digits
        raise RequestError("bad-args", f"{cursor[:32]!r} is no cursor of this list", field="cursor")
    return int(cursor)

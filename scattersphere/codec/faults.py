"""Faults: what is wrong, by the exact path of keys and indexes, before it becomes a `Problem`.

A path is kept as a tuple until the end, because a task may be called `a.b`: only the tuple finds its
place in the text again.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.model.problem import SHOWN, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

Path = tuple[str | int, ...]
"""Keys and indexes from the document's root."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$/-]+")


@attrs.frozen
class Fault:
    """Something wrong at `path`; `offset` (characters) where the text scanner already knows it."""

    path: Path
    message: str
    suggestion: str | None = None
    offset: int | None = None


_INSIDE = 3
"""The length of the path of something inside a task. What is told of the task as a whole (it waits for itself in a
circle, its name is none) says nothing of that."""


def untold(faults: Iterable[Fault], told: Iterable[Fault]) -> list[Fault]:
    """Return the faults but for those at, or inside, what was told of already."""
    known = {fault.path for fault in told}
    return [
        fault
        for fault in faults
        if not any(fault.path[:length] in known for length in range(_INSIDE, len(fault.path) + 1))
    ]


def show_path(path: Path) -> str:
    """Write a path for people: `tasks.mail.depends_on[0]`, and `tasks["a.b"]` for an odd key."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{quote(step)}]")
    return "".join(parts)


def quote(text: str) -> str:
    """Return `text` in double quotes, printable (lone surrogates too) and not longer than a line."""
    if len(text) > SHOWN:
        text = text[:SHOWN] + "..."
    return json.dumps(text, ensure_ascii=not text.isprintable())


def describe(value: Any) -> str:
    """Name a JSON value in plain words, for the end of a sentence: `the string "5"`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Writing a huge int in decimal is slow, and an error above the interpreter's own limit.
        return f"the number {value}" if value.bit_length() <= SHOWN else "a very large number"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the string {quote(value)}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    return f"a Python {type(value).__name__}"


class LineIndex:
    """Turns offsets into lines and columns, both from 1, in characters."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and column of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def unplaced(faults: list[Fault]) -> list[Problem]:
    """Make problems of faults in something that has no text."""
    return [
        Problem(path=show_path(fault.path), message=fault.message, suggestion=fault.suggestion)
        for fault in faults
    ]

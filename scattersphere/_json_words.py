"""Limits of JSON texts; JSON values, paths and problems in plain words; offsets to lines and columns."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

import attrs

from scattersphere._turns import pieces

FILE_BYTES = 64 * 1024 * 1024
"""The largest text that is read at all."""
DEPTH = 64
"""Containers inside one another: far below any recursion limit, far above what people write."""
STRING_CHARACTERS = 16 * 1024 * 1024
"""Characters of one string; a larger value belongs in a file whose path is the argument."""
INTEGER_DIGITS = 640
"""Digits of an integer. Python promises to convert so many, whatever its own limit is set to
(`sys.int_info.str_digits_check_threshold`)."""
MOST_PROBLEMS = 1_000
"""Problems after which no more are looked for: a text that is wrong so often is wrong as a whole."""
SHOWN = 200
"""Characters of a value or name that a message quotes."""

Path = tuple[str | int, ...]
"""Keys and indexes from the document's root: only this, and no text, tells the task `a.b` from `b` in `a`."""


JsonObject = dict[str, Any]
"""An object of JSON, read or to be written: whoever reads a member knows of which kind it is, or looks."""


@attrs.frozen
class RawProblem:
    """Something wrong at `path`, before it has its line; `offset` (characters) where that is known already."""

    path: Path
    message: str
    suggestion: str | None = None
    offset: int | None = None
    is_warning: bool = False


def quote(text: str) -> str:
    """Return `text` in double quotes, printable (lone surrogates too) and not longer than a line."""
    if len(text) > SHOWN:
        text = text[:SHOWN] + "..."
    return json.dumps(text, ensure_ascii=not text.isprintable())


def describe(value: object) -> str:
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


_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$/-]+")


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


_NEWLINE = re.compile("\n")


class LineIndex:
    """Turns offsets into lines and columns, both from 1, in characters."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0]
        for start, end in pieces(len(text)):
            self._starts += [match.end() for match in _NEWLINE.finditer(text, start, end)]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and column of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

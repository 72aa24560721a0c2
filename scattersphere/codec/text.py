"""Strict JSON text to Python values.

The stdlib's scanner does the work at full speed. Where it stumbles, or lets something through that
RFC 8259 or our limits forbid, `scan.py` reads the text again and says exactly what and where.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from scattersphere.codec.faults import Fault, LineIndex, show_path
from scattersphere.codec.limits import DEPTH, FILE_BYTES, INTEGER_DIGITS, STRING_CHARACTERS
from scattersphere.codec.scan import scan
from scattersphere.errors import DefinitionError
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_BOM = "\ufeff"


class _SuspectError(ValueError):
    """The text holds something that needs the second, located reading."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _SuspectError
    return found


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _SuspectError
    return value


def _short(digits: str) -> int:
    if len(digits) > INTEGER_DIGITS:
        raise _SuspectError
    return int(digits)


def _constant(_: str) -> Any:
    raise _SuspectError


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_short, parse_constant=_constant
).decode


def parse(text: str | bytes, *, source: str | None = None) -> Any:
    """Return the value of a JSON text. Raises `DefinitionError` with everything wrong, located.

    Only UTF-8 is read; a byte order mark at the start is ignored. `source` names the text in the
    error.
    """
    return parse_text(read_text(text, source=source), source=source)


def read_text(text: str | bytes, *, source: str | None = None) -> str:
    """Decode and measure a text, without reading it. Raises `DefinitionError`."""
    if len(text) > FILE_BYTES:
        raise DefinitionError([_too_large()], source=source)
    if isinstance(text, bytes):
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DefinitionError([_undecodable(text, error)], source=source) from None
        return decoded.removeprefix(_BOM)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        line, column = LineIndex(text).place(error.start)
        problem = Problem("", "half of a surrogate pair is no character", line, column)
        raise DefinitionError([problem], source=source) from None
    if size > FILE_BYTES:
        raise DefinitionError([_too_large()], source=source)
    return text.removeprefix(_BOM)


def parse_text(text: str, *, source: str | None = None) -> Any:
    """Return the value of what `read_text` gave."""
    try:
        value = _decode(text)
        suspect = (
            _SURROGATE_ESCAPE.search(text) is not None
            or _too_deep(value)
            or (len(text) > STRING_CHARACTERS and _has_long_string(value))
        )
    except (ValueError, RecursionError):
        # How deep the stdlib's scanner gets differs by Python version; ours has no such limit.
        faults = scan(text).faults or [Fault((), "this is no JSON text", offset=0)]
        raise DefinitionError(place(text, faults), source=source) from None
    if suspect and (faults := scan(text).faults):
        raise DefinitionError(place(text, faults), source=source)
    return value


def place(text: str, faults: Iterable[Fault]) -> list[Problem]:
    """Give faults their lines and columns, in the text's order. Reads the text again if it must."""
    faults = list(faults)
    # Something missing has no place of its own: it is shown at what should hold it.
    wanted = {
        fault.path[:length]
        for fault in faults
        if fault.offset is None
        for length in range(len(fault.path) + 1)
    }
    places = scan(text, wanted).places if wanted else {}
    lines = LineIndex(text)
    found: list[tuple[int, Problem]] = []
    for fault in faults:
        offset = fault.offset
        path = fault.path
        while offset is None:
            offset = places.get(path) if path else places.get((), 0)
            path = path[:-1]
        line, column = lines.place(offset)
        problem = Problem(show_path(fault.path), fault.message, line, column, fault.suggestion)
        found.append((offset, problem))
    found.sort(key=lambda pair: pair[0])
    return [problem for _, problem in found]


def _too_deep(value: Any) -> bool:
    """Whether containers nest deeper than `DEPTH`: one level at a time, so without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def _has_long_string(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if len(item) > STRING_CHARACTERS:
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def _too_large() -> Problem:
    return Problem("", f"the text is larger than {FILE_BYTES:,} bytes", 1, 1)


def _undecodable(text: bytes, error: UnicodeDecodeError) -> Problem:
    if text[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in text[:4]:
        return Problem("", "the text must be UTF-8; this looks like UTF-16 or UTF-32", 1, 1)
    good = text[: error.start].decode("utf-8").removeprefix(_BOM)
    line, column = LineIndex(good).place(len(good))
    return Problem(
        "", f"the text must be UTF-8; the byte 0x{text[error.start]:02x} here is not", line, column
    )

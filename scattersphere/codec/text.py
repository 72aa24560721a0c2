"""Strict JSON text to Python values.

The stdlib's scanner does the work at full speed. Where it stumbles, or lets something through that
RFC 8259 or our limits forbid, `scan.py` reads the text again and says exactly what and where.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec.faults import Fault, LineIndex, show_path
from scattersphere.codec.limits import DEPTH, FILE_BYTES, INTEGER_DIGITS, STRING_CHARACTERS
from scattersphere.codec.scan import scan
from scattersphere.errors import DefinitionError
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

_BOM = "\ufeff"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_CONTAINERS = frozenset({dict, list})
_DIGITS = frozenset("0123456789")


@attrs.frozen
class Reading:
    """What a text holds: its value, and the faults that do not keep it from being read on."""

    value: Any
    faults: list[Fault] = attrs.field(factory=list)


class _SuspectError(ValueError):
    """The text holds something that needs the second, located reading."""


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _SuspectError
    return value


def _short(digits: str) -> int:
    if len(digits.removeprefix("-")) > INTEGER_DIGITS:
        raise _SuspectError
    return int(digits)


def _constant(_: str) -> Any:
    raise _SuspectError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _SuspectError
    return found


# Hooks are called for floats and constants only. One for objects, to see duplicate keys, doubles the time of
# reading: keys are counted instead, and it is for texts in which counting does not tell. One for integers is
# called where some integer may have too many digits.
_decode_unique = json.JSONDecoder(object_pairs_hook=_unique).decode
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_constant).decode
_decode_long = json.JSONDecoder(parse_float=_finite, parse_int=_short, parse_constant=_constant).decode
_decode_anything = json.JSONDecoder().decode
_STUMBLED = (ValueError, RecursionError)
"""How deep the stdlib's scanner gets differs by Python version; ours has no such limit."""


def parse(text: str | bytes, *, source: str | None = None) -> Any:
    """Return the value of a JSON text. Raises `DefinitionError` with everything wrong, located.

    Only UTF-8 is read; a byte order mark at the start is ignored. `source` names the text in the
    error.
    """
    content = read_text(text, source=source)
    reading = read_value(content, source=source)
    if reading.faults:
        raise DefinitionError(place(content, reading.faults), source=source)
    return reading.value


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
    if text.isascii():
        return text
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        line, column = LineIndex(text).place(error.start)
        problem = Problem("", "half of a surrogate pair is no character", line, column)
        raise DefinitionError([problem], source=source) from None
    if size > FILE_BYTES:
        raise DefinitionError([_too_large()], source=source)
    return text.removeprefix(_BOM)


def read_unchecked(text: str) -> Any:
    """Return the value of what `read_text` gave, or `UNREAD` where there is more to say than the value.

    What is left to the caller is to count the keys of all objects, and to ask `has_all_keys`.
    """
    try:
        value = (_decode_long if _may_hold_long_digits(text) else _decode)(text)
    except _STUMBLED:
        return UNREAD
    return UNREAD if _has_odd_string(text, value) else value


UNREAD = object()


def has_all_keys(text: str, keys: int | None) -> bool:
    """Whether a text has no key twice, `keys` being left in its value. None says that it nests too deeply."""
    if keys is None:
        return False
    try:
        return _has_unique_keys(text, keys) or _decode_unique(text) is not None
    except _STUMBLED:
        return False


def read_value(text: str, *, source: str | None = None) -> Reading:
    """Return the value of what `read_text` gave, with its faults where it can be read in spite of them.

    A key that stands twice or a number that is too large does not hide what else is wrong. Raises
    `DefinitionError` where the text is no JSON.
    """
    value = read_unchecked(text)
    if value is not UNREAD and has_all_keys(text, count_keys(value)):
        return Reading(value)
    found = scan(text)
    if not found.complete:
        faults = found.faults or [Fault((), "this is no JSON text", offset=0)]
        raise DefinitionError(place(text, faults), source=source)
    try:
        return Reading(_decode_anything(text), found.faults)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        raise DefinitionError(place(text, found.faults), source=source) from None


def count_keys(value: Any, depth: int = DEPTH) -> int | None:
    """Return the keys of all objects in a value, or None if it nests deeper than `depth`."""
    keys, level = 0, [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        if not level:
            return keys
        below: list[Any] = []
        for parent in level:
            if type(parent) is dict:
                keys += len(parent)
                below += parent.values()
            else:
                below += parent
        level = [child for child in below if type(child) in _CONTAINERS]
    return None if level else keys


def _has_unique_keys(text: str, keys: int) -> bool:
    """Whether it can be told, without reading it again, that a text lost none of its keys: `keys` are left.

    Each key is followed by a colon, so as many colons as keys left mean that none stands twice. Strings
    may hold colons too; but seldom after a quote, where those of keys stand if no blank comes before.
    """
    if text.count(":") == keys:
        return True
    blanks = (" :", "\t:", "\n:", "\r:")
    return text.count('":') == keys and not any(blank in text for blank in blanks)


def _has_odd_string(text: str, value: Any) -> bool:
    """Whether a string may hold half of a surrogate pair, or be too long."""
    # One character is found many times quicker than two, and most texts have no backslash at all.
    return ("\\" in text and _SURROGATE_ESCAPE.search(text) is not None) or (
        _may_hold_long_string(text) and _has_long_string(value)
    )


def _may_hold_long_string(text: str) -> bool:
    """Whether there is room for a string that is too long: none holds a line break as it is."""
    start = 0
    while len(text) - start > STRING_CHARACTERS:
        start = text.rfind("\n", start, start + STRING_CHARACTERS) + 1
        if not start:
            return True
    return False


def _may_hold_long_digits(text: str) -> bool:
    """Whether there may be more than `INTEGER_DIGITS` digits in a row.

    So many would be under every such step through the text, and half of them before or behind it.
    """
    half = INTEGER_DIGITS // 2
    for number, character in enumerate(text[::INTEGER_DIGITS]):
        if character in _DIGITS:
            at = number * INTEGER_DIGITS
            if text[at : at + half].isdigit() or text[max(0, at - half) : at + 1].isdigit():
                return True
    return False


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

"""Strict JSON text to values, with what is wrong and where; and which Python values JSON can say.

The stdlib's scanner does the work at full speed. Where it stumbles, or lets something through that
RFC 8259 or our limits forbid, `_json_scan.py` reads the text again and says exactly what and where.
"""

from __future__ import annotations

import json
import json.decoder
import math
import re
from itertools import compress
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._json_strings import decode_utf8, read_string
from scattersphere._json_words import (
    DEPTH,
    FILE_BYTES,
    INTEGER_DIGITS,
    STRING_CHARACTERS,
    LineIndex,
    RawProblem,
    describe,
    quote,
)
from scattersphere._turns import STEP, WAY, count, give_way, holds, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scattersphere._json_words import Path

SLICE = 1 << 14
"""Values that are looked at in one go: some tenths of a millisecond."""
MEMBERS = 1 << 12
"""Members that an object gets in one go: as long as that."""


class JsonTextError(ValueError):
    """A text is no JSON, or breaks a limit so that it cannot be read."""

    def __init__(self, problems: list[RawProblem], text: str = "") -> None:
        self.problems = problems
        self.text = text
        super().__init__(problems[0].message)

    def located(self) -> list[tuple[RawProblem, int, int]]:
        """Return the problems with their lines and columns, in the text's order."""
        return locate(self.text, self.problems)


def copy_json(value: object) -> object:
    """Return `value` with its dicts and lists copied at every depth; anything else is kept as it is."""
    if type(value) is dict:
        return {key: copy_json(child) for key, child in value.items()}
    if type(value) is list:
        return [copy_json(child) for child in value]
    return value


# ---- Python values that JSON cannot say

_TOO_LARGE = 10**INTEGER_DIGITS
_QUIET = frozenset({bool, type(None)})
_ENOUGH = 100
"""Problems after which the search ends: a value that is wrong so often is wrong as a whole."""


def unwritable(value: object) -> list[RawProblem]:
    """Return what of a Python value no JSON text within our limits could say, with its paths. No recursion."""
    problems: list[RawProblem] = []
    stack: list[tuple[Path, Any]] = [((), value)]
    while stack and len(problems) < _ENOUGH:
        path, item = stack.pop()
        if type(item) not in (dict, list):
            if words := _scalar_problem(item):
                problems.append(RawProblem(path, words))
        elif len(path) >= DEPTH:
            problems.append(RawProblem(path, f"more than {DEPTH} lists and objects inside one another"))
        else:
            if type(item) is dict:
                problems += _key_problems(path, item)
            children = item.items() if type(item) is dict else enumerate(item)
            inner = [
                ((*path, key), child)
                for key, child in children
                if type(child) not in _QUIET and type(key) in (str, int)
            ]
            stack += reversed(inner)  # so that problems come in the order of the definition
    return problems


def _key_problems(path: Path, item: dict[object, object]) -> Iterator[RawProblem]:
    for key in item:
        if type(key) is not str:
            yield RawProblem(path, f"a key must be a string, not {describe(key)}")
        elif words := _string_problem(key):
            yield RawProblem(path, f"the key {quote(key)}: {words}")


def _scalar_problem(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return _string_problem(value)
    if kind is int:
        if -_TOO_LARGE < value < _TOO_LARGE:
            return None
        return f"an integer has more than {INTEGER_DIGITS} digits"
    if kind is float:
        return None if math.isfinite(value) else f"{value} is no JSON number"
    if kind in _QUIET:
        return None
    return f"{describe(value)} has no JSON form; a definition holds strings, numbers, booleans, lists, dicts"


def _string_problem(value: str) -> str | None:
    if len(value) > STRING_CHARACTERS:
        return f"a string is longer than {STRING_CHARACTERS:,} characters"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair is no character"
    return None


# ---- texts

_BOM = "\ufeff"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = 3
"""Characters of one but the first."""
_DIGITS = frozenset("0123456789")
_CONTAINERS = frozenset({dict, list})
_STUMBLED = (ValueError, RecursionError)
"""How deep the stdlib's scanner gets differs by Python version; ours has no such limit."""


@attrs.frozen
class Parsed:
    """What a text holds: its value, and the problems that do not keep it from being read on."""

    value: object
    problems: list[RawProblem] = attrs.field(factory=list)


class _SuspectError(ValueError):
    """The text holds something that needs the second, located reading."""


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _SuspectError
    return value


def _constant(_: str) -> object:
    raise _SuspectError


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _SuspectError
    return found


# A hook for objects, to see keys that stand twice, doubles the time of reading: keys are counted instead, and the
# hook is for texts in which counting does not tell.
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_constant).decode
_decode_unique = json.JSONDecoder(object_pairs_hook=_unique).decode
_decode_anything = json.JSONDecoder().decode


def loads(text: str | bytes, *, depth: int = DEPTH) -> object:
    """Return the value of a JSON text. Raises `JsonTextError` with everything that is wrong with it."""
    content = decode(text)
    parsed = parse(content, depth=depth)
    if parsed.problems:
        raise JsonTextError(parsed.problems, content)
    return parsed.value


def decode(text: str | bytes) -> str:
    """Measure a text, and decode it, without reading it. Raises `JsonTextError`.

    Only UTF-8 is read; a byte order mark at the start is ignored.
    """
    if len(text) > FILE_BYTES:
        raise JsonTextError([_too_large()])
    if isinstance(text, bytes):
        try:
            whole = text.decode("utf-8") if len(text) <= STEP else decode_utf8(text)
            return whole.removeprefix(_BOM)
        except UnicodeDecodeError as error:
            raise _undecodable(text, error) from None
    if text.isascii():
        return text
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        problem = RawProblem((), "half of a surrogate pair is no character", offset=error.start)
        raise JsonTextError([problem], text) from None
    if size > FILE_BYTES:
        raise JsonTextError([_too_large()])
    return text.removeprefix(_BOM)


def parse(text: str, *, depth: int = DEPTH) -> Parsed:
    """Return the value of what `decode` gave, with its problems where it can be read in spite of them.

    A key that stands twice or a number that is too large does not hide what else is wrong. Raises `JsonTextError`
    where the text is no JSON.
    """
    try:
        value = _decode_in_steps(text) if len(text) > STEP and WAY.get() else _decode(text)
        keys = _count_keys(value, depth)
        if keys is not None and not _has_odd_scalar(text, value):
            if not _has_unique_keys(text, keys):
                _decode_unique(text)
            return Parsed(value)
    except _STUMBLED:
        pass
    from scattersphere._json_scan import scan  # noqa: PLC0415 - only where something is wrong

    found = scan(text, depth=depth)
    if not found.complete:
        raise JsonTextError(found.problems or [RawProblem((), "this is no JSON text", offset=0)], text)
    try:
        return Parsed(_decode_anything(text), found.problems)
    except _STUMBLED:  # an integer of thousands of digits
        raise JsonTextError(found.problems, text) from None


_scan: Any = vars(json.JSONDecoder(parse_float=_finite, parse_constant=_constant))["scan_once"]
# Python's own half of the scanner: it asks `scan` for each value of a list or an object.
_read_object: Any = vars(json.decoder)["JSONObject"]
_read_array: Any = vars(json.decoder)["JSONArray"]
_whitespace: Any = vars(json.decoder)["WHITESPACE"].match


def _blanks(text: str, at: int) -> Any:
    """Match blanks, of megabytes of them the last piece: `end()` is all that anybody asks for."""
    while (found := _whitespace(text, at, at + STEP)).end() == at + STEP:
        at += STEP
        give_way()
    return found


def _decode_in_steps(text: str) -> object:
    """Do as `_decode`, several times as slowly, but give way at each value.

    The stdlib's scanner keeps the interpreter's lock for as long as a whole text takes: a tenth of a second for one of
    10 MiB, in which no event loop has a turn.
    """
    memo: dict[str, str] = {}

    def scan(text: str, at: int) -> Any:
        give_way()
        first = text[at : at + 1]
        if first == "{":
            return _read_object((text, at + 1), True, scan, None, _gather, memo, _blanks)
        if first == "[":
            return _read_array((text, at + 1), scan, _blanks)
        if first == '"':
            return read_string(text, at + 1)
        return _scan(text, at)

    try:
        value, end = scan(text, _blanks(text, 0).end())
    except StopIteration:
        raise _SuspectError from None
    finally:
        memo.clear()  # `scan` holds itself, and this
    if _blanks(text, end).end() != len(text):
        raise _SuspectError
    return value


def _gather(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its members, some at a time."""
    found: dict[str, object] = {}
    while pairs:
        found.update(pairs[:MEMBERS])
        del pairs[:MEMBERS]
        give_way()
    return found


def _count_keys(value: Any, depth: int) -> int | None:
    """Return the keys of all objects in a value, or None if it nests deeper than `depth`. No recursion."""
    way = WAY.get()
    keys, level = 0, [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        if not level:
            return keys
        below: list[object] = []
        for parent in level:
            if way:
                way()
            if type(parent) is dict:
                keys += len(parent)
                below += parent.values()
            else:
                below += parent
        level = []
        for at in range(0, len(below), SLICE):
            some = below[at : at + SLICE]
            level += compress(some, map(_CONTAINERS.__contains__, map(type, some)))
            if way:
                way()
    return None if level else keys


def _has_unique_keys(text: str, keys: int) -> bool:
    """Whether it can be told without reading it again that a text lost none of its keys: `keys` are left.

    Each key is followed by a colon, so as many colons as keys left mean that none stands twice. Strings
    may hold colons too; but seldom after a quote, where those of keys stand if no blank comes before.
    """
    counted, held = (count, holds) if len(text) > STEP else (str.count, str.__contains__)
    if counted(text, ":") == keys:
        return True
    return counted(text, '":') == keys and not any(held(text, blank) for blank in (" :", "\t:", "\n:", "\r:"))


def _has_odd_scalar(text: str, value: object) -> bool:
    """Whether a string may hold half of a surrogate pair or is too long, or a number may have too many digits."""
    # One character is found many times quicker than two, and most texts have no backslash at all.
    way = WAY.get()
    held = holds if len(text) > STEP else str.__contains__
    if held(text, "\\") and any(
        _SURROGATE_ESCAPE.search(text, start, end + _ESCAPE) for start, end in pieces(len(text))
    ):
        return True
    # More than INTEGER_DIGITS in a row would be under every such step through the text, and half of them before or
    # behind it.
    half = INTEGER_DIGITS // 2
    for at in range(0, len(text), INTEGER_DIGITS):
        if text[at] in _DIGITS and (
            text[at : at + half].isdigit() or text[max(0, at - half) : at + 1].isdigit()
        ):
            return True
        if way:
            way()
    return len(text) > STRING_CHARACTERS and _has_long_string(value)


def _has_long_string(value: object) -> bool:
    stack = [value]
    while stack:
        give_way()
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


def _too_large() -> RawProblem:
    return RawProblem((), f"the text is larger than {FILE_BYTES:,} bytes", offset=0)


def _undecodable(text: bytes, error: UnicodeDecodeError) -> JsonTextError:
    if text[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in text[:4]:
        words = "the text must be UTF-8; this looks like UTF-16 or UTF-32"
        return JsonTextError([RawProblem((), words, offset=0)])
    good = text[: error.start].decode("utf-8").removeprefix(_BOM)
    words = f"the text must be UTF-8; the byte 0x{text[error.start]:02x} here is not"
    return JsonTextError([RawProblem((), words, offset=len(good))], good)


# ---- places


def locate(text: str, problems: Iterable[RawProblem]) -> list[tuple[RawProblem, int, int]]:
    """Return problems with their lines and columns, in the text's order. Reads the text again if it must."""
    problems = list(problems)
    if not problems:
        return []
    # Something missing has no place of its own: it is shown at what should hold it.
    wanted = {
        problem.path[:length]
        for problem in problems
        if problem.offset is None
        for length in range(len(problem.path) + 1)
    }
    places: dict[Path, int] = {}
    if wanted:
        from scattersphere._json_scan import scan  # noqa: PLC0415 - only where something is wrong

        places = scan(text, wanted).places
    lines = LineIndex(text)
    found: list[tuple[int, RawProblem]] = []
    for problem in problems:
        offset, path = problem.offset, problem.path
        while offset is None:
            offset = places.get(path) if path else places.get((), 0)
            path = path[:-1]
        found.append((offset, problem))
    found.sort(key=lambda pair: pair[0])
    return [(problem, *lines.place(offset)) for offset, problem in found]

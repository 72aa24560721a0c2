"""Strict JSON for requests: what Python's parser lets through in silence is an error here.

Refused: duplicate members, NaN and infinities (also those that `1e400` becomes), lone surrogates,
integers of thousands of digits, nesting beyond a limit. `spans` finds where the members of an object
stand in the text, so that a definition inside a request is read from its own characters and its
problems get their columns.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from scattersphere.commands.errors import RequestError

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?')
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RequestError("bad-request", f"the member {name[:64]!r} stands there twice")
            seen.add(name)
    return members


def _constant(name: str) -> Any:
    raise RequestError("bad-request", f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RequestError("bad-request", f"{text[:32]} is too large for a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)


def parse(text: str, depth: int) -> Any:
    """Return the value that `text` holds. Raises `RequestError`: `bad-request` or `too-deep`."""
    if text.count("{") + text.count("[") > depth:
        _check_depth(text, depth)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise RequestError("bad-request", f"no JSON: {exc.msg} at character {exc.pos + 1}") from None
    except RecursionError:
        raise RequestError("too-deep", "the JSON is nested too deeply") from None
    except ValueError:  # a number with more digits than Python converts
        raise RequestError("bad-request", "the JSON holds a number with too many digits") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_depth(text: str, depth: int) -> None:
    level = 0
    for mark in re.findall(r"[\[{\]}]", _STRINGS.sub("", text)):
        level += 1 if mark in "[{" else -1
        if level > depth:
            raise RequestError("too-deep", f"the JSON is nested more than {depth} deep")


def _check_surrogates(value: Any) -> None:
    """Half of a surrogate pair is no text: it would fail wherever it is encoded."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                raise RequestError("bad-request", "a string holds half of a surrogate pair")
        elif isinstance(item, dict):
            pending += item
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def spans(text: str, start: int = 0) -> dict[str, tuple[int, int]]:
    """Return where the value of each member of the object at `start` stands: valid JSON only."""
    found: dict[str, tuple[int, int]] = {}
    at = _skip(text, text.index("{", start) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        first = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, first)
        found[name] = (first, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()

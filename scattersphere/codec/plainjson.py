"""What a definition made in Python holds that JSON cannot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scattersphere.codec.faults import Fault, Path, describe, quote
from scattersphere.codec.limits import DEPTH, INTEGER_DIGITS, STRING_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOO_LARGE = 10**INTEGER_DIGITS
_QUIET = frozenset({bool, type(None)})
SHOWN = 100
"""Faults after which the search ends: a value that is wrong so often is wrong as a whole."""


def plain_faults(value: Any) -> list[Fault]:
    """Return what no JSON text within our limits could say, each with its path. No recursion."""
    faults: list[Fault] = []
    stack: list[tuple[Path, Any]] = [((), value)]
    while stack and len(faults) < SHOWN:
        path, item = stack.pop()
        if type(item) not in (dict, list):
            if words := _scalar_fault(item):
                faults.append(Fault(path, words))
        elif len(path) >= DEPTH:
            faults.append(Fault(path, f"more than {DEPTH} lists and objects inside one another"))
        else:
            if type(item) is dict:
                faults += _key_faults(path, item)
            children = item.items() if type(item) is dict else enumerate(item)
            inner = [
                ((*path, key), child)
                for key, child in children
                if type(child) not in _QUIET and type(key) in (str, int)
            ]
            stack += reversed(inner)  # so that faults come in the order of the definition
    return faults


def _key_faults(path: Path, item: dict[Any, Any]) -> Iterator[Fault]:
    for key in item:
        if type(key) is not str:
            yield Fault(path, f"a key must be a string, not {describe(key)}")
        elif words := _string_fault(key):
            yield Fault(path, f"the key {quote(key)}: {words}")


def _scalar_fault(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return _string_fault(value)
    if kind is int:
        if -_TOO_LARGE < value < _TOO_LARGE:
            return None
        return f"an integer has more than {INTEGER_DIGITS} digits"
    if kind is float:
        return None if math.isfinite(value) else f"{value} is no JSON number"
    if kind in _QUIET:
        return None
    return f"{describe(value)} has no JSON form; a definition holds strings, numbers, booleans, lists, dicts"


def _string_fault(value: str) -> str | None:
    if len(value) > STRING_CHARACTERS:
        return f"a string is longer than {STRING_CHARACTERS:,} characters"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair is no character"
    return None

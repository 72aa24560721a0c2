"""Checks of what callers pass to public functions: a wrong type is a TypeError, a wrong value an ArgumentError.

A wrong type is a TypeError, as everywhere in Python; a value of the right type that cannot be meant is
an `ArgumentError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from scattersphere.errors import ArgumentError

_SHOWN = 60


def describe(thing: object) -> str:
    """Return what somebody passed, in words: `int (5)`, `the class Work`, `an object of the class Work`."""
    kind = type(thing)
    if thing is None:
        return "None"
    if issubclass(kind, int | float | str | bytes):
        return f"{kind.__name__} ({repr(thing)[:_SHOWN]})"
    if issubclass(kind, type):
        return f"the class {thing.__name__}"  # type: ignore[attr-defined]
    return f"an object of the class {kind.__name__}"


def check_text(value: object, what: str, *, optional: bool = False) -> None:
    """Raise `TypeError` unless `value` is a str (or None where that is allowed)."""
    if not (isinstance(value, str) or (optional and value is None)):
        raise TypeError(f"{what} is a str, not {describe(value)}")


def check_count(value: object, what: str, *, least: int = 1, optional: bool = False) -> None:
    """Raise `TypeError` unless `value` is an int, `ArgumentError` if it is below `least`."""
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is an int{' or None' if optional else ''}, not {describe(value)}")
    if value < least:
        hint = "; None means no limit" if optional else ""
        raise ArgumentError(f"{what} is at least {least}, not {value}{hint}")


def check_seconds(value: object, what: str, *, optional: bool = False, endless: bool = False) -> None:
    """Raise `TypeError` unless `value` is a number, `ArgumentError` unless it is a duration in seconds."""
    if optional and value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(
            f"{what} is a number of seconds{' or None' if optional else ''}, not {describe(value)}"
        )
    if not value >= 0 or (value == math.inf and not endless):
        raise ArgumentError(f"{what} is a number of seconds, at least 0, not {value}")


def check_mapping(value: object, what: str, *, optional: bool = True) -> None:
    """Raise `TypeError` unless `value` is a mapping (or None where that is allowed)."""
    if not (isinstance(value, Mapping) or (optional and value is None)):
        raise TypeError(f"{what} is a mapping from names to values, not {describe(value)}")


def check_pools(pools: Mapping[object, object] | None) -> None:
    """Raise `TypeError` or `ArgumentError` unless `pools` is a mapping from names to sizes."""
    check_mapping(pools, "pools")
    for name, size in (pools or {}).items():
        check_text(name, "the name of a pool")
        check_count(size, f"pools: the size of {name!r}")

"""Displaying users' values: as JSON where they have that form and are small enough, else as a short `repr`.

The value may be anything: a list that holds itself, an object whose methods lie, raise or are slow, a
structure of a gigabyte. So the walk reads the containers of JSON directly, never through methods of a
subclass, spends a budget, and stops where that is used up. Only `repr` is the user's code.
"""

from __future__ import annotations

import math
import reprlib
from typing import Any

LIMIT = 64 * 1024
"""Characters of JSON, about, that a value may have to be shown as JSON."""
TEXT_LIMIT = 2_000
"""Characters of a `repr`."""
DEPTH = 32


class _TooLargeError(Exception):
    """The value does not fit."""


def shown(value: object, limit: int = LIMIT) -> object:
    """Return `value` as JSON data of at most about `limit` characters.

    What has no JSON form, or stands too deep, shows as `{"repr": text}` in its place. A value that is
    too large as a whole shows as `{"repr": its beginning, "cut": true}`. Never raises.
    """
    try:
        return _Copying(limit).copy(value, DEPTH)
    except _TooLargeError:
        return {"repr": _short(value), "cut": True}
    except RuntimeError:  # a thread changes the dict while it is read
        return {"repr": _short(value)}


class _Copying:
    def __init__(self, limit: int) -> None:
        self._left = limit

    def copy(self, value: Any, depth: int) -> object:
        kind = type(value)
        if value is None or kind is bool:
            return self._spent(value, 5)
        # By `type`: `isinstance` asks `__class__`, which may be a user's property.
        if issubclass(kind, str):
            return self._spent(str.__str__(value), str.__len__(value) + 2)
        if issubclass(kind, int):
            number = int.__int__(value)
            return self._spent(number, 20) if -(2**63) <= number < 2**64 else self._as_repr(number)
        if issubclass(kind, float):
            real = float.__float__(value)
            return self._spent(real, 20) if math.isfinite(real) else self._as_repr(real)
        if depth > 0 and issubclass(kind, dict):
            return self._copy_dict(value, depth)
        if depth > 0 and issubclass(kind, list | tuple):
            base = list if issubclass(kind, list) else tuple
            self._spent(None, 2 + base.__len__(value))
            return [self.copy(inner, depth - 1) for inner in base.__iter__(value)]
        return self._as_repr(value)

    def _copy_dict(self, value: dict[Any, Any], depth: int) -> object:
        self._spent(None, 2 + 4 * dict.__len__(value))
        if not all(type(key) is str for key in dict.__iter__(value)):
            return self._as_repr(value)
        return {self._spent(key, len(key)): self.copy(inner, depth - 1) for key, inner in dict.items(value)}

    def _as_repr(self, value: object) -> dict[str, str]:
        text = _short(value)
        return {"repr": self._spent(text, len(text) + 10)}

    def _spent(self, value: object, characters: int) -> Any:
        self._left -= characters
        if self._left < 0:
            raise _TooLargeError
        return value


class _Repr(reprlib.Repr):
    """Cuts containers before they are written out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = 20
        self.maxstring = self.maxother = self.maxlong = TEXT_LIMIT

    def repr_instance(self, x: object, level: int) -> str:
        del level
        try:
            return repr(x)
        except BaseException:  # noqa: BLE001 - it is the user's code, and may do anything
            return f"<{type(x).__qualname__}: its repr failed>"


def _short(value: object) -> str:
    """Return the beginning of a value's `repr`."""
    try:
        text = _Repr().repr(value)
    except BaseException:  # noqa: BLE001 - as above: a subclass of a container
        return f"<{type(value).__qualname__}: its repr failed>"
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "..."

"""Forward references of `typing` that remember nothing, so that no version is given the class of another one.

`Optional["Item"]` is one cached object for the whole process, and in it the reference to "Item" keeps the class that it
was evaluated to first. `get_type_hints` of a function then gives version 1 the class of version 2, and bundle a that
of bundle b. The memory is a shortcut and no promise: for classes `typing` itself does without it.
"""

from __future__ import annotations

import threading
from typing import Any, ForwardRef

_MEMORY = ("__forward_evaluated__", "__forward_value__")


class _Evaluation(threading.local):
    """What a thread has just evaluated: `_evaluate` stores the value, and reads it once to return it."""

    last: tuple[Any, Any] | None = None


_here = _Evaluation()


def _never(_: Any) -> bool:
    return False


def _ignore(_: Any, __: bool) -> None:  # noqa: FBT001 - a setter
    pass


def _store(reference: Any, value: Any) -> None:
    _here.last = None if value is None else (reference, value)


def _take(reference: Any) -> Any:
    last, _here.last = _here.last, None
    return last[1] if last is not None and last[0] is reference else None


class Forgetfulness:
    """Whether references remember. While versions are loaded they do not; else `typing` is left as it is."""

    def __init__(self) -> None:
        self._slots: dict[str, Any] = {}

    def begin(self) -> None:
        """Let references forget from now on; no error if they do already, or if this Python has no such memory."""
        if self._slots or not all(name in vars(ForwardRef) for name in _MEMORY):
            return
        self._slots = {name: vars(ForwardRef)[name] for name in _MEMORY}
        reference: Any = ForwardRef
        # The value first: another thread that evaluates meanwhile then stores and reads it in one place.
        reference.__forward_value__ = property(_take, _store)
        reference.__forward_evaluated__ = property(_never, _ignore)

    def end(self) -> None:
        """Let references remember again what they are evaluated to from now on."""
        slots, self._slots = self._slots, {}
        for name, slot in slots.items():
            setattr(ForwardRef, name, slot)

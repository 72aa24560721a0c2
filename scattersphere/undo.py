"""Monkey-patching that can be undone in any order: replace an attribute or an entry, give back only what is one's own.

Several versions of one bundle may have replaced the same thing, and are released in any order. Each replacement
knows what lies below it: the value that was there, or that of an older version which has not been released yet.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, MutableMapping

T = TypeVar("T")

_MISSING: Any = object()
_lock = threading.RLock()
_stacks: dict[tuple[int, Hashable], list[Replacement[Any]]] = {}
"""The replacements of each place, the newest last, by the id of what it belongs to, which they hold, and its name."""


class Replacement(Generic[T]):
    """What `replace_attribute` and `replace_item` return; calling it undoes it, once, in any order."""

    def __init__(
        self,
        owner: object,
        name: Hashable,
        value: T,
        *,
        get: Callable[[], T],
        put: Callable[[T], None],
        remove: Callable[[], None],
    ) -> None:
        self.value = value
        self._owner = owner
        self._key = (id(owner), name)
        self._get, self._put, self._remove = get, put, remove
        with _lock:
            stack = _stacks.setdefault(self._key, [])
            found = get()
            top = stack[-1] if stack else None
            # What somebody else has put over the last one of ours lies below this one, for ever.
            self._found: object = _MISSING if top is not None and found is top.value else found
            stack.append(self)
            put(value)

    @property
    def below(self) -> T:
        """What was there before, without what has been undone since. Raises LookupError if there was nothing."""
        with _lock:
            found: T = self._below()
        if found is _MISSING:
            raise LookupError(f"there was no {self._key[1]!r} before it was replaced")
        return found

    def _below(self) -> Any:
        if self._found is not _MISSING:
            return self._found
        stack = _stacks.get(self._key, [])
        at = stack.index(self) if self in stack else len(stack)
        return stack[at - 1].value if at else self._found

    def __call__(self) -> None:
        """Undo it. What was replaced again since, by whomever, is left alone."""
        with _lock:
            stack = _stacks.get(self._key, [])
            if self not in stack:
                return
            below = self._below()
            above = stack[stack.index(self) + 1 :]
            if above and above[0]._found is _MISSING:  # noqa: SLF001 - of the same class
                above[0]._found = self._found  # noqa: SLF001 - what it lay on is gone
            elif not above and self._get() is self.value:
                if below is _MISSING:
                    self._remove()
                else:
                    self._put(below)
            stack.remove(self)
            if not stack:
                del _stacks[self._key]


def replace_attribute(owner: object, name: str, value: T) -> Replacement[T]:
    """Set `owner.name` to `value`, and return the function that undoes it.

    For what only the whole program has: a function of the standard library, a hook of another library. Undone in
    `on_release`, in whatever order versions are released, the newest one that is left stays in force, and with
    the last one what was there at first comes back. `replacement.below` is what to call on to.
    """
    return Replacement(
        owner,
        name,
        value,
        get=lambda: (
            vars(owner).get(name, _MISSING) if isinstance(owner, type) else getattr(owner, name, _MISSING)
        ),
        put=lambda content: setattr(owner, name, content),
        remove=lambda: delattr(owner, name),
    )


def replace_item(owner: MutableMapping[Any, T], key: Hashable, value: T) -> Replacement[T]:
    """Set `owner[key]` to `value`, as `replace_attribute` does: for an entry in a registry of another library."""
    return Replacement(
        owner,
        key,
        value,
        get=lambda: owner.get(key, _MISSING),
        put=lambda content: owner.__setitem__(key, content),
        remove=lambda: owner.__delitem__(key),
    )

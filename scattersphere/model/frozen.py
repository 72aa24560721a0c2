"""Immutable dicts, and deep copies of JSON values: what a definition keeps nobody else can change.

Converters leave what they cannot convert as it is: the checks say what is wrong with it, and where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from scattersphere._turns import EACH
from scattersphere.model.states import Durability, Overlap, RunRestart, TaskRestart, TriggerRule

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")

COPY_DEPTH = 256
"""Levels that `plain_copy` follows: more than the reader of definitions takes, so that it is that which refuses."""


def _refuse(*_args: object, **_more: object) -> NoReturn:
    raise TypeError("a definition is not changed; make a copy with evolve()")


_REFUSE: Any = _refuse  # the methods that it stands for have signatures of all kinds


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed; it is still one, for `json` and `==`.

    A definition that was read has been checked, and is not checked again: so it must stay what it was.
    """

    __slots__ = ()

    __setitem__ = _REFUSE
    __delitem__ = _REFUSE
    __ior__ = _REFUSE
    clear = _REFUSE
    pop = _REFUSE
    popitem = _REFUSE
    setdefault = _REFUSE
    update = _REFUSE

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle and copy as a whole: they would else set item by item."""
        return type(self), (dict(self),)


EMPTY: FrozenDict[object, object] = FrozenDict()
"""What most fields of most definitions hold: one for all."""

_COPIED = frozenset({dict, FrozenDict, list, tuple})


def freeze(value: Any) -> Any:
    """Return a mapping as a `FrozenDict`; anything else as it is, for the checks to refuse."""
    kind = type(value)
    if kind is dict or (kind is not FrozenDict and isinstance(value, Mapping)):  # what is quick to ask first
        return FrozenDict(value) if value else EMPTY
    return value


def plain_copy(value: Any, depth: int = COPY_DEPTH) -> Any:
    """Copy what looks like JSON: dicts, lists, and tuples as lists. The rest is kept.

    So a definition made in Python equals what its file gives, and does not change with the caller's
    own dicts.
    """
    kind = type(value)
    if kind not in _COPIED or not depth:
        return value
    if kind is list or kind is tuple:
        return [
            plain_copy(child, depth - 1) if type(child) in _COPIED else child for child in EACH.get()(value)
        ]
    copy = dict(value)
    for key, child in EACH.get()(value.items()):
        if type(child) in _COPIED:
            copy[key] = plain_copy(child, depth - 1)
    return copy


def copies(value: object) -> Any:
    """Return a mapping of what looks like JSON as a `FrozenDict` of copies; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    return FrozenDict(plain_copy(dict(value))) if value else EMPTY


def names(value: object) -> Any:
    """Return a collection as a tuple; anything else as it is."""
    if type(value) is tuple:
        return value
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else value


_MEMBERS: Mapping[str, object] = {
    str(one): one for kind in (TriggerRule, Overlap, Durability, TaskRestart, RunRestart) for one in kind
}


def member(value: object) -> Any:
    """Return the member of an enumeration that a string names; anything else as it is."""
    return _MEMBERS.get(value, value) if type(value) is str else value


def changed(item: T, **values: object) -> T:
    """Return a copy of a frozen instance with other values, which are right already: none is converted or copied."""
    copy = object.__new__(type(item))
    vars(copy).update(vars(item), **values)
    return copy

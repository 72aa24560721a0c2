"""Annotations of results that a journal cannot keep: what `validate` warns of, before a restart shows it.

What cannot be told is not warned of: an abstract class, `Any`, a name that means nothing while a program runs.
"""

from __future__ import annotations

import abc
import collections.abc
import dataclasses
import enum
import inspect
import pathlib
import types
import typing
from typing import Any, Final

import attrs

from scattersphere.abc.ports import RemoteValue
from scattersphere.journal.classes import is_data_class
from scattersphere.journal.values import KEPT

_NEVER: Final[Any] = (
    collections.abc.Iterator,
    collections.abc.AsyncIterator,
    collections.abc.Awaitable,
    collections.abc.Callable,
    types.ModuleType,
    type,
)
"""Whatever is one of these has no exact form: objects that go on, and names of things."""
_BASES: Final = frozenset({object, pathlib.Path, pathlib.PurePath})
"""Classes of which the values are of another class, which may have one."""


def why_not_kept(cls: type) -> str | None:
    """Return why the results of a task class cannot be kept, as far as the annotation of its `run` tells; else None.

    It evaluates annotations, and asks classes and metaclasses of the user's, which may raise anything: who calls it
    expects that.
    """
    function = vars(cls).get("func") or getattr(cls, "run", None)  # `func`: what `@task` was given
    function = getattr(function, "__func__", function)
    annotation = getattr(function, "__annotations__", {}).get("return", Any)
    return _why(_evaluated({"return": annotation}, function)["return"], frozenset())


def _evaluated(annotations: dict[str, object], owner: object) -> dict[str, object]:
    """Return annotations with their texts evaluated; those that mean nothing here are `Any`."""
    scope = getattr(owner, "__globals__", None) or vars(inspect.getmodule(owner) or types.ModuleType(""))
    found: dict[str, object] = {}
    for name, annotation in annotations.items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found[name] = typing.get_type_hints(holder, globalns=scope)[name]
        except Exception:  # noqa: BLE001 - it is the user's code, and may be there for type checkers only
            found[name] = Any
    return found


def _why(annotation: Any, seen: frozenset[type]) -> str | None:
    """Return which part of an annotation has no exact form."""
    if annotation is Any:
        return None
    if isinstance(annotation, typing.NewType):
        return _why(annotation.__supertype__, seen)
    if hasattr(annotation, "__value__"):  # of a `type` statement
        return _why(annotation.__value__, seen)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _why(args[0], seen)
    if origin is typing.Literal or annotation is None:
        return None
    if origin in (typing.Union, types.UnionType):
        return next(filter(None, (_why(arg, seen) for arg in args)), None)
    cls = annotation if origin is None else origin
    if not isinstance(cls, type):
        return None
    if (reason := _why_class(cls, seen)) is not None:
        return reason
    return next(filter(None, (_why(arg, seen) for arg in args if arg is not Ellipsis)), None)


def _why_class(cls: type, seen: frozenset[type]) -> str | None:
    if cls in KEPT or cls in seen or isinstance(cls, enum.EnumMeta) or typing.is_typeddict(cls):
        return None
    if is_data_class(cls):
        fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
        hints = _evaluated({field.name: field.type for field in fields if field.type is not None}, cls)
        return next(filter(None, (_why(hint, seen | {cls}) for hint in hints.values())), None)
    if cls is RemoteValue:
        return "a value that stays elsewhere is never kept"
    if cls in _BASES or (isinstance(cls, abc.ABCMeta) and not issubclass(cls, _NEVER)):
        return None  # one of its subclasses may have one
    return f"{cls.__qualname__} has no exact form"

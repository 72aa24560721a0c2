"""JSON Schema of what may stand for an annotation, so that editors complete and check arguments.

It agrees with `kinds.py`, which decides, in all that a schema can say.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import types
import typing
import uuid
from collections import abc
from typing import Any

import attrs

from scattersphere.codec.kinds import class_fields, type_name

VALUE = {"$ref": "#/$defs/value"}
REFERENCE = {"$ref": "#/$defs/reference"}
_TEXT: dict[str, Any] = {"type": "string"}
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: _TEXT,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    dt.datetime: {**_TEXT, "description": "2026-11-23T08:30:00Z"},
    dt.date: {**_TEXT, "description": "2026-11-23"},
    dt.time: {**_TEXT, "description": "08:30:00"},
    dt.timedelta: {"type": "number", "description": "Seconds."},
    uuid.UUID: {**_TEXT, "description": "A UUID."},
    decimal.Decimal: {**_TEXT, "description": 'A decimal in quotes: "1.50".'},
}
_LISTS = frozenset(
    {
        list, tuple, set, frozenset, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection,
        abc.Set, abc.MutableSet,
    }
)  # fmt: skip
_OBJECTS = frozenset({dict, abc.Mapping, abc.MutableMapping})
_LEVELS = 6
"""Levels of classes and containers that are written out; what is deeper, or refers to itself, is any value."""


def annotation_schema(annotation: Any, levels: int = _LEVELS) -> dict[str, Any]:
    """Return the schema of a value for an annotation: itself, or a reference in its place."""
    own = _own(annotation, levels)
    return own if own == VALUE else {"anyOf": [own, REFERENCE]}


def _own(annotation: Any, levels: int) -> dict[str, Any]:
    if levels == 0 or annotation is Any or annotation is object or isinstance(annotation, typing.TypeVar):
        return VALUE
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, args, levels)
    if isinstance(annotation, abc.Hashable) and annotation in _SIMPLE:
        return _SIMPLE[annotation]
    inner = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    if inner is not None and not isinstance(annotation, type):  # NewType, type X = ...
        return _own(inner, levels - 1)
    if annotation in _LISTS or annotation in _OBJECTS:
        return _generic(annotation, annotation, (), levels)
    return _class(annotation, levels) if isinstance(annotation, type) else VALUE


def _generic(annotation: Any, origin: Any, args: tuple[Any, ...], levels: int) -> dict[str, Any]:
    if origin is typing.Annotated:
        return _own(args[0], levels)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_own(arg, levels - 1) for arg in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is tuple and args and args[-1] is not Ellipsis:
        items = [annotation_schema(arg, levels - 1) for arg in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin in _LISTS:
        return {"type": "array", "items": annotation_schema(args[0], levels - 1) if args else VALUE}
    if origin in _OBJECTS:
        value = annotation_schema(args[1], levels - 1) if args else VALUE
        return {"type": "object", "additionalProperties": value}
    return {"description": f"{type_name(annotation)}: the whole $result of a task.", **REFERENCE}


def _class(cls: type, levels: int) -> dict[str, Any]:
    if issubclass(cls, enum.Enum):
        return {"enum": [member.value for member in cls]}
    if issubclass(cls, pathlib.PurePath):
        return {**_TEXT, "description": "A path."}
    if attrs.has(cls) or dataclasses.is_dataclass(cls) or typing.is_typeddict(cls):
        fields = class_fields(cls)
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: annotation_schema(kind, levels - 1) for name, (kind, _) in fields.items()},
            "required": [name for name, (_, required) in fields.items() if required],
        }
    return {"description": f"{type_name(cls)}: the whole $result of a task.", **REFERENCE}

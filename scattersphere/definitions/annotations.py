"""Type annotations to adapters: which JSON a parameter takes, and the parameters of task classes."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import types
import typing
from typing import TYPE_CHECKING, Any, cast

import attrs

from scattersphere.definitions import adapters
from scattersphere.definitions.adapters import AdapterOf, Faults, Schema, TypeAdapter, type_name
from scattersphere.model.taskclass import TaskParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.runnable import RunnableTask

LEVELS = 6
"""Levels of classes and containers that a schema writes out; what is deeper, or refers to itself, is any value."""


# ---- the parameters of task classes


class Structurer:
    """Makes the parameters of task classes: what is declared, what is right, how it is built.

    One serves the classes of one bundle version and is dropped with it: what is shared by all would keep every class
    that it has seen alive.
    """

    def __init__(self) -> None:
        self._adapters: dict[object, TypeAdapter] = {}

    def parameters(self, cls: type[RunnableTask]) -> dict[str, TaskParameter]:
        """Return the parameters of `cls` by name. Raises NameError where an annotation means nothing."""
        hints = typing.get_type_hints(cls, include_extras=True)
        known = type_arguments(cls)
        return {
            field.alias: self._parameter(field, _substitute(hints.get(field.name, field.type), known))
            for field in attrs.fields(cast("Any", cls))
            if field.init
        }

    def _parameter(self, field: attrs.Attribute[object], annotation: object) -> TaskParameter:
        adapter = self.adapter(annotation)
        required = field.default is attrs.NOTHING
        return TaskParameter(
            name=field.alias or field.name,
            annotation=annotation,
            type_name=type_name(annotation),
            required=required,
            default=None if required else _default(field),
            has_json=adapter.has_json,
            check=_checker(adapter),
            structure=adapter.build,
        )

    def _later(self, annotation: object) -> TypeAdapter:
        def inner() -> TypeAdapter:
            return self._adapters[annotation]

        return TypeAdapter(
            check=lambda value, pointer, faults: inner().check(value, pointer, faults),
            build=lambda value: inner().build(value),
            words=type_name(annotation),
            schema=lambda levels: inner().schema(levels),
        )

    def adapter(self, annotation: object) -> TypeAdapter:
        """Return how values of an annotation are treated; looked up once for each."""
        try:
            known = self._adapters.get(annotation)
        except TypeError:  # an annotation that cannot be hashed, such as Annotated[int, []]
            return adapter_of(annotation, self.adapter)
        if known is None:
            # An alias may contain itself (`type Json = dict[str, Json]`): inside, it is looked up when used.
            self._adapters[annotation] = self._later(annotation)
            try:
                known = adapter_of(annotation, self.adapter)
            except BaseException:
                del self._adapters[annotation]
                raise
            self._adapters[annotation] = known
        return known


def make_structurer() -> Structurer:
    """Return a structurer for one version."""
    return Structurer()


def annotation_schema(annotation: object) -> Schema:
    """Return the JSON Schema of a value for an annotation: itself, or a reference in its place."""
    return adapters.or_reference(Structurer().adapter(annotation), LEVELS)


def _default(field: attrs.Attribute[object]) -> object:
    default: Any = field.default
    factory = getattr(default, "factory", None)
    if factory is None:
        return default
    return None if default.takes_self else factory()


def _checker(adapter: TypeAdapter) -> Callable[[object], Faults]:
    def check(value: object) -> Faults:
        faults: Faults = []
        adapter.check(value, "", faults)
        return faults

    return check


# ---- annotations


def adapter_of(annotation: object, adapter: AdapterOf) -> TypeAdapter:
    """Return the adapter of an annotation; `adapter` is asked for those inside it."""
    if isinstance(annotation, typing.TypeVar):
        return adapter(annotation.__bound__ or Any)
    if annotation is Any or annotation is object:
        return adapters.ANYTHING
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, args, adapter)
    if annotation is None:
        return adapters.SIMPLE[type(None)]
    supertype = getattr(annotation, "__supertype__", None)  # NewType
    if supertype is not None:
        return adapter(supertype)
    alias = getattr(annotation, "__value__", None)  # type X = ...
    if alias is not None and type(annotation).__name__ == "TypeAliasType":
        return adapter(alias)
    if annotation in adapters.SIMPLE:
        return adapters.SIMPLE[annotation]
    if annotation in adapters.BARE:
        return _generic(annotation, annotation, (), adapter)
    if isinstance(annotation, type):
        return _class(annotation, {}, adapter)
    return adapters.no_json(annotation)


def _generic(annotation: object, origin: object, args: tuple[object, ...], adapter: AdapterOf) -> TypeAdapter:
    if origin is typing.Annotated:
        return adapter(args[0])
    if origin in (typing.Union, types.UnionType):
        return adapters.union(annotation, args, [adapter(arg) for arg in args])
    if origin is typing.Literal:
        return adapters.choice(args, {value: adapters.json_of(value) for value in args})
    bare = annotation in (tuple, typing.Tuple)  # noqa: UP006 - the old spelling is an annotation too
    if origin is tuple and not bare and args[-1:] != (Ellipsis,):
        return adapters.fixed_tuple([adapter(arg) for arg in args], len(args), tuple)
    if origin in adapters.SEQUENCES:
        return adapters.sequence(adapter(args[0]) if args else adapters.ANYTHING, adapters.SEQUENCES[origin])
    if origin in adapters.MAPPINGS:
        key, value = args or (Any, Any)
        return adapters.mapping(adapters.INT_KEY if key is int else adapter(key), adapter(value))
    if isinstance(origin, type):
        return _class(origin, dict(zip(getattr(origin, "__parameters__", ()), args, strict=False)), adapter)
    return adapters.no_json(annotation)


def _class(cls: type, known: Mapping[object, object], adapter: AdapterOf) -> TypeAdapter:
    if issubclass(cls, enum.Flag):
        return adapters.flag(cls)
    if issubclass(cls, enum.Enum):
        return adapters.choice(tuple(cls), {member: member.value for member in cls})
    if issubclass(cls, pathlib.PurePath):
        return adapters.text(cls, "a path in quotes", cls, "A path.")
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_validate_json"):
        return adapters.pydantic_model(cls)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return adapters.record(cls, class_fields(cls, known), adapter, lambda found: cls(**found))
    if typing.is_typeddict(cls):
        return adapters.record(cls, class_fields(cls, known), adapter, dict)
    if issubclass(cls, tuple) and hasattr(cls, "_field_defaults"):  # NamedTuple
        fields = class_fields(cls, known)
        least = sum(required for _, required in fields.values())
        return adapters.fixed_tuple(
            [adapter(kind) for kind, _ in fields.values()], least, lambda items: cls(*items)
        )
    return adapters.no_json(cls)


def class_fields(cls: object, known: Mapping[object, object]) -> dict[str, tuple[object, bool]]:
    """Return the fields of a class by name: annotation, required. `known` says what its type variables are."""
    known = {**type_arguments(cls), **known}
    if typing.is_typeddict(cls):
        found = _keys(cls)
    else:
        hints = typing.get_type_hints(cls, include_extras=True)
        found = {name: (hints.get(name, Any), required) for name, required in _required(cls).items()}
    return {name: (_substitute(hint, known), required) for name, (hint, required) in found.items()}


def _required(cls: Any) -> dict[str, bool]:
    if attrs.has(cls):
        return {f.alias or f.name: f.default is attrs.NOTHING for f in attrs.fields(cls) if f.init}
    if hasattr(cls, "_field_defaults"):
        return {name: name not in cls._field_defaults for name in cls._fields}
    missing = dataclasses.MISSING
    return {
        f.name: f.default is missing and f.default_factory is missing
        for f in dataclasses.fields(cls)
        if f.init
    }


def _keys(cls: Any) -> dict[str, tuple[object, bool]]:
    """Return the keys of a TypedDict: annotation, required.

    `__required_keys__` cannot see NotRequired in annotations that are strings, so the hints decide.
    """
    found: dict[str, tuple[object, bool]] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        required, inner = name in cls.__required_keys__, hint
        while (origin := typing.get_origin(inner)) in (typing.Required, typing.NotRequired):
            required, inner = origin is typing.Required, typing.get_args(inner)[0]
        found[name] = (inner, required)
    return found


def type_arguments(cls: object) -> dict[object, object]:
    """Return what the type variables of the bases of a class are: `class Ints(Of[int])`."""
    known: dict[object, object] = {}
    for base in getattr(cls, "__mro__", ()):
        for written in base.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(written)
            if origin not in (None, typing.Generic, typing.Protocol):
                names = getattr(origin, "__parameters__", ())
                for name, arg in zip(names, typing.get_args(written), strict=False):
                    known.setdefault(name, _substitute(arg, known))
    return known


def _substitute(hint: object, known: Mapping[object, object]) -> object:
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    names = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    if not any(name in known for name in names):
        return hint
    generic: Any = hint
    return generic[tuple(known.get(name, name) for name in names)]

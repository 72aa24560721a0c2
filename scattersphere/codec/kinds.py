"""What JSON may stand for each annotation: how a value is checked, and how it is built.

Strict, as section 4 of the design says: 5 is no "5" and true is no 1; but a whole number may stand for
a float, ISO strings for dates and times, strings for UUID, Decimal and Path, seconds for a
timedelta, values for enums, objects for attrs classes, dataclasses and TypedDicts.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from scattersphere._json import copy_json, describe
from scattersphere._text import Suggester

Faults = list[tuple[str, str]]
"""(RFC 6901 pointer inside the value, what is wrong)."""


@attrs.frozen(eq=False)
class Kind:
    """How values of one annotation are treated.

    `check(value, pointer, faults)` appends what is wrong; `build(value)` makes the Python value of
    one in which nothing is. `has_json` is false where no JSON can stand for it.
    """

    check: Callable[[Any, str, Faults], None]
    build: Callable[[Any], Any]
    has_json: bool = True


KindOf = Callable[[Any], Kind]


def type_name(annotation: Any) -> str:
    """Write an annotation for people: `list[int]`, `str | None`, without module names."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "any"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(arg) for arg in args)
    if origin is typing.Literal:
        return " | ".join(repr(arg) for arg in args)
    name = getattr(origin or annotation, "__qualname__", None) or str(annotation)
    if not args:
        return str(name)
    return f"{name}[{', '.join('...' if arg is Ellipsis else type_name(arg) for arg in args)}]"


def kind_of(annotation: Any, kind: KindOf) -> Kind:
    """Return the kind of an annotation; `kind` is asked for those inside it."""
    if annotation is Any or annotation is object or isinstance(annotation, typing.TypeVar):
        return Kind(_anything, copy_json)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, args, kind)
    if annotation is None:
        return _SIMPLE[type(None)]
    supertype = getattr(annotation, "__supertype__", None)  # NewType
    if supertype is not None:
        return kind(supertype)
    alias = getattr(annotation, "__value__", None)  # type X = ...
    if alias is not None and type(annotation).__name__ == "TypeAliasType":
        return kind(alias)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if annotation in _BARE:
        return _generic(annotation, annotation, (), kind)
    if isinstance(annotation, type):
        return _class(annotation, kind)
    return _no_json(annotation)


def _generic(annotation: Any, origin: Any, args: tuple[Any, ...], kind: KindOf) -> Kind:
    if origin is typing.Annotated:
        return kind(args[0])
    if origin in (typing.Union, types.UnionType):
        return _union(annotation, args, [kind(arg) for arg in args])
    if origin is typing.Literal:
        return _literal(args)
    bare = annotation in (tuple, typing.Tuple)  # noqa: UP006 - the old spelling is an annotation too
    if origin is tuple and not bare and args[-1:] != (Ellipsis,):
        return _fixed_tuple([kind(arg) for arg in args])
    if origin in _SEQUENCES:
        return _sequence(kind(args[0]) if args else kind(Any), _SEQUENCES[origin])
    if origin in _MAPPINGS:
        key, value = (kind(arg) for arg in args) if args else (kind(Any), kind(Any))
        return _mapping(key, value)
    return _no_json(annotation)


def _class(cls: type, kind: KindOf) -> Kind:
    if issubclass(cls, enum.Enum):
        return _enum(cls)
    if issubclass(cls, pathlib.PurePath):
        return _text(cls, "a path in quotes", cls)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _object(cls, class_fields(cls), kind, lambda found: cls(**found))
    if typing.is_typeddict(cls):
        return _object(cls, class_fields(cls), kind, dict)
    return _no_json(cls)


def class_fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Return the fields of an attrs class, a dataclass or a TypedDict: annotation, required."""
    if typing.is_typeddict(cls):
        return _keys(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    if attrs.has(cls):
        return {
            f.alias or f.name: (hints.get(f.name, Any), f.default is attrs.NOTHING)
            for f in attrs.fields(cls)
            if f.init
        }
    missing = dataclasses.MISSING
    return {
        f.name: (hints.get(f.name, Any), f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
        if f.init
    }


def _keys(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Return the keys of a TypedDict: annotation, required.

    `__required_keys__` cannot see NotRequired in annotations that are strings, so the hints decide.
    """
    found: dict[str, tuple[Any, bool]] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        required, inner = name in cls.__required_keys__, hint
        while (origin := typing.get_origin(inner)) in (typing.Required, typing.NotRequired):
            required, inner = origin is typing.Required, typing.get_args(inner)[0]
        found[name] = (inner, required)
    return found


def _same(value: Any) -> Any:
    return value


def _anything(value: Any, pointer: str, faults: Faults) -> None:
    del value, pointer, faults  # Any and object take what comes


def _no_json(annotation: Any) -> Kind:
    words = f"no JSON can stand for {type_name(annotation)}; give it the whole $result of a task"

    def check(_value: Any, pointer: str, faults: Faults) -> None:
        faults.append((pointer, words))

    return Kind(check, _same, has_json=False)


def _exact(kind: type, words: str) -> Kind:
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not kind:
            faults.append((pointer, f"must be {words}, not {describe(value)}"))

    return Kind(check, _same)


def _check_float(value: Any, pointer: str, faults: Faults) -> None:
    if type(value) not in (int, float):
        faults.append((pointer, f"must be a number, not {describe(value)}"))
        return
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        finite = False
    if not finite:
        faults.append((pointer, f"{describe(value)} is no finite number of Python's float"))


def _text(cls: type, words: str, build: Callable[[str], Any]) -> Kind:
    """A kind that is written as a string and read by `build`, which raises on a wrong one."""

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not str:
            faults.append((pointer, f"must be {words}, not {describe(value)}"))
            return
        try:
            build(value)
        except (ValueError, ArithmeticError):
            faults.append((pointer, f"must be {words}, not {describe(value)}"))

    return Kind(check, lambda value: value if type(value) is cls else build(value))


def _check_seconds(value: Any, pointer: str, faults: Faults) -> None:
    if type(value) not in (int, float):
        faults.append((pointer, f"must be a number of seconds, not {describe(value)}"))
        return
    try:
        dt.timedelta(seconds=value)
    except (OverflowError, ValueError):
        faults.append((pointer, f"{describe(value)} is too many seconds"))


_SIMPLE: Mapping[Any, Kind] = {
    str: _exact(str, "a string"),
    bool: _exact(bool, "true or false"),
    int: _exact(int, "a whole number"),
    float: Kind(_check_float, float),
    type(None): _exact(type(None), "null"),
    dt.datetime: _text(
        dt.datetime, 'a date and time such as "2026-11-23T08:30:00Z"', dt.datetime.fromisoformat
    ),
    dt.date: _text(dt.date, 'a date such as "2026-11-23"', dt.date.fromisoformat),
    dt.time: _text(dt.time, 'a time such as "08:30:00"', dt.time.fromisoformat),
    dt.timedelta: Kind(_check_seconds, lambda value: dt.timedelta(seconds=value)),
    uuid.UUID: _text(uuid.UUID, "a UUID in quotes", uuid.UUID),
    decimal.Decimal: _text(decimal.Decimal, 'a decimal in quotes such as "1.50"', decimal.Decimal),
}


def _enum(cls: type[enum.Enum]) -> Kind:
    values = [member.value for member in cls]

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            faults.append((pointer, _one_of(values, value)))

    return Kind(check, cls)


def _literal(values: tuple[Any, ...]) -> Kind:
    def check(value: Any, pointer: str, faults: Faults) -> None:
        # By type too: true == 1 in Python, and is no 1 in JSON.
        if not any(type(value) is type(known) and value == known for known in values):
            faults.append((pointer, _one_of(list(values), value)))

    return Kind(check, _same)


def _one_of(values: list[Any], value: Any) -> str:
    shown = ", ".join(repr(known) for known in values[:20])
    near = (
        Suggester([known for known in values if type(known) is str]).nearest(value)
        if type(value) is str
        else None
    )
    hint = f"; did you mean {near!r}?" if near else ""
    return f"must be one of {shown}, not {describe(value)}{hint}"


def _union(annotation: Any, args: tuple[Any, ...], members: list[Kind]) -> Kind:
    def fitting(value: Any) -> Kind | None:
        if type(value) is int and int in args:  # `float | int` takes 5 as it is
            return members[args.index(int)]
        for member in members:
            found: Faults = []
            member.check(value, "", found)
            if not found:
                return member
        return None

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if fitting(value) is not None:
            return
        inside = _inside(members, value, pointer) if type(value) in (dict, list) else []
        faults.extend(inside or [(pointer, f"must be {type_name(annotation)}, not {describe(value)}")])

    def build(value: Any) -> Any:
        member = fitting(value)
        return value if member is None else member.build(value)

    return Kind(check, build, has_json=any(member.has_json for member in members))


def _inside(members: list[Kind], value: Any, pointer: str) -> Faults:
    """Return what is wrong deeper inside, for the first member that takes such a container at all."""
    for member in members:
        found: Faults = []
        member.check(value, pointer, found)
        if found[0][0] != pointer:
            return found
    return []


_SEQUENCES: Mapping[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Iterable: list,
    abc.Collection: list,
    abc.Set: frozenset,
    abc.MutableSet: set,
}
_MAPPINGS = frozenset({dict, abc.Mapping, abc.MutableMapping})
_BARE = frozenset(_SEQUENCES) | _MAPPINGS


def _sequence(item: Kind, make: Callable[[list[Any]], Any]) -> Kind:
    hashed = make is set or make is frozenset

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not list:
            faults.append((pointer, f"must be a list, not {describe(value)}"))
            return
        before = len(faults)
        for index, child in enumerate(value):
            item.check(child, f"{pointer}/{index}", faults)
            if hashed and len(faults) == before and not _hashable(item.build(child)):
                faults.append((f"{pointer}/{index}", f"{describe(child)} cannot be in a set"))

    return Kind(check, lambda value: make([item.build(child) for child in value]), item.has_json)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _fixed_tuple(items: list[Kind]) -> Kind:
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not list or len(value) != len(items):
            faults.append((pointer, f"must be a list of {len(items)}, not {describe(value)}"))
            return
        for index, (item, child) in enumerate(zip(items, value, strict=True)):
            item.check(child, f"{pointer}/{index}", faults)

    def build(value: Any) -> Any:
        return tuple(item.build(child) for item, child in zip(items, value, strict=True))

    return Kind(check, build, all(item.has_json for item in items))


def _mapping(key: Kind, item: Kind) -> Kind:
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not dict:
            faults.append((pointer, f"must be an object, not {describe(value)}"))
            return
        for name, child in value.items():
            inside = f"{pointer}/{_escape(name)}"
            key.check(name, inside, faults)
            item.check(child, inside, faults)

    def build(value: Any) -> Any:
        return {key.build(name): item.build(child) for name, child in value.items()}

    return Kind(check, build, item.has_json)


def _object(
    cls: type, fields: Mapping[str, tuple[Any, bool]], kind: KindOf, make: Callable[[dict[str, Any]], Any]
) -> Kind:
    # The kinds inside are looked up at the first value: a class may refer to itself.
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not dict:
            faults.append(
                (pointer, f"must be an object with the fields of {cls.__qualname__}, not {describe(value)}")
            )
            return
        for name in value.keys() - fields.keys():
            near = Suggester(fields).nearest(str(name))
            hint = f'; did you mean "{near}"?' if near else ""
            faults.append((f"{pointer}/{_escape(name)}", f"{cls.__qualname__} has no such field{hint}"))
        for name, (annotation, required) in fields.items():
            if name in value:
                kind(annotation).check(value[name], f"{pointer}/{_escape(name)}", faults)
            elif required:
                faults.append((pointer, f"{cls.__qualname__} needs {name!r}"))

    def build(value: Any) -> Any:
        return make({name: kind(fields[name][0]).build(child) for name, child in value.items()})

    return Kind(check, build)


def _escape(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")

"""What JSON may stand for each annotation: how it is checked and built, what editors and people are told of it.

Strict, as section 4 of the design says: 5 is no "5" and true is no 1; but a whole number may stand for
a float, ISO strings for dates and times, strings for UUID, Decimal and Path, seconds for a timedelta,
values for enums, objects for classes with fields.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import json
import math
import pathlib
import re
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs

from scattersphere._json import copy_json, describe
from scattersphere._text import Suggester, did_you_mean
from scattersphere.model.forms import REFERENCE_SCHEMA, VALUE_SCHEMA
from scattersphere.model.taskclass import TaskParameter

if TYPE_CHECKING:
    from scattersphere.runnable import RunnableTask

Faults = list[tuple[str, str]]
"""(RFC 6901 pointer inside the value, what is wrong)."""
Schema = dict[str, Any]
LEVELS = 6
"""Levels of classes and containers that a schema writes out; what is deeper, or refers to itself, is any value."""


@attrs.frozen(eq=False)
class TypeAdapter:
    """How values of one annotation are treated.

    `check(value, pointer, faults)` appends what is wrong; `build(value)` makes the Python value of
    one in which nothing is. `words` names the JSON; `schema(levels)` is its JSON Schema. `has_json` is false where
    no JSON can stand for it.
    """

    check: Callable[[Any, str, Faults], None]
    build: Callable[[Any], Any]
    words: str
    schema: Callable[[int], Schema]
    has_json: bool = True


AdapterOf = Callable[[Any], TypeAdapter]


# ---- the parameters of task classes


class Structurer:
    """Makes the parameters of task classes: what is declared, what is right, how it is built.

    One serves the classes of one bundle version and is dropped with it: what is shared by all would keep every class
    that it has seen alive.
    """

    def __init__(self) -> None:
        self._adapters: dict[Any, TypeAdapter] = {}

    def parameters(self, cls: type[RunnableTask]) -> dict[str, TaskParameter]:
        """Return the parameters of `cls` by name. Raises NameError where an annotation means nothing."""
        hints = typing.get_type_hints(cls, include_extras=True)
        known = type_arguments(cls)
        return {
            field.alias: self._parameter(field, _substitute(hints.get(field.name, field.type), known))
            for field in attrs.fields(cast("Any", cls))
            if field.init
        }

    def _parameter(self, field: attrs.Attribute[Any], annotation: Any) -> TaskParameter:
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

    def _later(self, annotation: Any) -> TypeAdapter:
        def inner() -> TypeAdapter:
            return self._adapters[annotation]

        return TypeAdapter(
            check=lambda value, pointer, faults: inner().check(value, pointer, faults),
            build=lambda value: inner().build(value),
            words=type_name(annotation),
            schema=lambda levels: inner().schema(levels),
        )

    def adapter(self, annotation: Any) -> TypeAdapter:
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


def annotation_schema(annotation: Any) -> Schema:
    """Return the JSON Schema of a value for an annotation: itself, or a reference in its place."""
    return _or_reference(Structurer().adapter(annotation), LEVELS)


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    factory = getattr(default, "factory", None)
    if factory is None:
        return default
    return None if default.takes_self else factory()


def _checker(adapter: TypeAdapter) -> Callable[[Any], Faults]:
    def check(value: Any) -> Faults:
        faults: Faults = []
        adapter.check(value, "", faults)
        return faults

    return check


# ---- annotations


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
        return " | ".join(repr(_json_of(arg)) for arg in args)
    name = getattr(origin or annotation, "__qualname__", None) or str(annotation)
    if not args:
        return str(name)
    return f"{name}[{', '.join('...' if arg is Ellipsis else type_name(arg) for arg in args)}]"


def adapter_of(annotation: Any, adapter: AdapterOf) -> TypeAdapter:
    """Return the adapter of an annotation; `adapter` is asked for those inside it."""
    if isinstance(annotation, typing.TypeVar):
        return adapter(annotation.__bound__ or Any)
    if annotation is Any or annotation is object:
        return _ANYTHING
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, args, adapter)
    if annotation is None:
        return _SIMPLE[type(None)]
    supertype = getattr(annotation, "__supertype__", None)  # NewType
    if supertype is not None:
        return adapter(supertype)
    alias = getattr(annotation, "__value__", None)  # type X = ...
    if alias is not None and type(annotation).__name__ == "TypeAliasType":
        return adapter(alias)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if annotation in _BARE:
        return _generic(annotation, annotation, (), adapter)
    if isinstance(annotation, type):
        return _class(annotation, {}, adapter)
    return _no_json(annotation)


def _generic(annotation: Any, origin: Any, args: tuple[Any, ...], adapter: AdapterOf) -> TypeAdapter:
    if origin is typing.Annotated:
        return adapter(args[0])
    if origin in (typing.Union, types.UnionType):
        return _union(annotation, args, [adapter(arg) for arg in args])
    if origin is typing.Literal:
        return _choice(args, {value: _json_of(value) for value in args})
    bare = annotation in (tuple, typing.Tuple)  # noqa: UP006 - the old spelling is an annotation too
    if origin is tuple and not bare and args[-1:] != (Ellipsis,):
        return _fixed_tuple([adapter(arg) for arg in args], len(args), tuple)
    if origin in _SEQUENCES:
        return _sequence(adapter(args[0]) if args else _ANYTHING, _SEQUENCES[origin])
    if origin in _MAPPINGS:
        key, value = args or (Any, Any)
        return _mapping(_INT_KEY if key is int else adapter(key), adapter(value))
    if isinstance(origin, type):
        return _class(origin, dict(zip(getattr(origin, "__parameters__", ()), args, strict=False)), adapter)
    return _no_json(annotation)


def _class(cls: type, known: Mapping[Any, Any], adapter: AdapterOf) -> TypeAdapter:
    if issubclass(cls, enum.Flag):
        return _flag(cls)
    if issubclass(cls, enum.Enum):
        return _choice(tuple(cls), {member: member.value for member in cls})
    if issubclass(cls, pathlib.PurePath):
        return _text(cls, "a path in quotes", cls, "A path.")
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_validate_json"):
        return _pydantic(cls)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _object(cls, class_fields(cls, known), adapter, lambda found: cls(**found))
    if typing.is_typeddict(cls):
        return _object(cls, class_fields(cls, known), adapter, dict)
    if issubclass(cls, tuple) and hasattr(cls, "_field_defaults"):  # NamedTuple
        fields = class_fields(cls, known)
        least = sum(required for _, required in fields.values())
        return _fixed_tuple([adapter(kind) for kind, _ in fields.values()], least, lambda items: cls(*items))
    return _no_json(cls)


def class_fields(cls: Any, known: Mapping[Any, Any]) -> dict[str, tuple[Any, bool]]:
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


def type_arguments(cls: Any) -> dict[Any, Any]:
    """Return what the type variables of the bases of a class are: `class Ints(Of[int])`."""
    known: dict[Any, Any] = {}
    for base in getattr(cls, "__mro__", ()):
        for written in base.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(written)
            if origin not in (None, typing.Generic, typing.Protocol):
                names = getattr(origin, "__parameters__", ())
                for name, arg in zip(names, typing.get_args(written), strict=False):
                    known.setdefault(name, _substitute(arg, known))
    return known


def _substitute(hint: Any, known: Mapping[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    names = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    if not any(name in known for name in names):
        return hint
    generic: Any = hint
    return generic[tuple(known.get(name, name) for name in names)]


# ---- single values


def _same(value: Any) -> Any:
    return value


def _or_reference(adapter: TypeAdapter, levels: int) -> Schema:
    own = adapter.schema(levels) if levels > 0 else VALUE_SCHEMA
    return own if own == VALUE_SCHEMA else {"anyOf": [own, REFERENCE_SCHEMA]}


def _check_anything(value: Any, pointer: str, faults: Faults) -> None:
    del value, pointer, faults  # Any and object take what comes


_ANYTHING = TypeAdapter(_check_anything, copy_json, "any JSON", lambda _: VALUE_SCHEMA)


def _no_json(annotation: Any) -> TypeAdapter:
    words = f"no JSON can stand for {type_name(annotation)}; give it the whole $result of a task"

    def check(_value: Any, pointer: str, faults: Faults) -> None:
        faults.append((pointer, words))

    schema = {"description": f"{type_name(annotation)}: the whole $result of a task.", **REFERENCE_SCHEMA}
    return TypeAdapter(check, _same, "the whole result of a task", lambda _: schema, has_json=False)


def _exact(kind: type, words: str, schema: str) -> TypeAdapter:
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not kind:
            faults.append((pointer, f"must be {words}, not {describe(value)}"))

    return TypeAdapter(check, _same, words, lambda _: {"type": schema})


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


def _text(cls: type, words: str, build: Callable[[str], Any], shown: str) -> TypeAdapter:
    """Return the adapter of what is written as a string and read by `build`, which raises on a wrong one."""

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not str:
            faults.append((pointer, f"must be {words}, not {describe(value)}"))
            return
        try:
            build(value)
        except (ValueError, ArithmeticError):
            faults.append((pointer, f"must be {words}, not {describe(value)}"))

    schema = {"type": "string", "description": shown}
    return TypeAdapter(
        check, lambda value: value if type(value) is cls else build(value), words, lambda _: schema
    )


def _check_seconds(value: Any, pointer: str, faults: Faults) -> None:
    if type(value) not in (int, float):
        faults.append((pointer, f"must be a number of seconds, not {describe(value)}"))
        return
    try:
        dt.timedelta(seconds=value)
    except (OverflowError, ValueError):
        faults.append((pointer, f"{describe(value)} is too many seconds"))


_SIMPLE: Mapping[Any, TypeAdapter] = {
    str: _exact(str, "a string", "string"),
    bool: _exact(bool, "true or false", "boolean"),
    int: _exact(int, "a whole number", "integer"),
    float: TypeAdapter(_check_float, float, "a number", lambda _: {"type": "number"}),
    type(None): _exact(type(None), "null", "null"),
    dt.datetime: _text(
        dt.datetime,
        'a date and time such as "2026-11-23T08:30:00Z"',
        dt.datetime.fromisoformat,
        "2026-11-23T08:30:00Z",
    ),
    dt.date: _text(dt.date, 'a date such as "2026-11-23"', dt.date.fromisoformat, "2026-11-23"),
    dt.time: _text(dt.time, 'a time such as "08:30:00"', dt.time.fromisoformat, "08:30:00"),
    dt.timedelta: TypeAdapter(
        _check_seconds,
        lambda value: dt.timedelta(seconds=value),
        "a number of seconds",
        lambda _: {"type": "number", "description": "Seconds."},
    ),
    uuid.UUID: _text(uuid.UUID, "a UUID in quotes", uuid.UUID, "A UUID."),
    decimal.Decimal: _text(
        decimal.Decimal,
        'a decimal in quotes such as "1.50"',
        decimal.Decimal,
        'A decimal in quotes: "1.50".',
    ),
    **{
        cls: _text(cls, f'{name} such as "{example}"', cls, example)
        for cls, name, example in (
            (ipaddress.IPv4Address, "an IPv4 address", "192.0.2.1"),
            (ipaddress.IPv6Address, "an IPv6 address", "2001:db8::1"),
            (ipaddress.IPv4Network, "an IPv4 network", "192.0.2.0/24"),
            (ipaddress.IPv6Network, "an IPv6 network", "2001:db8::/32"),
            (ipaddress.IPv4Interface, "an IPv4 interface", "192.0.2.1/24"),
            (ipaddress.IPv6Interface, "an IPv6 interface", "2001:db8::1/32"),
        )
    },
}


def _json_of(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _choice(members: Sequence[Any], written: Mapping[Any, Any]) -> TypeAdapter:
    """Return the adapter of a Literal or an enum, whose members are `written` so in JSON."""
    pairs = [(written[member], member) for member in members if _is_scalar(written[member])]
    if not pairs and members:
        return _no_json(type(members[0]))

    def member_of(value: Any) -> tuple[Any, ...]:
        # By type too: true == 1 in Python, and is no 1 in JSON.
        return next(
            ((member,) for known, member in pairs if type(value) is type(known) and value == known), ()
        )

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if not member_of(value):
            faults.append((pointer, _one_of([known for known, _ in pairs], value)))

    known = [known for known, _ in pairs]
    words = "one of " + ", ".join(map(json.dumps, known[:20]))
    return TypeAdapter(check, lambda value: member_of(value)[0], words, lambda _: {"enum": known})


def _is_scalar(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _one_of(values: list[Any], value: Any) -> str:
    shown = ", ".join(repr(known) for known in values[:20])
    near = (
        Suggester([known for known in values if type(known) is str]).nearest(value)
        if type(value) is str
        else None
    )
    hint = f"; did you mean {near!r}?" if near else ""
    return f"must be one of {shown}, not {describe(value)}{hint}"


def _flag(cls: type[enum.Flag]) -> TypeAdapter:
    shown = " + ".join(f"{member.value} ({member.name})" for member in cls)
    words = f"a sum of {shown}"

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is int and value >= 0:
            try:
                cls(value)
            except ValueError:
                pass
            else:
                return
        faults.append((pointer, f"must be {words}, not {describe(value)}"))

    return TypeAdapter(check, cls, words, lambda _: {"type": "integer", "minimum": 0})


def _union(annotation: Any, args: tuple[Any, ...], members: list[TypeAdapter]) -> TypeAdapter:
    def fitting(value: Any) -> TypeAdapter | None:
        if type(value) is int and int in args:  # `float | int` takes 5 as it is
            return members[args.index(int)]
        right = None
        for member in members:
            found: Faults = []
            member.check(value, "", found)
            if not found and _builds(member, value):
                return member
            right = member if not found and right is None else right
        return right

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if fitting(value) is not None:
            return
        inside = _inside(members, value, pointer) if type(value) in (dict, list) else []
        faults.extend(inside or [(pointer, f"must be {type_name(annotation)}, not {describe(value)}")])

    def build(value: Any) -> Any:
        member = fitting(value)
        return value if member is None else member.build(value)

    return TypeAdapter(
        check,
        build,
        " or ".join(dict.fromkeys(member.words for member in members)),
        lambda levels: {"anyOf": [_own(member, levels - 1) for member in members]},
        has_json=any(member.has_json for member in members),
    )


def _builds(member: TypeAdapter, value: Any) -> bool:
    """Whether a class, which may have validators of its own, takes what is right for its annotations."""
    try:
        member.build(value)
    except BaseException:  # noqa: BLE001 - a constructor of the user's may raise anything (promise 7)
        return False
    return True


def _own(member: TypeAdapter, levels: int) -> Schema:
    return member.schema(levels) if levels > 0 else VALUE_SCHEMA


def _inside(members: list[TypeAdapter], value: Any, pointer: str) -> Faults:
    """Return what is wrong deeper inside, for the first member that takes such a container at all."""
    for member in members:
        found: Faults = []
        member.check(value, pointer, found)
        if found[0][0] != pointer:
            return found
    return []


# ---- containers


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
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")


def _sequence(item: TypeAdapter, make: Callable[[list[Any]], Any]) -> TypeAdapter:
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

    return TypeAdapter(
        check,
        lambda value: make([item.build(child) for child in value]),
        "a list" if item is _ANYTHING else f"a list; each: {item.words}",
        lambda levels: {"type": "array", "items": _or_reference(item, levels - 1)},
        item.has_json,
    )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _fixed_tuple(items: list[TypeAdapter], least: int, make: Callable[[list[Any]], Any]) -> TypeAdapter:
    count = str(len(items)) if least == len(items) else f"{least} to {len(items)}"

    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not list or not least <= len(value) <= len(items):
            faults.append((pointer, f"must be a list of {count}, not {describe(value)}"))
            return
        for index, (item, child) in enumerate(zip(items, value, strict=False)):
            item.check(child, f"{pointer}/{index}", faults)

    def schema(levels: int) -> Schema:
        prefix = [_or_reference(item, levels - 1) for item in items]
        return {"type": "array", "prefixItems": prefix, "items": False, "minItems": least}

    return TypeAdapter(
        check,
        lambda value: make([item.build(child) for item, child in zip(items, value, strict=False)]),
        f"a list of {count}: {'; '.join(item.words for item in items)}" if items else "an empty list",
        schema,
        all(item.has_json for item in items),
    )


def _check_int_key(value: Any, pointer: str, faults: Faults) -> None:
    if type(value) is not str or not _WHOLE.fullmatch(value):
        faults.append((pointer, f"must be a whole number in quotes, not {describe(value)}"))


_INT_KEY = TypeAdapter(_check_int_key, int, "a whole number in quotes", lambda _: {"type": "string"})
"""Keys of JSON objects are strings: no number but what is written as one."""


def _mapping(key: TypeAdapter, item: TypeAdapter) -> TypeAdapter:
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

    return TypeAdapter(
        check,
        build,
        "an object" if item is _ANYTHING else f"an object; each value: {item.words}",
        lambda levels: {"type": "object", "additionalProperties": _or_reference(item, levels - 1)},
        item.has_json,
    )


def _object(
    cls: type,
    fields: Mapping[str, tuple[Any, bool]],
    adapter: AdapterOf,
    make: Callable[[dict[str, Any]], Any],
) -> TypeAdapter:
    # The adapters inside are looked up at the first value: a class may refer to itself.
    def check(value: Any, pointer: str, faults: Faults) -> None:
        if type(value) is not dict:
            words = f"must be an object with the fields of {cls.__qualname__}, not {describe(value)}"
            faults.append((pointer, words))
            return
        faults += [
            (
                f"{pointer}/{_escape(name)}",
                f"{cls.__qualname__} has no such field{did_you_mean(str(name), fields)}",
            )
            for name in value.keys() - fields.keys()
        ]
        for name, (annotation, required) in fields.items():
            if name in value:
                adapter(annotation).check(value[name], f"{pointer}/{_escape(name)}", faults)
            elif required:
                faults.append((pointer, f"{cls.__qualname__} needs {name!r}"))

    def build(value: Any) -> Any:
        return make({name: adapter(fields[name][0]).build(child) for name, child in value.items()})

    def schema(levels: int) -> Schema:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: _or_reference(adapter(kind), levels - 1) for name, (kind, _) in fields.items()
            },
            "required": [name for name, (_, required) in fields.items() if required],
        }

    return TypeAdapter(check, build, f"an object with the fields of {cls.__qualname__}", schema)


def _first_line(error: BaseException) -> str:
    try:
        text = str(error.args[0] if error.args else error)
    except Exception:  # noqa: BLE001 - the error is the user's, too
        text = ""
    shown = f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__
    return shown.splitlines()[0][:200]


def _pydantic(cls: Any) -> TypeAdapter:
    """Return the adapter of a pydantic model, which judges JSON itself, strictly."""
    name = cls.__qualname__

    def build(value: Any) -> Any:
        return cls.model_validate_json(json.dumps(value), strict=True)

    def check(value: Any, pointer: str, faults: Faults) -> None:
        try:
            build(value)
        except BaseException as error:  # noqa: BLE001 - a user's validator may raise anything (promise 7)
            told = getattr(error, "errors", None)
            for one in told(include_url=False, include_context=False, include_input=False) if told else ():
                inside = "".join(f"/{_escape(step)}" for step in one["loc"])
                faults.append((pointer + inside, f"{name}: {one['msg']}"))
            if not told:
                faults.append((pointer, f"no {name} can be made of it: {_first_line(error)}"))

    schema = {"type": "object", "description": f"{name}, a pydantic model."}
    return TypeAdapter(check, build, f"an object that {name} takes", lambda _: schema)


def _escape(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")

"""Type adapters: which JSON stands for a kind of value, how it is checked and built, and its JSON Schema.

Strict, as section 4 of the design says: 5 is no "5" and true is no 1; but a whole number may stand for
a float, ISO strings for dates and times, strings for UUID, Decimal and Path, seconds for a timedelta,
values for enums, objects for classes with fields. Which of these an annotation means is `annotations.py`'s to say.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import json
import math
import re
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from scattersphere._json import copy_json
from scattersphere._json_words import describe
from scattersphere._text import Suggester, did_you_mean
from scattersphere.model.forms import REFERENCE_SCHEMA, VALUE_SCHEMA

Faults = list[tuple[str, str]]
"""(RFC 6901 pointer inside the value, what is wrong)."""
Schema = dict[str, Any]


@attrs.frozen(eq=False)
class TypeAdapter:
    """How values of one annotation are treated.

    `check(value, pointer, faults)` appends what is wrong; `build(value)` makes the Python value of
    one in which nothing is. `words` names the JSON; `schema(levels)` is its JSON Schema. `has_json` is false where
    no JSON can stand for it.
    """

    check: Callable[[object, str, Faults], None]
    build: Callable[[Any], Any]
    words: str
    schema: Callable[[int], Schema]
    has_json: bool = True


AdapterOf = Callable[[object], TypeAdapter]


def type_name(annotation: object) -> str:
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
        return " | ".join(repr(json_of(arg)) for arg in args)
    name = getattr(origin or annotation, "__qualname__", None) or str(annotation)
    if not args:
        return str(name)
    return f"{name}[{', '.join('...' if arg is Ellipsis else type_name(arg) for arg in args)}]"


# ---- single values


def _same(value: object) -> object:
    return value


def or_reference(adapter: TypeAdapter, levels: int) -> Schema:
    """Return the JSON Schema of a value, or of a reference in its place."""
    own = adapter.schema(levels) if levels > 0 else VALUE_SCHEMA
    return own if own == VALUE_SCHEMA else {"anyOf": [own, REFERENCE_SCHEMA]}


def _check_anything(value: object, pointer: str, faults: Faults) -> None:
    del value, pointer, faults  # Any and object take what comes


ANYTHING = TypeAdapter(_check_anything, copy_json, "any JSON", lambda _: VALUE_SCHEMA)


def no_json(annotation: object) -> TypeAdapter:
    """Return the adapter of what only the whole result of a task can be."""
    words = f"no JSON can stand for {type_name(annotation)}; give it the whole $result of a task"

    def check(_value: object, pointer: str, faults: Faults) -> None:
        faults.append((pointer, words))

    schema = {"description": f"{type_name(annotation)}: the whole $result of a task.", **REFERENCE_SCHEMA}
    return TypeAdapter(check, _same, "the whole result of a task", lambda _: schema, has_json=False)


def _exact(kind: type, words: str, schema: str) -> TypeAdapter:
    def check(value: object, pointer: str, faults: Faults) -> None:
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


def text(cls: type, words: str, build: Callable[[str], object], shown: str) -> TypeAdapter:
    """Return the adapter of what is written as a string and read by `build`, which raises on a wrong one."""

    def check(value: object, pointer: str, faults: Faults) -> None:
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


SIMPLE: Mapping[object, TypeAdapter] = {
    str: _exact(str, "a string", "string"),
    bool: _exact(bool, "true or false", "boolean"),
    int: _exact(int, "a whole number", "integer"),
    float: TypeAdapter(_check_float, float, "a number", lambda _: {"type": "number"}),
    type(None): _exact(type(None), "null", "null"),
    dt.datetime: text(
        dt.datetime,
        'a date and time such as "2026-11-23T08:30:00Z"',
        dt.datetime.fromisoformat,
        "2026-11-23T08:30:00Z",
    ),
    dt.date: text(dt.date, 'a date such as "2026-11-23"', dt.date.fromisoformat, "2026-11-23"),
    dt.time: text(dt.time, 'a time such as "08:30:00"', dt.time.fromisoformat, "08:30:00"),
    dt.timedelta: TypeAdapter(
        _check_seconds,
        lambda value: dt.timedelta(seconds=value),
        "a number of seconds",
        lambda _: {"type": "number", "description": "Seconds."},
    ),
    uuid.UUID: text(uuid.UUID, "a UUID in quotes", uuid.UUID, "A UUID."),
    decimal.Decimal: text(
        decimal.Decimal,
        'a decimal in quotes such as "1.50"',
        decimal.Decimal,
        'A decimal in quotes: "1.50".',
    ),
    **{
        cls: text(cls, f'{name} such as "{example}"', cls, example)
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


def json_of(value: object) -> object:
    """Return what stands for a member of a Literal or an enum."""
    return value.value if isinstance(value, enum.Enum) else value


def choice(members: Sequence[object], written: Mapping[object, object]) -> TypeAdapter:
    """Return the adapter of a Literal or an enum, whose members are `written` so in JSON."""
    pairs = [(written[member], member) for member in members if _is_scalar(written[member])]
    if not pairs and members:
        return no_json(type(members[0]))

    def member_of(value: object) -> tuple[object, ...]:
        # By type too: true == 1 in Python, and is no 1 in JSON.
        return next(
            ((member,) for known, member in pairs if type(value) is type(known) and value == known), ()
        )

    def check(value: object, pointer: str, faults: Faults) -> None:
        if not member_of(value):
            faults.append((pointer, _one_of([known for known, _ in pairs], value)))

    known = [known for known, _ in pairs]
    words = "one of " + ", ".join(map(json.dumps, known[:20]))
    return TypeAdapter(check, lambda value: member_of(value)[0], words, lambda _: {"enum": known})


def _is_scalar(value: object) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _one_of(values: list[object], value: object) -> str:
    shown = ", ".join(repr(known) for known in values[:20])
    near = (
        Suggester([known for known in values if type(known) is str]).nearest(value)
        if type(value) is str
        else None
    )
    hint = f"; did you mean {near!r}?" if near else ""
    return f"must be one of {shown}, not {describe(value)}{hint}"


def flag(cls: type[enum.Flag]) -> TypeAdapter:
    """Return the adapter of flags: the sum of their values."""
    shown = " + ".join(f"{member.value} ({member.name})" for member in cls)
    words = f"a sum of {shown}"

    def check(value: object, pointer: str, faults: Faults) -> None:
        if type(value) is int and value >= 0:
            try:
                cls(value)
            except ValueError:
                pass
            else:
                return
        faults.append((pointer, f"must be {words}, not {describe(value)}"))

    return TypeAdapter(check, cls, words, lambda _: {"type": "integer", "minimum": 0})


def union(annotation: object, args: tuple[object, ...], members: list[TypeAdapter]) -> TypeAdapter:
    """Return the adapter of a union: the first member that takes a value and can be built of it."""

    def fitting(value: object) -> TypeAdapter | None:
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

    def check(value: object, pointer: str, faults: Faults) -> None:
        if fitting(value) is not None:
            return
        inside = _inside(members, value, pointer) if type(value) in (dict, list) else []
        faults.extend(inside or [(pointer, f"must be {type_name(annotation)}, not {describe(value)}")])

    def build(value: object) -> object:
        member = fitting(value)
        return value if member is None else member.build(value)

    return TypeAdapter(
        check,
        build,
        " or ".join(dict.fromkeys(member.words for member in members)),
        lambda levels: {"anyOf": [_own(member, levels - 1) for member in members]},
        has_json=any(member.has_json for member in members),
    )


def _builds(member: TypeAdapter, value: object) -> bool:
    """Whether a class, which may have validators of its own, takes what is right for its annotations."""
    try:
        member.build(value)
    except BaseException:  # noqa: BLE001 - a constructor of the user's may raise anything (promise 7)
        return False
    return True


def _own(member: TypeAdapter, levels: int) -> Schema:
    return member.schema(levels) if levels > 0 else VALUE_SCHEMA


def _inside(members: list[TypeAdapter], value: object, pointer: str) -> Faults:
    """Return what is wrong deeper inside, for the first member that takes such a container at all."""
    for member in members:
        found: Faults = []
        member.check(value, pointer, found)
        if found[0][0] != pointer:
            return found
    return []


# ---- containers


SEQUENCES: Mapping[object, Callable[[list[object]], object]] = {
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
MAPPINGS = frozenset({dict, abc.Mapping, abc.MutableMapping})
BARE = frozenset(SEQUENCES) | MAPPINGS
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")


def sequence(item: TypeAdapter, make: Callable[[list[object]], object]) -> TypeAdapter:
    """Return the adapter of lists, sets and tuples of any length: a list."""
    hashed = make is set or make is frozenset

    def check(value: object, pointer: str, faults: Faults) -> None:
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
        "a list" if item is ANYTHING else f"a list; each: {item.words}",
        lambda levels: {"type": "array", "items": or_reference(item, levels - 1)},
        item.has_json,
    )


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def fixed_tuple(items: list[TypeAdapter], least: int, make: Callable[[list[Any]], Any]) -> TypeAdapter:
    """Return the adapter of tuples of a fixed length, and of NamedTuples: a list of `least` items or more."""
    count = str(len(items)) if least == len(items) else f"{least} to {len(items)}"

    def check(value: object, pointer: str, faults: Faults) -> None:
        if type(value) is not list or not least <= len(value) <= len(items):
            faults.append((pointer, f"must be a list of {count}, not {describe(value)}"))
            return
        for index, (item, child) in enumerate(zip(items, value, strict=False)):
            item.check(child, f"{pointer}/{index}", faults)

    def schema(levels: int) -> Schema:
        prefix = [or_reference(item, levels - 1) for item in items]
        return {"type": "array", "prefixItems": prefix, "items": False, "minItems": least}

    return TypeAdapter(
        check,
        lambda value: make([item.build(child) for item, child in zip(items, value, strict=False)]),
        f"a list of {count}: {'; '.join(item.words for item in items)}" if items else "an empty list",
        schema,
        all(item.has_json for item in items),
    )


def _check_int_key(value: object, pointer: str, faults: Faults) -> None:
    if type(value) is not str or not _WHOLE.fullmatch(value):
        faults.append((pointer, f"must be a whole number in quotes, not {describe(value)}"))


INT_KEY = TypeAdapter(_check_int_key, int, "a whole number in quotes", lambda _: {"type": "string"})
"""Keys of JSON objects are strings: no number but what is written as one."""


def mapping(key: TypeAdapter, item: TypeAdapter) -> TypeAdapter:
    """Return the adapter of dicts: an object."""

    def check(value: object, pointer: str, faults: Faults) -> None:
        if type(value) is not dict:
            faults.append((pointer, f"must be an object, not {describe(value)}"))
            return
        for name, child in value.items():
            inside = f"{pointer}/{_escape(name)}"
            key.check(name, inside, faults)
            item.check(child, inside, faults)

    def build(value: Any) -> object:
        return {key.build(name): item.build(child) for name, child in value.items()}

    return TypeAdapter(
        check,
        build,
        "an object" if item is ANYTHING else f"an object; each value: {item.words}",
        lambda levels: {"type": "object", "additionalProperties": or_reference(item, levels - 1)},
        item.has_json,
    )


def record(
    cls: type,
    fields: Mapping[str, tuple[object, bool]],
    adapter: AdapterOf,
    make: Callable[[dict[str, object]], object],
) -> TypeAdapter:
    """Return the adapter of a class with fields: an object. `make` builds it of what the fields hold."""

    # The adapters inside are looked up at the first value: a class may refer to itself.
    def check(value: object, pointer: str, faults: Faults) -> None:
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

    def build(value: Any) -> object:
        return make({name: adapter(fields[name][0]).build(child) for name, child in value.items()})

    def schema(levels: int) -> Schema:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: or_reference(adapter(kind), levels - 1) for name, (kind, _) in fields.items()
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


def pydantic_model(cls: Any) -> TypeAdapter:
    """Return the adapter of a pydantic model, which judges JSON itself, strictly."""
    name = cls.__qualname__

    def build(value: object) -> object:
        return cls.model_validate_json(json.dumps(value), strict=True)

    def check(value: object, pointer: str, faults: Faults) -> None:
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


def _escape(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")

"""Declaring and reading the arguments of commands: the annotated parameters of a handler say what they take.

Reading is strict. JSON values are taken as they are (`"5"` is no integer, `true` no number); the
text of word commands is converted by the field's kind and nothing else.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import attrs

from scattersphere._text import did_you_mean
from scattersphere.commands.errors import RequestError
from scattersphere.model.events import read_event_id

TEXT_LIMIT = 4_096
"""Characters of a text argument: names, reasons, tokens."""
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)


class ArgumentKind(StrEnum):
    """What a field takes, in the words of JSON Schema where it has one."""

    TEXT = "string"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "boolean"
    OBJECT = "object"
    WORDS = "array"
    DEFINITION = "definition"
    PLACE = "place"
    """Where a reader of events is: a number, or the text `LIFE.NUMBER`."""


class EventPlace(str):
    """The id of an event (`Event.id`) as somebody gives it; a number is as good."""

    __slots__ = ()


@attrs.frozen
class Definition:
    """A job definition in its own characters; `column` is where it began in the line, from 1."""

    text: str
    column: int


@attrs.frozen
class Arg:
    """What a parameter of a handler means to who gives it; it stands in the parameter's annotation."""

    help: str
    low: float | None = attrs.field(default=None, kw_only=True)
    high: float | None = attrs.field(default=None, kw_only=True)
    choices: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    """Words of a list that are allowed; those of a text are its `Literal` or its enum."""
    secret: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen(kw_only=True)
class CommandArgument:
    """An argument of a command, as it is found in the signature of its handler."""

    kind: ArgumentKind
    help: str
    required: bool
    default: object = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    make: Callable[[object], object] | None = None
    """The enum that a text becomes a member of."""
    secret: bool = False


def arguments_of(handler: Callable[..., object]) -> dict[str, CommandArgument]:
    """Return the arguments that a handler declares: its keyword-only parameters, in their order."""
    hints = get_type_hints(handler, include_extras=True)
    return {
        name: _declared(hints[name], parameter.default)
        for name, parameter in inspect.signature(handler).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _declared(hint: object, default: object) -> CommandArgument:
    annotated, said = get_args(hint)[:2]
    wanted = [
        each
        for each in (get_args(annotated) if _is_union(annotated) else (annotated,))
        if each is not NoneType
    ]
    (kind,) = wanted
    choices, make = said.choices, None
    if get_origin(kind) is Literal:
        choices, kind = get_args(kind), str
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        choices, make, kind = tuple(map(str, kind)), kind, str
    required = default is inspect.Parameter.empty
    return CommandArgument(
        kind=_KINDS[get_origin(kind) or kind],
        help=said.help,
        required=required,
        default=None if required else default,
        low=said.low,
        high=said.high,
        choices=choices,
        make=make,
        secret=said.secret,
    )


def _is_union(hint: object) -> bool:
    return get_origin(hint) in {Union, UnionType}


_KINDS: dict[object, ArgumentKind] = {
    str: ArgumentKind.TEXT,
    int: ArgumentKind.INTEGER,
    float: ArgumentKind.NUMBER,
    bool: ArgumentKind.FLAG,
    dict: ArgumentKind.OBJECT,
    list: ArgumentKind.WORDS,
    Definition: ArgumentKind.DEFINITION,
    EventPlace: ArgumentKind.PLACE,
}


def read(arguments: Mapping[str, CommandArgument], values: Mapping[str, object]) -> dict[str, object]:
    """Return the keyword arguments for a handler. Raises `RequestError` (`bad-args`) naming the field."""
    if not values and not arguments:
        return {}
    if not values.keys() <= arguments.keys():
        name = next(name for name in values if name not in arguments)
        raise RequestError("bad-args", _unknown(name, arguments), field=name[:64])
    found = {}
    for name, taken in arguments.items():
        if name in values:
            value = values[name]
            if fault := _fault(taken, value):
                raise RequestError("bad-args", f"{name} {fault}", field=name)
            found[name] = value if taken.make is None else taken.make(value)
        elif taken.required:
            raise RequestError("bad-args", f"{name} is missing: {taken.help}", field=name)
        else:
            found[name] = taken.default
    return found


def _unknown(name: str, arguments: Mapping[str, object]) -> str:
    if not arguments:
        return f"no argument {name[:64]!r}; the command takes none"
    hint = did_you_mean(name, arguments, quote="'") or f"; it takes {', '.join(arguments)}"
    return f"no argument {name[:64]!r}{hint}"


def _fault(taken: CommandArgument, value: object) -> str:
    """Return what is wrong with a JSON value, or ""."""
    return _CHECKS[taken.kind](taken, value)


def _text(taken: CommandArgument, value: object) -> str:
    if not isinstance(value, str):
        return "must be a string"
    if len(value) > TEXT_LIMIT:
        return f"may have {TEXT_LIMIT} characters"
    if taken.choices and value not in taken.choices:
        return f"must be one of {', '.join(taken.choices)}"
    return ""


def _integer(taken: CommandArgument, value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        return "must be an integer"
    return _range(taken, value)


def _number(taken: CommandArgument, value: object) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "must be a number"
    return _range(taken, value)


def _range(taken: CommandArgument, value: float) -> str:
    if taken.low is not None and value < taken.low:
        return f"must be at least {taken.low:g}"
    if taken.high is not None and value > taken.high:
        return f"must be at most {taken.high:g}"
    return ""


def _flag(_: CommandArgument, value: object) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _object(_: CommandArgument, value: object) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _words(taken: CommandArgument, value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return "must be a list of strings"
    unknown = [word for word in value if taken.choices and word not in taken.choices]
    if unknown:
        return f"may hold {', '.join(taken.choices)}, not {unknown[0][:64]!r}"
    return ""


def _definition(_: CommandArgument, value: object) -> str:
    return "" if isinstance(value, Definition) else "must be an object: a job definition"


def _place(_: CommandArgument, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return ""
    if isinstance(value, str) and read_event_id(value) is not None:
        return ""
    return 'must be the number of an event, or its id as "3.57"'


_CHECKS = {
    ArgumentKind.TEXT: _text,
    ArgumentKind.INTEGER: _integer,
    ArgumentKind.NUMBER: _number,
    ArgumentKind.FLAG: _flag,
    ArgumentKind.OBJECT: _object,
    ArgumentKind.WORDS: _words,
    ArgumentKind.DEFINITION: _definition,
    ArgumentKind.PLACE: _place,
}


def from_word(name: str, taken: CommandArgument, word: str) -> object:
    """Convert the text of a word command. Raises `RequestError` (`bad-args`) naming the field."""
    match taken.kind:
        case ArgumentKind.TEXT | ArgumentKind.PLACE:
            return int(word) if taken.kind is ArgumentKind.PLACE and _INTEGER.fullmatch(word) else word
        case ArgumentKind.WORDS:
            return [part for part in word.split(",") if part]
        case ArgumentKind.FLAG if word in {"true", "false", name}:
            return word != "false"
        case ArgumentKind.INTEGER if _INTEGER.fullmatch(word):
            return int(word)
        case ArgumentKind.NUMBER if _NUMBER.fullmatch(word):
            return float(word) if "." in word else int(word)
        case _:
            wanted = {ArgumentKind.FLAG: "true or false", ArgumentKind.OBJECT: "JSON: write it as key:=json"}
            what = wanted.get(
                taken.kind, f"an {taken.kind}" if taken.kind is ArgumentKind.INTEGER else f"a {taken.kind}"
            )
            raise RequestError("bad-args", f"{name} must be {what}, not {word[:64]!r}", field=name)

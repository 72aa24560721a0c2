"""Declaring and reading the arguments of commands: attrs classes whose fields say what they take.

Reading is strict. JSON values are taken as they are (`"5"` is no integer, `true` no number); the
text of word commands is converted by the field's kind and nothing else.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from scattersphere._text import did_you_mean
from scattersphere.remote.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_LIMIT = 4_096
"""Characters of a text argument: names, reasons, tokens."""
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)

A = TypeVar("A")


class Kind(StrEnum):
    """What a field takes, in the words of JSON Schema where it has one."""

    TEXT = "string"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "boolean"
    OBJECT = "object"
    WORDS = "array"
    DEFINITION = "definition"


@attrs.frozen
class Definition:
    """A job definition in its own characters; `column` is where it began in the line, from 1."""

    text: str
    column: int


@attrs.frozen(kw_only=True)
class Argument:
    """What a field of an argument class takes."""

    kind: Kind
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def argument(
    kind: Kind,
    help_: str,
    *,
    default: Any = attrs.NOTHING,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare a field. Without a default it is required; a secret one is in no `repr`."""
    taken = Argument(kind=kind, help=help_, low=low, high=high, choices=choices)
    return attrs.field(default=default, repr=not secret, metadata={"argument": taken})


_DECLARED: dict[type[Any], dict[str, tuple[Argument, bool]]] = {}
"""What was found of each class of the table of commands: every request asks for it."""


def declared(cls: type[Any]) -> dict[str, tuple[Argument, bool]]:
    """Return the arguments of a class by name, in order, and whether each is required."""
    found = _DECLARED.get(cls)
    if found is None:
        found = _DECLARED[cls] = {
            field.name: (field.metadata["argument"], field.default is attrs.NOTHING)
            for field in attrs.fields(cls)
        }
    return found


def read(cls: type[A], values: Mapping[str, Any]) -> A:
    """Make an instance from JSON values. Raises `RequestError` (`bad-args`) naming the field."""
    arguments = declared(cls)
    if not values and not arguments:
        return cls()
    if not values.keys() <= arguments.keys():
        name = next(name for name in values if name not in arguments)
        raise RequestError("bad-args", _unknown(name, arguments), field=name[:64])
    for name, (taken, required) in arguments.items():
        if name in values:
            if fault := _fault(taken, values[name]):
                raise RequestError("bad-args", f"{name} {fault}", field=name)
        elif required:
            raise RequestError("bad-args", f"{name} is missing: {taken.help}", field=name)
    return cls(**values)


def _unknown(name: str, arguments: Mapping[str, Any]) -> str:
    if not arguments:
        return f"no argument {name[:64]!r}; the command takes none"
    hint = did_you_mean(name, arguments, quote="'") or f"; it takes {', '.join(arguments)}"
    return f"no argument {name[:64]!r}{hint}"


def _fault(taken: Argument, value: Any) -> str:
    """Return what is wrong with a JSON value, or ""."""
    return _CHECKS[taken.kind](taken, value)


def _text(taken: Argument, value: Any) -> str:
    if not isinstance(value, str):
        return "must be a string"
    if len(value) > TEXT_LIMIT:
        return f"may have {TEXT_LIMIT} characters"
    if taken.choices and value not in taken.choices:
        return f"must be one of {', '.join(taken.choices)}"
    return ""


def _integer(taken: Argument, value: Any) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        return "must be an integer"
    return _range(taken, value)


def _number(taken: Argument, value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "must be a number"
    return _range(taken, value)


def _range(taken: Argument, value: float) -> str:
    if taken.low is not None and value < taken.low:
        return f"must be at least {taken.low:g}"
    if taken.high is not None and value > taken.high:
        return f"must be at most {taken.high:g}"
    return ""


def _flag(_: Argument, value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _object(_: Argument, value: Any) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _words(taken: Argument, value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return "must be a list of strings"
    unknown = [word for word in value if taken.choices and word not in taken.choices]
    if unknown:
        return f"may hold {', '.join(taken.choices)}, not {unknown[0][:64]!r}"
    return ""


def _definition(_: Argument, value: Any) -> str:
    return "" if isinstance(value, Definition) else "must be an object: a job definition"


_CHECKS = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.FLAG: _flag,
    Kind.OBJECT: _object,
    Kind.WORDS: _words,
    Kind.DEFINITION: _definition,
}


def from_word(name: str, taken: Argument, word: str) -> Any:
    """Convert the text of a word command. Raises `RequestError` (`bad-args`) naming the field."""
    match taken.kind:
        case Kind.TEXT:
            return word
        case Kind.WORDS:
            return [part for part in word.split(",") if part]
        case Kind.FLAG if word in {"true", "false", name}:
            return word != "false"
        case Kind.INTEGER if _INTEGER.fullmatch(word):
            return int(word)
        case Kind.NUMBER if _NUMBER.fullmatch(word):
            return float(word) if "." in word else int(word)
        case _:
            wanted = {Kind.FLAG: "true or false", Kind.OBJECT: "JSON: write it as key:=json"}
            what = wanted.get(taken.kind, f"a {taken.kind}")
            raise RequestError("bad-args", f"{name} must be {what}, not {word[:64]!r}", field=name)

"""JSON forms of fields: how each kind is read and written, its JSON Schema, and its problems in words.

All are strict: 5 is no "5", true is no 1. Those that need a class (`Record`, `Records`) are in `fields.py`.
"""

from __future__ import annotations

import abc
import math
import re
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import attrs

from scattersphere._json_words import MOST_PROBLEMS, JsonObject, RawProblem, describe
from scattersphere._text import nearest

NAME_CHARACTERS: Final = 128
"""The longest name."""
NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_CHARACTERS - 1}}}")
"""What a job or a task may be called. Use `fullmatch`: `$` would let a newline through."""
# Python's `$` lets a newline through, and that of JavaScript does not; this is the same for both.
NAME_SCHEMA: Final = rf"{NAME.pattern}$(?!\n)"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
COMMENT: Final = "//"
"""The key of a comment."""
MOST: Final = 1_000_000_000
"""The largest number that a field takes: seconds of 31 years. What is counted and timed with it never overflows."""


class WrongValueError(ValueError):
    """A value is not what it should be; the message is for people."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        self.suggestion = suggestion
        super().__init__(message)


class WrongPartsError(ValueError):
    """Parts of a value are not what they should be: problems whose paths begin inside it."""

    def __init__(self, problems: list[RawProblem]) -> None:
        self.problems = problems
        super().__init__(problems)


class JsonType(abc.ABC):
    """What JSON a field takes: how it is written, and what editors and people are told of it."""

    words: str
    """For the reference: `a whole number, at least 1`."""
    holds_names: bool = False
    """Whether it is an object whose keys are names of the user's: a comment may stand among them."""

    @abc.abstractmethod
    def schema(self) -> JsonObject:
        """Return the JSON Schema of what is taken."""

    def write(self, value: object) -> object:
        """Return the JSON value of a Python value; a wrong one as it is, for the checks to find."""
        return value


class Simple(JsonType):
    """What is read without knowing of classes; `Record` and `Records` are read by the converter."""

    @abc.abstractmethod
    def read(self, value: object, _: object = None) -> object:
        """Return the Python value of a JSON value. Raises `WrongValueError`, `WrongPartsError`."""


def require_object(value: object) -> dict[str, object]:
    """Return a JSON object. Raises `WrongValueError` for anything else."""
    if type(value) is not dict:
        raise WrongValueError(f"must be an object, not {describe(value)}")
    return value


@attrs.frozen
class Text(Simple):
    """A string. `least` characters of it at least."""

    least: int = 0
    words: str = "a string"

    def read(self, value: object, _: object = None) -> str:
        if type(value) is not str:
            raise WrongValueError(f"must be {self.words}, not {describe(value)}")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "string", **({"minLength": self.least} if self.least else {})}


@attrs.frozen
class Variable(Simple):
    """The name of an environment variable."""

    words: str = "the name of an environment variable"

    def read(self, value: object, _: object = None) -> str:
        if type(value) is not str:
            raise WrongValueError(f"must be a string, not {describe(value)}")
        if not _VARIABLE.fullmatch(value):
            raise WrongValueError(f"must be {self.words} (letters, digits and _), not {describe(value)}")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": rf"^{_VARIABLE.pattern}$(?!\n)"}


@attrs.frozen
class Name(Text):
    """The name of a job; that it is one is checked with the references, in the words of all names."""

    words: str = "letters, digits, `_`, `.`, `-`; at most 128"

    def read(self, value: object, _: object = None) -> str:
        return Text().read(value)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": f"^{NAME_SCHEMA}"}


@attrs.frozen
class Flag(Simple):
    """True or false."""

    words: str = "true or false"

    def read(self, value: object, _: object = None) -> bool:
        if type(value) is not bool:
            raise WrongValueError(f"must be true or false, not {describe(value)}")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "boolean"}


@attrs.frozen
class Number(Simple):
    """A number from `least` to `most`, perhaps a `whole` one; where it is `above`, `least` itself is refused.

    An int stays an int where a float may stand, so that a file is saved as it was written.
    """

    least: float = -MOST
    most: float = MOST
    whole: bool = False
    above: bool = False
    unit: str = ""

    def read(self, value: Any, _: object = None) -> float:
        kind = type(value)
        if kind is not int and (self.whole or kind is not float):
            noun = "a whole number" if self.whole else "a number"
            raise WrongValueError(f"must be {noun}, not {describe(value)}")
        if not self.least <= value <= self.most or (self.above and value == self.least):
            raise WrongValueError(self._out_of_bounds(value))
        number: float = value
        return number

    def _out_of_bounds(self, value: float) -> str:
        shown = describe(value).removeprefix("the number ")
        unit = f" {self.unit}" if self.unit else ""
        if not value < math.inf or value > self.most:
            return f"must be at most {self.most:,}{unit}, not {shown}"
        if self.above:
            return f"must be more than {self.least:,}{unit}, not {shown}"
        if not self.least:
            return f"must not be negative, but is {shown}"
        return f"must be at least {self.least:,}{unit}, not {shown}"

    @property
    def words(self) -> str:  # type: ignore[override]
        noun = self.unit or ("a whole number" if self.whole else "a number")
        if self.least == -MOST:
            return noun
        return f"{noun}, {'more than' if self.above else 'at least'} {self.least:,}"

    def schema(self) -> dict[str, object]:
        return {
            "type": "integer" if self.whole else "number",
            "exclusiveMinimum" if self.above else "minimum": self.least,
            "maximum": self.most,
        }


def is_written_as_it_is(form: JsonType) -> bool:
    """Whether the JSON value of a Python value is that value."""
    if isinstance(form, OrNull):
        return is_written_as_it_is(form.of)
    return type(form).write is JsonType.write


@attrs.frozen
class OrNull(Simple):
    """What `of` takes, or null for nothing at all."""

    of: Simple

    def read(self, value: object, _: object = None) -> object:
        return None if value is None else self.of.read(value)

    def write(self, value: object) -> object:
        return None if value is None else self.of.write(value)

    @property
    def words(self) -> str:  # type: ignore[override]
        return self.of.words

    @property
    def holds_names(self) -> bool:  # type: ignore[override]
        return self.of.holds_names

    def schema(self) -> dict[str, object]:
        schema = self.of.schema()
        if "enum" in schema:
            return {**schema, "enum": [None, *schema["enum"]]}
        return {**schema, "type": [schema["type"], "null"]}


@attrs.frozen
class OneOf(Simple):
    """A member of an enumeration, by its value."""

    kind: type[StrEnum]

    def read(self, value: object, _: object = None) -> StrEnum:
        names = [member.value for member in self.kind]
        if type(value) is not str or value not in names:
            near = nearest(value, names) if type(value) is str else None
            raise WrongValueError(f"must be one of {', '.join(names)}, not {describe(value)}", near)
        return self.kind(value)

    def write(self, value: object) -> object:
        return str(value) if isinstance(value, self.kind) else value

    @property
    def words(self) -> str:  # type: ignore[override]
        return " | ".join(f'"{member.value}"' for member in self.kind)

    def schema(self) -> dict[str, object]:
        return {"enum": [member.value for member in self.kind]}


@attrs.frozen
class TypeName(Simple):
    """The name of a JSON type, which a parameter of a run must have."""

    names: tuple[str, ...]

    def read(self, value: object, _: object = None) -> str:
        if type(value) is not str:
            raise WrongValueError(f"must be a string, not {describe(value)}")
        if value not in self.names:
            raise WrongValueError(f"must be one of {', '.join(self.names)}", nearest(value, self.names))
        return value

    @property
    def words(self) -> str:  # type: ignore[override]
        return " | ".join(f'"{name}"' for name in self.names)

    def schema(self) -> dict[str, object]:
        return {"enum": list(self.names)}


_TEXT = frozenset({str})


@attrs.frozen
class Names(Simple):
    """A list of strings, a tuple in Python."""

    noun: str = "name"
    unique: bool = False

    def read(self, value: object, _: object = None) -> tuple[str, ...]:
        if type(value) is not list:
            hint = f"; write [{describe(value).removeprefix('the string ')}]" if type(value) is str else ""
            raise WrongValueError(f"must be a list of {self.noun}s, not {describe(value)}{hint}")
        if not _TEXT.issuperset(map(type, value)):
            raise WrongPartsError(
                list(
                    islice(
                        (
                            RawProblem((index,), f"must be a {self.noun} in quotes, not {describe(item)}")
                            for index, item in enumerate(value)
                            if type(item) is not str
                        ),
                        MOST_PROBLEMS,
                    )
                )
            )
        return tuple(value)

    def write(self, value: object) -> object:
        return list(value) if type(value) is tuple else value

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"a list of {self.noun}s"

    def schema(self) -> dict[str, object]:
        return {
            "type": "array",
            "items": {"type": "string"},
            **({"uniqueItems": True} if self.unique else {}),
        }


@attrs.frozen
class Paths(Simple):
    """An object whose values are strings, such as the paths of bundles by their names."""

    words: str = "an object of paths"

    holds_names = True

    def read(self, value: Any, _: object = None) -> dict[str, str]:
        require_object(value)
        parts = [
            RawProblem((name,), f"must be a path in quotes, not {describe(item)}")
            for name, item in value.items()
            if type(item) is not str
        ]
        if parts:
            raise WrongPartsError(parts)
        found: dict[str, str] = value
        return found

    def write(self, value: object) -> object:
        return dict(value) if isinstance(value, dict) else value

    def schema(self) -> dict[str, object]:
        return {
            "type": "object",
            "properties": {COMMENT: COMMENT_SCHEMA},
            "additionalProperties": {"type": "string"},
        }


VALUE_SCHEMA: Final[JsonObject] = {"$ref": "#/$defs/value"}
REFERENCE_SCHEMA: Final[JsonObject] = {"$ref": "#/$defs/reference"}
COMMENT_SCHEMA: Final[JsonObject] = {"description": "A comment."}
NO_REFERENCE_SCHEMA: Final[JsonObject] = {"pattern": r"^(?!\$)"}
"""Of the keys of an object: it is no reference."""
_NAMED_VALUES: Final[JsonObject] = {
    "type": "object",
    "propertyNames": NO_REFERENCE_SCHEMA,
    "properties": {COMMENT: COMMENT_SCHEMA},
}


def reference_schema(literal: object, default: object) -> dict[str, object]:
    """Return the schema of a reference whose value must be of some form, as far as it stands in the file."""
    text = {"type": "string"}
    param = {"$param": {**text, "description": "The name of a run parameter."}}
    result = {
        "$result": {**text, "description": "The name of a task, whose result it is."},
        "pointer": {
            **text,
            "pattern": r"^(/([^/~]|~[01])*)*$(?!\n)",
            "description": "RFC 6901: a part of the result, such as /0/name.",
        },
        "default": default,
    }
    return {
        "type": "object",
        "anyOf": [
            {"additionalProperties": False, "required": [key], "properties": properties}
            for key, properties in (
                ("$param", param),
                ("$result", result),
                ("$literal", {"$literal": literal}),
            )
        ],
    }


def _or_reference(form: dict[str, object]) -> dict[str, object]:
    return {"anyOf": [form, reference_schema(form, {"anyOf": [form, REFERENCE_SCHEMA]})]}


@attrs.frozen
class Anything(Simple):
    """Any JSON. It belongs to the user, and is kept as it is."""

    words: str = "any JSON"

    def read(self, value: object, _: object = None) -> object:
        return value

    def schema(self) -> dict[str, object]:
        return {}


@attrs.frozen
class Condition(Simple):
    """True, false, or a reference to one; what it refers to is checked with the references."""

    words: str = "true, false or a reference"

    def read(self, value: object, _: object = None) -> object:
        return value

    def schema(self) -> dict[str, object]:
        return _or_reference({"type": "boolean"})


@attrs.frozen
class Object(Simple):
    """A JSON object with any keys; who uses the field checks what they may be."""

    words: str = "an object"

    def read(self, value: object, _: object = None) -> dict[str, object]:
        return require_object(value)

    def schema(self) -> dict[str, object]:
        return {"type": "object"}


@attrs.frozen
class Arguments(Object):
    """An object of arguments by name, with references at any depth."""

    words: str = "an object; references may stand at any depth"

    holds_names = True

    def schema(self) -> dict[str, object]:
        return {
            **_NAMED_VALUES,
            "additionalProperties": VALUE_SCHEMA,
        }


@attrs.frozen
class Lists(Object):
    """An object of lists, or references to lists, by the names of arguments."""

    words: str = "an object of lists, or references to lists"

    holds_names = True

    def schema(self) -> dict[str, object]:
        return {
            **_NAMED_VALUES,
            "additionalProperties": _or_reference({"type": "array", "items": VALUE_SCHEMA}),
            # One argument at least; a comment is none.
            "if": {"required": [COMMENT]},
            "then": {"minProperties": 2},
            "else": {"minProperties": 1},
        }

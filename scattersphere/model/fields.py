"""The fields of the definition file: what JSON each takes, what it means, since which format it exists.

Each attribute of a class of definitions says so in its attrs metadata, once. The reader, the writer, the JSON
Schema and the tables of the reference are made from these rows; `rows` raises where one is missing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from scattersphere._turns import EACH
from scattersphere.model.forms import (
    COMMENT,
    COMMENT_SCHEMA,
    NAME_SCHEMA,
    Anything,
    JsonType,
    is_written_as_it_is,
)

if TYPE_CHECKING:
    from scattersphere._json_words import JsonObject, Path

_ROW: Final = "scattersphere.field"
_PYTHON_ONLY: Final = "scattersphere.python-only"
_MISSING = attrs.NOTHING


class Comment(enum.Enum):
    """What stands for a comment that is not there; `null` is one that is."""

    NONE = "none"

    def __repr__(self) -> str:
        return "NO_COMMENT"


NO_COMMENT: Final = Comment.NONE


@attrs.frozen
class Row:
    """One field of a class of definitions: a row of all tables that are made."""

    name: str
    """The attribute."""
    key: str
    """What it is called in the file."""
    json: JsonType
    help: str
    default: object
    since: int
    shapes_plan: bool
    written_as_it_is: bool
    """Whether its JSON value is the Python value: that of most fields is."""

    @property
    def required(self) -> bool:
        """Whether the file must give it."""
        return self.default is _MISSING

    def is_default(self, value: object) -> bool:
        """Whether a value need not be written. By type too: `run_if: 1` must not be taken for true."""
        default = self.default
        return value is default or (
            (type(value) is type(default) or isinstance(default, dict)) and value == default
        )


def says(
    json: JsonType,
    help: str,  # noqa: A002 - the word that every table of options has for it
    *,
    key: str | None = None,
    since: int = 1,
    shapes_plan: bool = False,
) -> dict[str, object]:
    """Return the metadata of a field of the definition file.

    `key` is its name there if Python cannot use it. `since` is the first `format` that has it. `shapes_plan` says
    that the engine's plan of a task depends on it.
    """
    return {_ROW: (json, help, key, since, shapes_plan)}


def python_only(why: str) -> dict[str, object]:
    """Return the metadata of an attribute that is no key of the file."""
    return {_PYTHON_ONLY: why}


@cache
def rows(cls: type) -> Mapping[str, Row]:
    """Return the fields of a class by their keys in the file. Raises `TypeError` for an attribute that says nothing."""
    found: dict[str, Row] = {}
    for field in attrs.fields(cls):
        if _PYTHON_ONLY in field.metadata:
            continue
        if _ROW not in field.metadata:
            raise TypeError(
                f"{cls.__name__}.{field.name} does not say what JSON it takes: add metadata=says(..) or python_only(..)"
            )
        json, words, key, since, shapes_plan = field.metadata[_ROW]
        default: Any = field.default
        if getattr(default, "factory", None) is not None:
            default = default.factory()
        key = key or field.name
        found[key] = Row(field.name, key, json, words, default, since, shapes_plan, is_written_as_it_is(json))
    return found


COMMENT_ROW: Final = says(Anything(), "A comment; it survives a save.", key=COMMENT)

# ---- objects with fields of their own


@attrs.frozen
class Record(JsonType):
    """An object that has the fields of a class."""

    cls: type

    def write(self, value: object) -> object:
        return write_record(value, self.cls) if isinstance(value, self.cls) else value

    @property
    def words(self) -> str:  # type: ignore[override]
        return "an object: " + ", ".join(f"`{key}`" for key in rows(self.cls) if key != COMMENT)

    def schema(self) -> dict[str, object]:
        return record_schema(self.cls)


@attrs.frozen
class Records(JsonType):
    """An object of such objects by name. With `plain`, what is no object there is a plain value of its own."""

    cls: type
    noun: str
    plain: bool = False
    named: bool = False
    """Whether the names are those of jobs and tasks."""
    most: int | None = None

    holds_names = True

    def write(self, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        write = Record(self.cls).write
        return {name: write(item) for name, item in EACH.get()(value.items())}

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"an object of {self.noun}"

    def schema(self) -> dict[str, object]:
        item = record_schema(self.cls)
        schema: dict[str, object] = {"type": "object", "properties": {COMMENT: COMMENT_SCHEMA}}
        if self.named:
            schema["propertyNames"] = {"pattern": f"^({COMMENT}$|{NAME_SCHEMA})"}
        if self.most is not None:
            schema["maxProperties"] = self.most
        return {
            **schema,
            "additionalProperties": {"if": {"type": "object"}, "then": item} if self.plain else item,
        }


def write_record(item: object, cls: type) -> JsonObject:
    """Return the JSON object of an instance: what differs from the defaults."""
    found: dict[str, object] = {}
    for row in rows(cls).values():
        content = getattr(item, row.name)
        if content is row.default or row.is_default(content):
            continue
        if row.written_as_it_is:
            found[row.key] = content
        elif (written := row.json.write(content)) != {} or not isinstance(row.json, Record):
            found[row.key] = written
    return found


FORMAT: Final = 2
"""The newest format of the definition file: what `says(since=..)` counts up to."""


def newer_keys(value: object, cls: type, form: int, path: Path = ()) -> Iterator[tuple[Path, Row]]:
    """Yield the keys in the JSON object of a class, and inside it, that format `form` does not have yet."""
    if type(value) is not dict:
        return
    for row in newer_rows(cls, form):
        if row.key not in value:
            continue
        here, inside = (*path, row.key), value[row.key]
        if row.since > form:
            yield here, row
        elif isinstance(row.json, Record):
            yield from newer_keys(inside, row.json.cls, form, here)
        elif isinstance(row.json, Records) and type(inside) is dict:
            for name, item in EACH.get()(inside.items()):
                yield from newer_keys(item, row.json.cls, form, (*here, name))


@cache
def newer_rows(cls: type, form: int) -> Sequence[Row]:
    """Return the rows of a class that are newer than a format, or may have something newer inside them."""
    return [
        row
        for row in rows(cls).values()
        if row.since > form
        or (isinstance(row.json, Record | Records) and len(newer_rows(row.json.cls, form)) > 0)
    ]


def format_of(value: object, cls: type) -> int:
    """Return the first format that has all that the JSON object of a class holds."""
    return next(
        form
        for form in range(1, FORMAT + 1)
        if form == FORMAT or next(newer_keys(value, cls, form), None) is None
    )


def record_schema(cls: type) -> JsonObject:
    """Return the JSON Schema of an object that has the fields of a class."""
    known = rows(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [row.key for row in known.values() if row.required],
        "properties": {row.key: {**row.json.schema(), "description": row.help} for row in known.values()},
    }

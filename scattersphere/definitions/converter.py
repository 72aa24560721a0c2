"""The cattrs converter of definitions, made from the rows of their fields; and what it raises, as problems.

cattrs does the work between classes and JSON objects: keys that are missing or unknown, names that differ, what is
inside what. What stands in a field is read by the field's own form (`model/fields.py`), strictly: cattrs' habits of
being helpful (`"5"` -> 5, `true` -> 1, `"abc"` -> ["a", "b", "c"]) are never asked for.

By hand is what cattrs has no word for: strictness by JSON type (the forms); *all* problems with their paths and nearest
names, and the reading of what is left without them (`read_record`); comments under "//", which stand between names of
tasks (`load.py`); plain defaults beside long forms, in one object (`_read_records`); which format has which field
(`model/fields.py`); writing without what is the default, in the order of the file (`dump.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from cattrs import Converter
from cattrs.errors import AttributeValidationNote, BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from scattersphere._json_words import MOST_PROBLEMS, Path, RawProblem, quote
from scattersphere._text import Suggester
from scattersphere._turns import EACH
from scattersphere.model.definition import JobDefinition
from scattersphere.model.fields import FORMAT, Record, Records, newer_keys, rows
from scattersphere.model.forms import Simple, WrongPartsError, WrongValueError, require_object

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from scattersphere.model.fields import Row
    from scattersphere.model.forms import JsonType

UNREAD = "\0"
"""Stands for a name that could not be read and was told of already; no name looks like that."""

COMMON_SLIPS = {
    "after": "depends_on",
    "dependencies": "depends_on",
    "requires": "depends_on",
    "upstream": "depends_on",
    "class": "task",
    "type": "task",
    "uses": "task",
    "with": "args",
    "arguments": "args",
    "parameters": "params",
    "inputs": "params",
    "variables": "params",
    "retries": "retry",
    "attempts": "max_attempts",
    "time_limit": "timeout",
    "if": "run_if",
    "when": "run_if",
    "always": "finally",
    "foreach": "map",
    "for_each": "map",
    "matrix": "map",
    "concurrency": "max_parallel",
    "parallel": "max_parallel",
    "jobs": "tasks",
    "steps": "tasks",
    "nodes": "tasks",
    "executor": "backend",
    "resources": "needs",
    "schedule": "schedules",
    "cron": "schedules",
    "title": "name",
    "comment": "//",
}
"""What other engines call our keys."""


def read_record(
    value: Mapping[str, object], cls: type, form: int, needed: Mapping[str, str]
) -> tuple[Any, list[RawProblem]]:
    """Make an instance of a JSON object; where something is wrong with it, of what is left without that.

    So a task with a mistyped key still tells that it waits for a task that is not there. `form` is the format that
    the text says; `needed` stands in for the fields that must be given.
    """
    if len(value) <= MOST_PROBLEMS:
        try:
            return _READERS[form][cls](value), []
        except Exception:  # noqa: BLE001,S110 - whatever it is, the others say exactly what and where
            pass
    else:  # most of its keys are unknown: some of them are enough
        value = {key: value[key] for key in (*islice(value, MOST_PROBLEMS), *needed) if key in value}
    read = _exact_readers()[cls]
    problems = [_too_new(path, row, form) for path, row in newer_keys(value, cls, form)]
    rest = value
    for turn in range(3):
        try:
            return read(rest), problems
        except Exception as error:  # noqa: BLE001 - a group of what the forms raised; `problems_of` sorts it
            found = problems_of(error)
        problems += [problem for problem in found if not turn or problem.message != MISSING]
        if len(problems) >= MOST_PROBLEMS:
            break
        # First without the very parts, then without the fields that hold them.
        rest = {**needed, **_without(rest, [problem.path[: None if not turn else 1] for problem in found])}
    return cls(**needed), problems


MISSING = "is missing"


def _too_new(path: Path, row: Row, form: int) -> RawProblem:
    words = f'exists since format {row.since}, and this file says {form}: write "format": {row.since}'
    return RawProblem(path, words)


def _without(value: Mapping[str, object], paths: Collection[Path]) -> dict[str, object]:
    """Return a copy of `value` without what stands at `paths`."""
    left, own = dict(value), set[Path]()
    for path in paths:
        holder: Any = left
        for length, step in enumerate(path[:-1], 1):
            if path[:length] not in own:
                own.add(path[:length])
                inner = holder[step]
                holder[step] = dict(inner) if type(inner) is dict else list(inner)
            holder = holder[step]
        if isinstance(holder, list):
            index: Any = path[-1]
            holder[index] = UNREAD  # the indexes of the others stay what they are
        elif path:
            holder.pop(path[-1], None)
    return left


def problems_of(error: BaseException, path: Path = ()) -> list[RawProblem]:
    """Turn what cattrs raised about a value at `path` into problems."""
    if isinstance(error, WrongPartsError):
        return [attrs.evolve(problem, path=(*path, *problem.path)) for problem in error.problems]
    if isinstance(error, WrongValueError):
        return [RawProblem(path, str(error), error.suggestion)]
    if isinstance(error, KeyError):  # a required key is not there
        return [RawProblem(path, MISSING)]
    if not isinstance(error, BaseValidationError):
        return [RawProblem(path, "has the wrong form")]
    found: list[RawProblem] = []
    for child in error.exceptions:
        if isinstance(child, ForbiddenExtraKeysError):
            found += _unknown_keys(child, path)
            continue
        found += problems_of(child, (*path, *_step(child, error.cl)))
    return found


def _step(error: BaseException, cls: type) -> Path:
    """Return the key of the attribute that cattrs noted on an exception."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (next(row.key for row in rows(cls).values() if row.name == note.name),)
    return ()


def _unknown_keys(error: ForbiddenExtraKeysError, path: Path) -> list[RawProblem]:
    names = rows(error.cl).keys()
    slips = {word: meant for word, meant in COMMON_SLIPS.items() if meant in names}
    # A mistyped slip is found too: "afetr" is near "after", which means "depends_on".
    suggester = Suggester(sorted(names | slips.keys()))
    problems = []
    for key in sorted(error.extra_fields):
        near = slips.get(key.lower()) or suggester.nearest(key)
        near = slips.get(near, near) if near else None
        problems.append(RawProblem((*path, key), "unknown key" if key else f"unknown key {quote(key)}", near))
    return problems


# ---- the converter


_Reader = Callable[..., object]


def _make_readers(form: int, *, exact: bool = False) -> Mapping[type, _Reader]:
    """Return what reads the JSON objects of each class, as format `form` has them. cattrs writes the code.

    Only `exact` ones say where something is wrong, and find all of it; the others are faster.
    """
    converter = Converter(forbid_extra_keys=True, detailed_validation=exact)
    readers = dict[type, _Reader]()

    def teach(cls: type) -> _Reader:
        overrides = {field.name: override(omit=True) for field in attrs.fields(cls)}
        for row in rows(cls).values():
            if row.since <= form:
                overrides[row.name] = override(rename=row.key, struct_hook=hook(row.json))
        structure: Any = make_dict_structure_fn(cls, converter, **overrides)  # type: ignore[arg-type]
        readers[cls] = structure
        return readers[cls]

    def hook(of: JsonType) -> _Reader:
        if isinstance(of, Record):
            return partial(_read_object, teach(of.cls))
        if isinstance(of, Records):
            return partial(_read_records, of, teach(of.cls))
        assert isinstance(of, Simple)  # noqa: S101 - there is no other
        return of.read

    teach(JobDefinition)
    return readers


def _read_object(read: _Reader, value: object, _: object) -> object:
    return read(require_object(value))


def _read_records(form: Records, read: _Reader, value: object, _: object) -> dict[str, object]:
    """Read an object of objects by name. Raises `WrongPartsError` with all problems of all of them."""
    found: dict[str, object] = {}
    problems: list[RawProblem] = []
    for name, item in EACH.get()(require_object(value).items()):
        if form.plain and type(item) is not dict:
            found[name] = item
            continue
        try:
            found[name] = read(require_object(item))
        except Exception as error:  # noqa: BLE001 - as above
            problems += problems_of(error, (name,))
            if len(problems) >= MOST_PROBLEMS:
                break
    if problems:
        raise WrongPartsError(problems)
    return found


@cache
def _exact_readers() -> Mapping[type, _Reader]:
    """Return those that read the newest format, and say where something is wrong: what is too new is found besides."""
    return _make_readers(FORMAT, exact=True)


_READERS = {form: _make_readers(form) for form in range(1, FORMAT + 1)}

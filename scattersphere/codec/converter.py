"""A cattrs converter without mercy: no coercion, no unknown keys, every fault with its path.

cattrs does the work between classes and JSON; its habits of being helpful (`"5"` -> 5, `true` -> 1,
`"abc"` -> ["a", "b", "c"]) are switched off here, and its exceptions become `Fault`s.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import attrs
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

from scattersphere._text import Suggester
from scattersphere.codec.faults import Fault, Path, describe, quote

if TYPE_CHECKING:
    from collections.abc import Callable


class WrongValueError(ValueError):
    """A value is not what it should be; the message is for people."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        self.suggestion = suggestion
        super().__init__(message)


class WrongPartsError(ValueError):
    """Parts of a value are not what they should be: faults whose paths begin inside it."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__(faults)


def make_converter(*, detailed: bool) -> Converter:
    """Return a converter with strict primitives. `definition.py` teaches it the classes.

    Only a `detailed` one says where something is wrong; the other is faster.
    """
    converter = Converter(forbid_extra_keys=True, detailed_validation=detailed)
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    converter.register_structure_hook_func(_is_str_enum, structure_enum)
    return converter


def _exactly(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise WrongValueError(f"must be {words}, not {describe(value)}")
        return value

    return hook


def _number(value: Any, _: Any) -> float | int:
    # An int is kept as an int, so that a file is saved as it was written.
    if type(value) not in (int, float):
        raise WrongValueError(f"must be a number, not {describe(value)}")
    number: float | int = value
    return number


def _is_str_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def structure_enum(value: Any, kind: type[StrEnum]) -> StrEnum:
    """Return the member that `value` names."""
    names = [member.value for member in kind]
    if value not in names or type(value) is not str:
        near = Suggester(names).nearest(value) if type(value) is str else None
        raise WrongValueError(f"must be one of {', '.join(names)}, not {describe(value)}", near)
    return kind(value)


def faults_of(error: BaseException, path: Path, renames: dict[str, str]) -> list[Fault]:
    """Turn what cattrs raised into faults. `renames` maps attributes to their keys in JSON."""
    if isinstance(error, WrongPartsError):
        return [attrs.evolve(fault, path=(*path, *fault.path)) for fault in error.faults]
    if not isinstance(error, BaseValidationError):
        return [_fault(error, path)]
    found: list[Fault] = []
    for child in error.exceptions:
        if isinstance(child, ForbiddenExtraKeysError):
            found += _unknown_keys(child, path, renames)
            continue
        found += faults_of(child, (*path, *_steps(child, renames)), renames)
    return found


def _steps(error: BaseException, renames: dict[str, str]) -> Path:
    """Return the key or index that cattrs noted on an exception."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (renames.get(note.name, note.name),)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _fault(error: BaseException, path: Path) -> Fault:
    if isinstance(error, WrongValueError):
        return Fault(path, str(error), error.suggestion)
    if isinstance(error, KeyError):  # a required key is not there
        return Fault(path, "is missing")
    return Fault(path, "has the wrong form")


NOT_IN_FILES = frozenset({"origin", "comments"})
"""Attributes that are no keys of the file."""

COMMON_SLIPS = {
    "after": "depends_on",
    "needs": "depends_on",
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
    "executor": "backend",
    "title": "name",
    "comment": "//",
}
"""What other engines call our keys."""


def _unknown_keys(error: ForbiddenExtraKeysError, path: Path, renames: dict[str, str]) -> list[Fault]:
    names = {str(renames.get(field.name, field.name)) for field in attrs.fields(error.cl)} - NOT_IN_FILES
    slips = {word: meant for word, meant in COMMON_SLIPS.items() if meant in names}
    # A mistyped slip is found too: "afetr" is near "after", which means "depends_on".
    suggester = Suggester(sorted(names | slips.keys()))
    faults = []
    for key in sorted(error.extra_fields):
        near = slips.get(key.lower()) or suggester.nearest(key)
        near = slips.get(near, near) if near else None
        faults.append(Fault((*path, key), "unknown key" if key else f"unknown key {quote(key)}", near))
    return faults

"""Definitions to JSON: key order kept, defaults omitted, a newline at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec.collecting import collection_paused
from scattersphere.model.definition import JobDefinition, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.frozen import FrozenDict
from scattersphere.model.states import Overlap, TriggerRule

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
SCHEMA_KEY = "$schema"
SCHEMA_NAME = "job-definition.schema.json"
COMMENT = "//"
RENAMES = {"comment": COMMENT, "finally_": "finally"}
"""Attributes that Python cannot call as JSON does."""

_Field = tuple[str, str, Any]
"""An attribute, its key in JSON, its default."""
_EMPTY: dict[str, Any] = {}
JOB_COMMENTS = ("params", "bundles", "tasks")
TASK_COMMENTS = ("args", "map")
"""The objects inside a job and a task that hold comments of their own."""


def _fields(cls: type, leave: tuple[str, ...]) -> tuple[_Field, ...]:
    found = []
    for field in attrs.fields(cls):
        if field.name not in leave:
            default: Any = field.default
            if getattr(default, "factory", None) is not None:
                default = _EMPTY
            found.append((field.name, str(RENAMES.get(field.name, field.name)), default))
    return tuple(found)


_FIELDS: Mapping[type, tuple[_Field, ...]] = {
    JobDefinition: _fields(JobDefinition, ("name", "tasks", "origin", "params", "comments")),
    TaskDefinition: _fields(TaskDefinition, ("comments", "retry")),
    RetryPolicy: _fields(RetryPolicy, ()),
    Parameter: _fields(Parameter, ()),
}


def to_value(definition: JobDefinition) -> dict[str, Any]:
    """Return the JSON value of a definition.

    Of one with wrong Python values (a list of tasks, a set among the arguments) these are kept as they
    are, for the checks to find.
    """
    value: dict[str, Any] = {SCHEMA_KEY: SCHEMA_NAME, "format": FORMAT, "name": definition.name}
    value |= _written(definition, JobDefinition)
    if definition.params != {}:
        value["params"] = _each(definition.params, _parameter_value)
    value["tasks"] = _each(definition.tasks, _task_value)
    return _with_comments(value, definition.comments, JOB_COMMENTS)


def _each(items: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(items, Mapping):
        return items
    return {name: convert(item) for name, item in items.items()}


def _parameter_value(item: Any) -> Any:
    return _written(item, Parameter) if isinstance(item, Parameter) else item


def _task_value(task: Any) -> Any:
    if not isinstance(task, TaskDefinition):
        return task
    value = _written(task, TaskDefinition)
    retry = _written(task.retry, RetryPolicy) if isinstance(task.retry, RetryPolicy) else task.retry
    if retry != _EMPTY:
        value["retry"] = retry
    return _with_comments(value, task.comments, TASK_COMMENTS) if task.comments else value


def _written(item: Any, cls: type) -> dict[str, Any]:
    """Return the attributes that differ from their defaults. Most are not even in the instance."""
    held, found = vars(item), {}
    for name, key, default in _held_fields(cls, tuple(held)):
        content = held[name]
        if content is default or (
            # By type too: False == 0, and `run_if: 0` must not be lost before it is refused.
            type(content) is type(default) and content == default
        ):
            continue
        if default is _EMPTY and content == _EMPTY:
            continue
        kind = type(content)
        convert = _PLAIN.get(kind)
        found[key] = content if convert is None else convert(content)
    return found


@lru_cache(maxsize=256)
def _held_fields(cls: type, names: tuple[str, ...]) -> tuple[_Field, ...]:
    """Return the fields that an instance with these attributes holds. There are few kinds of them in a job."""
    return tuple(field for field in _FIELDS[cls] if field[0] in names)


_PLAIN: Mapping[type, Callable[[Any], Any]] = {
    tuple: list,
    FrozenDict: dict,
    TriggerRule: str,
    Overlap: str,
}


def _with_comments(
    value: dict[str, Any], comments: Mapping[str, Any], places: tuple[str, ...]
) -> dict[str, Any]:
    """Put comments back, first in their objects; in one order, so that equal definitions give equal text."""
    for key in sorted(places):
        if key in comments and isinstance(value.get(key, _EMPTY), dict):
            value[key] = {COMMENT: comments[key], **value.get(key, _EMPTY)}
    return value


def dumps_definition(definition: JobDefinition) -> str:
    """Return the JSON text of a definition. Raises `TypeError` and `ValueError` for what JSON lacks."""
    with collection_paused(tasks=len(definition.tasks)):
        return json.dumps(to_value(definition), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest_definition(definition: JobDefinition) -> str:
    """Return 12 hex digits that tell two versions of a definition apart."""
    return hashlib.blake2b(dumps_definition(definition).encode("utf-8"), digest_size=6).hexdigest()

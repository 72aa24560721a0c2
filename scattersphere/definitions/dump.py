"""Writing definitions as JSON: order kept, defaults omitted, the least format that has what is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from scattersphere._gc import free, gc_paused
from scattersphere._turns import EACH, WAY
from scattersphere.model.definition import JobDefinition, TaskDefinition
from scattersphere.model.fields import format_of, rows, write_record
from scattersphere.model.forms import COMMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scattersphere._json_words import JsonObject

SCHEMA_KEY = "$schema"
SCHEMA_NAME = "job-definition.schema.json"
JOB_COMMENTS = tuple(row.key for row in rows(JobDefinition).values() if row.json.holds_names)
TASK_COMMENTS = tuple(row.key for row in rows(TaskDefinition).values() if row.json.holds_names)
"""The objects inside a job and a task that hold names, and comments of their own beside them."""


AT_ONCE = 1 << 12
"""Words of a text that are joined in one go: a million of them would hold the loop."""
_ENCODER = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False)


def to_value(definition: JobDefinition) -> JsonObject:
    """Return the JSON value of a definition.

    Of one with wrong Python values (a list of tasks, a set among the arguments) these are kept as they
    are, for the checks to find.
    """
    value = {"tasks": {}, **write_record(definition, JobDefinition)}
    form = format_of(value, JobDefinition)
    value["tasks"] = tasks = value.pop("tasks")  # last
    if isinstance(definition.tasks, Mapping):
        for name, task in EACH.get()(definition.tasks.items()):
            if isinstance(task, TaskDefinition) and task.comments:
                tasks[name] = _with_comments(tasks[name], task.comments, TASK_COMMENTS)
    value = _with_comments(value, definition.comments, JOB_COMMENTS)
    return {SCHEMA_KEY: SCHEMA_NAME, "format": form, **value}


def _with_comments(
    value: JsonObject, comments: Mapping[str, object], places: Sequence[str]
) -> dict[str, object]:
    """Put comments back, first in their objects; in one order, so that equal definitions give equal text."""
    for key in sorted(places):
        if key in comments and isinstance(value.get(key, {}), dict):
            value[key] = {COMMENT: comments[key], **value.get(key, {})}
    return value


def dumps_definition(definition: JobDefinition) -> str:
    """Return the JSON text of a definition. Raises `TypeError` and `ValueError` for what JSON lacks."""
    with gc_paused(tasks=len(definition.tasks)):
        value = to_value(definition)
        words, parts = _ENCODER.iterencode(value), list[str]()
        each = EACH.get()
        while part := "".join(islice(each(words), AT_ONCE)):
            parts.append(part)
        if WAY.get():
            written = list[object]([value])
            del value
            free(written)
        return "".join([*parts, "\n"])


def digest_definition(definition: JobDefinition) -> str:
    """Return 12 hex digits that tell two versions of a definition apart."""
    return hashlib.blake2b(dumps_definition(definition).encode("utf-8"), digest_size=6).hexdigest()

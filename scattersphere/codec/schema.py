"""The JSON Schema (2020-12) of a definition file, for editors.

It says what a schema can say; that names exist and nothing waits for itself, only the loader can.
"""

from __future__ import annotations

from typing import Any

from scattersphere.model.definition import NAME
from scattersphere.model.states import Overlap, TriggerRule

_POSITIVE = {"type": ["integer", "null"], "minimum": 1}
_SECONDS = {"type": ["number", "null"], "exclusiveMinimum": 0}
_NAMES = {"type": "array", "items": {"type": "string"}}
_TEXT = {"type": "string"}
_REFERENCES = [{"type": "object", "required": [key]} for key in ("$param", "$result", "$literal")]
_MAP = {
    "type": ["object", "null"],
    "description": "Run once for each element of these lists.",
    "properties": {"//": {"description": "A comment."}},
    "additionalProperties": {"anyOf": [{"type": "array"}, *_REFERENCES[:2]]},
    # One argument at least; a comment is none.
    "if": {"required": ["//"]},
    "then": {"minProperties": 2},
    "else": {"minProperties": 1},
}
_RETRY = {
    "type": "object",
    "additionalProperties": False,
    "description": "How often a failed attempt is tried again.",
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "description": "The first attempt included."},
        "delay": {"type": "number", "minimum": 0, "description": "Seconds before the second attempt."},
        "backoff": {"type": "number", "minimum": 1, "description": "Factor of each further wait."},
        "max_delay": {"type": "number", "minimum": 0, "description": "Seconds of the longest wait."},
        "jitter": {"type": "boolean", "description": "Wait a random part of it."},
        "retry_on": {**_NAMES, "description": "Exception names; none means every Exception."},
        "//": {"description": "A comment."},
    },
}
_TASK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["task"],
    "properties": {
        "task": {**_TEXT, "minLength": 1, "description": "Path of the task class: etl.load.LoadDay."},
        "bundle": {"type": ["string", "null"], "description": "Which bundle, where two hold the path."},
        "description": _TEXT,
        "args": {"type": "object", "description": 'Arguments; {"$param": ..} and {"$result": ..} refer.'},
        "map": _MAP,
        "depends_on": {**_NAMES, "uniqueItems": True, "description": "Tasks that must end before."},
        "run_if": {
            "anyOf": [{"type": "boolean"}, *_REFERENCES],
            "description": "False: the task is skipped.",
        },
        "trigger_rule": {"enum": [None, *map(str, TriggerRule)]},
        "finally": {"type": "boolean", "description": "Runs at the end, whatever happened."},
        "allow_failure": {"type": "boolean", "description": "Its failure does not fail the run."},
        "keep_results": {"type": "boolean", "description": "False: dropped after the last reader."},
        "retry": _RETRY,
        "timeout": {**_SECONDS, "description": "Seconds of one attempt."},
        "max_parallel": {**_POSITIVE, "description": "Instances of the map at once."},
        "pool": {"type": ["string", "null"], "description": "A limit shared by all runs."},
        "priority": {"type": "integer", "description": "Higher starts first."},
        "backend": {"type": ["string", "null"], "description": "loop, thread, process or the host's own."},
        "//": {"description": "A comment."},
    },
}
_PARAMETER = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "type": {"enum": [None, "string", "integer", "number", "boolean", "array", "object", "null"]},
        "required": {"type": "boolean"},
        "default": {},
        "secret": {"type": "boolean", "description": "Shown as *** everywhere."},
        "description": _TEXT,
        "//": {"description": "A comment."},
    },
}


def definition_schema() -> dict[str, Any]:
    """Return the schema as a new JSON value."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scattersphere job definition",
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "$schema": {},
            "format": {"const": 1},
            "name": {**_TEXT, "pattern": f"^{NAME.pattern}$"},
            "description": _TEXT,
            "params": {
                "type": "object",
                "description": "Run parameters: a plain default, or the long form.",
                "properties": {"//": {"description": "A comment."}},
                "additionalProperties": {"if": {"type": "object"}, "then": _PARAMETER},
            },
            "bundles": {
                "type": "object",
                "description": "Bundles by name: paths relative to this file.",
                "properties": {"//": {"description": "A comment."}},
                "additionalProperties": _TEXT,
            },
            "max_parallel": {**_POSITIVE, "description": "Attempts of a run at once."},
            "max_runs": {**_POSITIVE, "description": "Runs of this job at once."},
            "overlap": {"enum": list(map(str, Overlap)), "description": "What a start beyond max_runs does."},
            "fail_fast": {"type": "boolean", "description": "After a failure start nothing new."},
            "timeout": {**_SECONDS, "description": "Seconds of a run."},
            "tasks": {
                "type": "object",
                "properties": {"//": {"description": "A comment."}},
                "propertyNames": {"pattern": f"^(//|{NAME.pattern})$"},
                "additionalProperties": _TASK,
            },
            "//": {"description": "A comment."},
        },
    }

"""The JSON Schema (2020-12) of a definition file, for editors.

It says what a schema can say; that names exist and nothing waits for itself, only the loader can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.codec.limits import TASKS
from scattersphere.codec.params import JSON_TYPES
from scattersphere.codec.schemaparts import REFERENCE, VALUE, annotation_schema
from scattersphere.model.definition import NAME
from scattersphere.model.states import Overlap, TriggerRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.model.taskclass import TaskClass

_POSITIVE = {"type": ["integer", "null"], "minimum": 1}
_SECONDS = {"type": ["number", "null"], "exclusiveMinimum": 0}
_NAMES = {"type": "array", "items": {"type": "string"}}
_TEXT = {"type": "string"}
_COMMENT = {"description": "A comment."}
# Python's `$` lets a newline through, and that of JavaScript does not; this is the same for both.
_NAME = f"{NAME.pattern}$(?!\\n)"
_NO_REFERENCE = {"pattern": r"^(?!\$)"}
"""Of the keys of an object: it is no reference."""


def _reference(literal: Any, default: Any) -> dict[str, Any]:
    """Return the schema of a reference whose value must be of some form, as far as it stands in the file."""
    param = {"$param": {**_TEXT, "description": "The name of a run parameter."}}
    result = {
        "$result": {**_TEXT, "description": "The name of a task, whose result it is."},
        "pointer": {
            **_TEXT,
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


def _reference_to(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, _reference(kind, {"anyOf": [kind, REFERENCE]})]}


_DEFS = {
    "reference": _reference({}, VALUE),
    "value": {
        "description": "Any JSON; references may stand at any depth.",
        "if": {"type": "object"},
        "then": {
            "if": {"propertyNames": _NO_REFERENCE},
            "then": {"additionalProperties": VALUE},
            "else": REFERENCE,
        },
        "else": {"if": {"type": "array"}, "then": {"items": VALUE}},
    },
}
_ARGS = {
    "type": "object",
    "description": 'Arguments; {"$param": ..} and {"$result": ..} refer.',
    "propertyNames": _NO_REFERENCE,
    "properties": {"//": _COMMENT},
    "additionalProperties": VALUE,
}
_MAP = {
    "type": ["object", "null"],
    "description": "Run once for each element of these lists.",
    "propertyNames": _NO_REFERENCE,
    "properties": {"//": _COMMENT},
    "additionalProperties": _reference_to({"type": "array", "items": VALUE}),
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
        "//": _COMMENT,
    },
}
_TASK: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["task"],
    "properties": {
        "task": {**_TEXT, "minLength": 1, "description": "Path of the task class: etl.load.LoadDay."},
        "bundle": {"type": ["string", "null"], "description": "Which bundle, where two hold the path."},
        "description": {**_TEXT, "description": "What it is for."},
        "args": _ARGS,
        "map": _MAP,
        "depends_on": {**_NAMES, "uniqueItems": True, "description": "Tasks that must end before."},
        "run_if": {**_reference_to({"type": "boolean"}), "description": "False: the task is skipped."},
        "trigger_rule": {
            "enum": [None, *map(str, TriggerRule)],
            "description": "When it starts; all_success where nothing is said.",
        },
        "finally": {"type": "boolean", "description": "Runs at the end, whatever happened."},
        "allow_failure": {"type": "boolean", "description": "Its failure does not fail the run."},
        "keep_results": {"type": "boolean", "description": "False: dropped after the last reader."},
        "retry": _RETRY,
        "timeout": {**_SECONDS, "description": "Seconds of one attempt."},
        "max_parallel": {**_POSITIVE, "description": "Instances of the map at once."},
        "pool": {"type": ["string", "null"], "description": "A limit shared by all runs."},
        "priority": {"type": "integer", "description": "Higher starts first."},
        "backend": {"type": ["string", "null"], "description": "loop, thread, process or the host's own."},
        "//": _COMMENT,
    },
}
_PARAMETER = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "type": {"enum": [None, *JSON_TYPES], "description": "The JSON type of the value."},
        "required": {"type": "boolean", "description": "Each start must give it."},
        "default": {"description": "The value where a start gives none."},
        "secret": {"type": "boolean", "description": "Shown as *** everywhere."},
        "description": {**_TEXT, "description": "What it is for."},
        "//": _COMMENT,
    },
    "allOf": [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": {"properties": {"default": {"type": sorted({name, "null"})}}},
        }
        for name in JSON_TYPES
    ],
}


def definition_schema(task_classes: Iterable[TaskClass] = ()) -> dict[str, Any]:
    """Return the schema as a new JSON value; with task classes it knows their arguments too."""
    known = list(task_classes)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scattersphere job definition",
        "$defs": _DEFS,
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "$schema": {"description": "This schema, for editors."},
            "format": {"const": 1, "description": "The version of this format."},
            "name": {**_TEXT, "pattern": f"^{_NAME}", "description": "The name of the job."},
            "description": {**_TEXT, "description": "What it is for."},
            "params": {
                "type": "object",
                "description": "Run parameters: a plain default, or the long form.",
                "properties": {"//": _COMMENT},
                "additionalProperties": {"if": {"type": "object"}, "then": _PARAMETER},
            },
            "bundles": {
                "type": "object",
                "description": "Bundles by name: paths relative to this file.",
                "properties": {"//": _COMMENT},
                "additionalProperties": _TEXT,
            },
            "max_parallel": {**_POSITIVE, "description": "Attempts of a run at once."},
            "max_runs": {**_POSITIVE, "description": "Runs of this job at once."},
            "overlap": {"enum": list(map(str, Overlap)), "description": "What a start beyond max_runs does."},
            "fail_fast": {"type": "boolean", "description": "After a failure start nothing new."},
            "timeout": {**_SECONDS, "description": "Seconds of a run."},
            "tasks": {
                "type": "object",
                "description": "Tasks by name, in the order in which they are shown.",
                "properties": {"//": _COMMENT},
                "propertyNames": {"pattern": f"^(//$|{_NAME})"},
                "maxProperties": TASKS,
                "additionalProperties": _task(known),
            },
            "//": _COMMENT,
        },
    }


def _task(known: list[TaskClass]) -> dict[str, Any]:
    if not known:
        return _TASK
    paths: dict[str, list[TaskClass]] = {}
    for found in known:
        paths.setdefault(found.path, []).append(found)
        paths.setdefault(found.full_path, []).append(found)
    # A path that two bundles hold means neither of them by itself.
    clear = {path: holders[0] for path, holders in paths.items() if len(holders) == 1}
    words = [
        {"const": path, "description": found.summary} for path, found in clear.items() if path == found.path
    ]
    properties: dict[str, Any] = {
        **_TASK["properties"],
        "task": {**_TASK["properties"]["task"], "anyOf": [*words, _TEXT]},
    }
    return {
        **_TASK,
        "properties": properties,
        "allOf": [
            {
                "if": {"properties": {"task": {"const": path}}},
                "then": {"properties": {"args": _arguments(found)}},
            }
            for path, found in clear.items()
        ],
    }


def _arguments(found: TaskClass) -> dict[str, Any]:
    return {
        "additionalProperties": False,
        "properties": {
            "//": _COMMENT,
            **{
                parameter.name: {
                    **annotation_schema(parameter.annotation),
                    "description": f"{parameter.type_name}{'; required' if parameter.required else ''}",
                }
                for parameter in found.parameters.values()
            },
        },
    }

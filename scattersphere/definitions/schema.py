"""The JSON Schema (2020-12) of a definition file, for editors: made from the rows of the fields.

It says what a schema can say; that names exist and nothing waits for itself, only the loader can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.definitions.annotations import annotation_schema
from scattersphere.definitions.dump import SCHEMA_KEY
from scattersphere.definitions.parameters import JSON_KINDS
from scattersphere.model.definition import JobDefinition
from scattersphere.model.fields import FORMAT, Record, Records, Row, newer_rows, record_schema
from scattersphere.model.forms import (
    COMMENT,
    COMMENT_SCHEMA,
    NO_REFERENCE_SCHEMA,
    REFERENCE_SCHEMA,
    VALUE_SCHEMA,
    reference_schema,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere._json_words import JsonObject
    from scattersphere.model.taskclass import TaskClass

_DEFS = {
    "reference": reference_schema({}, VALUE_SCHEMA),
    "value": {
        "description": "Any JSON; references may stand at any depth.",
        "if": {"type": "object"},
        "then": {
            "if": {"propertyNames": NO_REFERENCE_SCHEMA},
            "then": {"additionalProperties": VALUE_SCHEMA},
            "else": REFERENCE_SCHEMA,
        },
        "else": {"if": {"type": "array"}, "then": {"items": VALUE_SCHEMA}},
    },
}


def definition_schema(task_classes: Iterable[TaskClass] = ()) -> dict[str, object]:
    """Return the schema as a new JSON value; with task classes it knows their arguments too."""
    job = record_schema(JobDefinition)
    properties = {
        SCHEMA_KEY: {"description": "This schema, for editors."},
        "format": {
            "enum": list(range(1, FORMAT + 1)),
            "description": "The version of this format; the newest where nothing is said.",
        },
        **job["properties"],
    }
    parameter = properties["params"]["additionalProperties"]["then"]
    parameter["allOf"] = [*_parameter_rules()]
    tasks = properties["tasks"]
    properties["tasks"] = {
        **tasks,
        "additionalProperties": _task(tasks["additionalProperties"], list(task_classes)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scattersphere job definition",
        "$defs": _DEFS,
        **job,
        "properties": properties,
        "allOf": [
            {
                "if": {"required": ["format"], "properties": {"format": {"const": form}}},
                "then": _without_newer(JobDefinition, form),
            }
            for form in range(1, FORMAT)
        ],
    }


def _parameter_rules() -> Iterable[dict[str, object]]:
    """Yield what the fields of a parameter ask of each other."""
    for name in JSON_KINDS:
        yield {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": {"properties": {"default": {"type": sorted({name, "null"})}}},
        }
    yield {
        "if": {"required": ["env"], "properties": {"env": {"type": "string"}}},
        "then": {"required": ["secret"], "properties": {"secret": {"const": True}}},
    }


def _without_newer(cls: type, form: int) -> dict[str, object]:
    """Return a schema that refuses the keys of a class, and of those inside it, that a format does not have."""

    def refuse(row: Row) -> object:
        if row.since > form:
            return False
        if isinstance(row.json, Records):
            return {"additionalProperties": _without_newer(row.json.cls, form)}
        return _without_newer(row.json.cls, form) if isinstance(row.json, Record) else True

    return {"properties": {row.key: refuse(row) for row in newer_rows(cls, form)}}


def _task(schema: JsonObject, known: list[TaskClass]) -> dict[str, object]:
    if not known:
        return schema
    paths: dict[str, list[TaskClass]] = {}
    for found in known:
        paths.setdefault(found.path, []).append(found)
        paths.setdefault(found.full_path, []).append(found)
    # A path that two bundles hold means neither of them by itself.
    clear = {path: holders[0] for path, holders in paths.items() if len(holders) == 1}
    words = [
        {"const": path, "description": found.summary} for path, found in clear.items() if path == found.path
    ]
    path_schema = schema["properties"]["task"]
    return {
        **schema,
        "properties": {
            **schema["properties"],
            "task": {**path_schema, "anyOf": [*words, {"type": "string"}]},
        },
        "allOf": [
            {
                "if": {"properties": {"task": {"const": path}}},
                "then": {"properties": {"args": _arguments(found)}},
            }
            for path, found in clear.items()
        ],
    }


def _arguments(found: TaskClass) -> dict[str, object]:
    return {
        "additionalProperties": False,
        "properties": {
            COMMENT: COMMENT_SCHEMA,
            **{
                parameter.name: {
                    **annotation_schema(parameter.annotation),
                    "description": f"{parameter.type_name}{'; required' if parameter.required else ''}",
                }
                for parameter in found.parameters.values()
            },
        },
    }

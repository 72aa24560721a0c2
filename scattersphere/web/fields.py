"""Form fields of parameters, made from their types; what people typed, read strictly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from scattersphere.model.definition import Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.definition import JobDefinition

_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@attrs.frozen
class Field:
    """A field of the form: what it is called, what it takes, what stands in it."""

    name: str
    type: str
    """A JSON type, or `any`."""
    required: bool
    secret: bool
    hint: str
    value: str = ""
    checked: bool = False
    wrong: str = ""
    """What is wrong with what was typed."""

    @property
    def words(self) -> str:
        """What the field takes, in words."""
        kind = {"any": "JSON", "array": "JSON list", "object": "JSON object"}.get(self.type, self.type)
        return ", ".join(
            [kind, *(["required"] if self.required else []), *(["secret"] if self.secret else [])]
        )


def fields_of(
    job: JobDefinition,
    typed: Mapping[str, str] | None = None,
    wrong: Mapping[str, str] | None = None,
    given: Mapping[str, object] | None = None,
) -> list[Field]:
    """Return the fields of a job: with what was `typed`, or the parameters `given` to a run, or the defaults.

    What is `wrong` stands beside each.
    """
    found = []
    for name, parameter in parameters_of(job).items():
        kind = type_of(parameter)
        default = None if parameter.required or parameter.secret else parameter.default
        start = default if given is None or parameter.secret else given.get(name, default)
        value = text_of(start, kind) if typed is None else typed.get(f"p.{name}", "")
        hints = [parameter.description] if parameter.description else []
        if default not in (None, ""):
            hints.append(f"default {text_of(default, kind)}")
        found.append(
            Field(
                name=name,
                type=kind,
                required=parameter.required and parameter.env is None,
                secret=parameter.secret,
                hint=" · ".join(hints),
                value="" if parameter.secret else value,
                checked=(start is True) if typed is None else f"p.{name}" in typed,
                wrong=(wrong or {}).get(name, ""),
            )
        )
    return found


def parameters_of(job: JobDefinition) -> dict[str, Parameter]:
    """Return the parameters of a job, each in its long form."""
    return {
        name: declared if isinstance(declared, Parameter) else Parameter(default=declared)
        for name, declared in job.params.items()
    }


def type_of(parameter: Parameter) -> str:
    """Return the JSON type that a parameter takes: its own, else that of its default."""
    if parameter.type is not None:
        return parameter.type
    return _TYPES.get(type(parameter.default), "any")


def text_of(value: object, kind: str) -> str:
    """Return a value as one types it."""
    if value is None:
        return ""
    return value if kind == "string" and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read(job: JobDefinition, typed: Mapping[str, str]) -> tuple[dict[str, object], dict[str, str]]:
    """Return the parameters that a form gives, and what is wrong with which.

    An empty field means the default, but for text where the default is not empty: there it is an empty text.
    """
    params: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for name, parameter in parameters_of(job).items():
        kind, text = type_of(parameter), typed.get(f"p.{name}", "")
        if kind == "boolean":
            params[name] = f"p.{name}" in typed
        elif kind == "string":
            if text or not (parameter.required or parameter.secret or parameter.default in (None, "")):
                params[name] = text
        elif text.strip():
            try:
                params[name] = json.loads(text)
            except (ValueError, RecursionError) as error:
                wrong[name] = _no_json(error, kind)
    return params, wrong


_EXAMPLES = {"array": '["a", "b"]', "object": '{"a": 1}', "any": '"a text"'}


def _no_json(error: Exception, kind: str) -> str:
    """Say what is wrong with a text that should be JSON, and what to write."""
    if kind not in _EXAMPLES:
        return f"must be of type {kind}"
    if not isinstance(error, json.JSONDecodeError):
        return "is no JSON: it is nested too deeply"
    place = f"line {error.lineno}, " if error.lineno > 1 else ""
    return f"is no JSON: {error.msg.lower()} at {place}column {error.colno}; write it like {_EXAMPLES[kind]}"

"""The parameters of a run: defaults, overrides, and what is wrong with them in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from scattersphere._json import copy_json
from scattersphere._json_words import SHOWN, describe
from scattersphere._text import Suggester
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import Parameter
from scattersphere.model.frozen import plain_copy
from scattersphere.model.logs import MASK
from scattersphere.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.definition import JobDefinition

JSON_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def resolve_params(definition: JobDefinition, overrides: Mapping[str, object]) -> dict[str, object]:
    """Return the value of each parameter for a run. Raises `DefinitionError` with all problems."""
    problems: list[Problem] = []
    for name in overrides.keys() - definition.params.keys():
        near = Suggester(definition.params).nearest(str(name))
        problems.append(
            Problem(f"params.{name}", f"job {definition.name!r} has no such parameter", suggestion=near)
        )
    values: dict[str, object] = {}
    for name, declared in definition.params.items():
        is_plain = not isinstance(declared, Parameter)
        if name not in overrides:
            if not is_plain and declared.required and declared.env is None:  # else it is read at the start
                problems.append(Problem(f"params.{name}", "is required"))
            values[name] = plain_copy(declared if is_plain else declared.default)
            continue
        parameter = Parameter(type=_NAMES.get(type(declared)), default=declared) if is_plain else declared
        try:
            value = values[name] = copy_json(overrides[name])
        except RecursionError:  # a host may pass what no JSON text could hold, even a list that holds itself
            problems.append(Problem(f"params.{name}", "is nested too deeply, or holds itself"))
            continue
        kinds = JSON_KINDS.get(parameter.type or "")
        if kinds is not None and type(value) not in kinds:
            shown, hint = describe(value), _as_json(name, value, kinds)
            if parameter.secret:
                shown, hint = "the value", ""
            words = f"must be of type {parameter.type}; {shown} is not{hint}"
            problems.append(Problem(f"params.{name}", words))
    if problems:
        raise DefinitionError(problems, source=f"parameters of {definition.name}")
    return values


def _as_json(name: str, value: object, kinds: tuple[type, ...]) -> str:
    """Return what to write where a text would be right as JSON: shells and word commands give texts."""
    if type(value) is not str or len(value) > SHOWN:
        return ""
    try:
        meant = json.loads(value)
    except (ValueError, RecursionError):
        return ""
    return f"; as a word of a command write {name}:={value}" if type(meant) in kinds else ""


def secret_names(definition: JobDefinition) -> frozenset[str]:
    """Return the names of the parameters whose values people must not see."""
    return frozenset(
        name
        for name, declared in definition.params.items()
        if isinstance(declared, Parameter) and declared.secret
    )


def without_secrets(definition: JobDefinition) -> JobDefinition:
    """Return a definition with `***` in place of the secrets that stand in it: defaults, and what schedules give."""
    names = secret_names(definition)
    if not names:
        return definition
    return attrs.evolve(
        definition,
        params={
            name: attrs.evolve(declared, default=MASK)
            if name in names and declared.default is not None
            else declared
            for name, declared in definition.params.items()
        },
        schedules={
            name: attrs.evolve(
                schedule,
                params={key: MASK if key in names else value for key, value in schedule.params.items()},
            )
            for name, schedule in definition.schedules.items()
        },
    )

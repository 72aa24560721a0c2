"""JSON values to definitions, with everything that is wrong with their form and their references."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from cattrs.errors import AttributeValidationNote, ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from scattersphere.codec.converter import (
    WrongPartsError,
    WrongValueError,
    faults_of,
    make_converter,
    structure_enum,
)
from scattersphere.codec.crossrefs import UNREAD, Gaps, check_references
from scattersphere.codec.faults import Fault, Path, describe
from scattersphere.codec.limits import DEPTH
from scattersphere.codec.quick import Quick, read_usual
from scattersphere.codec.text import count_keys
from scattersphere.codec.writing import COMMENT, FORMAT, JOB_COMMENTS, RENAMES, SCHEMA_KEY, TASK_COMMENTS
from scattersphere.model.definition import JobDefinition, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.references import upstreams
from scattersphere.model.states import Overlap, TriggerRule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cattrs import Converter

_TURNS = 3
"""How often what is wrong is taken out of an object to see what else is: a fault may hide another."""


def _params_hook(converter: Converter) -> Callable[[Any, Any], dict[str, Any]]:
    def structure_params(value: Any, _: Any) -> dict[str, Any]:
        """A plain default stays as it is; an object is the long form."""
        _require_object(value)
        errors: list[Exception] = []
        found: dict[str, Any] = {}
        for name, item in value.items():
            try:
                found[name] = converter.structure(item, Parameter) if type(item) is dict else item
            except Exception as error:  # noqa: BLE001 - noted with its key, as cattrs does in its own hooks
                error.add_note(AttributeValidationNote(f"parameter {name}", name, Parameter))
                errors.append(error)
        if errors:
            # typeshed gives every exception group the two arguments of ExceptionGroup itself.
            make_group: Any = ClassValidationError
            raise make_group("parameters", errors, JobDefinition)
        return found

    return structure_params


def _structure_json_object(value: Any, _: Any) -> dict[str, Any]:
    _require_object(value)
    found: dict[str, Any] = value
    return found


def _structure_strings(value: Any, _: Any) -> dict[str, str]:
    _require_object(value)
    faults = [
        Fault((name,), f"must be a path in quotes, not {describe(item)}")
        for name, item in value.items()
        if type(item) is not str
    ]
    if faults:
        raise WrongPartsError(faults)
    found: dict[str, str] = value
    return found


def _structure_names(value: Any, _: Any) -> tuple[str, ...]:
    if type(value) is not list:
        hint = f"; write [{json.dumps(value)}]" if type(value) is str else ""
        raise WrongValueError(f"must be a list of names, not {describe(value)}{hint}")
    faults = [
        Fault((index,), f"must be a name in quotes, not {describe(item)}")
        for index, item in enumerate(value)
        if type(item) is not str
    ]
    if faults:
        raise WrongPartsError(faults)
    return tuple(value)


def _require_object(value: Any) -> None:
    if type(value) is not dict:
        raise WrongValueError(f"must be an object, not {describe(value)}")


def _optional(structure_it: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, kind: None if value is None else structure_it(value, kind)


# An attrs converter of a field makes cattrs leave the field to it: hooks of enums are given by name.
def _teach(converter: Converter) -> Converter:
    names = override(struct_hook=_structure_names)
    json_object = override(struct_hook=_structure_json_object)
    anything = override(struct_hook=lambda value, _: value)
    comment = override(rename=COMMENT, struct_hook=lambda value, _: value)
    omit = override(omit=True)
    classes: list[tuple[type, dict[str, Any]]] = [
        (RetryPolicy, {"retry_on": names, "comment": comment}),
        (Parameter, {"default": anything, "comment": comment}),
        (
            TaskDefinition,
            {
                "depends_on": names,
                "args": json_object,
                "map": override(struct_hook=_optional(_structure_json_object)),
                "run_if": anything,
                "trigger_rule": override(
                    struct_hook=_optional(lambda value, _: structure_enum(value, TriggerRule))
                ),
                "finally_": override(rename="finally"),
                "comment": comment,
                "comments": omit,
            },
        ),
        (
            JobDefinition,
            {
                "comment": comment,
                "overlap": override(struct_hook=lambda value, _: structure_enum(value, Overlap)),
                "params": override(struct_hook=_params_hook(converter)),
                "bundles": override(struct_hook=_structure_strings),
                "tasks": omit,
                "comments": omit,
                "origin": omit,
            },
        ),
    ]
    for cls, overrides in classes:
        converter.register_structure_hook(
            cls, _object_only(make_dict_structure_fn(cls, converter, **overrides))
        )
    return converter


def _object_only(structure_it: Any) -> Any:
    def hook(value: Any, kind: Any) -> Any:
        _require_object(value)
        return structure_it(value, kind)

    return hook


_converter = _teach(make_converter(detailed=True))


def structure(value: Any) -> tuple[JobDefinition | None, list[Fault]]:
    """Make a definition of a JSON value, which belongs to it from then on.

    Returns it with what is wrong: form and references together. It is None where nothing of it can be
    made; with faults it holds what could be read, for further checks, and must not be run.
    """
    return structure_counting(value)[:2]


def structure_counting(value: Any) -> tuple[JobDefinition | None, list[Fault], int | None]:
    """Do as `structure`, and return also the number of keys of all objects: None where it is too deep.

    To count them is half of the way, and what is read here is walked through anyway.
    """
    if type(value) is not dict:
        return None, [Fault((), f"a definition is an object, not {describe(value)}")], count_keys(value)
    faults: list[Fault] = []
    counts = [count_keys({name: child for name, child in value.items() if name != "tasks"})]
    rest, comments = _without_comments(value, JOB_COMMENTS)
    if "tasks" in comments:
        counts += [1, count_keys(comments["tasks"], DEPTH - 2)]
    task_items = rest.pop("tasks", {})
    rest.pop(SCHEMA_KEY, None)
    form = rest.pop("format", FORMAT)
    if type(form) is not int or form != FORMAT:
        faults.append(Fault(("format",), f"this is format {FORMAT}; {describe(form)} is not known here"))
    gaps = Gaps()
    params = rest.get("params", {})
    quick = _structure_tasks(task_items, params if type(params) is dict else {}, faults, gaps, counts)
    if "tasks" in value:
        counts.append(1)
    job, found = _mended(rest, JobDefinition, {"name": "_"})
    faults += [_with_tasks_hint(fault) for fault in found]
    gaps.name = any(fault.path[:1] == ("name",) for fault in found)
    gaps.params = any(fault.path == ("params",) for fault in found)
    job = attrs.evolve(job, tasks=quick.tasks, comments=comments)
    faults += check_references(job, quick, gaps)
    if not faults:
        vars(job).update(checked=True, upstreams=quick.after, upstream_indices=quick.indices)
    return job, faults, None if None in counts else sum(filter(None, counts))


def _without_comments(
    value: Mapping[str, Any], keys: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the comments out of the objects under `keys`, so that nobody takes "//" for a name."""
    rest, comments = dict(value), {}
    for key in keys:
        inner = rest.get(key)
        if type(inner) is dict and COMMENT in inner:
            rest[key] = {name: item for name, item in inner.items() if name != COMMENT}
            comments[key] = inner[COMMENT]
    return rest, comments


def _with_tasks_hint(fault: Fault) -> Fault:
    # "tasks" is taken out before cattrs sees the object, so it cannot suggest it.
    if len(fault.path) == 1 and fault.message == "unknown key" and fault.suggestion is None:
        word = str(fault.path[0]).lower()
        if word in {"task", "jobs", "steps", "taks", "nodes"}:
            return attrs.evolve(fault, suggestion="tasks")
    return fault


def _structure_tasks(
    value: Any, params: Mapping[str, Any], faults: list[Fault], gaps: Gaps, counts: list[int | None]
) -> Quick:
    if type(value) is not dict:
        words = f'must be an object {{"name": {{"task": ..}}}}, not {describe(value)}'
        faults.append(Fault(("tasks",), words))
        counts.append(count_keys(value, DEPTH - 1))
        return Quick()
    quick = read_usual(value, params)
    # One that was read has its object changed; how many keys it had was counted before.
    counts += [quick.keys, len(value), *(count_keys(value[name], DEPTH - 2) for name in quick.unread)]
    for name in quick.unread:
        task, found = structure_task(value[name])
        if found:
            faults += [attrs.evolve(fault, path=("tasks", name, *fault.path)) for fault in found]
            gaps.tasks.add(name)
        quick.add(name, task, upstreams(task))
    return quick


def structure_task(item: Any) -> tuple[TaskDefinition, list[Fault]]:
    """Make a task of a JSON value with cattrs; return it, or what could be read of it, with its faults."""
    if type(item) is not dict:
        words = f"must be an object, not {describe(item)}"
        return TaskDefinition(task=UNREAD), [Fault((), words)]
    rest, comments = _without_comments(item, TASK_COMMENTS)
    task, faults = _mended(rest, TaskDefinition, {"task": UNREAD})
    return (task.evolve(comments=comments) if comments else task), faults


def _mended(rest: dict[str, Any], cls: type, needed: dict[str, str]) -> tuple[Any, list[Fault]]:
    """Structure an object; where something is wrong with it, structure what is left without that.

    So a task with a mistyped key still tells that it waits for a task that is not there.
    """
    faults: list[Fault] = []
    for _ in range(_TURNS):
        try:
            return _converter.structure(rest, cls), faults
        except Exception as error:  # noqa: BLE001 - a group of whatever the hooks raised; `faults_of` sorts it
            found = faults_of(error, (), RENAMES)
        faults += found
        rest = {**needed, **_left(rest, [fault.path for fault in found])}
    return cls(**needed), faults


def _left(value: dict[str, Any], paths: Collection[Path]) -> dict[str, Any]:
    """Return a copy of `value` without what stands at `paths`."""
    left = dict(value)
    for path in paths:
        holder: Any = left
        for step in path[:-1]:
            inner = holder[step]
            holder[step] = dict(inner) if type(inner) is dict else list(inner)
            holder = holder[step]
        if isinstance(holder, list):
            index: Any = path[-1]
            holder[index] = UNREAD  # the indexes of the others stay what they are
        elif path:
            holder.pop(path[-1], None)
    return left

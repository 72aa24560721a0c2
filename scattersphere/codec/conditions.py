"""`run_if` and `map`: what their values can be, and whether anybody will ever ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.codec.faults import Fault, Path, describe, quote
from scattersphere.model.definition import Parameter
from scattersphere.model.references import reference_fault, reference_kind
from scattersphere.model.states import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.model.definition import JobDefinition, TaskDefinition

_MISSING = object()


def condition_faults(job: JobDefinition, task: TaskDefinition, path: Path) -> Iterator[Fault]:
    """Yield what is wrong with a `run_if`: it is a bool or refers to one that can be true and false."""
    condition, place = task.run_if, (*path, "run_if")
    kind = _good_reference(condition)
    if kind is None:
        if type(condition) is not bool and not _is_reference(condition):
            yield Fault(place, "must be true, false or a reference")
        return
    value = _known_value(job, condition, kind)
    if value is not _MISSING and type(value) is not bool:
        yield Fault(place, f"must be true or false, not {describe(value)}")
    if kind == "$param":
        yield from _declared(job, condition["$param"], "boolean", place)
    elif kind == "$result" and task.rule is TriggerRule.ALL_FAILED:
        upstream = quote(condition["$result"])
        words = f"is never asked for the result: all_failed starts this task only where {upstream} failed"
        yield Fault(place, words)


def map_faults(job: JobDefinition, task: TaskDefinition, path: Path) -> Iterator[Fault]:
    """Yield what is wrong with the lists of a `map`."""
    for key, value in (task.map or {}).items():
        place = (*path, "map", key)
        if key in task.args:
            yield Fault(place, f"{quote(key)} is in args too; it can only come from one of them")
        if type(value) is list:
            continue
        kind = _good_reference(value)
        if kind is None:
            if not _is_reference(value):
                yield Fault(place, f"must be a list, or a reference to one, not {describe(value)}")
            continue
        known = _known_value(job, value, kind)
        if known is not _MISSING and type(known) is not list:
            yield Fault(place, f"must be a list, not {describe(known)}")
        elif kind == "$param":
            yield from _declared(job, value["$param"], "array", place)


def _is_reference(value: Any) -> bool:
    """Whether it means to be a reference; one of the wrong form is told of as such elsewhere."""
    return type(value) is dict and any(key.startswith("$") for key in value)


def _good_reference(value: Any) -> str | None:
    if not _is_reference(value) or reference_fault(value) is not None:
        return None
    return reference_kind(value)


def _known_value(job: JobDefinition, reference: Mapping[str, Any], kind: str) -> Any:
    """Return the value that is known before a run: a literal, a default. `_MISSING` where there is none."""
    if kind == "$literal":
        return reference["$literal"]
    if kind == "$result":
        default = reference.get("default", _MISSING)
        return _MISSING if _is_reference(default) else default
    declared = job.params.get(reference["$param"], _MISSING)
    # The long form is judged by its type; its default may be missing, or a secret.
    return _MISSING if isinstance(declared, Parameter) else declared


def _declared(job: JobDefinition, name: str, wanted: str, place: Path) -> Iterator[Fault]:
    declared = job.params.get(name)
    if isinstance(declared, Parameter) and declared.type not in (None, wanted):
        yield Fault(
            place, f"must be of type {wanted}; the parameter {quote(name)} is of type {declared.type}"
        )


def unreachable_conditions(job: JobDefinition, after: Mapping[str, tuple[str, ...]]) -> Iterator[Fault]:
    """Yield the `run_if`s that nobody asks: an upstream is always skipped, so their task never starts."""
    never = {name: name for name, task in job.tasks.items() if task.run_if is False}
    if not never:
        return
    below: dict[str, list[str]] = {}
    for name, upstream in after.items():
        if job.tasks[name].rule is TriggerRule.ALL_SUCCESS:
            for other in upstream:
                below.setdefault(other, []).append(name)
    for name in (queue := list(never)):  # grows while it is read
        for successor in below.get(name, ()):
            if successor not in never:
                never[successor] = never[name]
                queue.append(successor)
    for name, cause in never.items():
        if name != cause and job.tasks[name].run_if is not True:
            words = f'is never asked: {quote(cause)} has "run_if": false, so this task is skipped too'
            yield Fault(("tasks", name, "run_if"), words)

"""What is wrong inside a definition that has the right form: names, references, order, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.codec.faults import Fault, Path, Suggester, describe, quote
from scattersphere.codec.limits import EDGES, TASKS
from scattersphere.codec.params import JSON_TYPES
from scattersphere.model.definition import NAME, Parameter
from scattersphere.model.references import reference_fault, references, upstreams
from scattersphere.model.states import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.model.definition import JobDefinition, TaskDefinition

CYCLE_SHOWN = 10
"""Names of a cycle that are shown (design, section 4)."""
_MAY_START_WITHOUT = frozenset(
    {
        TriggerRule.ALL_DONE,
        TriggerRule.ALL_FAILED,
        TriggerRule.ONE_FAILED,
        TriggerRule.ONE_SUCCESS,
        TriggerRule.NONE_FAILED,
    }
)
_NAME_WORDS = "letters, digits, _ . and -, at most 128, not beginning with . or -"


def check_references(job: JobDefinition) -> list[Fault]:
    """Return everything that needs no server to be found wrong."""
    if len(job.tasks) > TASKS:
        return [Fault(("tasks",), f"{len(job.tasks):,} tasks are more than {TASKS:,}")]
    faults = [*_check_job(job)]
    tasks, params = Suggester(job.tasks), Suggester(job.params)
    after = {name: upstreams(task) for name, task in job.tasks.items()}
    edges = sum(map(len, after.values()))
    if edges > EDGES:
        return [*faults, Fault(("tasks",), f"{edges:,} dependencies are more than {EDGES:,}")]
    for name, task in job.tasks.items():
        faults += _check_task(job, name, task, tasks)
        if task.args or task.map is not None or task.run_if is not True:
            faults += _check_values(job, name, task, tasks, params)
    if not _in_order(after):
        cycle = _find_cycle(after)
        if cycle:
            faults.append(Fault(("tasks", cycle[0]), f"the tasks wait for each other: {_show_cycle(cycle)}"))
    return faults


def _check_job(job: JobDefinition) -> Iterator[Fault]:
    if not NAME.fullmatch(job.name):
        yield Fault(("name",), f"{quote(job.name)} is no name; a name has {_NAME_WORDS}")
    for key in ("max_parallel", "max_runs"):
        value = getattr(job, key)
        if value is not None and value < 1:
            yield Fault((key,), f"must be at least 1, not {value}")
    for name, declared in job.params.items():
        if isinstance(declared, Parameter):
            yield from _check_parameter(("params", name), declared)
    if job.timeout is not None and job.timeout <= 0:
        yield Fault(("timeout",), f"must be more than 0 seconds, not {job.timeout}")


def _check_parameter(path: Path, parameter: Parameter) -> Iterator[Fault]:
    if parameter.type is None:
        return
    kinds = JSON_TYPES.get(parameter.type)
    if kinds is None:
        near = Suggester(JSON_TYPES).nearest(parameter.type)
        yield Fault((*path, "type"), f"must be one of {', '.join(JSON_TYPES)}", near)
    elif parameter.default is not None and type(parameter.default) not in kinds:
        shown = "it" if parameter.secret else describe(parameter.default)
        yield Fault((*path, "default"), f"must be of type {parameter.type}; {shown} is not")


def _check_task(job: JobDefinition, name: str, task: TaskDefinition, names: Suggester) -> Iterator[Fault]:
    path: Path = ("tasks", name)
    if not NAME.fullmatch(name):
        yield Fault(path, f"{quote(name)} is no name; a name has {_NAME_WORDS}")
    if not task.task:
        yield Fault((*path, "task"), "must be the path of a task class")
    seen: dict[str, int] = {}
    for index, other in enumerate(task.depends_on):
        yield from _check_upstream(job, name, task, other, (*path, "depends_on", index), names)
        if other in seen:
            yield Fault(
                (*path, "depends_on", index), f"{quote(other)} stands here already, at [{seen[other]}]"
            )
        seen.setdefault(other, index)
    if not (task.finally_ or task.rule is TriggerRule.ALL_SUCCESS or upstreams(task)):
        yield Fault((*path, "trigger_rule"), "a task that depends on none can only have all_success")
    yield from _check_numbers(path, task)


def _check_numbers(path: Path, task: TaskDefinition) -> Iterator[Fault]:
    retry = task.retry
    at_least_one = (("max_parallel",), task.max_parallel), (("retry", "max_attempts"), retry.max_attempts)
    for key, value in at_least_one:
        if value is not None and value < 1:
            yield Fault((*path, *key), f"must be at least 1, not {value}")
    if task.timeout is not None and task.timeout <= 0:
        yield Fault((*path, "timeout"), f"must be more than 0 seconds, not {task.timeout}")
    for word in ("delay", "max_delay"):
        if getattr(retry, word) < 0:
            yield Fault((*path, "retry", word), f"must not be negative, but is {getattr(retry, word)}")
    if retry.backoff < 1:
        yield Fault((*path, "retry", "backoff"), f"must be at least 1, not {retry.backoff}")


def _check_upstream(
    job: JobDefinition, name: str, task: TaskDefinition, other: str, path: Path, names: Suggester
) -> Iterator[Fault]:
    if other == name:
        yield Fault(path, "a task cannot wait for itself")
    elif other not in job.tasks:
        yield Fault(path, f"no task {quote(other)} in this job", names.nearest(other))
    elif job.tasks[other].finally_ and not task.finally_:
        yield Fault(path, f"{quote(other)} is a finally-task: it starts after all normal tasks")


def _check_values(
    job: JobDefinition, name: str, task: TaskDefinition, tasks: Suggester, params: Suggester
) -> Iterator[Fault]:
    path: Path = ("tasks", name)
    for key in (task.map or {}).keys() & task.args.keys():
        yield Fault((*path, "map", key), f"{quote(key)} is in args too; it can only come from one of them")
    if task.map is not None and not task.map:
        yield Fault((*path, "map"), "must name at least one argument")
    for where, value in (("args", task.args), ("map", task.map or {}), ("run_if", task.run_if)):
        for inside, reference in references(value):
            place = (*path, where, *inside)
            words = reference_fault(reference)
            if words is not None:
                yield Fault(place, words)
                continue
            if "$param" in reference and reference["$param"] not in job.params:
                other = reference["$param"]
                yield Fault(place, f"no parameter {quote(other)} in this job", params.nearest(other))
            if "$result" in reference:
                yield from _check_upstream(job, name, task, reference["$result"], place, tasks)
                yield from _check_default(task, reference, place)
    yield from _check_kinds(path, task)


def _check_default(task: TaskDefinition, reference: Any, path: Path) -> Iterator[Fault]:
    if task.rule in _MAY_START_WITHOUT and "default" not in reference:
        upstream = quote(reference["$result"])
        words = f'needs a "default": {task.rule} may start this task although {upstream} did not succeed'
        yield Fault(path, words)


def _check_kinds(path: Path, task: TaskDefinition) -> Iterator[Fault]:
    # A reference of the wrong form is told of as such.
    condition = task.run_if
    if type(condition) is not bool and not (
        type(condition) is dict and any(key.startswith("$") for key in condition)
    ):
        yield Fault((*path, "run_if"), "must be true, false or a reference")
    for key, value in (task.map or {}).items():
        if type(value) is not list and not (
            type(value) is dict and ("$param" in value or "$result" in value)
        ):
            yield Fault((*path, "map", key), "must be a list, or a reference to one")


def _in_order(after: dict[str, tuple[str, ...]]) -> bool:
    """Whether each task stands after those it waits for: the usual case, found in one pass."""
    seen: set[str] = set()
    for name, upstream in after.items():
        if upstream and not seen.issuperset(upstream):
            return False
        seen.add(name)
    return True


def _find_cycle(after: dict[str, tuple[str, ...]]) -> list[str]:
    """Return one cycle, first name first, or []. Kahn's algorithm on what is left (CACM 5/11, 1962)."""
    number = {name: index for index, name in enumerate(after)}
    names = list(after)
    waits = [[number[o] for o in upstream if o in number and o != name] for name, upstream in after.items()]
    left = [len(upstream) for upstream in waits]
    below: list[list[int]] = [[] for _ in names]
    for index, upstream in enumerate(waits):
        for other in upstream:
            below[other].append(index)
    ready = [index for index, count in enumerate(left) if not count]
    for index in ready:  # grows while it is read
        for successor in below[index]:
            left[successor] -= 1
            if not left[successor]:
                ready.append(successor)
    stuck = next((index for index, count in enumerate(left) if count), None)
    if stuck is None:
        return []
    # Whoever waits waits for somebody who waits: following that comes around.
    order: dict[int, int] = {}
    at = stuck
    while at not in order:
        order[at] = len(order)
        at = next(other for other in waits[at] if left[other])
    walk = list(order)[order[at] :]
    return [names[index] for index in reversed(walk)]


def _show_cycle(cycle: list[str]) -> str:
    first = min(cycle)
    start = cycle.index(first)
    turned = [*cycle[start:], *cycle[:start], first]
    if len(turned) > CYCLE_SHOWN:
        turned = [*turned[: CYCLE_SHOWN - 2], "...", first]
    return " -> ".join(turned)

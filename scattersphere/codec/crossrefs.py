"""What is wrong inside a definition that has the right form: names, references, order, limits.

The usual task was found right while it was read (`quick.py`); the others are looked at here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._text import Suggester
from scattersphere.codec.conditions import condition_faults, map_faults, unreachable_conditions
from scattersphere.codec.cycles import find_cycle, show_cycle
from scattersphere.codec.faults import Fault, Path, describe, quote
from scattersphere.codec.limits import EDGES, TASKS
from scattersphere.codec.params import JSON_TYPES
from scattersphere.model.definition import NAME, Parameter
from scattersphere.model.references import reference_fault, references
from scattersphere.model.states import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.codec.quick import Quick
    from scattersphere.model.definition import JobDefinition, TaskDefinition

UNREAD = "\0"
"""Stands for a name that could not be read and was told of already; no name looks like that."""
_MAY_START_WITHOUT = frozenset(TriggerRule) - {TriggerRule.ALL_SUCCESS}
_NAME_WORDS = "letters, digits, _ . and -, at most 128, not beginning with . or -"


@attrs.define
class Gaps:
    """What could not be read, and was told of: nothing that follows from its absence is told."""

    tasks: set[str] = attrs.field(factory=set)
    params: bool = False
    name: bool = False


def check_references(job: JobDefinition, quick: Quick, gaps: Gaps) -> list[Fault]:
    """Return everything that needs no server to be found wrong.

    `quick` has the upstreams of each task, and names those that were not found right already.
    """
    after = quick.after
    if len(job.tasks) > TASKS:
        return [Fault(("tasks",), f"{len(job.tasks):,} tasks are more than {TASKS:,}")]
    faults = list(_check_job(job, gaps))
    if sum(map(len, after.values())) > EDGES:
        return [*faults, Fault(("tasks",), f"there are more than {EDGES:,} dependencies")]
    closer = [*quick.closer, *_early(job, quick)]
    checks = _Checks(job, gaps)
    for name in closer:
        faults += checks.task(name, job.tasks[name], after[name])
    if quick.ahead and (cycle := find_cycle(quick.indices)):
        names = list(after)
        shown = show_cycle([names[index] for index in cycle])
        faults.append(Fault(("tasks", names[cycle[0]]), f"the tasks wait for each other: {shown}"))
    if closer:
        faults += unreachable_conditions(job, after)
    return faults


def _early(job: JobDefinition, quick: Quick) -> list[str]:
    """Return the names of normal tasks, else right, that wait for a finally-task."""
    late = {quick.number[name] for name in quick.unread if job.tasks[name].finally_}
    if not late:
        return []
    near = set(quick.closer)
    return [
        name
        for name, indices in zip(quick.after, quick.indices, strict=True)
        if not late.isdisjoint(indices) and name not in near
    ]


def _check_job(job: JobDefinition, gaps: Gaps) -> Iterator[Fault]:
    if not gaps.name and not NAME.fullmatch(job.name):
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


class _Checks:
    """The close look at the tasks of one job, and the words for what is found."""

    def __init__(self, job: JobDefinition, gaps: Gaps) -> None:
        self._job = job
        self._gaps = gaps
        self._tasks = Suggester(job.tasks)
        self._params = Suggester(job.params)
        self._endings: dict[str, list[str]] | None = None

    def task(self, name: str, task: TaskDefinition, waits: tuple[str, ...]) -> Iterator[Fault]:
        path: Path = ("tasks", name)
        if not NAME.fullmatch(name):
            yield Fault(path, f"{quote(name)} is no name; a name has {_NAME_WORDS}")
        if not task.task:
            yield Fault((*path, "task"), "must be the path of a task class")
        seen: dict[str, int] = {}
        for index, other in enumerate(task.depends_on):
            place = (*path, "depends_on", index)
            yield from self._upstream(name, task, other, place)
            if other in seen and other != UNREAD:
                yield Fault(place, f"{quote(other)} stands here already, at [{seen[other]}]")
            seen.setdefault(other, index)
        alone = not (task.finally_ or waits or task.rule is TriggerRule.ALL_SUCCESS)
        if alone and name not in self._gaps.tasks:
            yield Fault((*path, "trigger_rule"), "a task that depends on none can only have all_success")
        yield from _check_numbers(path, task)
        if task.args or task.map is not None or task.run_if is not True:
            yield from self._values(name, task, path)

    def _upstream(self, name: str, task: TaskDefinition, other: str, path: Path) -> Iterator[Fault]:
        tasks = self._job.tasks
        if other == UNREAD:
            return
        if other == name:
            yield Fault(path, "a task cannot wait for itself")
        elif other not in tasks:
            near = self._tasks.nearest(other) or self._ending(other)
            yield Fault(path, f"no task {quote(other)} in this job", near)
        elif tasks[other].finally_ and not task.finally_ and name not in self._gaps.tasks:
            yield Fault(path, f"{quote(other)} is a finally-task: it starts after all normal tasks")

    def _ending(self, other: str) -> str | None:
        """Return the one task whose name ends in `.other`: `one.load` where `load` was written."""
        if self._endings is None:
            self._endings = {}
            for name in self._job.tasks:
                for dot in re.finditer(r"\.", name):
                    self._endings.setdefault(name[dot.end() :], []).append(name)
        found = self._endings.get(other, [])
        return found[0] if len(found) == 1 and other else None

    def _values(self, name: str, task: TaskDefinition, path: Path) -> Iterator[Fault]:
        if task.map is not None and not task.map and name not in self._gaps.tasks:
            yield Fault((*path, "map"), "must name at least one argument")
        for where, arguments in (("args", task.args), ("map", task.map or {})):
            for key, value in arguments.items():
                if key.startswith("$"):
                    words = f"names arguments; write {{{quote('name')}: {{{quote(key)}: ..}}}}"
                    yield Fault((*path, where, key), f'"{where}" {words}')
                for inside, reference in references(value):
                    yield from self._reference(name, task, reference, (*path, where, key, *inside))
        for inside, reference in references(task.run_if):
            yield from self._reference(name, task, reference, (*path, "run_if", *inside))
        yield from map_faults(self._job, task, path)
        yield from condition_faults(self._job, task, path)

    def _reference(
        self, name: str, task: TaskDefinition, reference: Mapping[str, Any], place: Path
    ) -> Iterator[Fault]:
        words = reference_fault(reference)
        if words is not None:
            yield Fault(place, words)
            return
        if "$param" in reference and not self._gaps.params and reference["$param"] not in self._job.params:
            other = reference["$param"]
            yield Fault(place, f"no parameter {quote(other)} in this job", self._params.nearest(other))
        if "$result" in reference:
            other = reference["$result"]
            yield from self._upstream(name, task, other, place)
            if task.rule in _MAY_START_WITHOUT and "default" not in reference and other in self._job.tasks:
                words = f"{task.rule} may start this task although {quote(other)} did not succeed"
                yield Fault(place, f'needs a "default": {words}')


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

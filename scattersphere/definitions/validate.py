"""Validation of a definition that has the right form: names, references, conditions, order, limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from scattersphere._cached import cached_property
from scattersphere._graphs import find_cycle
from scattersphere._json_words import MOST_PROBLEMS, Path, RawProblem, describe, quote
from scattersphere._text import Suggester
from scattersphere._turns import EACH, WAY
from scattersphere.definitions.converter import UNREAD
from scattersphere.definitions.parameters import JSON_KINDS, resolve_params
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import TASKS, Parameter
from scattersphere.model.forms import NAME
from scattersphere.model.references import reference_fault, reference_kind, references
from scattersphere.model.states import TriggerRule
from scattersphere.schedules.check import example_params, schedule_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scattersphere.model.definition import JobDefinition, TaskDefinition

EDGES: Final = 1_000_000
"""Dependencies of a job, declared and implied."""
CYCLE_SHOWN: Final = 10
"""Names of a cycle that are shown (design, section 4)."""
_MAY_START_WITHOUT = frozenset(TriggerRule) - {TriggerRule.ALL_SUCCESS}
_USUAL_RULES = (None, TriggerRule.ALL_SUCCESS)
_NAME_WORDS = "letters, digits, _ . and -, at most 128, not beginning with . or -"
_UPSTREAM_KEYS = frozenset({"depends_on", "args", "map", "run_if", "trigger_rule", "finally"})
_MISSING = object()
_NOTHING: frozenset[str] = frozenset()


@attrs.define
class Unread:
    """What of a definition could not be read, and was told of: nothing that follows from its absence is told."""

    job: set[str] = attrs.field(factory=set)
    """Keys of the job."""
    tasks: dict[str, set[str]] = attrs.field(factory=dict)
    """Keys by task; "" for all of them."""

    schedules: set[str] = attrs.field(factory=set)
    """Schedules of which something could not be read."""

    def in_task(self, name: str, keys: Iterable[str]) -> bool:
        """Whether one of the keys of a task was not read."""
        unread = self.tasks.get(name, _NOTHING)
        return bool(unread) and ("" in unread or not unread.isdisjoint(keys))


@attrs.frozen
class Findings:
    """The problems of a definition, and what each task waits for: names, and numbers of those that there are."""

    problems: list[RawProblem]
    upstreams: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    upstream_indices: list[tuple[int, ...]] = attrs.field(factory=list)


def validate(job: JobDefinition, unread: Unread) -> Findings:
    """Find everything that needs no server to be found wrong."""
    if len(job.tasks) > TASKS:
        return Findings([RawProblem(("tasks",), f"{len(job.tasks):,} tasks are more than {TASKS:,}")])
    problems = list(_job_problems(job, unread))
    checks = _TaskChecks(job, unread, problems)
    upstreams = {}
    try:
        for name, task in EACH.get()(job.tasks.items()):
            upstreams[name] = checks.task(name, task)
    except _EnoughError:
        return Findings(problems)
    if sum(map(len, upstreams.values())) > EDGES:
        return Findings([*problems, RawProblem(("tasks",), f"there are more than {EDGES:,} dependencies")])
    number = {name: index for index, name in enumerate(EACH.get()(upstreams))}
    indices = [
        tuple([number[other] for other in waits if other in number])
        for waits in EACH.get()(upstreams.values())
    ]
    if cycle := find_cycle(indices):
        names = list(upstreams)
        shown = _show_cycle([names[index] for index in cycle])
        problems.append(RawProblem(("tasks", names[cycle[0]]), f"the tasks wait for each other: {shown}"))
    problems += _unreachable_conditions(job, upstreams)
    return Findings(problems, upstreams, indices)


def _job_problems(job: JobDefinition, unread: Unread) -> Iterator[RawProblem]:
    if "name" not in unread.job and not NAME.fullmatch(job.name):
        yield RawProblem(("name",), f"{quote(job.name)} is no name; a name has {_NAME_WORDS}")
    for name, declared in EACH.get()(job.params.items()):
        if isinstance(declared, Parameter):
            yield from _parameter_problems(("params", name), declared)
    if job.schedules:
        for path, words, near in schedule_faults(job):
            if not (len(path) == 2 and path[1] in unread.schedules):  # noqa: PLR2004 - of a schedule as a whole
                yield RawProblem(path, words, near)
        if "params" not in unread.job:
            yield from _scheduled_params(job)


def _scheduled_params(job: JobDefinition) -> Iterator[RawProblem]:
    """Say so where runs of a schedule would be refused because of their parameters."""
    for name, schedule in EACH.get()(job.schedules.items()):
        try:
            resolve_params(job, example_params(schedule.params))
        except DefinitionError as error:
            for problem in error.problems:
                parameter = problem.path.removeprefix("params.")
                if parameter in schedule.params:
                    path: Path = ("schedules", name, "params", parameter)
                    yield RawProblem(path, problem.message, problem.suggestion)
                else:
                    words = f"does not give the parameter {quote(parameter)}, which is required"
                    yield RawProblem(("schedules", name), words)


def _parameter_problems(path: Path, parameter: Parameter) -> Iterator[RawProblem]:
    kinds = JSON_KINDS.get(parameter.type or "")
    if kinds is not None and parameter.default is not None and type(parameter.default) not in kinds:
        shown = "it" if parameter.secret else describe(parameter.default)
        yield RawProblem((*path, "default"), f"must be of type {parameter.type}; {shown} is not")
    if parameter.env is not None and not parameter.secret:
        yield RawProblem((*path, "env"), 'is for secrets only: write "secret": true beside it')


def _show_cycle(cycle: list[str]) -> str:
    """Write a cycle from its least name on, at most `CYCLE_SHOWN` names: `clean -> mail -> clean`."""
    first = min(cycle)
    start = cycle.index(first)
    turned = [*cycle[start:], *cycle[:start], first]
    if len(turned) > CYCLE_SHOWN:
        turned = [*turned[: CYCLE_SHOWN - 2], "...", first]
    return " -> ".join(turned)


class _EnoughError(Exception):
    """There are so many problems that no more are looked for."""


class _TaskChecks:
    """Looks at the tasks of one job, one by one, and notes the problems."""

    def __init__(self, job: JobDefinition, unread: Unread, problems: list[RawProblem]) -> None:
        self._job = job
        self._unread = unread
        self._way = WAY.get()
        self._problems = problems
        self._usual = {name for name, task in EACH.get()(job.tasks.items()) if not task.finally_}
        """What a task may wait for without a closer look."""

    @cached_property
    def _tasks(self) -> Suggester:
        return Suggester(self._job.tasks)

    @cached_property
    def _params(self) -> Suggester:
        return Suggester(self._job.params)

    def _note(self, path: Path, message: str, suggestion: str | None = None) -> None:
        self._problems.append(RawProblem(path, message, suggestion))
        if len(self._problems) >= MOST_PROBLEMS:
            raise _EnoughError

    def task(self, name: str, task: TaskDefinition) -> tuple[str, ...]:
        """Check a task; return what it waits for: the tasks declared, then those whose results it takes."""
        if not NAME.fullmatch(name):
            self._note(("tasks", name), f"{quote(name)} is no name; a name has {_NAME_WORDS}")
        if not task.task:
            self._note(("tasks", name, "task"), "must be the path of a task class")
        waits = dict.fromkeys(task.depends_on)
        if name in waits or len(waits) != len(task.depends_on) or not self._usual.issuperset(waits):
            self._depends_on(name, task)
        if task.args:
            self._values(name, task, "args", task.args, waits)
        if task.map is not None:
            self._values(name, task, "map", task.map, waits)
            self._map(name, task)
        if task.run_if is not True:
            for inside, reference in references(task.run_if):
                self._reference(name, task, reference, ("tasks", name, "run_if", *inside), waits)
            self._condition(name, task)
        alone = not (waits or task.finally_ or task.trigger_rule in _USUAL_RULES)
        if alone and not self._unread.in_task(name, _UPSTREAM_KEYS):
            self._note(
                ("tasks", name, "trigger_rule"), "a task that depends on none can only have all_success"
            )
        return tuple(waits)

    def _depends_on(self, name: str, task: TaskDefinition) -> None:
        seen: dict[str, int] = {}
        for index, other in enumerate(EACH.get()(task.depends_on)):
            path = ("tasks", name, "depends_on", index)
            self._upstream(name, task, other, path)
            if other in seen and other != UNREAD:
                self._note(path, f"{quote(other)} stands here already, at [{seen[other]}]")
            seen.setdefault(other, index)

    def _upstream(self, name: str, task: TaskDefinition, other: str, path: Path) -> None:
        tasks = self._job.tasks
        if other == UNREAD:
            return
        if other == name:
            self._note(path, "a task cannot wait for itself")
        elif other not in tasks:
            near = self._tasks.nearest(other) or self._ending(other)
            self._note(path, f"no task {quote(other)} in this job", near)
        elif tasks[other].finally_ and not (task.finally_ or self._unread.in_task(name, ["finally"])):
            self._note(path, f"{quote(other)} is a finally-task: it starts after all normal tasks")

    def _ending(self, other: str) -> str | None:
        """Return the one task whose name ends in `.other`: `one.load` where `load` was written."""
        found = self._endings.get(other, [])
        return found[0] if len(found) == 1 and other else None

    @cached_property
    def _endings(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._job.tasks:
            for dot in re.finditer(r"\.", name):
                found.setdefault(name[dot.end() :], []).append(name)
        return found

    def _values(
        self,
        name: str,
        task: TaskDefinition,
        where: str,
        values: Mapping[str, object],
        waits: dict[str, Any],
    ) -> None:
        """Check the references in arguments; add those that are results to `waits`."""
        for key, value in values.items():
            if key.startswith("$"):
                words = f"names arguments; write {{{quote('name')}: {{{quote(key)}: ..}}}}"
                self._note(("tasks", name, where, key), f'"{where}" {words}')
            if (
                type(value) is dict
                and len(value) == 1
                and type(of := value.get("$param")) is str
                and of in self._job.params
            ):
                continue  # by far the most references are such a one, and right
            if type(value) is dict or type(value) is list:
                for inside, reference in references(value):
                    if self._way:
                        self._way()
                    self._reference(name, task, reference, ("tasks", name, where, key, *inside), waits)

    def _reference(
        self,
        name: str,
        task: TaskDefinition,
        reference: Mapping[str, Any],
        path: Path,
        waits: dict[str, Any],
    ) -> None:
        other = reference.get("$result")
        if type(other) is str:
            waits.setdefault(other)
        if (words_of_form := reference_fault(reference)) is not None:
            self._note(path, words_of_form)
        elif "$param" in reference:
            other = reference["$param"]
            if other not in self._job.params and "params" not in self._unread.job:
                self._note(path, f"no parameter {quote(other)} in this job", self._params.nearest(other))
        elif other is not None:
            if other not in self._usual or other == name:
                self._upstream(name, task, other, path)
            if task.rule in _MAY_START_WITHOUT and "default" not in reference and other in self._job.tasks:
                words = f"{task.rule} may start this task although {quote(other)} did not succeed"
                self._note(path, f'needs a "default": {words}')

    def _condition(self, name: str, task: TaskDefinition) -> None:
        """Note what is wrong with a `run_if`: it is a bool or refers to one that can be true and false."""
        condition, path = task.run_if, ("tasks", name, "run_if")
        if type(condition) is bool:
            return
        kind = _good_reference(condition)
        if kind is None:
            if not _is_reference(condition):
                self._note(path, "must be true, false or a reference")
            return
        value = self._known_value(condition, kind)
        if value is not _MISSING and type(value) is not bool:
            self._note(path, f"must be true or false, not {describe(value)}")
        if kind == "$param":
            self._declared(condition["$param"], "boolean", path)
        elif kind == "$result" and task.rule is TriggerRule.ALL_FAILED:
            upstream = quote(condition["$result"])
            words = f"is never asked for the result: all_failed starts this task only where {upstream} failed"
            self._note(path, words)

    def _map(self, name: str, task: TaskDefinition) -> None:
        """Note what is wrong with the lists of a `map`."""
        if task.map is None:
            return
        if not task.map and not self._unread.in_task(name, ["map"]):
            self._note(("tasks", name, "map"), "must name at least one argument")
        for key, value in task.map.items():
            path = ("tasks", name, "map", key)
            if key in task.args:
                self._note(path, f"{quote(key)} is in args too; it can only come from one of them")
            if type(value) is list:
                continue
            kind = _good_reference(value)
            if kind is None:
                if not _is_reference(value):
                    self._note(path, f"must be a list, or a reference to one, not {describe(value)}")
                continue
            known = self._known_value(value, kind)
            if known is not _MISSING and type(known) is not list:
                self._note(path, f"must be a list, not {describe(known)}")
            elif kind == "$param":
                self._declared(value["$param"], "array", path)

    def _known_value(self, reference: Mapping[str, Any], kind: str) -> object:
        """Return the value that is known before a run: a literal, a default. `_MISSING` where there is none."""
        if kind == "$literal":
            return reference["$literal"]
        if kind == "$result":
            default = reference.get("default", _MISSING)
            return _MISSING if _is_reference(default) else default
        declared = self._job.params.get(reference["$param"], _MISSING)
        # The long form is judged by its type; its default may be missing, or a secret.
        return _MISSING if isinstance(declared, Parameter) else declared

    def _declared(self, name: str, wanted: str, path: Path) -> None:
        declared = self._job.params.get(name)
        if isinstance(declared, Parameter) and declared.type not in (None, wanted):
            words = f"must be of type {wanted}; the parameter {quote(name)} is of type {declared.type}"
            self._note(path, words)


def _is_reference(value: object) -> bool:
    """Whether it means to be a reference; one of the wrong form is told of as such elsewhere."""
    return type(value) is dict and any(key.startswith("$") for key in value)


def _good_reference(value: Any) -> str | None:
    if not _is_reference(value) or reference_fault(value) is not None:
        return None
    return reference_kind(value)


def _unreachable_conditions(
    job: JobDefinition, upstreams: Mapping[str, tuple[str, ...]]
) -> Iterator[RawProblem]:
    """Yield the `run_if`s that nobody asks: an upstream is always skipped, so their task never starts."""
    never = {name: name for name, task in EACH.get()(job.tasks.items()) if task.run_if is False}
    if not never:
        return
    below: dict[str, list[str]] = {}
    for name, waits in EACH.get()(upstreams.items()):
        if job.tasks[name].rule is TriggerRule.ALL_SUCCESS:
            for other in waits:
                below.setdefault(other, []).append(name)
    for name in EACH.get()(queue := list(never)):  # grows while it is read
        for successor in below.get(name, ()):
            if successor not in never:
                never[successor] = never[name]
                queue.append(successor)
    for name, cause in EACH.get()(never.items()):
        if name != cause and job.tasks[name].run_if is not True:
            words = f'is never asked: {quote(cause)} has "run_if": false, so this task is skipped too'
            yield RawProblem(("tasks", name, "run_if"), words)

"""A plan: a definition whose tasks have met their code. `planning.py` makes it, for any number of runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._json_words import Path, RawProblem, describe
from scattersphere.abc.backend import NO_NEEDS
from scattersphere.definitions import placed
from scattersphere.engine.machine.graph import CompiledGraph
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import JobDefinition, TaskDefinition
from scattersphere.model.references import Template, references
from scattersphere.model.taskclass import TaskClass, TaskParameter
from scattersphere.runnable import RunnableTask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEVER_CHANGED = frozenset({bool, int, float, str, bytes, type(None)})


@attrs.frozen(eq=False)
class Argument:
    """One argument of a task that is not the same for every attempt."""

    name: str
    template: Template
    parameter: TaskParameter

    def value(self, params: Mapping[str, object], result_of: Callable[[str], object]) -> object:
        """Return the value for one attempt: filled in, and structured unless a result is in it."""
        filled = self.template.fill(params, result_of)
        return filled if self.template.has_result else self.parameter.structure(filled)


@attrs.frozen(eq=False)
class MadeBy:
    """The version of a task's code, which is known even when the code is gone."""

    code: str
    """Its label: `etl@91be07`."""
    digest: str


@attrs.define(eq=False, slots=True)
class PlannedTask:
    """A task of a plan, with all that can be known before an attempt."""

    name: str
    definition: TaskDefinition
    task_class: TaskClass
    cls: type[RunnableTask]
    made_by: MadeBy
    fixed: Mapping[str, object]
    """Arguments that every attempt shares; beside them may stand, unfilled, what `varying` puts in their place.
    So it is mostly the very object of the definition."""
    varying: tuple[Argument, ...]
    """Arguments that are made for each attempt."""
    mapped: tuple[tuple[str, Template], ...]
    run_if: Template | None
    backend: str
    on_loop: bool
    """Whether it runs on the event loop itself."""
    plain: bool
    """On the loop, without hooks: the path that must be quick."""
    same_for_all: bool
    """Whether every attempt has the same arguments."""
    needs: Mapping[str, int] = NO_NEEDS
    """What its backend is told that it needs, because that looks after it; else the pools do."""

    def let_go(self) -> None:
        """Forget the task class, so that nothing of ours keeps its version alive."""
        del self.task_class, self.cls, self.varying

    def arguments(
        self, params: Mapping[str, object], result_of: Callable[[str], object], elements: Sequence[object]
    ) -> dict[str, object]:
        """Return the keyword arguments of one attempt. Raises what filling and structuring raise.

        `elements` are of the lists that it is mapped over: those of an upstream's result are passed by reference, as
        results are; others are each attempt's own.
        """
        arguments = dict(self.fixed)
        for argument in self.varying:
            arguments[argument.name] = argument.value(params, result_of)
        for (key, template), element in zip(self.mapped, elements, strict=False):
            own = template.has_result or type(element) in _NEVER_CHANGED
            arguments[key] = element if own else copy.deepcopy(element)
        return arguments


@attrs.frozen(eq=False, kw_only=True)
class Plan:
    """A definition with one version of each bundle, validated, in topological order."""

    job: str
    """The name of the job."""
    definition: JobDefinition
    tasks: tuple[PlannedTask, ...]
    index: Mapping[str, int]
    graph: CompiledGraph
    versions: frozenset[Any]
    size: int
    fed: tuple[PlannedTask, ...] = attrs.field(repr=False)
    """The tasks that have arguments which are not the same for every attempt."""
    _stays: dict[str, bool] = attrs.field(factory=dict, init=False, repr=False)
    """What `result_may_stay` says; made when it is first asked."""

    def result_may_stay(self, name: str) -> bool:
        """Whether nothing here needs a task's result: all that wait for it run on its backend and take it whole."""
        if not self._stays:
            self._stays.update(_results_that_may_stay(self))
        return self._stays[name]

    @property
    def has_code(self) -> bool:
        """Whether the code is still there."""
        return all(hasattr(task, "task_class") for task in self.tasks)

    def let_go(self) -> None:
        """Forget the code: its version was released. Kept runs still know names and definitions."""
        for task in self.tasks:
            task.let_go()

    def check_params(self, params: Mapping[str, object]) -> None:
        """Check the arguments that parameters of the run make. Raises `DefinitionError`."""
        problems: list[RawProblem] = []
        right: set[int] = set()
        for task in self.fed:
            for argument in task.varying:
                # Many tasks may share one argument.
                if argument.template.has_result or id(argument) in right:
                    continue
                value = argument.template.fill(params, no_results)
                found = argument.parameter.check(value)
                if found:
                    problems += value_problems(("tasks", task.name, "args", argument.name), found)
                else:
                    right.add(id(argument))
            for key, template in task.mapped:
                if not template.has_result:
                    value = template.fill(params, no_results)
                    place = ("tasks", task.name, "map", key)
                    problems += element_problems(place, task.task_class.parameters[key], value)
        if problems:
            raise DefinitionError(placed(self.definition, problems), source=f"run of {self.job}")


def _results_that_may_stay(plan: Plan) -> dict[str, bool]:
    mapped = {task.name for task in plan.tasks if task.mapped}
    backends = {task.name: task.backend for task in plan.tasks}
    stays = {task.name: not task.on_loop for task in plan.tasks}
    for task in plan.tasks:
        for waited in plan.definition.upstreams[task.name]:
            if backends[waited] != task.backend:
                stays[waited] = False
        definition = task.definition
        places = (definition.args, False), (definition.map or {}, True), (definition.run_if, True)
        for value, looked_at in places:
            for _, reference in references(value):
                name = reference.get("$result")
                # The result of a mapped task is a list of those of its instances: that is here, they may stay.
                if name in stays and (reference.get("pointer") or (looked_at and name not in mapped)):
                    stays[str(name)] = False
    return stays


def element_problems(where: Path, parameter: TaskParameter, value: Any) -> list[RawProblem]:
    """Return what is wrong with the list that a map goes over, element by element."""
    if type(value) not in (list, tuple):
        return [RawProblem(where, f"must be a list, not {describe(value)}")]
    problems: list[RawProblem] = []
    for index, element in enumerate(value):
        problems += value_problems((*where, index), parameter.check(element))
    return problems


def value_problems(where: Path, problems: list[tuple[str, str]]) -> list[RawProblem]:
    """Turn what a parameter says of a value at `where` into problems: its pointers go on from there."""
    return [RawProblem((*where, *_steps(pointer)), words) for pointer, words in problems]


def _steps(pointer: str) -> Path:
    steps = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
    return tuple(int(step) if step.isdecimal() else step for step in steps)


def no_results(name: str) -> object:
    """Stand in for the results where there can be none. Raises `LookupError`."""
    raise LookupError(name)

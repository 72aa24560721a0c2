"""A plan: a definition whose tasks have met their code, compiled once for any number of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec.faults import Suggester
from scattersphere.errors import AmbiguousTaskError, DefinitionError, NotFoundError, UnresolvedError
from scattersphere.execution.machine.shape import Shape, TaskShape
from scattersphere.model.definition import JobDefinition, TaskDefinition
from scattersphere.model.problem import Problem
from scattersphere.model.references import Template, compile_argument, upstreams
from scattersphere.model.taskclass import TaskClass, TaskParameter
from scattersphere.task import RunnableTask

if TYPE_CHECKING:
    from collections.abc import Callable

    Find = Callable[[str, str | None], TaskClass]

_SHARED_TYPES = frozenset({bool, int, float, str, bytes, type(None)})
"""Values of these may be shared by all instances: nobody can change them."""


@attrs.frozen(eq=False)
class Argument:
    """One argument of a task that is not the same for every attempt."""

    name: str
    template: Template
    parameter: TaskParameter

    def value(self, params: Mapping[str, Any], result_of: Callable[[str], Any]) -> Any:
        """Return the value for one attempt: filled in, and structured unless a result is in it."""
        filled = self.template.fill(params, result_of)
        return filled if self.template.has_result else self.parameter.structure(filled)


@attrs.define(eq=False, slots=True)
class PlannedTask:
    """A task of a plan, with all that can be known before an attempt."""

    name: str
    definition: TaskDefinition
    task_class: TaskClass
    cls: type[RunnableTask]
    fixed: dict[str, Any]
    """Arguments that every attempt shares."""
    varying: tuple[Argument, ...]
    """Arguments that are made for each attempt."""
    mapped: tuple[tuple[str, Template], ...]
    run_if: Template | None
    upstreams: tuple[str, ...]
    backend: str
    plain: bool
    """On the loop, without hooks, with fixed arguments only: the path that must be quick."""

    def let_go(self) -> None:
        """Forget the task class, so that nothing of ours keeps its version alive."""
        del self.task_class, self.cls, self.varying

    def arguments(
        self, params: Mapping[str, Any], result_of: Callable[[str], Any], element: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the keyword arguments of one attempt. Raises what filling and structuring raise."""
        arguments = dict(self.fixed)
        for argument in self.varying:
            arguments[argument.name] = argument.value(params, result_of)
        arguments.update(element)
        return arguments


@attrs.frozen(eq=False, kw_only=True)
class Plan:
    """A definition with one version of each bundle, validated, in topological order."""

    definition: JobDefinition
    tasks: tuple[PlannedTask, ...]
    index: Mapping[str, int]
    shape: Shape
    versions: frozenset[Any]
    size: int

    @property
    def job(self) -> str:
        """The name of the job."""
        return self.definition.name

    def let_go(self) -> None:
        """Forget the code: its version was released. Kept runs still know names and definitions."""
        for task in self.tasks:
            task.let_go()

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Check the arguments that parameters of the run make. Raises `DefinitionError`."""
        problems: list[Problem] = []
        for task in self.tasks:
            for argument in task.varying:
                if not argument.template.has_result:
                    value = argument.template.fill(params, _no_results)
                    where = f"tasks.{task.name}.args.{argument.name}"
                    problems += _faults(where, argument.parameter.check(value))
        if problems:
            raise DefinitionError(problems, source=f"run of {self.job}")


def compile_plan(definition: JobDefinition, find: Find, known_backends: frozenset[str]) -> Plan:
    """Bring a definition and the current code together.

    The caller has checked the definition by itself. Raises `UnresolvedError` whose problems name
    everything that the code lacks or refuses.
    """
    problems: list[Problem] = []
    tasks: list[PlannedTask] = []
    index = {name: number for number, name in enumerate(definition.tasks)}
    for name, task in definition.tasks.items():
        planned = _plan_task(name, task, find, known_backends, problems)
        if planned is not None:
            tasks.append(planned)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems[:50])
        raise UnresolvedError(f"job {definition.name!r} cannot run:\n{listing}", problems)
    return Plan(
        definition=definition,
        tasks=tuple(tasks),
        index=index,
        shape=_shape(definition, tasks, index),
        size=len(tasks),
        versions=frozenset(t.task_class.version for t in tasks if t.task_class.version is not None),
    )


def _shape(definition: JobDefinition, tasks: list[PlannedTask], index: Mapping[str, int]) -> Shape:
    return Shape(
        [
            TaskShape(
                upstreams=tuple(index[upstream] for upstream in planned.upstreams),
                rule=planned.definition.rule,
                finally_=planned.definition.finally_,
                max_attempts=planned.definition.retry.max_attempts,
                mapped=bool(planned.mapped),
                conditional=planned.run_if is not None,
                pools=_pools(planned),
                max_parallel=planned.definition.max_parallel,
                priority=planned.definition.priority,
                allow_failure=planned.definition.allow_failure,
                keeps_result=planned.definition.keep_results,
            )
            for planned in tasks
        ],
        max_parallel=definition.max_parallel,
        fail_fast=definition.fail_fast,
    )


def _pools(planned: PlannedTask) -> tuple[str, ...]:
    # A backend with a limit is a pool under a name that no user's pool can have.
    own = () if planned.definition.pool is None else (planned.definition.pool,)
    return own if planned.backend == "loop" else (*own, f"backend:{planned.backend}")


def _plan_task(
    name: str, task: TaskDefinition, find: Find, backends: frozenset[str], problems: list[Problem]
) -> PlannedTask | None:
    try:
        task_class = find(task.task, task.bundle)
    except (NotFoundError, AmbiguousTaskError) as exc:
        problems.append(Problem(f"tasks.{name}.task", str(exc)))
        return None
    backend = task.backend or ("loop" if task_class.is_async else "thread")
    problems.extend(_backend_problems(name, backend, task_class, backends))
    fixed, varying = _bind(name, task, task_class, problems)
    run_if = None if task.run_if is True else compile_argument(task.run_if)
    return PlannedTask(
        name=name,
        definition=task,
        task_class=task_class,
        cls=task_class.cls,
        fixed=fixed,
        varying=varying,
        mapped=tuple((key, compile_argument(value)) for key, value in (task.map or {}).items()),
        run_if=run_if,
        upstreams=upstreams(task),
        backend=backend,
        plain=backend == "loop" and not task_class.hooks and not varying and not task.map,
    )


def _backend_problems(
    name: str, backend: str, task_class: TaskClass, backends: frozenset[str]
) -> list[Problem]:
    if backend not in backends:
        known = ", ".join(sorted(backends))
        return [Problem(f"tasks.{name}.backend", f"no backend {backend!r}; this Server has {known}")]
    if backend == "loop" and not task_class.is_async:
        words = f"{task_class.path}.run is a plain function; it would hold the loop. Use thread or process"
        return [Problem(f"tasks.{name}.backend", words)]
    if backend == "thread" and task_class.is_async:
        words = f"{task_class.path}.run is async; it runs on the loop or in a process"
        return [Problem(f"tasks.{name}.backend", words)]
    return []


def _bind(
    name: str, task: TaskDefinition, task_class: TaskClass, problems: list[Problem]
) -> tuple[dict[str, Any], tuple[Argument, ...]]:
    """Check the arguments against the parameters, and settle what need not be made anew."""
    fixed: dict[str, Any] = {}
    varying: list[Argument] = []
    for key, value in task.args.items():
        parameter = task_class.parameters.get(key)
        where = f"tasks.{name}.args.{key}"
        if parameter is None:
            problems.append(_unknown_argument(where, key, task_class))
            continue
        template = compile_argument(value)
        if not template.constant:
            varying.append(Argument(key, template, parameter))
            continue
        literal = template.fill({}, _no_results)
        faults = parameter.check(literal)
        problems += _faults(where, faults)
        if faults:
            continue
        structured = parameter.structure(literal)
        if type(structured) in _SHARED_TYPES:
            fixed[key] = structured
        else:
            varying.append(Argument(key, template, parameter))
    given = task.args.keys() | (task.map or {}).keys()
    for key in task.map or {}:
        if key not in task_class.parameters:
            problems.append(_unknown_argument(f"tasks.{name}.map.{key}", key, task_class))
    for parameter in task_class.parameters.values():
        if parameter.required and parameter.name not in given:
            words = f"{task_class.path} needs {parameter.name!r} ({parameter.type_name})"
            problems.append(Problem(f"tasks.{name}.args", words))
    return fixed, tuple(varying)


def _faults(where: str, faults: list[tuple[str, str]]) -> list[Problem]:
    return [Problem(where + pointer.replace("/", "."), words) for pointer, words in faults]


def _unknown_argument(where: str, key: str, task_class: TaskClass) -> Problem:
    near = Suggester(task_class.parameters).nearest(key)
    return Problem(where, f"{task_class.path} takes no {key!r}", suggestion=near)


def _no_results(name: str) -> Any:
    raise LookupError(name)

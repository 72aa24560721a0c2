"""Bring a definition and the current code together: everything that the code lacks or refuses, or a plan.

The tasks of a large job are much alike, so what they share is worked out once: the class behind a path,
an argument that is one and the same parameter of the run, the shape that the machine sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.codec import collection_paused, locate
from scattersphere.codec.crossrefs import UNREAD
from scattersphere.codec.faults import Fault, Path, Suggester
from scattersphere.errors import AmbiguousTaskError, NotFoundError, UnresolvedError, listing
from scattersphere.execution.logs.failures import describe
from scattersphere.execution.machine.shape import Shape, TaskShape
from scattersphere.execution.plan import (
    Argument,
    Plan,
    PlannedTask,
    element_faults,
    no_results,
    value_faults,
)
from scattersphere.model.references import Template, compile_argument
from scattersphere.model.taskclass import TaskClass, TaskParameter

if TYPE_CHECKING:
    from scattersphere.model.definition import JobDefinition, TaskDefinition

Find = Callable[[str, str | None], TaskClass]
StandIn = Callable[[PlannedTask], PlannedTask]
"""Puts another task in the place of one that was checked: tests put their fakes into plans with it."""

_SHARED_TYPES = frozenset({bool, int, float, str, bytes, type(None)})
"""Values of these may be shared by all instances: nobody can change them."""
_EXACT = frozenset({bool, int, str})
"""A value of one of these is right, as it is, for a parameter annotated so."""
_BACKENDS = ("loop", "thread")
_SHAPING = frozenset(
    {
        "map",
        "run_if",
        "trigger_rule",
        "finally_",
        "allow_failure",
        "keep_results",
        "max_parallel",
        "pool",
        "priority",
    }
)
"""The fields of a task that the machine sees, but for the number of attempts and the backend."""


@attrs.frozen(eq=False)
class _Known:
    """What all tasks of one class share. `faults` are what is wrong with each of them."""

    task_class: TaskClass
    backend: str
    required: frozenset[str]
    exact: Mapping[str, type]
    """The parameters whose annotation is one of `_EXACT`."""
    code: str
    shared: dict[tuple[str, str], Argument] = attrs.field(factory=dict)
    """Arguments that are a parameter of the run: (argument, parameter)."""
    shapes: dict[int, TaskShape] = attrs.field(factory=dict)
    """By the number of attempts, the shapes of tasks that say nothing else of what the machine sees."""


def compile_plan(
    definition: JobDefinition, find: Find, known_backends: frozenset[str], stand_in: StandIn | None = None
) -> Plan:
    """Return the plan of a definition that has been checked by itself.

    Raises `UnresolvedError` whose problems name everything that the code lacks or refuses.
    """
    with collection_paused(tasks=len(definition.tasks)):
        planner = _Planner(find, known_backends, stand_in)
        upstreams = definition.upstreams
        for name, task in definition.tasks.items():
            planner.add(name, task, upstreams[name])
        if planner.faults:
            problems = locate(definition, planner.faults)
            raise UnresolvedError(listing(f"job {definition.name!r} cannot run", problems), problems)
        return _plan(definition, planner)


def code_faults(definition: JobDefinition, find: Find, known_backends: frozenset[str]) -> list[Fault]:
    """Return what a definition, right or wrong by itself, lacks of the code or is refused by it."""
    planner = _Planner(find, known_backends)
    for name, task in definition.tasks.items():
        if task.task != UNREAD:  # that it names no class was told of already
            planner.add(name, task, ())
    return planner.faults


def _plan(definition: JobDefinition, planner: _Planner) -> Plan:
    index = {name: number for number, name in enumerate(definition.tasks)}
    number_of = index.__getitem__
    shape = Shape(
        planner.shapes,
        upstreams=[tuple(map(number_of, planned.upstreams)) for planned in planner.tasks],
        checked=definition.checked,
        max_parallel=definition.max_parallel,
        fail_fast=definition.fail_fast,
    )
    versions = {known.task_class.version for known in planner.classes.values() if known is not None}
    return Plan(
        definition=definition,
        tasks=tuple(planner.tasks),
        index=index,
        shape=shape,
        size=len(planner.tasks),
        versions=frozenset(versions - {None}),
    )


class _Planner:
    """Collects the planned tasks of one definition, and the faults."""

    def __init__(self, find: Find, backends: frozenset[str], stand_in: StandIn | None = None) -> None:
        self._find = find
        self._stand_in = stand_in
        self._backends = backends
        self.tasks: list[PlannedTask] = []
        self.shapes: list[TaskShape] = []
        self.faults: list[Fault] = []
        self.classes: dict[tuple[str, str | None], _Known | None] = {}
        self._missing: dict[tuple[str, str | None], str] = {}
        self._shapes: dict[tuple[Any, ...], TaskShape] = {}

    def add(self, name: str, task: TaskDefinition, upstreams: tuple[str, ...]) -> None:
        """Plan one task, or note what is wrong with it."""
        known = self.classes.get((task.task, task.bundle)) or self._class_of(name, task)
        if known is None:
            return
        task_class = known.task_class
        backend = task.backend or known.backend
        if task.backend is not None:
            self._check_backend(name, backend, task_class)
        fixed: dict[str, Any] = {}
        args = task.args
        varying = self._bind(name, args, known, fixed) if args else ()
        mapped: tuple[tuple[str, Template], ...] = ()
        given: Any = args.keys()
        run_if = None
        # What is not in the instance is as the class has it: the loader leaves defaults out.
        own = vars(task)
        if "map" in own and task.map:
            mapped = self._map(name, task, task_class)
            given = args.keys() | task.map.keys()
        if "run_if" in own and task.run_if is not True:
            run_if = compile_argument(task.run_if)
        if not known.required <= given:
            self._tell_missing(name, known, given)
        planned = PlannedTask(
            name,
            task,
            task_class,
            task_class.cls,
            fixed,
            varying,
            mapped,
            run_if,
            upstreams,
            backend,
            backend == "loop" and not task_class.hooks and not varying and not mapped,
            known.code,
            task_class.digest,
        )
        if self._stand_in is not None:
            planned = self._stand_in(planned)
        shape = known.shapes.get(task.retry.max_attempts)
        if shape is None or planned.backend != known.backend or not _SHAPING.isdisjoint(own):
            shape = self._shape(task, planned.backend)
            if planned.backend == known.backend and _SHAPING.isdisjoint(own):
                known.shapes[task.retry.max_attempts] = shape
        self.shapes.append(shape)
        self.tasks.append(planned)

    def _class_of(self, name: str, task: TaskDefinition) -> _Known | None:
        key = task.task, task.bundle
        try:
            known = self.classes[key]
        except KeyError:
            known = self.classes[key] = self._look_up(key)
        if known is None:
            self.faults.append(Fault(("tasks", name, "task"), self._missing[key]))
        return known

    def _look_up(self, key: tuple[str, str | None]) -> _Known | None:
        try:
            found = self._find(*key)
        except (NotFoundError, AmbiguousTaskError) as exc:
            self._missing[key] = str(exc)
            return None
        required = frozenset(name for name, parameter in found.parameters.items() if parameter.required)
        exact = {
            name: parameter.annotation
            for name, parameter in found.parameters.items()
            if any(parameter.annotation is kind for kind in _EXACT)
        }
        code = found.bundle if found.version is None else str(found.version)
        return _Known(found, _BACKENDS[not found.is_async], required, exact, code)

    def _check_backend(self, name: str, backend: str, task_class: TaskClass) -> None:
        place: Path = ("tasks", name, "backend")
        if backend not in self._backends:
            known = ", ".join(sorted(self._backends))
            near = Suggester(self._backends).nearest(backend)
            self.faults.append(Fault(place, f'no backend "{backend[:200]}"; this Server has {known}', near))
        elif backend == "loop" and not task_class.is_async:
            path = task_class.path
            words = f"{path}.run is a plain function; it would hold the loop. Use thread or process"
            self.faults.append(Fault(place, words))
        elif backend == "thread" and task_class.is_async:
            words = f"{task_class.path}.run is async; it runs on the loop or in a process"
            self.faults.append(Fault(place, words))

    def _bind(
        self, name: str, args: Mapping[str, Any], known: _Known, fixed: dict[str, Any]
    ) -> tuple[Argument, ...]:
        """Check the arguments against the parameters; put into `fixed` what need not be made anew."""
        varying: list[Argument] = []
        exact = known.exact
        for key, value in args.items():
            kind = type(value)
            if key in exact and exact[key] is kind:
                fixed[key] = value
            elif kind is dict and len(value) == 1 and type(of := value.get("$param")) is str:
                argument = known.shared.get((key, of)) or self._share(name, key, of, known)
                if argument is not None:
                    varying.append(argument)
            elif key in known.task_class.parameters:
                parameter = known.task_class.parameters[key]
                self._bind_value(("tasks", name, "args", key), value, parameter, fixed, varying)
            else:
                self._tell_unknown(("tasks", name, "args", key), key, known.task_class)
        return tuple(varying)

    def _share(self, name: str, key: str, of: str, known: _Known) -> Argument | None:
        parameter = known.task_class.parameters.get(key)
        if parameter is None:
            self._tell_unknown(("tasks", name, "args", key), key, known.task_class)
            return None
        argument = known.shared[key, of] = Argument(key, compile_argument({"$param": of}), parameter)
        return argument

    def _bind_value(
        self,
        place: Path,
        value: Any,
        parameter: TaskParameter,
        fixed: dict[str, Any],
        varying: list[Argument],
    ) -> None:
        key = parameter.name
        template = compile_argument(value)
        if not template.constant:
            varying.append(Argument(key, template, parameter))
            return
        literal = template.fill({}, no_results)
        if faults := parameter.check(literal):
            self.faults += value_faults(place, faults)
            return
        try:
            structured = parameter.structure(literal)
        except BaseException as exc:  # noqa: BLE001 - a constructor of the user's may raise anything (promise 7)
            self.faults.append(Fault(place, f"no {parameter.type_name} can be made of it: {describe(exc)}"))
            return
        if type(structured) in _SHARED_TYPES:
            fixed[key] = structured
        else:
            varying.append(Argument(key, template, parameter))

    def _map(
        self, name: str, task: TaskDefinition, task_class: TaskClass
    ) -> tuple[tuple[str, Template], ...]:
        mapped: list[tuple[str, Template]] = []
        for key, value in (task.map or {}).items():
            place: Path = ("tasks", name, "map", key)
            parameter = task_class.parameters.get(key)
            template = compile_argument(value)
            mapped.append((key, template))
            if parameter is None:
                self._tell_unknown(place, key, task_class)
            elif template.constant:
                self.faults += element_faults(place, parameter, template.fill({}, no_results))
        return tuple(mapped)

    def _tell_unknown(self, place: Path, key: str, task_class: TaskClass) -> None:
        near = Suggester(task_class.parameters).nearest(key)
        takes = ", ".join(task_class.parameters) or "no arguments"
        hint = "" if near else f"; it takes {takes}"
        self.faults.append(Fault(place, f"{task_class.path} takes no {key[:200]!r}{hint}", near))

    def _tell_missing(self, name: str, known: _Known, given: Mapping[str, Any]) -> None:
        path, parameters = known.task_class.path, known.task_class.parameters
        for key, parameter in parameters.items():
            if key in known.required and key not in given:
                words = f"{path} needs {key!r} ({parameter.type_name})"
                self.faults.append(Fault(("tasks", name, "args"), words))

    def _shape(self, task: TaskDefinition, backend: str) -> TaskShape:
        key = (
            task.rule,
            task.finally_,
            task.retry.max_attempts,
            bool(task.map),
            task.run_if is not True,
            task.pool,
            backend,
            task.max_parallel,
            task.priority,
            task.allow_failure,
            task.keep_results,
        )
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = TaskShape(
                rule=task.rule,
                finally_=task.finally_,
                max_attempts=task.retry.max_attempts,
                mapped=bool(task.map),
                conditional=task.run_if is not True,
                pools=_pools(task.pool, backend),
                max_parallel=task.max_parallel,
                priority=task.priority,
                allow_failure=task.allow_failure,
                keeps_result=task.keep_results,
            )
        return shape


def _pools(pool: str | None, backend: str) -> tuple[str, ...]:
    # A backend with a limit is a pool under a name that no user's pool can have.
    own = () if pool is None else (pool,)
    return own if backend == "loop" else (*own, f"backend:{backend}")

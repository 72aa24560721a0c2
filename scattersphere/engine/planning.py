"""Bring a definition and the current code together: everything that the code lacks or refuses, or a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._gc import MANY, free, gc_paused
from scattersphere._json_words import MOST_PROBLEMS, Path, RawProblem
from scattersphere._text import Suggester, suggestion_budget
from scattersphere._turns import EACH
from scattersphere.abc.backend import NO_NEEDS
from scattersphere.definitions import placed
from scattersphere.definitions.converter import UNREAD
from scattersphere.engine.machine.graph import CompiledGraph, TaskSpec
from scattersphere.engine.plan import (
    Argument,
    MadeBy,
    Plan,
    PlannedTask,
    element_problems,
    no_results,
    value_problems,
)
from scattersphere.errors import AmbiguousTaskError, NotFoundError, UnresolvedError, listing
from scattersphere.logs.failures import describe
from scattersphere.model.amounts import places_of
from scattersphere.model.definition import RetryPolicy
from scattersphere.model.references import Template, compile_argument
from scattersphere.model.states import TriggerRule
from scattersphere.model.taskclass import LOOP, TaskClass

if TYPE_CHECKING:
    from collections.abc import Container

    from scattersphere.abc.backend import BackendTraits
    from scattersphere.model.definition import JobDefinition, TaskDefinition
    from scattersphere.model.taskclass import TaskParameter

Find = Callable[[str, str | None], TaskClass]
StandIn = Callable[[PlannedTask], PlannedTask]
"""Puts another task in the place of one that was checked: tests put their fakes into plans with it."""


def compile_plan(
    definition: JobDefinition,
    find: Find,
    known_backends: Mapping[str, BackendTraits],
    stand_in: StandIn | None = None,
) -> Plan:
    """Return the plan of a definition that has been checked by itself.

    Raises `UnresolvedError` whose problems name everything that the code lacks or refuses.
    """
    if len(definition.tasks) > MANY:
        with gc_paused(tasks=len(definition.tasks)):
            planner = _planned(definition, find, known_backends, stand_in)
            return _plan(definition, planner)
    planner = _planned(definition, find, known_backends, stand_in)
    return _plan(definition, planner)


def _planned(
    definition: JobDefinition,
    find: Find,
    known_backends: Mapping[str, BackendTraits],
    stand_in: StandIn | None,
) -> _Planner:
    """Plan all tasks. What is wrong with them is looked for when it is known that there is something."""
    planner = _Planner(find, known_backends, stand_in)
    if not planner.add_all(definition):
        found = code_problems(definition, find, known_backends) or planner.problems
        problems = placed(definition, found)
        raise UnresolvedError(listing(f"job {definition.name!r} cannot run", problems), problems)
    return planner


@suggestion_budget()
def code_problems(
    definition: JobDefinition, find: Find, known_backends: Mapping[str, BackendTraits]
) -> list[RawProblem]:
    """Return what a definition, right or wrong by itself, lacks of the code or is refused by it."""
    with gc_paused(tasks=len(definition.tasks)):
        planner = _Planner(find, known_backends)
        planner.add_all(definition, look_on=True)
        problems, planned = planner.problems, list[object]([planner])
        del planner
        free(planned)
        return problems


def _plan(definition: JobDefinition, planner: _Planner) -> Plan:
    graph = CompiledGraph(
        planner.specs,
        upstreams=definition.upstream_indices,
        checked=definition.checked,
        max_parallel=definition.max_parallel,
        fail_fast=definition.fail_fast,
    )
    versions = {known.task_class.version for known in planner.classes.values() if known is not None}
    return Plan(
        job=definition.name,
        definition=definition,
        tasks=tuple(planner.tasks),
        index=dict(zip(definition.tasks, range(len(planner.tasks)), strict=True)),
        graph=graph,
        size=len(planner.tasks),
        fed=tuple([task for task in EACH.get()(planner.tasks) if task.varying or task.mapped]),
        versions=frozenset(versions - {None}),
    )


def bare_plan(definition: JobDefinition) -> Plan:
    """Return a plan without code: it names the tasks of a run and how they hang together, and carries nothing out."""
    planner = _Planner(_no_code, {})
    for name, task in definition.tasks.items():
        planner.add_bare(name, task)
    plan = _plan(definition, planner)
    plan.let_go()
    return plan


def _no_code(path: str, bundle: str | None) -> TaskClass:
    raise NotFoundError(f"no code of {path!r} ({bundle}) here")


def _with_options(task: TaskDefinition, options: Mapping[str, Any]) -> TaskDefinition:
    """Return the task with what its class says of how it wants to be run, where the definition does not say it."""
    unsaid = {name: value for name, value in options.items() if getattr(task, name) == _UNSAID[name]}
    if isinstance(unsaid.get("retry"), Mapping):
        unsaid["retry"] = RetryPolicy(**unsaid["retry"])
    return attrs.evolve(task, **unsaid)


_UNSAID = {"backend": None, "retry": RetryPolicy(), "timeout": None}


class _Planner:
    """Plans the tasks of one definition, and collects the problems."""

    def __init__(
        self, find: Find, backends: Mapping[str, BackendTraits], stand_in: StandIn | None = None
    ) -> None:
        self._find = find
        self._stand_in = stand_in
        self._backends = backends
        self._binder = Binder()
        self.problems: list[RawProblem] = self._binder.problems
        self.classes: dict[tuple[str, str | None], Known | None] = {}
        self._missing: dict[tuple[str, str | None], str] = {}
        self._specs: dict[tuple[object, ...], TaskSpec] = {}
        self.tasks: list[PlannedTask] = []
        self.specs: list[TaskSpec] = []

    def add_all(self, definition: JobDefinition, *, look_on: bool = False) -> bool:
        """Plan all tasks of a definition up to the first problem; with `look_on`, note all in their order.

        Return whether there is none.
        """
        for name, task in EACH.get()(definition.tasks.items()):
            if len(self.problems) >= (MOST_PROBLEMS if look_on else 1):
                return False
            if task.task != UNREAD:  # that it names no class was told of already
                self.add(name, task)
        return not self.problems

    def add(self, name: str, task: TaskDefinition) -> None:
        """Plan one task, or note what is wrong with it."""
        known = self._class_of(name, task)
        if known is None:
            return
        task_class = known.task_class
        if known.options:
            task = _with_options(task, known.options)
        backend = known.backend
        if task.backend is not None:
            backend = task.backend
            self._check_backend(name, backend, task_class)
        fixed, varying = self._binder.bind(name, task.args, known)
        mapped = self._binder.bind_map(name, task.map, known) if task.map else ()
        given = task.args.keys() | task.map.keys() if task.map else task.args.keys()
        if not known.required <= given:
            self._binder.note_missing(name, known, given)
        planned = PlannedTask(
            name=name,
            definition=task,
            task_class=task_class,
            cls=task_class.cls,
            made_by=known.made_by,
            fixed=fixed,
            varying=varying,
            mapped=mapped,
            run_if=None if task.run_if is True else compile_argument(task.run_if),
            backend=backend,
            on_loop=backend == LOOP,
            plain=backend == LOOP and not task_class.hooks,
            same_for_all=not (varying or mapped),
            needs=_needs(task) if self._takes_needs(backend) else NO_NEEDS,
        )
        if self._stand_in is not None:
            planned = self._stand_in(planned)
        self.tasks.append(planned)
        self.specs.append(self._spec(task, planned.backend))

    def add_bare(self, name: str, task: TaskDefinition) -> None:
        """Plan one task without its class."""
        unknown: Any = None
        planned = PlannedTask(
            name=name,
            definition=task,
            task_class=unknown,
            cls=unknown,
            made_by=MadeBy(task.bundle or "", ""),
            fixed={},
            varying=(),
            mapped=(),
            run_if=None,
            backend=task.backend or LOOP,
            on_loop=task.backend in {None, LOOP},
            plain=False,
            same_for_all=False,
        )
        self.tasks.append(planned)
        self.specs.append(self._spec(task, planned.backend))

    def _class_of(self, name: str, task: TaskDefinition) -> Known | None:
        key = task.task, task.bundle
        try:
            known = self.classes[key]
        except KeyError:
            known = self.classes[key] = self._look_up(key)
        if known is None:
            self.problems.append(RawProblem(("tasks", name, "task"), self._missing[key]))
        return known

    def _look_up(self, key: tuple[str, str | None]) -> Known | None:
        try:
            return Known.of(self._find(*key))
        except (NotFoundError, AmbiguousTaskError) as exc:
            self._missing[key] = str(exc)
            return None

    def _check_backend(self, name: str, backend: str, task_class: TaskClass) -> None:
        place: Path = ("tasks", name, "backend")
        if backend not in self._backends:
            known = ", ".join(sorted(self._backends))
            near = Suggester(self._backends).nearest(backend)
            self.problems.append(
                RawProblem(place, f'no backend "{backend[:200]}"; this Server has {known}', near)
            )
        elif task_class.is_async and not self._backends[backend].runs_async:
            others = self._those_that("runs_async")
            words = f'{task_class.path}.run is async, which backend "{backend}" does not run; use {others}'
            self.problems.append(RawProblem(place, words))
        elif not task_class.is_async and not self._backends[backend].runs_plain:
            others = self._those_that("runs_plain")
            words = f"{task_class.path}.run is a plain function; it would hold the loop. Use {others}"
            self.problems.append(RawProblem(place, words))

    def _those_that(self, trait: str) -> str:
        return " or ".join(sorted(name for name, traits in self._backends.items() if getattr(traits, trait)))

    def _takes_needs(self, backend: str) -> bool:
        traits = self._backends.get(backend)
        return traits is not None and traits.takes_needs

    def _spec(self, task: TaskDefinition, backend: str) -> TaskSpec:
        key = (
            task.trigger_rule,
            task.finally_,
            task.retry.max_attempts,
            bool(task.map),
            task.run_if is not True,
            task.pool,
            tuple(task.needs.items()),
            backend,
            task.max_parallel,
            task.priority,
            task.allow_failure,
            task.keep_results,
        )
        taken = self._takes_needs(backend)
        spec = self._specs.get(key)
        if spec is None:
            has_rule = task.finally_ or task.trigger_rule is not None
            spec = self._specs[key] = TaskSpec(
                rule=task.rule if has_rule else TriggerRule.ALL_SUCCESS,
                finally_=task.finally_,
                max_attempts=task.retry.max_attempts,
                mapped=bool(task.map),
                conditional=task.run_if is not True,
                pools=_pools(None if taken else task.pool, backend),
                needs=()
                if taken
                else tuple((name, places_of(amount)) for name, amount in task.needs.items()),
                max_parallel=task.max_parallel,
                priority=task.priority,
                allow_failure=task.allow_failure,
                keeps_result=task.keep_results,
            )
        return spec


def _needs(task: TaskDefinition) -> dict[str, int]:
    needs = {name: places_of(amount) for name, amount in task.needs.items()}
    if task.pool is not None:
        needs[task.pool] = needs.get(task.pool, 0) + 1
    return needs


def _pools(pool: str | None, backend: str) -> tuple[str, ...]:
    # A backend with a limit is a pool under a name that no user's pool can have.
    own = () if pool is None else (pool,)
    return own if backend == LOOP else (*own, f"backend:{backend}")


# ---- arguments

_SHARED_TYPES = frozenset({bool, int, float, str, bytes, type(None)})
"""Values of these may be shared by all instances: nobody can change them."""
_EXACT = frozenset({bool, int, str})
"""A value of one of these is right, as it is, for a parameter annotated so."""
_BACKENDS = (LOOP, "thread")
"""Where tasks run that name no backend: async ones, and others."""
Varying = tuple[Argument, ...]
Mapped = tuple[tuple[str, Template], ...]


@attrs.frozen(eq=False)
class Known:
    """What all tasks of one class share."""

    task_class: TaskClass
    backend: str
    """Where they run that do not say it."""
    required: frozenset[str]
    exact: Mapping[str, type]
    """The parameters whose annotation is one of `_EXACT`."""
    made_by: MadeBy
    options: Mapping[str, object]
    """What the class says of how its tasks want to be run."""
    shared: dict[tuple[str, str], Argument] = attrs.field(factory=dict)
    """Arguments that are a parameter of the run: (argument, parameter)."""

    @classmethod
    def of(cls, found: TaskClass) -> Known:
        """Look once at what is asked for each task."""
        required = frozenset(name for name, parameter in found.parameters.items() if parameter.required)
        exact = {
            name: parameter.annotation
            for name, parameter in found.parameters.items()
            if any(parameter.annotation is kind for kind in _EXACT)
        }
        code = found.bundle if found.version is None else found.version.label
        options = getattr(found.cls, "__task_options__", None) or {}
        return cls(found, _BACKENDS[not found.is_async], required, exact, MadeBy(code, found.digest), options)


class Binder:
    """Binds the arguments of tasks, and collects the problems."""

    def __init__(self) -> None:
        self.problems: list[RawProblem] = []

    def bind(self, name: str, args: Mapping[str, Any], known: Known) -> tuple[Mapping[str, object], Varying]:
        """Check the arguments of a task; return those that are fixed (`PlannedTask.fixed`), and those that vary."""
        fixed, varying, exact_of = args, Varying(), known.exact.get
        for key, value in args.items():
            kind = type(value)
            if exact_of(key) is kind:
                continue
            if kind is dict and len(value) == 1 and type(of := value.get("$param")) is str:
                argument = known.shared.get((key, of)) or self._share(name, key, of, known)
            elif (parameter := known.task_class.parameters.get(key)) is not None:
                argument, literal = self._bind_value(("tasks", name, "args", key), value, parameter)
                if argument is None:
                    fixed = {**fixed, key: literal}
            else:
                argument = None
                self._note_unknown(("tasks", name, "args", key), key, known.task_class)
            if argument is not None:
                varying = (*varying, argument)
        return fixed, varying

    def bind_map(self, name: str, lists: Mapping[str, object], known: Known) -> Mapped:
        """Check what a task is mapped over."""
        mapped: list[tuple[str, Template]] = []
        for key, value in lists.items():
            place: Path = ("tasks", name, "map", key)
            parameter = known.task_class.parameters.get(key)
            template = compile_argument(value)
            mapped.append((key, template))
            if parameter is None:
                self._note_unknown(place, key, known.task_class)
            elif template.constant:
                self.problems += element_problems(place, parameter, template.fill({}, no_results))
        return tuple(mapped)

    def note_missing(self, name: str, known: Known, given: Container[str]) -> None:
        """Note each required argument that is not given."""
        path, parameters = known.task_class.path, known.task_class.parameters
        for key, parameter in parameters.items():
            if key in known.required and key not in given:
                words = f"{path} needs {key!r} ({parameter.type_name})"
                self.problems.append(RawProblem(("tasks", name, "args"), words))

    def _share(self, name: str, key: str, of: str, known: Known) -> Argument | None:
        parameter = known.task_class.parameters.get(key)
        if parameter is None:
            self._note_unknown(("tasks", name, "args", key), key, known.task_class)
            return None
        argument = known.shared[key, of] = Argument(key, compile_argument({"$param": of}), parameter)
        return argument

    def _bind_value(
        self, place: Path, value: object, parameter: TaskParameter
    ) -> tuple[Argument | None, object]:
        """Check one argument. Return it if it is made for each attempt, else None and the value for all of them."""
        template = compile_argument(value)
        if not template.constant:
            return Argument(parameter.name, template, parameter), None
        literal = template.fill({}, no_results)
        if problems := parameter.check(literal):
            self.problems += value_problems(place, problems)
            return None, None
        try:
            structured = parameter.structure(literal)
        except BaseException as exc:  # noqa: BLE001 - a constructor of the user's may raise anything (promise 7)
            self.problems.append(
                RawProblem(place, f"no {parameter.type_name} can be made of it: {describe(exc)}")
            )
            return None, None
        if type(structured) in _SHARED_TYPES:
            return None, structured
        return Argument(parameter.name, template, parameter), None

    def _note_unknown(self, place: Path, key: str, task_class: TaskClass) -> None:
        near = Suggester(task_class.parameters).nearest(key)
        takes = ", ".join(task_class.parameters) or "no arguments"
        hint = "" if near else f"; it takes {takes}"
        self.problems.append(RawProblem(place, f"{task_class.path} takes no {key[:200]!r}{hint}", near))

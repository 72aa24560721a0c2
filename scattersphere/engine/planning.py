"""Bring a definition and the current code together: everything that the code lacks or refuses, or a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._gc import gc_paused
from scattersphere._json import Path, RawProblem
from scattersphere._text import Suggester, suggestion_budget
from scattersphere.abc.backend import NO_NEEDS
from scattersphere.definitions import placed
from scattersphere.definitions.converter import UNREAD
from scattersphere.engine.binding import Binder, Known
from scattersphere.engine.machine.shape import Shape, TaskShape
from scattersphere.engine.plan import MadeBy, Plan, PlannedTask
from scattersphere.errors import AmbiguousTaskError, NotFoundError, UnresolvedError, listing
from scattersphere.model.definition import RetryPolicy
from scattersphere.model.fields import awaiting
from scattersphere.model.forms import places_of
from scattersphere.model.references import compile_argument
from scattersphere.model.taskclass import LOOP, TaskClass

if TYPE_CHECKING:
    from scattersphere.abc.backend import BackendTraits
    from scattersphere.model.definition import JobDefinition, TaskDefinition

Find = Callable[[str, str | None], TaskClass]
StandIn = Callable[[PlannedTask], PlannedTask]
"""Puts another task in the place of one that was checked: tests put their fakes into plans with it."""


@suggestion_budget()
def compile_plan(
    definition: JobDefinition,
    find: Find,
    known_backends: Mapping[str, BackendTraits],
    stand_in: StandIn | None = None,
) -> Plan:
    """Return the plan of a definition that has been checked by itself.

    Raises `UnresolvedError` whose problems name everything that the code lacks or refuses.
    """
    with gc_paused(tasks=len(definition.tasks)):
        planner = _Planner(find, known_backends, stand_in)
        planner.add_all(definition)
        if planner.problems:
            problems = placed(definition, planner.problems)
            raise UnresolvedError(listing(f"job {definition.name!r} cannot run", problems), problems)
        return _plan(definition, planner)


@suggestion_budget()
def code_problems(
    definition: JobDefinition, find: Find, known_backends: Mapping[str, BackendTraits]
) -> list[RawProblem]:
    """Return what a definition, right or wrong by itself, lacks of the code or is refused by it."""
    planner = _Planner(find, known_backends)
    planner.add_all(definition)
    return planner.problems


def _plan(definition: JobDefinition, planner: _Planner) -> Plan:
    shape = Shape(
        planner.shapes,
        upstreams=definition.upstream_indices,
        checked=definition.checked,
        max_parallel=definition.max_parallel,
        fail_fast=definition.fail_fast,
    )
    versions = {known.task_class.version for known in planner.classes.values() if known is not None}
    return Plan(
        definition=definition,
        tasks=tuple(planner.tasks),
        index=dict(zip(definition.tasks, range(len(planner.tasks)), strict=True)),
        shape=shape,
        size=len(planner.tasks),
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
        self._shapes: dict[tuple[Any, ...], TaskShape] = {}
        self.tasks: list[PlannedTask] = []
        self.shapes: list[TaskShape] = []

    def add_all(self, definition: JobDefinition) -> None:
        """Plan all tasks of a definition, or note in their order what is wrong with them."""
        for path, missing in awaiting(definition):
            self.problems.append(RawProblem(path, f"this version of Scattersphere has no {missing} yet"))
        for name, task in definition.tasks.items():
            if task.task != UNREAD:  # that it names no class was told of already
                self.add(name, task)

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
            plain=backend == LOOP and not (varying or mapped or task_class.hooks),
            needs=_needs(task) if self._takes_needs(backend) else NO_NEEDS,
        )
        if self._stand_in is not None:
            planned = self._stand_in(planned)
        self.tasks.append(planned)
        self.shapes.append(self._shape(task, planned.backend))

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
            plain=False,
        )
        self.tasks.append(planned)
        self.shapes.append(self._shape(task, planned.backend))

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

    def _shape(self, task: TaskDefinition, backend: str) -> TaskShape:
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
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = TaskShape(
                rule=task.rule,
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
        return shape


def _needs(task: TaskDefinition) -> dict[str, int]:
    needs = {name: places_of(amount) for name, amount in task.needs.items()}
    if task.pool is not None:
        needs[task.pool] = needs.get(task.pool, 0) + 1
    return needs


def _pools(pool: str | None, backend: str) -> tuple[str, ...]:
    # A backend with a limit is a pool under a name that no user's pool can have.
    own = () if pool is None else (pool,)
    return own if backend == LOOP else (*own, f"backend:{backend}")

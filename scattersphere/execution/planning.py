"""Bring a definition and the current code together: everything that the code lacks or refuses, or a plan.

The tasks of a large job are much alike, so what they share is worked out once: the class behind a path,
an argument that is one and the same parameter of the run, the shape that the machine sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from scattersphere._text import Suggester, suggestion_budget
from scattersphere.codec import collection_paused, locate
from scattersphere.codec.crossrefs import UNREAD
from scattersphere.codec.faults import Fault, Path
from scattersphere.errors import AmbiguousTaskError, NotFoundError, UnresolvedError, listing
from scattersphere.execution.binding import Binder, Known, Mapped
from scattersphere.execution.machine.shape import Shape, TaskShape
from scattersphere.execution.plan import Plan, PlannedTask
from scattersphere.model.references import compile_argument
from scattersphere.model.taskclass import TaskClass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from scattersphere.model.definition import JobDefinition, TaskDefinition

Find = Callable[[str, str | None], TaskClass]
StandIn = Callable[[PlannedTask], PlannedTask]
"""Puts another task in the place of one that was checked: tests put their fakes into plans with it."""

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
_OF_ITS_OWN = _SHAPING | {"backend"}
"""The fields for which a task is planned by itself."""
_FEW = 8
"""To plan fewer tasks than these together does not pay."""
_BLOCK = 1024
"""How many are looked at together: of more, little would be left in the processor's cache from look to look."""
_CLASS, _OWN = attrgetter("task", "bundle"), attrgetter("__dict__")
_ARGS, _ATTEMPTS = attrgetter("args"), attrgetter("retry.max_attempts")
_NOBODY: Any = None
_ANY = TaskShape()
"""They stand where a task lacks something of the code: then there is no plan."""


@suggestion_budget()
def compile_plan(
    definition: JobDefinition, find: Find, known_backends: frozenset[str], stand_in: StandIn | None = None
) -> Plan:
    """Return the plan of a definition that has been checked by itself.

    Raises `UnresolvedError` whose problems name everything that the code lacks or refuses.
    """
    with collection_paused(tasks=len(definition.tasks)):
        planner = _Planner(find, known_backends, stand_in)
        planner.add_all(definition.tasks)
        if planner.faults:
            problems = locate(definition, planner.faults)
            raise UnresolvedError(listing(f"job {definition.name!r} cannot run", problems), problems)
        return _plan(definition, planner)


@suggestion_budget()
def code_faults(definition: JobDefinition, find: Find, known_backends: frozenset[str]) -> list[Fault]:
    """Return what a definition, right or wrong by itself, lacks of the code or is refused by it."""
    planner = _Planner(find, known_backends)
    for name, task in definition.tasks.items():
        if task.task != UNREAD:  # that it names no class was told of already
            planner.add(name, task)
    return planner.faults


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


class _Planner:
    """Plans the tasks of one definition, and collects the faults."""

    def __init__(self, find: Find, backends: frozenset[str], stand_in: StandIn | None = None) -> None:
        self._find = find
        self._stand_in = stand_in
        self._backends = backends
        self._binder = Binder()
        self.faults: list[Fault] = self._binder.faults
        self.classes: dict[tuple[str, str | None], Known | None] = {}
        self._missing: dict[tuple[str, str | None], str] = {}
        self._shapes: dict[tuple[Any, ...], TaskShape] = {}
        self.tasks: list[PlannedTask] = []
        self.shapes: list[TaskShape] = []

    def add_all(self, tasks: Mapping[str, TaskDefinition]) -> None:
        """Plan all tasks of a definition, or note in their order what is wrong with them."""
        names, definitions = list(tasks), list(tasks.values())
        self.tasks, self.shapes = [_NOBODY] * len(names), [_ANY] * len(names)
        for rows in _alike(definitions):
            known = self._known_together(definitions[rows[0]], len(rows))
            if known is None:
                for row in rows:
                    if (found := self.add(names[row], definitions[row])) is not None:
                        self.tasks[row], self.shapes[row] = found
                continue
            if isinstance(rows, range):
                block = slice(rows.start, rows.stop)
                planned, shapes = self._plan_alike(names[block], definitions[block], known)
                self.tasks[block], self.shapes[block] = planned, shapes
                continue
            chosen = [names[row] for row in rows], [definitions[row] for row in rows]
            for row, task, shape in zip(rows, *self._plan_alike(*chosen, known), strict=True):
                self.tasks[row], self.shapes[row] = task, shape
        if self.faults:
            number = {name: index for index, name in enumerate(names)}
            self.faults.sort(key=lambda fault: number[str(fault.path[1])])

    def add(self, name: str, task: TaskDefinition) -> tuple[PlannedTask, TaskShape] | None:
        """Plan one task, or note what is wrong with it."""
        known = self.classes.get((task.task, task.bundle)) or self._class_of(name, task)
        if known is None:
            return None
        task_class, backend = known.task_class, known.backend
        # What is not in the instance is as the class has it: the loader leaves defaults out.
        own = task.__dict__
        if own.get("backend") is not None:
            backend = own["backend"]
            self._check_backend(name, backend, task_class)
        args = task.args
        given: Collection[str] = args
        fixed, varying = self._binder.bind(name, args, known) if args else (args, ())
        mapped: Mapped = ()
        run_if = None
        if "map" in own and task.map:
            mapped = self._binder.bind_map(name, task.map, known)
            given = args.keys() | task.map.keys()
        if "run_if" in own and task.run_if is not True:
            run_if = compile_argument(task.run_if)
        if not known.required.issubset(given):
            self._binder.tell_missing(name, known, given)
        plain = backend == "loop" and not (varying or mapped or task_class.hooks)
        planned = PlannedTask(
            name,
            task,
            task_class,
            task_class.cls,
            known.made_by,
            fixed,
            varying,
            mapped,
            run_if,
            backend,
            plain,
        )
        if self._stand_in is not None:
            planned = self._stand_in(planned)
        if planned.backend == known.backend and _SHAPING.isdisjoint(own):
            return planned, self._usual_shape(task, known)
        return planned, self._shape(task, planned.backend)

    def _known_together(self, task: TaskDefinition, number: int) -> Known | None:
        """Return the class of so many tasks that are like this one, if they can be planned together."""
        if number < _FEW or self._stand_in is not None or not _OF_ITS_OWN.isdisjoint(task.__dict__):
            return None
        try:
            found = self.classes[task.task, task.bundle]
        except KeyError:
            found = self.classes[task.task, task.bundle] = self._look_up((task.task, task.bundle))
        return found if found is not None and found.required <= task.args.keys() else None

    def _plan_alike(
        self, names: list[str], tasks: list[TaskDefinition], known: Known
    ) -> tuple[list[PlannedTask], list[TaskShape]]:
        """Plan tasks of one class that say the same things of themselves, each with values of its own."""
        fixed, varying = self._binder.bind_alike(names, list(map(_ARGS, tasks)), known)
        task_class, backend = known.task_class, known.backend
        may_be_plain = backend == "loop" and not task_class.hooks
        planned = map(
            PlannedTask,
            *(names, tasks, repeat(task_class), repeat(task_class.cls), repeat(known.made_by)),
            *(fixed, varying, repeat(()), repeat(None), repeat(backend)),
            [may_be_plain and not one for one in varying],
        )
        attempts = list(map(_ATTEMPTS, tasks))
        shapes = {count: self._usual_shape(tasks[attempts.index(count)], known) for count in set(attempts)}
        return list(planned), list(map(shapes.__getitem__, attempts))

    def _class_of(self, name: str, task: TaskDefinition) -> Known | None:
        key = task.task, task.bundle
        try:
            known = self.classes[key]
        except KeyError:
            known = self.classes[key] = self._look_up(key)
        if known is None:
            self.faults.append(Fault(("tasks", name, "task"), self._missing[key]))
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
            self.faults.append(Fault(place, f'no backend "{backend[:200]}"; this Server has {known}', near))
        elif backend == "loop" and not task_class.is_async:
            path = task_class.path
            words = f"{path}.run is a plain function; it would hold the loop. Use thread or process"
            self.faults.append(Fault(place, words))
        elif backend == "thread" and task_class.is_async:
            words = f"{task_class.path}.run is async; it runs on the loop or in a process"
            self.faults.append(Fault(place, words))

    def _usual_shape(self, task: TaskDefinition, known: Known) -> TaskShape:
        attempts = task.retry.max_attempts
        shape = known.shapes.get(attempts)
        if shape is None:
            shape = known.shapes[attempts] = self._shape(task, known.backend)
        return shape

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


def _alike(tasks: Sequence[TaskDefinition]) -> Iterator[Sequence[int]]:
    """Return the tasks, by their numbers, in groups that have the same class, fields and arguments."""
    groups = defaultdict[tuple[Any, ...], list[int]](list)
    for start in range(0, len(tasks), _BLOCK):
        block = tasks[start : start + _BLOCK]
        signs: list[list[Any]] = [
            list(map(_CLASS, block)),
            list(map(tuple, map(_OWN, block))),
            list(map(tuple, map(_ARGS, block))),
        ]
        if all(len(set(column)) == 1 for column in signs):
            yield range(start, start + len(block))
            continue
        for number, sign in enumerate(zip(*signs, strict=True), start):
            groups[sign].append(number)
    yield from groups.values()

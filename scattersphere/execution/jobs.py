"""The defined jobs of a Server, and the plans that were compiled from them with the current code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from scattersphere.codec import check_definition
from scattersphere.errors import (
    DefinitionError,
    ExistsError,
    NoSuchJobError,
    ScattersphereError,
    UnresolvedError,
)
from scattersphere.execution.plan import compile_plan
from scattersphere.model.arguments import check_text, describe
from scattersphere.model.builder import literal
from scattersphere.model.definition import JobDefinition, TaskDefinition
from scattersphere.model.problem import Problem
from scattersphere.registry.index import did_you_mean

if TYPE_CHECKING:
    from scattersphere.execution.plan import Find, Plan
    from scattersphere.model.taskclass import TaskClass
    from scattersphere.registry.records import BundleVersion


class Jobs(Mapping[str, JobDefinition]):
    """Definitions by name; a missing one raises `NoSuchJobError`. Never loads code.

    A plan is kept for each job until the code changes, since compiling a large one costs more than
    running it.
    """

    def __init__(self, find: Find, backends: Callable[[], frozenset[str]], pools: Mapping[str, int]) -> None:
        self._find = find
        self._backends = backends
        self._pools = pools
        self._definitions: dict[str, JobDefinition] = {}
        self._plans: dict[str, Plan] = {}
        self._compiled: WeakSet[Plan] = WeakSet()

    def __getitem__(self, name: str) -> JobDefinition:
        try:
            return self._definitions[name]
        except KeyError:
            raise NoSuchJobError(f"no job {name!r}{did_you_mean(name, self._definitions)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)

    def named(self, name: str) -> JobDefinition:
        """Return the job of this name. Raises `NoSuchJobError`, `TypeError` for what is no name at all."""
        check_text(name, "the name of a job")
        return self[name]

    def define(self, definition: JobDefinition, *, replace: bool) -> JobDefinition:
        """Take up a definition; return it with each task's bundle filled in where it is known.

        Raises `DefinitionError` with everything that is wrong, `ExistsError`.
        """
        _check_kind(definition)
        problems = check_definition(definition) + self._pool_problems(definition)
        if problems:
            raise DefinitionError(problems, source=definition.path or definition.name)
        if definition.name in self._definitions and not replace:
            raise ExistsError(f"job {definition.name!r} is defined already; pass replace=True")
        resolved = definition.evolve(
            tasks={name: self._resolve(task) for name, task in definition.tasks.items()}
        )
        self._definitions[resolved.name] = resolved
        self._plans.pop(resolved.name, None)
        return resolved

    def _pool_problems(self, definition: JobDefinition) -> list[Problem]:
        return [
            Problem(f"tasks.{name}.pool", f"no pool {task.pool!r}; this Server has {sorted(self._pools)}")
            for name, task in definition.tasks.items()
            if task.pool is not None and task.pool not in self._pools
        ]

    def _resolve(self, task: TaskDefinition) -> TaskDefinition:
        if task.bundle is not None:
            return task
        try:
            found = self._find(task.task, None)
        except ScattersphereError:
            return task  # its code may come later
        return task.evolve(task=found.path, bundle=found.bundle)

    def undefine(self, name: str) -> None:
        """Forget a job. Raises `NoSuchJobError`."""
        del self._definitions[self.named(name).name]
        self._plans.pop(name, None)

    def validate(self, definition: JobDefinition) -> list[Problem]:
        """Return everything that is wrong with a definition, by itself and against the code here."""
        _check_kind(definition)
        problems = check_definition(definition) + self._pool_problems(definition)
        if not problems:
            try:
                compile_plan(definition, self._find, self._backends())
            except UnresolvedError as exc:
                problems = list(exc.problems)
        return problems

    def plan(self, definition: JobDefinition) -> Plan:
        """Compile a definition with the current code, or reuse what was compiled with it.

        Raises `UnresolvedError`.
        """
        cached = self._plans.get(definition.name)
        if cached is not None and cached.definition is definition:
            return cached
        plan = compile_plan(definition, self._find, self._backends())
        self._compiled.add(plan)
        if self._definitions.get(definition.name) is definition:
            self._plans[definition.name] = plan
        return plan

    def code_changed(self, released: BundleVersion | None) -> None:
        """Forget the plans: they were compiled with what is no longer current.

        A plan that some kept run still holds lets go of a version that was released, else the
        history would keep its modules alive.
        """
        self._plans.clear()
        if released is not None:
            for plan in [plan for plan in self._compiled if released in plan.versions]:
                plan.let_go()
                self._compiled.discard(plan)


def job_of_task(found: TaskClass, args: Mapping[str, Any]) -> JobDefinition:
    """Return a job whose one task is of this class. The arguments are literal: a `$` in them means nothing."""
    name = found.path.replace("<", "_").replace(">", "_")
    task = TaskDefinition(
        task=found.path,
        bundle=found.bundle,
        args={key: literal(value) for key, value in args.items()},
    )
    return JobDefinition(name=name, tasks={name: task})


def _check_kind(definition: object) -> None:
    if not isinstance(definition, JobDefinition):
        raise TypeError(
            f"a JobDefinition is wanted, not {describe(definition)}; "
            "make one with JobDefinition.loads(text), JobDefinition.load(path) or JobDefinition.build(name)"
        )

"""The defined jobs of a Server, and the plans that were compiled from them with the current code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar, overload
from weakref import WeakSet

import anyio

from scattersphere._gc import free, gc_paused
from scattersphere._json_words import RawProblem, quote
from scattersphere._mapping import LiveMapping
from scattersphere._text import Suggester, did_you_mean, suggestion_budget
from scattersphere._threads import in_thread
from scattersphere._turns import EACH
from scattersphere.definitions import checked, placed, read_definition, untold
from scattersphere.engine.planning import code_problems, compile_plan
from scattersphere.errors import (
    DefinitionError,
    ExistsError,
    NoSuchJobError,
    ScattersphereError,
    UnresolvedError,
)
from scattersphere.jobs.slices import Slices
from scattersphere.model.amounts import places_of
from scattersphere.model.arguments import check_text, describe
from scattersphere.model.builder import JobBuilder, literal
from scattersphere.model.definition import JobDefinition, TaskDefinition
from scattersphere.model.frozen import FrozenDict, changed
from scattersphere.model.problem import Problem
from scattersphere.model.states import Durability

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scattersphere.abc.backend import BackendTraits
    from scattersphere.definitions.load import DefinitionReading
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.planning import Find, StandIn
    from scattersphere.model.taskclass import TaskClass
    from scattersphere.registry.records import BundleVersion

T = TypeVar("T")
Known = Callable[[str, str | None], "TaskClass | None"]
"""The class at a path, in a bundle or in any, if there is one: its code may come later."""
_BUNDLE = attrgetter("bundle")
LARGE, LONG = 1_000, 4 << 10
"""Tasks of a definition, and characters of its text, above which it is judged in a thread where the caller can wait: on
the loop it would take 10 ms and more; a text in which every line is wrong takes ten times as long as a right one."""
DIGESTED = 100
"""Tasks of a job up to which its digest, which every `status` of its runs shows, is made when it is defined: some
milliseconds more would be paid by those who never ask."""
TRIES = 3
"""How often a large definition is judged again because the code has changed meanwhile."""


class Jobs(LiveMapping[str, JobDefinition]):
    """Definitions by name; a missing one raises `NoSuchJobError`. Never loads code.

    A plan is kept for each job until the code changes, since compiling a large one costs more than
    running it.
    """

    def __init__(
        self,
        find: Find,
        known: Known,
        has_bundle: Callable[[str], bool],
        backends: Mapping[str, BackendTraits],
        pools: Mapping[str, int],
    ) -> None:
        self._find = find
        self._known = known
        self._has_bundle = has_bundle
        self._backends = backends
        self._pools = pools
        self._definitions: dict[str, JobDefinition] = {}
        self._plans: dict[str, Plan] = {}
        self._compiled: WeakSet[Plan] = WeakSet()
        self._open: set[str] = set()
        self._code = 0
        self._lacking: dict[str, tuple[JobDefinition, tuple[Problem, ...]]] = {}
        self._awaited: set[anyio.Event] = set()
        """Set when something has changed that a run may lack."""

    stand_in: StandIn | None = None
    """Where tests put their fakes: it may answer differently each time, so no plan is kept while it is there."""

    on_change: Callable[[str, JobDefinition | None], None] | None = None
    """Told of each definition that is new, replaced, or (None) forgotten, whoever asked for it."""

    def __getitem__(self, name: str) -> JobDefinition:
        try:
            return self._definitions[name]
        except KeyError:
            raise NoSuchJobError(f"no job {name!r}{did_you_mean(name, self._definitions)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._definitions

    @overload
    def get(self, key: str, /) -> JobDefinition | None: ...
    @overload
    def get(self, key: str, /, default: JobDefinition | T) -> JobDefinition | T: ...
    def get(self, key: str, /, default: object = None) -> object:
        """Return the definition of this name, or `default`, without looking for names that are near."""
        return self._definitions.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._definitions))

    def __len__(self) -> int:
        return len(self._definitions)

    def __repr__(self) -> str:
        return f"<{len(self._definitions)} jobs>"

    def named(self, name: str) -> JobDefinition:
        """Return the job of this name. Raises `NoSuchJobError`, `TypeError` for what is no name at all."""
        if not isinstance(name, str):
            check_text(name, "the name of a job")
        return self[name]

    def define(self, definition: JobDefinition | JobBuilder, *, replace: bool) -> JobDefinition:
        """Define a job: keep its definition, and return it with each task's bundle filled in where it is known.

        Raises `DefinitionError` with everything that is wrong, `ExistsError`.
        """
        return self._take_up(self.resolved(definition), replace=replace)

    async def adefine(self, definition: JobDefinition | JobBuilder, *, replace: bool) -> JobDefinition:
        """Do as `define`; a large definition is judged in a thread, and what it replaces is freed there."""
        resolved = await self.aresolved(definition)
        name = resolved.name
        replaced = list[object]([self._definitions.get(name), self._plans.get(name), self._lacking.get(name)])
        self._take_up(resolved, replace=replace)
        if is_large(resolved) and any(replaced):
            await in_thread(partial(free, replaced))
        return resolved

    def _take_up(self, resolved: JobDefinition, *, replace: bool) -> JobDefinition:
        if resolved.name in self._definitions and not replace:
            raise ExistsError(f"job {resolved.name!r} is defined already; pass replace=True")
        self._keep(resolved)
        return resolved

    def resolved(self, definition: JobDefinition | JobBuilder) -> JobDefinition:
        """Return a definition that is right, with each task's bundle filled in where it is known; take nothing up.

        Raises `DefinitionError` with everything that is wrong.
        """
        return self._resolve(self._right(definition_of(definition)), self._known)

    async def aresolved(self, definition: JobDefinition | JobBuilder) -> JobDefinition:
        """Do as `resolved`; in a thread where the definition is large."""
        definition = definition_of(definition)
        if not is_large(definition):
            return self.resolved(definition)
        right = await in_thread(lambda: self._right(definition))
        return await self._with_code(right, lambda find: self._resolve(right, partial(_known, find)))

    def _right(self, definition: JobDefinition) -> JobDefinition:
        read, problems = checked(definition)
        if read is not None:
            problems += self._pool_problems(read)
        if problems or read is None:
            raise DefinitionError(placed(definition, problems), source=source_of(definition))
        return read

    async def _with_code(self, definition: JobDefinition, work: Callable[[Find], T]) -> T:
        """Do work on a large definition in a thread, with the code that is here before and after it."""
        for _ in range(TRIES):
            code = self._code
            find = await self._classes(definition)
            found = await in_thread(lambda find=find: work(find))  # type: ignore[misc]
            if code == self._code:
                return found
        return work(self._find)  # code comes faster than a thread can look at it

    async def _classes(self, definition: JobDefinition) -> Find:
        """Look up all classes that a definition may name: in a thread nobody may ask the registry."""
        found: dict[tuple[str, str | None], TaskClass | ScattersphereError] = {}
        slices = Slices()
        with suggestion_budget():
            for task in definition.tasks.values():
                for bundle in (task.bundle, *(definition.bundles if task.bundle is None else ())):
                    if (key := (task.task, bundle)) not in found:
                        try:
                            found[key] = self._find(*key)
                        except ScattersphereError as error:
                            found[key] = error
                await slices.next()

        def find(path: str, bundle: str | None) -> TaskClass:
            known = found[path, bundle]
            if isinstance(known, ScattersphereError):
                raise known.with_traceback(None)
            return known

        return find

    def identity_of(self, definition: JobDefinition) -> str:
        """Do as `identity` for a definition of an earlier life: that of a job, whatever the job's text is by now."""
        is_job = definition.name in self._definitions
        return definition.name if is_job else f"{definition.name}@{definition.digest}"

    def identity(self, definition: JobDefinition) -> str:
        """Return what a start key stands for: the name of a job, or a definition that is none and is run once."""
        own = self._definitions.get(definition.name) is not definition
        return f"{definition.name}@{definition.digest}" if own else definition.name

    def named_or_given(self, job: str | JobDefinition | JobBuilder) -> JobDefinition:
        """Return the job of this name, or the definition that is given itself. Raises as `named` and `resolved` do."""
        return self.resolved(job) if isinstance(job, JobDefinition | JobBuilder) else self.named(job)

    async def ready(self, job: str | JobDefinition | JobBuilder) -> tuple[JobDefinition, Plan | None]:
        """Do as `named_or_given`, and compile the plan in a thread where it is large and not known yet.

        Raises `UnresolvedError` too.
        """
        if isinstance(job, JobDefinition | JobBuilder):
            definition = await self.aresolved(job)
        else:
            definition = self.named(job)
        if not is_large(definition) or self.stand_in is not None or self._plan_of(definition) is not None:
            return definition, None
        backends = self._backends
        plan = await self._with_code(definition, lambda find: compile_plan(definition, find, backends))
        return definition, self._keep_plan(plan)

    def _keep(self, resolved: JobDefinition) -> None:
        self._definitions[resolved.name] = resolved
        self._plans.pop(resolved.name, None)
        self._lacking.pop(resolved.name, None)  # it is of the one before
        if len(resolved.tasks) <= DIGESTED:
            _ = resolved.shown_digest
        if None in map(_BUNDLE, resolved.tasks.values()):
            self._open.add(resolved.name)
        else:
            self._open.discard(resolved.name)
        if self.on_change is not None:
            self.on_change(resolved.name, resolved)
        for event in self._awaited:
            event.set()

    async def change(self) -> None:
        """Wait until a job is defined, or other code is there."""
        event = anyio.Event()
        self._awaited.add(event)
        try:
            await event.wait()
        finally:
            self._awaited.discard(event)

    def lacking(self, name: str) -> tuple[Problem, ...]:
        """Return what keeps a job from being started, in the words with which `plan` refuses it."""
        definition = self[name]
        if not self._is_judged(definition):
            problems: tuple[Problem, ...] = ()
            try:
                self.plan(definition)
            except UnresolvedError as exc:
                problems = exc.problems
            self._lacking[name] = (definition, problems)
        return self._lacking[name][1]

    async def judge(self, names: Iterable[str]) -> None:
        """Find what keeps jobs from being started, so that `lacking` knows: of large ones in a thread."""
        slices = Slices()
        for name in names:
            definition, code = self._definitions.get(name), self._code
            if definition is not None and not self._is_judged(definition):
                try:
                    await self.ready(name)
                except UnresolvedError as error:
                    if code == self._code and self._definitions.get(name) is definition:
                        self._lacking[name] = (definition, error.problems)
                if name in self._definitions:
                    self.lacking(name)
            await slices.next()

    def _is_judged(self, definition: JobDefinition) -> bool:
        known = self._lacking.get(definition.name)
        return known is not None and known[0] is definition

    def _pool_problems(self, definition: JobDefinition) -> list[RawProblem]:
        asking = [
            item for item in EACH.get()(definition.tasks.items()) if item[1].pool is not None or item[1].needs
        ]
        if not asking:
            return []
        problems: list[RawProblem] = []
        backends, suggester = self._backends, Suggester(self._pools)
        for name, task in EACH.get()(asking):
            traits = backends.get(task.backend or "")
            if traits is not None and traits.takes_needs:
                continue  # what it has is for the backend to say
            if task.pool is not None and task.pool not in self._pools:
                problems.append(self._no_pool(("tasks", name, "pool"), task.pool, suggester))
            for pool, amount in task.needs.items():
                place = ("tasks", name, "needs", pool)
                if pool not in self._pools:
                    problems.append(self._no_pool(place, pool, suggester))
                    continue
                size, places = self._pools[pool], places_of(amount) + (pool == task.pool)
                if places > size:
                    words = (
                        f"needs {places:,} places of pool {pool}, which has {size:,}: it could never start"
                    )
                    problems.append(RawProblem(place, words))
        return problems

    def _no_pool(self, place: tuple[str, ...], pool: str, suggester: Suggester) -> RawProblem:
        known = ", ".join(sorted(self._pools)) or "none"
        return RawProblem(place, f"no pool {quote(pool)}; this Server has {known}", suggester.nearest(pool))

    def _resolve(self, definition: JobDefinition, known: Known) -> JobDefinition:
        """Return a copy in which each task names its bundle, where that is known."""
        found: dict[str, TaskClass | None] = {}
        tasks = dict(definition.tasks)
        with gc_paused(tasks=len(tasks)):
            for name, task in EACH.get()(definition.tasks.items()):
                if task.bundle is None:
                    path = task.task
                    if path not in found:
                        found[path] = _meant(known, path, definition.bundles)
                    task_class = found[path]
                    if task_class is not None:
                        tasks[name] = changed(task, task=task_class.path, bundle=task_class.bundle)
            resolved = changed(definition, tasks=FrozenDict(tasks))  # it differs in nothing that was checked
        for of_the_other in ("digest", "shown_digest", "codes"):
            vars(resolved).pop(of_the_other, None)
        if len(tasks) > LARGE:
            _ = resolved.codes  # here, in a thread
        return resolved

    def undefine(self, name: str) -> list[object]:
        """Forget a job; return what only it may have held. Raises `NoSuchJobError`."""
        name = self.named(name).name
        forgotten: list[object] = [
            self._definitions.pop(name),
            self._plans.pop(name, None),
            self._lacking.pop(name, None),
        ]
        self._open.discard(name)
        if self.on_change is not None:
            self.on_change(name, None)
        return forgotten

    @suggestion_budget()
    def validate(self, definition: JobDefinition | JobBuilder | str | bytes) -> list[Problem]:
        """Return everything that is wrong with a definition, by itself and against the code here.

        Of a text all problems have their places, in its order. With a journal there are warnings among them
        (`Problem.is_warning`): of tasks whose results it cannot keep.
        """
        if isinstance(definition, str | bytes):
            try:
                reading = read_definition(definition)
            except DefinitionError as exc:  # it is no JSON
                return list(exc.problems)
            return self._all_problems(reading)
        definition = definition_of(definition)
        read, problems = checked(definition)
        if read is not None:
            problems += self._server_problems(read, problems, warn=True)
        return placed(definition, problems)

    async def avalidate(self, definition: JobDefinition | JobBuilder | str | bytes) -> list[Problem]:
        """Do as `validate`; in a thread where the definition is large."""
        if isinstance(definition, str | bytes):
            if not is_long(definition):
                return self.validate(definition)
            try:
                reading = await in_thread(partial(read_definition, definition))
            except DefinitionError as exc:  # it is no JSON
                return list(exc.problems)
            job, told = reading.definition, reading.raw_problems
            more = [] if job is None else await self._aserver_problems(job, told, warn=True)
            del job

            def tell() -> list[Problem]:
                reading.discard()
                return reading.problems(more)

            return await in_thread(tell)
        definition = definition_of(definition)
        if not is_large(definition):
            return self.validate(definition)
        read, problems = await in_thread(lambda: checked(definition))
        if read is not None:
            problems += await self._aserver_problems(read, problems, warn=True)
        return await in_thread(lambda: placed(definition, problems))

    async def sound(self, reading: DefinitionReading) -> JobDefinition:
        """Return the definition of a reading in which nothing is wrong.

        Raises `DefinitionError` with what the reading found and what this Server has to say as well.
        """
        more = await self.problems_of(reading)
        if more is not None or reading.definition is None:
            problems = await in_thread(lambda: reading.problems(more or ()))
            raise DefinitionError(problems, source=reading.source)
        return reading.definition

    async def problems_of(self, reading: DefinitionReading) -> Sequence[RawProblem] | None:
        """Return what this Server has to add to what is wrong with a reading; None: nothing is wrong."""
        job = reading.definition
        if job is not None and not reading.raw_problems:
            return None
        # What comes with the file's own bundles cannot be judged before they are registered.
        if job is None or not all(map(self._has_bundle, job.bundles)):
            return ()
        return await self._aserver_problems(job, reading.raw_problems)

    def _all_problems(self, reading: DefinitionReading) -> list[Problem]:
        job = reading.definition
        more = () if job is None else self._server_problems(job, reading.raw_problems, warn=True)
        return reading.problems(more)

    def _server_problems(
        self, definition: JobDefinition, told: list[RawProblem], *, warn: bool = False
    ) -> list[RawProblem]:
        """Return what this Server has to say of a definition, right or wrong, that was not told before."""
        return self._problems_with(self._find, definition, told, warn=warn)

    async def _aserver_problems(
        self, definition: JobDefinition, told: list[RawProblem], *, warn: bool = False
    ) -> list[RawProblem]:
        if not is_large(definition):
            return self._server_problems(definition, told, warn=warn)
        return await self._with_code(
            definition, lambda find: self._problems_with(find, definition, told, warn=warn)
        )

    def _problems_with(
        self, find: Find, definition: JobDefinition, told: list[RawProblem], *, warn: bool
    ) -> list[RawProblem]:
        found = self._pool_problems(definition) + code_problems(definition, find, self._backends)
        if warn:
            found += _unkept(definition, find)
        return untold(found, told)

    def plan(self, definition: JobDefinition) -> Plan:
        """Compile a definition with the current code, or reuse what was compiled with it.

        Raises `UnresolvedError`.
        """
        return self._plan_of(definition) or self._keep_plan(self.compiled(definition, self._find))

    def _plan_of(self, definition: JobDefinition) -> Plan | None:
        cached = self._plans.get(definition.name)
        return cached if cached is not None and cached.definition is definition else None

    def _keep_plan(self, plan: Plan) -> Plan:
        self._compiled.add(plan)
        if self.stand_in is None and self._definitions.get(plan.job) is plan.definition:
            self._plans[plan.job] = plan
        return plan

    def compiled(self, definition: JobDefinition, find: Find) -> Plan:
        """Compile a definition with the code that `find` finds. Raises `UnresolvedError`."""
        plan = compile_plan(definition, find, self._backends, self.stand_in)
        self._compiled.add(plan)
        return plan

    def code_changed(self) -> None:
        """Forget the plans: they were compiled with what is no longer current. Resolve what has waited for code."""
        self._code += 1
        self._plans.clear()
        self._lacking.clear()
        for name in list(self._open):
            waiting = self._definitions[name]
            paths = (path for path, bundle in waiting.codes if bundle is None)
            if not any(_meant(self._known, path, waiting.bundles) for path in paths):
                continue  # thousands of tasks need not be looked at to know that
            resolved = self._resolve(waiting, self._known)
            if resolved.tasks != self._definitions[name].tasks:
                self._keep(resolved)
        for event in self._awaited:
            event.set()

    def code_released(self, version: BundleVersion | None) -> None:
        """Have plans that some kept run still holds let go of a version that was released: it shall not live on."""
        self._plans.clear()
        for plan in [plan for plan in self._compiled if version in plan.versions]:
            plan.let_go()
            self._compiled.discard(plan)


class Unresolved(LiveMapping[str, tuple[Problem, ...]]):
    """The jobs that cannot be started, each with what it lacks. A job is looked at when it is asked for."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def __repr__(self) -> str:
        return repr(dict(self))

    def __getitem__(self, name: str) -> tuple[Problem, ...]:
        if name in self._jobs and (lacks := self._jobs.lacking(name)):
            return lacks
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._jobs if self._jobs.lacking(name)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    async def judge(self, *names: str) -> None:
        """Look at jobs, or at all of them, beforehand: on the loop that would take as long as they are large."""
        await self._jobs.judge(names or list(self._jobs))


def _meant(known: Known, path: str, bundles: Iterable[str]) -> TaskClass | None:
    """Return the class of a path: from the bundles that the definition itself names, else from any."""
    named = [found for bundle in bundles if (found := known(path, bundle)) is not None]
    return named[0] if len(named) == 1 else known(path, None)


def _known(find: Find, path: str, bundle: str | None) -> TaskClass | None:
    try:
        return find(path, bundle)
    except ScattersphereError:
        return None  # its code may come later


def is_long(text: str | bytes) -> bool:
    """Whether a text is read in a thread: it is long, or may have schedules, and a rare one takes a millisecond."""
    schedules, escape = ('"schedules"', "\\u") if isinstance(text, str) else (b'"schedules"', b"\\u")
    return len(text) > LONG or schedules in text or escape in text  # type: ignore[operator]


def is_large(definition: JobDefinition) -> bool:
    """Whether work on a definition is done in a thread."""
    return isinstance(definition.tasks, Mapping) and len(definition.tasks) > LARGE


def source_of(definition: JobDefinition) -> str:
    """Name a definition in an error: its file, else its name."""
    return definition.path or str(definition.name)


def job_of_task(found: TaskClass, args: Mapping[str, object]) -> JobDefinition:
    """Return a job whose one task is of this class. The arguments are literal: a `$` in them means nothing."""
    name = job_name_of(found.path)
    literals = {key: literal(value) for key, value in args.items()}
    task = TaskDefinition(task=found.path, bundle=found.bundle, args=literals)
    return JobDefinition(name=name, tasks={name: task})


def job_name_of(path: str) -> str:
    """Return the name of the job that a run of one task is of, and of its task."""
    return path.replace("<", "_").replace(">", "_")


def definition_of(given: object) -> JobDefinition:
    """Return a definition, finished where a builder is given. Raises `TypeError` for anything else."""
    if isinstance(given, JobBuilder):
        return given.done()
    if not isinstance(given, JobDefinition):
        raise TypeError(
            f"a JobDefinition is wanted, not {describe(given)}; "
            "make one with JobDefinition.loads(text), JobDefinition.load(path) or JobDefinition.build(name)"
        )
    return given


def _unkept(definition: JobDefinition, find: Find) -> list[RawProblem]:
    """Return warnings of results that no journal keeps: one for each task class, at the first task that has it."""
    if definition.durability is Durability.NONE:
        return []
    found: list[RawProblem] = []
    looked_at = set[tuple[str, str | None]]()
    for name, task in EACH.get()(definition.tasks.items()):
        if (task.task, task.bundle) in looked_at:
            continue
        looked_at.add((task.task, task.bundle))
        try:
            reason = find(task.task, task.bundle).unkept
        except ScattersphereError:  # which is said already
            continue
        if reason is not None:
            words = (
                f"the journal cannot keep its results ({reason}): after a restart they are made again where something "
                'still reads them; return what has an exact form, or open the Server with results="pickle"'
            )
            found.append(RawProblem(("tasks", name, "task"), words, is_warning=True))
    return found

"""StoredRuns: runs read from the journal, to be looked at or resumed: definition, code, results, record.

`recovery.py` says what the rows of a run come to; here is what is awaited for that: the journal, code, values.
"""

from __future__ import annotations

import json
from array import array
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import anyio.to_thread
import attrs

from scattersphere.abc.journal import DurabilityLevel, Journal, ValueForm
from scattersphere.definitions import read_definition
from scattersphere.engine.machine.codes import RUN_ENDED_FROM
from scattersphere.engine.planning import bare_plan
from scattersphere.engine.recording import Recording
from scattersphere.engine.reused import Reused
from scattersphere.engine.run import Run
from scattersphere.engine.timers import within
from scattersphere.errors import (
    BundleError,
    ConflictError,
    DefinitionError,
    JournalError,
    NoSuchTaskError,
    NotFoundError,
    ScattersphereError,
    UnresolvedError,
)
from scattersphere.jobs.recovery import count_moves, restored
from scattersphere.jobs.schedulerows import micros_of, scheduled_of
from scattersphere.model.logs import line_of, unpack_lines
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping

    from scattersphere.abc.journal import StoredRun
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.recorder import Recorder, ResultCodec
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.jobs.recovery import Restored
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.logs import LogLine
    from scattersphere.model.taskclass import TaskClass
    from scattersphere.registry.records import BundleVersion
    from scattersphere.registry.registry import TaskRegistry

T = TypeVar("T")
MICRO = 1_000_000
QUICK_BYTES = 64 * 1024
"""Bytes of JSON results that are read on the loop's thread."""
DEFINITIONS = 100
"""Definitions of runs of the journal that stay in memory."""
NOT_READ = "its result was not read out of the journal: `await server.history.get(run)` does that"
NO_CODE = (BundleError, NotFoundError, UnresolvedError, ConflictError, JournalError, LookupError)
"""What is raised where the code of a run is not there, or does not do any more."""
RUN_STATES = tuple(RunState)
_VALUES = (ValueForm.JSON, ValueForm.TAGGED, ValueForm.PICKLE, ValueForm.FILE)
Adopted: TypeAlias = dict[str, "BundleVersion"]
"""Versions of code that were loaded out of the journal, by digest."""


class KnownRuns(Protocol):
    """Where runs of earlier lives are taken up: the factory of runs."""

    @property
    def runs(self) -> Mapping[int, Run]:
        """The runs that are kept in memory, by number."""
        ...

    def take_back(self, run: Run) -> None:
        """Take up a run of an earlier life of the Server."""


class StoredRuns:
    """Reads runs of one Server out of its journal: those that have ended to be looked at, the others to go on."""

    def __init__(
        self,
        journal: Journal,
        recorder: Recorder,
        codec: ResultCodec,
        *,
        jobs: Jobs,
        registry: TaskRegistry,
        executor: JobExecutor,
        factory: KnownRuns,
    ) -> None:
        self.journal: Journal = journal
        self.recorder: Recorder = recorder
        self._codec = codec
        self._jobs = jobs
        self.registry: TaskRegistry = registry
        self.executor: JobExecutor = executor
        self.factory: KnownRuns = factory
        self._definitions: OrderedDict[str, JobDefinition] = OrderedDict()

    async def call(self, method: Callable[..., T], *args: object) -> T:
        """Call a method of the journal that blocks: in a thread, unless the journal says that it takes no time."""
        if getattr(self.journal, "is_instant", False):
            return method(*args)
        return await anyio.to_thread.run_sync(partial(method, *args))

    async def definition(self, digest: str) -> JobDefinition:
        """Return a definition. Raises `LookupError`, `DefinitionError`, `JournalError`."""
        known = self._definitions
        if digest in known:
            known.move_to_end(digest)
            return known[digest]
        found = known[digest] = await self.call(lambda: _definition_of(self.journal.read_definition(digest)))
        while len(known) > DEFINITIONS:
            known.popitem(last=False)
        return found

    async def definition_of(self, stored: StoredRun) -> JobDefinition | None:
        """Return the definition of a run; None where it cannot be read any more. The last ones stay in memory."""
        try:
            return await self.definition(stored.run.definition)
        except (LookupError, ScattersphereError):
            return None

    # ---- one run

    def make(self, stored: StoredRun, definition: JobDefinition) -> Execution:
        """Make the record of a run without its code: it can be looked at, and cancelled."""
        run, executor = stored.run, self.executor
        extra = json.loads(run.extra)
        given = frozenset(extra.get("given_secrets", ()))
        execution = executor.make(run.id, bare_plan(definition), _params_of(stored, definition, given))
        execution.given_secrets = given
        execution.created_at = clock_of(execution, run.created)
        execution.keep_secret(frozenset(run.secrets))
        execution.key, execution.user = run.key, run.user
        execution.parent = run.parent if run.parent is not None else run.again
        execution.is_child = run.child is not None
        execution.depth = extra.get("depth", 0)
        execution.reused = {name: Reused(**note) for name, note in extra.get("reused", {}).items()}
        if run.scheduled is not None:
            execution.scheduled = scheduled_of(run.scheduled)
        if stored.state.started is not None:
            execution.started_at = clock_of(execution, stored.state.started)
        timeout = definition.timeout
        if timeout is not None:
            execution.remaining = max(0.0, within(timeout) - stored.state.spent / MICRO)
        execution.recovered = stored.state.recovered
        execution.show(stored.state.state, [(step.unit, step.state, step.attempts) for step in stored.steps])
        recording = Recording(self.recorder, execution, DurabilityLevel(run.durability))
        recording.is_committed = True
        rows = recording.rows
        rows.recovered, rows.fruitless = stored.state.recovered, stored.state.fruitless
        rows.base = count_moves(stored)
        rows.lines_before = stored.lines
        rows.apart.update(step.unit for step in stored.steps)
        execution.recording = recording
        if stored.lines:
            execution.log.earlier = _JournalLines(self.journal, run.id, stored.lines)
        return execution

    async def plan(self, stored: StoredRun, definition: JobDefinition, adopted: Adopted) -> Plan:
        """Compile the definition of a run with the code that it had. Raises what `Jobs.compiled` and `adopt` do.

        `adopted` has the versions that were loaded for it, and is added to; `disown` lets go of them.
        """
        found: dict[str, BundleVersion] = {}
        for name, digest in stored.run.bundles:
            if digest and digest not in adopted:
                content = await self.call(self.journal.read_bundle, digest)
                if content is None:
                    raise JournalError(f"the code of bundle {name!r} ({digest[:12]}) is not in the journal")
                adopted[digest] = await self.registry.adopt(name, digest, content)
            if digest:
                found[name] = adopted[digest]

        def find(path: str, bundle: str | None) -> TaskClass:
            if bundle in found:
                tasks = found[bundle].tasks
                if path not in tasks:
                    raise NoSuchTaskError(f"no task {path!r} in {found[bundle].label}")
                return tasks[path]
            return self.registry.find(path, bundle)

        return self._jobs.compiled(definition, find)

    def disown(self, adopted: Adopted) -> None:
        """Let go of versions that `plan` has loaded, but for those that are pinned or kept by now."""
        for version in adopted.values():
            self.registry.disown(version)

    async def restored(
        self, stored: StoredRun, definition: JobDefinition, plan: Plan, *, results: bool = True
    ) -> Restored:
        """Read what a run has made, and say how it goes on."""
        steps = [step for step in stored.steps if results and step.form in _VALUES]
        values: dict[int, object] = {}

        def read() -> None:
            for step in steps:
                try:
                    form, data = self.journal.read_value(step)
                    values[step.unit] = self._codec.decode(form, data, plan.versions)
                except Exception:  # noqa: BLE001, S112 - what cannot be read is as good as not kept
                    continue

        size = sum(len(step.value or b"") for step in steps)
        if size <= QUICK_BYTES and all(step.form == ValueForm.JSON for step in steps):
            read()
        else:
            await anyio.to_thread.run_sync(read)
        return restored(stored, definition, plan.graph, lambda step: values[step.unit], self.recorder.now())

    # ---- runs that have ended

    async def find_runs(
        self,
        job: str | None,
        state: RunState | None,
        since: dt.datetime | None,
        before: int | None,
        limit: int,
    ) -> list[StoredRun]:
        """Return runs of the journal without their steps, newest first."""
        find = partial(
            self.journal.find_runs,
            job=job,
            states=None if state is None else [RUN_STATES.index(state)],
            since=None if since is None else micros_of(since),
            before=before,
            limit=limit,
        )
        return await self.call(find)

    async def find_key(self, definition: JobDefinition, key: str, user: str) -> Run | None:
        """Return the ended run that a user has started with a key and that only the journal remembers."""
        number = await self.call(self.journal.find_key, definition.name, user, key)
        if number is None or number in self.factory.runs:
            return None
        return await self.revive(number)

    async def find_keys(self, job: str, keys: Iterable[str]) -> dict[str, int]:
        """Return by key which runs of a job were started with these, as far as any were."""

        def find() -> dict[str, int]:
            found = ((key, self.journal.find_key(job, "", key)) for key in keys)
            return {key: number for key, number in found if number is not None}

        return await self.call(find)

    async def ended_run(self, number: int, *, results: bool = True) -> Run | None:
        """Return a run that has ended and is only in the journal, as it was; None where it is not there.

        With `results` it has those that can be read, by the exact code that it had.
        """
        found = await self.call(self.journal.read_runs, [number])
        if not found or found[0].state.state < RUN_ENDED_FROM:
            return None
        stored = found[0]
        definition = await self.definition_of(stored)
        if definition is None:
            raise JournalError(f"the definition of run {number} cannot be read any more")
        execution = self.make(stored, definition)
        execution.recording = None
        plan, adopted = execution.plan, Adopted()
        try:
            if results:
                with suppress(*NO_CODE):  # then what needs no code is read
                    plan = await self.plan(stored, definition, adopted)
            state = await self.restored(stored, definition, plan, results=results)
            execution.renew(plan)
            self.registry.keep(number, plan.versions)
        finally:
            self.disown(adopted)
        note(execution, state)
        if not results:
            execution.unkept = dict.fromkeys(range(plan.size), NOT_READ)
        execution.take_up(attrs.evolve(state.facts, state=stored.state.state))
        if stored.state.ended is not None:
            execution.ended_at = clock_of(execution, stored.state.ended)
        execution.crash_words = stored.state.failure or ""
        execution.compact()
        execution.journal.replay(
            [(clock_of(execution, row.at), array("q", row.moves)) for row in stored.moves]
        )
        return Run(execution, self.executor)

    async def revive(self, number: int) -> Run | None:
        """Return an ended run of the journal, and have it in memory from now on, with its key."""
        run = await self.ended_run(number)
        if run is not None:
            if number in self.factory.runs:
                return self.factory.runs[number]
            self.factory.take_back(run)
        return run

    def forget(self, number: int) -> None:
        """Nobody looks at an ended run any more: the files of its code may go."""
        self.registry.forget(number)


def note(execution: Execution, found: Restored) -> None:
    """Note in the record of a run what its machine does not know."""
    execution.failures.update(found.failures)
    execution.retry_waits.update(found.waits)
    execution.unkept = found.unkept
    execution.earlier.update(found.earlier)
    for unit, (started, ended) in found.times.items():
        if started is not None:
            execution.mark(execution.started, unit, clock_of(execution, started))
        if ended is not None:
            execution.mark(execution.ended, unit, clock_of(execution, ended))


@attrs.frozen
class _JournalLines:
    """The lines that earlier lives of a run have written (`runlog.EarlierLines`)."""

    _journal: Journal
    _run: int
    count: int

    def read(self, most: int) -> list[LogLine]:
        """Return the newest ones; none where the journal cannot be read any more."""
        first = self.count - most + 1
        found: list[LogLine] = []
        try:
            for row in self._journal.read_log(self._run, first):
                if row.first <= self.count:  # else it is of this life
                    found += map(line_of, unpack_lines(row.data)[max(0, first - row.first) :])
        except (JournalError, ValueError):
            return []
        return found


def _definition_of(text: str) -> JobDefinition:
    """Read a definition. Raises `DefinitionError` with what is wrong in it."""
    reading = read_definition(text)
    if reading.definition is None or reading.raw_problems:
        raise DefinitionError(reading.problems(), source="journal")
    return reading.definition


def _params_of(stored: StoredRun, definition: JobDefinition, given: frozenset[str]) -> dict[str, object]:
    """Return the parameters of a run, without the secrets that were given; others have their defaults."""
    params: dict[str, object] = json.loads(stored.run.params)
    for name in set(stored.run.secrets) - given:
        declared = definition.params.get(name)
        params[name] = getattr(declared, "default", declared)
    return {name: params[name] for name in definition.params if name in params}


def clock_of(execution: Execution, micros: int) -> float:
    """Return an instant of the journal as the loop's clock of this life has it."""
    return micros / MICRO - execution.epoch

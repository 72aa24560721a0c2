"""DurableRuns: the runs of a Server that has a journal. Written when they are submitted, restored when it is opened.

`recovery.py` says what rows come to; here is what is awaited: the journal itself, code, values.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from array import array
from collections import OrderedDict, defaultdict, deque
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import attrs

from scattersphere.abc.journal import DurabilityLevel, Journal, RunRow, ScheduleRow, ValueForm
from scattersphere.definitions import read_definition
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    KILL,
    RUN_CRASHED,
    RUN_ENDED_FROM,
    TASK_ENDED_FROM,
)
from scattersphere.engine.planning import bare_plan
from scattersphere.engine.recorder import DURABILITY, Recorder
from scattersphere.engine.recording import Recording
from scattersphere.engine.reused import Reused
from scattersphere.engine.run import Run
from scattersphere.engine.timers import within
from scattersphere.engine.values import width_of
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
from scattersphere.jobs.recovery import count_moves, crashed, new_life, restored
from scattersphere.logs.runlog import current_attempt
from scattersphere.model import states
from scattersphere.model.events import EventKind
from scattersphere.model.logs import line_of, unpack_lines
from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scattersphere.abc.journal import Row, StepRow, StoredRun
    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.recorder import ResultCodec
    from scattersphere.jobs.jobs import Jobs
    from scattersphere.jobs.recovery import Restored
    from scattersphere.jobs.runs import RunFactory
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.logs import LogLine
    from scattersphere.model.taskclass import TaskClass
    from scattersphere.registry.records import BundleVersion
    from scattersphere.registry.registry import TaskRegistry

T = TypeVar("T")
MICRO = 1_000_000
QUICK_BYTES = 64 * 1024
"""Bytes of JSON results that are read on the loop's thread."""
_Adopted = dict[str, "BundleVersion"]
DEFINITIONS = 100
"""Definitions of runs of the journal that stay in memory."""
ChildKey = tuple[int, str, "int | None", int, int]
"""(parent, task, index, try, n): the n-th run that this try of a task has started."""

DISPLACED = 1 << 32
"""What is added to the number of a child in whose place an interrupted attempt had started another one."""


class Waiting(NamedTuple):
    """An unfinished run that does not go on yet: its code is not there."""

    stored: StoredRun
    definition: JobDefinition
    execution: Execution


class DurableRuns:
    """Writes the runs of one Server into its journal, and restores those that have not ended."""

    def __init__(  # noqa: PLR0913 - the parts of a Server
        self,
        journal: Journal,
        codec: ResultCodec,
        *,
        jobs: Jobs,
        registry: TaskRegistry,
        executor: JobExecutor,
        factory: RunFactory,
        version: str,
        on_failed: Callable[[str], None],
        on_mended: Callable[[], None],
        on_crashed: Callable[[StoredRun], None],
    ) -> None:
        self.recorder: Recorder = Recorder(executor, journal, codec, on_failed, on_mended)
        self._journal = journal
        self._codec = codec
        self._jobs = jobs
        self._registry = registry
        self._executor = executor
        self._factory = factory
        self._version = version
        self._on_crashed = on_crashed
        self._unfinished: list[tuple[StoredRun, JobDefinition]] = []
        self.waiting: dict[int, Waiting] = {}
        """Unfinished runs whose code is not there, by number."""
        self._children: dict[ChildKey, int] = {}
        self._definitions: OrderedDict[str, JobDefinition] = OrderedDict()
        self._unwritten: dict[int, RunRow] = {}
        """Of runs without durability, until they have ended."""
        self._offspring: dict[int, list[tuple[Execution, str, int | None]]] = defaultdict(list)
        """By parent the unfinished runs that its bodies have started: by which task, and instance."""
        self._orphans: set[int] = set()
        """Runs that are to be cancelled when their code is there."""
        self._ended_here: dict[int, StoredRun] = {}
        """Runs that could not go on at the start of this life."""
        self.schedules: tuple[list[ScheduleState], list[ScheduleState]] = ([], [])
        """What the journal knew of schedules when it was opened, and of those that were not defined any more."""
        self._kept: dict[tuple[str, str], ScheduleRow] = {}
        """What was written of each schedule last, or will be when the run before it is."""
        self._behind: dict[tuple[str, str], deque[tuple[Recording | None, list[Row]]]] = {}
        """By schedule what is written after a run whose code must be exported first, in order."""
        self._looking = False
        self._looked = anyio.Event()
        self._looked.set()
        self._look_again = False
        self._is_opened = False

    async def _call(self, method: Callable[..., T], *args: Any) -> T:
        """Call a method of the journal that blocks: in a thread, unless the journal says that it takes no time."""
        if getattr(self._journal, "is_instant", False):
            return method(*args)
        return await anyio.to_thread.run_sync(partial(method, *args))

    # ---- opening

    async def open(self) -> None:
        """Take the journal, and commit the beginning of a new life. Raises `JournalBusyError`, `JournalError`."""
        recorder, journal = self.recorder, self._journal
        state = await self._call(journal.open, recorder)
        self._is_opened = True
        rows = recorder.open(state, pid=os.getpid(), version=self._version)
        for row in state.schedules:
            self.schedules[row.gone is not None].append(_schedule_of(row))
        for stored in await self._call(journal.read_runs, state.unfinished):
            rows += await self._new_life(stored)
        await recorder.wait_for(lambda done: recorder.write(rows, done))
        recorder.begun()
        self._executor.recorder, self._executor.identity = recorder, state.id
        self._executor.life = 0 if recorder.life is None else recorder.life.number

    def keep_schedule(self, state: ScheduleState, gone: dt.datetime | None) -> None:
        """Write what is new of a schedule: after its runs that are not written yet, never before them."""
        row, key = _schedule_row(state, gone), (state.job, state.name)
        if not self.recorder.is_open or self._kept.get(key) == row:
            return
        self._kept[key] = row
        if key in self._behind:
            self._behind[key].append((None, [row]))
        else:
            self.recorder.write([row])

    async def _new_life(self, stored: StoredRun) -> list[Row]:
        now = self.recorder.now()
        try:
            text = await self._call(self._journal.read_definition, stored.run.definition)
            definition = _definition_of(text)
        except (LookupError, ScattersphereError) as error:
            words = f"its definition cannot be read any more: {error}"
            return [crashed(stored.state, words[:1000], now)]
        after, rows = new_life(stored, definition, now)
        if after.state.state < RUN_ENDED_FROM:
            self._unfinished.append((after, definition))
        else:
            self._ended_here[stored.run.id] = after
        return rows

    async def restore(self, at_most: float) -> None:
        """Let the unfinished runs go on: those that had begun first, then the queued ones, by number."""
        for stored in self._ended_here.values():
            self._on_crashed(stored)
        unfinished, self._unfinished = self._unfinished, []
        unfinished.sort(key=lambda found: (not found[0].state.begun, found[0].run.id))
        for stored, definition in unfinished:
            execution = self._make(stored, definition)
            execution.waits_for = "its code"
            self.waiting[execution.id] = Waiting(stored, definition, execution)
            self._executor.running[execution.id] = execution
            self._factory.take_back(Run(execution, self._executor))
        known = list(self.waiting.values())
        for waiting in known:
            await self._know_children(waiting)
        self.code_changed()
        with anyio.move_on_after(at_most):  # what takes longer goes on when its code is there
            await self._looked.wait()
        stored_runs = {waiting.stored.run.id: waiting.stored for waiting in known} | self._ended_here
        for waiting in known:
            if await self._is_orphaned(waiting.stored.run, stored_runs):
                self._end_orphan(waiting.execution)

    async def _is_orphaned(self, run: RunRow, known: Mapping[int, StoredRun]) -> bool:
        """Whether the attempt that has started a run has died for good with an earlier life: nobody waits for it."""
        if run.child is None or run.parent is None:
            return False
        parent = known.get(run.parent)
        if parent is None:
            # It has ended in an earlier life, which may have died before it could cancel this run.
            found = await self._call(self._journal.read_runs, [run.parent])
            if not found:
                return False
            parent = found[0]
        if parent.state.state == RUN_CRASHED:
            return True
        gone = (CRASHED, CANCELLED)
        return any(step.unit == run.parent_unit and step.state in gone for step in parent.steps)

    def _end_orphans(self, waiting: Waiting) -> None:
        """Cancel the runs that nobody waits for: what had started them was interrupted, and is not to run again."""
        execution, ended = waiting.execution, set[tuple[int, int | None]]()
        for step in waiting.stored.steps:
            if step.state >= TASK_ENDED_FROM:
                ended.add((step.task, step.place))
        record, names = execution.machine.record, list(waiting.definition.tasks)
        for child, name, index in self._offspring.pop(execution.id, ()):
            task = names.index(name)
            units = [task]
            if index is not None:
                units = record.maps[task].units[index : index + 1] if task in record.maps else []
            is_over = execution.state.ended or any(
                record.task_states[unit] >= TASK_ENDED_FROM for unit in units
            )
            if is_over and (task, index) not in ended:
                self._end_orphan(child)

    def _end_orphan(self, child: Execution) -> None:
        """Cancel a run whose parent could not go on: when its own code is there, for its finally-tasks."""
        if child.id in self.waiting:
            self._orphans.add(child.id)
        elif not child.state.ended:
            words = f"its parent, run {child.parent}, could not go on"
            self._executor.requests.request(child, "cancel", words, None)

    async def _know_children(self, waiting: Waiting) -> None:
        """Note which runs the bodies of a run have started, and how deep it is nested."""
        run = waiting.stored.run
        if run.child is not None and run.parent in self.waiting:
            self.waiting[run.parent].execution.children.add(waiting.execution)
            by = json.loads(run.extra)["by"]
            self._offspring[run.parent].append((waiting.execution, by["task"], by["index"]))
        for row in await self._call(self._journal.read_children, run.id):
            if row.child is not None:
                by = json.loads(row.extra)["by"]
                self._children[run.id, by["task"], by["index"], row.parent_try or 0, row.child] = row.id

    def code_changed(self) -> None:
        """Other code is there: runs that wait for theirs may go on."""
        if self.waiting and not self._looking:
            self._looking, self._looked = True, anyio.Event()
            self._executor.soon(self._start_looking)
        elif self._looking:
            self._look_again = True

    def _start_looking(self) -> None:
        self._executor.loop.start(self._look_until_done(), "scattersphere recovery")

    async def _look_until_done(self) -> None:
        current_attempt.set(None)
        try:
            self._look_again = True
            while self._look_again and not self._executor.suspension.has_begun:
                self._look_again = False
                await self._look()
        finally:
            self._looking = False
            self._looked.set()

    async def _look(self) -> None:
        adopted: dict[str, BundleVersion] = {}
        try:
            for waiting in list(self.waiting.values()):
                if self._executor.suspension.has_begun:
                    return
                if waiting.execution.id in self.waiting:
                    await self._try(waiting, adopted)
        finally:
            for version in adopted.values():
                self._registry.disown(version)
        self._executor.admit()

    async def _try(self, waiting: Waiting, adopted: dict[str, BundleVersion]) -> None:
        """Let a run go on if its code is there; else note what it waits for."""
        execution = waiting.execution
        try:
            plan = await self._plan(waiting, adopted)
            found = await self._restored(waiting, plan)
        except Exception as error:  # noqa: BLE001 - also a full disk: others go on, and it is tried again
            execution.waits_for = f"its code: {error}"[:2000]
            return
        if self.waiting.pop(execution.id, None) is not None:  # else it was cancelled meanwhile
            self._executor.guard(execution, self._go_on, waiting, plan, found)

    async def _plan(self, waiting: Waiting, adopted: dict[str, BundleVersion]) -> Plan:
        """Compile the definition of a run with the code that it had. Raises what `Jobs.compiled` and `adopt` do."""
        found: dict[str, BundleVersion] = {}
        for name, digest in waiting.stored.run.bundles:
            if digest and digest not in adopted:
                content = await self._call(self._journal.read_bundle, digest)
                if content is None:
                    raise JournalError(f"the code of bundle {name!r} ({digest[:12]}) is not in the journal")
                adopted[digest] = await self._registry.adopt(name, digest, content)
            if digest:
                found[name] = adopted[digest]

        def find(path: str, bundle: str | None) -> TaskClass:
            if bundle in found:
                tasks = found[bundle].tasks
                if path not in tasks:
                    raise NoSuchTaskError(f"no task {path!r} in {found[bundle].label}")
                return tasks[path]
            return self._registry.find(path, bundle)

        return self._jobs.compiled(waiting.definition, find)

    async def _restored(self, waiting: Waiting, plan: Plan, *, results: bool = True) -> Restored:
        """Read what a run has made, and say how it goes on."""
        stored = waiting.stored
        steps = [step for step in stored.steps if results and step.form in _VALUES]
        values: dict[int, Any] = {}

        def read() -> None:
            for step in steps:
                try:
                    form, data = self._journal.read_value(step)
                    values[step.unit] = self._codec.decode(form, data, plan.versions)
                except Exception:  # noqa: BLE001, S112 - what cannot be read is as good as not kept
                    continue

        size = sum(len(step.value or b"") for step in steps)
        if size <= QUICK_BYTES and all(step.form == ValueForm.JSON for step in steps):
            read()
        else:
            await anyio.to_thread.run_sync(read)
        return restored(
            stored, waiting.definition, plan.graph, lambda step: values[step.unit], self.recorder.now()
        )

    # ---- going on

    def _make(self, stored: StoredRun, definition: JobDefinition) -> Execution:
        """Make the record of a run without its code: it can be looked at, and cancelled."""
        run, executor = stored.run, self._executor
        extra = json.loads(run.extra)
        given = frozenset(extra.get("given_secrets", ()))
        execution = executor.make(run.id, bare_plan(definition), _params_of(stored, definition, given))
        execution.given_secrets = given
        execution.created_at = _clock(execution, run.created)
        execution.secrets = frozenset(run.secrets)
        execution.key, execution.user = run.key, run.user
        execution.parent = run.parent if run.parent is not None else run.again
        execution.is_child = run.child is not None
        execution.depth = extra.get("depth", 0)
        execution.reused = {name: Reused(**note) for name, note in extra.get("reused", {}).items()}
        if run.scheduled is not None:
            execution.scheduled = _scheduled_of(run.scheduled)
        if stored.state.started is not None:
            execution.started_at = _clock(execution, stored.state.started)
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
            execution.log.earlier = _JournalLines(self._journal, run.id, stored.lines)
        return execution

    def _go_on(self, waiting: Waiting, plan: Plan, found: Restored) -> None:
        """Let a run go on whose code is there."""
        execution, executor = waiting.execution, self._executor
        self._leave_waiting(execution, plan, found)
        self._registry.pin(execution.id, plan.versions, keep=True)
        for task in found.resets:
            execution.note_event(EventKind.TASK_RESET, task, "its result was not kept, and is needed again")
        if not found.facts.started:
            executor.commands.apply(execution, execution.take_up(found.facts))
            if not execution.is_child:
                executor.admission.enter(execution)
            else:
                executor.guard(execution, executor.slot, execution)
        else:
            if not execution.is_child:
                executor.admission.go_on(execution)
            executor.guard(execution, self._take_up, execution, found)
            self._end_orphans(waiting)
        executor.guard(execution, executor.requests.ask_late, execution)
        if execution.id in self._orphans:
            self._orphans.discard(execution.id)
            self._end_orphan(execution)

    def _leave_waiting(self, execution: Execution, plan: Plan, found: Restored) -> None:
        """Have a machine that moves: what it comes to is written from now on, without waiting for an outcome."""
        execution.renew(plan)
        execution.waits_for = ""
        if execution.recording is not None:
            execution.recording.is_submitted = True
        self._note(execution, found)
        self._executor.observer.run_moved(execution, EventKind.RUN_RECOVERED)
        execution.note_event(EventKind.RUN_RECOVERED, None, f"restart {execution.recovered}")

    def _note(self, execution: Execution, found: Restored) -> None:
        execution.failures.update(found.failures)
        execution.retry_waits.update(found.waits)
        execution.unkept = found.unkept
        execution.earlier.update(found.earlier)
        for unit, (started, ended) in found.times.items():
            if started is not None:
                execution.mark(execution.started, unit, _clock(execution, started))
            if ended is not None:
                execution.mark(execution.ended, unit, _clock(execution, ended))

    def _take_up(self, execution: Execution, found: Restored) -> None:
        machine, executor = execution.machine, self._executor
        commands = execution.take_up(found.facts)
        for (
            unit,
            wait,
        ) in found.waits.items():  # at most its own length: the clock on the wall may have been set
            if wait:
                policy = execution.plan.tasks[machine.record.task_of(unit)].definition.retry
                execution.retry_waits[unit] = min(wait, within(policy.max_delay))
        words = found.crash or self._changed_map(execution, found.facts.widths)
        if words:
            execution.crash_words = words
            commands = machine.crash()
        elif execution.state is not states.RunState.PAUSED:
            executor.requests.arm_run_timeout(execution)
        if execution.recording is not None:
            execution.recording.take_concluded(found.concluded)
        executor.commands.apply(execution, commands)

    def _changed_map(self, execution: Execution, widths: Mapping[int, int]) -> str:
        """Look again at what maps go over that have not ended. Return what is wrong with it."""
        for task, width in widths.items():
            if execution.machine.record.task_states[task] >= TASK_ENDED_FROM:
                continue
            name = execution.plan.tasks[task].name
            try:
                found = width_of(execution, task)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the map cannot go on
                return f"the list that task {name!r} maps over cannot be made again: {exc}"
            if found != width:
                return f"task {name!r} has mapped over {width} elements, and now finds {found}"
        return ""

    def cancel_waiting(self, execution: Execution, verb: str, reason: str | None) -> None:
        """End a run whose code is not there: without finally-tasks, for those are code too."""
        waiting = self.waiting.pop(execution.id)
        found = restored(
            waiting.stored, waiting.definition, execution.plan.graph, _no_value, self.recorder.now()
        )
        causes = (*found.facts.causes, reason or verb)
        facts = attrs.evolve(found.facts, level=KILL, causes=causes, state=_CANCELLING, started=True)
        self._leave_waiting(execution, execution.plan, found)
        self._executor.commands.apply(execution, execution.take_up(facts))

    # ---- new runs

    def record(
        self,
        execution: Execution,
        *,
        args: Mapping[str, Any] | None,
        given: frozenset[str],
        child: ChildKey | None,
        again: int | None,
        schedule: ScheduleState | None = None,
    ) -> Callable[[], None]:
        """Prepare a new run to be written; what is returned writes it, when it was submitted.

        `schedule` is what is remembered of the schedule that starts it, from then on: one commit has both. A run that
        cannot be written is not recorded: a restart forgets it. One without durability is written with its end.
        """
        definition = execution.plan.definition
        try:
            row = self._row(execution, args=args, given=given, child=child, again=again)
            if not self.recorder.has(execution.plan):
                definition.dumps()
        except (TypeError, ValueError, DefinitionError) as error:
            execution.log.append(30, f"this run does not survive a restart: {error}")
            return lambda: None
        if definition.durability is states.Durability.NONE:
            self._unwritten[execution.id] = row
            return lambda: None
        if given:
            execution.log.append(
                30,
                "a secret was given by value: this run is cancelled when the Server closes, and does not survive",
            )
        execution.given_secrets = frozenset(given)
        recording = Recording(self.recorder, execution, DURABILITY[definition.durability])
        execution.recording = recording
        return partial(self._submit, recording, row, schedule)

    def ended(self, execution: Execution) -> None:
        """A run has ended: one without durability is written now, as a whole."""
        row = self._unwritten.pop(execution.id, None)
        if row is None or not self.recorder.is_open or self.recorder.is_full:
            return
        plan, recording = execution.plan, Recording(self.recorder, execution, DurabilityLevel.NONE)
        rows = [row, *recording.rows.take()]  # now: what an ended run does not need is given back soon
        more = self.recorder.ready_now(plan)
        if more is None:
            self._executor.loop.start(self._write_ended(plan, rows), "scattersphere journal")
        else:
            self._write_whole(plan, rows, more)

    async def _write_ended(self, plan: Plan, rows: list[Row]) -> None:
        current_attempt.set(None)
        with suppress(Exception):  # its files may be gone by now: it is forgotten
            self._write_whole(plan, rows, await self.recorder.ready(plan))

    def _write_whole(self, plan: Plan, rows: list[Row], more: list[Row]) -> None:
        digest = self.recorder.digest_of(plan)
        written = [row._replace(definition=digest) if isinstance(row, RunRow) else row for row in rows]
        self.recorder.written(more)
        self.recorder.write([*more, *written])

    def _submit(self, recording: Recording, row: RunRow, schedule: ScheduleState | None) -> None:
        rows: list[Row] = [row]
        key = None if schedule is None else (schedule.job, schedule.name)
        if schedule is not None and key is not None:
            self._kept[key] = _schedule_row(schedule, None)
            rows.append(self._kept[key])
        more = None if key in self._behind else self.recorder.ready_now(recording.execution.plan)
        if more is not None:
            self._write(recording, rows, more)
        elif key is None:
            self._executor.loop.start(self._write_later(recording, rows), "scattersphere journal")
        elif key in self._behind:
            self._behind[key].append((recording, rows))
        else:
            self._behind[key] = deque([(recording, rows)])
            self._executor.loop.start(self._write_behind(key), "scattersphere journal")

    def _write(self, recording: Recording, rows: list[Row], more: list[Row]) -> None:
        """Write a run, the first of these rows, when its definition and code are ready to be: they come before it."""
        run, *others = rows
        assert isinstance(run, RunRow)  # noqa: S101 - for type checkers
        run = run._replace(definition=self.recorder.digest_of(recording.execution.plan))
        recording.submit(run, [*more, *others])

    async def _write_later(self, recording: Recording, rows: list[Row]) -> None:
        """Write a run whose definition is large, or whose code the journal does not have yet."""
        current_attempt.set(None)
        try:
            more = await self.recorder.ready(recording.execution.plan)
        except Exception as error:  # noqa: BLE001 - its files may be gone by now
            self._executor.crash_run(recording.execution, error)
            recording.give_up_row()
            if len(rows) > 1 and self.recorder.is_open:
                self.recorder.write(rows[1:])
            return
        self._write(recording, rows, more)

    async def _write_behind(self, key: tuple[str, str]) -> None:
        """Write what there is of a schedule and its runs, one after the other."""
        waiting = self._behind[key]
        try:
            while waiting:
                recording, rows = waiting.popleft()
                if recording is not None:
                    await self._write_later(recording, rows)
                elif self.recorder.is_open:
                    self.recorder.write(rows)
        finally:
            del self._behind[key]

    def _row(
        self,
        execution: Execution,
        *,
        args: Mapping[str, Any] | None,
        given: Iterable[str],
        child: ChildKey | None,
        again: int | None,
    ) -> RunRow:
        plan = execution.plan
        shown = {name: value for name, value in execution.params.items() if name not in execution.secrets}
        params = json.dumps(shown, allow_nan=False)
        if json.loads(params) != shown:
            raise ValueError("its parameters have no exact JSON form")
        extra: dict[str, Any] = {"depth": execution.depth, "given_secrets": sorted(given)}
        if execution.reused:
            extra["reused"] = {name: attrs.asdict(note) for name, note in execution.reused.items()}
        if child is not None:
            extra["by"] = {"task": child[1], "index": child[2]}
        return RunRow(
            id=execution.id,
            job=plan.job,
            definition="",
            bundles=tuple(sorted((version.bundle, version.digest) for version in plan.versions)),
            params=params,
            secrets=tuple(sorted(execution.secrets)),
            durability=DURABILITY[plan.definition.durability],
            created=_micros(execution.wall(execution.created_at)),
            key=execution.key,
            user=execution.user,
            request=None if execution.key is None else request_digest(shown, args),
            parent=None if child is None else child[0],
            parent_unit=None if child is None or execution.started_by is None else execution.started_by.unit,
            parent_try=None if child is None else child[3],
            child=None if child is None else child[4],
            again=again,
            scheduled=None if execution.scheduled is None else _scheduled_text(execution.scheduled),
            extra=json.dumps(extra),
        )

    async def durable(self, run: Run) -> None:
        """Wait until a new run is in the journal. Raises `JournalError`, `SuspendedError`."""
        recording = run.execution.recording
        if recording is not None and not recording.is_committed:
            await self.recorder.wait_for(recording.when_committed)

    # ---- children

    def child_key(self, attempt: Attempt) -> ChildKey:
        """Return what the next run is known by that an attempt starts."""
        attempt.children_started += 1
        execution, unit = attempt.execution, attempt.unit
        tries = execution.machine.record.counted(unit)
        return execution.id, attempt.task, attempt.index, tries, attempt.children_started

    async def known_child(
        self, key: ChildKey, definition: JobDefinition, params: Mapping[str, Any] | None, attempt: Attempt
    ) -> tuple[Run | None, ChildKey]:
        """Return the run that an earlier, interrupted attempt has started in this place, if it was the same.

        Else None, and the key for a new one: that of another run stands for that run for ever.
        """
        while True:
            number = self._children.get(key)
            if number is None:
                return None, key
            run = self._factory.runs.get(number) or await self.revive(number)
            if run is not None and run.job == definition.name and _same_params(run.execution, params):
                break
            attempt.log.warning(
                "has started another run here before it was interrupted, run %s; now it starts a new one",
                number,
            )
            key = (*key[:4], key[4] + DISPLACED)
        execution = run.execution
        if not execution.state.ended:
            execution.started_by = attempt
            attempt.execution.children.add(execution)
        return run, key

    # ---- runs that have ended

    async def find_runs(
        self,
        job: str | None,
        state: states.RunState | None,
        since: dt.datetime | None,
        before: int | None,
        limit: int,
    ) -> list[StoredRun]:
        """Return runs of the journal without their steps, newest first."""
        find = partial(
            self._journal.find_runs,
            job=job,
            states=None if state is None else [RUN_STATES.index(state)],
            since=None if since is None else _micros(since),
            before=before,
            limit=limit,
        )
        return await self._call(find)

    async def definition_of(self, stored: StoredRun) -> JobDefinition | None:
        """Return the definition of a run; None where it cannot be read any more. The last ones stay in memory."""
        digest, known = stored.run.definition, self._definitions
        if digest not in known:
            try:
                text = await self._call(self._journal.read_definition, digest)
                known[digest] = _definition_of(text)
            except (LookupError, ScattersphereError):
                return None
            while len(known) > DEFINITIONS:
                known.popitem(last=False)
        return known[digest]

    async def ended_run(self, number: int, *, results: bool = True) -> Run | None:
        """Return a run that has ended and is only in the journal, as it was; None where it is not there.

        With `results` it has those that can be read, by the exact code that it had.
        """
        found = await self._call(self._journal.read_runs, [number])
        if not found or found[0].state.state < RUN_ENDED_FROM:
            return None
        stored = found[0]
        definition = await self.definition_of(stored)
        if definition is None:
            raise JournalError(f"the definition of run {number} cannot be read any more")
        execution = self._make(stored, definition)
        execution.recording = None
        waiting, adopted = Waiting(stored, definition, execution), _Adopted()
        plan = execution.plan
        try:
            if results:
                with suppress(*NO_CODE):  # then what needs no code is read
                    plan = await self._plan(waiting, adopted)
            state = await self._restored(waiting, plan, results=results)
            execution.renew(plan)
            self._registry.keep(number, plan.versions)
        finally:
            for version in adopted.values():
                self._registry.disown(version)
        self._note(execution, state)
        if not results:
            execution.unkept = dict.fromkeys(range(plan.size), NOT_READ)
        execution.take_up(attrs.evolve(state.facts, state=stored.state.state))
        if stored.state.ended is not None:
            execution.ended_at = _clock(execution, stored.state.ended)
        execution.crash_words = stored.state.failure or ""
        execution.settle()
        execution.journal.replay([(_clock(execution, row.at), array("q", row.moves)) for row in stored.moves])
        return Run(execution, self._executor)

    def forget(self, number: int) -> None:
        """Nobody looks at an ended run any more: the files of its code may go."""
        self._registry.forget(number)

    async def revive(self, number: int) -> Run | None:
        """Return an ended run of the journal, and have it in memory from now on, with its key."""
        run = await self.ended_run(number)
        if run is not None:
            if number in self._factory.runs:
                return self._factory.runs[number]
            self._factory.take_back(run)
        return run

    async def find_key(self, definition: JobDefinition, key: str, user: str) -> Run | None:
        """Return the ended run that a user has started with a key and that only the journal remembers."""
        number = await self._call(self._journal.find_key, definition.name, user, key)
        if number is None or number in self._factory.runs:
            return None
        return await self.revive(number)

    async def find_keys(self, job: str, keys: Iterable[str]) -> dict[str, int]:
        """Return by key which runs of a job were started with these, as far as any were."""

        def find() -> dict[str, int]:
            found = ((key, self._journal.find_key(job, "", key)) for key in keys)
            return {key: number for key, number in found if number is not None}

        return await self._call(find)

    # ---- closing

    def survives(self, execution: Execution) -> bool:
        """Whether a run goes on at the next start."""
        return execution.recording is not None and not execution.given_secrets

    async def close(self) -> None:
        """Write the last rows, and let go of the journal."""
        if self._is_opened:
            self.recorder.close()
            await self._call(self._journal.close)


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


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NOT_READ = "its result was not read out of the journal: `await server.history.get(run)` does that"
NO_CODE = (BundleError, NotFoundError, UnresolvedError, ConflictError, JournalError, LookupError)
"""What is raised where the code of a run is not there, or does not do any more."""
RUN_STATES = tuple(states.RunState)
_VALUES = (ValueForm.JSON, ValueForm.TAGGED, ValueForm.PICKLE, ValueForm.FILE)
_CANCELLING = tuple(states.RunState).index(states.RunState.CANCELLING)


def _no_value(step: StepRow) -> Any:
    raise LookupError(step.unit)


def _micros(time: dt.datetime) -> int:
    """Return a time as the journal has it, exactly: a product of floats is a microsecond off now and then."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def _clock(execution: Execution, micros: int) -> float:
    return micros / MICRO - execution.epoch


def _definition_of(text: str) -> JobDefinition:
    """Read a definition. Raises `DefinitionError` with what is wrong in it."""
    reading = read_definition(text)
    if reading.definition is None or reading.raw_problems:
        raise DefinitionError(reading.problems(), source="journal")
    return reading.definition


def _params_of(stored: StoredRun, definition: JobDefinition, given: frozenset[str]) -> dict[str, Any]:
    """Return the parameters of a run, without the secrets that were given; others have their defaults."""
    params: dict[str, Any] = json.loads(stored.run.params)
    for name in set(stored.run.secrets) - given:
        declared = definition.params.get(name)
        params[name] = getattr(declared, "default", declared)
    return {name: params[name] for name in definition.params if name in params}


def _same_params(execution: Execution, params: Mapping[str, Any] | None) -> bool:
    return all(
        execution.params.get(name) == value
        for name, value in (params or {}).items()
        if name not in execution.secrets
    )


def request_digest(params: Mapping[str, Any], args: Mapping[str, Any] | None) -> bytes:
    """Return what tells a repeat of a key from a misuse: of the parameters without secrets."""
    return sha256(json.dumps([params, args], sort_keys=True, default=repr).encode()).digest()


def _scheduled_text(scheduled: ScheduledFor) -> str:
    time = None if scheduled.time is None else scheduled.time.isoformat()
    return json.dumps({**attrs.asdict(scheduled), "time": time})


def _scheduled_of(text: str) -> ScheduledFor:
    said = json.loads(text)
    time = None if said["time"] is None else dt.datetime.fromisoformat(said["time"])
    return ScheduledFor(**{**said, "time": time})


def _schedule_row(state: ScheduleState, gone: dt.datetime | None) -> ScheduleRow:
    kept = {
        "timing": state.timing,
        "last": state.last.isoformat(),
        "pending": [time.isoformat() for time in state.pending],
        "refused": state.refused,
        "fired": state.fired,
        "missed": state.missed,
    }
    since = None if gone is None else round(gone.timestamp() * MICRO)
    last = round(state.last.timestamp() * MICRO)
    return ScheduleRow(state.job, state.name, json.dumps(kept), last, state.paused, since)


def _schedule_of(row: ScheduleRow) -> ScheduleState:
    kept = json.loads(row.state)
    last = dt.datetime.fromisoformat(kept.pop("last"))
    pending = tuple(map(dt.datetime.fromisoformat, kept.pop("pending")))
    return ScheduleState(job=row.job, name=row.name, paused=row.paused, last=last, pending=pending, **kept)

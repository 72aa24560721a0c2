"""UnfinishedRuns: recovery of the runs that had not ended, each when its code is there.

`recovery.py` says what their rows come to, `storedruns.py` reads what they need.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import anyio
import attrs

from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    KILL,
    RUN_CRASHED,
    RUN_ENDED_FROM,
    TASK_ENDED_FROM,
)
from scattersphere.engine.run import Run
from scattersphere.engine.timers import within
from scattersphere.engine.values import width_of
from scattersphere.errors import ScattersphereError
from scattersphere.jobs.recovery import crashed, new_life, restored, unit_of_parent
from scattersphere.jobs.storedruns import Adopted, note
from scattersphere.logs.masking import hide
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.events import EventKind
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from scattersphere.abc.journal import Row, RunRow, StepRow, StoredRun
    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.plan import Plan
    from scattersphere.jobs.recovery import Restored
    from scattersphere.jobs.secrets import AwaitedSecrets, SecretsRead, Wanted
    from scattersphere.jobs.storedruns import StoredRuns
    from scattersphere.model.definition import JobDefinition

ChildKey = tuple[int, str, "int | None", int, int]
"""(parent, task, index, try, n): the n-th run that this try of a task has started."""
DISPLACED = 1 << 32
"""What is added to the number of a child in whose place an interrupted attempt had started another one."""
_CANCELLING = tuple(RunState).index(RunState.CANCELLING)


class Waiting(NamedTuple):
    """An unfinished run that does not go on yet: its code, or its secrets, are not there."""

    stored: StoredRun
    definition: JobDefinition
    execution: Execution


class UnfinishedRuns:
    """Lets the unfinished runs of a journal go on, and knows the children of those that go on."""

    def __init__(
        self, stored: StoredRuns, secrets: AwaitedSecrets, on_crashed: Callable[[StoredRun], None]
    ) -> None:
        self._stored = stored
        self._journal, self._recorder = stored.journal, stored.recorder
        self._registry, self._executor, self._factory = stored.registry, stored.executor, stored.factory
        self._secrets = secrets
        secrets.on_news = self.look_again
        self._on_crashed = on_crashed
        self._found: list[tuple[StoredRun, JobDefinition]] = []
        """Those that were found at the opening."""
        self.waiting: dict[int, Waiting] = {}
        """Those whose code, or whose secrets, are not there, by number."""
        self._children: dict[ChildKey, int] = {}
        self._offspring: dict[int, list[tuple[Execution, str, int | None]]] = defaultdict(list)
        """By parent the unfinished runs that its bodies have started: by which task, and instance."""
        self._orphans: set[int] = set()
        """Runs that are to be cancelled when their code is there."""
        self._ended_here: dict[int, StoredRun] = {}
        """Runs that could not go on at the start of this life."""
        self._looking = False
        self._looked = anyio.Event()
        self._looked.set()
        self._look_again = False

    async def read(self, numbers: Sequence[int]) -> list[Row]:
        """Read the unfinished runs; return what is to be written of them before anything goes on."""
        rows: list[Row] = []
        for stored in await self._stored.call(self._journal.read_runs, numbers):
            rows += await self._new_life(stored)
        return rows

    async def _new_life(self, stored: StoredRun) -> list[Row]:
        now = self._recorder.now()
        try:
            definition = await self._stored.definition(stored.run.definition)
        except (LookupError, ScattersphereError) as error:
            words = f"its definition cannot be read any more: {error}"
            return [crashed(stored.state, words[:1000], now)]
        after, rows = new_life(stored, definition, now)
        if after.state.state < RUN_ENDED_FROM:
            self._found.append((after, definition))
        else:
            self._ended_here[stored.run.id] = after
        return rows

    async def restore(self, at_most: float) -> None:
        """Let the unfinished runs go on: those that had begun first, then the queued ones, by number."""
        for stored in self._ended_here.values():
            self._on_crashed(stored)
        unfinished, self._found = self._found, []
        unfinished.sort(key=lambda found: (not found[0].state.begun, found[0].run.id))
        for stored, definition in unfinished:
            execution = self._stored.make(stored, definition)
            execution.waits_for = "its code"
            self.waiting[execution.id] = Waiting(stored, definition, execution)
            self._executor.running[execution.id] = execution
            self._factory.take_back(Run(execution, self._executor))
        known = list(self.waiting.values())
        await self._know_children(known)
        self.look_again()
        with anyio.move_on_after(at_most):  # what takes longer goes on when code and secrets are there
            await self._looked.wait()
            while await self._secrets.asked():
                await self._looked.wait()
        parents = await self._parents(known)
        for waiting in known:
            if _is_orphaned(waiting.stored.run, parents):
                self._end_orphan(waiting.execution)

    # ---- when their code and their secrets are there

    def look_again(self) -> None:
        """Other code is there, or other secrets: runs that wait for theirs may go on."""
        if not self.waiting:
            self._secrets.forget()
        elif not self._looking:
            self._looking, self._looked = True, anyio.Event()
            self._executor.soon(self._start_looking)
        else:
            self._look_again = True

    def _start_looking(self) -> None:
        if not self._recorder.is_open:  # closed since
            self._looking = False
            self._looked.set()
            return
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
        adopted, answers = Adopted(), self._secrets.take_answers()
        try:
            for waiting in list(self.waiting.values()):
                if self._executor.suspension.has_begun:
                    return
                if waiting.execution.id in self.waiting:
                    await self._try(waiting, adopted, answers)
        finally:
            self._stored.disown(adopted)
        self._executor.admit()

    async def _try(self, waiting: Waiting, adopted: Adopted, answers: Mapping[Wanted, SecretsRead]) -> None:
        """Let a run go on if its code and its secrets are there; else note what it waits for."""
        execution, definition = waiting.execution, waiting.definition
        try:
            plan = await self._stored.plan(waiting.stored, definition, adopted)
            found = await self._stored.restored(waiting.stored, definition, plan)
        except Exception as error:  # noqa: BLE001 - also a full disk: others go on, and it is tried again
            execution.waits_for = f"its code: {error}"[:2000]
            return
        read = self._secrets.read(definition, execution.given_secrets, answers)
        if read is None:
            execution.waits_for = self._secrets.why(definition, execution.given_secrets)
            return
        execution.params = {**execution.params, **read.values}
        execution.keep_secret(execution.secrets)
        if read.problems:
            facts = attrs.evolve(found.facts, started=True)
            found = attrs.evolve(found, facts=facts, crash=f"a secret that it needs is gone: {read.words}")
        if self.waiting.pop(execution.id, None) is not None:  # else it was cancelled meanwhile
            self._executor.guard(execution, self._go_on, waiting, plan, found)

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
        note(execution, found)
        self._executor.observer.run_moved(execution, EventKind.RUN_RECOVERED)
        execution.note_event(EventKind.RUN_RECOVERED, None, f"restart {execution.recovered}")

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
            execution.crash_words = hide(words, execution.hidden)
            commands = machine.crash()
        elif execution.state is not RunState.PAUSED:
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
            waiting.stored, waiting.definition, execution.plan.graph, _no_value, self._recorder.now()
        )
        causes = (*found.facts.causes, reason or verb)
        facts = attrs.evolve(found.facts, level=KILL, causes=causes, state=_CANCELLING, started=True)
        self._leave_waiting(execution, execution.plan, found)
        self._executor.commands.apply(execution, execution.take_up(facts))

    # ---- children

    async def _know_children(self, known: Collection[Waiting]) -> None:
        """Note which runs the bodies of runs have started."""
        for row in await self._stored.call(self._journal.read_children, list(self.waiting)):
            if row.parent is not None and row.child is not None:
                by = json.loads(row.extra)["by"]
                self._children[row.parent, by["task"], by["index"], row.parent_try or 0, row.child] = row.id
        for waiting in known:
            run = waiting.stored.run
            if run.child is not None and run.parent in self.waiting:
                self.waiting[run.parent].execution.children.add(waiting.execution)
                by = json.loads(run.extra)["by"]
                self._offspring[run.parent].append((waiting.execution, by["task"], by["index"]))

    async def _parents(self, known: Collection[Waiting]) -> Mapping[int, StoredRun]:
        """Return the runs whose bodies have started these, by number."""
        found = {waiting.stored.run.id: waiting.stored for waiting in known} | self._ended_here
        runs = [waiting.stored.run for waiting in known if waiting.stored.run.child is not None]
        # Of an earlier life, which may have died before it could cancel what its own had started.
        ended = {run.parent for run in runs if run.parent is not None} - found.keys()
        if ended:
            found |= {
                stored.run.id: stored
                for stored in await self._stored.call(self._journal.read_runs, sorted(ended))
            }
        return found

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

    def child_key(self, attempt: Attempt) -> ChildKey:
        """Return what the next run is known by that an attempt starts."""
        attempt.children_started += 1
        execution, unit = attempt.execution, attempt.unit
        tries = execution.machine.record.counted(unit)
        return execution.id, attempt.task, attempt.index, tries, attempt.children_started

    async def known_child(
        self, key: ChildKey, definition: JobDefinition, params: Mapping[str, object] | None, attempt: Attempt
    ) -> tuple[Run | None, ChildKey]:
        """Return the run that an earlier, interrupted attempt has started in this place, if it was the same.

        Else None, and the key for a new one: that of another run stands for that run for ever.
        """
        while True:
            number = self._children.get(key)
            if number is None:
                return None, key
            run = self._factory.runs.get(number) or await self._stored.revive(number)
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


def _is_orphaned(run: RunRow, parents: Mapping[int, StoredRun]) -> bool:
    """Whether the attempt that has started a run has died for good with an earlier life: nobody waits for it."""
    if run.child is None or run.parent is None or run.parent not in parents:
        return False
    parent = parents[run.parent]
    if parent.state.state == RUN_CRASHED:
        return True
    return any(
        unit_of_parent(step.task, step.place) == run.parent_unit and step.state in (CRASHED, CANCELLED)
        for step in parent.steps
    )


def _no_value(step: StepRow) -> object:
    raise LookupError(step.unit)


def _same_params(execution: Execution, params: Mapping[str, object] | None) -> bool:
    return all(
        execution.params.get(name) == value
        for name, value in (params or {}).items()
        if name not in execution.secrets
    )

"""RunWriter: new runs are written into the journal, each after the definition and the code that it needs."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import attrs

from scattersphere.abc.journal import DurabilityLevel, RunRow, ScheduleRow
from scattersphere.engine.recorder import DURABILITY
from scattersphere.engine.recording import Recording
from scattersphere.errors import DefinitionError
from scattersphere.jobs.recovery import unit_of_parent
from scattersphere.jobs.schedulerows import micros_of, schedule_row, scheduled_text
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.states import Durability

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping

    from scattersphere.abc.journal import Row
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.recorder import Recorder
    from scattersphere.engine.run import Run
    from scattersphere.jobs.unfinished import ChildKey
    from scattersphere.schedules.occurrences import ScheduleState


class RunWriter:
    """Writes new runs, and what is remembered of schedules: never before the run that a schedule has started."""

    def __init__(self, recorder: Recorder, executor: JobExecutor) -> None:
        self._recorder = recorder
        self._executor = executor
        self._unwritten: dict[int, RunRow] = {}
        """Of runs without durability, until they have ended."""
        self._kept: dict[tuple[str, str], ScheduleRow] = {}
        """What was written of each schedule last, or will be when the run before it is."""
        self._behind: dict[tuple[str, str], deque[tuple[Recording | None, list[Row]]]] = {}
        """By schedule what is written after a run whose code must be exported first, in order."""

    def record(
        self,
        execution: Execution,
        *,
        args: Mapping[str, object] | None,
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
            if not self._recorder.has(execution.plan):
                definition.dumps()
        except (TypeError, ValueError, DefinitionError) as error:
            execution.log.append(30, f"this run does not survive a restart: {error}")
            return lambda: None
        if definition.durability is Durability.NONE:
            self._unwritten[execution.id] = row
            return lambda: None
        if given:
            execution.log.append(
                30,
                "a secret was given by value: this run is cancelled when the Server closes, and does not survive",
            )
        execution.given_secrets = frozenset(given)
        recording = Recording(self._recorder, execution, DURABILITY[definition.durability])
        execution.recording = recording
        return partial(self._executor.guard, execution, self._submit, recording, row, schedule)

    def _row(
        self,
        execution: Execution,
        *,
        args: Mapping[str, object] | None,
        given: Iterable[str],
        child: ChildKey | None,
        again: int | None,
    ) -> RunRow:
        plan, by = execution.plan, execution.started_by
        shown = {name: value for name, value in execution.params.items() if name not in execution.secrets}
        params = json.dumps(shown, allow_nan=False)
        if json.loads(params) != shown:
            raise ValueError("its parameters have no exact JSON form")
        extra: dict[str, object] = {"depth": execution.depth, "given_secrets": sorted(given)}
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
            created=micros_of(execution.wall(execution.created_at)),
            key=execution.key,
            user=execution.user,
            request=None if execution.key is None else request_digest(shown, args),
            parent=None if child is None else child[0],
            parent_unit=None
            if child is None or by is None
            else unit_of_parent(by.execution.plan.index[by.task], by.index),
            parent_try=None if child is None else child[3],
            child=None if child is None else child[4],
            again=again,
            scheduled=None if execution.scheduled is None else scheduled_text(execution.scheduled),
            extra=json.dumps(extra),
        )

    async def durable(self, run: Run) -> None:
        """Wait until a new run is in the journal. Raises `JournalError`, `SuspendedError`."""
        recording = run.execution.recording
        if recording is not None and not recording.is_committed:
            await self._recorder.wait_for(recording.when_committed)

    # ---- writing: definition and code first

    def _submit(self, recording: Recording, row: RunRow, schedule: ScheduleState | None) -> None:
        rows: list[Row] = [row]
        key = None if schedule is None else (schedule.job, schedule.name)
        if schedule is not None and key is not None:
            self._kept[key] = schedule_row(schedule)
            rows.append(self._kept[key])
        more = None if key in self._behind else self._recorder.ready_now(recording.execution.plan)
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
        run = run._replace(definition=self._recorder.digest_of(recording.execution.plan))
        recording.submit(run, [*more, *others])

    async def _write_later(self, recording: Recording, rows: list[Row]) -> None:
        """Write a run whose definition is large, or whose code the journal does not have yet."""
        current_attempt.set(None)
        try:
            more = await self._recorder.ready(recording.execution.plan)
        except Exception as error:  # noqa: BLE001 - its files may be gone by now
            self._executor.crash_run(recording.execution, error)
            recording.give_up_row()
            if len(rows) > 1 and self._recorder.is_open:
                self._recorder.write(rows[1:])
            return
        self._write(recording, rows, more)

    # ---- runs without durability

    def ended(self, execution: Execution) -> None:
        """A run has ended: one without durability is written now, as a whole."""
        row = self._unwritten.pop(execution.id, None)
        if row is None or not self._recorder.is_open or self._recorder.is_full:
            return
        plan, recording = execution.plan, Recording(self._recorder, execution, DurabilityLevel.NONE)
        rows = [row, *recording.rows.take()]  # now: what an ended run does not need is given back soon
        more = self._recorder.ready_now(plan)
        if more is None:
            self._executor.loop.start(self._write_ended(plan, rows), "scattersphere journal")
        else:
            self._write_whole(plan, rows, more)

    async def _write_ended(self, plan: Plan, rows: list[Row]) -> None:
        current_attempt.set(None)
        with suppress(Exception):  # its files may be gone by now: it is forgotten
            self._write_whole(plan, rows, await self._recorder.ready(plan))

    def _write_whole(self, plan: Plan, rows: list[Row], more: list[Row]) -> None:
        digest = self._recorder.digest_of(plan)
        written = [row._replace(definition=digest) if isinstance(row, RunRow) else row for row in rows]
        self._recorder.written(more)
        self._recorder.write([*more, *written])

    # ---- schedules

    def keep_schedule(self, state: ScheduleState, gone: dt.datetime | None) -> None:
        """Write what is new of a schedule: after its runs that are not written yet, never before them."""
        row, key = schedule_row(state, gone), (state.job, state.name)
        if not self._recorder.is_open or self._kept.get(key) == row:
            return
        self._kept[key] = row
        if key in self._behind:
            self._behind[key].append((None, [row]))
        else:
            self._recorder.write([row])

    async def _write_behind(self, key: tuple[str, str]) -> None:
        """Write what there is of a schedule and its runs, one after the other."""
        waiting = self._behind[key]
        try:
            while waiting:
                recording, rows = waiting.popleft()
                if recording is not None:
                    await self._write_later(recording, rows)
                elif self._recorder.is_open:
                    self._recorder.write(rows)
        finally:
            del self._behind[key]


def request_digest(params: Mapping[str, object], args: Mapping[str, object] | None) -> bytes:
    """Return the digest of a request's parameters without secrets: it tells a repeat of a key from a misuse."""
    return sha256(json.dumps([params, args], sort_keys=True, default=repr).encode()).digest()

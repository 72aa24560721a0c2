"""Recording: what happens to one run is written, and what must be durable first is held back.

The gate stands *before* the machine: an attempt that has ended shows `running` and keeps its places until the row of
its outcome is committed; only then is the machine told. So nothing is seen, and nothing starts, that a crash could take
back. What follows from committed facts needs no commit of its own: its rows go with the next transaction.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from scattersphere.abc.journal import DurabilityLevel, ValueForm
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    RUNNING,
    SUCCEEDED,
    UP_FOR_RETRY,
)
from scattersphere.engine.recorder import RunChanges
from scattersphere.engine.run_rows import RunRows, failure_text
from scattersphere.logs.runlog import ENGINE_LOGGER, current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.abc.journal import Row, RunRow
    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.recorder import Recorder
    from scattersphere.logs.failures import Failure


class Recording:
    """Writes what happens to one run, and holds back what must be durable first."""

    def __init__(self, recorder: Recorder, execution: Execution, durability: DurabilityLevel) -> None:
        self.recorder = recorder
        self.execution = execution
        self._fails, dropped = recorder.special_tasks(execution.plan)
        self.rows: RunRows = RunRows(recorder, execution, durability, apart=self._fails, droppable=dropped)
        self.is_submitted: bool = False
        """Whether the run itself is written."""
        self.is_committed: bool = False
        """Whether the run itself is durable: before that nothing of it starts."""
        self._then: list[Callable[[], object]] = []
        """What is to be done when it is."""
        self.at_gate: dict[Attempt, None] = {}
        self._held: list[tuple[Attempt, Callable[[], object]]] = []
        """Outcomes that are written next, and what tells the machine of them."""
        self._given_up: dict[Attempt, list[Callable[[], object]]] = {}
        """Attempts whose giving up is at the gate, each with what is told after it: how it has ended meanwhile."""
        self._may_begin: set[int] = set()
        """Units whose start is durable, and that are started next."""
        self._unkept: set[str] = set()
        """Tasks of which it was said that their results are not kept."""
        self._size = len(execution.plan.definition.tasks)
        self._may_pass = durability is DurabilityLevel.RELAXED

    def __repr__(self) -> str:
        return f"<Recording of run {self.execution.id}: {len(self.at_gate)} outcomes at the gate>"

    @property
    def failure(self) -> str | None:
        """Why nothing is committed at present."""
        return self.recorder.failure

    def touch(self) -> None:
        """Have what has changed written at the end of this turn."""
        self.recorder.touch(self)

    def take_concluded(self, tasks: tuple[int, ...]) -> None:
        """Know which tasks an earlier life has concluded that this one would decide otherwise."""
        self.rows.concluded = tasks

    # ---- submitting

    def submit(self, row: RunRow, more: Sequence[Row]) -> None:
        """Write the run; when that is durable it may start."""
        self.is_submitted = True
        rows = [*more, row, *self._take()]
        changes = self.recorder.changes()  # what this run replaces is cancelled in the same transaction
        changes.rows[:0] = rows
        self.recorder.written(more)
        changes.then(partial(self.recorder.host.guard, self.execution, self._submitted))
        self.recorder.write(changes.rows, changes.committed)

    def give_up_row(self) -> None:
        """The run has ended, and its row cannot be written, or is not: nobody waits for it any more."""
        if not self.is_committed:
            self._submitted()

    def _submitted(self) -> None:
        self.is_committed = True
        callbacks, self._then = self._then, []
        for callback in callbacks:
            callback()

    def when_committed(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when the run is durable."""
        if self.is_committed:
            callback()
        else:
            self._then.append(callback)

    # ---- the gate

    def note(self, attempt: Attempt, value: object, now: float) -> bool:
        """Note that a task has succeeded, where the machine may be told at once. False: `hold` is to be asked.

        The hot path of `relaxed`: all that is done for a task before its turn is written.
        """
        unit, recorder = attempt.unit, self.recorder
        if (
            not self._may_pass
            or attempt.attempt_number != 1
            or unit >= self._size
            or unit in self.rows.apart
            or attempt.is_committed
            or recorder.is_full
            or not recorder.is_open
            or self.execution.machine.record.task_states[unit] != RUNNING
        ):
            return False
        text = "null" if value is None else self.rows.small_text(value)
        if text is None:
            return False
        if not self.rows.successes:
            self.rows.fruitless = 0
            recorder.touch(self)
        self.rows.successes.append((unit, now, text))
        return True

    def hold(
        self,
        attempt: Attempt,
        kind: int,
        value: object,
        failure: Failure | None,
        release: Callable[[], object],
        *,
        retryable: bool = True,
    ) -> bool:
        """Write how an attempt has ended. True: the machine is told by `release`, when that is durable."""
        machine, unit = self.execution.machine, attempt.unit
        if attempt in self._given_up:
            self._given_up[attempt].append(release)
            return True
        if attempt.is_committed or machine.record.task_states[unit] not in (RUNNING, CANCELLING):
            return False
        if unit in machine.record.stuck:
            return False
        if not self.recorder.is_open:
            return self.execution.is_suspended  # the run goes on in another life, which does not know of it
        now = attempt.left_at = self.recorder.host.clock()
        state = self._outlook(attempt, kind, retryable=retryable)
        if state != SUCCEEDED:
            text = failure_text(failure) if state != CANCELLED else None
            return self._write_outcome(attempt, state, ValueForm.NONE, None, text, release)
        is_first = attempt.attempt_number == 1 and unit < self._size and unit not in self.rows.apart
        if is_first and (text := self.rows.small_text(value)) is not None:
            self.rows.successes.append((unit, now, text))
            return self._pass_or_wait(attempt, release)
        if not self.recorder.codec.is_quick(value):
            self.at_gate[attempt] = None
            self.recorder.host.loop.start(self._encode(attempt, value, release), "scattersphere journal")
            return True
        return self._write_outcome(attempt, state, *self.rows.encoded(value), release)

    def give_up(self, attempt: Attempt, failure: Failure | None, release: Callable[[], object]) -> bool:
        """Write that an attempt refuses to end and is given up. True: `release` is called when that is durable."""
        if not self.recorder.is_open:
            return self.execution.is_suspended
        is_cancelled = self.execution.machine.asked_of(attempt.unit) == "cancel"
        state, text = (CANCELLED, None) if is_cancelled else (FAILED, failure_text(failure))
        attempt.left_at, self._given_up[attempt] = self.recorder.host.clock(), []

        def given_up() -> None:
            attempt.left_at, ended = None, self._given_up.pop(attempt)
            release()
            for tell in ended:
                tell()

        if self._write_outcome(attempt, state, ValueForm.NONE, None, text, given_up):
            return True
        attempt.left_at = None
        del self._given_up[attempt]
        return False

    async def _encode(self, attempt: Attempt, value: object, release: Callable[[], object]) -> None:
        """Encode in a thread: it may run code of users, and take its time."""
        current_attempt.set(None)
        host = self.recorder.host
        try:
            form, data, text = await anyio.to_thread.run_sync(self.rows.encoded, value)
        except Exception as exc:  # noqa: BLE001 - a defect of ours: what a user's code raises is in `text`
            host.defect(self.execution, exc)
        else:
            host.guard(self.execution, self._encoded, attempt, form, data, text, release)

    def _encoded(
        self, attempt: Attempt, form: int, data: bytes | None, text: str | None, release: Callable[[], object]
    ) -> None:
        if not self._write_outcome(attempt, SUCCEEDED, form, data, text, release):
            self._release_all([(attempt, release)])

    def _write_outcome(
        self,
        attempt: Attempt,
        state: int,
        form: int,
        data: bytes | None,
        text: str | None,
        release: Callable[[], object],
    ) -> bool:
        """Write the row of an outcome. False: it may be told at once."""
        assert attempt.left_at is not None  # noqa: S101 - for type checkers
        if form == ValueForm.UNKEPT:
            self._tell_unkept(attempt, text or "")
        self.rows.outcome(attempt.unit, state, form, data, text, ended=attempt.left_at)
        return self._pass_or_wait(attempt, release)

    def _tell_unkept(self, attempt: Attempt, text: str) -> None:
        """Say once of a task that its results are not kept, and what that means."""
        if attempt.task not in self._unkept:
            self._unkept.add(attempt.task)
            words = f"its result is not in the journal, and made again after a restart: {json.loads(text)['unkept']}"
            self.execution.log.append_for(attempt, logging.WARNING, words, logger=ENGINE_LOGGER)

    def _pass_or_wait(self, attempt: Attempt, release: Callable[[], object]) -> bool:
        """Have what was noted written at the end of this turn. True: the machine is told when it is durable."""
        self.rows.fruitless = 0
        self.recorder.touch(self)
        if self._may_pass and not self.recorder.is_full:
            return False
        self.at_gate[attempt] = None
        self._held.append((attempt, release))
        return True

    def _release_all(self, held: list[tuple[Attempt, Callable[[], object]]]) -> None:
        """Tell the machine of outcomes that were committed together, in the order in which they came."""
        guard, execution = self.recorder.host.guard, self.execution
        for attempt, release in held:
            guard(execution, self._release, attempt, release)
        self.recorder.host.turn_now()

    def _release(self, attempt: Attempt, release: Callable[[], object]) -> None:
        self.at_gate.pop(attempt, None)
        attempt.is_committed = True
        release()

    def has_ended(self, attempt: Attempt) -> bool:
        """Whether the body of an attempt has ended, and only its outcome waits to be durable."""
        return attempt.left_at is not None and self._given_up.get(attempt) != []

    def _outlook(self, attempt: Attempt, kind: int, *, retryable: bool) -> int:
        """Return the state that the machine will give the unit, as things are now."""
        machine, unit = self.execution.machine, attempt.unit
        if kind == SUCCEEDED:
            return SUCCEEDED
        is_cancelled = machine.record.task_states[unit] == CANCELLING and machine.asked_of(unit) == "cancel"
        if kind == CRASHED and attempt.killed:
            kind = CANCELLED
        if kind == CANCELLED:
            kind = CANCELLED if is_cancelled else FAILED
        if kind in (FAILED, CRASHED) and retryable and not is_cancelled and machine.would_retry(unit):
            return UP_FOR_RETRY
        return kind

    # ---- starts

    @property
    def holds_starts(self) -> bool:
        """Whether there may be starts that must be durable before their bodies."""
        return bool(self.rows.fruitless or self._fails)

    def holds_start(self, attempt: Attempt, launch: Callable[[], object]) -> bool:
        """Write that an attempt starts, where that must be durable before its body. True: `launch` is called then."""
        machine, unit = self.execution.machine, attempt.unit
        task = machine.record.task_of(unit)
        if not self.rows.fruitless and task not in self._fails:
            return False
        if unit in self._may_begin:
            self._may_begin.discard(unit)
            return False
        step = self.rows.step(unit, RUNNING, ValueForm.NONE, None, None)
        started = self.rows.micros(self.recorder.host.clock())

        def durable() -> None:
            self._may_begin.add(unit)
            launch()

        self._write_now(durable, step._replace(attempts=attempt.attempt_number, started=started))
        return True

    # ---- writing

    def add_to(self, changes: RunChanges) -> None:
        """Add what has changed to a transaction."""
        changes.rows += self._take()
        if self._held:
            changes.then(partial(self.recorder.host.guard, self.execution, self._release_all, self._held))
            self._held = []

    def _take(self) -> list[Row]:
        return self.rows.take(at_once=self._may_pass and not self._held)

    def _write_now(self, then: Callable[[], object], *rows: Row) -> None:
        """Write what has changed, and more, without waiting for the end of this turn; `then` is called afterwards."""
        changes = RunChanges()
        self.add_to(changes)
        changes.rows += rows
        changes.then(partial(self.recorder.host.guard, self.execution, then))
        self.recorder.write(changes.rows, changes.committed)

    # ---- the end

    @property
    def left_at(self) -> float | None:
        """When the run ended, which is told when that is durable."""
        return self.rows.left_at

    def end(self, then: Callable[[], object]) -> None:
        """Write that the run has ended; `then` is called when that is durable."""
        self.execution.is_end_held = True
        self.rows.left_at = self.recorder.host.clock()

        def ended() -> None:
            self.execution.is_end_held = False
            then()

        if not self.recorder.is_open or self.recorder.is_lost:
            ended()
        elif not self.is_submitted:  # its row comes first, and has all of this in its transaction
            self.when_committed(ended)
        else:
            self._write_now(ended)

    def close(self) -> None:
        """The run has ended: what was not written yet is, and nothing more."""
        if self.recorder.is_open and self.is_submitted:  # else all of it is written with its row, if that is
            changes = RunChanges()
            self.add_to(changes)
            if changes.rows:
                self.recorder.write(changes.rows, changes.committed)
        self.execution.recording, self.execution.is_end_held = None, False
        self.give_up_row()

"""RunRows: the rows of the journal that one run comes to, made from what has changed since they were last taken.

How units end is noted here before the machine knows (`Recording` holds it back till then); all else, what propagation
has decided, the moves, the state of the run, its log, is derived from the machine's record when a turn is written.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING

from scattersphere.abc.journal import (
    AttemptRow,
    DroppedRow,
    DurabilityLevel,
    LogRow,
    MovesRow,
    RunStateRow,
    StepRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.engine.machine.codes import (
    CANCELLING,
    FAILED,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
)
from scattersphere.engine.machine.facts import facts_of
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.timers import within
from scattersphere.logs.failures import text_of
from scattersphere.logs.masking import hide
from scattersphere.model.logs import pack_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scattersphere.abc.journal import Row
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.recorder import Recorder
    from scattersphere.logs.failures import Failure

MICRO = 1_000_000
MOVE_BYTES = 8
MOVES_SPAN = 0.01
"""Seconds by which the times of moves in one row may differ from the row's: much less than people see."""
FIRST_IS_TIMEOUT, FAILING_FAST, FINALS_OVER, WITHHELD = 1, 2, 4, 8
"""The bits of `RunStateRow.flags`."""
_MASK = (1 << STATE_BITS) - 1
_TO_RUNNING, _TO_SUCCEEDED = (
    bytes(byte for byte in range(256) if byte & _MASK == state) for state in (RUNNING, SUCCEEDED)
)
"""The last bytes of moves to these states; no move of a run, `~state`, ends with one of them."""
_USUAL = _TO_RUNNING + _TO_SUCCEEDED


def failure_text(failure: Failure | None, **more: object) -> str | None:
    """Return a failure as the journal keeps it."""
    said: dict[str, object] = {}
    if failure is not None:
        said = {"type": failure.type, "message": failure.message, "traceback": failure.traceback}
    said |= {name: value for name, value in more.items() if value}
    return json.dumps(said) if said else None


class RunRows:
    """What of one run is written, and what is still to be."""

    def __init__(
        self,
        recorder: Recorder,
        execution: Execution,
        durability: DurabilityLevel,
        *,
        apart: frozenset[int],
        droppable: frozenset[int],
    ) -> None:
        self._recorder = recorder
        self._execution = execution
        self._durability = durability
        self.recovered: int = 0
        self.fruitless: int = 0
        """Restarts without a new outcome."""
        self.base: int = 0
        """How many moves earlier lives have written."""
        self.lines_before: int = 0
        """How many lines of the log earlier lives have written."""
        self.concluded: tuple[int, ...] = ()
        """Tasks that had ended when the run was restored, and whose row says so only now."""
        self.left_at: float | None = None
        """When the run ended, which is told when that is durable."""
        self.apart: set[int] = {*apart, *droppable}
        """Units that have a row of their own, or are to have one: it would hold against a later `SuccessesRow`."""
        self._droppable = set(droppable)
        """Tasks whose values are to be given up when nobody reads them any more."""
        self._outcomes: list[Row] = []
        """What ended since `take` was last called, ..."""
        self.successes: list[tuple[int, float, str]] = []
        """... and what succeeded at once: unit, time, JSON of the value."""
        self._told: dict[int, int] = {}
        """The states that rows have told of units before the machine knew."""
        self._noted: set[int] = set()
        """Moves to `succeeded` that were told in the same way: thousands in a turn."""
        self._written = 0
        self._lines = 0
        self._last: RunStateRow | None = None
        self._looks: tuple[object, ...] = ()
        """What that row was made of."""
        self._times_out = execution.plan.definition.timeout is not None

    # ---- what is noted

    def outcome(
        self, unit: int, state: int, form: int, data: bytes | None, text: str | None, *, ended: float
    ) -> None:
        """Note how an attempt has ended, and what the machine will make of it."""
        execution, due = self._execution, None
        if state == UP_FOR_RETRY:
            due = self.micros(ended + execution.retry_wait(unit))
            number = execution.machine.record.attempts[unit]
            self._outcomes.append(AttemptRow(execution.id, unit, number, FAILED, text, self._recorder.now()))
        self._outcomes.append(self.step(unit, state, form, data, text, ended=ended, due=due))
        self._told[unit] = state

    def small_text(self, value: object) -> str | None:
        """Return the JSON of a value that is small and exact; None for others."""
        codec = self._recorder.codec
        if value is None:
            return "null"
        if not codec.is_quick(value):
            return None
        form, data = codec.encode(value, self._execution.plan.versions)
        return data.decode() if form == ValueForm.JSON else None

    def encoded(self, value: object) -> tuple[int, bytes | None, str | None]:
        """Return form, bytes, and why it could not be kept."""
        try:
            if self._durability is DurabilityLevel.NONE and not self._recorder.codec.is_quick(value):
                raise ValueError('of a run with "durability": "none" only small values are kept')  # noqa: TRY301 - as others
            form, data = self._recorder.codec.encode(value, self._execution.plan.versions)
        except BaseException as exc:  # noqa: BLE001 - whatever the code of a value raises, it cannot be kept
            words = hide(text_of(exc), self._execution.hidden)[:500] or type(exc).__name__
            return ValueForm.UNKEPT, None, json.dumps({"unkept": words})
        return form, data, None

    # ---- what is written

    @property
    def _since(self) -> int:
        """When the loop's clock was zero, in microseconds since 1970."""
        return round(self._execution.epoch * MICRO)

    def micros(self, clock: float) -> int:
        """Return the instant of the loop's clock in microseconds since 1970."""
        return self._since + int(clock * MICRO)

    def take(self, *, at_once: bool = False) -> list[Row]:
        """Return the rows of all that has changed since they were last taken.

        `at_once` says that the machine knows of all successes: none is held back.
        """
        rows: list[Row] = [*self._log_rows()]
        machine = self._execution.machine
        outcomes, self._outcomes = self._outcomes, []
        successes, self.successes = self.successes, []
        spent = bool(outcomes or successes)
        if successes:
            outcomes.append(self._success_row(successes))
        rows += outcomes  # before what the machine has made of them
        moves = machine.record.journal
        if self._written < len(moves):
            new = moves[self._written :]
            data = array("q", new).tobytes()
            rows += self._move_rows(data)
            self._written = len(moves)
            if not (at_once and self._tells_all(successes, data[::8])):
                self._noted.update([unit << STATE_BITS | SUCCEEDED for unit, _, _ in successes])
                rows += self._derived(new)
            if self._droppable:
                rows += self._dropped_rows(new)
        else:
            self._noted.update([unit << STATE_BITS | SUCCEEDED for unit, _, _ in successes])
        concluded, self.concluded = self.concluded, ()
        rows += [self._derived_step(task, machine.record.task_states[task]) for task in concluded]
        rows += self._state_rows(spent=spent)
        return rows

    def _move_rows(self, data: bytes) -> list[MovesRow]:
        """Return moves in one row, or in several where they happened at times that differ: starts wait for an end."""
        journal, life = self._execution.journal, self._recorder.life
        assert life is not None  # noqa: S101 - for type checkers
        journal.stamp(self._recorder.host.clock())
        place = first = self._written
        end = first + len(data) // MOVE_BYTES
        at, until = journal.mark(first)
        pieces: list[tuple[int, float, int]] = []
        while (place := min(until, end)) < end:
            clock, until = journal.mark(place)
            if clock - at > MOVES_SPAN:
                pieces.append((first, at, place))
                first, at = place, clock
        pieces.append((first, at, end))
        skip = self._written * MOVE_BYTES
        return [
            MovesRow(
                self._execution.id,
                self.base + start,
                life.number,
                self.micros(clock),
                data[start * MOVE_BYTES - skip : stop * MOVE_BYTES - skip],
            )
            for start, clock, stop in pieces
        ]

    def _tells_all(self, successes: Sequence[object], moves: bytes) -> bool:
        """Whether moves, of which these are the last bytes, are just those to `running`, and of these successes.

        So it is where the machine was told at once, and nothing else has happened: the moves need no closer look.
        """
        if self._noted or moves.translate(None, _USUAL):
            return False
        ended = len(moves) - len(moves.translate(None, _TO_SUCCEEDED))
        return ended == len(successes) and not self._execution.machine.record.is_over

    def _derived(self, moves: Sequence[int]) -> list[Row]:
        """Return the rows of units that have ended, or wait for a retry, without an outcome that was held back."""
        states, told, noted = self._execution.machine.record.task_states, self._told, self._noted
        # Beginnings make no row, and nearly all others were noted: of thousands of moves few are left.
        left = [move for move in moves if move & _MASK != RUNNING and move not in noted and move >= 0]
        noted.difference_update(moves)
        rows: list[Row] = []
        for unit, state in {move >> STATE_BITS: move & _MASK for move in left}.items():
            if state == CANCELLING and (unit in told or unit << STATE_BITS | SUCCEEDED in noted):
                continue  # too late: how it has ended is written
            if told.get(unit) == state:
                del told[unit]
            elif states[unit] == state >= CANCELLING:
                rows.append(self._derived_step(unit, state))
        return rows

    def _dropped_rows(self, moves: Sequence[int]) -> list[Row]:
        """Give up the values whose last reader has ended by these moves (`keep_results: false`)."""
        record, run = self._execution.machine.record, self._execution.id
        upstreams = self._execution.plan.graph.upstreams
        ended = {
            record.task_of(move >> STATE_BITS)
            for move in moves
            if move >= 0 and move & _MASK >= TASK_ENDED_FROM
        }
        read = {task for reader in ended for task in (reader, *upstreams[reader])} & self._droppable
        rows: list[Row] = []
        for task in sorted(read):
            if record.task_states[task] == SUCCEEDED and record.results[task] is DROPPED:
                self._droppable.discard(task)
                units = (task, *(record.maps[task].units if task in record.maps else ()))
                rows += [DroppedRow(run, unit) for unit in units if record.task_states[unit] == SUCCEEDED]
        return rows

    def _success_row(self, successes: Sequence[tuple[int, float, str]]) -> SuccessesRow:
        """Return the one row of all tasks that have succeeded at once."""
        started = self._execution.started
        entries = [(unit, started[unit], ended, text) for unit, ended, text in successes]
        return SuccessesRow.of(self._execution.id, self._since, entries)

    def _derived_step(self, unit: int, state: int) -> StepRow:
        execution, machine = self._execution, self._execution.machine
        if state == CANCELLING:
            text = failure_text(None, asked=machine.asked_of(unit))
            return self.step(unit, state, ValueForm.NONE, None, text)
        if state == SUCCEEDED and machine.record.results[unit] is DROPPED:
            return self.step(unit, state, ValueForm.DROPPED, None, None)
        is_map = unit < execution.plan.size and machine.record.width_of(unit) is not None
        if state == SUCCEEDED and not is_map:  # reused, or a map over nothing
            return self.step(unit, state, *self.encoded(machine.record.results[unit]))
        due = None
        if state == UP_FOR_RETRY and unit in execution.retries:
            due = self.micros(execution.retries[unit].when)
        return self.step(
            unit, state, ValueForm.NONE, None, failure_text(execution.failures.get(unit)), due=due
        )

    def step(
        self,
        unit: int,
        state: int,
        form: int,
        data: bytes | None,
        text: str | None,
        *,
        ended: float | None = None,
        due: int | None = None,
    ) -> StepRow:
        """Return the row of a unit: times, attempts and what was reused are as the run knows them now."""
        execution, machine = self._execution, self._execution.machine
        self.apart.add(unit)
        task, size = machine.record.task_of(unit), execution.plan.size
        reused = execution.reused.get(execution.plan.tasks[task].name) if unit < size else None
        if ended is None:
            ended = execution.time_of(execution.ended, unit)
        started = execution.time_of(execution.started, unit)
        return StepRow(
            run=execution.id,
            unit=unit,
            task=task,
            place=machine.record.index_of(unit),
            state=state,
            attempts=machine.record.attempts[unit],
            forgiven=machine.record.forgiven.get(unit, 0),
            started=None if started is None else self.micros(started),
            ended=None if ended is None or state < TASK_ENDED_FROM else self.micros(ended),
            due=due,
            form=form,
            value=data,
            failure=text,
            reused=None if reused is None or reused.instances is not None else reused.run,
        )

    def _state_rows(self, *, spent: bool) -> list[RunStateRow]:
        """Return the row of the run itself, where it has changed."""
        record, propagation = self._execution.machine.record, self._execution.machine.propagation
        looks = (
            record.state,
            record.level,
            len(record.causes),
            record.first_cause_is_timeout,
            record.withheld,
            record.started,
            len(record.maps),
            propagation.failed_fast,
            propagation.finals_over,
            self._execution.started_at,
            self._execution.crash_words,
            self.fruitless,
            spent and self._times_out,
        )
        if looks == self._looks and not looks[-1]:  # as nearly always; the row itself costs ten times as much
            return []
        state, known, self._looks = self._state(spent=spent), self._last, looks
        if known is not None and state._replace(spent=0) == known._replace(spent=0) and not looks[-1]:
            return []
        self._last = state
        return [state]

    def _state(self, *, spent: bool = False) -> RunStateRow:
        execution, machine = self._execution, self._execution.machine
        facts = facts_of(machine, units=False)
        flags = (
            FIRST_IS_TIMEOUT * facts.timed_out_first
            + FAILING_FAST * facts.failing_fast
            + FINALS_OVER * facts.finals_over
            + WITHHELD * facts.withheld
        )
        started = execution.started_at
        return RunStateRow(
            id=execution.id,
            state=facts.state,
            level=facts.level,
            flags=flags,
            causes=facts.causes,
            begun=facts.started,
            started=None if started is None else self.micros(started),
            ended=self._ended(),
            spent=self._spent() if spent or self._times_out else 0,
            recovered=self.recovered,
            fruitless=self.fruitless,
            widths=json.dumps({str(task): width for task, width in sorted(facts.widths.items())}),
            failure=execution.crash_words or None,
        )

    def _ended(self) -> int | None:
        if not self._execution.machine.record.is_over:
            return None
        if self.left_at is not None:
            return self.micros(self.left_at)
        return self._recorder.now() if self._last is None or self._last.ended is None else self._last.ended

    def _spent(self) -> int:
        """Return the microseconds of the run's timeout that are used up."""
        execution, timeout = self._execution, self._execution.plan.definition.timeout
        if timeout is None or execution.remaining is None:
            return 0
        used = within(timeout) - execution.remaining
        if execution.timer is not None:
            used += self._recorder.host.clock() - execution.timer_from
        return max(0, round(used * MICRO))

    def _log_rows(self) -> list[LogRow]:
        log = self._execution.known_log
        if log is None or log.last_number == self._lines:
            return []
        lines, last = log.since(self._lines)
        first, self._lines = self.lines_before + self._lines + 1, last
        return [LogRow(self._execution.id, first, len(lines), pack_lines([line.as_dict() for line in lines]))]

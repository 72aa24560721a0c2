"""Event objects, made from a run's journal when somebody reads them, and made once for all readers.

A page holds the events of 256 numbers in a row. Readers that are at the same place read the same page;
the newest pages are kept as long as there is any reader, so that all readers find them made. Without
readers nothing is kept.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from scattersphere.engine.events.numbers import Moves
from scattersphere.engine.machine.codes import RUN_STATES, STATE_BITS, TASK_STATES
from scattersphere.model.events import EVENT_OF_MOVE, Event, EventKind, task_event
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scattersphere.engine.execution import Execution

PAGE = 256
"""Numbers of a page: making them takes a fraction of a millisecond."""

KEPT = 6
"""Pages that are kept for the readers that come to them a little later."""

_STATE_MASK = (1 << STATE_BITS) - 1
_SHOWS_CAUSES = frozenset(RunState) - {RunState.RUNNING, RunState.SUCCEEDED}
_SHOWS_FAILURE = frozenset({TaskState.FAILED, TaskState.CRASHED, TaskState.UP_FOR_RETRY})
_MOVES: tuple[tuple[EventKind, TaskState, bool], ...] = tuple(
    (task_event(state), state, state in _SHOWS_FAILURE) for state in TASK_STATES
)
_KINDS = tuple(kind for kind, _, _ in _MOVES)
_STATES = tuple(state for _, state, _ in _MOVES)
_UP_FOR_RETRY = TASK_STATES.index(TaskState.UP_FOR_RETRY)
_OTHERS = tuple(Event._field_defaults[name] for name in Event._fields[Event._fields.index("message") + 1 :])
"""The fields that moves have no use for."""
_AFTER_LEVEL = Event._fields.index("bundle") - len(Event._fields)
_new = tuple.__new__  # a named tuple's own constructor takes twice as long


Report = tuple[EventKind, int | None, int | None, float | None, float | None, str]
"""An extra that is no line of the log: kind, unit (None: of the run), attempt, done, total, message."""


class Page:
    """The events with numbers from `first` on, as far as they have happened and are kept."""

    __slots__ = ("__weakref__", "events", "first", "made", "whole")

    def __init__(self, first: int) -> None:
        self.first: int = first
        self.made: int = first - 1
        """The number up to which events were made."""
        self.events: list[Event] = []
        self.whole: bool = True
        """Whether none of them was dropped before it was made."""

    @property
    def last(self) -> int:
        """The last number that belongs here."""
        return self.first + PAGE - 1


class EventPages:
    """Makes the events of one run, page by page."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._pages: WeakValueDictionary[int, Page] = WeakValueDictionary()
        self._newest: deque[Page] = deque(maxlen=KEPT)
        self._others = (*_OTHERS[:-1], execution.engine.life)
        self._names = [task.name for task in execution.plan.tasks]
        self._retried: dict[int, list[int]] = {}
        self._scanned = 0

    @staticmethod
    def of(execution: Execution) -> EventPages:
        """Return what makes the events of a run; its readers share it and keep it alive."""
        known = _pages.get(execution)
        pages = None if known is None else known()
        if pages is None:
            pages = EventPages(execution)
            _pages[execution] = ref(pages)
        return pages

    def page_of(self, number: int) -> Page:
        """Return the page to which event `number` belongs; what has happened of it is made."""
        first = number - (number - 1) % PAGE
        page = self._pages.get(first)
        if page is None:
            page = self._pages[first] = Page(first)
            self._newest.append(page)
        self.fill(page)
        return page

    def fill(self, page: Page) -> None:
        """Make what has happened since."""
        journal = self._execution.journal
        upto = min(page.last, journal.last)
        if page.made >= upto:
            return
        events: list[Event] = []
        for piece in journal.read(page.made, upto):
            if isinstance(piece, Moves):
                moves = journal.moves[piece.start : piece.stop]
                if self._execution.machine.record.is_even and min(moves) >= 0:
                    events += self._even_moves(piece, moves)
                else:
                    self._make_moves(piece, moves, events)
            elif (event := self._extra(*piece)) is not None:
                events.append(event)
        page.whole = page.whole and len(events) == upto - page.made
        page.made = upto
        page.events += events

    def next_kept(self, number: int) -> int:
        """Return the first number above `number` that may still be read."""
        return self._execution.journal.next_kept(number)

    # ---- moves

    def _even_moves(self, piece: Moves, moves: Sequence[int]) -> list[Event]:
        """Make the events of moves of tasks in a run where all goes well: what `_make_moves` does, and no more."""
        execution, names, new, kinds, states = self._execution, self._names, _new, _KINDS, _STATES
        run, job, time = execution.id, execution.plan.job, execution.wall(piece.clock)
        others = self._others
        # Attempt 1, no index and no words; then as below.
        return [
            new(Event, (  # noqa: RUF005 - half the time of unpacking
                number, time, kinds[what & _STATE_MASK], run, job, names[what >> STATE_BITS], None, 1,
                states[what & _STATE_MASK], "",
            ) + others)
            for number, what in enumerate(moves, piece.number)
        ]  # fmt: skip

    def _make_moves(self, piece: Moves, moves: Sequence[int], events: list[Event]) -> None:
        """Make the events of a piece of the journal; all is inlined."""
        execution = self._execution
        run, job, names, size = execution.id, execution.plan.job, self._names, execution.plan.size
        time: dt.datetime = execution.wall(piece.clock)
        attempts, append, table = execution.machine.record.attempts, events.append, _MOVES
        others = self._others
        ahead = piece.start - piece.number
        for number, what in enumerate(moves, piece.number):
            if what < 0:
                append(self._run_move(number, time, what, number + ahead))
                continue
            unit = what >> STATE_BITS
            kind, state, shows_failure = table[what & _STATE_MASK]
            attempt: int | None = attempts[unit]
            if attempt != 1:
                attempt = self._attempt(unit, number + ahead) if attempt else None
            if unit < size:
                name, index = names[unit], None
            else:
                name = names[execution.machine.record.task_of(unit)]
                index = execution.machine.record.index_of(unit)
            words = self._failure(unit, attempt) if shows_failure else ""
            fields = (
                number, time, kind, run, job, name, index, attempt, state, words,
                *others,
            )  # fmt: skip
            append(_new(Event, fields))

    def _run_move(self, number: int, time: dt.datetime, what: int, place: int) -> Event:
        execution, state = self._execution, RUN_STATES[~what]
        before = None
        if state is RunState.RUNNING:  # after a pause it is no start: look back for the move before
            moves = execution.journal.moves
            before = next((RUN_STATES[~moves[at]] for at in range(place - 1, -1, -1) if moves[at] < 0), None)
        causes = "; ".join(execution.machine.record.causes) if state in _SHOWS_CAUSES else ""
        return Event(
            seq=number,
            time=time,
            kind=EVENT_OF_MOVE[before, state],
            run=execution.id,
            job=execution.plan.job,
            life=execution.engine.life,
            state=state,
            message=causes,
        )

    def _attempt(self, unit: int, place: int) -> int:
        """Return which attempt of a unit that has had several a move is of."""
        moves = self._execution.journal.moves
        if self._scanned < len(moves):
            for at in range(self._scanned, len(moves)):
                what = moves[at]
                if what >= 0 and what & _STATE_MASK == _UP_FOR_RETRY:
                    self._retried.setdefault(what >> STATE_BITS, []).append(at)
            self._scanned = len(moves)
        before = sum(at < place for at in self._retried.get(unit, ()))
        return min(before + 1, self._execution.machine.record.attempts[unit])

    def _failure(self, unit: int, attempt: int | None) -> str:
        execution = self._execution
        if attempt is not None and attempt < execution.machine.record.attempts[unit]:
            return execution.earlier.get((unit, attempt), "")
        failure = execution.failures.get(unit)
        return str(failure) if failure is not None else ""

    # ---- extras

    def _extra(self, number: int, clock: float, extra: Any) -> Event | None:
        return self._line(number, extra) if type(extra) is int else self._report(number, clock, extra)

    def _line(self, number: int, line: int) -> Event | None:
        """Return the event of a line of the log; None if the log has dropped it."""
        execution = self._execution
        entry = execution.log.entry(line)
        if entry is None:
            return None
        when, task, index, attempt, level, _, message = entry
        time: dt.datetime = dt.datetime.fromtimestamp(when, dt.UTC)
        # The fields in their order, without state, done and total: a run may log as many lines as it makes moves.
        return _new(Event, (
            number, time, EventKind.LOG, execution.id, execution.plan.job, task or None, index, attempt or None,
            None, message, None, None, level, *self._others[_AFTER_LEVEL:],
        ))  # fmt: skip

    def _report(self, number: int, clock: float, extra: Report) -> Event:
        execution, (kind, unit, attempt, done, total, message) = self._execution, extra
        return Event(
            seq=number,
            time=execution.wall(clock),
            kind=kind,
            run=execution.id,
            job=execution.plan.job,
            life=execution.engine.life,
            task=None if unit is None else self._names[execution.machine.record.task_of(unit)],
            index=None if unit is None else execution.machine.record.index_of(unit),
            attempt=attempt,
            message=message,
            done=done,
            total=total,
        )


_pages: WeakKeyDictionary[Execution, ref[EventPages]] = WeakKeyDictionary()
"""Of runs that have readers, or had some."""

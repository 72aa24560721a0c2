"""`MemoryJournal`: a journal in memory, for tests of recovery, which commits, fails and crashes when it is told to."""

from __future__ import annotations

import copy
import itertools
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    DroppedRow,
    JournalState,
    LifeRow,
    LogRow,
    MetaRow,
    MovesRow,
    RollbackRow,
    RunRow,
    RunStateRow,
    ScheduleRow,
    StepRow,
    StoredRun,
    SuccessesRow,
    ValueForm,
)
from scattersphere.errors import JournalBusyError, JournalError
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scattersphere.abc.journal import JournalHost, Row

    R = TypeVar("R")

ENDED = frozenset(number for number, state in enumerate(RunState) if state.ended)
NEW = MetaRow(next_run=1, wall=0)


@attrs.define
class _Tables:
    """What is committed: each table a dictionary by the key of its rows."""

    id: str
    meta: MetaRow = NEW
    lives: dict[int, LifeRow] = attrs.field(factory=dict)
    definitions: dict[str, DefinitionRow] = attrs.field(factory=dict)
    bundles: dict[str, BundleRow] = attrs.field(factory=dict)
    runs: dict[int, RunRow] = attrs.field(factory=dict)
    keys: dict[tuple[str, str, str], int] = attrs.field(factory=dict)
    """By job, user and key, as an index that is unique."""
    children: dict[Place, int] = attrs.field(factory=dict)
    """By parent, its unit, its try, and which start of that: as an index that is unique."""
    states: dict[int, RunStateRow] = attrs.field(factory=dict)
    steps: dict[int, dict[int, StepRow]] = attrs.field(factory=dict)
    attempts: dict[int, dict[tuple[int, int], AttemptRow]] = attrs.field(factory=dict)
    moves: dict[int, dict[int, MovesRow]] = attrs.field(factory=dict)
    logs: dict[int, dict[int, LogRow]] = attrs.field(factory=dict)
    schedules: dict[tuple[str, str], ScheduleRow] = attrs.field(factory=dict)
    rollbacks: dict[str, RollbackRow] = attrs.field(factory=dict)

    def apply(self, row: Row) -> None:  # noqa: C901, PLR0912 - a row of the port a line
        match row:
            case MetaRow():
                self.meta = row
            case LifeRow():
                self.lives[row.number] = row
            case DefinitionRow():
                self.definitions.setdefault(row.digest, row)
            case BundleRow():
                self.bundles.setdefault(row.digest, row)
            case RunRow():
                if row.key is not None and self.keys.setdefault(_key_of(row), row.id) != row.id:
                    row = row._replace(key=None)  # a key stays with the run that had it first
                self.runs.setdefault(row.id, row)
                if row.parent is not None:
                    self.children[_place_of(row)] = row.id
            case RunStateRow():
                self.states[row.id] = row
            case StepRow():
                self.steps.setdefault(row.run, {})[row.unit] = row
            case SuccessesRow():
                known = self.steps.setdefault(row.run, {})
                for step in row.steps():
                    known.setdefault(step.unit, step)
            case AttemptRow():
                self.attempts.setdefault(row.run, {})[row.unit, row.number] = row
            case DroppedRow():
                steps = self.steps.get(row.run, {})
                if row.unit in steps:
                    steps[row.unit] = steps[row.unit]._replace(form=ValueForm.DROPPED, value=None)
            case MovesRow():
                self.moves.setdefault(row.run, {})[row.first] = row
            case LogRow():
                self.logs.setdefault(row.run, {})[row.first] = row
            case ScheduleRow():
                self.schedules[row.job, row.name] = row
            case RollbackRow():
                self.rollbacks[row.bundle] = row

    def taken_place(self, rows: Iterable[Row]) -> str | None:
        """Say which run among these rows is where another child of its parent is: every journal refuses that."""
        taken = dict(self.children)
        for row in rows:
            if isinstance(row, RunRow) and row.parent is not None and row.parent_unit is not None:
                known = taken.setdefault(_place_of(row), row.id)
                if known != row.id:
                    return (
                        f"a defect: run {row.id} is start {row.child} of try {row.parent_try} of unit "
                        f"{row.parent_unit} of run {row.parent}, which run {known} is already"
                    )
        return None

    def stored(self, run: int, *, whole: bool = True) -> StoredRun:
        return StoredRun(
            run=self.runs[run],
            state=self.states[run],
            steps=_ordered(self.steps, run) if whole else (),
            attempts=_ordered(self.attempts, run) if whole else (),
            moves=_ordered(self.moves, run) if whole else (),
            lines=max((row.first + row.lines - 1 for row in self.logs.get(run, {}).values()), default=0)
            if whole
            else 0,
        )


Place = tuple["int | None", "int | None", "int | None", "int | None"]


def _key_of(row: RunRow) -> tuple[str, str, str]:
    return row.job, row.user, row.key or ""


def _place_of(row: RunRow) -> Place:
    return row.parent, row.parent_unit, row.parent_try, row.child


def _ordered(table: dict[int, dict[Any, R]], run: int) -> tuple[R, ...]:
    return tuple(row for _, row in sorted(table.get(run, {}).items()))


@attrs.frozen
class Transaction:
    """What was written at once."""

    rows: tuple[Any, ...]
    committed: Any
    """What is to be called when it is durable, or None."""


class MemoryJournal:
    """A `Journal` in memory, for tests of recovery without a disk: every commit is the test's own, or made at once.

    With `auto` what is written is committed before the loop has turned. Else `commit()` and `commit_all()` do that:
    what `waiting` holds is lost in a crash. `crash()` gives the journal as a next Server finds it; this one is dead
    from then on. `commits` counts the transactions that are durable, so that a test may crash after each.
    """

    is_instant: bool = True
    """Nothing here blocks, so no thread is needed: a clock that jumps would jump while that works."""

    def __init__(self, *, auto: bool = True) -> None:
        self.auto: bool = auto
        self.waiting: deque[Transaction] = deque()
        """The transactions that were written and are not durable yet, in order."""
        self.commits: int = 0
        self.crash_after: int | None = None
        """After so many commits nothing is committed any more, as if the program had been killed there."""
        self.on_commit: Callable[[Transaction], object] | None = None
        """Called after each commit, before those who wrote are told: a test may crash here."""
        self._tables = _Tables(secrets.token_hex(8))
        self._host: JournalHost | None = None
        self._held = False
        self._due = False
        self._failing: deque[tuple[str, bool]] = deque()
        self._has_failed = False
        self._is_dead = False

    def __repr__(self) -> str:
        state = "dead" if self._is_dead else "open" if self._host else "closed"
        return (
            f"<MemoryJournal {self._tables.id}: {state}, {self.commits} commits, {len(self.waiting)} waiting>"
        )

    # ---- for tests

    def commit(self) -> bool:
        """Make the oldest transaction durable and tell who wrote it. False where there is none, or it has failed.

        On the loop's thread.
        """
        if not self.waiting or self._is_dead or self.commits == self.crash_after:
            return False
        if self._failing:
            self._fail(*self._failing.popleft())
            return False
        taken = self._tables.taken_place(self.waiting[0].rows)
        if taken is not None:
            self._fail(taken, lasting=True)
            return False
        transaction = self.waiting.popleft()
        for row in transaction.rows:
            self._tables.apply(row)
        self.commits += 1
        if self.on_commit is not None:
            self.on_commit(transaction)
        if self._has_failed and self._host is not None:
            self._has_failed = False
            self._host.journal_mended()
        if transaction.committed is not None and not self._is_dead:
            transaction.committed()
        return True

    def commit_all(self) -> int:
        """Commit all that waits now, as far as none fails; return how many were committed.

        What is written because of that waits for the next time.
        """
        return sum(1 for _ in itertools.takewhile(bool, (self.commit() for _ in range(len(self.waiting)))))

    def fail_next(
        self, words: str = "database or disk is full", *, times: int = 1, lasting: bool = False
    ) -> None:
        """Let the next commits fail; what was to be committed stays in its order and can be committed after them.

        With `lasting` nothing is committed by this object any more, as after an I/O error.
        """
        self._failing.extend([(words, lasting)] * times)

    def crash(self) -> MemoryJournal:
        """Return the journal as it is committed, for the next Server, as if this program had been killed now."""
        after = MemoryJournal(auto=self.auto)
        after._tables = copy.deepcopy(self._tables)
        self._is_dead = True
        self.waiting.clear()
        if self._host is not None:
            self._host.journal_failed("a test has crashed it", lasting=True)
        return after

    def again(self) -> MemoryJournal:
        """Return the journal for the next Server, after this one was closed."""
        if self._held:
            raise JournalBusyError("this journal is still open: close its Server, or crash it")
        return self.crash()

    def _fail(self, words: str, lasting: bool) -> None:  # noqa: FBT001 - as it was noted
        self._has_failed = True
        if lasting:
            self._is_dead = True
        if self._host is not None:
            self._host.journal_failed(words, lasting=lasting)

    # ---- the port

    def open(self, host: JournalHost) -> JournalState:
        """See `Journal.open`."""
        if self._held:
            raise JournalBusyError("this MemoryJournal is held by another Server of this process")
        if self._is_dead:
            raise JournalError("this MemoryJournal has crashed; open what `crash()` has returned")
        self._host, self._held = host, True
        tables = self._tables
        return JournalState(
            id=tables.id,
            next_run=tables.meta.next_run,
            wall=tables.meta.wall,
            lives=_values(tables.lives),
            unfinished=tuple(
                run
                for run in sorted(tables.runs)
                if run in tables.states and tables.states[run].state not in ENDED
            ),
            schedules=_values(tables.schedules),
            rollbacks=_values(tables.rollbacks),
        )

    def write(self, rows: Sequence[Row], committed: Callable[[], object] | None = None) -> None:
        """See `Journal.write`."""
        if self._is_dead or self._host is None:
            return
        self.waiting.append(Transaction(tuple(rows), committed))
        if self.auto and not self._due:
            self._due = True
            self._host.soon(self._commit_due)

    def _commit_due(self) -> None:
        self._due = False
        if not self.auto:
            return
        self.commit_all()
        stopped = self._is_dead or self.commits == self.crash_after
        if self.waiting and not self._due and self._host is not None and not stopped:
            self._due = True
            self._host.soon(self._commit_due)

    @property
    def backlog(self) -> tuple[int, int]:
        """See `Journal.backlog`. Bytes are those of values, logs and code."""
        rows = [row for transaction in self.waiting for row in transaction.rows]
        return len(rows), sum(map(_bytes_of, rows))

    def read_runs(self, ids: Iterable[int]) -> list[StoredRun]:
        """See `Journal.read_runs`."""
        return [self._tables.stored(run) for run in ids if run in self._tables.runs]

    def read_children(self, runs: Iterable[int]) -> list[RunRow]:
        """See `Journal.read_children`."""
        wanted = frozenset(runs)
        return [row for _, row in sorted(self._tables.runs.items()) if row.parent in wanted]

    def read_definition(self, digest: str) -> str:
        """See `Journal.read_definition`."""
        return self._tables.definitions[digest].text

    def read_bundle(self, digest: str) -> bytes | None:
        """See `Journal.read_bundle`."""
        return self._tables.bundles[digest].content

    def read_value(self, row: StepRow) -> tuple[int, bytes]:
        """See `Journal.read_value`."""
        if row.value is None:
            raise LookupError(f"unit {row.unit} of run {row.run} has no value")
        return row.form, row.value

    def read_log(self, run: int, first: int = 1) -> list[LogRow]:
        """See `Journal.read_log`."""
        return [row for row in _ordered(self._tables.logs, run) if row.first + row.lines > first]

    def find_key(self, job: str, user: str, key: str) -> int | None:
        """See `Journal.find_key`."""
        return self._tables.keys.get((job, user, key))

    def find_runs(
        self,
        *,
        job: str | None = None,
        states: Sequence[int] | None = None,
        since: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredRun]:
        """See `Journal.find_runs`."""
        tables = self._tables
        found = [
            number
            for number, run in sorted(tables.runs.items(), reverse=True)
            if (job is None or run.job == job)
            and (states is None or tables.states[number].state in states)
            and (since is None or run.created >= since)
            and (before is None or number < before)
        ]
        return [tables.stored(number, whole=False) for number in found[:limit]]

    def close(self) -> None:
        """See `Journal.close`."""
        if self.auto:
            self._failing.clear()
            while self.waiting and not self._is_dead and self.commits != self.crash_after:
                for row in self.waiting.popleft().rows:  # nobody is told any more
                    self._tables.apply(row)
                self.commits += 1
        self._host, self._held = None, False

    def after_fork_in_child(self) -> None:
        """See `Journal.after_fork_in_child`."""
        self._host, self._is_dead = None, True


def _values(table: dict[Any, R]) -> tuple[R, ...]:
    return tuple(row for _, row in sorted(table.items()))


def _bytes_of(row: Row) -> int:
    return sum(len(cell) for cell in row if isinstance(cell, bytes))

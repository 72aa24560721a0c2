"""Rows of the journal's contract as rows of tables: the SQL of each kind, many transactions folded into one.

What is committed together needs each row only once, as it stands at the end. So a batch keeps the newest row of each
key, and every kind is written by one statement.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    DroppedRow,
    LifeRow,
    LogRow,
    MetaRow,
    MovesRow,
    RollbackRow,
    Row,
    RunRow,
    RunStateRow,
    ScheduleRow,
    StepRow,
    SuccessesRow,
    ValueForm,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

_R = TypeVar("_R")


def _upsert(table: str, row: Any, key: int) -> str:
    """Return the statement that inserts a row of the columns of a row class, or replaces the one with its key."""
    columns = row._fields
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns[key:])
    return (
        f"INSERT INTO {table}({', '.join(columns)}) VALUES({', '.join('?' * len(columns))}) "
        f"ON CONFLICT({', '.join(columns[:key])}) DO {f'UPDATE SET {changed}' if changed else 'NOTHING'}"
    )


RUN_COLUMNS = tuple(name for name in RunRow._fields if name != "bundles")
STATE_COLUMNS = RunStateRow._fields

_DEFINITION = _upsert("definition", DefinitionRow, 1).partition("DO ")[0] + "DO NOTHING"
_BUNDLE = "INSERT INTO bundle(digest, bytes, content) VALUES(?, ?, ?) ON CONFLICT(digest) DO NOTHING"
_PLACES = {name: f"?{number}" for number, name in enumerate(RUN_COLUMNS, 1)}
# A key stays with the run that had it first: one run without its key is better than no journal.
_FREE_KEY = (  # noqa: S608 - of names of columns
    "CASE WHEN EXISTS(SELECT 1 FROM run WHERE job = {job} AND user = {user} AND key = {key} AND id <> {id}) "
    "THEN NULL ELSE {key} END"
).format(**_PLACES)
_RUN = (
    f"INSERT INTO run({', '.join(RUN_COLUMNS)}) "
    f"VALUES({', '.join((_PLACES | {'key': _FREE_KEY}).values())}) ON CONFLICT(id) DO NOTHING"
)
_RUN_BUNDLE = "INSERT INTO run_bundle(run, name, digest) VALUES(?, ?, ?) ON CONFLICT(run, name) DO NOTHING"
_META = "INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value"
_LIFE = _upsert("life", LifeRow, 1)
_STATE = _upsert("run_state", RunStateRow, 1)
_STEP = _upsert("step", StepRow, 2)
_DROP = f"UPDATE step SET form = {int(ValueForm.DROPPED)}, value = NULL WHERE run = ? AND unit = ?"  # noqa: S608
_SUCCESSES = _upsert("successes", SuccessesRow, 2)
_ATTEMPT = _upsert("attempt", AttemptRow, 3)
_MOVES = _upsert("moves", MovesRow, 2)
_LOG = _upsert("log", LogRow, 2)
_SCHEDULE = _upsert("schedule", ScheduleRow, 2)
_ROLLBACK = _upsert("rollback", RollbackRow, 1)
_NO_ROLLBACK = "DELETE FROM rollback WHERE bundle = ?"


class Batch:
    """What is committed together: of each key the newest row."""

    def __init__(self) -> None:
        self.meta: MetaRow | None = None
        self.lives: dict[int, LifeRow] = {}
        self.definitions: dict[str, DefinitionRow] = {}
        self.bundles: dict[str, BundleRow] = {}
        self.runs: dict[int, RunRow] = {}
        self.states: dict[int, RunStateRow] = {}
        self.steps: dict[tuple[int, int], StepRow] = {}
        self.dropped: dict[tuple[int, int], None] = {}
        """Values to be given up of steps that were written before this batch."""
        self.successes: list[SuccessesRow] = []
        self.attempts: dict[tuple[int, int, int], AttemptRow] = {}
        self.moves: dict[int, list[list[MovesRow]]] = {}
        """By run: slices that follow each other, and become one."""
        self.logs: dict[tuple[int, int], LogRow] = {}
        self.schedules: dict[tuple[str, str], ScheduleRow] = {}
        self.rollbacks: dict[str, RollbackRow] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of one transaction, which are newer than all that were added before."""
        for row in rows:
            kind = type(row)
            if kind is StepRow:
                self.steps[row[:2]] = row  # type: ignore[index, assignment]
            elif kind is SuccessesRow:
                self.successes.append(row)  # type: ignore[arg-type]
            else:
                _ADD[kind](self, row)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write everything, what is referred to first, in the transaction that is open."""
        for statement, values in self._statements():
            if values:  # most kinds are not there: a statement costs something even without rows
                connection.executemany(statement, values)

    def _statements(self) -> Iterable[tuple[str, Any]]:
        yield _META, () if self.meta is None else list(zip(self.meta._fields, self.meta, strict=True))
        yield _LIFE, self.lives.values()
        yield _DEFINITION, self.definitions.values()
        yield _BUNDLE, [(row.digest, len(row.content or b""), row.content) for row in self.bundles.values()]
        if self.runs:
            yield _RUN, map(_run_values, self.runs.values())
            yield _RUN_BUNDLE, [(row.id, *bundle) for row in self.runs.values() for bundle in row.bundles]
        yield _STATE, [row._replace(causes=_json(row.causes)) for row in self.states.values()]  # type: ignore[arg-type]
        yield _DROP, self.dropped
        yield _STEP, self.steps.values()
        yield _SUCCESSES, self.successes
        yield _ATTEMPT, self.attempts.values()
        for chains in self.moves.values():
            yield _MOVES, map(_joined, chains)
        yield _LOG, self.logs.values()
        yield _SCHEDULE, self.schedules.values()
        if self.rollbacks:
            yield _ROLLBACK, [row for row in self.rollbacks.values() if row.digest is not None]
            yield _NO_ROLLBACK, [(row.bundle,) for row in self.rollbacks.values() if row.digest is None]


def _add_dropped(batch: Batch, row: DroppedRow) -> None:
    step = batch.steps.get(row)
    if step is None:
        batch.dropped[row] = None
    elif step.value is not None:
        batch.steps[row] = step._replace(form=ValueForm.DROPPED, value=None)


def _add_moves(batch: Batch, row: MovesRow) -> None:
    """Put moves behind those of the batch that they follow in time too: a task makes two, a quick run one row."""
    chains = batch.moves.setdefault(row.run, [])
    if chains:
        last = chains[-1][-1]
        follows = last.life == row.life and last.first + len(last.moves) // MOVE_BYTES == row.first
        if follows and row.at - chains[-1][0].at <= MOVES_SPAN:
            chains[-1].append(row)
            return
    chains.append([row])


def _set(name: str, key: Callable[[_R], object]) -> Callable[[Batch, _R], None]:
    def add(batch: Batch, row: _R) -> None:
        getattr(batch, name)[key(row)] = row

    return add


def _add_meta(batch: Batch, row: MetaRow) -> None:
    batch.meta = row


_ADD: dict[type, Callable[[Batch, Any], None]] = {
    MetaRow: _add_meta,
    LifeRow: _set("lives", lambda row: row[0]),
    DefinitionRow: _set("definitions", lambda row: row[0]),
    BundleRow: _set("bundles", lambda row: row[0]),
    RunRow: _set("runs", lambda row: row[0]),
    RunStateRow: _set("states", lambda row: row[0]),
    DroppedRow: _add_dropped,
    AttemptRow: _set("attempts", lambda row: row[:3]),
    MovesRow: _add_moves,
    LogRow: _set("logs", lambda row: row[:2]),
    ScheduleRow: _set("schedules", lambda row: row[:2]),
    RollbackRow: _set("rollbacks", lambda row: row[0]),
}
"""How each kind of row comes into a batch."""

_SIZED: dict[type, Callable[[Any], int]] = {
    DefinitionRow: lambda row: len(row.text),
    BundleRow: lambda row: len(row.content or b""),
    RunRow: lambda row: len(row.params) + len(row.extra),
    StepRow: lambda row: len(row.failure or ""),
    SuccessesRow: lambda row: ROW_BYTES * (row.number - 1) + len(row.tasks),
    AttemptRow: lambda row: len(row.failure or ""),
    MovesRow: lambda row: len(row.moves),
    LogRow: lambda row: len(row.data),
}
MOVE_BYTES = 8
MOVES_SPAN = 10_000
"""Microseconds that the moves of one row may lie apart: much less than people see."""
ROW_BYTES = 100
"""Bytes of a row without what is in it, about."""


def count_of(rows: Sequence[Row]) -> int:
    """Return how many rows there are, if each task that succeeded had one of its own."""
    return len(rows) + sum(row.number - 1 for row in rows if type(row) is SuccessesRow)


def size_of(rows: Iterable[Row]) -> int:
    """Return how many bytes rows take, about."""
    size = 0
    for row in rows:
        size += ROW_BYTES
        if type(row) is StepRow and row.value is not None:  # nearly all are such
            size += len(row.value)
        elif (content := _SIZED.get(type(row))) is not None:
            size += content(row)
    return size


def printable(row: Row) -> Row:
    """Return a row without halves of surrogate pairs, which no text of a database can hold."""
    return type(row)(*(_printable(value) for value in row))


def _printable(value: object) -> Any:
    if isinstance(value, tuple):
        return tuple(_printable(inner) for inner in value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _joined(chain: list[MovesRow]) -> MovesRow:
    return chain[0] if len(chain) == 1 else chain[0]._replace(moves=b"".join([row.moves for row in chain]))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _run_values(row: RunRow) -> tuple[object, ...]:
    row = row._replace(secrets=_json(row.secrets))  # type: ignore[arg-type]
    return (*row[:3], *row[4:])


# ---- and back


def read_run(values: tuple[Any, ...], bundles: tuple[tuple[str, str], ...]) -> RunRow:
    """Return the run that a row of RUN_COLUMNS holds."""
    return RunRow._make((*values[:3], bundles, values[3], _words(values[4]), *values[5:]))


def read_state(values: tuple[Any, ...]) -> RunStateRow:
    """Return the state that a row of STATE_COLUMNS holds."""
    return RunStateRow._make((*values[:4], _words(values[4]), bool(values[5]), *values[6:]))


def _words(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))

"""Rows of the journal's contract as rows of tables: the SQL of each kind, many transactions folded into one.

What is committed together needs each row only once, as it stands at the end. So a batch keeps the newest row of each
key, and every kind is written by one statement.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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
    from collections.abc import Callable, Iterable, Iterator

_R = TypeVar("_R")

MOVE_BYTES = 8
MOVES_SPAN = 10_000
"""Microseconds that the moves of one row may lie apart: much less than people see."""
ROW_BYTES = 100
"""Bytes of a row without what is in it, about."""

RUN_COLUMNS = tuple(name for name in RunRow._fields if name != "bundles")
STATE_COLUMNS = RunStateRow._fields

_KEYS: dict[type, int] = {
    MetaRow: 0,
    LifeRow: 1,
    DefinitionRow: 1,
    BundleRow: 1,
    RunRow: 1,
    RunStateRow: 1,
    DroppedRow: 2,
    StepRow: 2,
    SuccessesRow: 2,
    AttemptRow: 3,
    MovesRow: 2,
    LogRow: 2,
    ScheduleRow: 2,
    RollbackRow: 1,
}
"""How many of the first fields of a row are its key."""


class Batch:
    """What is committed together: of each kind and key the newest row."""

    def __init__(self) -> None:
        self._rows: dict[type, dict[Any, Any]] = {}
        """Only of kinds that are there: most batches have two of them."""

    def of(self, kind: type[_R]) -> dict[tuple[object, ...], _R]:
        """Return the rows of a kind, by their keys."""
        return self._rows.get(kind, {})

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of one transaction, which are newer than all that were added before."""
        for row in rows:
            kind = type(row)
            if kind is MovesRow:
                self._add_moves(row)  # type: ignore[arg-type]
            elif kind is DroppedRow and (step := self.of(StepRow).get(row)) is not None:
                if step.value is not None:
                    self._rows[StepRow][row] = step._replace(form=ValueForm.DROPPED, value=None)
            else:
                known = self._rows.get(kind)
                if known is None:
                    known = self._rows[kind] = {}
                known[row[: _KEYS[kind]]] = row

    def _add_moves(self, row: MovesRow) -> None:
        """Put moves behind those that they follow in time too: a task makes two, a quick run one row."""
        chains: list[list[MovesRow]] = self._rows.setdefault(MovesRow, {}).setdefault(row.run, [])
        if chains:
            first, last = chains[-1][0], chains[-1][-1]
            follows = last.life == row.life and last.first + len(last.moves) // MOVE_BYTES == row.first
            if follows and row.at - first.at <= MOVES_SPAN:
                chains[-1].append(row)
                return
        chains.append([row])

    def write(self, connection: sqlite3.Connection) -> None:
        """Write everything, what is referred to first, in the transaction that is open."""
        for kind, statement, values in _STATEMENTS:
            if kind in self._rows:  # a statement costs something even without rows
                rows = self._rows[kind].values()
                connection.executemany(statement, rows if values is None else values(rows))


# ---- the statement of each kind


def _upsert(table: str, row: Any) -> str:
    """Return the statement that inserts a row of the columns of a row class, or replaces the one with its key."""
    columns, key = row._fields, _KEYS[row]
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns[key:])
    return (
        f"INSERT INTO {table}({', '.join(columns)}) VALUES({', '.join('?' * len(columns))}) "
        f"ON CONFLICT({', '.join(columns[:key])}) DO UPDATE SET {changed}"
    )


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


def _run_values(rows: Iterable[RunRow]) -> Iterator[tuple[object, ...]]:
    for row in rows:
        yield (*row[:3], row.params, _json(row.secrets), *row[6:])


def _joined(runs: Iterable[list[list[MovesRow]]]) -> Iterator[MovesRow]:
    for chains in runs:
        for chain in chains:
            moves = [row.moves for row in chain]
            yield chain[0] if len(chain) == 1 else chain[0]._replace(moves=b"".join(moves))


_Values: TypeAlias = "Callable[[Iterable[Any]], Iterable[tuple[object, ...]]]"
_STATEMENTS: tuple[tuple[type, str, _Values | None], ...] = (
    (
        MetaRow,
        "INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        lambda rows: (item for row in rows for item in zip(row._fields, row, strict=True)),
    ),
    (LifeRow, _upsert("life", LifeRow), None),
    (DefinitionRow, _upsert("definition", DefinitionRow).partition("DO ")[0] + "DO NOTHING", None),
    (
        BundleRow,
        "INSERT INTO bundle(digest, bytes, content) VALUES(?, ?, ?) ON CONFLICT(digest) DO NOTHING",
        lambda rows: ((row.digest, len(row.content or b""), row.content) for row in rows),
    ),
    (RunRow, _RUN, _run_values),
    (
        RunRow,
        "INSERT INTO run_bundle(run, name, digest) VALUES(?, ?, ?) ON CONFLICT(run, name) DO NOTHING",
        lambda rows: ((row.id, *bundle) for row in rows for bundle in row.bundles),
    ),
    (
        RunStateRow,
        _upsert("run_state", RunStateRow),
        lambda rows: (row._replace(causes=_json(row.causes)) for row in rows),
    ),
    (
        DroppedRow,  # of steps that were written before this batch
        f"UPDATE step SET form = {int(ValueForm.DROPPED)}, value = NULL WHERE run = ? AND unit = ?",  # noqa: S608
        None,
    ),
    (StepRow, _upsert("step", StepRow), None),
    (SuccessesRow, _upsert("successes", SuccessesRow), None),
    (AttemptRow, _upsert("attempt", AttemptRow), None),
    (MovesRow, _upsert("moves", MovesRow), _joined),
    (LogRow, _upsert("log", LogRow), None),
    (ScheduleRow, _upsert("schedule", ScheduleRow), None),
    (
        RollbackRow,
        _upsert("rollback", RollbackRow),
        lambda rows: (row for row in rows if row.digest is not None),
    ),
    (
        RollbackRow,
        "DELETE FROM rollback WHERE bundle = ?",
        lambda rows: ((row.bundle,) for row in rows if row.digest is None),
    ),
)
"""In the order in which they are executed; the third gives the values of rows that are not those of the columns."""


# ---- how much it is

_SIZED: dict[type, Callable[[Any], int]] = {
    DefinitionRow: lambda row: len(row.text),
    BundleRow: lambda row: len(row.content or b""),
    RunRow: lambda row: len(row.params) + len(row.extra),
    StepRow: lambda row: len(row.value or b"") + len(row.failure or ""),
    SuccessesRow: lambda row: ROW_BYTES * (row.number - 1) + len(row.tasks),
    AttemptRow: lambda row: len(row.failure or ""),
    MovesRow: lambda row: len(row.moves),
    LogRow: lambda row: len(row.data),
}


def measured(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many rows there are, if each task that succeeded had one of its own, and their bytes, about."""
    count = size = 0
    for row in rows:
        kind = type(row)
        count += row.number if kind is SuccessesRow else 1  # type: ignore[union-attr]
        size += ROW_BYTES
        if kind in _SIZED:
            size += _SIZED[kind](row)
    return count, size


def printable(row: Row) -> Row:
    """Return a row without halves of surrogate pairs, which no text of a database can hold."""
    return type(row)(*(_printable(value) for value in row))


def _printable(value: object) -> Any:
    if isinstance(value, tuple):
        return tuple(_printable(inner) for inner in value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ---- and back


def read_run(values: tuple[Any, ...], bundles: tuple[tuple[str, str], ...]) -> RunRow:
    """Return the run that a row of RUN_COLUMNS holds."""
    return RunRow._make((*values[:3], bundles, values[3], _words(values[4]), *values[5:]))


def read_state(values: tuple[Any, ...]) -> RunStateRow:
    """Return the state that a row of STATE_COLUMNS holds."""
    return RunStateRow._make((*values[:4], _words(values[4]), bool(values[5]), *values[6:]))


def _words(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))

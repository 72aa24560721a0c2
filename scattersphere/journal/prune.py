"""Retention: old runs are deleted in pieces so short that the commits between them hardly wait."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scattersphere.abc.journal import DroppedRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator

    from scattersphere.journal.files import ValueFiles

PIECE_SECONDS = 0.02
"""How long a commit may have to wait for a piece."""
_ROWS = 100
"""Rows deleted between two looks at the clock."""
_FREE_PAGES = 256
"""Pages that stay free for what comes: giving back each one would have the file grow again at once."""

_VICTIMS = """
    SELECT id FROM run_state AS s WHERE ended <= ? AND NOT EXISTS (
      SELECT 1 FROM run AS c JOIN run_state AS cs ON cs.id = c.id
      WHERE c.parent = s.id AND cs.ended IS NULL)
    AND NOT EXISTS (
      SELECT 1 FROM run AS r JOIN run_state AS ps ON ps.id = r.parent WHERE r.id = s.id AND ps.ended IS NULL)
    ORDER BY ended LIMIT ?"""
_PARTS = {"step": "unit", "successes": "first", "attempt": "unit, number", "moves": "first", "log": "first"}
"""What belongs to a run, and the rest of its key."""
_UNNAMED = {
    "definition": "NOT EXISTS (SELECT 1 FROM run WHERE run.definition = definition.digest)",
    "bundle": "digest <> '' AND NOT EXISTS (SELECT 1 FROM run_bundle WHERE run_bundle.digest = bundle.digest) "
    "AND NOT EXISTS (SELECT 1 FROM rollback WHERE rollback.digest = bundle.digest)",
}
"""What no run names."""


def cutoff(connection: sqlite3.Connection, count: int, before: int) -> int:
    """Return the instant up to which ended runs are too many or too old; `before`: too old."""
    row = connection.execute(
        "SELECT ended FROM run_state WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT 1 OFFSET ?", (count,)
    ).fetchone()
    return before if row is None else max(before, int(row[0]))


def prune(
    connection: sqlite3.Connection, files: ValueFiles, *, count: int, before: int, spared: Collection[str]
) -> Iterator[None]:
    """Delete ended runs beyond the newest `count`, and those that ended up to `before`; yields after each piece.

    A run whose parent or child lives stays. Definitions and code that no run names go too, but for the digests in
    `spared`. What a crash leaves half deleted is finished by the next call. Raises `sqlite3.Error` with nothing half
    written.
    """
    last = cutoff(connection, count, before)
    while True:
        with _piece(connection) as deadline:
            more = _give_up(connection, last, deadline)
        yield
        while _unfinished(connection):
            with _piece(connection) as deadline:
                _delete_parts(connection, files, deadline)
            files.remove_given_up(connection)
            yield
        if not more:
            break
    for table, unnamed in _UNNAMED.items():
        yield from _delete_unnamed(connection, table, unnamed, spared)
    while connection.execute("PRAGMA freelist_count").fetchone()[0] > _FREE_PAGES:
        connection.executescript(f"PRAGMA incremental_vacuum({_ROWS})")  # `execute` gives back a single page
        yield


@contextmanager
def _piece(connection: sqlite3.Connection) -> Iterator[float]:
    """Make a transaction of what is done inside; gives the time on the monotonic clock at which to end it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield time.monotonic() + PIECE_SECONDS
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _give_up(connection: sqlite3.Connection, last: int, deadline: float) -> bool:
    """Take runs out of sight; their keys are free. Returns whether there are more."""
    while True:
        victims = connection.execute(_VICTIMS, (last, _ROWS)).fetchall()
        connection.executemany("INSERT INTO given_up(run) VALUES(?)", victims)
        connection.executemany("DELETE FROM run WHERE id = ?", victims)
        if len(victims) < _ROWS:
            return False
        if time.monotonic() > deadline:
            return True


def _unfinished(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM given_up LIMIT 1").fetchone() is not None


def _delete_parts(connection: sqlite3.Connection, files: ValueFiles, deadline: float) -> None:
    for (run,) in connection.execute("SELECT run FROM given_up ORDER BY run").fetchall():
        for table, key in _PARTS.items():
            chosen = f"SELECT {key} FROM {table} WHERE run = {run} LIMIT {_ROWS}"  # noqa: S608 - our own names
            while True:
                if table == "step":
                    units = connection.execute(chosen).fetchall()
                    files.note_dropped(connection, [DroppedRow(run, unit) for (unit,) in units])
                done = connection.execute(f"DELETE FROM {table} WHERE run = {run} AND ({key}) IN ({chosen})")  # noqa: S608
                if done.rowcount < _ROWS:
                    break
                if time.monotonic() > deadline:
                    return
        connection.execute("DELETE FROM given_up WHERE run = ?", (run,))
        if time.monotonic() > deadline:
            return


def _delete_unnamed(
    connection: sqlite3.Connection, table: str, unnamed: str, spared: Collection[str]
) -> Iterator[None]:
    found = connection.execute(f"SELECT digest FROM {table} WHERE {unnamed}").fetchall()  # noqa: S608 - our own names
    left = [digest for (digest,) in found if digest not in spared]
    while left:
        with _piece(connection) as deadline:
            while left:
                # Asked again: a run may have come between two pieces.
                connection.execute(f"DELETE FROM {table} WHERE digest = ? AND {unnamed}", (left.pop(),))  # noqa: S608
                if time.monotonic() > deadline:
                    break
        yield

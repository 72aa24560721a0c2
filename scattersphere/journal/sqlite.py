"""SqliteJournal: keeps what happens to runs in one SQLite file, for one Server at a time."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

from scattersphere._lifecycle import ForkGuard
from scattersphere.abc.journal import (
    AttemptRow,
    JournalState,
    LifeRow,
    LogRow,
    MovesRow,
    RollbackRow,
    ScheduleRow,
    StepRow,
    StoredRun,
    SuccessesRow,
)
from scattersphere.errors import ArgumentError, JournalError
from scattersphere.journal.files import ValueFiles
from scattersphere.journal.place import JournalFiles, JournalLock, make_files, refuse_unsafe_folder
from scattersphere.journal.rows import RUN_COLUMNS, STATE_COLUMNS, read_run, read_state
from scattersphere.journal.schema import connect, connect_reader, words_of
from scattersphere.journal.writer import JournalWriter
from scattersphere.model.arguments import check_count, check_seconds

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from scattersphere.abc.journal import JournalHost, Row, RunRow, RunStateRow

SYNC: Final = ("full", "normal")
KEEP: Final = (100_000, math.inf)
"""How many ended runs are kept, and for how many seconds, where nothing is said."""
SPAN = 10_000
"""Numbers of runs among which one statement looks for some: some milliseconds where it finds none."""
_HIGHEST = 2**63 - 1
"""The highest number that SQLite knows."""
_READ_AT_ONCE = 500
"""Runs that one statement reads: SQLite has a limit of variables."""


class JournalReader:
    """Reads a journal through a connection of its own; from any thread, one after the other. Raises `JournalError`."""

    def __init__(self, files: JournalFiles, *, seconds: float | None = None) -> None:
        self._path = files.database
        self._values = ValueFiles(files.values)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = connect_reader(files.database, seconds=seconds)

    def all(self, statement: str, *values: object) -> list[Any]:
        """Return the rows of a statement."""
        with self._lock:
            if self._connection is None:
                raise JournalError(f"the journal {self._path} is closed")
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(words_of(error, self._path)) from None

    def state(self) -> JournalState:
        """Read what the journal holds, but for the runs."""
        meta = dict(self.all("SELECT name, value FROM meta"))
        return JournalState(
            id=meta["journal"],
            next_run=meta["next_run"],
            wall=meta["wall"],
            lives=tuple(LifeRow(*row) for row in self.all("SELECT * FROM life ORDER BY number")),
            unfinished=tuple(
                number for (number,) in self.all("SELECT id FROM run_state WHERE ended IS NULL ORDER BY id")
            ),
            schedules=tuple(
                ScheduleRow._make((*row[:4], bool(row[4]), row[5]))
                for row in self.all("SELECT * FROM schedule ORDER BY job, name")
            ),
            rollbacks=tuple(RollbackRow(*row) for row in self.all("SELECT * FROM rollback ORDER BY bundle")),
        )

    def runs(self, ids: Iterable[int]) -> list[StoredRun]:
        """Read runs with all their rows, in the order of `ids`."""
        wanted, found = list(ids), dict[int, StoredRun]()
        for start in range(0, len(wanted), _READ_AT_ONCE):
            chosen = ",".join(str(int(number)) for number in wanted[start : start + _READ_AT_ONCE])
            steps = self._parts(StepRow, "step", "unit", chosen)
            successes = self._parts(SuccessesRow, "successes", "first", chosen)
            attempts = self._parts(AttemptRow, "attempt", "unit, number", chosen)
            moves = self._parts(MovesRow, "moves", "first", chosen)
            lines = dict(
                self.all(
                    f"SELECT run, max(first + lines - 1) FROM log WHERE run IN ({chosen}) GROUP BY run"  # noqa: S608 - numbers
                )
            )
            for run, state in self._heads(f"run.id IN ({chosen})"):
                found[run.id] = StoredRun(
                    run=run,
                    state=state,
                    steps=self._merged(steps.get(run.id, []), successes.get(run.id)),
                    attempts=tuple(attempts.get(run.id, ())),
                    moves=tuple(moves.get(run.id, ())),
                    lines=lines.get(run.id, 0),
                )
        return [found[number] for number in wanted if number in found]

    def children(self, runs: Iterable[int]) -> list[RunRow]:
        """Return the runs whose parents are these, by number."""
        wanted = list(runs)
        found: list[RunRow] = []
        for start in range(0, len(wanted), _READ_AT_ONCE):
            chosen = ",".join(str(int(number)) for number in wanted[start : start + _READ_AT_ONCE])
            found += [row for row, _ in self._heads(f"run.parent IN ({chosen})")]
        return sorted(found, key=lambda row: row.id)

    def find_runs(
        self,
        *,
        job: str | None,
        states: Sequence[int] | None,
        since: int | None,
        before: int | None,
        limit: int,
    ) -> list[StoredRun]:
        """Find runs, newest first, without their rows."""
        where, values = ["1"], list[Any]()
        if job is not None:
            where.append("run.job = ?")
            values.append(job)
        if states is not None:
            where.append(f"s.state IN ({','.join(str(int(state)) for state in states)})")
        if since is not None:
            where.append("run.created >= ?")
            values.append(since)
        condition = f"{' AND '.join(where)} AND run.id BETWEEN ? AND ? ORDER BY run.id DESC LIMIT ?"
        found: list[StoredRun] = []
        last: int | None = _HIGHEST if before is None else min(_HIGHEST, before - 1)
        while len(found) < limit:  # in pieces: a look that finds nothing is not a long one
            ((last,),) = self.all("SELECT max(id) FROM run WHERE id <= ?", last)  # a restore leaves many out
            if last is None:
                break
            heads = self._heads(condition, *values, last - SPAN + 1, last, limit - len(found))
            found += [StoredRun(run=run, state=state) for run, state in heads]
            last -= SPAN
        return found

    def _heads(self, where: str, *values: object) -> list[tuple[RunRow, RunStateRow]]:
        columns = ", ".join([f"run.{name}" for name in RUN_COLUMNS] + [f"s.{name}" for name in STATE_COLUMNS])
        rows = self.all(
            f"SELECT {columns} FROM run JOIN run_state AS s ON s.id = run.id WHERE {where}",  # noqa: S608 - our own names
            *values,
        )
        chosen = ",".join(str(row[0]) for row in rows)
        bundles: dict[int, list[tuple[str, str]]] = {}
        for number, name, digest in self.all(
            f"SELECT run, name, digest FROM run_bundle WHERE run IN ({chosen}) ORDER BY run, name"  # noqa: S608
        ):
            bundles.setdefault(number, []).append((name, digest))
        width = len(RUN_COLUMNS)
        return [
            (read_run(row[:width], tuple(bundles.get(row[0], ()))), read_state(row[width:])) for row in rows
        ]

    def _parts(self, kind: Any, table: str, key: str, chosen: str) -> dict[int, list[Any]]:
        columns = ", ".join(kind._fields)
        found: dict[int, list[object]] = {}
        rows = self.all(f"SELECT {columns} FROM {table} WHERE run IN ({chosen}) ORDER BY run, {key}")  # noqa: S608
        for row in map(kind._make, rows):
            found.setdefault(row.run, []).append(row)
        return found

    def _merged(self, steps: list[StepRow], successes: Sequence[SuccessesRow] | None) -> tuple[StepRow, ...]:
        """Return the rows of all units of a run, by unit; where there are two, that of the table `step` is newer."""
        if not successes:
            return tuple(steps)
        found: dict[int, StepRow] = {}
        for row in successes:
            try:
                found.update((step.unit, step) for step in row.steps())
            except (ValueError, TypeError) as error:
                raise JournalError(
                    f"the journal {self._path} is damaged: the tasks of run {row.run} that succeeded from "
                    f"{row.first} on cannot be read ({error})"
                ) from None
        found.update((step.unit, step) for step in steps)
        return tuple(step for _, step in sorted(found.items()))

    def definition(self, digest: str) -> str:
        """Read the text of a definition. Raises `LookupError`."""
        for (text,) in self.all("SELECT text FROM definition WHERE digest = ?", digest):
            return str(text)
        raise LookupError(f"the journal has no definition {digest}")

    def bundle(self, digest: str) -> bytes | None:
        """Read the code of a version; None where it is the host's own. Raises `LookupError`."""
        for (content,) in self.all("SELECT content FROM bundle WHERE digest = ?", digest):
            return None if content is None else bytes(content)
        raise LookupError(f"the journal has no code {digest}")

    def value(self, row: StepRow) -> tuple[int, bytes]:
        """Return the (form, bytes) of a value. Raises `LookupError`, `OSError`."""
        return self._values.read(row)

    def log(self, run: int, first: int = 1) -> list[LogRow]:
        """Read the lines of a run, from the chunk that holds line `first` on."""
        rows = self.all("SELECT * FROM log WHERE run = ? AND first + lines > ? ORDER BY first", run, first)
        return [LogRow(*row) for row in rows]

    def find_key(self, job: str, user: str, key: str) -> int | None:
        """Return the run that was started with a key."""
        rows = self.all("SELECT id FROM run WHERE job = ? AND user = ? AND key = ?", job, user, key)
        return rows[0][0] if rows else None

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def forget(self) -> None:
        """In a forked child: never touch the connection again, not even to close it."""
        _leak(self._connection)
        self._connection = None


class SqliteJournal(ForkGuard):
    """A journal in the SQLite file at `path`, which is made where there is none; for `Server(journal=...)`.

    `sync`: "full" has every commit wait until it is on disk; with "normal" a power cut, but no crash of the program,
    may take back the last ones. `keep`: how many ended runs are kept, and for how many seconds. Beside the file lie
    those of SQLite (`-wal`, `-shm`), the lock (`.lock`) and a folder of large values (`.values`).
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sync: str = "full", keep: tuple[int, float] = KEEP
    ) -> None:
        if sync not in SYNC:
            raise ArgumentError(f'sync is "full" or "normal", not {sync!r}')
        check_count(keep[0], "keep: the count of ended runs", least=0)
        check_seconds(keep[1], "keep: their age", endless=True)
        self._path = path
        self._sync = sync
        self._keep = keep
        self._lock: JournalLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._writer: JournalWriter | None = None
        self._reader: JournalReader | None = None

    def __repr__(self) -> str:
        return f"<SqliteJournal {str(self._path)!r}, {'closed' if self._writer is None else 'open'}>"

    def open(self, host: JournalHost) -> JournalState:
        """Take the journal for this process, bring its schema up to date, and return what it holds.

        Raises `JournalBusyError` where another Server holds it, `JournalError` where it cannot be used: it is damaged,
        newer, another's, on a network file system, or others may write it. Nothing is written to it then.
        """
        if self._lock is not None:
            raise JournalError(
                f"the journal {self._path} is open already; a second Server needs a second one"
            )
        files = JournalFiles.at(self._path)
        refuse_unsafe_folder(files.database.parent)
        self._lock = JournalLock(files)
        try:
            make_files(files)
            self._connection = connect(files.database, sync=self._sync)
            self._reader = JournalReader(files)
            state = self._reader.state()
            self._writer = JournalWriter(self._connection, ValueFiles(files.values), host, self._keep)
        except BaseException:
            self._let_go()
            raise
        self._bind()
        return state

    def write(self, rows: Sequence[Row], committed: Callable[[], object] | None = None) -> None:
        """Add one transaction; see `scattersphere.abc.Journal`."""
        if self._writer is not None:  # else it is as if the process had ended before
            self._writer.write(rows, committed)

    @property
    def backlog(self) -> tuple[int, int]:
        """How many (rows, bytes) are written and not committed yet."""
        return (0, 0) if self._writer is None else self._writer.backlog

    def read_runs(self, ids: Iterable[int]) -> list[StoredRun]:
        """Read runs, in the order of `ids`; those that are not there are left out."""
        return self._reading().runs(ids)

    def read_definition(self, digest: str) -> str:
        """Read the text of a definition. Raises `LookupError`."""
        return self._reading().definition(digest)

    def read_bundle(self, digest: str) -> bytes | None:
        """Read the code of a version; None where it is the host's own. Raises `LookupError`."""
        return self._reading().bundle(digest)

    def read_value(self, row: StepRow) -> tuple[int, bytes]:
        """Return the (form, bytes) of a value. Raises `LookupError`, `OSError`."""
        return self._reading().value(row)

    def read_log(self, run: int, first: int = 1) -> list[LogRow]:
        """Read the lines of a run, from the chunk that holds line `first` on."""
        return self._reading().log(run, first)

    def find_key(self, job: str, user: str, key: str) -> int | None:
        """Return the run that was started with a key."""
        return self._reading().find_key(job, user, key)

    def read_children(self, runs: Iterable[int]) -> list[RunRow]:
        """Return the runs whose parents are these, by number."""
        return self._reading().children(runs)

    def find_runs(
        self,
        *,
        job: str | None = None,
        states: Sequence[int] | None = None,
        since: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredRun]:
        """Find runs, newest first, without their steps."""
        return self._reading().find_runs(job=job, states=states, since=since, before=before, limit=limit)

    def close(self) -> None:
        """Commit what is written, and let go of the journal. May be repeated.

        Raises `JournalError` where something could not be committed: after the next opening it has not happened.
        """
        if self._lock is None:
            return
        writer, self._writer = self._writer, None
        left = 0 if writer is None else writer.close()
        self._let_go()
        if left:
            raise JournalError(f"the journal {self._path} was closed before {left} rows could be committed")

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # what is in the log is read at the next opening
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _reading(self) -> JournalReader:
        if self._reader is None:
            raise JournalError(f"the journal {self._path} is not open")
        return self._reader

    def after_fork_in_child(self) -> None:
        """Forget the connection and close the descriptor of the lock: the journal stays the parent's."""
        if self._reader is not None:
            self._reader.forget()
        _leak(self._connection)
        self._connection = self._reader = self._writer = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _let_go_in_child(self) -> None:
        self.after_fork_in_child()


def _leak(connection: sqlite3.Connection | None) -> None:
    """Keep a connection for as long as the process lives.

    In a forked child, closing it, or only collecting it as garbage, would execute SQLite's code on locks that the
    child does not have and mutexes that may be held for ever.
    """
    if connection is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

"""Opening the SQLite database: its pragmas, its version, and migrations of an older schema."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
import time
import uuid
from importlib.resources import files as package_files
from typing import TYPE_CHECKING

from scattersphere.errors import JournalError
from scattersphere.journal.files import ValueFiles, sync_folder
from scattersphere.journal.place import JournalFiles, free_place, may_write, remove

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x53435453
"""Marks a SQLite file as a journal of ours: SCTS."""
OLDEST_SQLITE = (3, 38)
"""The first with STRICT tables and the operators that look into JSON."""
BUSY_SECONDS = 5.0
"""How long a statement waits for the lock of another connection: only people's own programs take one."""
RESTORED = "restored"
"""The version of a life that nobody has lived: `journal restore` has left numbers out up to it."""
_PART = ".part"
_LOOKS = 1_000
"""Steps of SQLite's machine between two looks at the clock."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE IF NOT EXISTS successes(
      run INTEGER NOT NULL, first INTEGER NOT NULL, number INTEGER NOT NULL, since INTEGER NOT NULL,
      tasks TEXT NOT NULL, PRIMARY KEY(run, first)) STRICT, WITHOUT ROWID;
    INSERT OR IGNORE INTO bundle(digest, bytes) VALUES('', 0);
    """,
)
"""What brings the tables to the next version, from version 1 on. Forward only; never edited.

Each change of a table in `schema.sql` is one of these. Views and indexes are made anew, as `schema.sql` has them.
"""


def schema_version() -> int:
    """Return the version that this program writes."""
    return 1 + len(MIGRATIONS)


def connect(path: Path, *, sync: str = "full") -> sqlite3.Connection:
    """Open the database for writing, made or brought up to date.

    Raises `JournalError`; what is wrong is not touched.
    """
    refuse_old_sqlite()
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        version = _look(connection, path)
        if version == schema_version():
            _refuse_other_tables(connection, path)
        elif version == 0:  # before journal_mode: after it it is silently off
            connection.execute("PRAGMA auto_vacuum = incremental")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute(f"PRAGMA synchronous = {sync}")
        connection.execute("PRAGMA foreign_keys = on")
        connection.execute("PRAGMA trusted_schema = off")
        if version == 0:
            _create(connection)
        elif version < schema_version():
            _migrate(connection, path, version)
    except sqlite3.Error as error:
        connection.close()
        raise JournalError(words_of(error, path)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(
    path: Path, *, seconds: float | None = None, any_version: bool = False
) -> sqlite3.Connection:
    """Open the database for reading, beside its owner. Raises `JournalError`.

    `seconds`: a statement that takes longer is ended with `sqlite3.OperationalError`, since a long look keeps the
    owner's log from being taken up. `any_version`: also one with an older schema, to copy it as it is.
    """
    refuse_old_sqlite()
    if not path.is_file():
        raise JournalError(f"there is no journal {path}")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            _read_only(path),
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
        )
        version = _look(connection, path)
        if version == schema_version():
            _refuse_other_tables(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise JournalError(words_of(error, path)) from None
        raise
    if version == 0:
        connection.close()
        raise JournalError(f"{path} is empty: no Server has opened it yet")
    if version < schema_version() and not any_version:
        connection.close()
        raise JournalError(
            f"{path} was written by an older Scattersphere (schema {version}, this one reads {schema_version()}): "
            "a Server that opens it brings it up to date; look at it with the older one until then"
        )
    if seconds is not None:
        _limit(connection, seconds)
    return connection


def _read_only(path: Path) -> str:
    """Return what opens a database for reading.

    Where no file can be made beside it (a backup on a disk that is mounted read-only) it is read as one that nobody
    changes, if nothing of it is in SQLite's log: a Server that has it open has such a log.
    """
    is_still = not may_write(path.parent) and not any(map(os.path.lexists, JournalFiles(path).sqlite_files))
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_still else ''}"


def _limit(connection: sqlite3.Connection, seconds: float) -> None:
    """End each statement that takes longer than `seconds`."""
    started = time.monotonic()

    def start(_: str) -> None:
        nonlocal started
        started = time.monotonic()

    connection.set_trace_callback(start)
    connection.set_progress_handler(lambda: time.monotonic() - started > seconds, _LOOKS)


def refuse_old_sqlite() -> None:
    """Raise `JournalError` where Python was built with a SQLite that lacks STRICT tables."""
    if sqlite3.sqlite_version_info[:2] < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise JournalError(f"a journal needs SQLite {wanted}; this Python has {sqlite3.sqlite_version}")


def _look(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema's version, 0 of a new file. Raises `JournalError` for what is no journal of ours, or newer."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if (
        version == 0
        and owner == 0
        and not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    ):
        return 0
    if owner != APPLICATION_ID:
        raise JournalError(f"{path} is a database of another program, and no journal")
    if version > schema_version():
        raise JournalError(
            f"{path} was written by a newer Scattersphere (schema {version}, this one knows {schema_version()}): "
            "install that one, or restore the copy that it made before it went on"
        )
    return int(version)


def schema_text() -> str:
    """Return the statements of the newest schema."""
    return (package_files("scattersphere.journal") / "schema.sql").read_text(encoding="utf-8")


def _create(connection: sqlite3.Connection) -> None:
    identity = uuid.uuid4().hex
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{schema_text()}\n"
        f"INSERT INTO meta(name, value) VALUES('journal', '{identity}'), ('next_run', 1), ('wall', 0);\n"
        f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {schema_version()};\nCOMMIT;"
    )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Bring an older schema up to date in one transaction, after a copy of the journal as it was."""
    begun = JournalFiles(path.with_name(f"{path.name}.schema{version}{_PART}"))
    try:
        remove(begun)  # of an attempt that failed: the journal itself is still old, and is copied again
        _copy_all(connection, JournalFiles(path), begun)
        _bring_up(connection, version)
        _refuse_other_tables(connection, path)
        copy = free_place(path.with_name(f"{path.name}.schema{version}"))
        _move(begun, copy)
    except OSError as error:
        raise JournalError(_no_copy(path, version, begun, words_of_failure(error))) from None
    try:
        connection.execute("COMMIT")  # else the journal stays as it was
    except sqlite3.Error:
        with contextlib.suppress(OSError):
            _move(copy, begun)  # else each attempt that fails would leave one more
        raise


def _copy_all(connection: sqlite3.Connection, files: JournalFiles, copy: JournalFiles) -> None:
    """Make a copy of a journal that nobody writes. Raises `OSError`."""
    values, copied = ValueFiles(files.values), ValueFiles(copy.values)
    copy.values.mkdir(0o700)
    for (name,) in connection.execute("SELECT DISTINCT value FROM step WHERE form = 4").fetchall():
        with contextlib.suppress(FileNotFoundError):  # `journal check` tells of it
            values.link(name.decode("ascii", "replace"), copied)
    try:
        copy_database(connection, copy.database)
    except sqlite3.OperationalError as error:  # the disk is full, or fails
        raise OSError(str(error)) from None
    sync_folder(copy.values)


def _move(files: JournalFiles, place: JournalFiles) -> None:
    files.values.rename(place.values)
    files.database.rename(place.database)
    sync_folder(place.database.parent)


def _no_copy(path: Path, version: int, copy: JournalFiles, words: str) -> str:
    return (
        f"{path} was written by an older Scattersphere (schema {version}), and the copy {copy.database} that is made "
        f"before it is brought up to date could not be written: {words}. The journal was not changed. Make room, or "
        f"let its owner write in {path.parent}, and start again"
    )


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    """Begin a transaction, and change the schema in it."""
    steps = [*MIGRATIONS[version - 1 :]]
    for kind, name, text in _views_and_indexes(schema_text()):
        steps.append(f"DROP {kind} IF EXISTS {name};\n{text};")
    script = "\n".join(steps)
    connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {schema_version()};")


@functools.cache
def _views_and_indexes(schema: str) -> tuple[tuple[str, str, str], ...]:
    """Return the (kind, name, statement) of all that holds no rows of its own."""
    with _made(schema) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'view') AND sql IS NOT NULL "
            "ORDER BY rowid"
        )
        return tuple(rows)


@functools.cache
def _tables(schema: str) -> dict[str, frozenset[str]]:
    """Return the columns of each table."""
    with _made(schema) as connection:
        return _tables_of(connection)


def _made(schema: str) -> contextlib.closing[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema)
    return contextlib.closing(connection)


def _tables_of(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_xinfo(t.name) AS c "
        "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ):
        found.setdefault(table, set()).add(column)
    return {table: frozenset(columns) for table, columns in found.items()}


def _refuse_other_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalError` where the tables are not those of the version that the file says it has.

    Another program has added some, or it was made by a program between two versions: rows would be lost in it, or
    none could be committed. Views and indexes of others do no harm.
    """
    wanted, found = _tables(schema_text()), _tables_of(connection)
    wrong = [f"it lacks the table {table}" for table in sorted(wanted.keys() - found.keys())]
    wrong += [f"it has an unknown table {table}" for table in sorted(found.keys() - wanted.keys())]
    for table in sorted(wanted.keys() & found.keys()):
        wrong += [f"{table} lacks the column {name}" for name in sorted(wanted[table] - found[table])]
        wrong += [f"{table} has an unknown column {name}" for name in sorted(found[table] - wanted[table])]
    triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name")
    wrong += [f"it has a trigger {name}" for (name,) in triggers]
    if wrong:
        raise JournalError(
            f"{path} does not have the tables of schema {schema_version()}: {'; '.join(wrong)}. It was not changed. "
            "Tables of your own belong into another file; else it was made by a Scattersphere between two releases: "
            "use that one, or restore a backup"
        )


def copy_database(connection: sqlite3.Connection, target: Path) -> None:
    """Write a copy of the database, as it stands now, to a file that does not exist; only the owner may read it."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM INTO takes an empty file
    connection.execute("VACUUM INTO ?", (str(target),))
    with target.open("rb") as file:  # no connection has it open
        os.fsync(file.fileno())


def damage_of(path: Path) -> list[str]:
    """Return what SQLite says of a file that is damaged such that nothing can be read; nothing of one that is whole."""
    try:
        with contextlib.closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
            rows = connection.execute(f"PRAGMA integrity_check({_DAMAGE})")
            return [words for (words,) in rows if words != "ok"]
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        return [str(error)] if isinstance(code, int) and code & 0xFF in _CURES else []


_DAMAGE = 20
"""Places that are told of a file that is damaged as a whole."""
_CURES = {
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_NOTADB: "it is no database, or its beginning is damaged",
}
_ROOM = 64 << 10
"""Bytes that are free on a disk that is not full: SQLite's index of its log has 32 KiB."""
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def words_of(error: sqlite3.Error, path: Path) -> str:
    """Say what is wrong with the journal, and what to do."""
    known = getattr(error, "sqlite_errorcode", None)
    code = known & 0xFF if isinstance(known, int) else None
    if code == sqlite3.SQLITE_INTERRUPT:
        return (
            f"looking into the journal {path} took too long, and would have held up its server: ask for less, "
            "or ask a backup"
        )
    if code == sqlite3.SQLITE_IOERR and _is_full(path.parent):
        return f"the journal {path} cannot be opened: the disk is full, and SQLite needs some room beside it"
    cure = None if code is None else _CURES.get(code)
    if cure is None:
        words = f"the journal {path} cannot be opened: {error}"
        if code not in _UNWRITABLE or may_write(path.parent):
            return words
        return (
            f"{words}. A Server has it open, or was killed, and this program may not write in {path.parent}, where "
            "SQLite needs files to read what is in its log: copy the journal with its -wal to a folder of yours"
        )
    return (
        f"the journal {path} cannot be used: {cure} ({error}). It was not changed. "
        f"`scattersphere journal check {path}` says what is lost; "
        f"`scattersphere journal restore BACKUP {path}` puts a backup in its place"
    )


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:  # the folder is gone
        return False


def words_of_failure(error: Exception) -> str:
    """Say an error of the system without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)

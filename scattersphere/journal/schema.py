"""Opening the database: what it is, how it is set, and bringing an older schema up to date."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from importlib.resources import files as package_files
from typing import TYPE_CHECKING

from scattersphere.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x53435453
"""Marks a SQLite file as a journal of ours: SCTS."""
OLDEST_SQLITE = (3, 38)
"""The first with STRICT tables and the operators that look into JSON."""
BUSY_SECONDS = 5.0
"""How long a statement waits for the lock of another connection: only people's own programs take one."""
_LOOKS = 1_000
"""Steps of SQLite's machine between two looks at the clock."""

MIGRATIONS: tuple[str, ...] = ()
"""Statements that bring a schema to the next version, from version 1 on. Forward only; never edited."""


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
        connection.execute(
            "PRAGMA auto_vacuum = incremental"
        )  # before journal_mode: after it it is silently off
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


def connect_reader(path: Path, *, seconds: float | None = None) -> sqlite3.Connection:
    """Open the database for reading, beside its owner. Raises `JournalError`.

    `seconds`: a statement that takes longer is ended with `sqlite3.OperationalError`, since a long look keeps the
    owner's log from being taken up.
    """
    refuse_old_sqlite()
    if not path.is_file():
        raise JournalError(f"there is no journal {path}")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
        )
        version = _look(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise JournalError(words_of(error, path)) from None
        raise
    if version == 0:
        connection.close()
        raise JournalError(f"{path} is empty: no Server has opened it yet")
    if seconds is not None:
        _limit(connection, seconds)
    return connection


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


def _create(connection: sqlite3.Connection) -> None:
    text = (package_files("scattersphere.journal") / "schema.sql").read_text(encoding="utf-8")
    identity = uuid.uuid4().hex
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{text}\n"
        f"INSERT INTO meta(name, value) VALUES('journal', '{identity}'), ('next_run', 1), ('wall', 0);\n"
        f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = 1;\nCOMMIT;"
    )
    if MIGRATIONS:
        _bring_up(connection, 1)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Bring an older schema up to date in one transaction, after a copy of the file as it was."""
    copy = path.with_name(f"{path.name}.schema{version}")
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()  # of an attempt that was killed: the file itself is still old, and is copied again
    copy_database(connection, copy)
    _bring_up(connection, version)


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    steps = "\n".join(MIGRATIONS[version - 1 :])
    connection.executescript(f"BEGIN IMMEDIATE;\n{steps}\nPRAGMA user_version = {schema_version()};\nCOMMIT;")


def copy_database(connection: sqlite3.Connection, target: Path) -> None:
    """Write a copy of the database, as it stands now, to a file that does not exist; only the owner may read it."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM INTO takes an empty file
    connection.execute("VACUUM INTO ?", (str(target),))
    with target.open("rb") as file:  # no connection has it open
        os.fsync(file.fileno())


_CURES = {
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_NOTADB: "it is no database, or its beginning is damaged",
}


def words_of(error: sqlite3.Error, path: Path) -> str:
    """Say what is wrong with the journal, and what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return (
            f"looking into the journal {path} took too long, and would have held up its server: ask for less, "
            "or ask a backup"
        )
    cure = _CURES.get(code & 0xFF) if isinstance(code, int) else None
    if cure is None:
        return f"the journal {path} cannot be opened: {error}"
    return (
        f"the journal {path} cannot be used: {cure} ({error}). It was not changed. "
        f"`scattersphere journal check {path}` says what is lost; "
        f"`scattersphere journal restore BACKUP {path}` puts a backup in its place"
    )

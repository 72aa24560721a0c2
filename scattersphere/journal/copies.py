"""Backup, restore, prune by hand and export of a journal, beside its Server or without one."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from typing import TYPE_CHECKING

from scattersphere.errors import ArgumentError, JournalError
from scattersphere.journal.files import ValueFiles, copy_file, sync_folder
from scattersphere.journal.place import (
    JournalFiles,
    JournalLock,
    free_place,
    refuse_foreign_files,
    refuse_unsafe_folder,
    remove,
)
from scattersphere.journal.prune import prune as prune_pieces
from scattersphere.journal.schema import (
    RESTORED,
    connect,
    connect_reader,
    copy_database,
    words_of,
    words_of_failure,
)
from scattersphere.journal.sqlite import JournalReader
from scattersphere.journal.views import RunViews

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from pathlib import Path


_ATTEMPTS = 3
"""Times that a backup is begun anew because a Server has given up a value meanwhile."""
_AT_ONCE = 50
RUNS_LEFT_OUT, LIVES_LEFT_OUT = 1_000_000, 1_000
"""Numbers that a restore leaves out where the journal that it replaces is gone and the clock says nothing better."""


def backup(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a copy of a journal, as it stands at one instant, to a place where nothing is yet; also beside its Server.

    The copy is a journal itself. Raises `JournalError`.
    """
    files, copy = JournalFiles.at(path), JournalFiles.at(target)
    for place in (copy.database, copy.values):
        if place.exists():
            raise JournalError(f"{place} is there already; a backup overwrites nothing")
    for _ in range(_ATTEMPTS):
        try:
            if _copied(files, copy):
                return
        except (sqlite3.Error, OSError, JournalError) as error:
            remove(copy)
            raise JournalError(f"the backup failed: {words_of_failure(error)}") from None
        remove(copy)
    raise JournalError("large values were given up while they were copied, three times; try again")


def _copied(files: JournalFiles, copy: JournalFiles) -> bool:
    """Copy; False where a file of a value that the copy names was given up before it could be copied."""
    copy.values.mkdir(0o700)
    values, copied = ValueFiles(files.values), ValueFiles(copy.values)
    for name in values.names() if files.values.exists() else ():  # first: what is given up from now on is had
        _copy_value(values, copied, name)
    with contextlib.closing(connect_reader(files.database, any_version=True)) as connection:
        copy_database(connection, copy.database)
    with contextlib.closing(connect_reader(copy.database, any_version=True)) as connection:
        rows = connection.execute("SELECT DISTINCT value FROM step WHERE form = 4").fetchall()
    named = {name.decode("ascii", "replace") for (name,) in rows}
    for name in named - copied.names():
        _copy_value(values, copied, name)
    for name in copied.names() - named:
        (copy.values / name).unlink()
    for unused in copy.sqlite_files:
        unused.unlink(missing_ok=True)
    sync_folder(copy.values)
    sync_folder(copy.database.parent)
    return named <= copied.names()


def _copy_value(values: ValueFiles, copied: ValueFiles, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        copy_file(values.folder / name, copied.folder / name)


def restore(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path | None:
    """Put a backup in the place of a journal that no Server holds; return where the old one is now, if there was one.

    Raises `JournalBusyError`, `JournalError`; the journal is as it was then.
    """
    old, files = JournalFiles.at(source), JournalFiles.at(path)
    if old.database == files.database:
        raise ArgumentError("a backup is restored to another place than its own")
    _refuse_damaged(old.database)
    refuse_unsafe_folder(files.database.parent)
    lock = JournalLock(files)
    try:
        fresh = JournalFiles(files.database.with_name(f"{files.database.name}.restored"))
        remove(fresh)
        backup(old.database, fresh.database)
        _go_past(fresh.database, _counters(files.database))
        return _put_in_place(fresh, files)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the backup could not be put in its place: {words_of_failure(error)}") from None
    finally:
        lock.close()


def _refuse_damaged(path: Path) -> None:
    with contextlib.closing(connect_reader(path, any_version=True)) as connection:
        try:
            ((words,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.Error as error:
            raise JournalError(words_of(error, path)) from None
    if words != "ok":
        raise JournalError(f"the backup {path} is damaged itself: {words}")


def _counters(path: Path) -> tuple[str, int, int] | None:
    """Return the id of a journal, the first number of a run that it has not reserved, and its newest life."""
    try:
        with contextlib.closing(connect_reader(path, any_version=True)) as connection:
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            ((life,),) = connection.execute("SELECT ifnull(max(number), 0) FROM life")
            return meta["journal"], meta["next_run"], life
    except (sqlite3.Error, JournalError, LookupError):
        return None  # it is gone, or damaged


def _go_past(path: Path, replaced: tuple[str, int, int] | None) -> None:
    """Let no number of a run, and of a life, come again that was given since the backup was made.

    Idempotency keys and ids of events are made of them: one payment would be taken for another. Where the journal
    that is replaced cannot say how far it had come, numbers go on from the microseconds since 1970: of two restores
    of one backup the second one begins above all that was given after the first, since nobody gives a million a second.
    """
    known = _counters(path)
    if known is None:
        raise JournalError(f"the backup {path} cannot be read")
    journal, next_run, life = known
    now = int(time.time() * 1e6)
    if replaced is not None and replaced[0] == journal:
        next_run, newest = max(next_run, replaced[1]), max(life, replaced[2])
    else:
        next_run, newest = max(next_run + RUNS_LEFT_OUT, now), max(life + LIVES_LEFT_OUT, now)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'next_run'", (next_run,))
        if newest > life:
            connection.execute(
                "INSERT INTO life(number, opened, pid, version, suspended) VALUES(?, ?, 0, ?, ?)",
                (newest, now, RESTORED, now),
            )
        connection.execute("COMMIT")


def _put_in_place(fresh: JournalFiles, files: JournalFiles) -> Path | None:
    """Move the old journal aside, with the log that belongs to it, and the new one in its place."""
    replaced = None
    if files.database.exists() or files.values.exists():
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = free_place(files.database.with_name(f"{files.database.name}.replaced-{stamp}"))
        replaced = aside.database
        pairs = zip(files.all, aside.all, strict=True)
        for place, other in pairs:
            if place.exists():
                place.rename(other)
    fresh.values.rename(files.values)
    fresh.database.rename(files.database)
    sync_folder(files.database.parent)
    return replaced


def prune(path: str | os.PathLike[str], *, count: int, seconds: float = math.inf) -> int:
    """Give up ended runs beyond the newest `count`, and those older than `seconds`; return how many those were.

    Only while no Server holds the journal, which does it by itself. Raises `JournalBusyError`, `JournalError`.
    """
    files = JournalFiles.at(path)
    if not files.database.is_file():
        raise JournalError(f"there is no journal {files.database}")
    refuse_unsafe_folder(files.database.parent)
    lock = JournalLock(files)
    try:
        refuse_foreign_files(files)
        with contextlib.closing(connect(files.database)) as connection:
            before = _count(connection)
            oldest = -1 if seconds == math.inf else int((time.time() - seconds) * 1e6)
            values = ValueFiles(files.values)
            for _ in prune_pieces(connection, values, count=count, before=oldest, spared=()):
                pass
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return before - _count(connection)
    except sqlite3.Error as error:
        raise JournalError(words_of(error, files.database)) from None
    finally:
        lock.close()


def _count(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT count(*) FROM run").fetchone()
    return int(number)


# ---- export


def export(path: str | os.PathLike[str], ids: Iterable[int] | None = None) -> Iterator[dict[str, object]]:
    """Yield each run with all that is known of it, as JSON data, by number. Raises `JournalError`.

    Values in JSON and tagged JSON are data; of pickles only the size is told, since reading one executes code.
    """
    reader = JournalReader(JournalFiles.at(path))
    try:
        views = RunViews(reader)
        if ids is None:
            ids = [number for (number,) in reader.all("SELECT id FROM run ORDER BY id")]
        wanted = [*ids]
        for start in range(0, len(wanted), _AT_ONCE):
            for stored in reader.runs(wanted[start : start + _AT_ONCE]):
                yield views.whole(stored, everything=True)
    finally:
        reader.close()

"""A journal that this program may read and not write: looked at where that is possible, never opened, in words."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from contextlib import closing, contextmanager

import anyio
import pytest
from journalrows import Loop

from scattersphere import Server, task
from scattersphere.errors import JournalError
from scattersphere.journal import SqliteJournal
from scattersphere.journal.check import check
from scattersphere.journal.copies import backup, export, prune
from scattersphere.journal.place import JournalFiles
from scattersphere.journal.sqlite import JournalReader

CAPABILITIES = 0x20080522
"""The version of what `capset` takes: two words for each of three sets."""
needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0 and sys.platform != "linux", reason="no permission keeps root out"
)


@task
async def greet(name: str) -> str:
    return f"hello {name}"


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "live" / "runs.db"
    path.parent.mkdir(0o700)

    async def live():
        async with Server(journal=path) as server:
            server.register_tasks("app", [greet])
            await server.run_task("greet", {"name": "Ada"})

    anyio.run(live)
    return path


def attempts(path):
    """Return what each look at a journal says, and each attempt to have it."""

    def reader():
        with closing(JournalReader(JournalFiles.at(path))) as reader:
            return [found.run.id for found in reader.runs([1, 2])]

    def opened():
        SqliteJournal(path).open(Loop())

    said = {}
    for name, attempt in {
        "reader": reader,
        "check": lambda: [*map(str, check(path))],
        "backup": lambda: backup(path, path.parent.parent / "backup.db"),
        "export": lambda: [run["run"] for run in export(path)],
        "open": opened,
        "prune": lambda: prune(path, count=0),
    }.items():
        try:
            said[name] = attempt()
        except (JournalError, PermissionError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def without_privileges(path):
    """Return what `attempts` says to a program whom permissions keep out, though its user be root."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                header, none = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
                assert ctypes.CDLL(None).capset(header, none) == 0
            os.write(writing, json.dumps(attempts(path)).encode())
        except BaseException:  # noqa: BLE001 - said where it is read
            os.write(writing, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert isinstance(said, dict), said
    return said


@contextmanager
def permissions(folder, mode):
    """Let a folder have them for a while."""
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(0o700)


@needs_permissions
def test_in_a_folder_that_cannot_be_written_a_whole_journal_is_looked_at_and_no_server_opens_it(journal):
    before = journal.read_bytes()
    with permissions(journal.parent, 0o500):
        said = without_privileges(journal)
    assert (said["reader"], said["check"], said["export"]) == ([1], [], [1])
    assert (journal.parent.parent / "backup.db").read_bytes()[:15] == b"SQLite format 3"
    for name in ("open", "prune"):
        assert said[name].startswith("JournalError: no journal can be kept in"), said
        assert "may not write there" in said[name]
    assert journal.read_bytes() == before
    assert {entry.name for entry in journal.parent.iterdir()} == {"runs.db", "runs.db.lock", "runs.db.values"}


@needs_permissions
def test_what_is_in_sqlite_s_log_is_never_left_out_where_it_cannot_be_read(journal):
    """Else a run that has ended would be looked at as if it had not."""
    journal.with_name("runs.db-wal").write_bytes(b"of a Server that was killed")
    with permissions(journal.parent, 0o500):
        said = without_privileges(journal)
    for name in ("reader", "check", "backup", "export"):
        assert "copy the journal with its -wal to a folder of yours" in said[name], said
    assert not (journal.parent.parent / "backup.db").exists()


@pytest.mark.parametrize("which", ["runs.db", "runs.db-shm", "runs.db-wal", "runs.db.values"])
def test_a_file_that_its_owner_may_not_write_is_refused_before_anything_waits_for_a_commit(journal, which):
    place = journal.with_name(which)
    if not place.exists():
        place.touch()
    mode = 700 if place.is_dir() else 600
    place.chmod(0o500 if place.is_dir() else 0o400)
    before = journal.read_bytes()
    for attempt in (lambda: SqliteJournal(journal).open(Loop()), lambda: prune(journal, count=0)):
        with pytest.raises(JournalError, match=f"{which}: its owner may not.*chmod {mode}"):
            attempt()
    assert journal.read_bytes() == before


@needs_permissions
def test_a_folder_without_any_permission_is_said_in_words(journal):
    with permissions(journal.parent, 0):
        said = without_privileges(journal)
    assert "Permission denied" in said["reader"]
    assert said["open"].startswith("JournalError: no journal can be kept in"), said


def test_a_folder_that_is_a_file_is_said_in_words(tmp_path):
    (tmp_path / "file").touch(0o600)
    with pytest.raises(JournalError, match="it is no folder"):
        SqliteJournal(tmp_path / "file" / "runs.db").open(Loop())

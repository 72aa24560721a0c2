"""One owner at a time, by the kernel's lock; and a place that nobody else may write."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from journalrows import SUCCEEDED, Loop, begin, state_row, step_row
from patience import PATIENCE

from scattersphere import Server
from scattersphere.abc.journal import SuccessesRow
from scattersphere.errors import ForkedError, JournalBusyError, JournalError
from scattersphere.journal import SqliteJournal, place, schema
from scattersphere.journal.check import check
from scattersphere.journal.copies import backup, restore
from scattersphere.journal.files import LARGEST_IN_ROW
from scattersphere.journal.place import JournalFiles
from scattersphere.journal.sqlite import JournalReader

HOLDER = """
import sys, threading
sys.path.insert(0, sys.argv[2])
from journalrows import Loop, begin
from scattersphere.journal import SqliteJournal
loop, journal = Loop(), SqliteJournal(sys.argv[1])
journal.open(loop)
loop.commit(journal, *begin(1))
print("has", flush=True)
for line in sys.stdin:
    loop.commit(journal, *begin(2))
    print("goes on", flush=True)
"""


@pytest.fixture
def holder(path):
    """A process that holds the journal."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", HOLDER, str(path), here]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(here), *sys.path])}  # noqa: PTH120
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "has\n"
        yield process
        process.send_signal(signal.SIGCONT)
        process.kill()


def listing(folder):
    return {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in folder.iterdir()}


def test_a_second_program_is_refused_and_writes_nothing_even_while_the_first_is_stopped(path, holder):
    for stopped in (False, True):
        if stopped:
            holder.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        before = listing(path.parent)
        with pytest.raises(JournalBusyError, match=f"held by the process {holder.pid}"):
            SqliteJournal(path).open(Loop())
        assert listing(path.parent) == before
    holder.send_signal(signal.SIGCONT)
    holder.stdin.write("go\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "goes on\n"


def test_a_holder_that_was_killed_holds_nothing(path, holder, opened):
    holder.kill()
    holder.wait(PATIENCE)
    _, _, state = opened()
    assert state.unfinished == (1,)


def test_two_servers_of_one_process_need_two_journals(path, opened, tmp_path):
    _, journal, _ = opened()
    with pytest.raises(JournalBusyError, match="another Server of this process"):
        SqliteJournal(path).open(Loop())
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(JournalBusyError):
        SqliteJournal(link).open(Loop())
    with pytest.raises(JournalError, match="open already"):
        journal.open(Loop())


def in_child(function):
    """Fork; return whether `function` returned true in the child."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        with suppress(BaseException):
            if function():
                os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_has_neither_the_lock_nor_the_journal(path, opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    descriptor = journal._lock._file

    def looks():
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)
        with pytest.raises(ForkedError):
            journal.read_runs([1])
        with pytest.raises(ForkedError):
            journal.close()
        return True

    assert in_child(looks)
    loop.commit(journal, *begin(2))  # the parent goes on, and still has the lock
    with pytest.raises(JournalBusyError):
        SqliteJournal(path).open(Loop())


def test_a_forked_child_that_lives_on_does_not_keep_the_lock(path):
    out, into = os.pipe()

    def holds():
        journal = SqliteJournal(path)
        journal.open(Loop())
        forked, tell = os.pipe()
        if os.fork() == 0:  # lives until the test closes the pipe
            os.close(into)
            os.write(tell, b".")  # the fork is over: what it does in the child has been done
            os.read(out, 1)
            os._exit(0)
        os.read(forked, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    in_child(holds)
    journal = SqliteJournal(path)
    journal.open(Loop())  # the grandchild is alive
    journal.close()
    os.close(into)
    os.close(out)


def test_all_files_are_their_owner_s_alone(path, opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes == {
        "runs.db": 0o600,
        "runs.db-wal": 0o600,
        "runs.db-shm": 0o600,
        "runs.db.lock": 0o600,
        "runs.db.values": 0o700,
    }


def others_may_write_the_folder(path):
    path.parent.chmod(0o777)
    return "others than its owner may write it"


def others_may_read_the_file(path):
    path.touch(0o600)
    path.chmod(0o644)
    return "chmod 600"


def it_is_a_folder(path):
    path.mkdir()
    return "not a regular file"


def it_has_two_names(path):
    path.touch(0o600)
    path.with_name("other.db").hardlink_to(path)
    return "second name"


def the_folder_is_not_there(path):
    path.parent.rmdir()
    return "No such file"


def it_is_another_program_s(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(x)")
    path.chmod(0o600)
    return "another program"


def it_is_no_database(path):
    path.write_bytes(b"something else altogether" * 100)
    path.chmod(0o600)
    return "not changed.*journal check.*restore"


def it_is_newer(path):
    journal = SqliteJournal(path)
    journal.open(Loop())
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    return "newer Scattersphere.*schema 99"


def it_is_damaged(path):
    journal = SqliteJournal(path)
    journal.open(Loop())
    journal.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    return "damaged.*not changed"


def it_is_changed(path, *statements):
    journal = SqliteJournal(path)
    journal.open(Loop())
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def it_lacks_a_table(path):
    it_is_changed(path, "DROP VIEW tasks", "DROP VIEW steps", "DROP TABLE successes")
    return "lacks the table successes.*not changed.*between two releases"


def it_lacks_a_column(path):
    it_is_changed(path, "DROP VIEW tasks", "DROP VIEW steps", "ALTER TABLE step DROP COLUMN reused")
    return "step lacks the column reused"


def it_has_tables_of_somebody_else(path):
    it_is_changed(path, "CREATE TABLE mine(x)", "ALTER TABLE run ADD COLUMN colour TEXT")
    return "unknown table mine; run has an unknown column colour.*another file"


def it_has_a_trigger(path):
    it_is_changed(path, "CREATE TRIGGER spy AFTER INSERT ON run BEGIN DELETE FROM step; END")
    return "has a trigger spy"


def it_is_older_and_has_tables_of_somebody_else(path):
    it_is_changed(path, "CREATE TABLE mine(x)", "PRAGMA user_version = 1")
    return "unknown table mine"


@pytest.mark.parametrize(
    "spoil",
    [
        others_may_write_the_folder,
        others_may_read_the_file,
        it_is_a_folder,
        it_has_two_names,
        the_folder_is_not_there,
        it_is_another_program_s,
        it_is_no_database,
        it_is_newer,
        it_is_damaged,
        it_lacks_a_table,
        it_lacks_a_column,
        it_has_tables_of_somebody_else,
        it_has_a_trigger,
        it_is_older_and_has_tables_of_somebody_else,
    ],
    ids=lambda function: function.__name__,
)
def test_what_cannot_be_trusted_or_used_is_refused_and_left_as_it_is(path, spoil):
    words = spoil(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):  # nothing of the first attempt stays
        with pytest.raises(JournalError, match=f"(?s){words}"):
            SqliteJournal(path).open(Loop())
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_journal_of_another_user_is_refused_without_a_lock_that_would_keep_its_owner_out(
    path, monkeypatch, opened, tmp_path
):
    _, journal, _ = opened()
    journal.close()
    copy = tmp_path / "copy.db"
    backup(path, copy)
    JournalFiles(path).lock.unlink()
    monkeypatch.setattr(place, "refuse_unsafe_folder", lambda _: None)
    monkeypatch.setattr("scattersphere.journal.sqlite.refuse_unsafe_folder", lambda _: None)
    monkeypatch.setattr("scattersphere.journal.copies.refuse_unsafe_folder", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for attempt in (lambda: SqliteJournal(path).open(Loop()), lambda: restore(copy, path)):
        with pytest.raises(JournalError, match="belongs to the user"):
            attempt()
    assert not JournalFiles(path).lock.exists()


def test_a_network_file_system_is_refused(path, monkeypatch):
    monkeypatch.setattr(place, "file_system", lambda folder: "nfs4")
    with pytest.raises(JournalError, match="network file system"):
        SqliteJournal(path).open(Loop())


def test_the_file_system_is_the_innermost_mount(tmp_path, monkeypatch):
    lines = tmp_path / "mountinfo"
    lines.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 0:5 / {tmp_path}/a\\040b rw shared:1 - nfs4 server:/x rw\n"
        f"3 1 0:6 / {tmp_path}/a\\040bc rw - tmpfs none rw\n"
    )
    real = place.Path
    monkeypatch.setattr(place, "Path", lambda name: lines if str(name).startswith("/proc") else real(name))
    assert place.file_system(tmp_path / "a b" / "c") == "nfs4"
    assert place.file_system(tmp_path / "a b") == "nfs4"
    assert place.file_system(tmp_path) == "ext4"


def test_an_old_sqlite_is_said_so(path, monkeypatch):
    monkeypatch.setattr(schema.sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(JournalError, match=r"needs SQLite 3\.38"):
        SqliteJournal(path).open(Loop())


# ---- schemas of other versions

FIRST = Path(__file__).with_name("schema1.sql")
"""The schema of version 1, as a program wrote it that did not know `successes`."""


def journal_of_version_1(path):
    """Make a journal as that program did, with a run that has not ended, one that has, and a file of a value."""
    loop = Loop()
    journal = SqliteJournal(path)
    journal.open(loop)
    loop.commit(
        journal, *begin(1), step_row(1), *begin(2), state_row(2, SUCCEEDED), step_row(2, value=b"[7]")
    )
    loop.commit(journal, step_row(2, 1, b"1" * (LARGEST_IN_ROW + 1)))
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        rows = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()
            for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if table != "successes"
        }
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA auto_vacuum = incremental")
        connection.execute("PRAGMA journal_mode = wal")
        connection.executescript(FIRST.read_text() + "DELETE FROM bundle;")
        for table, found in rows.items():
            for row in found:
                connection.execute(f"INSERT INTO {table} VALUES({', '.join('?' * len(row))})", row)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    path.chmod(0o600)


def shape(path):
    """Return what a database consists of: tables with their columns, statements of the rest."""
    with closing(sqlite3.connect(path)) as connection:
        rest = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type IN ('index', 'view')"
        ).fetchall()
        columns = connection.execute(
            'SELECT t.name, c.name, c.type, c."notnull", c.pk FROM sqlite_schema AS t, pragma_table_xinfo(t.name) AS c '
            "WHERE t.type = 'table' ORDER BY 1, 2"
        ).fetchall()
        return columns, sorted(rest), connection.execute("PRAGMA user_version").fetchone()


def test_a_journal_of_the_first_schema_is_brought_up_to_date_after_a_copy(path, opened, tmp_path):
    journal_of_version_1(path)
    loop, journal, state = opened()
    assert state.unfinished == (1,)
    (stored,) = journal.read_runs([2])
    assert [journal.read_value(step)[1][:3] for step in stored.steps] == [b"[7]", b"111"]
    loop.commit(journal, SuccessesRow.of(1, 0, [(1, 0.5, 0.7, "3")]))  # what that schema could not hold
    assert [step.unit for step in journal.read_runs([1])[0].steps] == [0, 1]
    journal.close()
    assert {found.words for found in check(path)} == {
        "its definition cannot be read"
    }  # it is none: all else is sound
    copy = path.with_name("runs.db.schema1")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM run").fetchone() == (2,)
    new = tmp_path / "new.db"
    fresh = SqliteJournal(new)
    fresh.open(Loop())
    fresh.close()
    assert shape(path) == shape(new)


def test_an_older_journal_is_not_looked_into_but_backed_up_and_restored(path, opened, tmp_path):
    journal_of_version_1(path)
    with pytest.raises(JournalError, match=r"older Scattersphere \(schema 1, this one reads 2\)"):
        JournalReader(JournalFiles.at(path))
    backup(path, tmp_path / "copy.db")
    restore(tmp_path / "copy.db", path)
    _, _, state = opened()
    assert state.unfinished == (1,)


def contents(path):
    journal = SqliteJournal(path)
    journal.open(Loop())
    try:
        return {
            stored.run.id: [journal.read_value(step)[1] for step in stored.steps]
            for stored in journal.read_runs([1, 2])
        }
    finally:
        journal.close()


@pytest.mark.parametrize("links", [True, False])
def test_the_copy_that_a_migration_makes_can_be_restored_with_its_large_values(path, monkeypatch, links):
    journal_of_version_1(path)
    if not links:

        def refused(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refused)
    before = contents(path)
    assert len(before[2][1]) > LARGEST_IN_ROW
    shutil.rmtree(JournalFiles.at(path).values)
    restore(path.with_name("runs.db.schema1"), path)
    assert contents(path) == before
    assert not [*path.parent.glob("*.part*")]


def test_a_second_migration_of_one_path_keeps_the_copy_of_the_first(path, tmp_path):
    journal_of_version_1(path)
    backup(path, tmp_path / "early.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO life VALUES(77, 1, 1, 'x', 2)")
        connection.commit()
    for _ in range(3):
        contents(path)  # brings it up to date
        restore(tmp_path / "early.db", path)

    def lives(name):
        with closing(sqlite3.connect(path.with_name(name))) as connection:
            return connection.execute("SELECT number FROM life").fetchall()

    assert (77,) in lives("runs.db.schema1")
    assert {place.name for place in path.parent.glob("runs.db.schema1*") if place.is_file()} == {
        "runs.db.schema1",
        "runs.db.schema1-2",
        "runs.db.schema1-3",
    }


def test_a_copy_that_cannot_be_made_is_said_in_words_and_the_journal_is_not_changed(
    path, monkeypatch, opened
):
    journal_of_version_1(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_for_sqlite(*_):
        raise sqlite3.OperationalError("database or disk is full")

    for what, words in ((full, "No space left on device"), (full_for_sqlite, "database or disk is full")):
        with monkeypatch.context() as patch:
            patch.setattr(schema, "copy_database", what)
            with pytest.raises(JournalError, match=f"schema1.*{words}.*was not changed.*Make room"):
                SqliteJournal(path).open(Loop())
    part = path.with_name("runs.db.schema1.part")
    part.mkdir()
    with pytest.raises(JournalError, match=r"schema1\.part: .*was not changed"):
        SqliteJournal(path).open(Loop())
    part.rmdir()
    assert path.read_bytes() == before
    _, _, state = opened()
    assert state.unfinished == (1,)


def test_attempts_of_a_migration_that_cannot_be_committed_leave_one_copy_at_most(path, monkeypatch):
    journal_of_version_1(path)
    with monkeypatch.context() as patch:
        patch.setattr(
            schema,
            "MIGRATIONS",
            (
                *schema.MIGRATIONS,
                "PRAGMA defer_foreign_keys = on; INSERT INTO run_bundle VALUES(1, 'none', 'none');",
            ),
        )
        for _ in range(3):
            with pytest.raises(JournalError, match="FOREIGN KEY"):
                SqliteJournal(path).open(Loop())
    copies = {place.name for place in path.parent.glob("runs.db.schema1*")}
    assert copies == {"runs.db.schema1.part", "runs.db.schema1.part.values"}
    assert [*contents(path)] == [1, 2]
    copies = {place.name for place in path.parent.glob("runs.db.schema1*")}
    assert copies == {"runs.db.schema1", "runs.db.schema1.values"}


@pytest.mark.anyio
async def test_a_server_says_that_the_copy_of_a_migration_cannot_be_made(path):
    journal_of_version_1(path)
    path.with_name("runs.db.schema1.part").mkdir()
    with pytest.raises(JournalError, match="was not changed"):
        async with Server(journal=path):
            pass


def test_a_migration_that_fails_leaves_the_journal_as_it_was(path, monkeypatch, opened):
    journal_of_version_1(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE run ADD COLUMN colour TEXT; nonsense;")
        )
        for _ in range(2):
            with pytest.raises(JournalError, match="nonsense"):
                SqliteJournal(path).open(Loop())
    assert path.read_bytes() == before
    _, _, state = opened()
    assert state.unfinished == (1,)


def test_migrations_come_to_the_newest_schema(path, monkeypatch, opened):
    journal_of_version_1(path)
    text = (
        schema.schema_text().replace("scheduled TEXT,", "scheduled TEXT, colour TEXT,") + "CREATE TABLE t(x);"
    )
    monkeypatch.setattr(schema, "schema_text", lambda: text)
    more = ("ALTER TABLE run ADD COLUMN colour TEXT;", "CREATE TABLE t(x);")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *more))
    opened()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        assert "colour" in [row[1] for row in connection.execute("PRAGMA table_info(run)")]


def test_indexes_and_views_of_others_do_no_harm(path, opened):
    it_is_changed(path, "CREATE INDEX mine ON run(created)", "CREATE VIEW theirs AS SELECT 1", "ANALYZE")
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))

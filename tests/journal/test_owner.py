"""One owner at a time, by the kernel's lock; and a place that nobody else may write."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import pytest
from journalrows import Loop, begin
from patience import PATIENCE

from scattersphere.errors import ForkedError, JournalBusyError, JournalError
from scattersphere.journal import SqliteJournal, place, schema

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


def test_a_journal_of_another_user_is_refused(path, monkeypatch):
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(JournalError, match="belongs to the user"):
        SqliteJournal(path).open(Loop())


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


def old_journal(path):
    journal = SqliteJournal(path)
    loop = Loop()
    journal.open(loop)
    loop.commit(journal, *begin(1))
    journal.close()


def test_an_older_schema_is_brought_up_to_date_after_a_copy(path, monkeypatch, opened):
    old_journal(path)
    monkeypatch.setattr(
        schema, "MIGRATIONS", ("ALTER TABLE run ADD COLUMN colour TEXT;", "CREATE TABLE t(x);")
    )
    _, _, state = opened()
    assert state.unfinished == (1,)
    copy = path.with_name("runs.db.schema1")
    assert copy.stat().st_mode & 0o777 == 0o600
    for file, version in ((path, 3), (copy, 1)):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (version,)
            assert connection.execute("SELECT count(*) FROM run").fetchone() == (1,)
            columns = [row[1] for row in connection.execute("PRAGMA table_info(run)")]
            assert ("colour" in columns) == (version == 3)


def test_a_migration_that_fails_leaves_the_journal_as_it_was(path, monkeypatch, opened):
    old_journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", ("ALTER TABLE run ADD COLUMN colour TEXT;", "nonsense;"))
        for _ in range(2):
            with pytest.raises(JournalError, match="nonsense"):
                SqliteJournal(path).open(Loop())
    _, _, state = opened()
    assert state.unfinished == (1,)
    with closing(sqlite3.connect(path)) as connection:
        assert "colour" not in [row[1] for row in connection.execute("PRAGMA table_info(run)")]


def test_a_new_journal_has_the_newest_schema(path, monkeypatch, opened):
    monkeypatch.setattr(schema, "MIGRATIONS", ("CREATE TABLE t(x);",))
    opened()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert not path.with_name("runs.db.schema1").exists()

"""A disk that is full holds the transactions back, in their order; an error of the disk ends writing for this process."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from journalrows import Loop, begin, state_row, step_row
from patience import PATIENCE

from scattersphere.errors import JournalError
from scattersphere.journal import SqliteJournal, files, schema, writer

HERE = str(Path(__file__).parent)


def environment():
    """So that a child finds what this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(HERE).parent), *sys.path])}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)


def full(journal, path):
    """No more pages than there are."""
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: journal._connection.execute("PRAGMA max_page_count = 1000000")


def read_only(journal, path):
    journal._connection.execute("PRAGMA query_only = on")
    return lambda: journal._connection.execute("PRAGMA query_only = off")


def busy(journal, path):
    """A program of a person's has begun to write, and looks out of the window."""
    journal._connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def mend():
        other.execute("ROLLBACK")
        other.close()

    return mend


@pytest.mark.parametrize("break_", [full, read_only, busy], ids=lambda function: function.__name__)
def test_what_cannot_be_committed_now_is_committed_later_in_its_order(opened, path, break_):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    mend = break_(journal, path)
    told = []
    for unit in range(20):
        journal.write([step_row(1, unit, b"x" * 5_000)], lambda unit=unit: told.append(unit))
    loop.until(lambda: loop.failures)
    assert [lasting for _, lasting in loop.failures] == [False]
    assert (told, loop.mended) == ([], 0)
    assert journal.backlog[0] == 20
    assert journal.read_runs([1])[0].steps == ()  # reading goes on
    mend()
    loop.until(lambda: loop.mended)
    loop.until(lambda: len(told) == 20)
    assert told == [*range(20)]
    assert len(loop.failures) == 1  # said once, not at each attempt
    assert len(journal.read_runs([1])[0].steps) == 20


def test_closing_while_the_disk_is_full_waits_for_nothing(opened, path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    full(journal, path)
    journal.write([step_row(1, 0, b"x" * 50_000)])
    loop.until(lambda: loop.failures)
    with pytest.raises(JournalError, match="closed before 1 rows"):
        journal.close()
    _, journal, state = opened()
    assert state.unfinished == (1,)
    assert journal.read_runs([1])[0].steps == ()


def test_a_disk_without_room_for_sqlite_s_index_is_said_to_be_full(path, monkeypatch):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    usage = shutil.disk_usage(path.parent)
    for free, words in ((4096, "the disk is full"), (1 << 30, "disk I/O error")):
        monkeypatch.setattr(schema.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert words in schema.words_of(error, path)


@pytest.mark.parametrize(
    ("number", "lasting"),
    [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EROFS, False), (errno.EIO, True)],
)
def test_a_file_of_a_value_that_cannot_be_written_is_as_a_row_that_cannot(
    opened, monkeypatch, number, lasting
):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    fsync = os.fsync

    def fail(handle):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(number, os.strerror(number))
        fsync(handle)

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        journal.write([step_row(1, 0, b"x" * (files.LARGEST_IN_ROW + 1))], lambda: told.append(1))
        loop.until(lambda: loop.failures)
    assert loop.failures == [(os.strerror(number), lasting)]
    if lasting:
        with pytest.raises(JournalError):
            journal.close()
        assert not told
    else:
        loop.until(lambda: told)


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from journalrows import Loop, begin, step_row
from scattersphere.errors import JournalError
from scattersphere.journal import SqliteJournal
loop, journal = Loop(), SqliteJournal(sys.argv[1])
journal.open(loop)
loop.commit(journal, *begin(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # of the log: the next pages cannot be written
told = []
for unit in range(50):
    journal.write([step_row(1, unit, b"x" * 60_000)], lambda unit=unit: told.append(unit))
loop.until(lambda: loop.failures)
print(*loop.failures, len(told), flush=True)
try:
    journal.close()
except JournalError as error:
    print(error)
"""


def test_an_io_error_is_lasting_and_what_was_told_before_is_there(path, opened):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), HERE],
        capture_output=True, text=True, env=environment(), timeout=PATIENCE, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert "disk I/O error', True)" in first
    assert "could be committed" in second
    _, journal, _ = opened()
    assert len(journal.read_runs([1])[0].steps) >= int(first.rsplit(" ", 1)[1])


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from journalrows import Loop, begin, step_row
from scattersphere.journal import SqliteJournal
folder = Path(sys.argv[1])
loop, journal = Loop(), SqliteJournal(folder / "runs.db")
journal.open(loop)
loop.commit(journal, *begin(1))
ballast = folder / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError as error:
        print(error.strerror)
told = []
for unit in range(4):
    journal.write([step_row(1, unit, b"x" * 10_000)], lambda unit=unit: told.append(unit))
loop.until(lambda: loop.failures)
print(*loop.failures, told)
ballast.unlink()
loop.until(lambda: len(told) == 4 and loop.mended)
journal.close()
journal.open(loop)
print(told, len(journal.read_runs([1])[0].steps))
journal.close()
"""


def test_a_disk_that_is_really_full(tmp_path):
    """On a file system of 500 KiB that only the child sees, where this machine lets one be mounted."""
    mount = f"mount -t tmpfs -o size=500k,mode=700 tmpfs {shlex.quote(str(tmp_path))}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    program = shlex.join([sys.executable, "-c", FULL, str(tmp_path), HERE])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {program}"],
        capture_output=True, text=True, env=environment(), timeout=PATIENCE, check=True,
    )  # fmt: skip
    first, second, third = done.stdout.splitlines()
    assert "No space" in first
    assert second == "('database or disk is full', False) []"
    assert third == "[0, 1, 2, 3] 4"


def test_a_log_that_is_cut_anywhere_opens_to_a_prefix(path, tmp_path, opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    journal.close()
    database = path.read_bytes()
    loop, journal, _ = opened()
    for unit in range(12):
        loop.commit(journal, step_row(1, unit, b"x" * 600), state_row(1, spent=unit + 1))
    log = path.with_name("runs.db-wal").read_bytes()
    assert path.read_bytes() == database  # nothing was taken up yet: all is in the log
    journal.close()
    frame = 24 + 4096
    cuts = {0, 10, len(log), *range(32, len(log), frame), *range(5_000, len(log), 3 * frame)}
    seen = set()
    for cut in sorted(cuts):
        copy = tmp_path / f"cut{cut}.db"
        copy.touch(0o600)
        copy.write_bytes(database)
        beside = copy.with_name(f"{copy.name}-wal")
        beside.touch(0o600)
        beside.write_bytes(log[:cut])
        again = SqliteJournal(copy)
        again.open(Loop())
        (run,) = again.read_runs([1])
        assert [step.unit for step in run.steps] == [*range(len(run.steps))]
        assert run.state.spent == len(run.steps)
        seen.add(len(run.steps))
        again.close()
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert seen == {*range(13)}


def test_retries_take_their_time(opened, path, monkeypatch):
    """A second between two attempts, by the event that closing sets: nothing spins."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", 3600.0)
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    full(journal, path)
    journal.write([step_row(1, 0, b"x" * 50_000)])
    loop.until(lambda: loop.failures)
    before = time.process_time()
    with pytest.raises(JournalError):
        journal.close()
    assert time.process_time() - before < PATIENCE

"""`journal check` finds nothing in a sound journal, and each fault that is planted in one."""

from __future__ import annotations

import io
import re
import shutil
import sqlite3
import zipfile
from contextlib import closing

import pytest
from journalrows import Loop, life_row, moves_row, run_row, state_row, step_row

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    LogRow,
    MetaRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.errors import JournalError
from scattersphere.journal import SqliteJournal
from scattersphere.journal.check import check
from scattersphere.journal.files import LARGEST_IN_ROW
from scattersphere.registry.snapshots.store import digest_of, digest_of_all

TEXT = """{"name": "pay", "tasks": {
  "draw": {"task": "Draw"},
  "charge": {"task": "Charge", "map": {"n": {"$result": "draw"}}, "retry": {"max_attempts": 2}},
  "total": {"task": "Total", "depends_on": ["charge"]},
  "tidy": {"task": "Tidy", "finally": true}}}"""
DRAW, CHARGE, TOTAL, TIDY, FIRST = 0, 1, 2, 3, 4
RUN, RETRY, OK, FAILED = 1, 3, 4, 5


def move(unit, state):
    return unit << 4 | state


def run_to(state):
    return ~state


def packed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("etl/__init__.py", "x = 1\n")
    return digest_of_all({"etl/__init__.py": digest_of(b"x = 1\n")}), buffer.getvalue()


def sound(loop, journal):
    """An ended run with a map and a retry; one in the middle; one that was recovered and crashed."""
    digest, content = packed()
    rows = [DefinitionRow("d1", "pay", TEXT), BundleRow(digest, content), BundleRow("host", None)]
    loop.commit(journal, MetaRow(1001, 1), life_row(1), *rows)
    first = [
        run_row(1, bundles=(("etl", digest),)),
        state_row(1, 6, widths='{"1": 2}'),
        step_row(1, DRAW, b"[1,2]"),
        step_row(1, CHARGE, None),
        step_row(1, TOTAL, b"x" * (LARGEST_IN_ROW + 1), form=ValueForm.PICKLE),
        step_row(1, TIDY, b"null"),
        step_row(1, FIRST, b"1", task=CHARGE, place=0),
        step_row(1, FIRST + 1, b"2", task=CHARGE, place=1, attempts=2),
        AttemptRow(1, FIRST + 1, 1, FAILED, None, 1),
        LogRow(1, 1, 3, b"x"),
        LogRow(1, 4, 1, b"y"),
    ]
    begun = [run_to(1), move(DRAW, RUN), move(DRAW, OK), move(CHARGE, RUN), move(FIRST, RUN)]
    maps = [
        move(FIRST + 1, RUN),
        move(FIRST + 1, RETRY),
        move(FIRST, OK),
        move(FIRST + 1, RUN),
        move(FIRST + 1, OK),
    ]
    ends = [move(CHARGE, OK), move(TOTAL, RUN), move(TOTAL, OK), move(TIDY, RUN), move(TIDY, OK), run_to(6)]
    moves = [moves_row(1, 0, *begun), moves_row(1, 5, *maps), moves_row(1, 10, *ends)]
    loop.commit(journal, *first)
    for row in moves:
        loop.commit(journal, row)
    middle = moves_row(2, 0, *begun, move(FIRST, OK))
    steps = [
        step_row(2, DRAW),
        step_row(2, FIRST, task=CHARGE, place=0),
        step_row(2, FIRST + 1, task=CHARGE, place=1),
    ]
    loop.commit(journal, run_row(2), state_row(2, widths='{"1": 2}'), middle, *steps)
    interrupted = step_row(3, DRAW, None, state=RETRY, ended=None, forgiven=1)
    loop.commit(journal, life_row(2), run_row(3, parent=1, parent_unit=0, parent_try=1, child=1))
    loop.commit(journal, interrupted, moves_row(3, 0, run_to(1), move(DRAW, RUN)))
    loop.commit(journal, state_row(3, 10, recovered=1, failure="crashed"))
    together = SuccessesRow.of(4, 0, [(DRAW, 0.1, 0.2, "[1,2]")])
    moves = moves_row(4, 0, run_to(1), move(DRAW, RUN), move(DRAW, OK))
    loop.commit(journal, run_row(4), state_row(4), together, moves)


@pytest.fixture(scope="module")
def journal_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound", numbered=True)
    folder.chmod(0o700)
    loop, journal = Loop(), SqliteJournal(folder / "runs.db")
    journal.open(loop)
    sound(loop, journal)
    journal.close()
    return folder


def test_a_sound_journal_has_no_findings(journal_folder):
    assert check(journal_folder / "runs.db") == []


def test_it_reads_beside_the_owner(opened, path):
    loop, journal, _ = opened()
    sound(loop, journal)
    assert check(path) == []
    loop.commit(journal, MetaRow(1002, 1))


def test_what_cannot_be_read_is_said_so(path):
    with pytest.raises(JournalError, match="there is no journal"):
        check(path)


FAULTS = {
    "a slice of moves is lost": ("DELETE FROM moves WHERE run = 1 AND first = 5", "moves from 5 on are missing"),
    "moves are there twice": ("UPDATE moves SET moves = CAST(moves || moves AS BLOB) WHERE run = 1 AND first = 5", "went from"),
    "moves are cut": ("UPDATE moves SET moves = substr(moves, 1, 12) WHERE run = 2", "are cut"),
    "a move after the end": (
        "UPDATE moves SET moves = CAST(moves || x'0100000000000000' AS BLOB) WHERE run = 1 AND first = 10",
        "task draw went from succeeded to running",
    ),
    "lives run backwards": ("UPDATE moves SET life = 2 WHERE run = 1 AND first = 5", "come after those of life 2"),
    "lines are lost": ("DELETE FROM log WHERE run = 1 AND first = 1", "lines 1 to 3 of its log"),
    "the state of a task is another": ("UPDATE step SET state = 5, form = 0, value = NULL WHERE run = 1 AND unit = 0", "its last move was to succeeded"),
    "a result is gone": ("UPDATE step SET form = 0, value = NULL WHERE run = 1 AND unit = 0", "has no value"),
    "a result is damaged": ("UPDATE step SET value = x'7b' WHERE run = 1 AND unit = 3", "no JSON"),
    "a value is lost alone": ("UPDATE step SET value = NULL WHERE run = 1 AND unit = 0", "not as its form"),
    "an end of what lives": ("UPDATE step SET state = 1, form = 0, value = NULL WHERE run = 2 AND unit = 5", "a time at which it ended"),
    "a failed task has a value": ("UPDATE step SET state = 5 WHERE run = 2 AND unit = 4", "and has a value"),
    "a row of a task is lost": ("DELETE FROM step WHERE run = 1 AND unit = 2", "task number 2 has no row|total has ended .* and has no row"),
    "an end came too early": ("UPDATE step SET state = 1, ended = NULL, form = 0, value = NULL WHERE run = 1 AND unit = 3", "it has ended, and task tidy is running"),
    "an end was taken back": ("UPDATE run_state SET state = 1, ended = NULL WHERE id = 1", "it is running, and its last move was to succeeded"),
    "an end is another": ("UPDATE run_state SET state = 7 WHERE id = 1", "what its tasks and requests say is succeeded"),
    "a cancel did not cancel": ("UPDATE run_state SET level = 2 WHERE id = 1", "what its tasks and requests say is cancelled"),
    "too many attempts": ("UPDATE step SET attempts = 3 WHERE run = 1 AND unit = 5", "3 attempts that count, of at most 2"),
    "more forgiven than made": ("UPDATE step SET forgiven = 9 WHERE run = 1 AND unit = 5", "9 do not count"),
    "an attempt after the last": ("UPDATE step SET attempts = 0 WHERE run = 1 AND unit = 5", "after its last one"),
    "a task began too early": ("DELETE FROM step WHERE run = 2 AND unit = 0; UPDATE moves SET moves = substr(moves, 1, 8) WHERE run = 2", "task charge.* began before task draw"),
    "an outcome that says no": ("UPDATE step SET state = 5, form = 0, value = NULL WHERE run = 2 AND unit = 0", "rule .all_success. was not met"),
    "outside the map": ("UPDATE run_state SET widths = '{\"1\": 1}' WHERE id = 1", "outside its map, whose width is 1"),
    "no width": ("UPDATE run_state SET widths = 'x' WHERE id = 1", "widths of its maps cannot be read"),
    "a number never reserved": ("UPDATE meta SET value = 3 WHERE name = 'next_run'", "run 3: its number was never reserved"),
    "a run without a state": ("DELETE FROM run_state WHERE id = 2", "run 2: it has no state"),
    "what has succeeded is no JSON": ("UPDATE successes SET tasks = substr(tasks, 1, 9)", "run 4: .* cannot be read"),
    "what has succeeded has another form": ("UPDATE successes SET tasks = '[[0,1]]'", "tasks of run 4 .* cannot be read"),
    "some of what has succeeded is lost": ("UPDATE successes SET number = 2", "not those that their row counts"),
    "a task has succeeded twice": ("INSERT INTO successes VALUES(4, 3, 2, 0, '[[3,0,1,null],[0,0,1,null]]')", "task of it has succeeded twice"),
    "all that has succeeded is lost": ("DELETE FROM successes", "task number 0 has ended .succeeded. by its moves, and has no row|draw"),
    "what has succeeded is of no run": ("PRAGMA foreign_keys = off; DELETE FROM run WHERE id = 4", "rows of it in the table successes"),
    "rows of no run": ("PRAGMA foreign_keys = off; DELETE FROM run WHERE id = 2", "rows of it in the table step"),
    "a definition is gone": ("DELETE FROM definition", "names one of definition"),
    "a definition is damaged": ("UPDATE definition SET text = '{'", "its definition cannot be read"),
    "code is other code": ("UPDATE bundle SET digest = 'abc' WHERE content IS NOT NULL; UPDATE run_bundle SET digest = 'abc'", "it is other code|other code: its digest"),
    "code is damaged": ("UPDATE bundle SET content = x'00' WHERE content IS NOT NULL", "cannot be read"),
    "a parent is gone": ("INSERT INTO run SELECT 9, job, definition, params, secrets, durability, created, key, user, request, 77, 1, 1, 1, again, scheduled, extra FROM run WHERE id = 2; INSERT INTO run_state SELECT 9, state, level, flags, causes, begun, started, ended, spent, recovered, fruitless, widths, failure FROM run_state WHERE id = 2", "run 9: it has not ended, and its parent"),
    "a life is missing": ("DELETE FROM life WHERE number = 1", "life 1 is missing"),
    "closed before it was opened": ("UPDATE life SET suspended = 0 WHERE number = 1", "closed before it was opened"),
    "an index lacks an entry": ("PRAGMA writable_schema = on; UPDATE sqlite_schema SET sql = replace(sql, 'job, id', 'id, job') WHERE name = 'run_job'", "database is damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "words"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(journal_folder, tmp_path, statements, words):
    folder = tmp_path / "copy"
    shutil.copytree(journal_folder, folder)
    with closing(sqlite3.connect(folder / "runs.db", isolation_level=None)) as connection:
        connection.executescript(statements)
    found = [str(finding) for finding in check(folder / "runs.db")]
    assert any(re.search(words, finding) for finding in found), found


def test_a_file_that_is_gone_or_damaged_is_found(journal_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(journal_folder, folder)
    (file,) = (folder / "runs.db.values").iterdir()
    file.write_bytes(b"?")
    assert "damaged" in str(check(folder / "runs.db"))
    file.unlink()
    assert "is gone" in str(check(folder / "runs.db"))


def test_a_page_that_is_damaged_is_found(journal_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(journal_folder, folder)
    path = folder / "runs.db"
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 9 * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert check(path)


def cut(content):
    del content[len(content) // 2 :]


def spoil_the_schema(content):
    content[100:4096] = b"\x77" * 3996


def spoil_the_beginning(content):
    content[:16] = b"no sqlite at all"


@pytest.mark.parametrize("spoil", [cut, spoil_the_schema, spoil_the_beginning])
def test_of_a_file_that_cannot_be_opened_it_is_said_where_it_is_damaged_and_what_to_do(
    journal_folder, tmp_path, spoil
):
    folder = tmp_path / "copy"
    shutil.copytree(journal_folder, folder)
    path = folder / "runs.db"
    content = bytearray(path.read_bytes())
    spoil(content)
    path.write_bytes(content)
    first, *_, last = map(str, check(path))
    assert first.startswith("the database is damaged: ")
    assert "journal check" not in first + last
    if spoil is not cut:
        assert last == "nothing more can be read: put a backup in its place (`journal restore`)"
    assert path.read_bytes() == content

"""What is committed is there after a restart, in the order in which it was written, and nobody else writes it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest
from journalrows import (
    DEFINITION,
    SUCCEEDED,
    Loop,
    begin,
    life_row,
    moves_row,
    run_row,
    state_row,
    step_row,
)

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    DroppedRow,
    LogRow,
    MetaRow,
    RollbackRow,
    ScheduleRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.errors import ArgumentError, JournalError
from scattersphere.journal import SqliteJournal, sqlite
from scattersphere.journal.files import LARGEST_IN_ROW
from scattersphere.model.states import RunState, TaskState


def ask(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_a_new_journal_is_empty_and_has_an_id_for_ever(opened):
    _, journal, state = opened()
    assert (state.next_run, state.wall, state.lives, state.unfinished) == (1, 0, (), ())
    journal.close()
    _, _, again = opened()
    assert again.id == state.id
    assert len(state.id) == 32


FULL_RUN = run_row(
    7,
    bundles=(("etl", "b1"), ("host", "b2")),
    params='{"ä": 1}',
    secrets=("password",),
    key="k",
    user="ada",
    request=b"\0\1",
    parent=3,
    parent_unit=1,
    parent_try=2,
    child=1,
    again=5,
    scheduled='{"name": "nightly"}',
    extra='{"by": "ada"}',
)
FULL_STATE = state_row(
    7,
    2,
    level=1,
    flags=9,
    causes=("timeout", "stop"),
    spent=12,
    recovered=2,
    fruitless=1,
    widths='{"0": 3}',
    failure="x",
)


def test_every_row_comes_back_as_it_was_written(opened):
    loop, journal, _ = opened()
    life = life_row()
    schedule = ScheduleRow("pay", "nightly", "{}", 5, True, None)
    rollback = RollbackRow("etl", "b1", "b2", 9)
    step = step_row(7, 4, task=1, place=2, value=b"[1]", form=ValueForm.TAGGED, reused=5, forgiven=1, due=8)
    failed = step_row(7, 5, None, task=1, place=3, state=5, failure='{"type": "E"}')
    attempt = AttemptRow(7, 4, 1, 5, "{}", 3)
    moves = [moves_row(7, 0, 1, ~1), moves_row(7, 2, 4)]
    log = LogRow(7, 1, 10, b"lines")
    loop.commit(journal, MetaRow(1001, 55), life, schedule)
    loop.commit(journal, DEFINITION, BundleRow("b1", b"zip"), BundleRow("b2", None), FULL_RUN, FULL_STATE)
    loop.commit(journal, rollback, failed, step, attempt, moves[0], log)
    loop.commit(journal, moves[1])
    journal.close()
    loop, journal, state = opened()
    assert (state.next_run, state.wall, state.lives, state.unfinished) == (1001, 55, (life,), (7,))
    assert (state.schedules, state.rollbacks) == ((schedule,), (rollback,))
    (run,) = journal.read_runs([9, 7])
    assert (run.run, run.state) == (FULL_RUN, FULL_STATE)
    assert (run.steps, run.attempts, run.moves) == ((step, failed), (attempt,), tuple(moves))
    assert journal.read_definition("d1") == DEFINITION.text
    assert (journal.read_bundle("b1"), journal.read_bundle("b2")) == (b"zip", None)
    assert journal.read_value(step) == (ValueForm.TAGGED, b"[1]")
    assert journal.read_log(7) == journal.read_log(7, 10) == [log]
    assert journal.read_log(7, 11) == []
    assert journal.find_key("pay", "ada", "k") == 7
    assert journal.find_key("pay", "", "k") is None
    for missing in (lambda: journal.read_definition("d2"), lambda: journal.read_bundle("b3")):
        with pytest.raises(LookupError):
            missing()


def test_the_newest_row_of_a_key_stands_whether_committed_together_or_apart(opened):
    loop, journal, _ = opened()
    first = [*begin(1), step_row(1, value=b"1"), ScheduleRow("a", "b", "{}", 1, False, None)]
    second = [state_row(1, SUCCEEDED), DroppedRow(1, 0), RollbackRow("etl", None, "", 1), MetaRow(9, 9)]
    third = [step_row(1, value=b"2"), ScheduleRow("a", "b", "{}", 2, False, None)]
    for number, together in enumerate((True, False)):
        written = [
            [row for row in rows if not number or row is not rows[1]] for rows in (first, second, third)
        ]
        if together:
            loop.commit(journal, *(row for rows in written for row in rows))
        else:
            for rows in written:
                loop.commit(journal, *rows)
        (run,) = journal.read_runs([1])
        assert run.state.state == SUCCEEDED
        assert [step.value for step in run.steps] == [b"2"]
        loop.commit(journal, DroppedRow(1, 0))
        (run,) = journal.read_runs([1])
        assert [(step.form, step.value) for step in run.steps] == [(ValueForm.DROPPED, None)]


def test_moves_that_are_committed_together_are_one_row(opened):
    loop, journal, _ = opened()
    other = [moves_row(2, 0, ~1), moves_row(2, 3, 4), moves_row(2, 4, 5, life=2)]
    loop.commit(
        journal, *begin(1), *begin(2), moves_row(1, 0, ~1), other[0], moves_row(1, 1, 2, 3), *other[1:]
    )
    first, second = journal.read_runs([1, 2])
    assert first.moves == (moves_row(1, 0, ~1, 2, 3),)
    assert second.moves == tuple(other)  # a gap, another life: what does not follow is not joined


def test_a_value_is_written_and_dropped_in_one_transaction(opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1), DroppedRow(1, 0))
    (run,) = journal.read_runs([1])
    assert run.steps[0].form == ValueForm.DROPPED


def test_who_wrote_is_told_in_order_and_a_failing_callback_keeps_none_from_it(opened):
    loop, journal, _ = opened()
    told = []

    def fail():
        told.append("fails")
        raise ZeroDivisionError

    journal.write(begin(1), lambda: told.append(1))
    for number in range(2, 50):
        journal.write(begin(number), lambda number=number: told.append(number))
    journal.write(begin(50), fail)
    journal.write(begin(51), lambda: told.append(51))
    with pytest.raises(ZeroDivisionError):
        loop.until(lambda: 51 in told)
    loop.until(lambda: 51 in told)
    assert told == [*range(1, 50), "fails", 51]
    assert journal.backlog == (0, 0)


def test_what_waits_is_counted(opened, monkeypatch):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    go_on = threading.Event()
    commit = type(journal._writer)._commit
    monkeypatch.setattr(
        type(journal._writer), "_commit", lambda self, batch: (go_on.wait(60), commit(self, batch))
    )
    done = []
    journal.write([step_row(1, value=b"x" * 1000)])
    journal.write([step_row(1, 1)], lambda: done.append(1))
    rows, size = journal.backlog
    assert rows == 2
    assert 1000 < size < 2000
    go_on.set()
    loop.until(lambda: done)
    assert journal.backlog == (0, 0)


def test_closing_commits_what_waits_and_nothing_is_written_afterwards(opened):
    _, journal, _ = opened()
    for number in range(1, 200):
        journal.write(begin(number))
    journal.close()
    journal.close()
    journal.write(begin(500))
    assert journal.backlog == (0, 0)
    with pytest.raises(JournalError, match="not open"):
        journal.read_runs([1])
    _, _, state = opened()
    assert state.unfinished == tuple(range(1, 200))


def test_runs_are_found_newest_first(opened):
    loop, journal, _ = opened()
    for number in range(1, 11):
        job = "pay" if number % 2 else "load"
        loop.commit(journal, *begin(number, job=job), state_row(number, SUCCEEDED if number < 8 else 1))

    def found(**how):
        return [stored.run.id for stored in journal.find_runs(**how)]

    assert found() == [*range(10, 0, -1)]
    assert found(job="pay", limit=2) == [9, 7]
    assert found(states=[SUCCEEDED], before=5) == [4, 3, 2, 1]
    assert found(since=9) == [10, 9]
    assert found(job="no") == found(states=[]) == []


def test_a_large_value_is_a_file_until_no_row_names_it(opened, path):
    loop, journal, _ = opened()
    large = b'"' + b"x" * LARGEST_IN_ROW + b'"'
    loop.commit(journal, *begin(1), step_row(1, 0, large), step_row(1, 1, large), step_row(1, 2))
    (run,) = journal.read_runs([1])
    assert [step.form for step in run.steps] == [ValueForm.FILE, ValueForm.FILE, ValueForm.JSON]
    assert [journal.read_value(step) for step in run.steps[:2]] == [(ValueForm.JSON, large)] * 2
    (file,) = path.with_name("runs.db.values").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size == len(large)
    loop.commit(journal, DroppedRow(1, 0))
    loop.commit(journal, MetaRow(1, 1))
    assert file.exists()
    loop.commit(journal, DroppedRow(1, 1))
    loop.commit(journal, MetaRow(1, 1))
    assert not file.exists()
    with pytest.raises(LookupError, match="gone"):
        journal.read_value(run.steps[0])


def test_a_damaged_file_of_a_value_is_not_taken_for_the_value(opened, path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1, 0, b"x" * (LARGEST_IN_ROW + 1)))
    (file,) = path.with_name("runs.db.values").iterdir()
    file.write_bytes(b"y" * file.stat().st_size)
    (run,) = journal.read_runs([1])
    with pytest.raises(LookupError, match="damaged"):
        journal.read_value(run.steps[0])
    with pytest.raises(LookupError, match="no name"):
        journal.read_value(run.steps[0]._replace(value=b"../../etc/passwd"))


def test_files_without_a_row_are_swept_after_the_next_opening(opened, path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1, 0, b"x" * (LARGEST_IN_ROW + 1)))
    journal.close()
    folder = path.with_name("runs.db.values")
    (kept,) = folder.iterdir()
    left = [folder / f"{'0' * 64}.json", folder / f"{'1' * 64}.pickle.part"]
    for file in (*left, folder / "README"):
        file.write_bytes(b"?")
    loop, journal, _ = opened()
    loop.commit(journal, MetaRow(1, 1))
    loop.commit(journal, MetaRow(2, 1))  # the sweep comes between these two
    assert {file.name for file in folder.iterdir()} == {kept.name, "README"}


def test_definitions_and_code_are_written_once_in_a_life(opened, path):
    loop, journal, _ = opened()
    for number in range(1, 4):
        loop.commit(journal, *begin(number), BundleRow("b1", b"zip"))
    assert ask(path, "SELECT count(*) FROM definition") == [(1,)]
    journal.close()
    loop, journal, _ = opened()
    loop.commit(journal, DefinitionRow("d1", "pay", "{}"))
    assert journal.read_definition("d1") == DEFINITION.text


def test_texts_that_no_database_can_hold_stop_nothing(opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1, job="\ud800", secrets=("\ud801",)))
    (run,) = journal.read_runs([1])
    assert run.run.job == "\\ud800"
    assert loop.failures == []


def test_the_views_have_the_names_of_the_states(opened, path):
    loop, journal, _ = opened()
    for number, _ in enumerate(RunState):
        loop.commit(
            journal, *begin(number + 1), state_row(number + 1, number, ended=1 if number > 5 else None)
        )
    for number, _ in enumerate(TaskState):
        ended = 1 if number > 3 else None
        loop.commit(
            journal, step_row(1, number + 5, task=number % 2, place=number, state=number, ended=ended)
        )
    assert [state for (state,) in ask(path, "SELECT state FROM runs ORDER BY id")] == list(RunState)
    assert [state for (state,) in ask(path, "SELECT state FROM tasks ORDER BY place")] == list(TaskState)
    assert ask(path, "SELECT DISTINCT task FROM tasks ORDER BY place") == [("draw",), ("charge",)]
    assert ask(path, "SELECT DISTINCT value FROM tasks") == [("1",)]


def test_the_views_have_each_task_of_those_that_succeeded_together(opened, path):
    loop, journal, _ = opened()
    texts = ["true", "null", "1.5", '"é"', '{"a":[1]}', '"[]"']
    together = SuccessesRow.of(1, 7, [(unit, unit, unit + 0.5, text) for unit, text in enumerate(texts)])
    later = step_row(1, 1, value=b"2", state=3, ended=None)
    loop.commit(journal, *begin(1), together, later)
    (run,) = journal.read_runs([1])
    assert run.steps[1] == later
    columns = ", ".join(later._fields).replace("value", "CAST(value AS BLOB)")
    assert ask(path, f"SELECT {columns} FROM steps ORDER BY unit") == [tuple(step) for step in run.steps]
    found = ask(path, "SELECT task, state, seconds, value FROM tasks")
    assert found[0] == ("charge", "up_for_retry", None, "2")
    texts.pop(1)
    assert [row[1:] for row in found[1:]] == [("succeeded", 0.5, text) for text in texts]


def test_what_waits_is_counted_by_tasks_however_many_stand_in_a_row(opened, monkeypatch):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    go_on = threading.Event()
    commit = type(journal._writer)._commit
    monkeypatch.setattr(
        type(journal._writer), "_commit", lambda self, batch: (go_on.wait(60), commit(self, batch))
    )
    done = []
    journal.write([SuccessesRow.of(1, 0, [(unit, 0.0, 0.0, "null") for unit in range(50)])])
    journal.write([step_row(1, 51)], lambda: done.append(1))
    rows, size = journal.backlog
    assert rows == 51
    assert 5_000 < size < 8_000
    go_on.set()
    loop.until(lambda: done)
    assert journal.backlog == (0, 0)


def test_what_sync_and_keep_cannot_mean_is_refused(path):
    with pytest.raises(ArgumentError, match="sync"):
        SqliteJournal(path, sync="off")
    with pytest.raises(ArgumentError, match="keep"):
        SqliteJournal(path, keep=(-1, 5))


@pytest.mark.parametrize(("sync", "number"), [("full", 2), ("normal", 1)])
def test_the_database_is_set_as_promised(opened, sync, number):
    _, journal, _ = opened(sync=sync)
    settings = {
        name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode", "auto_vacuum", "foreign_keys", "user_version")
    }
    assert settings == {
        "synchronous": number,
        "journal_mode": "wal",
        "auto_vacuum": 2,
        "foreign_keys": 1,
        "user_version": 2,
    }


def test_a_defect_of_the_engine_is_told_of_and_nothing_more_is_committed(opened):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    journal.write([state_row(99)])  # of no run
    journal.write(begin(2))
    loop.until(lambda: loop.failures)
    ((words, lasting),) = loop.failures
    assert "defect" in words
    assert lasting
    assert journal.backlog[0] == 5
    with pytest.raises(JournalError, match="5 rows"):
        journal.close()
    _, _, state = opened()
    assert state.unfinished == (1,)


def test_a_journal_is_opened_twice_one_after_the_other(path):
    journal = SqliteJournal(path)
    for number in range(1, 3):
        loop = Loop()
        journal.open(loop)
        loop.commit(journal, *begin(number))
        journal.close()
    assert ask(path, "SELECT count(*) FROM run") == [(2,)]


def test_runs_are_looked_for_in_pieces_of_which_none_is_long(opened, monkeypatch):
    loop, journal, _ = opened()
    for number in (*range(1, 8), *range(1001, 1008)):  # numbers have gaps
        loop.commit(journal, *begin(number, job="pay" if number % 2 else "load"))
    whole = journal.find_runs()
    monkeypatch.setattr(sqlite, "SPAN", 3)
    assert journal.find_runs() == whole
    assert [stored.run.id for stored in journal.find_runs(job="load", before=1005, limit=3)] == [
        1004,
        1002,
        6,
    ]
    assert journal.find_runs(job="load", states=[SUCCEEDED]) == journal.find_runs(before=1) == []

"""Old runs are given up in pieces, with all that is theirs; what is still needed stays."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing

import pytest
from journalrows import SUCCEEDED, begin, moves_row, run_row, state_row, step_row

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    LogRow,
    MetaRow,
    RollbackRow,
    SuccessesRow,
)
from scattersphere.journal import prune as pruning
from scattersphere.journal import writer
from scattersphere.journal.files import LARGEST_IN_ROW


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(writer, "PRUNED_EVERY", 1)


def ended_run(number, **changes):
    return [
        *begin(number, **changes),
        state_row(number, SUCCEEDED),
        *(step_row(number, unit) for unit in range(3)),
        step_row(number, 3, bytes([number]) * (LARGEST_IN_ROW + 1)),
        SuccessesRow.of(number, 0, [(4, 0.0, 0.1, "null"), (5, 0.0, 0.1, "1")]),
        SuccessesRow.of(number, 0, [(6, 0.0, 0.1, "null")]),
        AttemptRow(number, 0, 1, 5, None, 1),
        moves_row(number, 0, 1),
        LogRow(number, 1, 1, b"x"),
    ]


def prune_all(loop, journal):
    """Commit until nothing is left to be done between two commits, nor due to be begun."""
    for _ in range(200):
        loop.commit(journal, MetaRow(1, 1))  # what the writer did after the commit before is done by now
        if not journal._writer._is_due() and not journal._writer._chores:
            return
    raise AssertionError("pruning does not end")


def count(path, table):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def kept(journal):
    return [stored.run.id for stored in journal.find_runs()]


def test_the_newest_runs_are_kept_and_of_the_others_nothing_stays(opened, path):
    loop, journal, _ = opened(keep=(3, math.inf))
    for number in range(1, 11):
        loop.commit(journal, *ended_run(number))
    prune_all(loop, journal)
    assert kept(journal) == [10, 9, 8]
    rows = {
        "run": 3,
        "run_state": 3,
        "step": 12,
        "successes": 6,
        "attempt": 3,
        "moves": 3,
        "log": 3,
        "given_up": 0,
    }
    assert {table: count(path, table) for table in rows} == rows
    assert len([*path.with_name("runs.db.values").iterdir()]) == 3


def test_runs_that_are_too_old_go(opened):
    loop, journal, _ = opened(keep=(100, 3600.0))
    young = 2**60  # ended long after this test
    loop.commit(journal, *ended_run(1))
    loop.commit(journal, *begin(2), state_row(2, SUCCEEDED, ended=young))
    loop.commit(journal, *begin(3))
    prune_all(loop, journal)
    assert kept(journal) == [3, 2]


def test_of_more_than_are_kept_those_that_are_too_old_go_as_well(opened):
    loop, journal, _ = opened(keep=(1, 3600.0))
    for number in (1, 2, 3):
        loop.commit(journal, *begin(number), state_row(number, SUCCEEDED, ended=number))
    prune_all(loop, journal)
    assert kept(journal) == []


def test_unfinished_runs_and_those_that_belong_to_them_stay(opened):
    loop, journal, _ = opened(keep=(0, math.inf))
    loop.commit(journal, *begin(1))
    loop.commit(journal, *ended_run(2, parent=1, parent_unit=0, parent_try=1, child=1))  # its parent lives
    child = begin(4, parent=3, parent_unit=0, parent_try=1, child=1)
    loop.commit(journal, *ended_run(3), *child)  # and this one's child
    loop.commit(journal, *ended_run(5))
    prune_all(loop, journal)
    assert kept(journal) == [4, 3, 2, 1]
    loop.commit(journal, state_row(1, SUCCEEDED), state_row(4, SUCCEEDED))
    prune_all(loop, journal)
    assert kept(journal) == []


def test_a_key_is_free_when_its_run_is_given_up(opened):
    loop, journal, _ = opened(keep=(0, math.inf))
    loop.commit(journal, *ended_run(1, key="k"))
    prune_all(loop, journal)
    assert journal.find_key("pay", "", "k") is None
    loop.commit(journal, *begin(2, key="k"))
    assert journal.find_key("pay", "", "k") == 2


def test_code_and_definitions_that_nobody_names_go_at_the_next_life(opened, path):
    def rows(number, digest):
        run = run_row(number, definition=digest, bundles=(("etl", digest),))
        return [
            DefinitionRow(digest, "pay", "{}"),
            BundleRow(digest, b"zip"),
            run,
            state_row(number, SUCCEEDED),
        ]

    loop, journal, _ = opened(keep=(0, math.inf))
    loop.commit(journal, *rows(1, "d1"))
    loop.commit(journal, *rows(2, "d2"), RollbackRow("etl", "d2", "d1", 1))
    prune_all(loop, journal)
    assert kept(journal) == []
    assert (
        count(path, "definition") == count(path, "bundle") - 1 == 2
    )  # the engine may name them yet in this life
    loop.commit(journal, *rows(3, "d1"))
    journal.close()
    loop, journal, _ = opened(keep=(0, math.inf))
    prune_all(loop, journal)
    assert count(path, "definition") == 0
    assert journal.read_bundle("d2") == b"zip"  # rolled back to
    with pytest.raises(LookupError):
        journal.read_bundle("d1")


def test_what_a_crash_left_half_deleted_is_finished(opened, path, monkeypatch):
    loop, journal, _ = opened(keep=(0, math.inf))
    monkeypatch.setattr(pruning, "_ROWS", 2)
    monkeypatch.setattr(pruning, "PIECE_SECONDS", -1.0)  # each piece ends at its first look at the clock
    loop.commit(journal, *(row for number in range(1, 6) for row in ended_run(number)))
    while not count(path, "given_up"):
        loop.commit(journal, MetaRow(1, 1))
    journal.close()
    assert count(path, "step") > 0
    loop, journal, _ = opened(keep=(0, math.inf))
    prune_all(loop, journal)
    assert [count(path, table) for table in ("given_up", "run", "step", "moves", "log", "attempt")] == [0] * 6
    assert [*path.with_name("runs.db.values").iterdir()] == []


def test_room_is_given_back_to_the_disk(opened, path):
    loop, journal, _ = opened(keep=(0, math.inf))
    for number in range(1, 41):
        loop.commit(journal, *begin(number), step_row(number, 0, bytes(60_000)), state_row(number))
    (before,) = journal._connection.execute("PRAGMA page_count").fetchone()
    loop.commit(journal, *(state_row(number, SUCCEEDED) for number in range(1, 41)))
    prune_all(loop, journal)
    (after,) = journal._connection.execute("PRAGMA page_count").fetchone()
    assert after < before / 2

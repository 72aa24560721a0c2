"""A backup is the journal at one instant, also beside its server; a restore puts it in place and loses nothing."""

from __future__ import annotations

import math
import shutil

import anyio
import pytest
from journalrows import SUCCEEDED, Loop, begin, life_row, state_row, step_row
from patience import PATIENCE

from scattersphere import Server, task
from scattersphere.abc.journal import DroppedRow, MetaRow, ValueForm
from scattersphere.errors import ArgumentError, JournalBusyError, JournalError
from scattersphere.journal import SqliteJournal, copies
from scattersphere.journal.check import check
from scattersphere.journal.files import LARGEST_IN_ROW, ValueFiles
from scattersphere.journal.place import JournalFiles
from scattersphere.model.events import read_event_id

LARGE = b"x" * (LARGEST_IN_ROW + 1)


def kept(path):
    journal = SqliteJournal(path)
    journal.open(Loop())
    try:
        return {
            stored.run.id: [journal.read_value(step) for step in stored.steps]
            for stored in journal.read_runs(range(9))
        }
    finally:
        journal.close()


def test_a_backup_beside_the_owner_is_a_journal(opened, path, tmp_path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1, 0, LARGE, form=3), step_row(1, 1))
    copies.backup(path, tmp_path / "backup.db")
    loop.commit(journal, *begin(2), DroppedRow(1, 0))
    modes = {
        file.name: file.stat().st_mode & 0o777
        for file in tmp_path.iterdir()
        if file.name.startswith("backup")
    }
    assert modes == {"backup.db": 0o600, "backup.db.values": 0o700}
    assert kept(tmp_path / "backup.db") == {1: [(3, LARGE), (1, b"1")]}
    for target in (tmp_path / "backup.db", path):
        with pytest.raises(JournalError, match="overwrites nothing"):
            copies.backup(path, target)
    with pytest.raises(JournalError, match="there is no journal"):
        copies.backup(tmp_path / "none.db", tmp_path / "other.db")
    assert not [*tmp_path.glob("other*")]
    with pytest.raises(
        JournalError, match=r"the backup failed: .*/none/other\.db\.values: No such file or directory$"
    ):
        copies.backup(path, tmp_path / "none" / "other.db")


def test_a_value_that_is_given_up_while_it_is_copied_begins_the_backup_anew(
    opened, path, tmp_path, monkeypatch
):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1, 0))
    database = copies.copy_database

    def copy(connection, target):
        """A value comes after the files were copied, and goes again before it can be."""
        loop.commit(journal, step_row(1, 1, LARGE, form=3))
        database(connection, target)
        loop.commit(journal, DroppedRow(1, 1))
        loop.commit(journal, MetaRow(1, 1))
        if copying.pop():
            monkeypatch.setattr(copies, "copy_database", database)

    copying = [True]
    monkeypatch.setattr(copies, "copy_database", copy)
    copies.backup(path, tmp_path / "backup.db")
    assert copying == []
    again = SqliteJournal(tmp_path / "backup.db")
    again.open(Loop())
    (run,) = again.read_runs([1])
    again.close()
    assert [step.form for step in run.steps] == [ValueForm.JSON, ValueForm.DROPPED]


def test_a_restore_puts_the_backup_in_place_and_moves_the_old_one_aside(opened, path, tmp_path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), step_row(1, 0, LARGE, form=3))
    copies.backup(path, tmp_path / "backup.db")
    loop.commit(journal, *begin(2), step_row(2, 0))
    with pytest.raises(JournalBusyError):
        copies.restore(tmp_path / "backup.db", path)
    journal.close()
    shutil.copy(path, path.with_name("runs.db-wal"))  # of another time: it must not be read with the backup
    path.with_name("runs.db-wal").chmod(0o600)
    replaced = copies.restore(tmp_path / "backup.db", path)
    assert kept(path) == {1: [(3, LARGE)]}
    assert replaced.with_name(f"{replaced.name}-wal").exists()
    replaced.with_name(f"{replaced.name}-wal").unlink()
    assert [*kept(replaced)] == [1, 2]
    assert copies.restore(tmp_path / "backup.db", tmp_path / "fresh.db") is None
    assert kept(tmp_path / "fresh.db") == {1: [(3, LARGE)]}
    with pytest.raises(ArgumentError, match="another place"):
        copies.restore(path, path)


@pytest.mark.parametrize("old", ["there", "damaged", "gone", "another"])
def test_no_number_that_was_given_since_the_backup_comes_again_after_a_restore(opened, path, tmp_path, old):
    loop, journal, _ = opened()
    loop.commit(journal, MetaRow(1_001, 1), life_row(1), *begin(1)[1:])
    copies.backup(path, tmp_path / "backup.db")
    loop.commit(journal, MetaRow(3_001, 2), *begin(2_700)[1:])
    for number in (2, 3):
        loop.commit(journal, life_row(number))
    journal.close()
    if old == "damaged":
        path.write_bytes(b"\xff" * 8192)
    elif old in {"gone", "another"}:
        path.unlink()
    if old == "another":
        opened()[1].close()
    copies.restore(tmp_path / "backup.db", path)
    _, journal, state = opened()
    assert [stored.run.id for stored in journal.read_runs([1, 2_700])] == [1]
    assert state.unfinished == (1,)
    if old == "there":
        assert (state.next_run, state.lives[-1].number) == (3_001, 3)
    else:
        assert state.next_run >= 1_001 + copies.RUNS_LEFT_OUT
        assert state.lives[-1].number >= 1 + copies.LIVES_LEFT_OUT
    journal.close()
    assert {found.words for found in check(path)} == {
        "its definition cannot be read"
    }  # it is none: else it is sound


def given(opened, path, count):
    """Give numbers to runs, as an opening does that reserves them; return those, and the life's."""
    loop, journal, state = opened()
    life, first = state.lives[-1].number + 1 if state.lives else 1, state.next_run
    loop.commit(journal, MetaRow(first + count, 1), life_row(life))
    journal.close()
    return {*range(first, first + count)}, {life}


@pytest.mark.parametrize("old", ["damaged", "gone", "another"])
def test_no_number_comes_again_though_one_backup_is_restored_again_and_again(
    opened, path, tmp_path, old, monkeypatch
):
    clock = [1_800_000_000.0]
    monkeypatch.setattr(copies.time, "time", lambda: clock[0])
    runs, lives = given(opened, path, 1_000)
    copies.backup(path, tmp_path / "backup.db")
    for _ in range(3):
        if old == "damaged":
            path.write_bytes(b"\xff" * 8192)
        else:
            path.unlink()
        if old == "another":
            opened()[1].close()
        copies.restore(tmp_path / "backup.db", path)
        more_runs, more_lives = given(opened, path, 1_000)
        assert not runs & more_runs
        assert not lives & more_lives
        assert max(more_runs | more_lives) < 2**53  # the largest that all readers of JSON take
        runs |= more_runs
        lives |= more_lives
        clock[0] += 0.002  # no more time is needed
    assert check(path) == []


@task
async def done() -> None:
    """Say nothing."""


@pytest.mark.anyio
async def test_events_go_on_after_a_restore_by_the_id_of_one_though_its_life_has_a_large_number(
    path, tmp_path
):
    async with Server(journal=path):
        pass
    copies.backup(path, tmp_path / "backup.db")
    path.unlink()
    copies.restore(tmp_path / "backup.db", path)
    async with Server(journal=path) as server:
        server.register_tasks("app", [done])
        run = await server.start_task("done")
        with anyio.fail_after(PATIENCE):
            first, *others = [event async for event in run.events()]
            assert [event async for event in run.events(since=first.id)] == others
        assert read_event_id(first.id) == (server.life, first.seq)


def test_a_restore_in_the_same_second_overwrites_nothing_that_was_moved_aside(
    opened, path, tmp_path, monkeypatch
):
    monkeypatch.setattr(copies.time, "strftime", lambda _: "20261130-141500")
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    copies.backup(path, tmp_path / "backup.db")
    loop.commit(journal, *begin(2))
    journal.close()
    aside = [copies.restore(tmp_path / "backup.db", path) for _ in range(2)]
    assert [[*kept(place)] for place in aside] == [[1, 2], [1]]


def test_runs_are_found_on_both_sides_of_the_numbers_that_a_restore_has_left_out(opened, path, tmp_path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1), *begin(2))
    copies.backup(path, tmp_path / "backup.db")
    journal.close()
    path.unlink()
    copies.restore(tmp_path / "backup.db", path)
    loop, journal, state = opened()
    loop.commit(journal, MetaRow(state.next_run + 1, 1), *begin(state.next_run)[1:])

    def found(**asked):
        return [stored.run.id for stored in journal.find_runs(**asked)]

    assert found() == [state.next_run, 2, 1]
    assert found(before=2**80) == [state.next_run, 2, 1]
    assert found(before=state.next_run) == [2, 1]
    assert found(before=2) == [1]
    assert found(before=1) == []


def test_a_damaged_backup_is_not_restored(opened, path, tmp_path):
    loop, journal, _ = opened()
    loop.commit(journal, *begin(1))
    copies.backup(path, tmp_path / "backup.db")
    journal.close()
    content = bytearray((tmp_path / "backup.db").read_bytes())
    content[8 * 4096 : 9 * 4096] = b"\xff" * 4096
    (tmp_path / "backup.db").write_bytes(content)
    with pytest.raises(JournalError, match="damaged"):
        copies.restore(tmp_path / "backup.db", path)
    assert [*kept(path)] == [1]
    assert not [*path.parent.glob("*restored*")]


def test_pruning_by_hand(opened, path):
    loop, journal, _ = opened()
    for number in range(1, 6):
        loop.commit(
            journal,
            *begin(number),
            step_row(number, 0, LARGE + bytes([number]), form=3),
            state_row(number, SUCCEEDED),
        )
    with pytest.raises(JournalBusyError):
        copies.prune(path, count=2)
    journal.close()
    assert copies.prune(path, count=2) == 3
    assert [*kept(path)] == [4, 5]
    assert len(ValueFiles(JournalFiles.at(path).values).names()) == 2
    assert copies.prune(path, count=9, seconds=3600.0) == 2
    assert copies.prune(path, count=0, seconds=math.inf) == 0
    with pytest.raises(JournalError, match="there is no journal"):
        copies.prune(path.with_name("none.db"), count=1)
    assert not path.with_name("none.db.lock").exists()

"""`MemoryJournal` keeps the contract of a journal, and does to commits what a test wants."""

import pytest

from scattersphere.errors import JournalBusyError, JournalError
from scattersphere.testing import MemoryJournal
from scattersphere.testing.journals import CHECKS, Opened, definition_rows, run_row, state_row, step_row

pytestmark = pytest.mark.anyio


class Place:
    """Where memory journals are made again of what the one before has held."""

    def __init__(self):
        self.journal = None

    def make(self):
        if self.journal is None:
            self.journal = MemoryJournal()
        elif not self.journal._held:
            self.journal = self.journal.again()
        return self.journal


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check):
    await check(Place().make)


async def test_nothing_is_durable_before_it_is_committed_and_a_crash_takes_the_rest():
    journal, told = MemoryJournal(auto=False), []
    async with Opened(lambda: journal):
        journal.write(definition_rows(1), lambda: told.append("run"))
        journal.write([step_row(1, 0)], lambda: told.append("step"))
        assert journal.read_runs([1]) == []
        assert journal.backlog == (5, len(b"PK-code") + 2 + 1)
        assert journal.commit()
        assert told == ["run"]
        after = journal.crash()
        assert not journal.commit()
        journal.write([step_row(1, 1)])
    async with Opened(lambda: after) as opened:
        assert opened.state.unfinished == (1,)
        assert (await opened.read(1)).steps == ()
    with pytest.raises(JournalError, match="has crashed"):
        journal.open(opened.host)


async def test_a_commit_that_fails_is_told_and_tried_again_in_its_order():
    journal, told = MemoryJournal(auto=False), []
    async with Opened(lambda: journal) as opened:
        journal.fail_next()
        journal.write(definition_rows(1), lambda: told.append(1))
        journal.write([state_row(1)], lambda: told.append(2))
        assert not journal.commit()
        assert opened.host.failures == [("database or disk is full", False)]
        assert journal.commit_all() == 2
        assert (told, opened.host.mended) == ([1, 2], 1)


async def test_after_a_lasting_failure_nothing_is_committed_any_more():
    journal = MemoryJournal(auto=False)
    async with Opened(lambda: journal) as opened:
        journal.fail_next("disk I/O error", lasting=True)
        journal.write(definition_rows(1))
        assert journal.commit_all() == 0
        assert opened.host.failures == [("disk I/O error", True)]
        assert journal.commit_all() == 0


async def test_two_children_in_one_place_end_it_as_the_schema_of_a_file_would():
    journal = MemoryJournal(auto=False)
    child = run_row(2)._replace(parent=1, parent_unit=0, parent_try=1, child=1)
    async with Opened(lambda: journal) as opened:
        journal.write([child, state_row(2)])
        journal.write([child, state_row(2)])  # the same run again
        assert journal.commit_all() == 2
        journal.write([child._replace(id=3), state_row(3)])
        assert journal.commit_all() == 0
        ((words, lasting),) = opened.host.failures
        assert lasting
        assert "which run 2 is already" in words


async def test_it_has_one_owner():
    journal = MemoryJournal()
    async with Opened(lambda: journal) as opened:
        with pytest.raises(JournalBusyError):
            journal.open(opened.host)
        with pytest.raises(JournalBusyError):
            journal.again()

"""Contract tests for a journal, `CHECKS`; `MemoryJournal` fulfils them too.

In a test suite of one's own::

    import pytest
    from scattersphere.testing.journals import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS)
    async def test_contract(check, tmp_path):
        await check(lambda: MyJournal(tmp_path / "runs"))

`make` gives a journal that opens what the one before has written, as after a restart: the same place, not yet opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    DroppedRow,
    LifeRow,
    LogRow,
    MetaRow,
    MovesRow,
    RollbackRow,
    RunRow,
    RunStateRow,
    ScheduleRow,
    StepRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.engine.loops import current_loop
from scattersphere.errors import JournalBusyError, JournalError
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scattersphere.abc.journal import Journal, JournalState, Row, StoredRun

PATIENCE = 30.0
"""Seconds after which a check no longer waits for a commit."""


class CheckHost:
    """What a check lends a journal; it notes what it is told."""

    def __init__(self) -> None:
        self._loop = current_loop()
        self.failures: list[tuple[str, bool]] = []
        self.mended: int = 0

    async def __aenter__(self) -> Self:
        await self._loop.open(lambda _: False, lambda: None, lambda _: None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.aclose()

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread."""
        self._loop.soon(callback, *args)

    def journal_failed(self, words: str, *, lasting: bool) -> None:
        """Note it."""
        self.failures.append((words, lasting))

    def journal_mended(self) -> None:
        """Note it."""
        self.mended += 1


class Opened:
    """A journal that a check has opened."""

    def __init__(self, make: Callable[[], Journal]) -> None:
        self.journal: Journal = make()
        self.host: CheckHost = CheckHost()

    async def __aenter__(self) -> Self:
        await self.host.__aenter__()
        try:
            self.state: JournalState = await anyio.to_thread.run_sync(self.journal.open, self.host)
        except BaseException:
            await self.host.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await anyio.to_thread.run_sync(self.journal.close)
        except JournalError:  # what was refused could not be committed
            if not any(lasting for _, lasting in self.host.failures):
                raise
        finally:
            await self.host.__aexit__()

    async def commit(self, *rows: Row) -> None:
        """Write one transaction and wait until it is durable."""
        done = anyio.Event()
        self.journal.write(rows, done.set)
        _expect(not done.is_set(), "`committed` was called inside `write`; it comes later, from the loop")
        with anyio.fail_after(PATIENCE):
            await done.wait()

    async def read(self, run: int) -> StoredRun:
        """Read one run."""
        found = await anyio.to_thread.run_sync(self.journal.read_runs, [run])
        _expect(len(found) == 1, f"run {run} was committed and is not found")
        return found[0]


def _expect(holds: bool, words: str) -> None:  # noqa: FBT001 - an assertion of our own
    if not holds:
        raise AssertionError(words)


def run_row(run: int, *, job: str = "etl", key: str | None = None, created: int = 1_000) -> RunRow:
    """Return the row of a run."""
    return RunRow(
        id=run, job=job, definition="d" * 8, bundles=(("app", "v3-00"),), params='{"day": 3}', secrets=("token",),
        durability=2, created=created + run, key=key, request=b"\x01\x02", extra='{"note": [1, null]}',
    )  # fmt: skip


def state_row(run: int, state: RunState = RunState.RUNNING, **changes: Any) -> RunStateRow:
    """Return a row that says where a run is."""
    row = RunStateRow(
        id=run, state=tuple(RunState).index(state), level=0, flags=0, causes=(), begun=True, started=2_000,
        ended=None, spent=0, recovered=0, fruitless=0,
    )  # fmt: skip
    return row._replace(**changes)


def step_row(run: int, unit: int, value: bytes | None = b"1", **changes: Any) -> StepRow:
    """Return the row of a task that has succeeded."""
    row = StepRow(
        run=run, unit=unit, task=unit, place=None, state=4, attempts=1, forgiven=0, started=3_000, ended=4_000,
        due=None, form=ValueForm.JSON if value is not None else ValueForm.NONE, value=value, failure=None,
    )  # fmt: skip
    return row._replace(**changes)


def definition_rows(run: int, **fields: Any) -> list[Row]:
    """Return what is written when a run is submitted."""
    return [
        DefinitionRow("d" * 8, "etl", '{"name": "etl"}'),
        BundleRow("v3-00", b"PK-code"),
        run_row(run, **fields),
        state_row(run, RunState.QUEUED, begun=False, started=None),
    ]


async def check_a_new_journal_is_empty_and_has_an_id(make: Callable[[], Journal]) -> None:
    """A new journal has no lives, no runs, and an id that stays."""
    async with Opened(make) as opened:
        state = opened.state
        _expect(bool(state.id), "a journal needs an id")
        _expect(
            (state.next_run, state.lives, state.unfinished) == (1, (), ()), f"a new journal holds {state}"
        )
    async with Opened(make) as opened:
        _expect(opened.state.id == state.id, "the id changed when the journal was opened again")


async def check_what_was_committed_is_there_again(make: Callable[[], Journal]) -> None:
    """All rows of all kinds come back as they were written."""
    step = step_row(7, 1, b"[1,2]", place=None, failure='{"type": "E"}', due=9, reused=3)
    schedule = ScheduleRow("etl", "nightly", '{"n": 1}', 5, paused=True, gone=None)
    async with Opened(make) as opened:
        await opened.commit(MetaRow(1_001, 77), LifeRow(1, 10, 123, "1.0", None))
        await opened.commit(*definition_rows(7, key="k"), schedule, RollbackRow("app", "v3-00", "v3-01", 8))
        await opened.commit(
            step,
            AttemptRow(7, 1, 1, 5, '{"type": "E"}', 3_500),
            MovesRow(7, 0, 1, 4_000, b"\x01\0\0\0\0\0\0\0"),
            LogRow(7, 1, 2, b"two lines"),
            LogRow(7, 3, 1, b"one"),
            state_row(7, causes=("stop", "fail_fast"), widths='{"1": 3}', flags=5, spent=12, recovered=1),
        )
        await opened.commit(LifeRow(1, 10, 123, "1.0", 99))
    async with Opened(make) as opened:
        state, journal = opened.state, opened.journal
        _expect((state.next_run, state.wall) == (1_001, 77), f"counters: {state}")
        _expect(state.lives == (LifeRow(1, 10, 123, "1.0", 99),), f"lives: {state.lives}")
        _expect(state.unfinished == (7,), f"unfinished: {state.unfinished}")
        _expect(state.schedules == (schedule,), f"schedules: {state.schedules}")
        _expect(
            state.rollbacks == (RollbackRow("app", "v3-00", "v3-01", 8),), f"rollbacks: {state.rollbacks}"
        )
        stored = await opened.read(7)
        _expect(stored.run == run_row(7, key="k"), f"the run: {stored.run}")
        _expect(stored.state.causes == ("stop", "fail_fast"), f"its state: {stored.state}")
        _expect((stored.state.spent, stored.state.widths) == (12, '{"1": 3}'), f"its state: {stored.state}")
        _expect(stored.steps == (step,), f"its steps: {stored.steps}")
        _expect(stored.attempts == (AttemptRow(7, 1, 1, 5, '{"type": "E"}', 3_500),), "its attempts")
        _expect([row.first for row in stored.moves] == [0], f"its moves: {stored.moves}")
        _expect(journal.read_definition("d" * 8) == '{"name": "etl"}', "its definition")
        _expect(journal.read_bundle("v3-00") == b"PK-code", "its code")
        _expect(tuple(journal.read_value(step)) == (ValueForm.JSON, b"[1,2]"), "its value")
        _expect([row.data for row in journal.read_log(7)] == [b"two lines", b"one"], "its log")
        _expect(
            [row.first for row in journal.read_log(7, 2)] == [1, 3],
            "the chunk that holds line 2, and later ones",
        )
        _expect([row.first for row in journal.read_log(7, 3)] == [3], "the chunk that holds line 3")


async def check_rows_replace_older_ones_by_their_key(make: Callable[[], Journal]) -> None:
    """The newest row of a key stands; a dropped value is gone."""
    async with Opened(make) as opened:
        await opened.commit(*definition_rows(1), step_row(1, 0, None, state=3), step_row(1, 1))
        await opened.commit(
            step_row(1, 0, b'"x"'), state_row(1, RunState.SUCCEEDED, ended=9), DroppedRow(1, 1)
        )
        stored = await opened.read(1)
        _expect([step.state for step in stored.steps] == [4, 4], f"the steps are {stored.steps}")
        _expect(stored.steps[1].form == ValueForm.DROPPED, "a dropped value is marked as such")
        _expect(stored.steps[1].value is None, "a dropped value is gone")
    async with Opened(make) as opened:
        _expect(opened.state.unfinished == (), "a run that has ended is not unfinished")
        _expect((await opened.read(1)).state.ended == 9, "the newest state stands")  # noqa: PLR2004 - as it was written


async def check_what_succeeded_together_is_read_one_by_one(make: Callable[[], Journal]) -> None:
    """Each task of a `SuccessesRow` comes back as a step; one that has a row of its own is as that has it."""
    together = SuccessesRow.of(1, 1_000, [(3, 0.5, 0.75, '{"ä":[1.5,null]}'), (1, 0.25, 0.5, "true")])
    later = SuccessesRow.of(1, 2_000, [(0, 0.0, 0.1, '"x"')])
    async with Opened(make) as opened:
        await opened.commit(*definition_rows(1), together, step_row(1, 2))
        await opened.commit(later, step_row(1, 1, None, state=3))
    async with Opened(make) as opened:
        steps = (await opened.read(1)).steps
        _expect([step.unit for step in steps] == [0, 1, 2, 3], f"the steps are {steps}")
        _expect(steps[1] == step_row(1, 1, None, state=3), f"a newer row of a task holds: {steps[1]}")
        last = step_row(1, 3, '{"ä":[1.5,null]}'.encode(), started=501_000, ended=751_000)
        _expect(steps[3] == last, f"a task that has succeeded: {steps[3]}")
        form, value = opened.journal.read_value(steps[0])
        _expect((form, value) == (ValueForm.JSON, b'"x"'), "its value")


async def check_commits_are_told_in_the_order_of_writing(make: Callable[[], Journal]) -> None:
    """`committed` is called once for each transaction, in order, on the loop's thread."""
    async with Opened(make) as opened:
        told: list[int] = []
        await opened.commit(*definition_rows(1))
        for number in range(50):
            opened.journal.write([step_row(1, number)], lambda number=number: told.append(number))  # type: ignore[misc]
        _expect(not told, "`committed` was called inside `write`")
        await opened.commit(state_row(1))
        _expect(told == list(range(50)), f"told in the order {told}")
        _expect(len((await opened.read(1)).steps) == 50, "all rows are there")  # noqa: PLR2004 - as it was written
        _expect(
            opened.journal.backlog == (0, 0), f"nothing waits, and the backlog is {opened.journal.backlog}"
        )


async def check_closing_commits_what_was_written(make: Callable[[], Journal]) -> None:
    """What was written before `close` is there afterwards."""
    async with Opened(make) as opened:
        await opened.commit(*definition_rows(1))
        opened.journal.write([step_row(1, 0)])
    async with Opened(make) as opened:
        _expect(len((await opened.read(1)).steps) == 1, "what was written before the close is lost")


async def check_runs_are_found_by_key_and_by_what_they_are(make: Callable[[], Journal]) -> None:
    """Keys are unique by job and user; runs are found newest first."""
    async with Opened(make) as opened:
        for run in range(1, 6):
            await opened.commit(*definition_rows(run, job="etl" if run % 2 else "other", key=f"k{run}"))
        await opened.commit(state_row(3, RunState.FAILED, ended=9))
        journal = opened.journal
        _expect(journal.find_key("etl", "", "k3") == 3, "a run is not found by its key")  # noqa: PLR2004 - as it was written
        _expect(journal.find_key("etl", "somebody", "k3") is None, "a key was found for another user")
        _expect(journal.find_key("other", "", "k3") is None, "a key was found for another job")

        def found(**asked: Any) -> list[int]:
            return [stored.run.id for stored in journal.find_runs(**asked)]

        _expect(found() == [5, 4, 3, 2, 1], f"all runs: {found()}")
        _expect(found(job="etl", limit=2) == [5, 3], f"the newest two of a job: {found(job='etl', limit=2)}")
        failed = tuple(RunState).index(RunState.FAILED)
        _expect(found(states=[failed]) == [3], f"those that failed: {found(states=[failed])}")
        _expect(found(before=3) == [2, 1], f"those before run 3: {found(before=3)}")
        child = run_row(6)._replace(parent=2, parent_unit=0, parent_try=1, child=1)
        await opened.commit(child, state_row(6))
        _expect(journal.read_children([2, 1]) == [child], f"the children: {journal.read_children([2, 1])}")
        _expect(journal.read_children([1]) == [], "children of a run that has none")
        _expect(journal.read_children([]) == [], "children of no run")
        _expect(found(since=1_004, before=6) == [5, 4], f"those since an instant: {found(since=1_004)}")


async def check_a_key_stays_with_the_run_that_had_it_first(make: Callable[[], Journal]) -> None:
    """A second run with the key of another one is kept without it, in one transaction with that or in a later one."""
    async with Opened(make) as opened:
        await opened.commit(*definition_rows(1, key="k"), *definition_rows(2, key="k"))
        await opened.commit(*definition_rows(3, key="k"), *definition_rows(1, key="k"))
        await opened.commit(*definition_rows(4, key="k", job="other"))
    async with Opened(make) as opened:
        keys = [(await opened.read(run)).run.key for run in range(1, 5)]
        _expect(keys == ["k", None, None, "k"], f"the keys of four runs: {keys}")
        _expect(opened.journal.find_key("etl", "", "k") == 1, "the key does not stand for its first run")


async def check_two_children_are_never_in_one_place(make: Callable[[], Journal]) -> None:
    """A second run of the same start of the same try of a parent is a defect: it is refused, and nothing after it."""
    child = run_row(2)._replace(parent=1, parent_unit=0, parent_try=1, child=1)
    async with Opened(make) as opened:
        await opened.commit(*definition_rows(1), child, state_row(2))
        others: list[dict[str, Any]] = [{"parent_unit": 1}, {"parent_try": 2}, {"child": 2}, {"parent": 9}]
        for run, other in enumerate(others, 3):
            await opened.commit(child._replace(id=run, **other), state_row(run))
        opened.journal.write([child._replace(id=7), state_row(7)])
        with anyio.fail_after(PATIENCE):
            while not opened.host.failures:  # noqa: ASYNC110 - a journal says it when it likes
                await anyio.sleep(0.001)
        ((words, lasting),) = opened.host.failures
        _expect(lasting, "a journal that cannot hold what it was given writes no more")
        _expect("defect" in words, f"it does not say that it is a defect: {words}")
        found = opened.journal.read_children([1])
        _expect([row.id for row in found] == [2, 3, 4, 5], f"the children of run 1: {found}")


async def check_a_second_opener_is_refused(make: Callable[[], Journal]) -> None:
    """One Server at a time; the refused one changes nothing."""
    async with Opened(make) as opened:
        other = make()
        try:
            other.open(opened.host)
        except JournalBusyError:
            pass
        else:
            raise AssertionError("a second opener was let in")
        await opened.commit(*definition_rows(1))
    async with Opened(make) as opened:
        _expect(opened.state.unfinished == (1,), "what the holder wrote after the refusal is lost")


async def check_what_is_not_there_is_said_by_lookup_errors(make: Callable[[], Journal]) -> None:
    """Reading what is not there raises `LookupError`; unknown runs are left out."""
    async with Opened(make) as opened:
        journal = opened.journal
        for read in (
            lambda: journal.read_definition("none"),
            lambda: journal.read_bundle("none"),
            lambda: journal.read_value(step_row(1, 0, None)),
        ):
            try:
                read()
            except LookupError:
                continue
            raise AssertionError("something was read that is not there")
        _expect(journal.read_runs([1, 2]) == [], "runs that are not there were read")
        _expect(journal.read_log(1) == [], "lines that are not there were read")


CHECKS: tuple[Callable[[Callable[[], Journal]], Awaitable[None]], ...] = (
    check_a_new_journal_is_empty_and_has_an_id,
    check_what_was_committed_is_there_again,
    check_rows_replace_older_ones_by_their_key,
    check_what_succeeded_together_is_read_one_by_one,
    check_commits_are_told_in_the_order_of_writing,
    check_closing_commits_what_was_written,
    check_runs_are_found_by_key_and_by_what_they_are,
    check_a_key_stays_with_the_run_that_had_it_first,
    check_two_children_are_never_in_one_place,
    check_a_second_opener_is_refused,
    check_what_is_not_there_is_said_by_lookup_errors,
)
"""All checks."""

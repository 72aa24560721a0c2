"""A trigger of the host's own: a schedule like any, that is no part of a definition."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import (
    ArgumentError,
    ConflictError,
    DefinitionError,
    JobDefinition,
    NoSuchScheduleError,
    RunnableTask,
    ScheduleDefinition,
    SyncServer,
)
from scattersphere.testing import MemoryJournal, Rehearsal
from scattersphere.testing.triggers import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc import Trigger

HOUR = dt.timedelta(hours=1)


@attrs.frozen
class Tide:
    """Fires every twelve hours and 25 minutes, from one high water on."""

    high: dt.datetime = dt.datetime(2030, 1, 1, 3, tzinfo=dt.UTC)
    period: dt.timedelta = dt.timedelta(hours=12, minutes=25)

    def next(self, after: dt.datetime) -> dt.datetime | None:
        return self.high + ((after - self.high) // self.period + 1) * self.period

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        return self.high - ((self.high - before) // self.period + 1) * self.period

    def words(self) -> str:
        return f"at high water, from {self.high:%Y-%m-%d} on"


class Note(RunnableTask):
    """Return what it was given."""

    at: str = ""

    async def run(self) -> str:
        return self.at


def job() -> JobDefinition:
    builder = JobDefinition.build("harbour", params={"at": ""})
    return builder.task("note", "Note", args={"at": {"$param": "at"}}).done()


async def opened(rehearsal: Rehearsal) -> None:
    await rehearsal.open()
    rehearsal.register_tasks("app", [Note])
    rehearsal.server.define(job())
    await rehearsal.set_time("2030-01-01T00:00:00Z")


@pytest.mark.parametrize("check", CHECKS)
def test_the_trigger_of_these_tests_keeps_the_contract(
    check: Callable[[Callable[[], Trigger]], None],
) -> None:
    check(Tide)


@both_loops
def test_it_fires_by_itself_and_its_runs_say_why_they_are_there(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            await opened(rehearsal)
            server = rehearsal.server
            made = server.schedule("harbour", "tide", trigger=Tide(), params={"at": {"$scheduled": "time"}})
            assert server.schedules["harbour", "tide"] is made
            assert made.words() == "at high water, from 2030-01-01 on"
            await anyio.sleep(16 * 3600)
            runs = [await run.wait() for run in server.runs.values()]
            assert [run.results["note"] for run in runs] == [
                "2030-01-01T03:00:00+00:00",
                "2030-01-01T15:25:00+00:00",
            ]
            assert runs[0].key == "harbour/tide/2030-01-01T03:00:00Z"
            assert "schedule tide" in runs[0].explain()
            assert made.as_dict()["fired"] == 2

    run_virtually(backend, main)


@both_loops
def test_it_stays_when_the_definition_is_replaced_and_goes_when_it_is_taken_away(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            await opened(rehearsal)
            server = rehearsal.server
            made = server.schedule("harbour", "tide", trigger=Tide())
            server.schedule("harbour", "hourly", every=3600)
            assert server.schedules["harbour", "tide"] is made
            server.define(job(), replace=True)
            assert list(server.schedules) == [("harbour", "tide")]
            assert server.schedules["harbour", "tide"] is made
            assert "tide" not in server.definitions["harbour"].dumps()
            server.unschedule("harbour", "tide")
            assert not server.schedules
            with pytest.raises(NoSuchScheduleError):
                made.pause()
            server.schedule("harbour", "tide", trigger=Tide())
            server.undefine("harbour")
            server.define(job())
            assert not server.schedules

    run_virtually(backend, main)


@both_loops
def test_a_schedule_of_its_name_in_the_definition_takes_its_place_for_good(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            await opened(rehearsal)
            server = rehearsal.server
            server.schedule("harbour", "tide", trigger=Tide())
            hourly = ScheduleDefinition(every=3600)
            server.define(job().evolve(schedules={"tide": hourly}), replace=True)
            assert server.schedules["harbour", "tide"].definition == hourly
            server.define(job(), replace=True)
            assert not server.schedules

    run_virtually(backend, main)


@both_loops
def test_with_a_journal_it_goes_on_where_it_was(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            rehearsal.configure(journal=MemoryJournal())
            await opened(rehearsal)
            rehearsal.server.schedule("harbour", "tide", trigger=Tide(), missed="all")
            await anyio.sleep(4 * 3600)
            await rehearsal.crash()
            await anyio.sleep(24 * 3600)
            made = rehearsal.server.schedule("harbour", "tide", trigger=Tide(), missed="all")
            await anyio.sleep(60)
            assert made.state.fired == 3
            other = Tide(high=dt.datetime(2031, 1, 1, tzinfo=dt.UTC))
            assert rehearsal.server.schedule("harbour", "tide", trigger=other) is made
            assert made.next()[0] > dt.datetime(2030, 1, 2, 4, tzinfo=dt.UTC)

    run_virtually(backend, main)


class Backwards(Tide):
    def next(self, after: dt.datetime) -> dt.datetime | None:
        return after.replace(microsecond=0) - HOUR


class Naive(Tide):
    def next(self, after: dt.datetime) -> dt.datetime | None:
        return after.replace(tzinfo=None, microsecond=0) + HOUR


@pytest.mark.anyio
async def test_what_is_no_trigger_is_refused_with_words() -> None:
    async with Rehearsal() as rehearsal:
        await opened(rehearsal)
        server = rehearsal.server
        with pytest.raises(ValueError, match="does not lie after it"):
            server.schedule("harbour", "tide", trigger=Backwards())
        with pytest.raises(ValueError, match="must be an aware datetime to the second"):
            server.schedule("harbour", "tide", trigger=Naive())
        with pytest.raises(ArgumentError, match=r"scattersphere\.abc\.Trigger"):
            server.schedule("harbour", "tide", trigger="noon")
        with pytest.raises(ArgumentError, match="leave out 'every'"):
            server.schedule("harbour", "tide", trigger=Tide(), every=3600)
        with pytest.raises(DefinitionError, match="no time zone"):
            server.schedule("harbour", "tide", trigger=Tide(), zone="Moon/Crater")
        server.schedule("harbour", "hourly", every=3600)
        with pytest.raises(ConflictError, match="itself"):
            server.schedule("harbour", "hourly", trigger=Tide())
        assert list(server.schedules) == [("harbour", "hourly")]


@attrs.frozen
class Fragile(Tide):
    """Fails from its first time on."""

    kind: type[BaseException] = attrs.field(kw_only=True)

    def next(self, after: dt.datetime) -> dt.datetime | None:
        if after >= self.high:
            raise self.kind("the moon is gone")
        return super().next(after)


@both_loops
@pytest.mark.parametrize("kind", [LookupError, SystemExit, GeneratorExit])
def test_one_that_fails_later_stops_nothing_else(
    backend: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            await opened(rehearsal)
            rehearsal.server.schedule("harbour", "fragile", trigger=Fragile(kind=kind))
            rehearsal.server.schedule("harbour", "hourly", every=3600)
            await anyio.sleep(5.5 * 3600)
            assert rehearsal.server.schedules["harbour", "hourly"].state.fired == 5

    run_virtually(backend, main)
    assert "the moon is gone" in caplog.text


def test_a_blocking_server_takes_one_too() -> None:
    with SyncServer(watch=False) as server:
        server.register_tasks("app", [Note])
        server.define(job())
        assert server.schedule("harbour", "tide", trigger=Tide()).words().startswith("at high water")

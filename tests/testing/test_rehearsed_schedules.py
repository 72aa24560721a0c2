"""Rehearsal moves the wall clock of schedules: to their next firing, over a change of the clocks, over three days."""

from __future__ import annotations

import datetime as dt

import anyio
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import ArgumentError, JobDefinition, RunnableTask, ScheduleDefinition, TaskContext
from scattersphere.testing import Rehearsal, RehearsalError

pytestmark = pytest.mark.needs("cronsim")


class Report(RunnableTask):
    """Say for which day."""

    day: str

    async def run(self, context: TaskContext) -> str:
        return self.day


def report(**schedules: ScheduleDefinition) -> JobDefinition:
    builder = JobDefinition.build("report", params={"day": ""}, schedules=schedules)
    return builder.task("t", "Report", args={"day": {"$param": "day"}}).done()


NIGHTLY = ScheduleDefinition(cron="30 2 * * *", zone="Europe/Berlin", params={"day": {"$scheduled": "time"}})


@pytest.mark.anyio
async def test_the_next_firings_over_a_change_of_the_clocks() -> None:
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", [Report])
        await rehearsal.set_time("2026-03-28T00:00:00+01:00")
        await rehearsal.load(report(nightly=NIGHTLY))
        days = [(await (await rehearsal.next_firing()).wait()).results["t"] for _ in range(3)]
        assert days == ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


@pytest.mark.anyio
async def test_three_days_asleep_are_missed_or_made_up_for() -> None:
    for missed, runs in (("skip", 0), ("last", 1), ("all", 3)):
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Report])
            await rehearsal.set_time("2026-01-01T12:00:00Z")
            await rehearsal.load(report(nightly=NIGHTLY.evolve(missed=missed)))
            await rehearsal.set_time("2026-01-04T12:00:00Z")
            assert len(rehearsal.server.runs) == runs
            for run in rehearsal.server.runs.values():
                await run.wait()


@both_loops
def test_virtual_time_fires_without_any_help(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Report])
            await rehearsal.set_time("2026-10-24T12:00:00+02:00")
            await rehearsal.load(report(nightly=NIGHTLY, other=ScheduleDefinition(every=3600)))
            await anyio.sleep(23 * 3600 + 10)
            scheduled = [run.scheduled for run in rehearsal.server.runs.values()]
            assert [s.time for s in scheduled if s and s.schedule == "nightly"] == [
                dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)
            ]
            assert sum(s is not None and s.schedule == "other" for s in scheduled) == 23

    run_virtually(backend, main)


@pytest.mark.anyio
async def test_it_is_said_why_there_is_no_next_firing() -> None:
    async with Rehearsal() as rehearsal:
        with pytest.raises(RehearsalError, match="no schedule of any job fires"):
            await rehearsal.next_firing()
        await rehearsal.load(report(nightly=NIGHTLY, off=NIGHTLY.evolve(enabled=False)))
        with pytest.raises(RehearsalError, match="no schedule of report off fires"):
            await rehearsal.next_firing("report", "off")
        with pytest.raises(
            RehearsalError, match=r"was refused: it lacks code \(1 problem; see `unresolved`\)"
        ):
            await rehearsal.next_firing("report", "nightly")
        with pytest.raises(ArgumentError, match="needs an offset"):
            await rehearsal.set_time("2026-10-24T12:00:00")

"""Schedules of a Server: they follow definitions, files and code, on both loops, in virtual time."""

from __future__ import annotations

import contextvars
import datetime as dt
import json
from typing import TYPE_CHECKING

import anyio
import pytest
from patience import PATIENCE
from virtualtime import both_loops, run_virtually

from scattersphere import DefinitionError, JobDefinition, RunnableTask, Server, TaskContext
from scattersphere.model.events import EventKind

if TYPE_CHECKING:
    from pathlib import Path


class Note(RunnableTask):
    """Say for when."""

    day: str = ""

    async def run(self, context: TaskContext) -> str:
        return self.day


class Long(RunnableTask):
    """Take an hour and a half."""

    async def run(self, context: TaskContext) -> None:
        await anyio.sleep(5400)


def job(name: str = "job", task: str = "Note", **fields: object) -> JobDefinition:
    schedule = {"every": 3600, **fields.pop("schedule", {})}  # type: ignore[dict-item]
    text = {
        "format": 2, "name": name, "params": {"day": "none"}, "schedules": {"hourly": schedule},
        "tasks": {"t": {"task": task, "args": {"day": {"$param": "day"}} if task == "Note" else {}}}, **fields,
    }  # fmt: skip
    return JobDefinition.loads(json.dumps(text))


def server_with(*classes: type[RunnableTask]) -> Server:
    server = Server()
    server.register_tasks("app", classes or [Note, Long])
    return server


def kinds(server: Server) -> list[str]:
    return [str(event.kind) for event in so_far(server)]


def so_far(server: Server) -> list[object]:
    feed = server._feed
    return [event for n in range(feed.last) if (event := feed.after(n)) is not None and event.seq == n + 1]


async def until_next(server: Server) -> None:
    (first,) = server.schedules["job", "hourly"].next()
    await anyio.sleep((first - server._executor.now()).total_seconds())


@both_loops
def test_a_schedule_starts_runs_that_say_by_which_and_for_when(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job(schedule={"params": {"day": {"$scheduled": "date"}}}))
            (first,) = server.schedules["job", "hourly"].next()
            await anyio.sleep(3 * 3600)
            runs = [await run.wait() for run in server.runs.values()]
            assert len(runs) == 3
            run = runs[0]
            assert run.scheduled is not None
            assert (run.scheduled.schedule, run.scheduled.time) == ("hourly", first)
            assert run.key == f"job/hourly/{first:%Y-%m-%dT%H:%M:%SZ}"
            assert run.results["t"] == f"{first:%Y-%m-%d}"
            words = f"schedule hourly for {first:%Y-%m-%dT%H:%M:%SZ}"
            assert f"; by {words}" in run.explain()
            assert run.logs()[0].message == f"started by {words}"
            assert kinds(server).count("schedule-fired") == 3
            event = next(event for event in so_far(server) if event.kind is EventKind.SCHEDULE_FIRED)
            assert (event.job, event.schedule, event.run) == ("job", "hourly", run.id)
            assert f"schedule-fired job#{run.id} job/hourly for" in str(event)
            stats = server.stats()
            assert (stats["schedules"], stats["schedules_missed"]) == (1, 0)
            assert stats["schedule_lag"] < 1

    run_virtually(backend, main)


@both_loops
def test_schedules_follow_define_replace_and_undefine(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job())
            held = server.schedules["job", "hourly"]
            held.pause()
            server.define(job(description="new"), replace=True)
            assert server.schedules["job", "hourly"] is held
            assert held.paused
            await anyio.sleep(7200)
            assert len(server.runs) == 0
            held.resume()
            server.undefine("job")
            assert list(server.schedules) == []
            await anyio.sleep(7200)
            assert len(server.runs) == 0
            assert kinds(server).count("schedule-paused") == kinds(server).count("schedule-resumed") == 1

    run_virtually(backend, main)


@pytest.mark.needs("cronsim")
@both_loops
def test_a_schedule_made_in_code_is_part_of_the_definition(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job())
            nightly = server.schedule("job", "nightly", cron="30 2 * * *", zone="Europe/Berlin")
            assert nightly.words() == "at 02:30 every day (Europe/Berlin)"
            assert set(server.schedules) == {("job", "hourly"), ("job", "nightly")}
            assert (
                json.loads(server.definitions["job"].dumps())["schedules"]["nightly"]["cron"] == "30 2 * * *"
            )
            server.unschedule("job", "hourly")
            assert set(server.schedules) == {("job", "nightly")}

    run_virtually(backend, main)


@both_loops
def test_a_job_without_its_code_misses_times_with_the_reason_and_fires_when_the_code_comes(
    backend: str,
) -> None:
    async def main() -> None:
        async with Server() as server:
            server.define(job(schedule={"catch_up_within": 600}))
            await until_next(server)
            await anyio.sleep(601)
            missed = [event for event in so_far(server) if event.kind is EventKind.SCHEDULE_MISSED]
            assert len(missed) == 1
            words = "it lacks code (1 problem; see `unresolved`)"
            assert missed[0].message.endswith(words)
            await anyio.sleep(3000)  # the second time has come
            assert len(server.runs) == 0
            server.register_tasks("app", [Note, Long])
            await anyio.sleep(1)
            assert len(server.runs) == 1
            assert server.stats()["schedules_missed"] == 1

    run_virtually(backend, main)


@both_loops
def test_overlap_refuse_starts_as_soon_as_the_run_before_has_ended(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job(task="Long", max_runs=1, overlap="refuse"))
            (first,) = server.schedules["job", "hourly"].next()
            await until_next(server)
            await anyio.sleep(5400 + 1)
            runs = list(server.runs.values())
            assert [run.scheduled.time - first for run in runs if run.scheduled and run.scheduled.time] == [
                dt.timedelta(0),
                dt.timedelta(hours=1),
            ]
            late = runs[1].created_at - first
            assert dt.timedelta(seconds=5400) <= late < dt.timedelta(seconds=5401)
            await anyio.sleep(5400)
            assert len(server.runs) == 3

    run_virtually(backend, main)


@both_loops
def test_run_now_and_backfill(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job(schedule={"params": {"day": {"$scheduled": "time"}}}))
            schedule = server.schedules["job", "hourly"]
            run = await (await schedule.run_now({"day": "mine"})).wait()
            assert run.results["t"] == "mine"
            assert "by schedule hourly, run now" in run.explain()
            since = dt.datetime(2020, 3, 1, tzinfo=dt.UTC)
            until = since + dt.timedelta(hours=3)
            assert len((await schedule.backfill(since, until, dry_run=True)).times) == 3
            backfill = await (await schedule.backfill(since, until, max_parallel=2)).wait()
            results = [(await server.runs[run].wait()).results["t"] for run in backfill.runs.values()]
            assert results == [f"2020-03-01T0{hour}:00:00+00:00" for hour in range(3)]
            again = await (await schedule.backfill(since, until)).wait()
            assert again.runs == backfill.runs

    run_virtually(backend, main)


@both_loops
def test_a_drained_server_fires_no_more(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job())
            await server.drain()
            await anyio.sleep(7200)
            assert len(server.runs) == 0

    run_virtually(backend, main)


@both_loops
def test_a_server_that_fires_no_schedules_still_runs_them_when_asked(backend: str) -> None:
    async def main() -> None:
        async with Server(fire_schedules=False) as server:
            server.register_tasks("app", [Note, Long])
            server.define(job())
            schedule = server.schedules["job", "hourly"]
            await anyio.sleep(7200)
            schedule.pause()
            schedule.resume()
            await anyio.sleep(60)
            assert len(server.runs) == 0
            assert kinds(server).count("schedule-missed") == 0
            assert len(schedule.next(2)) == 2
            await (await schedule.run_now()).wait()
            since = dt.datetime(2020, 3, 1, tzinfo=dt.UTC)
            await (await schedule.backfill(since, since + dt.timedelta(hours=1))).wait()
            assert len(server.runs) == 2

    run_virtually(backend, main)


@both_loops
def test_an_idle_server_sleeps_until_the_next_time_in_virtual_time(backend: str) -> None:
    async def main() -> None:
        async with server_with() as server:
            server.define(job(schedule={"every": 86_400 * 365}))
            looks = 0
            look = server._scheduler.driver.look

            def counted() -> None:
                nonlocal looks
                looks += 1
                look()

            server._scheduler.driver.look = counted  # type: ignore[method-assign]
            await anyio.sleep(86_400 * 30)
            assert looks <= 1

    run_virtually(backend, main)


@pytest.mark.anyio
async def test_in_real_time_the_wall_is_looked_at() -> None:
    async with server_with() as server:
        server.define(job(schedule={"every": 1}))
        with anyio.fail_after(PATIENCE):
            async for event in server.events():
                if event.kind is EventKind.SCHEDULE_FIRED:
                    break
        run = server.runs[event.run]
        assert run.scheduled is not None
        assert run.scheduled.time is not None
        assert abs((run.created_at - run.scheduled.time).total_seconds()) < PATIENCE
        server.undefine("job")
        await run.wait()


who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Who(RunnableTask):
    """Say whose context it is."""

    async def run(self, context: TaskContext) -> str:
        return who.get()


@both_loops
def test_what_schedules_start_has_the_context_of_the_server(backend: str) -> None:
    async def main() -> None:
        async with server_with(Who) as server:
            server.define(job(task="Who"))
            who.set("somebody")
            schedule = server.schedules["job", "hourly"]
            schedule.pause()
            schedule.resume()
            await anyio.sleep(3600)
            since = dt.datetime(2020, 3, 1, tzinfo=dt.UTC)
            await (await schedule.backfill(since, since + dt.timedelta(hours=2))).wait()
            runs = list(server.runs.values())
            assert [(await run.wait()).results["t"] for run in runs] == ["nobody"] * 3

    run_virtually(backend, main)


@pytest.mark.anyio
async def test_the_job_folder_brings_and_takes_schedules(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(job().dumps())
    async with Server(job_folder=tmp_path) as server:
        assert list(server.schedules) == [("job", "hourly")]
        (tmp_path / "job.json").write_text(job(schedule={"every": 60, "enabled": False}).dumps())
        await server.load_all()
        assert not server.schedules["job", "hourly"].enabled
        server.undefine("job")
        assert not server.schedules


@pytest.mark.needs("cronsim")
@pytest.mark.anyio
async def test_a_wrong_schedule_in_code_is_a_located_problem() -> None:
    async with server_with() as server:
        server.define(job())
        with pytest.raises(DefinitionError, match=r"schedules\.nightly\.cron  hour 25: hours are 0 to 23"):
            server.schedule("job", "nightly", cron="30 25 * * *")
        assert list(server.schedules) == [("job", "hourly")]

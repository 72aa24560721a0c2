"""Schedules over the wire: listed, asked, paused, resumed, made up for; by whom, and seen by whom."""

from __future__ import annotations

import json

import pytest
from wire import job, until

pytestmark = pytest.mark.anyio


def scheduled(name: str, task: str = "Say", **timing: object) -> str:
    definition = {**job(name, task), "format": 2, "schedules": {"hourly": {"every": 3600, **timing}}}
    return "define " + json.dumps(definition)


async def test_schedules_are_listed_and_asked_for_their_next_times(front):
    async with front.client() as client:
        await client.ok(scheduled("hi"))
        (row,) = (await client.ok("schedules"))["schedules"]
        assert (row["job"], row["name"], row["words"], row["paused"]) == ("hi", "hourly", "every hour", False)
        assert (await client.ok("schedules job=hi"))["count"] == 1
        told = await client.ok("next hi hourly 3")
        assert len(told["next"]) == 3
        assert told["next"][0]["utc"] == row["next"]
        assert await client.code("next hi hourly 101") == "bad-args"
        assert await client.code("next hi dayly") == "no-such-schedule"
        assert await client.code("next hii hourly") == "no-such-job"


async def test_a_schedule_is_paused_and_resumed_and_events_say_so(front):
    async with front.client() as client:
        await client.ok(scheduled("hi"))
        await client.ok("follow kinds=jobs since=0")
        assert (await client.ok("pause-schedule hi hourly"))["paused"] is True
        assert front.server.schedules["hi", "hourly"].paused
        assert (await client.ok("pause-schedule hi hourly"))["paused"] is True
        assert (await client.ok("resume-schedule hi hourly"))["paused"] is False
    kinds = [
        str(event.kind) for n in range(front.server.last_event) if (event := front.server._feed.after(n))
    ]
    assert kinds.count("schedule-paused") == kinds.count("schedule-resumed") == 1


async def test_a_backfill_starts_runs_that_say_why_they_are_there(front):
    async with front.client() as client:
        await client.ok(scheduled("hi"))
        span = "2020-03-01T00:00:00Z 2020-03-01T02:00:00Z"
        planned = await client.ok(f"backfill hi hourly {span} dry_run=true")
        assert planned["times"] == ["2020-03-01T00:00:00Z", "2020-03-01T01:00:00Z"]
        assert planned["started"] is False
        assert len((await client.ok(f"backfill hi hourly {span} 2"))["times"]) == 2
        await until(lambda: len(front.server.runs) == 2)
        assert (await client.ok("wait 1"))["state"] == "succeeded"
        assert (await client.ok("status 1"))[
            "scheduled"
        ] == "schedule hourly for 2020-03-01T00:00:00Z, backfill"
        assert await client.code("backfill hi hourly yesterday today") == "bad-args"
        assert await client.code("backfill hi hourly 2020-03-01T00:00:00Z 2021-03-01T00:00:00Z") == "bad-args"


async def test_who_may_look_may_not_pause(front):
    async with front.client() as admin:
        await admin.ok(scheduled("hi"))
    for role in ("viewer", "runner"):
        async with front.client(role) as client:
            assert (await client.ok("schedules"))["count"] == 1
            assert await client.code("pause-schedule hi hourly") == "forbidden"
            assert (
                await client.code("backfill hi hourly 2020-03-01T00:00:00Z 2026-03-02T00:00:00Z")
                == "forbidden"
            )


async def test_what_a_token_does_not_cover_is_absent_and_runs_by_no_schedule(front):
    async with front.client() as admin:
        await admin.ok(scheduled("hi"))
        await admin.ok(scheduled("nightly1"))
    async with front.client("bounded") as client:
        (row,) = (await client.ok("schedules"))["schedules"]
        assert row["job"] == "nightly1"
        assert "refused" not in row
        assert await client.code("next hi hourly") == "no-such-job"
        assert await client.code("schedules job=hi") == "no-such-job"
        # The code of nightly1 is in a bundle that this token does not cover.
        assert (
            await client.code("backfill nightly1 hourly 2026-03-01T00:00:00Z 2026-03-01T02:00:00Z")
            == "forbidden"
        )
        assert await client.code(scheduled("nightly2")) == "invalid-job"
        assert await client.code(scheduled("nightly3", "not.There.yet")) == "invalid-job"


async def test_a_wrong_schedule_is_a_located_problem(front):
    async with front.client() as client:
        reply = await client.ask(scheduled("hi", every=None, cron="30 25 * * *"))
        problem = reply["error"]["problems"][0]
        assert (problem["path"], problem["message"]) == (
            "schedules.hourly.cron",
            "hour 25: hours are 0 to 23",
        )


async def test_a_backfill_from_the_first_instant_on_is_no_incident(front):
    """It looked for what comes before the year 1."""
    async with front.client() as client:
        await client.ok(scheduled("hi", start="2020-01-01T00:00:00Z"))
        told = await client.ok("backfill hi hourly 0001-01-01T00:00:00Z 2020-01-01T02:00:00Z dry_run=true")
        assert told["times"] == ["2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"]
        ends = "backfill hi hourly 9999-12-31T20:00:00Z 9999-12-31T23:59:59Z dry_run=true"
        assert await client.code(ends) == "bad-args"  # it has not come yet

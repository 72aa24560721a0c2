"""`logs` without a run: the server's own log of its runs, over the wire."""

import json

import pytest
from wire import job

pytestmark = pytest.mark.anyio


async def some_runs(client):
    for name in ("nightly", "secret"):
        await client.ok("define " + json.dumps(job(name)))
        number = (await client.ok(f"start {name}"))["run"]
        await client.ok(f"wait {number}")


async def test_logs_without_a_run_tell_which_runs_there_were_and_how_they_ended(front):
    async with front.client() as client:
        await some_runs(client)
        found = await client.ok("logs")
        assert [(row["run"], row["level"]) for row in found["lines"]] == [(1, "INFO")] * 2 + [(2, "INFO")] * 2
        words = [row["message"] for row in found["lines"]]
        assert words[0] == "nightly started"
        assert words[1].startswith("nightly succeeded in 0.")
        assert words[1].endswith(" s, 1 task")
        assert [row["run"] for row in (await client.ok("logs job=secret"))["lines"]] == [2, 2]
        assert len((await client.ok("logs tail=1"))["lines"]) == 1
        await client.send("output table", "logs job=nightly tail=1")
        shown = b""
        while b"#1" not in shown:
            shown = await client.line()
        assert b" INFO    #1: nightly succeeded" in shown


async def test_the_servers_log_goes_on_in_its_stream(front):
    async with front.client() as client:
        await some_runs(client)
        after = (await client.ok("logs"))["next"]
        await client.ok("start nightly")
        follow = await client.ok(f"follow kinds=runs since={after - 1}")
        assert follow["next"] == after
        event = await client.read()
        assert (event["seq"], event["event"], event["run"]) == (after, "run-queued", 3)


async def test_who_may_see_some_jobs_sees_the_lines_of_their_runs_only(front):
    async with front.client() as admin, front.client("bounded") as client:
        await some_runs(admin)
        assert {row["run"] for row in (await client.ok("logs"))["lines"]} == {1}
        assert (await client.ok("logs job=secret"))["lines"] == []


@pytest.mark.parametrize("line", ["logs task=only", "logs attempt=1", "logs index=0", "logs 1 job=nightly"])
async def test_what_belongs_to_one_of_the_two_logs_is_refused_for_the_other(front, line):
    async with front.client() as client:
        await some_runs(client)
        assert await client.code(line) == "bad-args"

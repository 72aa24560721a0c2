"""Ids over a restart: a run keeps its number, its events are of a life of the journal, and who follows goes on."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest
from patience import PATIENCE
from wire import TASKS, job, over_unix, until

from scattersphere import RunnableTask, Server
from scattersphere.cli.asking import _status
from scattersphere.remote import DisconnectedError, following
from scattersphere.remote.render import problem_lines
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(folder, journal, tasks=TASKS, **options):
    async with (
        Server(grace=0.3, journal=journal, watch=False, **options) as server,
        server.listen(unix=str(folder / "s")),
    ):
        server.register_tasks("app", tasks)
        yield server


async def suspended(folder):
    """Start a run, end the server, and return its journal."""
    journal = MemoryJournal()
    async with served(folder, journal), over_unix(str(folder / "s")) as client:
        await client.ok("define " + json.dumps(job("long", "Forever")))
        await client.ok("start long")
        await until_running(client)
    return journal.again()


async def until_running(client):
    with anyio.fail_after(PATIENCE):
        while (await client.ok("status 1"))["counts"] != {"running": 1}:  # noqa: ASYNC110 - across a socket
            await anyio.sleep(0.01)


async def events_of(client, line):
    reply = await client.ok(line)
    events = []
    while not events or events[-1]["event"] != "end":
        events.append(await client.read())
    return reply, events


async def test_numbers_are_told_with_the_life_of_the_journal(tmp_path):
    journal = await suspended(tmp_path)
    async with served(tmp_path, journal), over_unix(str(tmp_path / "s")) as client:
        assert client.greeting["scattersphere"]["journal"]
        await until_running(client)
        assert (await client.ok("logs 1"))["life"] == 2
        assert (await client.ok("logs"))["life"] == 2
        assert (await client.ok("follow"))["life"] == 2
        await client.ok("cancel 1")
        await client.ok("wait 1")
        reply, events = await events_of(client, "follow 1 since=0")
        assert (reply["next"], reply["life"]) == (1, 2)
        assert events[0]["event"] == "run-recovered"
        assert {event["life"] for event in events[:-1]} == {2}


async def test_the_id_of_an_event_of_this_life_goes_on_after_it_and_one_of_an_earlier_life_begins_anew(
    tmp_path,
):
    journal = await suspended(tmp_path)
    async with served(tmp_path, journal), over_unix(str(tmp_path / "s")) as client:
        await client.ok("cancel 1")
        await client.ok("wait 1")
        _, every = await events_of(client, "follow 1 since=0")
        _, rest = await events_of(client, f"follow 1 since=2.{every[0]['seq']}")
        assert [event["event"] for event in rest] == [event["event"] for event in every[1:]]
        for older in ("1.1", "1.999", "7.1"):
            reply, anew = await events_of(client, f"follow 1 since={older}")
            assert (anew[0]["event"], anew[0]["life"], anew[0]["next"]) == ("lagged", 2, 1)
            assert [event["event"] for event in anew[1:]] == [event["event"] for event in every]
            assert reply["next"] == 1
        for wrong in ("x", "1.", ".1", "1.2.3", "-1", "1.-2"):
            error = (await client.ask(f"follow 1 since={wrong}"))["error"]
            assert (error["code"], error["field"]) == ("bad-args", "since")


async def test_a_number_that_was_not_told_yet_is_of_another_life_and_its_follower_is_told_all_at_once(
    tmp_path,
):
    journal = await suspended(tmp_path)
    async with served(tmp_path, journal) as server, over_unix(str(tmp_path / "s")) as client:
        await client.ok("cancel 1")
        await client.ok("wait 1")
        _, every = await events_of(client, "follow 1 since=0")
        for beyond in ("9000", "2.9000"):
            reply, anew = await events_of(client, f"follow 1 since={beyond}")
            assert (anew[0]["event"], anew[0]["dropped"]) == ("lagged", 0)
            assert [event["event"] for event in anew[1:]] == [event["event"] for event in every]
            assert reply["next"] == 1
        assert (await client.ok(f"follow since={server.last_event + 1}"))["next"] == 1
        assert (await client.ok(f"follow since={server.last_event}"))["next"] == server.last_event + 1


async def test_who_follows_a_run_goes_on_with_it_after_a_restart_to_its_end(tmp_path):
    journal = MemoryJournal()
    told = []
    async with anyio.create_task_group() as tasks:
        async with served(tmp_path, journal) as server:
            async with over_unix(str(tmp_path / "s")) as client:
                await client.ok("define " + json.dumps(job("long", "Forever")))
                await client.ok("start long")

            async def follow():
                async with following(f"unix:{tmp_path / 's'}", 1, since=0, pause=0.01) as events:
                    told.extend([event async for event in events])

            tasks.start_soon(follow)
            listening = server._listeners[0]
            await until(lambda: any(c.session.follows for c in listening.gateway.sessions.values()))
        async with served(tmp_path, journal.again()) as server:
            listening = server._listeners[0]
            await until(lambda: any(c.session.follows for c in listening.gateway.sessions.values()))
            server.runs[1].cancel()
            with anyio.fail_after(PATIENCE):
                await server.runs[1].wait()
            await until(lambda: told)
    kinds = [event["event"] for event in told if event["event"].startswith(("run-", "lagged"))]
    seen = [kind for kind in kinds if kind != "run-suspended"]  # unless the session was closed before
    assert seen == ["run-started", "lagged", "run-recovered", "run-cancelling", "run-ended"]


async def test_where_the_journal_is_another_the_runs_are_others(tmp_path):
    async with anyio.create_task_group() as tasks:
        failures = []
        async with served(tmp_path, MemoryJournal()) as server:
            await server.start_task("Forever")

            async def follow():
                async with following(f"unix:{tmp_path / 's'}", 1, pause=0.01) as events:
                    try:
                        async for _ in events:
                            pass
                    except DisconnectedError as error:
                        failures.append(str(error))

            tasks.start_soon(follow)
            listening = server._listeners[0]
            await until(lambda: any(c.session.follows for c in listening.gateway.sessions.values()))
        async with served(tmp_path, MemoryJournal()) as server:
            await server.start_task("Forever")
            await until(lambda: failures)
    assert "started anew" in failures[0]


async def test_without_a_journal_numbers_are_numbers(tmp_path):
    async with served(tmp_path, None) as server, over_unix(str(tmp_path / "s")) as client:
        assert "journal" not in client.greeting["scattersphere"]
        assert (server.life, server.journal_id) == (0, "")
        await client.ok("start-task Say")
        await client.ok("wait 1")
        reply, events = await events_of(client, "follow 1 since=0")
        assert "life" not in reply
        assert not any("life" in event for event in events)
        _, anew = await events_of(client, "follow 1 since=3.1")
        assert anew[0]["event"] == "lagged"


async def test_runs_that_only_the_journal_has_are_listed_looked_at_followed_and_run_again(tmp_path):
    journal = MemoryJournal()
    async with served(tmp_path, journal), over_unix(str(tmp_path / "s")) as client:
        for name, task in (("good", "Say"), ("bad", "Boom")):
            await client.ok("define " + json.dumps(job(name, task)))
            await client.ok(f"run {name}")
        before = [await client.ok(line) for line in ("runs", "status 1", "result 1", "explain 2")]
        log = await client.ok("logs 1")
    async with (
        served(tmp_path, journal.again(), history=(0, 0)) as server,
        over_unix(str(tmp_path / "s")) as client,
    ):
        assert not server.runs
        after = [await client.ok(line) for line in ("runs", "status 1", "result 1", "explain 2")]
        assert after[:3] == before[:3]
        assert "boom" in after[3]["text"]
        lines = (await client.ok("logs 1"))["lines"]
        assert [line["message"] for line in lines] == [line["message"] for line in log["lines"]]
        assert (await client.ok("wait 2"))["state"] == "failed"
        _, events = await events_of(client, "follow 2 since=1.1")
        kinds = [event["event"] for event in events]
        assert (kinds[0], kinds[-2:]) == ("lagged", ["run-ended", "end"])
        assert await client.code("cancel 1") == "conflict"
        assert (await client.ok("rerun 2"))["parent"] == 2
        await client.ok("wait 3")
        assert [row["run"] for row in (await client.ok("runs limit=2"))["runs"]] == [3, 2]
        assert (await client.ok("runs limit=2 cursor=2"))["runs"][0]["run"] == 1
        assert [row["run"] for row in (await client.ok("runs bad failed"))["runs"]][-1] == 2
        assert await client.code("status 99") == "no-such-run"


class Odd(RunnableTask):
    """Says that it returns what no journal keeps."""

    def run(self, context) -> complex:
        return 1j


async def test_a_client_is_warned_of_results_that_the_journal_cannot_keep(tmp_path):
    async with (
        served(tmp_path, MemoryJournal(), tasks=[*TASKS, Odd]),
        over_unix(str(tmp_path / "s")) as client,
    ):
        told = await client.ok("validate " + json.dumps(job("odd", "Odd")))
        (problem,) = told["problems"]
        assert problem["warning"] is True
        assert "complex has no exact form" in problem["message"]
        assert "warning: the journal cannot keep" in "".join(problem_lines(told))
        assert _status("validate", told) == 0
        wrong = json.dumps(job("odd", "Odd") | {"timeout": "soon"})
        assert _status("validate", await client.ok(f"validate {wrong}")) != 0
        assert await client.ok("define " + json.dumps(job("odd", "Odd")))

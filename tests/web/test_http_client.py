"""The client over HTTP: commands by their names, errors with their codes, events that go on after a break."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest

from scattersphere import JobDefinition, RunFailedError, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.table import COMMANDS
from scattersphere.remote import RemoteClient, TokenFile
from scattersphere.web import client as http_client
from scattersphere.web.client import DisconnectedError, HttpClient, RemoteError, connect, following

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves the generators inside its streams to the collector, which trio warns of.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning"
    ),
]


class Work(RunnableTask):
    value: int = 1

    async def run(self, context):
        if self.value < 0:
            raise ValueError("below nothing")
        context.log.info("worked")
        return self.value


def furnish(server):
    server.register_tasks("app", [Work])
    job = JobDefinition.build("night", params={"n": 3})
    server.define(job.task("one", "Work", args={"value": {"$param": "n"}}).done())


def asked(server, **more):
    async def authorize(scope):
        return Principal(user="ada", role=Role.ADMIN)

    app = web.app(server, **({"authorize": authorize} | more))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False))


def test_it_has_the_methods_of_the_line_protocols_client():
    own = {"subscribed", "open", "read_for_ever", "make_room"}  # of a session, which there is none of here
    theirs = {name for name in vars(RemoteClient) if not name.startswith("_")} - own
    assert theirs <= set(vars(HttpClient))


async def test_commands_are_carried_out_by_their_names():
    async with (
        Server() as server,
        connect("http://localhost", http=asked(furnish(server) or server)) as client,
    ):
        assert (client.greeting["user"], client.greeting["role"]) == ("ada", "admin")
        assert client.greeting["instance"]
        run = await client.start("night", {"n": 5}, key="k")
        assert await client.start("night", {"n": 5}, key="k") == run
        assert await client.wait(run, 60) == "succeeded"
        assert (await client.call("result", run=run, task="one"))["result"] == 5
        assert (await client.run("night"))["state"] == "succeeded"
        with pytest.raises(RunFailedError, match="below nothing") as failed:
            await client.run("night", {"n": -1})
        assert failed.value.run["state"] == "failed"
        started = await client.start_task("Work", {"value": 7})
        assert await client.wait(started, 60) == "succeeded"
        assert (await client.call("result", run=started, task="Work"))["result"] == 7
        assert (await client.run_task("Work"))["state"] == "succeeded"
        with pytest.raises(RunFailedError, match="below nothing"):
            await client.run_task("Work", {"value": -2})
        text = JobDefinition.build("new").task("a", "Work").done().dumps()
        assert (await client.call("define", definition=json.loads(text)))["job"] == "new"
        assert (await client.call("define", definition=text, replace=True))["job"] == "new"
        assert (await client.call("undefine", job="new")) == {"job": "new"}
        assert [row["run"] for row in (await client.call("runs", state="failed", limit=5))["runs"]] == [6, 3]


async def test_each_command_with_an_address_can_be_asked_and_others_are_refused_in_words():
    async with (
        Server() as server,
        connect("http://localhost", http=asked(furnish(server) or server)) as client,
    ):
        values = {"job": "none", "run": 99, "task": "none.None", "name": "none", "path": "none.None", "schedule": "none", "file": "none.py",
                  "definition": {}, "since": "2026-11-01T00:00:00Z", "until": "2026-11-01T00:00:00Z"}  # fmt: skip
        for row in COMMANDS.values():
            given = {
                name: values[name]
                for name, taken in row.arguments.items()
                if taken.required and name in values
            }
            if row.method is None or row.streaming:
                with pytest.raises(RemoteError, match=f"unsupported: {row.name} is not for HTTP"):
                    await client.call(row.name, **given)
                continue
            code = "ok"
            try:
                await client.call(row.name, **given)
            except RemoteError as error:
                code = error.code
            assert code not in {"unknown-command", "bad-request", "bad-args"}, row.name
        with pytest.raises(RemoteError, match="unknown-command"):
            await client.call("dance")


async def test_what_is_wrong_has_its_code_and_all_problems(tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.create("ci", Role.VIEWER)
    async with Server() as server:
        furnish(server)
        with pytest.raises(RemoteError) as wrong:
            async with connect(
                "http://localhost", token="guess", http=asked(server, authorize=None, tokens=tokens)
            ):
                pass
        assert wrong.value.code == "auth-required"
        async with connect(
            "http://localhost", token=secret, http=asked(server, authorize=None, tokens=tokens)
        ) as client:
            with pytest.raises(RemoteError) as refused:
                await client.start("night")
            assert refused.value.code == "forbidden"
        async with connect("http://localhost", http=asked(server)) as client:
            with pytest.raises(RemoteError) as refused:
                await client.start("night", {"n": "x", "m": 1})
        assert refused.value.code == "invalid-job"
        assert [problem["path"] for problem in refused.value.error["problems"]] == ["params.m", "params.n"]


async def test_events_of_a_run_come_in_order_to_its_end():
    async with Server() as server:
        furnish(server)
        run = await (await server.start("night")).wait()
        async with connect("http://localhost", http=asked(server)) as client:
            events = [event async for event in await client.follow(run.id)]
            assert (events[0]["event"], events[-1]["event"]) == ("run-started", "run-ended")
            rest = await client.follow(run.id, since=events[-2]["seq"])
            assert [event["event"] async for event in rest] == ["run-ended"]
            logs = [event["message"] async for event in await client.follow(run.id, kinds=["log"])]
            assert logs[-1] == "worked"
            with pytest.raises(RemoteError, match="no-such-run"):
                await client.follow(99)


class Breaking(httpx.AsyncBaseTransport):
    """A server whose streams end after two events each, before the third is whole; `instances` are who it says it is."""

    def __init__(self, events, instances):
        self._events, self._instances = events, list(instances)
        self.asked = []

    async def handle_async_request(self, request):
        instance = self._instances[0] if len(self._instances) == 1 else self._instances.pop(0)
        headers = {http_client.INSTANCE: instance}
        if request.url.path.endswith("whoami"):
            return httpx.Response(200, json={"user": "ada"}, headers=headers)
        since = int(request.headers.get("last-event-id", 0))
        self.asked.append(since)
        blocks = [
            b"id: %d\nevent: log\ndata: %s\n\n" % (n, json.dumps({"event": "log", "seq": n}).encode())
            for n in range(since + 1, self._events + 1)
        ]
        whole = len(blocks) <= 2
        return httpx.Response(
            200, headers=headers, stream=Stream(blocks[:2], blocks[2:3] if not whole else [])
        )


class Stream(httpx.AsyncByteStream):
    def __init__(self, blocks, cut):
        self._blocks, self._cut = blocks, cut

    async def __aiter__(self):
        for block in self._blocks:
            yield block
        for block in self._cut:
            yield block[:9]
            raise httpx.ReadError("connection reset")
        yield b": alive\n\nevent: end\ndata: {}\n\n"


async def test_after_a_break_events_go_on_where_they_were_and_none_comes_twice():
    broken = Breaking(5, ["a"])
    async with (
        httpx.AsyncClient(transport=broken) as http,
        following("http://x", 7, http=http, pause=0) as events,
    ):
        assert [event["seq"] async for event in events] == [1, 2, 3, 4, 5]
    assert broken.asked == [0, 2, 4]


async def test_a_server_that_was_started_anew_has_other_runs():
    broken = Breaking(5, ["a", "a", "b"])
    async with (
        httpx.AsyncClient(transport=broken) as http,
        following("http://x", 7, http=http, pause=0) as events,
    ):
        assert [(await anext(events))["seq"] for _ in range(2)] == [1, 2]
        with pytest.raises(DisconnectedError, match="started anew"):
            await anext(events)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>a proxy says hello"),
        httpx.Response(502, content=b"Bad Gateway"),
        httpx.Response(200, content=b"[]"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(302, headers={"location": "http://evil.example"}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=b'{"x": NaN}'),
        httpx.Response(200, content=b'{"x": 1e400}'),
    ],
)
async def test_what_is_no_server_of_ours_is_told_as_such(answer):
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as http:
        with pytest.raises(DisconnectedError, match="no server of Scattersphere"):
            async with connect("http://x", http=http):
                pass


async def test_nobody_there_is_an_os_error():
    with pytest.raises(OSError, match=r"."):
        async with connect("http://127.0.0.1:1"):
            pass


async def test_a_reply_without_an_end_is_given_up():
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await anyio.lowlevel.checkpoint()
                yield b"x" * (1 << 20)

    def answer(request):
        if request.url.path.endswith("whoami"):
            return httpx.Response(200, json={"user": "ada"})
        return httpx.Response(200, stream=Endless())

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
        connect("http://x", http=http) as client,
    ):
        with pytest.raises(DisconnectedError, match="line-too-long"):
            await client.call("runs")
        with pytest.raises(DisconnectedError, match="line-too-long"):
            await anext(await client.follow(1))


async def test_a_failed_run_is_told_by_its_one_reply_and_no_text_of_a_server_reaches_the_terminal_as_it_is():
    paths = []

    def answer(request):
        paths.append(request.url.path.rpartition("/")[2])
        if paths[-1] == "whoami":
            return httpx.Response(200, json={"user": "ada"})
        return httpx.Response(200, json={"run": 7, "state": "failed\x1b[2J", "why": "\x1b[31mred"})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
        connect("http://x", http=http) as client,
    ):
        with pytest.raises(RunFailedError, match="red") as failed:
            await client.run("night")
        assert str(failed.value).isprintable()
        assert failed.value.run["run"] == 7
        assert (await client.wait(7)).isprintable()
        assert len(paths) == 3

"""Sessions over real sockets: what a client sees of the commands, the limits and the end."""

import json
import random
import select
import socket
import struct

import anyio
import anyio.lowlevel
import attrs
import pytest
from patience import PATIENCE
from wire import Client, connected, job, port_of, raw, served, until

from scattersphere import Server
from scattersphere.remote import Limits, ListenError, listen, listener

pytestmark = pytest.mark.anyio


async def define(client, name, task="Say", **args):
    return await client.ok("define " + json.dumps(job(name, task, **args)))


async def test_a_session_from_greeting_to_goodbye(front):
    async with front.client(None) as client:
        assert client.greeting["scattersphere"]["protocol"] == [2]
        assert await client.ok("ping") == {"pong": True}
        assert await client.code("jobs") == "auth-required"
        assert await client.ok(f"auth {front.tokens['admin']}") == {"user": "a-admin", "role": "admin"}
        await client.send("quit")
        assert await client.rest_of_it() == [{"n": 4, "result": {}}, {"bye": {"code": "quit"}}]


async def test_jobs_are_defined_run_watched_and_told(front):
    async with front.client() as client:
        rows = (await client.ok("tasks"))["tasks"]
        assert {
            "task": "Say",
            "bundle": "app",
            "parameters": ['text: str = "hello"'],
            "summary": "Say something.",
        } in rows
        assert await define(client, "hi", text="x") == {"job": "hi", "state": "ready", "problems": []}
        assert (await client.ok("jobs"))["jobs"][0]["state"] == "ready"
        assert await client.ok("start hi") == {"run": 1}
        assert await client.ok("wait 1") == {"run": 1, "state": "succeeded"}
        status = await client.ok("status 1")
        assert (status["state"], status["counts"]) == ("succeeded", {"succeeded": 1})
        assert await client.ok("result 1 only") == {"run": 1, "task": "only", "result": "x"}
        assert (await client.ok("result 1"))["results"] == {"only": "x"}
        lines = (await client.ok("logs 1 only tail=5"))["lines"]
        assert "said x" in [line["message"] for line in lines]
        assert "succeeded" in (await client.ok("explain 1"))["text"]
        assert [row["run"] for row in (await client.ok("runs hi succeeded"))["runs"]] == [1]
        assert (await client.ok("job hi"))["definition"]["name"] == "hi"
        assert await client.ok("undefine hi") == {"job": "hi"}
        assert await client.code("start hi") == "no-such-job"


async def test_a_run_is_paused_resumed_stopped_and_cancelled(front):
    async with front.client() as client:
        await define(client, "long", "Forever")
        await client.ok("start long")
        assert (await client.ok("pause 1"))["state"] in {"pausing", "paused"}
        assert (await client.ok("resume 1"))["state"] == "running"
        assert (await client.ok("cancel 1 enough"))["state"] in {"cancelling", "cancelled"}
        assert (await client.ok("wait 1"))["state"] == "cancelled"
        assert "enough (a-admin)" in (await client.ok("status 1"))["reason"]
        assert await client.code("pause 1") == "conflict"
        await client.ok("start long")
        await client.ok("kill 2")
        assert (await client.ok("wait 2"))["state"] == "cancelled"


async def test_a_failure_is_explained(front):
    async with front.client() as client:
        await define(client, "bad", "Boom")
        await client.ok("start bad")
        assert (await client.ok("wait 1"))["state"] == "failed"
        assert "ValueError: boom" in (await client.ok("explain 1"))["text"]
        assert await client.code("result 1 only") == "conflict"


async def test_one_task_runs_by_itself_and_a_key_gives_the_same_run(front):
    async with front.client() as client:
        assert await client.ok("start-task Say text=a key=k") == {"run": 1}
        assert await client.ok("start-task Say text=a key=k") == {"run": 1}
        assert await client.ok("start-task Say text=a") == {"run": 2}
    async with front.client("operator") as other:
        assert await other.ok("start-task Say text=a key=k") == {"run": 3}


async def test_following_a_run_gives_its_events_then_the_end(front):
    async with front.client() as client:
        await define(client, "hi")
        await client.ok("start hi")
        await client.ok("wait 1")
        reply = await client.ok("follow 1 since=0")
        assert reply == {"subscription": 1, "run": 1, "state": "succeeded", "next": 1}
        events = []
        while (event := await client.read())["event"] != "end":
            events.append(event)
        assert event == {"event": "end", "sub": 1}
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["event"] == "run-ended"
        assert events[-1]["state"] == "succeeded"
        assert events[0]["ts"].endswith("Z")
        assert {"task-started", "task-progress", "task-ended"} <= {event["event"] for event in events}


async def test_kinds_filter_and_the_numbers_show_the_gaps(front):
    async with front.client() as client:
        await define(client, "hi")
        await client.ok("start hi")
        await client.ok("wait 1")
        await client.ok("follow 1 kinds=progress since=0")
        (event, end) = (await client.read(), await client.read())
        assert (event["event"], end["event"]) == ("task-progress", "end")
        assert event["seq"] > 1
        assert await client.code("follow 1 kinds=jobs") == "bad-args"


async def test_the_servers_stream_tells_of_jobs_and_runs_as_they_happen(front):
    async with front.client() as watcher, front.client() as client:
        await watcher.ok("follow kinds=jobs,runs")
        await define(client, "hi")
        await client.ok("start hi")
        seen = []
        while "run-ended" not in seen:
            seen.append((await watcher.read())["event"])
        assert seen[0] == "job-defined"
        assert "run-started" in seen
        assert await watcher.ok("unfollow 1") == {"subscription": 1}
        assert await watcher.code("unfollow 1") == "no-such-subscription"


async def test_a_slow_reader_is_told_what_it_missed_and_others_are_not_slowed(tmp_path):
    limits = attrs.evolve(Limits(), output=2_000)
    async with served(tmp_path, limits=limits) as front, front.client() as client:
        await define(client, "long", "Forever")
        await client.ok("start long")
        await client.ok("follow 1")
        async with front.client() as other:
            assert await other.ok("ping") == {"pong": True}


async def test_a_wait_is_cut_short_by_its_time_and_does_not_block_others(front):
    async with front.client() as client, front.client() as other:
        await define(client, "long", "Forever")
        await client.ok("start long")
        assert await client.code("wait 1 timeout=0.01") == "timeout"
        await client.send("wait 1")
        assert await other.ok("cancel 1") == {"run": 1, "state": "cancelling"}
        ended = (await client.read())["result"]
        assert (ended["run"], ended["state"]) == (1, "cancelled")
        assert "because: asked by" in ended["why"]


async def test_a_half_close_is_answered_in_full(front):
    async with front.client() as client:
        await define(client, "hi")
        await client.send("start hi", "wait 1", "runs")
        await client.stream.send_eof()
        *replies, bye = await client.rest_of_it()
        assert [reply["n"] for reply in replies] == [3, 5, 4]  # `wait` is answered when it is over
        assert replies[2]["result"]["state"] == "succeeded"
        assert bye == {"bye": {"code": "end"}}


async def test_a_client_that_vanishes_leaves_its_runs_and_nothing_else(front):
    async with front.client() as client:
        await define(client, "long", "Forever")
        await client.ok("start long")
        await client.ok("follow 1")
    async with front.client() as client:
        await until(lambda: len(front.listening.gateway.sessions) == 1)
        assert (await client.ok("status 1"))["state"] == "running"


async def test_closing_says_goodbye_and_the_port_is_free_at_once(front):
    async with front.client() as client:
        await define(client, "long", "Forever")
        await client.ok("start long")
        (record,) = front.listening.gateway.sessions.values()
        before = record.session.requests
        await client.send("wait 1")
        await until(lambda: record.session.requests > before)
        port = port_of(front.listening)
        async with anyio.create_task_group() as group:
            group.start_soon(front.listening.aclose)
            said = await client.rest_of_it()
        assert said[0]["error"]["code"] == "shutting-down"
        assert said[-1] == {"bye": {"code": "shutting-down"}}
        again = listen(front.server, tcp=f"127.0.0.1:{port}", tokens=front.file)
        async with again, connected(again, front.tokens["viewer"]) as new:
            assert await new.ok("ping") == {"pong": True}


async def test_await_and_several_listeners_and_closing_twice(tmp_path):
    async with Server() as server:
        listening = await listen(server, unix=tmp_path / "private" / "socket")
        assert listening.addresses == (f"unix://{tmp_path}/private/socket",)
        await listening.aclose()
        await listening.aclose()
        assert not (tmp_path / "private" / "socket").exists()


async def test_bound_sockets_and_port_0_and_unix_listen_side_by_side(tmp_path, front):
    """Several listeners in one call, and several calls on one Server."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    addresses = ["127.0.0.1:0", "127.0.0.1:0"]
    options = {"sockets": [bound], "tcp": addresses, "unix": tmp_path / "run" / "s", "tokens": front.file}
    async with front.server.listen(**options) as several:
        assert several.addresses[0] == f"tcp://127.0.0.1:{port}"
        assert several.addresses[3] == f"unix://{tmp_path}/run/s"
        ports = {int(address.rpartition(":")[2]) for address in several.addresses[:3]}
        assert len(ports) == 3
        assert 0 not in ports
        for each in (*ports, port_of(front.listening)):
            async with await anyio.connect_tcp("127.0.0.1", each) as stream:
                assert "scattersphere" in await Client(stream).read()


async def test_limits_on_sessions_are_told_before_the_close(tmp_path):
    limits = attrs.evolve(Limits(), sessions_of_source=1)
    async with served(tmp_path, limits=limits) as front, front.client(), raw(front.listening) as stream:
        said = await Client(stream).rest_of_it()
        assert said[0]["error"]["code"] == "busy"
        assert said[-1] == {"bye": {"code": "busy"}}


async def test_who_does_not_authenticate_in_time_has_to_go(tmp_path):
    limits = attrs.evolve(Limits(), auth_time=0.05)
    async with served(tmp_path, limits=limits) as front, front.client(None) as client:
        assert await client.rest_of_it() == [{"bye": {"code": "auth-required"}}]


async def test_an_idle_session_is_ended_and_one_that_follows_is_not(tmp_path):
    async with served(tmp_path) as front, front.client() as idle, front.client() as follower:
        await follower.ok("follow")
        for record in front.listening.gateway.sessions.values():
            record.session.limits = attrs.evolve(Limits(), idle=0.1)  # not before: to come in takes its time
        await idle.ok("ping")  # the deadline is looked up anew after each command
        assert await idle.rest_of_it() == [{"bye": {"code": "idle"}}]
        assert await follower.ok("ping") == {"pong": True}


async def test_a_revoked_token_ends_its_sessions(front):
    async with front.client("runner") as client, front.client() as other:
        front.file.revoke("a-runner")
        assert await client.rest_of_it() == [
            {"bye": {"code": "auth-failed", "message": "the token was revoked or has expired"}}
        ]
        assert await other.ok("ping") == {"pong": True}


async def test_a_defect_is_an_incident_number_and_its_traceback_stays_in_the_log(front, caplog, monkeypatch):
    """The incident class: tracebacks that leak paths and secrets."""

    def broken():
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(front.server, "stats", broken)
    async with front.client() as client:
        reply = await client.ask("stats")
        assert reply["error"]["code"] == "internal"
        assert "hunter2" not in json.dumps(reply)
        assert reply["error"]["incident"] in caplog.text
        assert "hunter2" in caplog.text
        assert await client.ok("ping") == {"pong": True}


async def test_problems_come_once_and_a_number_typed_as_text_gets_a_suggestion(front):
    async with front.client() as client:
        definition = {**job("n"), "params": {"n": {"type": "integer"}}}
        await client.ok("define " + json.dumps(definition))
        error = (await client.ask("start n n=10"))["error"]
        assert "\n" not in error["message"]
        assert [problem["suggestion"] for problem in error["problems"]] == ["n:=10"]
        error = (await client.ask('{"cmd":"run","args":{"job":"n","params":{"n":"10"}}}'))["error"]
        assert "suggestion" not in error["problems"][0]
        assert await client.ok("start n n:=10") == {"run": 1}


async def test_logs_tell_from_where_to_follow(front):
    async with front.client() as client:
        await define(client, "long", "Forever")
        await client.ok("start long")
        following = (await client.ok("logs 1"))["next"]
        await client.ok("cancel 1")
        assert (await client.ok(f"follow 1 since={following - 1}"))["next"] == following
        assert (await client.read())["seq"] == following


def burst(listening, number):
    """Connect so many clients, without a turn of the loop between."""
    clients = [socket.socket() for _ in range(number)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port_of(listening)))
    return clients


def arrived(clients):
    _, writable, _ = select.select([], clients, [], 0)
    return sum(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for client in writable)


async def test_a_burst_of_connects_is_kept_until_it_is_accepted_and_each_hears_a_word(front):
    """The system kept 128, and one was accepted a turn: 450 of 1,000 clients heard nothing."""
    clients = burst(front.listening, 300)
    try:
        assert arrived(clients) == 300
        told = []
        for client in clients:
            await anyio.wait_readable(client)
            message = json.loads(client.recv(4_096).splitlines()[0])
            told.append("busy" if "error" in message else "greeted")
        assert told.count("greeted") == front.listening.gateway.limits.sessions_of_source
        assert front.listening.gateway.refused == told.count("busy")
    finally:
        for client in clients:
            client.close()


async def test_all_connections_that_wait_are_accepted_in_one_turn(front, monkeypatch):
    accepted, at_once = [], []
    real = listener.accept_one

    def counted(listening):
        try:
            accepted.append(real(listening))
        except BlockingIOError:
            at_once.append(len(accepted))
            raise
        return accepted[-1]

    monkeypatch.setattr(listener, "accept_one", counted)
    clients = burst(front.listening, 100)
    await until(lambda: at_once)
    assert at_once[0] == 100
    for client in clients:
        client.close()


async def test_a_flood_of_refused_connections_costs_a_number_and_no_line_of_the_log(tmp_path, caplog):
    """Each refused connection that closed was an incident with a traceback."""
    caplog.set_level("DEBUG", "scattersphere")
    limits = attrs.evolve(Limits(), sessions_of_source=1, linger=0.1)
    async with served(tmp_path, limits=limits) as front, front.client() as client:
        for _ in range(50):
            for each in burst(front.listening, 5):
                each.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", random.randrange(2), 0)
                )
                each.close()
            await anyio.lowlevel.checkpoint()
        await until(lambda: front.listening.gateway.refused > 50)
        assert (await client.ok("stats"))["refused"] > 50
    assert [record for record in caplog.records if record.name.startswith("scattersphere.remote")] == []


async def test_a_listener_that_is_of_no_use_any_more_ends_and_says_so(front):
    """Its process lived on, deaf."""
    async with front.client() as client:
        for each in front.listening._sockets:
            each.shutdown(socket.SHUT_RDWR)
        assert (await client.rest_of_it())[-1] == {"bye": {"code": "shutting-down"}}
    with anyio.fail_after(PATIENCE), pytest.raises(ListenError, match="no longer listening on tcp://"):
        await front.listening.wait_closed()


async def test_a_listener_that_was_closed_has_ended_well(tmp_path):
    async with served(tmp_path) as front:
        await front.listening.aclose()
        await front.listening.wait_closed()

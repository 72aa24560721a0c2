"""The Python client: pipelining, events, what the server refuses, and breaks."""

import anyio
import pytest
from wire import job, port_of, served, until

from scattersphere import JobDefinition, RunFailedError, Server
from scattersphere.remote import DisconnectedError, RemoteError, connect, find_token, following

pytestmark = pytest.mark.anyio


def where(front):
    return f"127.0.0.1:{port_of(front.listening)}"


async def define(client, name, task="Say", **args):
    await client.call("define", definition=job(name, task, **args))


async def test_many_tasks_share_one_connection_and_each_gets_its_own_reply(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        answers = {}

        async def ask(number):
            try:
                answers[number] = await client.call("status", run=number)
            except RemoteError as exc:
                answers[number] = str(exc)

        async with anyio.create_task_group() as group:
            for number in range(1, 51):
                group.start_soon(ask, number)
        assert answers == {number: f"no-such-run: no run {number}" for number in range(1, 51)}


async def test_events_are_an_async_iterator_up_to_the_end(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        await define(client, "hi", text="x")
        run = await client.start("hi", key="once")
        assert await client.start("hi", key="once") == run
        assert await client.wait(run, 10) == "succeeded"
        events = await client.follow(run, since=0)
        seen = [event["seq"] async for event in events]
        assert seen == list(range(1, len(seen) + 1))
        assert events.last == seen[-1]
        assert (await client.call("result", run=run))["results"] == {"only": "x"}


async def test_a_refusal_keeps_its_code(front):
    with pytest.raises(RemoteError, match="auth-failed"):
        async with connect(where(front), token="wrong"):
            pass
    async with connect(where(front), token=front.tokens["viewer"]) as client:
        with pytest.raises(RemoteError) as caught:
            await client.call("shutdown")
        assert caught.value.code == "forbidden"
        assert await client.call("ping") == {"pong": True}


async def test_who_waits_is_told_of_the_end_of_the_connection(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        await define(client, "long", "Forever")
        run = await client.start("long")
        events = await client.follow(run)
        await front.listening.aclose()
        with pytest.raises(DisconnectedError, match="shutting-down"):
            await anext(events)
        with pytest.raises(DisconnectedError):
            await client.call("ping")


async def test_following_goes_on_over_breaks_with_no_event_lost_or_doubled(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        await define(client, "long", "Forever")
        run = await client.start("long")
        follow = following(where(front), run, since=0, token=front.tokens["viewer"], pause=0.01)
        async with follow as events:
            seen = [await anext(events)]
            for command in ("pause", "resume", "pause", "cancel"):
                for connection in front.listening.gateway.sessions.values():
                    if connection.session.principal.user == "a-viewer":
                        connection.drop()
                await client.call(command, run=run)
                seen.append(await anext(events))
            seen += [event async for event in events]
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["event"] == "run-ended"


async def test_following_a_run_that_is_not_there_or_a_server_that_is_not_there_is_an_error(front):
    async with following(where(front), 9, token=front.tokens["viewer"]) as events:
        with pytest.raises(RemoteError, match="no run 9"):
            await anext(events)
    await front.listening.aclose()
    async with following(where(front), 9, token=front.tokens["viewer"]) as events:
        with pytest.raises(OSError, match="connect"):
            await anext(events)


async def test_following_a_run_ends_where_the_server_was_started_anew(front):
    """The numbers of its runs are others: going on would show the events of a stranger."""
    port = where(front)
    async with connect(port, token=front.tokens["admin"]) as client:
        await define(client, "long", "Forever")
        run = await client.start("long")
    async with following(port, run, token=front.tokens["viewer"], pause=0.01) as events:
        await until(lambda: any(c.session.follows for c in front.listening.gateway.sessions.values()))
        await front.server.aclose()
        async with Server() as server, server.listen(tcp=port, tokens=front.file):
            with pytest.raises(DisconnectedError, match="started anew"):
                assert [event async for event in events] == []


async def test_following_a_server_goes_on_when_it_was_started_anew(front):
    port = where(front)
    async with following(port, since=0, token=front.tokens["viewer"], pause=0.01) as events:
        assert (await anext(events))["event"] == "bundle-loaded"
        await front.server.aclose()
        async with Server() as server, server.listen(tcp=port, tokens=front.file) as listening:
            server.define(JobDefinition.build("first").done())
            seen = []
            while not seen or seen[-1]["event"] != "server-started":
                seen.append(await anext(events))
            assert seen[-1] == {"event": "server-started", "instance": listening.gateway.instance}
            told = await anext(events)
            assert (told["event"], told["job"], told["seq"]) == ("job-defined", "first", 1)
            for connection in listening.gateway.sessions.values():
                connection.drop()  # an ordinary break of the new one
            server.define(JobDefinition.build("second").done())
            told = await anext(events)
            assert (told["job"], told["seq"]) == ("second", 2)


async def test_run_raises_where_the_run_does_not_succeed_and_says_why(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        await define(client, "bad", "Boom")
        with pytest.raises(RunFailedError, match=r"run 1 of bad failed: only: .*ValueError") as failed:
            await client.run("bad")
        assert (failed.value.run["run"], failed.value.run["state"]) == (1, "failed")
        assert (await client.call("wait", run=1))["why"] == str(failed.value)
        await define(client, "good", "Say")
        assert await client.run("good") == {"run": 2, "state": "succeeded"}


async def test_one_task_is_started_and_run_as_a_job_is(front):
    async with connect(where(front), token=front.tokens["admin"]) as client:
        run = await client.start_task("Say", key="k")
        assert await client.start_task("Say", key="k") == run
        assert await client.wait(run) == "succeeded"
        assert await client.run_task("Say") == {"run": run + 1, "state": "succeeded"}
        with pytest.raises(RunFailedError, match=r"run 3 of Boom failed: Boom: .*ValueError") as failed:
            await client.run_task("Boom")
        assert failed.value.run["state"] == "failed"


async def test_following_gives_up_after_its_patience(front):
    follow = following(where(front), None, token=front.tokens["viewer"], pause=0.01, patience=0.05)
    async with follow as events:
        await until(lambda: any(c.session.follows for c in front.listening.gateway.sessions.values()))
        await front.server.aclose()
        with pytest.raises(OSError, match="connect"):
            await anext(events)


async def test_who_leaves_early_leaves_nothing_behind_and_keeps_his_own_error(front):
    async def leave_early():
        async with following(where(front), None, token=front.tokens["viewer"]):
            await until(lambda: front.listening.gateway.sessions)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await leave_early()
    await until(lambda: not front.listening.gateway.sessions)


async def test_a_server_that_speaks_something_else_is_told_apart():
    async def other(stream):
        async with stream:
            await stream.send(b"220 smtp\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, other)
        port = listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(DisconnectedError, match="no server of Scattersphere"):
            async with connect(f"127.0.0.1:{port}"):
                pass
        group.cancel_scope.cancel()


def test_a_token_comes_from_a_file_or_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "t").write_text("ss1_x\n")
    monkeypatch.setenv("SCATTERSPHERE_TOKEN", "ss1_y")
    assert find_token(tmp_path / "t") == "ss1_x"
    assert find_token() == "ss1_y"
    monkeypatch.delenv("SCATTERSPHERE_TOKEN")
    assert find_token() is None


async def test_a_full_server_says_so(tmp_path):
    import attrs

    from scattersphere.remote import Limits

    async with served(tmp_path, limits=attrs.evolve(Limits(), sessions=1)) as front, front.client():
        with pytest.raises(RemoteError, match="busy"):
            async with connect(where(front)):
                pass


async def test_a_token_that_is_not_needed_is_refused_with_what_to_do(tmp_path):
    """With SCATTERSPHERE_TOKEN set, a unix socket said only that the session was authenticated."""
    tmp_path.chmod(0o700)
    async with Server(watch=False) as server, server.listen(unix=tmp_path / "socket"):
        with pytest.raises(RemoteError, match=r"acts for uid=.* already; leave the token out") as refused:
            async with connect(f"unix:{tmp_path / 'socket'}", token="ss1_any"):
                pass
        assert refused.value.code == "conflict"
        async with connect(f"unix:{tmp_path / 'socket'}") as client:
            assert (await client.call("whoami"))["role"] == "admin"

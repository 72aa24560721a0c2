# ruff: noqa: BLE001 - whatever the copies raise is what is looked at
"""A child made by `fork` holds copies of everything, which do nothing but say that they were forked."""

import inspect
import json
import os
import warnings
from contextlib import suppress

import anyio
import pytest
from patience import PATIENCE

from scattersphere import ClosedError, ForkedError, RunnableTask, RunState, Server
from scattersphere.engine.run import Run
from scattersphere.sync import SyncRun, SyncServer


class Wait(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


class Say(RunnableTask):
    """Say something."""

    async def run(self, context):
        context.log.info("said")
        return 1


def in_forked_child(function):
    """Run `function` in a child made by a real fork, and return what it returns there."""
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # that forking with threads is dangerous is the point
        child = os.fork()
    if child == 0:
        try:
            with suppress(BaseException):
                os.write(into, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(child, 0)
    return answer


def answers(thing):
    """Use every public name of an object, and return what each did."""
    found = {}
    for name in dir(type(thing)):
        if name.startswith("_") or name == "home":
            continue
        try:
            value = getattr(thing, name)
            value = value() if callable(value) else value
            if inspect.iscoroutine(value):
                value.send(None)
            found[name] = f"returned {value!r}"
        except BaseException as exc:
            found[name] = type(exc).__name__
    return found


def all_refused(*things):
    refused = {}
    for thing in things:
        for name, answer in answers(thing).items():
            refused[f"{type(thing).__name__}.{name}"] = answer
    return refused


@pytest.mark.anyio
async def test_every_public_entry_of_a_server_and_a_run_refuses_in_a_forked_child():
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Wait, Say])
        run = await server.start_task("Wait")
        done = await (await server.start_task("Say")).wait(PATIENCE)
        found = in_forked_child(lambda: all_refused(server, run, done))
        assert set(found.values()) == {"ForkedError"}, found
        assert {"Server.start", "Server.aclose", "Server.registry", "Run.cancel", "Run.wait"} <= set(found)
        assert repr(run) in in_forked_child(lambda: [repr(server), repr(run)])
        # The parent has noticed nothing.
        assert run.state is RunState.RUNNING
        assert (await (await server.start_task("Say")).wait(PATIENCE)).succeeded


@pytest.mark.anyio
async def test_the_error_says_what_happened_and_what_to_do():
    async with Server() as server:

        def message():
            try:
                server.stats()
            except ForkedError as exc:
                return str(exc)

        words = in_forked_child(message)
    assert str(os.getpid()) in words
    assert "was forked" in words
    assert "Make a Server of its own here" in words


@pytest.mark.anyio
async def test_a_child_that_leaves_the_with_block_harms_no_worker_of_the_parent():
    async with Server(grace=0.1, processes=1) as server:
        server.register_tasks("app", [Say])

        def leave():
            try:
                server.__aexit__(None, None, None).send(None)
            except BaseException as exc:
                return type(exc).__name__

        assert in_forked_child(leave) == "ForkedError"
        assert (await (await server.start_task("Say")).wait(PATIENCE)).succeeded


def test_a_forked_child_may_have_a_server_of_its_own():
    async def main():
        async with Server() as server:
            server.register_tasks("app", [Say])
            return (await (await server.start_task("Say")).wait(PATIENCE)).results["Say"]

    with SyncServer() as server:
        server.register_tasks("app", [Say])
        assert in_forked_child(lambda: anyio.run(main)) == 1
        assert server.start_task("Say").wait(PATIENCE).succeeded


def test_a_blocking_server_refuses_in_a_forked_child_instead_of_hanging():
    with SyncServer(grace=0.1) as server:
        server.register_tasks("app", [Wait, Say])
        run = server.start_task("Wait")
        found = in_forked_child(lambda: all_refused(server, run))
        found |= in_forked_child(lambda: {"with": _leave(server)})
        assert set(found.values()) == {"ForkedError"}, found
        assert {"SyncServer.start", "SyncRun.wait", "SyncRun.results", "with"} <= set(found)
        assert run.state is RunState.RUNNING


def _leave(server):
    try:
        server.__exit__(None, None, None)
    except BaseException as exc:
        return type(exc).__name__


def test_a_blocking_run_can_be_read_after_the_end_and_else_raises_closed_error():
    with SyncServer(grace=0.1) as server:
        server.register_tasks("app", [Wait, Say])
        run, left = server.start_task("Say").wait(PATIENCE), server.start_task("Wait")
    assert run.results == {"Say": 1}
    assert run.tasks["Say"].attempts == 1
    assert [line.message for line in run.logs()] == ["said"]
    assert "Say" in run.explain()
    assert run.wait() is run
    assert left.state is RunState.CANCELLED
    assert "cancelled" in repr(left)
    assert [event.seq for event in run.events()][-1] == run.last_event
    for use in (run.pause, run.resume, run.stop, run.cancel, run.kill):
        with pytest.raises(ClosedError, match="has ended"):
            use()
    for use in (lambda: server.start("job"), server.drain, lambda: server.portal):
        with pytest.raises(ClosedError, match="has ended"):
            use()
    with pytest.raises(ClosedError, match="not running: use it inside"):
        SyncServer().start("job")
    assert isinstance(run, SyncRun)
    assert isinstance(run._original, Run)

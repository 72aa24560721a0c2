"""HTTP under load: what readers, silent senders and large bodies cost stays bounded, and a neighbour gets its turns.

Only counted here; times are measured by `python -m benchmarks http`.
"""

from __future__ import annotations

import threading
from itertools import pairwise

import anyio
import anyio.from_thread
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.handlers import jobs
from scattersphere.commands.limits import Limits
from scattersphere.jobs import jobs as defining
from scattersphere.web import calls
from scattersphere.web.feed import KEPT, Feed
from scattersphere.web.turns import BEGIN

pytestmark = pytest.mark.anyio
LIMITS = Limits(rate=1e9, burst=10**9)


class Talk(RunnableTask):
    lines: int = 1

    async def run(self, context):
        for number in range(self.lines):
            context.log.info("line %d", number)


def application(server, limits=LIMITS):
    async def authorize(scope):
        return Principal(user="ada", role=Role.ADMIN)

    server.register_tasks("app", [Talk])
    server.define(
        JobDefinition.build("talk", params={"n": 1})
        .task("one", "Talk", args={"lines": {"$param": "n"}})
        .done()
    )
    return web.app(server, authorize=authorize, limits=limits)


class Asked:
    """A request as a server makes it of bytes: `receive` gives its body, piece by piece, `send` takes the answer."""

    def __init__(self, app, method, path, body=(), headers=()):
        self.app, self.body, self.sent = app, iter(body), []
        self.taken = 0
        self.reads = anyio.Event()
        self.reads.set()
        self.scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"host", b"localhost"), *headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip

    async def receive(self):
        await anyio.lowlevel.checkpoint()
        piece = next(self.body, None)
        if piece is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(self, message):
        await self.reads.wait()
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)

    async def go(self):
        await self.app(self.scope, self.receive, self.send)

    @property
    def status(self):
        return self.sent[0]["status"]


async def test_a_burst_of_requests_begins_a_few_in_each_turn_so_that_a_neighbour_has_its_turns():
    async with Server() as server:
        app = application(server)
        burst = [Asked(app, "GET", "/api/v1/ping") for _ in range(200)]
        turns = []
        async with anyio.create_task_group() as group:
            for request in burst:
                group.start_soon(request.go)
            while not all(request.sent for request in burst):
                turns.append(sum(bool(request.sent) for request in burst))
                await anyio.lowlevel.checkpoint()
        assert {request.status for request in burst} == {200}
        assert max(after - before for before, after in pairwise(turns)) <= 2 * BEGIN


async def test_a_reader_that_takes_nothing_is_given_up():
    async with Server() as server:
        app = application(server, Limits(write_time=0.01))
        run = await (await server.start("talk", {"n": 50})).wait()
        stalled = Asked(app, "GET", f"/api/v1/runs/{run.id}/events")
        stalled.reads = anyio.Event()  # and nobody ever sets it
        await stalled.go()
        assert stalled.sent == []


async def test_a_reader_that_has_gone_leaves_nothing_behind_and_the_others_read_on():
    async with Server() as server:
        app = application(server)
        run = await (await server.start("talk", {"n": 50})).wait()
        gone, reader = (Asked(app, "GET", f"/api/v1/runs/{run.id}/events") for _ in range(2))
        gone.reads = anyio.Event()
        async with anyio.create_task_group() as group, anyio.create_task_group() as leaving:
            leaving.start_soon(gone.go)
            group.start_soon(reader.go)
            await anyio.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        assert gone.sent == []
        assert b"event: end" in b"".join(message.get("body", b"") for message in reader.sent)


async def test_a_body_that_is_too_long_is_not_read_to_its_end():
    async with Server() as server:
        app = application(server)
        piece = b" " * 65_536
        headers = [(b"transfer-encoding", b"chunked")]
        long = Asked(app, "POST", "/api/v1/validate", (piece for _ in range(10_000)), headers)
        await long.go()
        assert long.status == 413
        assert long.taken <= LIMITS.definition + len(piece)


async def test_a_body_that_is_told_to_be_too_long_need_not_come():
    async with Server() as server:
        app = application(server)
        headers = [(b"content-length", str(LIMITS.definition + 1).encode())]
        long = Asked(app, "POST", "/api/v1/validate", (b" " for _ in range(10)), headers)
        await long.go()
        assert (long.status, long.taken) == (413, 0)


async def test_large_bodies_are_read_a_few_at_a_time_and_small_requests_pass_them():
    async with Server() as server:
        app = application(server)
        gate = anyio.Event()
        length = [(b"content-length", b"%d" % (5 << 20))]

        class Slow(Asked):
            async def receive(self):
                if self.taken:
                    await gate.wait()
                return await super().receive()

        large = [Slow(app, "POST", "/api/v1/validate", [b" " * (4 << 20), b"{}"], length) for _ in range(8)]
        small = Asked(app, "GET", "/api/v1/ping")
        async with anyio.create_task_group() as group:
            for request in large:
                group.start_soon(request.go)
            await anyio.wait_all_tasks_blocked()
            assert sum(bool(request.taken) for request in large) == calls.AT_ONCE
            await small.go()
            assert small.status == 200
            gate.set()
        assert {request.status for request in large} == {200}


@pytest.mark.parametrize("path", ["/api/v1/jobs/talk/runs", "/api/v1/rerun", "/api/v1/bundles"])
async def test_only_definitions_may_be_longer_than_a_line(path):
    async with Server() as server:
        app = application(server)
        text = b'{"params": {"n": "' + b"x" * LIMITS.line + b'"}}'
        request = Asked(app, "POST", path, [text], [(b"content-length", b"%d" % len(text))])
        await request.go()
        assert request.status in {404, 405, 413}
        request = Asked(
            app, "POST", "/api/v1/jobs/talk/runs", [text], [(b"content-length", b"%d" % len(text))]
        )
        await request.go()
        assert request.status == 413


async def test_a_definition_of_millions_of_values_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(defining, "read_definition", None)
    for text in (b'{"tasks": [' + b"1," * 2_000_001 + b"1]}", b'{"tasks": [' + b"[" * (1 << 20)):
        async with Server() as server:
            app = application(server)
            request = Asked(app, "POST", "/api/v1/validate", [text], [(b"content-length", b"%d" % len(text))])
            await request.go()
            assert request.status == 413


async def test_large_definitions_are_carried_out_one_after_the_other_and_small_ones_pass_them(monkeypatch):
    reading, most = threading.Semaphore(0), []
    begun, first = [], anyio.Event()
    reads = defining.read_definition

    def slowly(definition):
        if len(definition) > jobs.LARGE_TEXT:
            begun.append(definition)
            most.append(len(begun))
            anyio.from_thread.run_sync(first.set)
            assert reading.acquire(timeout=PATIENCE)
            begun.remove(definition)
        return reads(definition)

    monkeypatch.setattr(defining, "read_definition", slowly)
    text = b'{"name": "a", "tasks": {}, "description": "' + b"x" * (1 << 20) + b'"}'
    length = [(b"content-length", b"%d" % len(text))]
    async with Server() as server:
        app = application(server)
        large = [Asked(app, "POST", "/api/v1/validate", [text], length) for _ in range(3)]
        small = Asked(app, "POST", "/api/v1/validate", [b"{}"])
        async with anyio.create_task_group() as group:
            for request in large:
                group.start_soon(request.go)
            with anyio.fail_after(PATIENCE):
                await first.wait()
                await small.go()
            assert small.status == 200
            reading.release(3)
        assert {request.status for request in large} == {200}
        assert most == [1, 1, 1]


async def test_a_body_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr("scattersphere.web.api.BODY_TIME", 0.01)

    class Silent(Asked):
        async def receive(self):
            await anyio.sleep_forever()

    async with Server() as server:
        silent = Silent(application(server), "POST", "/api/v1/validate", headers=[(b"content-length", b"9")])
        await silent.go()
        assert silent.status == 504


async def test_a_feed_keeps_a_bounded_number_of_events_for_readers_that_are_behind():
    async with Server() as server:
        application(server)
        run = await server.start("talk", {"n": 5 * KEPT})
        feed = Feed(run.events, 0)
        read = []

        async def note(data):
            read.append(data)

        await feed.stream(0, lambda entry: entry.kind == "state", note)
        assert read[-1] == b"event: end\ndata: {}\n\n"
        assert len(feed._entries) < 2 * KEPT

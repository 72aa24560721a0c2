"""Connections of `serve --http` that do not go on: half a head, nothing at all, nobody who reads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
import uvicorn
from patience import PATIENCE
from uvicorn.server import ServerState

from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.commands.access import Role
from scattersphere.commands.gateway import make_gateway
from scattersphere.commands.limits import Limits
from scattersphere.commands.tokens import TokenFile
from scattersphere.web.connections import BoundedProtocol
from scattersphere.web.serving import bind, serve_pages

pytestmark = pytest.mark.anyio
LINE_TIME = 60.0


@pytest.fixture
def anyio_backend():
    return "asyncio"  # as uvicorn is


class Wait(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()


class Clock:
    """Has the timers of connections, which go off when a test lets time go by; for all else it is the loop."""

    def __init__(self):
        self.now, self.timers, self.connections = 0.0, [], []

    def __getattr__(self, name):
        return getattr(asyncio.get_running_loop(), name)

    def call_later(self, delay, call, *args):
        timer = asyncio.TimerHandle(self.now + delay, call, args, asyncio.get_running_loop())
        self.timers.append(timer)
        return timer

    def go_by(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.when() <= self.now]
        self.timers = [timer for timer in self.timers if timer.when() > self.now]
        for timer in due:
            if not timer.cancelled():
                timer._run()

    async def until(self, holds):
        """Wait until it holds for the connection that was made last."""
        with anyio.fail_after(PATIENCE):
            while not (self.connections and holds(self.connections[-1])):  # noqa: ASYNC110
                await anyio.sleep(0.001)

    async def until_begun(self, size=1):
        """Wait until so many bytes of a head have come."""
        await self.until(lambda connection: len(connection.conn.trailing_data[0]) >= size)


@pytest.fixture
def clock(monkeypatch):
    clock, begin = Clock(), BoundedProtocol.__init__

    def made(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        self.loop = clock
        clock.connections.append(self)

    monkeypatch.setattr(BoundedProtocol, "__init__", made)
    return clock


@asynccontextmanager
async def serving(folder, **limits):
    """Serve; yield the Server, the port and the header of an admin."""
    tokens = TokenFile(folder / "tokens.json")
    token = tokens.create("ada", Role.ADMIN)
    async with Server() as server, anyio.create_task_group() as group:
        server.register_tasks("app", [Wait])
        server.define(JobDefinition.build("wait").task("one", "Wait").done())
        gateway = make_gateway(server, tokens=tokens, limits=Limits(**limits))
        listening = bind("127.0.0.1:0")
        group.start_soon(partial(serve_pages, gateway, listening, say=lambda words: None))
        yield server, listening.getsockname()[1], f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        group.cancel_scope.cancel()


async def closed(stream):
    """Read until the peer closes; return what it said."""
    said = b""
    with anyio.fail_after(PATIENCE):
        try:
            while True:
                said += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return said


async def answer(stream):
    """Read one reply with a length; return its first line."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += await stream.receive()
    head, _, body = said.partition(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += await stream.receive()
    return head.split(b"\r\n")[0]


async def test_who_sends_a_head_byte_by_byte_is_told_that_it_is_late_and_closed(tmp_path, clock):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    async with (
        serving(tmp_path, line_time=LINE_TIME) as (_, port, _header),
        await anyio.connect_tcp("127.0.0.1", port) as slow,
    ):
        await slow.send(head)
        for more in range(10):
            await clock.until_begun(len(head) + more)
            clock.go_by(LINE_TIME / 10)
            await slow.send(b"a")
        assert (await closed(slow)).startswith(b"HTTP/1.1 408 ")


async def test_who_says_nothing_is_closed_without_a_word(tmp_path, clock):
    async with (
        serving(tmp_path, line_time=LINE_TIME) as (_, port, _header),
        await anyio.connect_tcp("127.0.0.1", port) as silent,
    ):
        await clock.until(lambda connection: clock.timers)
        clock.go_by(LINE_TIME)
        assert await closed(silent) == b""


async def test_a_second_head_has_no_more_time_than_the_first(tmp_path, clock):
    async with (
        serving(tmp_path, line_time=LINE_TIME) as (_, port, header),
        await anyio.connect_tcp("127.0.0.1", port) as slow,
    ):
        await slow.send(f"GET /api/v1/ping HTTP/1.1\r\n{header}\r\n".encode())
        assert await answer(slow) == b"HTTP/1.1 200 OK"
        await slow.send(b"GET /api/v1/ping HTTP/1.1\r\nHost: lo")
        await clock.until_begun()
        clock.go_by(LINE_TIME)
        assert (await closed(slow)).startswith(b"HTTP/1.1 408 ")


async def test_a_request_that_waits_is_not_late_however_long_it_waits(tmp_path, clock):
    async with (
        serving(tmp_path, line_time=LINE_TIME) as (server, port, header),
        await anyio.connect_tcp("127.0.0.1", port) as waits,
    ):
        run = await server.start("wait")
        await waits.send(f"GET /api/v1/runs/{run.id}/wait HTTP/1.1\r\n{header}\r\n".encode())
        await clock.until(lambda connection: connection.cycle)
        clock.go_by(10 * LINE_TIME)
        run.cancel()
        assert await answer(waits) == b"HTTP/1.1 200 OK"


class Transport(asyncio.Transport):
    """A transport whose peer takes `takes` bytes at each look."""

    def __init__(self, takes):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.waiting, self.takes, self.looks = 1_000, takes, 0
        self.aborted, self.often = asyncio.Event(), asyncio.Event()

    def get_write_buffer_size(self):
        self.looks += 1
        if self.looks > 5:
            self.often.set()
        self.waiting = max(0, self.waiting - self.takes)
        return self.waiting

    def abort(self):
        self.aborted.set()

    def is_closing(self):
        return False

    def resume_reading(self):
        pass


def connected(transport):
    class Quick(BoundedProtocol):
        limits = Limits(write_time=0.01)

    protocol = Quick(uvicorn.Config(lambda: None, log_level="error", ws="none"), ServerState(), {})
    protocol.connection_made(transport)
    return protocol


async def test_a_reply_that_nobody_takes_is_given_up_and_one_that_is_taken_slowly_is_not():
    stalls, slow = Transport(takes=0), Transport(takes=1)
    for each in (stalls, slow):
        connected(each).pause_writing()
    with anyio.fail_after(PATIENCE):
        await stalls.aborted.wait()
        await slow.often.wait()
    assert not slow.aborted.is_set()


async def test_who_takes_a_reply_after_all_is_not_given_up():
    takes, stalls = Transport(takes=0), Transport(takes=0)
    first, second = connected(takes), connected(stalls)
    first.pause_writing()
    first.resume_writing()
    second.pause_writing()
    with anyio.fail_after(PATIENCE):
        await stalls.aborted.wait()
    assert not takes.aborted.is_set()


async def test_a_connection_that_is_lost_leaves_no_timer_behind():
    transport = Transport(takes=0)
    protocol = connected(transport)
    protocol.pause_writing()
    protocol.connection_lost(ConnectionResetError())
    other = Transport(takes=0)
    connected(other).pause_writing()
    with anyio.fail_after(PATIENCE):
        await other.aborted.wait()
    assert not transport.aborted.is_set()

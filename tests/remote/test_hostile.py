"""A catalogue of hostile input, over TCP, TLS and unix sockets, before and after authentication.

Each case is followed by proof that the server is sane: a session that was there before is served at once, and
sessions, tasks and descriptors are back where they were; after all of them, memory is, too.
"""

import gc
import socket
import ssl
import struct
import sys
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import attrs
import pytest
import trustme
from hostile_bytes import CASES
from hostile_manners import MANNERS, TLS_MANNERS
from patience import PATIENCE
from sessions import Driver, codes
from wire import TASKS, Client, connected, job, port_of, served, until

from scattersphere import Server
from scattersphere.commands.errors import CODES
from scattersphere.remote import Limits, Role, TokenFile

pytestmark = pytest.mark.anyio

FDS = Path("/proc/self/fd")
WORDS_OF_THE_END = {"n", "id", "bye", "event"} | CODES


def test_the_catalogue_is_large_enough():
    assert len(CASES) >= 90
    assert len(MANNERS) + len(TLS_MANNERS) >= 45


def replies(role, chunks):
    driver = Driver(role)
    for chunk in chunks:
        driver.feed(chunk)
    driver.end()
    return driver


@pytest.mark.parametrize("role", [None, "admin"])
@pytest.mark.parametrize("name", CASES)
def test_the_pure_session_says_the_same_whole_and_cut_at_every_byte(name, role):
    data = CASES[name]
    whole = replies(role, [data])
    said = whole.said
    for cut in range(0, len(data), 1 if len(data) < 1_000 else len(data) // 20):  # in two
        assert replies(role, [data[:cut], data[cut:]]).said == said
    assert replies(role, [data[at : at + 1] for at in range(len(data))]).said == said  # in bytes
    messages = whole.messages()
    assert set(codes(messages)) <= WORDS_OF_THE_END
    assert list(messages[-1]) == ["bye"]
    numbers = [message["n"] for message in messages if "n" in message]
    assert numbers == list(range(1, whole.session.requests + 1))


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def descriptors():
    return len(list(FDS.iterdir())) if FDS.is_dir() else 0


LIMITS = attrs.evolve(
    Limits(), linger=0.005, line_time=0.3, auth_time=5.0, write_time=0.3, output=50_000, sessions_of_source=12
)
"""Shorter times, so that a catalogue of hundreds takes seconds; the paths are the same."""


class Venue:
    """A server, ways to reach it, and a client beside it whom nothing may disturb."""

    def __init__(self, listening, token, dial, *, proved):
        self.listening = listening
        self.token = token
        self.dial = dial
        self.proved = proved
        self.healthy = None
        self.baseline = (0, 0)

    @asynccontextmanager
    async def silent(self):
        async with await self.dial() as stream:
            yield stream

    @asynccontextmanager
    async def plain(self):
        async with await anyio.connect_tcp("127.0.0.1", port_of(self.listening)) as stream:
            yield stream

    @asynccontextmanager
    async def client(self):
        async with self.silent() as stream:
            client = Client(stream)
            client.greeting = await client.read()
            if self.proved and client.greeting["scattersphere"]["auth"]:
                await client.ok(f"auth {self.token}")
            yield client

    async def begin(self, healthy):
        """Do once what is done once (imports, caches), and count what is there."""
        self.healthy = healthy
        for definition in (job("long", "Forever"), job("hi")):
            await healthy.code(f"define {definition}")  # no JSON, but the code is loaded
        await self.settled(anything=True)
        self.baseline = self.counted()

    def counted(self):
        return len(anyio.get_running_tasks()), descriptors()

    async def settled(self, *, anything=False):
        front = self.listening.gateway
        front.backoff._sources.clear()
        await until(lambda: len(front.sessions) == 1 and sum(self.listening._sources.values()) == 1)
        if not anything:
            await until(lambda: self.counted() <= self.baseline)

    async def sane(self, name):
        """The proof after each case."""
        try:
            await self.settled()
        except TimeoutError:
            pytest.fail(f"after {name!r}: {self.counted()} tasks and descriptors, were {self.baseline}")
        assert await self.healthy.ok("ping") == {"pong": True}, name


@asynccontextmanager
async def tcp(folder, authority, *, proved):
    async with served(folder, limits=LIMITS) as front:
        dial = lambda: anyio.connect_tcp("127.0.0.1", port_of(front.listening))  # noqa: E731
        yield Venue(front.listening, front.tokens["admin"], dial, proved=proved)


@asynccontextmanager
async def tls(folder, authority, *, proved):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with served(folder, tls=server, limits=LIMITS) as front:

        def dial(context=client):
            port = port_of(front.listening)
            options = {"tls": True, "ssl_context": context, "tls_standard_compatible": False}
            return anyio.connect_tcp("127.0.0.1", port, **options)

        yield Venue(front.listening, front.tokens["admin"], dial, proved=proved)


@asynccontextmanager
async def unix(folder, authority, *, proved):
    place, file = folder / "run" / "s", TokenFile(folder / "tokens.json")
    token = file.create("ann", Role.ADMIN)
    async with Server(grace=0.3) as server:
        server.register_tasks("app", TASKS)
        async with server.listen(unix=place, tokens=file, limits=LIMITS) as listening:
            yield Venue(listening, token, lambda: anyio.connect_unix(place), proved=proved)


@asynccontextmanager
async def opened(tmp_path, authority, transport, monkeypatch, *, proved):
    monkeypatch.setattr("scattersphere.remote.listener.SWEEP", 0.05)
    if transport is unix and not proved:  # a stranger there is somebody else
        monkeypatch.setattr("scattersphere.remote.addresses.peer_uid", lambda _: 4_294_967_000)
    async with transport(tmp_path, authority, proved=proved) as venue, venue.silent() as stream:
        healthy = Client(stream)
        healthy.greeting = await healthy.read()
        if healthy.greeting["scattersphere"]["auth"]:
            await healthy.ok(f"auth {venue.token}")
        await venue.begin(healthy)
        yield venue


@pytest.mark.parametrize("transport", [tcp, tls, unix])
@pytest.mark.parametrize("proved", [False, True])
async def test_bytes_over_real_sockets_leave_the_server_sane(
    tmp_path, authority, transport, proved, caplog, monkeypatch
):
    async with opened(tmp_path, authority, transport, monkeypatch, proved=proved) as venue:
        for name, data in CASES.items():
            async with venue.client() as client:
                await attack(client.stream, data)
                said = await client.rest_of_it()
            assert set(codes(said)) <= WORDS_OF_THE_END, name
            await venue.sane(name)
    assert "Traceback" not in caplog.text


async def attack(stream, data):
    """Send it all, then close our half, or say quit where there are no halves."""
    try:
        await stream.send(data)
        await stream.send_eof()
    except NotImplementedError:  # TLS
        await stream.send(b"\nquit\n")
    except anyio.BrokenResourceError:
        return


@pytest.mark.parametrize("transport", [tcp, tls, unix])
@pytest.mark.parametrize("proved", [False, True])
async def test_bad_manners_over_real_sockets_leave_the_server_sane(
    tmp_path, authority, transport, proved, caplog, monkeypatch
):
    async with opened(tmp_path, authority, transport, monkeypatch, proved=proved) as venue:
        for name, misbehave in (MANNERS | (TLS_MANNERS if transport is tls else {})).items():
            with anyio.fail_after(PATIENCE):
                await misbehave(venue)
            await venue.sane(name)
    assert "Traceback" not in caplog.text


async def test_memory_is_back_after_all_of_it(tmp_path, authority, monkeypatch, caplog):
    caplog.set_level("CRITICAL")  # what the log keeps is not the server's

    async def all_of_it(venue):
        for data in CASES.values():
            async with venue.client() as client:
                await attack(client.stream, data)
                await client.rest_of_it()
            venue.listening.gateway.backoff._sources.clear()
        await venue.settled()
        gc.collect()
        return sys.getallocatedblocks()

    async with opened(tmp_path, authority, tcp, monkeypatch, proved=True) as venue:
        await all_of_it(venue)
        counts = [await all_of_it(venue) for _ in range(4)]
    # A session that stays would hold more than fifty blocks, and there were as many as cases, each time.
    # Caches of the interpreter grow now and then; a leak grows always.
    assert min(after - before for before, after in pairwise(counts)) < 10 * len(CASES)


# ---- timing, order, halves, resets


async def test_a_line_that_is_never_finished_ends_the_session(tmp_path):
    limits = attrs.evolve(Limits(), line_time=0.2)
    async with served(tmp_path, limits=limits) as front, front.client() as client:
        await client.stream.send(b"pi")
        assert await client.rest_of_it() == [{"bye": {"code": "timeout"}}]


async def test_a_client_that_never_reads_is_dropped_and_its_memory_with_it(tmp_path):
    limits = attrs.evolve(Limits(), write_time=0.3, output=50_000, rate=1e9, burst=10**9)
    async with served(tmp_path, limits=limits) as front, front.client() as healthy:
        async with front.client() as client:
            with anyio.move_on_after(5):
                try:
                    while True:
                        await client.stream.send(b"help\n" * 100)
                except anyio.BrokenResourceError:
                    pass
        await until(lambda: len(front.listening.gateway.sessions) == 1)
        assert await healthy.ok("ping") == {"pong": True}


async def test_resets_at_any_moment_are_no_news(front, caplog):
    for count in range(12):
        with socket.create_connection(("127.0.0.1", port_of(front.listening))) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(f"auth {front.tokens['admin']}\nfollow\nhelp\n".encode()[: count * 8])
    await until(lambda: not front.listening.gateway.sessions)
    async with front.client() as client:
        assert await client.ok("ping") == {"pong": True}
    assert "Traceback" not in caplog.text


async def test_many_connections_that_say_nothing_leave_room_for_their_neighbours(tmp_path):
    limits = attrs.evolve(Limits(), auth_time=0.3, sessions_of_source=10)
    async with served(tmp_path, limits=limits) as front:
        silent = [await anyio.connect_tcp("127.0.0.1", port_of(front.listening)) for _ in range(10)]
        await until(lambda: not front.listening.gateway.sessions)
        front.listening.gateway.limits = Limits()  # to come in takes its time
        async with front.client() as client:
            assert await client.ok("ping") == {"pong": True}
        for stream in silent:
            await stream.aclose()


async def test_a_tls_handshake_that_stalls_is_given_up(tmp_path, authority):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    limits = attrs.evolve(Limits(), auth_time=0.2)
    async with served(tmp_path, tls=server, limits=limits) as front:
        async with await anyio.connect_tcp("127.0.0.1", port_of(front.listening)) as stream:
            await stream.send(b"\x16\x03\x01")
            with anyio.fail_after(PATIENCE), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        assert front.listening._sources == {}


async def test_a_follower_of_a_flood_does_not_slow_its_neighbour(front):
    async with front.client() as follower, front.client() as healthy:
        await follower.ok("follow")
        async with anyio.create_task_group() as group:

            async def flood():
                for _ in range(3_000):
                    front.server._feed.add("job-defined", job="x")

            group.start_soon(flood)
            assert await healthy.ok("ping") == {"pong": True}
        numbers = [(await follower.read())["seq"] for _ in range(3_000)]
        assert numbers == list(range(numbers[0], numbers[0] + 3_000))


async def test_nothing_is_left_when_it_is_over(tmp_path):
    before = descriptors()
    async with served(tmp_path) as front, connected(front.listening, front.tokens["admin"]) as client:
        await client.ok("follow")
    await until(lambda: descriptors() <= before + 1)  # trio keeps one for its wakeups

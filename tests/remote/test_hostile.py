"""A catalogue of hostile input, over TCP, TLS and unix sockets, before and after authentication.

Each case is followed by proof that the server is sane: another session is served at once, and
sessions, tasks and descriptors are back where they were.
"""

import socket
import ssl
import struct
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest
import trustme
from sessions import Driver, codes
from wire import Client, connected, port_of, served, until

from scattersphere import Server
from scattersphere.remote import Limits, listen
from scattersphere.remote.errors import CODES

pytestmark = pytest.mark.anyio

DEEP = 100_000
CASES = {
    "nothing": b"",
    "a newline": b"\n",
    "many newlines": b"\n" * 150,
    "carriage returns": b"\r\r\r\n",
    "a lone carriage return": b"ping\rping\n",
    "NUL": b"\0",
    "NUL in words": b"ping\0\n",
    "NUL in JSON": b'{"cmd":"ping\0"}\n',
    "bell": b"\a\a\a\n",
    "escape sequence": b"\x1b[2J\n",
    "escape inside": b"help \x1b]0;x\x07\n",
    "DEL": b"ping\x7f\n",
    "C1": b"ping \xc2\x9b31m\n",
    "form feed": b"ping\f\n",
    "vertical tab": b"ping\v\n",
    "backspaces": b"quit\b\b\b\bping\n",
    "telnet options": b"\xff\xfb\x1f\xff\xfd\x01",
    "telnet interrupt": b"\xff\xf4\xff\xfd\x06ping\n",
    "control D": b"\x04",
    "UTF-16": "ping\n".encode("utf-16"),
    "UTF-32": "ping\n".encode("utf-32"),
    "Latin-1": "help grün\n".encode("latin-1"),
    "overlong UTF-8": b"ping \xc0\xaf\n",
    "CESU surrogates": b"ping \xed\xa0\xbd\xed\xb8\x80\n",
    "beyond Unicode": b"ping \xf5\x80\x80\x80\n",
    "half a character": b"ping \xe2\x82",
    "BOM": b"\xef\xbb\xbfping\n",
    "two BOMs": b"\xef\xbb\xbf\xef\xbb\xbfping\n",
    "BOM alone": b"\xef\xbb\xbf",
    "half a BOM": b"\xef\xbb",
    "line separators": "ping\u2028ping\u2029ping\x85\n".encode(),
    "bidi": "help \u202eping\n".encode(),
    "look-alikes": "\u0440ing\n".encode(),
    "full-width digits": "status \uff11\n".encode(),
    "combining": ("help " + "e\u0301" * 500 + "\n").encode(),
    "emoji": "help 👩‍👩‍👧‍👦\n".encode(),
    "HTTP GET": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP POST": b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nshutdown\n",
    "HTTP in small letters": b"get / HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "WebSocket": b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    "TLS hello": bytes.fromhex("160301020001000001fc0303") + b"\x00" * 500,
    "SSLv2 hello": b"\x80\x2e\x01\x00\x02" + b"\x00" * 40,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "RESP": b"*1\r\n$4\r\nPING\r\n",
    "memcached": b"\x80\x0b\x00\x00" + b"\x00" * 20,
    "SMTP": b"EHLO x\r\nMAIL FROM:<a>\r\n",
    "PostgreSQL": struct.pack("!ii", 8, 80877103),
    "SMB": b"\x00\x00\x00\x85\xffSMBr",
    "RDP cookie": b"\x03\x00\x00\x13\x0e\xe0\x00\x00",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "a long word": b"a" * 5_000 + b"\n",
    "a long line without end": b"a" * 9_000,
    "a very long line": b"help " + b"x" * 200_000 + b"\nping\n",
    "a long JSON string": b'{"cmd":"' + b"x" * 5_000 + b'"}\n',
    "many words": b"help " + b"a " * 2_000 + b"\n",
    "many quotes": b"help " + b"''" * 2_000 + b"\n",
    "an open quote": b"help 'x\n",
    "an open double quote": b'help "x\n',
    "a trailing backslash": b"help \\\n",
    "expansions": b"help $(id) `id` ${HOME} ~ * \n",
    "a shell's chain": b"ping; shutdown && quit | sh\n",
    "format strings": b"help %s%n{0.__class__}\n",
    "SQL": b"job '; DROP TABLE jobs; --'\n",
    "a path": b"load ../../etc/passwd\n",
    "a NUL path": b'{"cmd":"load","args":{"job":"a\\u0000b"}}\n',
    "a register path": b"register /etc/passwd\n",
    "a register parent": b"register ..\n",
    "dunder command": b"__class__\n",
    "attribute command": b"ping.__globals__\n",
    "upper case": b"PING\n",
    "array": b"[1]\n",
    "string": b'"ping"\n',
    "number": b"1\n",
    "null": b"null\n",
    "empty object": b"{}\n",
    "an open object": b"{\n",
    "a cut object": b'{"cmd":"ping"',
    "two objects": b'{"cmd":"ping"}{"cmd":"quit"}\n',
    "a trailing comma": b'{"cmd":"ping",}\n',
    "single quotes": b"{'cmd':'ping'}\n",
    "a comment": b'{"cmd":"ping"/*x*/}\n',
    "duplicate members": b'{"cmd":"ping","cmd":"shutdown"}\n',
    "unknown member": b'{"cmd":"ping","jsonrpc":"2.0"}\n',
    "NaN": b'{"cmd":"ping","id":NaN}\n',
    "infinity": b'{"cmd":"ping","id":-Infinity}\n',
    "1e400": b'{"cmd":"ping","id":1e400}\n',
    "many digits": b'{"cmd":"ping","id":' + b"9" * 4_060 + b"}\n",
    "an id that is too large": b'{"cmd":"ping","id":99999999999999999999}\n',
    "an id that is an object": b'{"cmd":"ping","id":{}}\n',
    "an id that is long": b'{"cmd":"ping","id":"' + b"i" * 65 + b'"}\n',
    "lone surrogate": b'{"cmd":"ping","id":"\\ud800"}\n',
    "deep arrays": b'{"a":' + b"[" * 4_000 + b"\n",
    "very deep arrays": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "deep objects": b'{"a":' * 600 + b"\n",
    "args that are a list": b'{"cmd":"ping","args":[]}\n',
    "args that are many": b'{"cmd":"ping","args":{' + b",".join(b'"a%d":1' % n for n in range(300)) + b"}}\n",
    "a command that is a list": b'{"cmd":["ping"]}\n',
    "a command that is long": b'{"cmd":"' + b"ping" * 900 + b'"}\n',
    "bool for int": b'{"cmd":"status","args":{"run":true}}\n',
    "float for int": b'{"cmd":"status","args":{"run":1.0}}\n',
    "text for int": b'{"cmd":"status","args":{"run":"1"}}\n',
    "negative run": b"status -1\n",
    "zero": b"status 0\n",
    "a large run": b"status 999999999999999999\n",
    "a wait that is too long": b"wait 1 timeout=1e9\n",
    "a negative time": b"wait 1 timeout=-1\n",
    "a bad definition": b"define {}\n",
    "a definition that is cut": b'define {"format":1\n',
    "a deep definition": b'define {"a":' + b"[" * 3_000 + b"\n",
    "unfollow nothing": b"unfollow 7\n",
    "auth without a token": b"auth\n",
    "auth with a wrong one": b"auth x\n",
    "auth with a JSON null": b'{"cmd":"auth","args":{"token":null}}\n',
    "auth twice": b"auth x\nauth y\n",
    "a drop to nothing": b"drop nobody\n",
    "pipelined pings": b"ping\n" * 120,
    "quit and more": b"quit\nping\nping\n",
}
FDS = Path("/proc/self/fd")
WORDS_OF_THE_END = {"n", "id", "bye", "event"} | CODES


def test_the_catalogue_is_large_enough():
    assert len(CASES) >= 90


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
    for cut in {*range(min(len(data), 60)), len(data) // 2, max(0, len(data) - 1)}:
        assert replies(role, [data[:cut], data[cut:]]).said == said
    if len(data) < 10_000:
        assert replies(role, [data[at : at + 1] for at in range(len(data))]).said == said
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


@asynccontextmanager
async def tcp(folder, authority):
    async with served(folder, limits=LIMITS) as front:
        yield (
            front.listening,
            front.tokens["admin"],
            lambda: anyio.connect_tcp("127.0.0.1", port_of(front.listening)),
        )


@asynccontextmanager
async def tls(folder, authority):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with served(folder, tls=server, limits=LIMITS) as front:

        def dial():
            port = port_of(front.listening)
            options = {"tls": True, "ssl_context": client, "tls_standard_compatible": False}
            return anyio.connect_tcp("127.0.0.1", port, **options)

        yield front.listening, front.tokens["admin"], dial


@asynccontextmanager
async def unix(folder, authority):
    place = folder / "run" / "s"
    async with Server() as server, listen(server, unix=place, limits=LIMITS) as listening:
        yield listening, None, lambda: anyio.connect_unix(place)


LIMITS = attrs.evolve(Limits(), linger=0.05, line_time=0.5, auth_time=2.0)
"""Shorter times, so that a catalogue of a hundred takes seconds; the paths are the same."""


async def settled(listening):
    await until(lambda: not listening.front.sessions)


@pytest.mark.parametrize("transport", [tcp, tls, unix])
@pytest.mark.parametrize("proved", [False, True])
async def test_over_real_sockets_nothing_hangs_leaks_or_breaks(
    tmp_path, authority, transport, proved, caplog
):
    async with transport(tmp_path, authority) as (listening, token, dial):
        async with await dial() as stream:  # what is made once is made now
            await Client(stream).read()
        await settled(listening)
        before = descriptors()
        for name, data in CASES.items():
            listening.front.penalties.succeeded("127.0.0.1")
            async with await dial() as stream:
                client = Client(stream)
                await client.read()
                if proved and token is not None:
                    await client.ok(f"auth {token}")
                await attack(stream, data)
                said = await client.rest_of_it()
            assert set(codes(said)) <= WORDS_OF_THE_END, name
        await settled(listening)
        assert descriptors() <= before
        async with await dial() as stream:
            client = Client(stream)
            await client.read()
            assert await client.ok("ping") == {"pong": True}
    assert "Traceback" not in caplog.text


async def attack(stream, data):
    """Send it all, then close our half, or all of it where there are no halves."""
    try:
        await stream.send(data)
        await stream.send(b"\nquit\n" if not hasattr(stream, "send_eof") else b"")
        await stream.send_eof()
    except NotImplementedError:  # TLS: say quit, on a line of its own
        await stream.send(b"\nquit\n")
    except anyio.BrokenResourceError:
        return


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
        await until(lambda: len(front.listening.front.sessions) == 1)
        assert await healthy.ok("ping") == {"pong": True}


async def test_resets_at_any_moment_are_no_news(front, caplog):
    for count in range(12):
        with socket.create_connection(("127.0.0.1", port_of(front.listening))) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(f"auth {front.tokens['admin']}\nfollow\nhelp\n".encode()[: count * 8])
    await until(lambda: not front.listening.front.sessions)
    async with front.client() as client:
        assert await client.ok("ping") == {"pong": True}
    assert "Traceback" not in caplog.text


async def test_many_connections_that_say_nothing_leave_room_for_their_neighbours(tmp_path):
    limits = attrs.evolve(Limits(), auth_time=0.3, sessions_of_source=10)
    async with served(tmp_path, limits=limits) as front:
        silent = [await anyio.connect_tcp("127.0.0.1", port_of(front.listening)) for _ in range(10)]
        await until(lambda: not front.listening.front.sessions)
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
            with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
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

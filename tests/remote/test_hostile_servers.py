"""Servers that lie, are silent or speak something else: the client says so in words, and waits for none without end."""

import json
from contextlib import suppress

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE

from scattersphere.remote import DisconnectedError, RemoteError, connect
from scattersphere.remote import client as clients
from scattersphere.remote.client import Events, RemoteClient, read_message

GREETING = b'{"scattersphere":{"protocol":[2],"auth":["token"],"session":"s","instance":"i","limits":{"line":4096}}}\n'
AUTH = b'{"n":1,"result":{"user":"a","role":"admin"}}\n'
ESC = b"\\u001b]0;pwned\\u0007\\u001b[31mRED\\u202e"


def reply(text):
    return [GREETING, AUTH, text + b"\n"]


NONSENSE = {
    "an integer": [b"5\n"],
    "a list": [b"[]\n"],
    "null": [b"null\n"],
    "an empty object": [b"{}\n"],
    "a string": [b'"bye"\n'],
    "an odd greeting": [b'{"scattersphere":5}\n'],
    "a greeting without an instance": [b'{"scattersphere":{"protocol":[2]}}\n'],
    "an instance that is no text": [b'{"scattersphere":{"protocol":[2],"instance":5}}\n'],
    "an odd bye": [GREETING, b'{"bye":5}\n'],
    "a bye without a code": [GREETING, b'{"bye":{}}\n'],
    "a bye with escapes": [GREETING, b'{"bye":{"code":"' + ESC + b'"}}\n'],
    "a bye that is a list": [GREETING, b'{"bye":["idle"]}\n'],
    "deep JSON": [GREETING, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"],
    "many digits": [GREETING, b'{"n":' + b"9" * 5_000 + b"}\n"],
    "no UTF-8": [GREETING, b"\xff\xfe\n"],
    "UTF-16": [GREETING, '{"n":1,"result":{}}\n'.encode("utf-16")],
    "half a line of JSON": [GREETING, b'{"n":1,"resu\n'],
    "HTTP": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "SSH": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "SMTP": [b"220 mail ESMTP\r\n"],
    "an empty line": [b"\n"],
    "NUL": [b"\x00\n"],
    "neither result nor error": reply(b'{"n":2}'),
    "a result that is an integer": reply(b'{"n":2,"result":5}'),
    "a result that is a list": reply(b'{"n":2,"result":[1]}'),
    "a result that is null": reply(b'{"n":2,"result":null}'),
    "NaN": reply(b'{"n":2,"result":{"x":NaN}}'),
    "a number that becomes infinity": reply(b'{"n":2,"result":{"x":1e400}}'),
    "Infinity": reply(b'{"n":2,"result":{"x":-Infinity}}'),
    "an error that is a string": reply(b'{"n":2,"error":"x"}'),
    "an error that is null": reply(b'{"n":2,"error":null}'),
    "an event without a subscription": [GREETING, b'{"event":"x"}\n'],
    "an event of a list": [GREETING, b'{"event":"x","sub":[]}\n'],
    "an event of true": [GREETING, b'{"event":"x","sub":true}\n'],
    "an event that is an object": [GREETING, b'{"event":{},"sub":1}\n'],
    "two greetings": [GREETING, GREETING],
    "replies that nobody has asked for": [GREETING + AUTH + AUTH + AUTH],
}
OTHERS = {
    "nothing": ([], "timeout"),
    "nothing after the greeting": ([GREETING], "timeout"),
    "nothing after the token": ([GREETING, AUTH], "timeout"),
    "no newline": ([b"x" * 100_000], "timeout"),
    "a close": ([b""], "gone"),
    "a close after the greeting": ([GREETING, b""], "gone"),
    "a close inside a line": ([GREETING, b'{"n":1', b""], "gone"),
    "the last words": ([GREETING, b'{"bye":{"code":"idle"}}\n'], "idle"),
    "a line without end": ([GREETING, b"y" * 400_000], "line-too-long"),
}
CASES = [(name, said, clients.NONSENSE) for name, said in NONSENSE.items()]
CASES += [(name, said, code) for name, (said, code) in OTHERS.items()]


def test_the_catalogue_is_large_enough():
    assert len(CASES) >= 36


class Hostile:
    """Says its pieces, one after each thing that it hears; an empty one closes."""

    def __init__(self, said):
        self.said = said

    async def __aenter__(self):
        self.group = await anyio.create_task_group().__aenter__()
        self.listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.group.start_soon(self.listener.serve, self.talk)
        return f"127.0.0.1:{self.listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port)}"

    async def __aexit__(self, *_):
        self.group.cancel_scope.cancel()
        await self.group.__aexit__(None, None, None)
        await self.listener.aclose()

    async def talk(self, stream):
        async with stream:
            try:
                for number, piece in enumerate(self.said):
                    if number and piece:
                        await stream.receive()
                    if not piece:
                        return
                    await stream.send(piece)
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


@pytest.fixture
def hurried(monkeypatch, code):
    if code == "timeout":
        monkeypatch.setattr(clients, "REPLY_TIME", 0.3)
    monkeypatch.setattr(clients, "LINE_LIMIT", 300_000)


async def ask_twice(address, patience, monkeypatch):
    stream = await clients._dial(address, None)

    async def dialled(*_):  # beside the patience, which is for the words of the server here
        return stream

    monkeypatch.setattr(clients, "_dial", dialled)
    async with connect(address, token="ss1_x", patience=patience) as client:
        await client.call("runs")
        await client.call("runs")


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "said", "code"), CASES, ids=[name for name, _, _ in CASES])
async def test_whatever_a_server_says_is_an_error_in_words(name, said, code, hurried, monkeypatch):
    patience = 0.3 if code == "timeout" else PATIENCE
    async with Hostile(said) as address:
        with pytest.raises(DisconnectedError) as caught:
            await ask_twice(address, patience, monkeypatch)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


@pytest.mark.anyio
async def test_an_error_of_a_server_can_be_shown():
    async with (
        Hostile(reply(b'{"n":2,"error":{"code":"' + ESC + b'","message":"' + ESC + b'\\n$ "}}')) as address,
        connect(address, token="ss1_x") as client,
    ):
        with pytest.raises(RemoteError) as caught:
            await client.call("runs")
    assert not set(str(caught.value)) & set("\x1b\x07\u202e")


@pytest.mark.anyio
@pytest.mark.parametrize("result", [{}, {"subscription": "1", "next": 2}, {"subscription": 1}, {"run": "x"}])
async def test_a_reply_that_lacks_what_its_command_gives_is_nonsense(result):
    said = reply(json.dumps({"n": 2, "result": result}).encode())
    async with Hostile(said) as address, connect(address, token="ss1_x") as client:
        with pytest.raises(DisconnectedError, match="no server"):
            await client.follow()
    async with Hostile(said) as address, connect(address, token="ss1_x") as client:
        with pytest.raises(DisconnectedError, match="no server"):
            await client.start("job")


@given(st.binary(max_size=64) | st.text().map(str.encode))
def test_no_line_is_anything_but_a_message_or_nonsense(line):
    with suppress(DisconnectedError):
        assert isinstance(read_message(line), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(
    ["n", "id", "result", "error", "event", "sub", "seq", "next", "code", "message", "bye"]
)


@given(st.lists(st.dictionaries(MEMBERS, JSON | st.integers(0, 2), max_size=5), max_size=5))
def test_no_message_makes_anything_but_nonsense(messages):
    client = RemoteClient(None)
    try:
        events = Events(client, {"subscription": 1, "next": 1})
        client._events[1] = events
        for message in messages:
            client._dispatch(read_message(json.dumps(message).encode()))
        while events._ready:
            events._advance(events._ready.popleft())
    except DisconnectedError:
        pass

"""A client of the line protocol: typed, pipelining, with events as async iterators.

`connect` gives a `RemoteClient`. Many requests may be under way at once, from many tasks: each reply says to
which of them it is. Events go to their subscription.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import anyio
import attrs
from anyio.abc import SocketAttribute

from scattersphere._json_words import JsonObject
from scattersphere.errors import ConflictError, RunFailedError, ScattersphereError
from scattersphere.model.logs import make_printable
from scattersphere.model.states import RunState
from scattersphere.remote.addresses import split_address
from scattersphere.remote.streams import GONE, RawSocketStream

if TYPE_CHECKING:
    import ssl

    from anyio.abc import ByteStream

TOKEN_BYTES = 4_096
TOKEN_VARIABLE = "SCATTERSPHERE_TOKEN"  # noqa: S105 - a variable's name
CHUNK = 65_536
LINE_LIMIT = 16 << 20
"""Bytes of the longest line that a client takes; servers send at most 1 MiB unless told otherwise."""
SEND_TIME = 30.0
"""Seconds that a server may take to read a request."""
CONNECT_TIME = 10.0
"""Seconds for the connection with its handshake, and then for the greeting."""
REPLY_TIME = 30.0
"""Seconds for a reply that has nothing to wait for."""
LONGEST_TIME = 3_600.0
"""Seconds for a command that may take long: code is loaded, a run is waited for."""
_LONG = frozenset({"register", "deregister", "reload", "load", "rerun", "run", "run-task", "wait"})
PROTOCOL = 2
NONSENSE = "no server of Scattersphere"
SHOWN = 4_000
_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
EVENTS_KEPT = 10_000
"""Events that wait for a reader of a subscription; beyond that the connection is not read."""


class RemoteError(ScattersphereError):
    """The server refused a request. `code` is its stable code, `error` the whole error member."""

    def __init__(self, error: dict[str, object]) -> None:
        self.error = error
        self.code: str = text_of(error.get("code"), "internal")
        super().__init__(f"{self.code}: {text_of(error.get('message'), '')}")


class DisconnectedError(ScattersphereError):
    """The connection has ended; `code` is that of the server's last words, else why the client gave it up.

    `gone`: it broke; `timeout`: nothing came in time; `no server of Scattersphere`: what came makes no sense.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the connection has ended: {code}")


def succeeded(reply: dict[str, object], name: str) -> JsonObject:
    """Return the reply to a run that succeeded. Raises `RunFailedError`."""
    number, state = whole_number(reply, "run"), text_of(reply.get("state"), "")
    if state != RunState.SUCCEEDED:
        raise RunFailedError(text_of(reply.get("why"), f"run {number} of {name} {state}"), reply)
    return reply


def text_of(value: object, otherwise: str) -> str:
    """Return a text of a server that may be hostile, fit to be shown, or `otherwise` where it is none."""
    return make_printable(value)[:SHOWN] if isinstance(value, str) else otherwise


def _nonsense() -> DisconnectedError:
    return DisconnectedError(NONSENSE)


@attrs.define(eq=False)
class _Waiting:
    """A request whose reply has not come."""

    done: anyio.Event = attrs.field(factory=anyio.Event)
    message: JsonObject | None = None


class Events(AsyncIterator[JsonObject]):
    """The events of a subscription, up to its end. `next` is the number to go on from (`since`)."""

    def __init__(self, client: RemoteClient, reply: dict[str, object]) -> None:
        self.subscription: int = whole_number(reply, "subscription")
        self.reply = reply
        self.last: int = whole_number(reply, "next") - 1
        self.life: int = whole_number(reply, "life") if "life" in reply else 0
        """The life of the server's journal that numbers belong to; 0 where it has none."""
        self._client = client
        self._ready: deque[dict[str, object]] = deque()
        self._changed = anyio.Event()

    @property
    def place(self) -> int | str:
        """What `follow(since=...)` takes to go on from here, after a restart of the server too."""
        return f"{self.life}.{self.last}" if self.life else self.last

    @property
    def full(self) -> bool:
        """Whether the reader is so far behind that nothing more is read from the connection."""
        return len(self._ready) >= EVENTS_KEPT

    def take(self, event: dict[str, object]) -> None:
        """Take an event from the connection."""
        self._ready.append(event)
        self._changed.set()

    async def __anext__(self) -> JsonObject:
        while not self._ready:
            if self._client.closed is not None:
                raise DisconnectedError(self._client.closed)
            self._changed = anyio.Event()
            await self._changed.wait()
        event = self._ready.popleft()
        self._client.make_room()
        if event["event"] == "end":
            raise StopAsyncIteration
        self._advance(event)
        return event

    def _advance(self, event: dict[str, object]) -> None:
        if "seq" in event:
            self.last = whole_number(event, "seq")
        elif "next" in event:
            self.last = whole_number(event, "next") - 1

    def wake(self) -> None:
        """Look again: the connection has ended."""
        self._changed.set()


class RemoteClient:
    """A session. Made by `connect`; the methods raise `RemoteError` and `DisconnectedError`."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._waiting: dict[int, _Waiting] = {}
        self._abandoned: set[int] = set()
        """Requests whose caller was cancelled: their replies are still to come."""
        self._sent = 0
        self._events: dict[int, Events] = {}
        self._early: deque[dict[str, object]] = deque(maxlen=EVENTS_KEPT)
        self._sending = anyio.Lock()
        self._room = anyio.Event()
        self.greeting: JsonObject = {}
        self.closed: str | None = None

    def __repr__(self) -> str:
        return f"<RemoteClient of server {self.greeting.get('instance')}, {self.closed or 'open'}>"

    async def call(self, command: str, /, **args: object) -> JsonObject:
        """Send a request and return its result; arguments that are None are left out.

        Raises `RemoteError` where the server refuses, `DisconnectedError` where the connection ends, is silent for
        too long, or says what makes no sense.
        """
        given = {name: value for name, value in args.items() if value is not None}
        line = json.dumps({"cmd": command, "args": given}, separators=(",", ":")).encode("ascii") + b"\n"
        waiting = _Waiting()
        async with self._sending:  # the order of the queue is the order on the wire
            if self.closed is not None:
                raise DisconnectedError(self.closed)
            self._sent += 1
            number = (
                self._sent
            )  # the server counts the requests of a session, and each reply says which it is to
            self._waiting[number] = waiting
            # Half a request would spoil the next one, so that a cancellation waits for the other half; but
            # not for a server that has stopped reading.
            with anyio.move_on_after(SEND_TIME, shield=True) as scope:
                try:
                    await self._stream.send(line)
                except GONE:
                    self._end("gone")
            if scope.cancelled_caught:
                self._end("timeout")
        try:
            with anyio.move_on_after(patience_for(command, given)):
                await waiting.done.wait()
        finally:
            if self._waiting.pop(number, None) is not None:
                self._abandoned.add(number)
        if waiting.message is None:
            self._end("timeout")
            raise DisconnectedError(self.closed or "gone")
        if "error" in waiting.message:
            raise RemoteError(waiting.message["error"])
        result: dict[str, object] = waiting.message["result"]
        return result

    async def start(self, job: str, params: JsonObject | None = None, *, key: str | None = None) -> int:
        """Start a run of a job and return its number."""
        return whole_number(await self.call("start", job=job, params=params, key=key), "run")

    async def run(self, job: str, params: JsonObject | None = None, *, key: str | None = None) -> JsonObject:
        """Run a job, wait for the end of its run, and return its number (`run`) and `state`, which is "succeeded".

        Requests that are made meanwhile are answered meanwhile. Raises `RunFailedError` where it did not succeed: its
        `run` is what would have been returned, and `why` in it the first failure in words.
        """
        return succeeded(await self.call("run", job=job, params=params, key=key), job)

    async def start_task(self, task: str, args: JsonObject | None = None, *, key: str | None = None) -> int:
        """Start a run of one task and return its number."""
        return whole_number(await self.call("start-task", task=task, args=args, key=key), "run")

    async def run_task(
        self, task: str, args: JsonObject | None = None, *, key: str | None = None
    ) -> JsonObject:
        """Run one task and wait for the end of its run, as `run` does. Raises `RunFailedError`."""
        return succeeded(await self.call("run-task", task=task, args=args, key=key), task)

    async def wait(self, run: int, timeout: float | None = None) -> str:  # noqa: ASYNC109 - the server's limit
        """Wait for the end of a run, for at most `timeout` seconds, and return its state."""
        return text_of((await self.call("wait", run=run, timeout=timeout)).get("state"), "")

    async def follow(
        self, run: int | None = None, *, kinds: list[str] | None = None, since: int | str | None = None
    ) -> Events:
        """Subscribe to the events of a run, or of the server; `since` is a number, or the `place` of earlier events."""
        return self.subscribed(await self.call("follow", run=run, kinds=kinds, since=since))

    def subscribed(self, reply: dict[str, object]) -> Events:
        """Return the events of a subscription that was made with `call("follow")`."""
        events = Events(self, reply)
        self._events[events.subscription] = events
        early, self._early = self._early, deque(maxlen=EVENTS_KEPT)
        for event in early:
            self._dispatch_event(event)
        return events

    # ---- reading

    async def open(self) -> None:
        """Read the greeting. Raises `RemoteError` where the server has no place, `DisconnectedError`."""
        message = await self._read_one()
        if "error" in message:
            raise RemoteError(message["error"])
        greeting = message.get("scattersphere")
        if not isinstance(greeting, dict) or not isinstance(greeting.get("instance"), str):
            raise _nonsense()
        if PROTOCOL not in (spoken if isinstance(spoken := greeting.get("protocol"), list) else ()):
            raise DisconnectedError(f"it does not speak protocol {PROTOCOL}")
        self.greeting = greeting

    async def read_for_ever(self) -> None:
        """Hand out replies and events until the connection ends."""
        try:
            while True:
                self._dispatch(await self._read_one())
                while any(events.full for events in self._events.values()):
                    self._room = anyio.Event()
                    await self._room.wait()
        except DisconnectedError as exc:
            self._end(exc.code)
        finally:
            self._end("closed")

    def make_room(self) -> None:
        """Go on reading, where a full subscription had stopped it."""
        self._room.set()

    async def _read_one(self) -> JsonObject:
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if searched > LINE_LIMIT:
                raise DisconnectedError("line-too-long")
            try:
                self._rest += await self._stream.receive(CHUNK)
            except GONE:
                raise DisconnectedError("gone") from None
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        message = read_message(line)
        if "bye" in message:
            code = message["bye"].get("code") if isinstance(message["bye"], dict) else None
            if not isinstance(code, str) or not _CODE.fullmatch(code):
                raise _nonsense()
            raise DisconnectedError(code)
        return message

    def _dispatch(self, message: dict[str, object]) -> None:
        if "event" in message:
            self._dispatch_event(message)
        elif "result" in message or "error" in message:
            number = whole_number(message, "n")
            if number in self._abandoned:
                self._abandoned.discard(number)
            elif number in self._waiting:
                waiting = self._waiting.pop(number)
                waiting.message = message
                waiting.done.set()
            else:
                raise _nonsense()  # a reply that nobody has asked for
        else:
            raise _nonsense()

    def _dispatch_event(self, event: dict[str, object]) -> None:
        number = whole_number(event, "sub")
        events = self._events.get(number)
        if events is None:
            self._early.append(event)  # its `follow` has the reply, but has not had a turn yet
            return
        events.take(event)
        if event["event"] == "end":
            del self._events[number]

    def _end(self, code: str) -> None:
        if self.closed is None:
            self.closed = code
        for waiting in self._waiting.values():
            waiting.done.set()
        self._waiting.clear()
        for events in self._events.values():
            events.wake()


def patience_for(command: str, given: dict[str, object]) -> float:
    """Return for how many seconds a reply may be waited for."""
    if command not in _LONG:
        return REPLY_TIME
    asked = given.get("timeout")
    return REPLY_TIME + (asked if isinstance(asked, int | float) else LONGEST_TIME)


def read_message(line: bytes) -> JsonObject:
    """Return what a line of a server says. Raises `DisconnectedError` for what no server of ours sends."""
    try:
        message = read_json(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too many digits, too deep
        raise _nonsense() from None
    if not isinstance(message, dict) or not _is_sound(message):
        raise _nonsense()
    return message


def _is_sound(message: dict[str, object]) -> bool:
    """Whether what a client relies on has its form; other members may hold anything."""
    if "event" in message:
        return isinstance(message["event"], str)
    if "error" in message:
        return isinstance(message["error"], dict)
    return isinstance(message.get("result", {}), dict) and ("result" in message or "n" not in message)


def read_json(text: bytes) -> object:
    """Return what JSON of a server holds: what can be written as JSON again. Raises `ValueError`, `RecursionError`."""
    return _DECODER.decode(text.decode("utf-8"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):  # 1e400
        raise ValueError(digits)
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def whole_number(message: dict[str, object], name: str) -> int:
    """Return a member that has to be an integer. Raises `DisconnectedError`."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _nonsense()
    return value


def find_token(path: str | os.PathLike[str] | None = None) -> str | None:
    """Return the token in a file, or else in the environment (`SCATTERSPHERE_TOKEN`), or None.

    Raises `OSError`, `ConflictError` where the file holds no token.
    """
    if path is not None:
        with Path(path).open("rb") as file:
            found = file.read(TOKEN_BYTES + 1).strip()
        if len(found) > TOKEN_BYTES or not found.isascii() or not found or b"\n" in found:
            raise ConflictError(
                f"{path} holds no token; it is one line of ASCII, as `token create` prints it"
            )
        return found.decode("ascii")
    return os.environ.get(TOKEN_VARIABLE) or None


async def _dial(address: str, tls: ssl.SSLContext | None) -> ByteStream:
    if address.startswith("unix:"):
        stream = await anyio.connect_unix(address.removeprefix("unix:").removeprefix("//"))
        # The socket is ours from now on: nothing of anyio's has begun to read it.
        connected = socket.socket(fileno=stream.extra(SocketAttribute.raw_socket).detach())  # noqa: S610 - anyio's, not Django's
        connected.setblocking(False)
        return RawSocketStream(connected)
    host, port = split_address(address)
    if tls is None:
        return await anyio.connect_tcp(host, port)
    return await anyio.connect_tcp(host, port, tls=True, ssl_context=tls, tls_standard_compatible=False)


@asynccontextmanager
async def connect(
    address: str,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    patience: float = CONNECT_TIME,
) -> AsyncIterator[RemoteClient]:
    """Open a session with a server at `HOST:PORT`, or `unix:PATH`.

    `patience`: for so many seconds the connection (with TLS, its handshake) and then the greeting may be waited for.
    Raises `OSError` where nobody listens (`TimeoutError` where nobody answers), `RemoteError` for a wrong token,
    `DisconnectedError` where what answers is no server of ours.
    """
    with anyio.fail_after(patience):
        try:
            stream = await _dial(address, tls)
        except (anyio.EndOfStream, anyio.BrokenResourceError):  # in the middle of the handshake
            raise DisconnectedError("gone") from None
    client = RemoteClient(stream)
    failure: Exception | None = None
    async with stream, anyio.create_task_group() as group:
        try:
            with anyio.move_on_after(patience) as waiting:
                await client.open()
            if waiting.cancelled_caught:
                raise DisconnectedError("timeout")  # noqa: TRY301 - it leaves as the others do
            group.start_soon(client.read_for_ever)
            if token is not None:
                await client.call("auth", token=token)
            yield client
        except Exception as exc:  # noqa: BLE001 - leaves as it is, and not inside the task group's ExceptionGroup
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure

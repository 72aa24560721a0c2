"""A client of the line protocol: typed, pipelining, with events as async iterators.

`connect` gives a `RemoteClient`. Many requests may be under way at once, from many tasks: replies come
in order, so each is given to the oldest that waits. Events go to their subscription.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from scattersphere.errors import ConflictError, ScattersphereError
from scattersphere.remote.addresses import split_address
from scattersphere.remote.streams import UnixStream

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
EVENTS_KEPT = 10_000
"""Events that wait for a reader of a subscription; beyond that the connection is not read."""


class RemoteError(ScattersphereError):
    """The server refused a request. `word` is its stable code, `error` the whole error member."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.error = error
        self.word: str = str(error.get("code", "internal"))
        super().__init__(f"{self.word}: {error.get('message', '')}")


class DisconnectedError(ScattersphereError):
    """The connection has ended; `word` is the code of the server's last words, if it had any."""

    def __init__(self, word: str) -> None:
        self.word = word
        super().__init__(f"the connection has ended: {word}")


@attrs.define(eq=False)
class _Waiting:
    """A request whose reply has not come."""

    done: anyio.Event = attrs.field(factory=anyio.Event)
    message: dict[str, Any] | None = None


class Events(AsyncIterator[dict[str, Any]]):
    """The events of a subscription, up to its end. `next` is the number to go on from (`since`)."""

    def __init__(self, client: RemoteClient, reply: dict[str, Any]) -> None:
        self.subscription: int = reply["subscription"]
        self.reply = reply
        self.last: int = reply["next"] - 1
        self._client = client
        self._ready: deque[dict[str, Any]] = deque()
        self._changed = anyio.Event()

    @property
    def full(self) -> bool:
        """Whether the reader is so far behind that nothing more is read from the connection."""
        return len(self._ready) >= EVENTS_KEPT

    def take(self, event: dict[str, Any]) -> None:
        """Take an event from the connection."""
        self._ready.append(event)
        self._changed.set()

    async def __anext__(self) -> dict[str, Any]:
        while not self._ready:
            if self._client.closed is not None:
                raise DisconnectedError(self._client.closed)
            self._changed = anyio.Event()
            await self._changed.wait()
        event = self._ready.popleft()
        self._client.make_room()
        if event["event"] == "end":
            raise StopAsyncIteration
        self.last = int(event.get("seq", event.get("next", self.last + 1) - 1))
        return event

    def wake(self) -> None:
        """Look again: the connection has ended."""
        self._changed.set()


class RemoteClient:
    """A session. Made by `connect`; the methods raise `RemoteError` and `DisconnectedError`."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._waiting: deque[_Waiting] = deque()
        self._events: dict[int, Events] = {}
        self._early: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._sending = anyio.Lock()
        self._room = anyio.Event()
        self.greeting: dict[str, Any] = {}
        self.closed: str | None = None

    async def call(self, command: str, **args: Any) -> dict[str, Any]:
        """Send a request and return its result; arguments that are None are left out."""
        given = {name: value for name, value in args.items() if value is not None}
        line = json.dumps({"cmd": command, "args": given}, separators=(",", ":")).encode("ascii") + b"\n"
        waiting = _Waiting()
        async with self._sending:  # the order of the queue is the order on the wire
            if self.closed is not None:
                raise DisconnectedError(self.closed)
            self._waiting.append(waiting)
            # Half a request would spoil the next one, so that a cancellation waits for the other half; but
            # not for a server that has stopped reading.
            with anyio.move_on_after(SEND_TIME, shield=True) as scope:
                try:
                    await self._stream.send(line)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    self._end("gone")
            if scope.cancelled_caught:
                self._end("timeout")
        await waiting.done.wait()
        if waiting.message is None:
            raise DisconnectedError(self.closed or "gone")
        if "error" in waiting.message:
            raise RemoteError(waiting.message["error"])
        result: dict[str, Any] = waiting.message["result"]
        return result

    async def run(self, job: str, params: dict[str, Any] | None = None, *, key: str | None = None) -> int:
        """Start a run of a job and return its number."""
        return int((await self.call("run", job=job, params=params, key=key))["run"])

    async def wait(self, run: int, timeout: float | None = None) -> str:  # noqa: ASYNC109 - the server's limit
        """Wait for the end of a run, for at most `timeout` seconds, and return its state."""
        return str((await self.call("wait", run=run, timeout=timeout))["state"])

    async def follow(
        self, run: int | None = None, *, kinds: list[str] | None = None, since: int | None = None
    ) -> Events:
        """Subscribe to the events of a run, or of the server."""
        return self.subscribed(await self.call("follow", run=run, kinds=kinds, since=since))

    def subscribed(self, reply: dict[str, Any]) -> Events:
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
        self.greeting = message["scattersphere"]

    async def read_for_ever(self) -> None:
        """Hand out replies and events until the connection ends."""
        try:
            while True:
                self._dispatch(await self._read_one())
                while any(events.full for events in self._events.values()):
                    self._room = anyio.Event()
                    await self._room.wait()
        except DisconnectedError as exc:
            self._end(exc.word)
        finally:
            self._end("closed")

    def make_room(self) -> None:
        """Go on reading, where a full subscription had stopped it."""
        self._room.set()

    async def _read_one(self) -> dict[str, Any]:
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > LINE_LIMIT:
                raise DisconnectedError("line-too-long")
            try:
                self._rest += await self._stream.receive(CHUNK)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                raise DisconnectedError("gone") from None
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise DisconnectedError("no server of Scattersphere") from None
        if "bye" in message:
            raise DisconnectedError(message["bye"]["code"])
        return message

    def _dispatch(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._dispatch_event(message)
        elif self._waiting:
            waiting = self._waiting.popleft()
            waiting.message = message
            waiting.done.set()

    def _dispatch_event(self, event: dict[str, Any]) -> None:
        events = self._events.get(event["sub"])
        if events is None:
            self._early.append(event)  # its `follow` has the reply, but has not had a turn yet
            return
        events.take(event)
        if event["event"] == "end":
            del self._events[event["sub"]]

    def _end(self, word: str) -> None:
        if self.closed is None:
            self.closed = word
        while self._waiting:
            self._waiting.popleft().done.set()
        for events in self._events.values():
            events.wake()


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


@asynccontextmanager
async def connect(
    address: str, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RemoteClient]:
    """Open a session with a server at `HOST:PORT`, or `unix:PATH`.

    Raises `OSError` where nobody listens, `RemoteError` for a wrong token.
    """
    stream: ByteStream
    if address.startswith("unix:"):
        stream = UnixStream(await anyio.connect_unix(address.removeprefix("unix:").removeprefix("//")))
    else:
        host, port = split_address(address)
        if tls is None:
            stream = await anyio.connect_tcp(host, port)
        else:
            stream = await anyio.connect_tcp(
                host, port, tls=True, ssl_context=tls, tls_standard_compatible=False
            )
    client = RemoteClient(stream)
    failure: Exception | None = None
    async with stream, anyio.create_task_group() as group:
        try:
            await client.open()
            group.start_soon(client.read_for_ever)
            if token is not None:
                await client.call("auth", token=token)
            yield client
        except Exception as exc:  # noqa: BLE001 - leaves as it is, and not inside the task group's ExceptionGroup
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure

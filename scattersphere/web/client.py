"""A client of the HTTP API with the names of the line protocol's: commands by `call`, events that go on after a break.

`connect` gives an `HttpClient`, `following` events over connections that break. Addresses, methods and arguments come
from the table of commands. Needs the extra `client` (httpx), and runs on asyncio and trio.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio

from scattersphere._version import installing
from scattersphere.commands import handlers
from scattersphere.commands.table import COMMANDS, CommandSpec
from scattersphere.errors import MissingExtraError
from scattersphere.model.events import read_event_id
from scattersphere.remote.client import (
    CONNECT_TIME,
    LINE_LIMIT,
    NONSENSE,
    DisconnectedError,
    RemoteError,
    patience_for,
    read_json,
    succeeded,
    text_of,
    whole_number,
)
from scattersphere.remote.following import followed_over

try:
    import httpx
except ImportError as _missing:
    raise MissingExtraError(f"{_missing}; the client needs: {installing('client')}") from _missing

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from scattersphere._json_words import JsonObject

__all__ = ["DisconnectedError", "HttpClient", "HttpEvents", "RemoteError", "connect", "following"]

API = "/api/v1"
INSTANCE, JOURNAL = "scattersphere-instance", "scattersphere-journal"
SILENT = 60.0
"""Seconds without a byte after which a stream of events is given up: the server sends a comment each 15."""
_ = handlers  # importing it fills the table


class HttpEvents:
    """The events of a stream, up to its end. `place` is what to go on from (`since`)."""

    def __init__(self, response: httpx.Response, since: int | str) -> None:
        self.place: int | str = since
        """The id of the last event: `LIFE.NUMBER`, or its number where the server has no journal."""
        self._response = response
        self._parts = response.aiter_bytes()
        self._rest = b""
        self._blocks: deque[bytes] = deque()

    def __aiter__(self) -> HttpEvents:
        return self

    async def __anext__(self) -> JsonObject:
        while True:
            while not self._blocks:
                await self._read()
            fields = _fields(self._blocks.popleft())
            if fields.get("event") == "end":
                await self.aclose()
                raise StopAsyncIteration
            if "data" in fields:  # else a comment: nothing has happened
                if read_event_id(place := fields.get("id", "")) is not None:
                    self.place = int(place) if place.isdecimal() else place
                return _object(fields["data"].encode())

    async def _read(self) -> None:
        try:
            part = await anext(self._parts, None)
        except httpx.TransportError as error:
            raise _broken(error) from None
        if part is None:
            raise DisconnectedError("gone")
        *blocks, self._rest = (self._rest + part).split(b"\n\n")
        self._blocks += blocks
        if len(self._rest) > LINE_LIMIT:
            raise DisconnectedError("line-too-long")

    async def aclose(self) -> None:
        """End the stream. May be repeated."""
        await self._parts.aclose()  # type: ignore[attr-defined] # an async generator, annotated as less
        await self._response.aclose()


def _fields(block: bytes) -> dict[str, str]:
    """Return the fields of a server-sent event; a comment has none."""
    lines = block.decode("utf-8", "replace").split("\n")
    pairs = (line.partition(":") for line in lines if not line.startswith(":"))
    return {name: value.removeprefix(" ") for name, _, value in pairs}


class HttpClient:
    """Asks a server over HTTP. Made by `connect`; the methods raise `RemoteError` and `DisconnectedError`."""

    def __init__(self, http: httpx.AsyncClient, base: str) -> None:
        self._http = http
        self._base = base
        self._streams: list[HttpEvents] = []
        self.greeting: JsonObject = {}
        """Who you are for the server, and which one it is: `user`, `role`, `patterns`, `instance`."""

    def __repr__(self) -> str:
        who = f"{self.greeting.get('user')} ({self.greeting.get('role')})"
        return f"<HttpClient of {self._base}, as {who}>"

    async def call(self, command: str, /, **args: object) -> JsonObject:
        """Carry a command out and return its result; arguments that are None are left out.

        Raises `RemoteError` where the server refuses, `DisconnectedError` where the connection breaks, is silent for
        too long, or what answers is no server of ours.
        """
        given = {name: value for name, value in args.items() if value is not None}
        request = self._request(_row(command), given)
        request.extensions["timeout"] = httpx.Timeout(
            CONNECT_TIME, read=patience_for(command, given)
        ).as_dict()
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = await _bounded(response)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise _broken(error) from None
        return _result(response, body)

    async def start(self, job: str, params: JsonObject | None = None, *, key: str | None = None) -> int:
        """Start a run of a job and return its number. With a key it may be sent again: nothing starts twice."""
        return whole_number(await self.call("start", job=job, params=params, key=key), "run")

    async def run(self, job: str, params: JsonObject | None = None, *, key: str | None = None) -> JsonObject:
        """Run a job, wait for the end of its run, and return its number (`run`) and `state`.

        Raises `RunFailedError` unless it succeeded; its `.run` is that reply.
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
    ) -> HttpEvents:
        """Follow the events of a run from its first one, or of the server from now on; after `since` where given."""
        path = "/events" if run is None else f"/runs/{run}/events"
        headers = {"last-event-id": str(since)} if since is not None else {}
        request = self._http.build_request(
            "GET",
            f"{self._base}{API}{path}",
            params={"kinds": ",".join(kinds)} if kinds else {},
            headers=headers,
            timeout=httpx.Timeout(CONNECT_TIME, read=SILENT),
        )
        try:
            response = await self._http.send(request, stream=True)
            if response.status_code != httpx.codes.OK:
                _result(response, await _bounded(response))
                raise DisconnectedError(NONSENSE)
        except httpx.TransportError as error:
            raise _broken(error) from None
        events = HttpEvents(response, since or 0)
        self._streams.append(events)
        return events

    async def aclose(self) -> None:
        """End the streams of events."""
        with anyio.CancelScope(shield=True):
            for events in self._streams:
                await events.aclose()

    def _request(self, row: CommandSpec, given: JsonObject) -> httpx.Request:
        path, query, body = str(row.path), dict[str, Any](), dict[str, Any]()
        content: object = None
        for name, value in given.items():
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif name == row.whole:
                content = value if isinstance(value, str | bytes) else json.dumps(value)
            elif row.method in {"GET", "DELETE"} or row.whole is not None:
                query[name] = ",".join(value) if isinstance(value, list) else _word(value)
            else:
                body[name] = value
        sent: JsonObject = {"content": content} if content is not None else {"json": body} if body else {}
        return self._http.build_request(str(row.method), f"{self._base}{API}{path}", params=query, **sent)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _row(command: str) -> CommandSpec:
    row = COMMANDS.get(command)
    if row is None:
        raise RemoteError({"code": "unknown-command", "message": f"no command {command[:64]!r}"})
    if row.method is None or row.streaming:
        raise RemoteError({"code": "unsupported", "message": f"{command} is not for HTTP"})
    return row


def _result(response: httpx.Response, body: bytes) -> JsonObject:
    found = _object(body)
    if response.status_code in {httpx.codes.OK, httpx.codes.CREATED}:
        return found
    if not isinstance(found.get("code"), str):
        raise DisconnectedError(NONSENSE)
    raise RemoteError({**found, "message": found.get("detail", "")})


def _object(body: bytes) -> JsonObject:
    try:
        found = read_json(body)
    except (ValueError, RecursionError):
        raise DisconnectedError(NONSENSE) from None
    if not isinstance(found, dict):
        raise DisconnectedError(NONSENSE)
    return found


def _broken(error: httpx.TransportError) -> DisconnectedError:
    return DisconnectedError("timeout" if isinstance(error, httpx.TimeoutException) else "gone")


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > LINE_LIMIT:
            raise DisconnectedError("line-too-long")
    return bytes(body)


@asynccontextmanager
async def connect(
    address: str,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    patience: float = CONNECT_TIME,
    http: httpx.AsyncClient | None = None,
) -> AsyncIterator[HttpClient]:
    """Ask a server at an address as `https://jobs.example.com/ops`: that of its pages.

    `http` is a client of yours, with its own proxies and headers; it is not closed. Raises `OSError` where nobody
    listens (`TimeoutError` where nobody answers), `RemoteError` for a wrong token, `DisconnectedError` where what
    answers is no server of ours.
    """
    base = address.rstrip("/")
    used = http or httpx.AsyncClient(verify=tls if tls is not None else True, trust_env=False)
    if token is not None:
        used.headers["authorization"] = f"Bearer {token}"
    client = HttpClient(used, base)
    try:
        try:
            response = await used.get(f"{base}{API}/whoami", timeout=patience)
        except httpx.TimeoutException:
            raise TimeoutError(f"nobody answers at {base}") from None
        except httpx.ConnectError as error:
            raise ConnectionError(str(error)) from None
        except httpx.TransportError as error:
            raise _broken(error) from None
        client.greeting = _result(response, response.content) | {
            "instance": response.headers.get(INSTANCE),
            "journal": response.headers.get(JOURNAL),
        }
        yield client
    finally:
        await client.aclose()
        if http is None:
            await used.aclose()


def following(  # noqa: PLR0913 - as that of the line protocol
    address: str,
    run: int | None = None,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    kinds: list[str] | None = None,
    since: int | str | None = None,
    pause: float = 0.5,
    patience: float = 60.0,
    http: httpx.AsyncClient | None = None,
) -> AbstractAsyncContextManager[AsyncIterator[JsonObject]]:
    """Give the events of a run, or of the server, up to the end, connecting again where a connection breaks.

    `since` is the number or the id of the last event that you have. After a break it waits `pause` seconds, longer each
    time, for at most `patience` seconds, and goes on after the last event that it saw (`Last-Event-ID`): with a journal
    also where the server was started anew. The iterator raises `OSError`, `RemoteError` where the server refuses, and
    `DisconnectedError` where it was started anew without that journal: its runs are others.
    """
    connecting = partial(connect, address, token=token, tls=tls, http=http)
    return followed_over(connecting, run, kinds=kinds, since=since, pause=pause, patience=patience)

"""Events over connections that break: an async iterator that reconnects and goes on where it was.

`since` makes that exact: after a break the client asks for what came after the last number it saw.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream

from scattersphere._json_words import JsonObject
from scattersphere.model.events import EventKind
from scattersphere.remote.client import DisconnectedError, RemoteError, connect

if TYPE_CHECKING:
    import ssl

    from anyio.streams.memory import MemoryObjectSendStream


RESTARTED = "the server was started anew"
ANEW = "server-started"
"""The event by which `following` tells that it goes on with a server that was started anew."""
AHEAD = 100
"""Events that wait for the reader; beyond that the connection waits, and the server notices."""
LONGEST_PAUSE = 5.0
_REFUSED_FOR_NOW = frozenset({"busy", "rate-limited"})
_FOR_GOOD = frozenset({RESTARTED, "auth-failed", "auth-required", "bad-frame", "line-too-long"})


@attrs.define(eq=False)
class _Followed(AsyncIterator[JsonObject]):
    """What `following` gives: the events in order, then the end, or the error that stopped it."""

    _received: MemoryObjectReceiveStream[JsonObject]
    failure: Exception | None = None

    async def __anext__(self) -> JsonObject:
        try:
            return await self._received.receive()
        except anyio.EndOfStream:
            if self.failure is not None:
                raise self.failure from None
            raise StopAsyncIteration from None


@attrs.define(eq=False, kw_only=True)
class _Follower:
    """Follows over one connection after the other."""

    connecting: Callable[[], AbstractAsyncContextManager[Any]]
    run: int | None
    kinds: list[str] | None
    since: int | str | None
    pause: float
    patience: float
    _instance: str | None = None
    _journal: str | None = None
    _lost_at: float | None = None
    _wait: float = 0.0

    async def follow(self, sent: MemoryObjectSendStream[dict[str, object]]) -> None:
        while True:
            try:
                await self._over_one_connection(sent)
                return
            except (OSError, DisconnectedError, RemoteError) as exc:
                if not self._may_go_on(exc):
                    raise
            await anyio.sleep(self._wait)
            self._wait = min(LONGEST_PAUSE, self._wait * 2)

    async def _over_one_connection(self, sent: MemoryObjectSendStream[dict[str, object]]) -> None:
        async with self.connecting() as client:
            instance, journal = client.greeting["instance"], client.greeting.get("journal")
            if self._instance not in {None, instance}:
                if self.run is None:
                    await sent.send({"event": ANEW, "instance": instance})
                    self._instance, self.since = instance, 0  # its numbers begin anew, too
                elif journal is None or journal != self._journal:
                    raise DisconnectedError(RESTARTED)
            events = await client.follow(self.run, kinds=self.kinds, since=self.since)
            self._instance, self._journal, self._lost_at = instance, journal, None
            self.since, last = events.place, ""
            async for event in events:
                await sent.send(event)
                self.since, last = events.place, event["event"]
            if last == EventKind.RUN_SUSPENDED:  # it goes on when the server is there again
                raise DisconnectedError("shutting-down")

    def _may_go_on(self, exc: Exception) -> bool:
        """Whether it may be better soon. The first connection has to succeed."""
        if self._instance is None:
            return False
        if isinstance(exc, RemoteError) and exc.code not in _REFUSED_FOR_NOW:
            return False
        if isinstance(exc, DisconnectedError) and exc.code in _FOR_GOOD:
            return False
        now = anyio.current_time()
        if self._lost_at is None:
            self._lost_at, self._wait = now, self.pause
        return now - self._lost_at <= self.patience


def following(
    address: str,
    run: int | None = None,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    kinds: list[str] | None = None,
    since: int | str | None = None,
    pause: float = 0.5,
    patience: float = 60.0,
) -> AbstractAsyncContextManager[AsyncIterator[JsonObject]]:
    """Give the events of a run, or of the server, up to the end, connecting again where a connection breaks.

    `since` is the number or the id of the last event that you have: 0 for all, None for those to come. After a break
    it waits `pause` seconds, longer each time, for at most `patience` seconds. The events of the server go on where it
    was started anew: `{"event": "server-started", "instance": ..}` comes first, then all that the new one has. Those of
    a run go on where the server has the same journal: `lagged` comes first, then all from `run-recovered` on. The
    iterator raises `OSError`, `RemoteError` where the server refuses, and, with a run, `DisconnectedError` where the
    server was started anew without that journal: its runs are others.
    """
    connecting = partial(connect, address, token=token, tls=tls)
    return followed_over(connecting, run, kinds=kinds, since=since, pause=pause, patience=patience)


@asynccontextmanager
async def followed_over(
    connecting: Callable[[], AbstractAsyncContextManager[object]],
    run: int | None,
    *,
    kinds: list[str] | None,
    since: int | str | None,
    pause: float,
    patience: float,
) -> AsyncIterator[AsyncIterator[JsonObject]]:
    """As `following`, over clients of any transport: each has a `greeting` with its `instance`, and `follow`."""
    follower = _Follower(
        connecting=connecting, run=run, kinds=kinds, since=since, pause=pause, patience=patience
    )
    sent, received = anyio.create_memory_object_stream[JsonObject](AHEAD)
    followed = _Followed(received)
    failure: Exception | None = None

    async def follow() -> None:
        with sent:
            try:
                await follower.follow(sent)
            except Exception as exc:  # noqa: BLE001 - it is raised where the events are awaited
                followed.failure = exc

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        with received:
            try:
                yield followed
            except Exception as exc:  # noqa: BLE001 - leaves as it is, and not inside an ExceptionGroup
                failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure

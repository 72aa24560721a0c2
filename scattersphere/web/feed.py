"""Fan-out of the events of one source: read once, written once, and handed on a few readers at a time.

A thousand readers that each followed by themselves would wake in one turn of the loop, and whoever else lives on the
loop would wait for all of them. Here one task reads (that of a reader; another takes over when it leaves), and wakes
the others in slices. A reader that is too far behind reads by itself until it has caught up.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import attrs

from scattersphere.commands.views import event_view, kind_of
from scattersphere.engine.events.streams import lives_before, place_afar, since_of
from scattersphere.model.events import Event, EventKind
from scattersphere.remote.render import as_json
from scattersphere.web.streams import ALIVE, Produce, Write
from scattersphere.web.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


KEPT = 2_000
"""Events that a feed keeps for readers that are not quite as quick as the others."""
SLICE = 8
"""Readers that are woken in one turn of the loop."""
BATCH = 128
"""Events in one piece of a stream at most."""


@attrs.frozen
class FeedEvent:
    """An event, and what is sent of it."""

    event: Event
    kind: str
    data: bytes


def entry_of(event: Event) -> FeedEvent:
    """Write an event as a server-sent event, with its number."""
    view = event_view(event, 0)
    del view["sub"]
    data = as_json(view).rstrip()
    return FeedEvent(
        event,
        kind_of(event),
        f"id: {event.id}\nevent: {event.kind}\ndata: ".encode() + data + b"\n\n",
    )


class Feed:
    """What happens at one source: `source(since)` gives its events after a number, `last` is that of the newest."""

    def __init__(self, source: Callable[[int], AsyncIterator[Event]], last: int) -> None:
        self._source = source
        self._floor = self._last = last
        self._entries: list[FeedEvent] = []
        self._numbers: list[int] = []
        self._waiting: dict[anyio.Event, None] = {}
        self._turns = Turns()
        self._reads = False
        self._ended = False
        self.readers = 0

    async def stream(self, since: int, wanted: Callable[[FeedEvent], bool], write: Write) -> None:
        """Write the events after a number as server-sent events, and a comment where nothing happens."""
        position = since
        async with anyio.create_task_group() as group:
            try:
                while True:
                    if position < self._floor:
                        entries = await self._behind(position)
                        if not entries:
                            position = self._floor
                            continue
                    else:
                        start = bisect_right(self._numbers, position)
                        entries = self._entries[start : start + BATCH]
                    if entries:
                        position = max(position, entries[-1].event.seq)
                        data = b"".join(entry.data for entry in entries if wanted(entry))
                        if data:
                            await write(data)
                        continue
                    if self._ended:
                        await write(b"event: end\ndata: {}\n\n")
                        return
                    if not self._reads:
                        self._reads = True
                        group.start_soon(self._read)
                    if not await self._news():
                        await write(b": alive\n\n")
            finally:
                group.cancel_scope.cancel()

    async def _behind(self, position: int) -> list[FeedEvent]:
        """Return some of what the feed does not keep, read from the source."""
        found: list[FeedEvent] = []
        await self._turns.take()
        async with aclosing(self._source(position)) as events:  # type: ignore[type-var] # a generator
            async for event in events:
                found.append(entry_of(event))
                if len(found) >= BATCH or event.seq >= self._floor:
                    break
        return found

    async def _news(self) -> bool:
        """Wait until something happens, but not for ever."""
        news = anyio.Event()
        self._waiting[news] = None
        try:
            with anyio.move_on_after(ALIVE):
                await news.wait()
        finally:
            self._waiting.pop(news, None)
        return news.is_set()

    async def _read(self) -> None:
        try:
            async with aclosing(self._source(self._last)) as events:  # type: ignore[type-var] # the same
                async for event in events:
                    self._add(entry_of(event))
                    await self._wake()
            self._ended = True
        finally:
            self._reads = False
            for news in self._waiting:  # one of them reads on, or all see the end
                news.set()

    def _add(self, entry: FeedEvent) -> None:
        self._entries.append(entry)
        self._numbers.append(entry.event.seq)
        self._last = entry.event.seq
        if len(self._entries) >= 2 * KEPT:
            self._floor = self._numbers[KEPT - 1]
            del self._entries[:KEPT], self._numbers[:KEPT]

    async def _wake(self) -> None:
        waiting, self._waiting = iter(self._waiting), {}
        while found := list(islice(waiting, SLICE)):
            for news in found:
                news.set()
            await anyio.lowlevel.checkpoint()


class Feeds:
    """The feeds that somebody reads, by what they are about."""

    def __init__(self) -> None:
        self._feeds: dict[object, Feed] = {}

    def stream(
        self,
        about: object,
        source: Callable[[int], AsyncIterator[Event]],
        last: int,
        since: int | str,
        wanted: Callable[[FeedEvent], bool],
        life: int = 0,
    ) -> Produce:
        """Return what writes events as `Feed.stream` does, over a feed that all who read the same source share.

        `since` is a number, or an `Event.id`: of another life than this one all events come, after a `lagged` one.
        """
        number, is_anew = since_of(place_afar(since, life, last), life)

        async def produce(write: Write) -> None:
            if is_anew:
                await write(entry_of(lives_before(dt.datetime.now(dt.UTC), life=life)).data)
            async with self._joined(about, source, last) as feed:
                await feed.stream(number, wanted, write)

        return produce

    @asynccontextmanager
    async def _joined(
        self, about: object, source: Callable[[int], AsyncIterator[Event]], last: int
    ) -> AsyncIterator[Feed]:
        feed = self._feeds.setdefault(about, Feed(source, last))
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                with suppress(KeyError):
                    del self._feeds[about]


def lagged(entry: FeedEvent) -> bool:
    """Whether an entry tells that events were lost: everybody is told, whatever kinds were asked for."""
    return entry.event.kind is EventKind.LAGGED

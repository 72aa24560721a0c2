"""The Server's own stream of events: bounded, numbered, read by anybody from any number on."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio

from scattersphere.model.events import Event, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable


class EventFeed:
    """Keeps the newest `keep` events. Readers pull; a slow one is told what it missed."""

    def __init__(self, keep: int) -> None:
        self._events: deque[Event] = deque(maxlen=keep)
        self._last = 0
        self._now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
        self._waiting: set[anyio.Event] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def open(self, now: Callable[[], dt.datetime]) -> None:
        """Take the time from the loop's clock from now on."""
        self._now = now

    def add(self, kind: EventKind, **fields: Any) -> None:
        """Append an event and wake the readers."""
        self._last += 1
        self._events.append(Event(seq=self._last, time=self._now(), kind=kind, **fields))
        waiting, self._waiting = self._waiting, set()
        for event in waiting:
            event.set()

    def close(self) -> None:
        """End all readers, once they have read what there is."""
        self._closed = True
        for event in self._waiting:
            event.set()

    def read(self, since: int = 0) -> AsyncIterator[Event]:
        """Yield events above `since`; a `lagged` event stands for those that are gone."""
        return _FeedReader(self, since)

    def after(self, number: int) -> Event | None:
        """Return the oldest kept event above `number`."""
        if number >= self._last:
            return None
        oldest = self._events[0].seq
        return self._events[max(0, number + 1 - oldest)]

    @property
    def closed(self) -> bool:
        """Whether no further event will come."""
        return self._closed

    async def changed(self) -> None:
        """Wait for the next event, or the end."""
        waiter = anyio.Event()
        self._waiting.add(waiter)
        try:
            await waiter.wait()
        finally:
            self._waiting.discard(waiter)


class _FeedReader(AsyncIterator[Event]):
    """One reader's place in the feed."""

    def __init__(self, feed: EventFeed, since: int) -> None:
        self._feed = feed
        self._last = since

    async def __anext__(self) -> Event:
        while (event := self._feed.after(self._last)) is None:
            if self._feed.closed:
                raise StopAsyncIteration
            await self._feed.changed()
        missed, self._last = event.seq - self._last - 1, event.seq
        if not missed:
            return event
        self._last = event.seq - 1
        return Event(
            seq=event.seq - 1,
            time=event.time,
            kind=EventKind.LAGGED,
            message=f"{missed} events were dropped",
            dropped=missed,
        )

"""The Server's own stream of events: bounded, numbered, read by anybody from any number on."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio

from scattersphere.model.events import Event, EventKind
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable


_Move = tuple[float, str, int, str, str]
"""clock, kind, run, job, state: of plain values only, which the garbage collector does not go through again."""


class EventFeed:
    """Keeps the newest `keep` events. Readers pull; a slow one is told what it missed.

    Moves of runs are by far the most, and mostly nobody reads them: their event is made by the first reader.
    """

    def __init__(self, keep: int) -> None:
        self._events: deque[Event | _Move] = deque(maxlen=keep)
        self._last = 0
        self._clock: Callable[[], float] = time.time
        self._wall: Callable[[float], dt.datetime] = _utc
        self._waiting: set[anyio.Event] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def open(self, clock: Callable[[], float], wall: Callable[[float], dt.datetime]) -> None:
        """Take the time from the loop's clock from now on; `wall` turns that into aware UTC."""
        self._clock, self._wall = clock, wall

    def add(self, kind: EventKind, **fields: Any) -> None:
        """Append an event and wake the readers."""
        self._last += 1
        self._events.append(Event(seq=self._last, time=self._wall(self._clock()), kind=kind, **fields))
        self._wake()

    def moved(self, kind: EventKind, run: int, job: str, state: RunState, clock: float) -> None:
        """Append the event of a run's move, and wake the readers."""
        self._last += 1
        self._events.append((clock, kind.value, run, job, state.value))
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
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
        if not self._events:  # none is kept
            return None
        place = max(0, number - (self._last - len(self._events)))
        event = self._events[place]
        if not isinstance(event, Event):
            clock, kind, run, job, state = event
            seq = self._last - len(self._events) + place + 1
            event = self._events[place] = Event(
                seq=seq,
                time=self._wall(clock),
                kind=EventKind(kind),
                run=run,
                job=job,
                state=RunState(state),
            )
        return event

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


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


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

"""Events and log lines as one reader sees them: the streams of a run, and the Server's own.

All of them pull: nothing is queued for a slow reader, so it slows nobody down.
"""

from __future__ import annotations

import datetime as dt
import time
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel

from scattersphere.engine.events.pages import EventPages
from scattersphere.errors import ArgumentError
from scattersphere.model.arguments import check_count
from scattersphere.model.events import Event, EventKind, read_event_id
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.events.pages import Page
    from scattersphere.engine.execution import Execution
    from scattersphere.logs.runlog import RunLog
    from scattersphere.model.logs import LogLine

T_co = TypeVar("T_co", covariant=True)

TURN = 1024
"""Events that are told before the loop has a turn: about a millisecond."""


class Stream(AsyncIterator[T_co]):
    """What `async for` reads, until it ends or is closed: `contextlib.aclosing(run.events())` closes it in time."""

    _closed = False

    async def aclose(self) -> None:
        """End the stream, also for a task that waits for its next element. Idempotent."""
        self._closed = True
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Have those who wait look again."""


def since_of(since: int | str, life: int) -> tuple[int, bool]:
    """Return after which number of this life a stream goes on, and whether it stood in another life.

    Then it begins anew: its events are told no more. Raises `TypeError`, `ArgumentError` for what is no number and no
    `Event.id`.
    """
    if not isinstance(since, str):
        check_count(since, "since", least=0)
        return since, False
    found = read_event_id(since)
    if found is None:
        raise ArgumentError(f'since is the number of an event, or its id as "3.57", not {since[:32]!r}')
    said, number = found
    return (number, False) if said is None or said == life else (0, True)


def place_afar(since: int | str, life: int, last: int) -> int | str:
    """Return the place that another program names, as one of another life where it was not told yet.

    `last` is the number of the newest event. Without a journal nothing else tells that the server was started anew.
    Raises as `since_of`.
    """
    number, _ = since_of(since, life)
    return since if number <= last else f"{life + 1}.0"


class EventStream(Stream[Event]):
    """The events of a run from a number on, until it has ended.

    A slow reader loses no move. Where progress or log events were dropped before it came to them, a `lagged` event
    stands for them, one for all that are missing on a page.
    """

    def __init__(self, execution: Execution, since: int | str = 0) -> None:
        self._execution = execution
        self._pages: EventPages = EventPages.of(execution)
        after, is_anew = since_of(since, execution.engine.life)
        self._last = after
        """The number up to which everything was told, or is gone."""
        self._turned = after
        """The number up to which pages were read: one of which all is gone is not opened again."""
        self._page: Page | None = None
        self._ready: Iterator[Event] = iter(())
        if is_anew:
            where = {"run": execution.id, "job": execution.plan.job, "life": execution.engine.life}
            self._ready = iter((lives_before(execution.wall(execution.engine.clock()), **where),))
        self._told = 0
        """How many events were told since the loop had a turn."""

    def __repr__(self) -> str:
        return (
            f"<EventStream of run {self._execution.id}, after event {self._last}; read it with `async for`>"
        )

    async def __anext__(self) -> Event:
        """Return the next event; wait for it if need be."""
        for event in self._ready:  # the quickest way to take one: ten readers come here for each event
            return event
        await self._get_more()
        return next(self._ready)

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Yield the events that are there in lists, as they come: for one who writes many of them at once."""
        async for event in self:
            yield [event, *self._ready]

    async def _get_more(self) -> None:
        execution = self._execution
        if self._told >= TURN:  # much is there already: others are to have a turn all the same
            self._told = 0
            await anyio.lowlevel.checkpoint()
        while self._closed or not self._advance():
            if self._closed or execution.state.ended or execution.is_suspended:
                self._ready = iter(())
                raise StopAsyncIteration
            self._told = 0
            await execution.changed()

    def _advance(self) -> bool:
        """Make ready what has happened meanwhile. Return whether there is anything."""
        self._execution.note_lines()
        while True:
            page = self._page
            if page is None:
                after = max(self._last, self._turned)
                if after >= self._execution.journal.last:
                    return False
                page = self._page = self._pages.page_of(self._pages.next_kept(after))
            else:
                self._pages.fill(page)
            if events := self._take(page):
                self._ready, self._last = iter(events), events[-1].seq
                self._told += len(events)
                return True
            if page.made < page.last:
                return False
            self._page, self._turned = None, page.last

    def _take(self, page: Page) -> list[Event]:
        """Return what is new on the page; where numbers are missing, say so."""
        told = self._last - page.first + 1
        if page.whole and told >= 0:
            # A page that can grow no more is read as it is: a copy would touch each event once more for each reader.
            return page.events[told:] if told or page.made < page.last else page.events
        events: list[Event] = []
        last, missing, gap = self._last, 0, None
        for event in page.events:
            if event.seq > last:
                if event.seq > last + 1:
                    missing += event.seq - last - 1
                    gap = len(events)
                events.append(event)
                last = event.seq
        if gap is not None:
            after, execution = events[gap], self._execution
            where = {"run": execution.id, "job": execution.plan.job, "life": execution.engine.life}
            events.insert(gap, lagged(after.seq - 1, after.time, missing, **where))
        return events

    def _wake(self) -> None:
        self._ready = iter(())
        self._execution.tell()


class LogStream(Stream["LogLine"]):
    """The lines of a run's log from the first one on, and those to come, until the run has ended."""

    def __init__(
        self,
        execution: Execution,
        task: str | None = None,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> None:
        self._execution = execution
        self._wanted = (task, index, attempt)
        self._tail = tail
        self._begun = False
        self._number = 0
        self._ready: deque[LogLine] = deque()

    def __repr__(self) -> str:
        return f"<LogStream of run {self._execution.id}, after line {self._number}; read it with `async for`>"

    async def __anext__(self) -> LogLine:
        """Return the next line; wait for it if need be."""
        execution = self._execution
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            ended = execution.state.ended or execution.is_suspended
            execution.note_lines()
            if not self._begun:
                self._begun = True
                self._begin(execution.log)
            else:
                lines, self._number = execution.log.since(self._number)
                self._ready.extend(filter(self._is_wanted, lines))
            if not self._ready:
                if ended:
                    raise StopAsyncIteration
                await execution.changed()
        return self._ready.popleft()

    def _begin(self, log: RunLog) -> None:
        """Take what is there already, of all lives of the run; of that, only the `tail`."""
        lines, self._number = log.since(0)
        found, tail = list(filter(self._is_wanted, lines)), self._tail
        if tail is not None:
            found = found[-tail:] if tail else []
            tail -= len(found)
        self._ready.extend([*log.earlier_lines(*self._wanted, tail=tail), *found])

    def _is_wanted(self, line: LogLine) -> bool:
        task, index, attempt = self._wanted
        return task in {None, line.task} and index in {None, line.index} and attempt in {None, line.attempt}

    def _wake(self) -> None:
        self._ready.clear()
        self._execution.tell()


_Move = tuple[float, str, int, str, str]
"""seconds since 1970, kind, run, job, state: of plain values only, which the collector does not go through again."""


class EventFeed:
    """Keeps the newest `keep` events. Readers pull; a slow one is told what it missed.

    Moves of runs are by far the most, and mostly nobody reads them: their event is made by the first reader.
    """

    def __init__(self, keep: int) -> None:
        self._events: deque[Event | _Move] = deque(maxlen=keep)
        self._last = 0
        self.life: int = 0
        """The life of the journal that numbers belong to."""
        self._now: Callable[[], float] = time.time
        self._latest = float("-inf")
        self._waiting: set[anyio.Event] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def open(self, now: Callable[[], float]) -> None:
        """Take the time, in seconds since 1970, from `now`, which never goes back."""
        self._now = now

    def add(self, kind: EventKind, **fields: Any) -> None:
        """Append an event and wake the readers."""
        self._last += 1
        self._latest = when = max(self._now(), self._latest)
        self._events.append(Event(seq=self._last, time=_utc(when), kind=kind, life=self.life, **fields))
        self.wake()

    def moved(self, kind: EventKind, run: int, job: str, state: RunState, when: float) -> float:
        """Append the event of a run's move, and wake the readers; return its time.

        That is `when`, by the run's own clock, unless the wall was set back since: times do not go back either.
        """
        self._last += 1
        self._latest = when = max(when, self._latest)
        self._events.append((when, kind.value, run, job, state.value))
        if self._waiting:
            self.wake()
        return when

    def wake(self) -> None:
        """Have all readers look again."""
        waiting, self._waiting = self._waiting, set()
        for event in waiting:
            event.set()

    def close(self) -> None:
        """End all readers, once they have read what there is."""
        self._closed = True
        for event in self._waiting:
            event.set()

    def read(self, since: int | str = 0) -> FeedStream:
        """Yield events above `since`; a `lagged` event stands for those that are gone.

        Raises `TypeError`, `ArgumentError`.
        """
        after, is_anew = since_of(since, self.life)
        return FeedStream(self, after, lives_before(_utc(self._now()), life=self.life) if is_anew else None)

    def after(self, number: int) -> Event | None:
        """Return the oldest kept event above `number`."""
        if number >= self._last:
            return None
        if not self._events:  # none is kept
            return None
        place = max(0, number - (self._last - len(self._events)))
        event = self._events[place]
        if not isinstance(event, Event):
            when, kind, run, job, state = event
            seq = self._last - len(self._events) + place + 1
            event = self._events[place] = Event(
                seq=seq,
                time=_utc(when),
                kind=EventKind(kind),
                run=run,
                job=job,
                state=RunState(state),
                life=self.life,
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


class FeedStream(Stream[Event]):
    """One reader's place in the Server's feed."""

    def __init__(self, feed: EventFeed, since: int, first: Event | None = None) -> None:
        self._feed = feed
        self._last = since
        self._first = first
        """What is told before all else."""

    def __repr__(self) -> str:
        return f"<FeedStream of the Server, after event {self._last}; read it with `async for`>"

    async def __anext__(self) -> Event:
        """Return the next event; wait for it if need be."""
        if self._first is not None and not self._closed:
            first, self._first = self._first, None
            return first
        while self._closed or (event := self._feed.after(self._last)) is None:
            if self._closed or self._feed.closed:
                raise StopAsyncIteration
            await self._feed.changed()
        missed = event.seq - self._last - 1
        self._last = event.seq - bool(missed)
        return lagged(event.seq - 1, event.time, missed, life=event.life) if missed else event

    def _wake(self) -> None:
        self._feed.wake()


def lagged(seq: int, time: dt.datetime, dropped: int, **where: Any) -> Event:
    """Make the event that stands for so many which are gone."""
    words = f"{dropped} {'event was' if dropped == 1 else 'events were'} dropped"
    return Event(seq=seq, time=time, kind=EventKind.LAGGED, message=words, dropped=dropped, **where)


def lives_before(time: dt.datetime, **where: Any) -> Event:
    """Make the event that stands for those after the one that a reader had in an earlier life of the Server."""
    words = "the server was started anew: what it told before is not known any more"
    return Event(seq=0, time=time, kind=EventKind.LAGGED, message=words, **where)

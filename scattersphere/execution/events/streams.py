"""The stream of a run's events, and that of its log lines, as one reader sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import anyio.lowlevel

from scattersphere.model.events import Event, EventKind

if TYPE_CHECKING:
    from scattersphere.execution.events.pages import EventPages, Page
    from scattersphere.execution.execution import Execution
    from scattersphere.model.logs import LogLine

TURN = 1024
"""Events that are told before the loop has a turn: about a millisecond."""


class EventStream(AsyncIterator[Event]):
    """The events of a run from a number on, until it has ended.

    It pulls: nothing is queued for a slow reader, so it cannot slow the run down, and loses no move.
    Where progress or log events were dropped before it came to them, one `lagged` event stands for them.
    """

    def __init__(self, execution: Execution, since: int = 0) -> None:
        self._execution = execution
        self._pages: EventPages = execution.pages
        self._last = since
        """The number up to which everything was told, or is gone."""
        self._turned = since
        """The number up to which pages were read: one of which all is gone is not opened again."""
        self._page: Page | None = None
        self._ready: Iterator[Event] = iter(())
        self._told = 0
        """How many events were told since the loop had a turn."""

    async def __anext__(self) -> Event:
        """Return the next event; wait for it if need be."""
        for event in self._ready:  # the quickest way to take one: ten readers come here for each event
            return event
        await self._get_more()
        return next(self._ready)

    async def _get_more(self) -> None:
        execution = self._execution
        if self._told >= TURN:  # much is there already: others are to have a turn all the same
            self._told = 0
            await anyio.lowlevel.checkpoint()
        while not self._advance():
            if execution.state.ended:
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
        last = self._last
        for event in page.events:
            if event.seq > last:
                if event.seq > last + 1:
                    events.append(_lagged(event, event.seq - last - 1))
                events.append(event)
                last = event.seq
        return events


class LogStream(AsyncIterator["LogLine"]):
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
        self._number = 0
        self._ready: deque[LogLine] = deque()

    async def __anext__(self) -> LogLine:
        """Return the next line; wait for it if need be."""
        execution = self._execution
        while not self._ready:
            ended = execution.state.ended
            execution.note_lines()
            lines, self._number = execution.log.since(self._number)
            self._ready.extend(filter(self._is_wanted, lines))
            if self._tail is not None:  # only of what is there already
                self._ready, self._tail = deque(self._ready, maxlen=self._tail), None
                self._ready = deque(self._ready)
            if not self._ready:
                if ended:
                    raise StopAsyncIteration
                await execution.changed()
        return self._ready.popleft()

    def _is_wanted(self, line: LogLine) -> bool:
        task, index, attempt = self._wanted
        return task in {None, line.task} and index in {None, line.index} and attempt in {None, line.attempt}


def _lagged(event: Event, dropped: int) -> Event:
    """Say that events before this one are gone."""
    return Event(
        seq=event.seq - 1,
        time=event.time,
        kind=EventKind.LAGGED,
        run=event.run,
        job=event.job,
        message=f"{dropped} {'event was' if dropped == 1 else 'events were'} dropped",
        dropped=dropped,
    )

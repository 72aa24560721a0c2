"""The log of a run: bounded, tagged by attempt, written from any thread.

A line reaches its run through the attempt that it belongs to and never through a global: either the
attempt's own logger holds it, or the ContextVar `current_attempt` of the code that writes it does.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scattersphere._turns import EACH
from scattersphere.logs.failures import format_failure, shorten
from scattersphere.logs.frames import logical_names
from scattersphere.logs.masking import hide
from scattersphere.logs.spill import Entry, Spill
from scattersphere.model.logs import LogLine

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, MutableMapping

LOG_LIMIT = 1024 * 1024
"""Bytes that the log of a run may take in memory (design, section 8)."""

LINE_LIMIT = 16 * 1024
"""Characters of one line (design, section 8)."""

EARLIER_LINES = 5_000
"""Lines of earlier lives of a run that are read at once: some 20 ms; the journal's own commands show all."""

_LINE_COST = 200
"""Bytes that a kept line takes beside its message: the tuple, its time and its place in the deque."""

TASK_LOGGER = "task"
ENGINE_LOGGER = "scattersphere"


class LoggedAttempt(Protocol):
    """What a line must know of the attempt that writes it; a `TaskContext` of the executor is one."""

    @property
    def run_id(self) -> int:
        """The number of the run."""
        ...

    @property
    def task(self) -> str:
        """The name of the task in the job."""
        ...

    @property
    def index(self) -> int | None:
        """Which instance of a mapped task it is."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1."""
        ...

    @property
    def run_log(self) -> LineSink:
        """The log of its run."""
        ...


class LineSink(Protocol):
    """What takes lines: a `RunLog`, or in a worker process its stand-in."""

    @property
    def level(self) -> int:
        """The lowest level that is taken."""
        ...

    @property
    def takes_prints(self) -> bool:
        """Whether what its attempts print is wanted."""
        ...

    def append(
        self,
        level: int,
        message: str,
        *,
        task: str = "",
        index: int | None = None,
        attempt: int = 0,
        logger: str = "",
        ago: float = 0.0,
    ) -> None:
        """Add a line that was written `ago` seconds before now."""


def append_for(sink: LineSink, attempt: LoggedAttempt, level: int, message: str, logger: str) -> None:
    """Add a line of an attempt to a log."""
    sink.append(
        level, message, task=attempt.task, index=attempt.index, attempt=attempt.attempt, logger=logger
    )


class EarlierLines(Protocol):
    """The lines that earlier lives of a run have written: they are in the journal, not in memory."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def read(self, most: int) -> list[LogLine]:
        """Return the newest ones, in order, `most` of them; fewer where they cannot be read. May block shortly."""
        ...


current_attempt: ContextVar[LoggedAttempt | None] = ContextVar("scattersphere_attempt", default=None)
"""The attempt whose body, or anything that it called or started, is executing."""


class RunLog:
    """The lines of one run. Any thread may append and read.

    `limit_bytes` bounds the memory: the oldest lines are dropped, and reading shows a marker in
    their place. A message longer than `line_limit` characters loses its middle. Lines below `level`
    are not taken; what attempts print only where it `takes_prints`. `spill` names a file that gets every
    line, also those that memory drops; then reading finds these too. `listener` is called with the clock of each new
    line, in the thread that wrote it; what it raises comes to the code that logs. The times of lines are those of
    `clock`, for any thread, to which `epoch` is added to make seconds since 1970: a run has one clock for all that it
    tells.
    """

    __slots__ = (
        "__weakref__", "_clock", "_dropped", "_entries", "_epoch", "_first_number", "_guard", "_newest", "_size",
        "_spill", "earlier", "hidden", "last_number", "level", "limit_bytes", "line_limit", "listener", "run",
        "takes_prints",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - options
        self,
        run: int,
        *,
        limit_bytes: int = LOG_LIMIT,
        line_limit: int = LINE_LIMIT,
        level: int = logging.INFO,
        takes_prints: bool = False,
        spill: str | os.PathLike[str] | None = None,
        listener: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.time,
        epoch: float = 0.0,
    ) -> None:
        self.run: int = run
        self._clock = clock
        self._epoch = epoch
        self._newest = float("-inf")
        """The time of the newest line."""
        self.limit_bytes: int = limit_bytes
        self.line_limit: int = line_limit
        self.level: int = level
        self.takes_prints: bool = takes_prints
        self.listener: Callable[[float], object] | None = listener
        self.earlier: EarlierLines | None = None
        """Lines of earlier lives of the run: `lines` shows them first; numbers count those of this life alone."""
        self.hidden: tuple[str, ...] = ()
        """Texts in whose place lines have `***`: the values of secrets of the run."""
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._dropped: datetime | None = None
        self._first_number = 1
        self.last_number: int = 0
        """The number of the newest line; lines are numbered from 1 without a gap."""
        self._spill = None if spill is None else Spill(Path(spill))
        # An RLock: the collector may run a user's __del__, which may log, while this thread appends.
        self._guard = threading.RLock()

    def __repr__(self) -> str:
        return f"<RunLog of run {self.run}: {len(self._entries)} lines, {self._size} bytes>"

    @property
    def size(self) -> int:
        """Bytes that the kept lines take, roughly."""
        return self._size

    def append(
        self,
        level: int,
        message: str,
        *,
        task: str = "",
        index: int | None = None,
        attempt: int = 0,
        logger: str = ENGINE_LOGGER,
        ago: float = 0.0,
    ) -> None:
        """Add a line that was written `ago` seconds before now. Levels are not filtered here."""
        if self.hidden:
            message = hide(message, self.hidden)
        if len(message) > self.line_limit:
            message = shorten(message, self.line_limit)
        with self._guard:
            # Here, and never earlier than the line before: lines are in order of numbers and times.
            when = self._newest = max(self._newest, self._epoch + self._clock() - ago)
            entry = (when, task, index, attempt, level, logger, message)
            self._entries.append(entry)
            self.last_number += 1
            self._size += _LINE_COST + sys.getsizeof(message)
            if self._size > self.limit_bytes:
                self._drop_oldest()
            spill, listener = self._spill, self.listener
            if spill is not None and not spill.write(self.last_number, entry):
                self.append(logging.WARNING, f"the log is no longer written to {spill}: {spill.error}")
        if listener is not None:
            listener(when - self._epoch)

    def append_for(
        self, attempt: LoggedAttempt, level: int, message: str, *, logger: str = TASK_LOGGER
    ) -> None:
        """Add a line of an attempt."""
        append_for(self, attempt, level, message, logger)

    def entry(self, number: int) -> Entry | None:
        """Return line `number` as it is kept; None if it was dropped."""
        with self._guard:
            place = number - self._first_number
            return self._entries[place] if 0 <= place < len(self._entries) else None

    def times_after(self, number: int, most: int) -> list[float]:
        """Return the clocks of the kept lines after line `number`, but of the last `most` ones only."""
        with self._guard:
            wanted = min(self.last_number - number, len(self._entries), most)
            newest = list(itertools.islice(reversed(self._entries), wanted))
        return [entry[0] - self._epoch for entry in reversed(newest)]

    def lines(
        self,
        *,
        task: str | None = None,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> list[LogLine]:
        """Return the kept lines in order, those that match all that is given, and of them the last `tail`.

        Where lines are gone, dropped or missing from the file, a line in their place says how many, unless `tail`
        hides it.
        """
        if self.earlier is not None:
            found = self._lines(task, index, attempt, tail)
            lacking = None if tail is None else tail - len(found)
            return [*self.earlier_lines(task, index, attempt, tail=lacking), *found]
        return self._lines(task, index, attempt, tail)

    def earlier_lines(
        self, task: str | None, index: int | None, attempt: int | None, *, tail: int | None
    ) -> list[LogLine]:
        """Return lines of earlier lives of the run as `lines` does; a marker stands for those that are too many."""
        earlier = self.earlier
        if earlier is None or (tail is not None and tail <= 0):
            return []
        chosen = tail if tail is not None and task is None else EARLIER_LINES  # a task's may be anywhere
        read = earlier.read(min(chosen, EARLIER_LINES, earlier.count))
        found = [
            line
            for line in read
            if task in {None, line.task} and index in {None, line.index} and attempt in {None, line.attempt}
        ]
        if tail is not None:
            return found[-tail:]
        older = earlier.count - len(read)
        if not older:
            return found
        time = read[0].time if read else datetime.fromtimestamp(self._epoch + self._clock(), UTC)
        verb = "is" if older == 1 else "are"
        words = f"older {{}} {verb} in the journal: scattersphere logs {self.run} --journal FILE"
        return [self._note(older, time, words), *found]

    def _lines(
        self, task: str | None, index: int | None, attempt: int | None, tail: int | None
    ) -> list[LogLine]:
        tail, each = None if tail is None else min(tail, self.last_number), EACH.get()

        def fits(entry: Entry) -> bool:
            return (
                (task is None or entry[1] == task)
                and (index is None or entry[2] == index)
                and (attempt is None or entry[3] == attempt)
            )

        with self._guard:
            first = self._first_number
            if tail is None:
                chosen = list(self._entries)
            else:  # from the end, and no further than needed: thousands of readers may ask for a few lines
                chosen = list(itertools.islice(filter(fits, reversed(self._entries)), max(0, tail)))[::-1]
        if tail is None:
            chosen = list(
                filter(fits, each(chosen))
            )  # not while it is guarded: the loop would wait for the guard
        elif len(chosen) >= tail:
            return list(map(self._line, each(chosen)))
        older: Iterable[LogLine | Entry] = (
            one for one in self._older(1, first) if isinstance(one, LogLine) or fits(one)
        )
        if tail is not None:
            older = _last(older, tail - len(chosen))
        return [*map(self._line, each(older)), *map(self._line, each(chosen))]

    def since(self, number: int) -> tuple[list[LogLine], int]:
        """Return the lines after line `number`, and the number to ask with the next time: for followers.

        A marker stands for lines in between that are gone.
        """
        with self._guard:
            first, last = self._first_number, self.last_number
            entries = list(itertools.islice(self._entries, max(0, number + 1 - first), None))
        older = self._older(number + 1, first)
        return [*map(self._line, older), *map(self._line, entries)], max(last, number)

    def _older(self, number: int, first: int) -> Iterator[Entry | LogLine]:
        """Yield the lines from `number` up to before `first` out of the file; a marker where they are nowhere."""
        if self._spill is not None:
            written = min(first, self._spill.written + 1)
            for found, entry in self._spill.read(number, written - 1):
                yield from self._missing(found - number, entry[0])
                yield entry
                number = found + 1
            yield from self._missing(written - number)
            number = max(number, written)
        yield from self._marker(first - number)

    def __iter__(self) -> Iterator[LogLine]:
        return iter(self.lines())

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Close the spill file; later lines stay in memory only."""
        with self._guard:
            if self._spill is not None:
                self._spill.close()

    def discard(self) -> None:
        """Delete the spill file."""
        with self._guard:
            if self._spill is not None:
                self._spill.discard()

    @property
    def file(self) -> Path | None:
        """The file that holds the whole log; None where there is none, or nothing was logged yet."""
        return self._spill.path if self._spill is not None and self._spill.written else None

    def _drop_oldest(self) -> None:
        # One line always stays: a limit smaller than a line must not make a log that shows nothing.
        while self._size > self.limit_bytes and len(self._entries) > 1:
            gone = self._entries.popleft()
            self._first_number += 1
            self._size -= _LINE_COST + sys.getsizeof(gone[6])
            self._dropped = datetime.fromtimestamp(gone[0], UTC)

    def _marker(self, count: int) -> list[LogLine]:
        """Return the line that stands for so many dropped ones; none for none."""
        if count <= 0 or self._dropped is None:
            return []
        return [
            self._note(count, self._dropped, f"older {{}} dropped; the limit is {self.limit_bytes} bytes")
        ]

    def _missing(self, count: int, when: float | None = None) -> list[LogLine]:
        """Return the line that stands for so many which others have taken out of the file, before one of `when`."""
        if count <= 0 or self._dropped is None:
            return []
        time = self._dropped if when is None else datetime.fromtimestamp(when, UTC)
        return [self._note(count, time, f"{{}} missing: {self._spill} was cut, removed or changed by others")]

    def _note(self, count: int, time: datetime, words: str) -> LogLine:
        message = f"... {count} {words.format('line' if count == 1 else 'lines')}"
        return LogLine(
            time=time, run=self.run, task="", level=logging.WARNING, logger=ENGINE_LOGGER, message=message
        )

    def _line(self, entry: Entry | LogLine) -> LogLine:
        if isinstance(entry, LogLine):
            return entry
        when, task, index, attempt, level, logger, message = entry
        return LogLine(
            time=datetime.fromtimestamp(when, UTC), run=self.run, task=task, index=index,
            attempt=attempt, level=level, logger=logger, message=message,
        )  # fmt: skip


def _last(found: Iterable[LogLine | Entry], count: int) -> Iterable[LogLine | Entry]:
    """Return the last `count` entries, with the markers among them."""
    kept: deque[LogLine | Entry] = deque()
    entries = 0
    for each in found:
        kept.append(each)
        entries += not isinstance(each, LogLine)
        while entries > count:
            entries -= not isinstance(kept.popleft(), LogLine)
    return kept


PassOn = Callable[[LoggedAttempt, logging.LogRecord, str], None]
"""Takes a record that an attempt has written, and its message."""


def task_logger(
    attempt: LoggedAttempt, sink: LineSink, pass_on: PassOn | None = None, name: str = TASK_LOGGER
) -> logging.LoggerAdapter[logging.Logger]:
    """Make the logger of one attempt, when `context.log` is first used: its lines go to `sink`.

    `pass_on` is given each record, which bears the `name`, when it is in the log of the run.
    """
    return _AttemptAdapter(_AttemptLogger(attempt, sink, pass_on, name), {})


class _AttemptAdapter(logging.LoggerAdapter[logging.Logger]):
    """Hands on what a task gives as `extra`; the inherited one drops it."""

    def process(
        self, msg: object, kwargs: MutableMapping[str, object]
    ) -> tuple[object, MutableMapping[str, object]]:
        return msg, kwargs


class _AttemptLogger(logging.Logger):
    """A logger outside the tree of loggers: it knows its attempt, and asks nothing of the host's settings."""

    def __init__(self, attempt: LoggedAttempt, sink: LineSink, pass_on: PassOn | None, name: str) -> None:
        super().__init__(name, sink.level)
        self._attempt = attempt
        self._sink = sink
        self._pass_on = pass_on

    # What a task says, and why it failed, is kept whatever the host's logging is set to: not the inherited methods,
    # which ask `logging.disable` and `logging.setLogRecordFactory`.

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 -- the name is the standard library's
        return level >= self.level

    def makeRecord(self, *args: Any, **_: object) -> logging.LogRecord:  # noqa: N802 -- as above
        name, level, path, line, message, arguments, error, function, extra, stack = args
        record = logging.LogRecord(name, level, path, line, message, arguments, error, function, stack)
        for key, value in (extra or {}).items():
            vars(record).setdefault(key, value)
        return record

    def handle(self, record: logging.LogRecord) -> None:
        attempt, message = self._attempt, format_message(record)
        text = _with_traceback(message, record)
        append_for(self._sink, attempt, record.levelno, text, TASK_LOGGER)
        if self._pass_on is not None:
            self._pass_on(attempt, record, message)


def write_record(attempt: LoggedAttempt, record: logging.LogRecord) -> None:
    """Put a record of the standard logging into the log of the run of `attempt`."""
    name, message = logical_names(record.name), format_record(record)
    append_for(attempt.run_log, attempt, record.levelno, message, name)


def format_message(record: logging.LogRecord) -> str:
    """Return the message of a record with its arguments, whatever they do."""
    try:
        return record.getMessage()
    except Exception as exc:  # noqa: BLE001 - it may be raised by a user's code
        # The arguments are the user's: `%d` with a text, a `__str__` that raises. The line is still wanted.
        return f"{record.msg!r} cannot be formatted with its arguments: {type(exc).__name__}"


def format_record(record: logging.LogRecord) -> str:
    """Return the message of a record with its traceback, whatever its arguments do."""
    return _with_traceback(format_message(record), record)


def _with_traceback(message: str, record: logging.LogRecord) -> str:
    error: object = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BaseException):
        message = f"{message}\n{format_failure(error)}"
    elif record.exc_text:
        message = f"{message}\n{record.exc_text}"
    if record.stack_info:
        message = f"{message}\n{record.stack_info}"
    return message

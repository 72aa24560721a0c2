"""Lines that bundles write by standard means, the logging module and `print`, put into the log of the right run.

Both are routed by `current_attempt`, never by who hooked in: a process may hold several Servers. What is
written outside an attempt goes where it always went; a stray record is also shown to every Server, and
the one that the bundle belongs to keeps it. The hooks are in place only while some Server (or a worker
process) asks for them.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast
from weakref import ref

from scattersphere.logs.runlog import LINE_LIMIT, LoggedAttempt, append_for, current_attempt, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Stray = Callable[[logging.LogRecord], object]
    """Takes a record that no attempt has written."""

BUNDLES_LOGGER = "scattersphere.bundles"
"""The parent of the loggers of all bundles: `logging.getLogger(__name__)` in one gives a child of it."""

PRINT_LOGGER = "print"
"""What the lines of captured prints show as their logger."""

_guard = threading.Lock()
T = TypeVar("T")


class _Captures:
    """Who wants the lines of bundle loggers at this moment."""

    def __init__(self) -> None:
        self.levels: tuple[int, ...] = ()
        self.forwards = 0
        self.strays: tuple[Stray, ...] = ()  # tuples: other threads may be walking along them

    @property
    def lowest(self) -> int | None:
        """The lowest level that anybody wants; None where nobody wants any."""
        return min(self.levels, default=None)


_captures = _Captures()


class _BundleLogger(logging.Logger):
    """A logger of a bundle, whose records go into the logs of runs whatever the host's logging is set to.

    `logging.disable`, `dictConfig` and its `disable_existing_loggers`, levels, handlers: all those are the host's
    ways to say what *it* wants to see, and it sees that and no more. Levels and filters that a bundle
    sets on its own loggers hold for runs, too.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is the standard library's
        lowest = _captures.lowest
        return (lowest is not None and level >= (self._own_level() or lowest)) or super().isEnabledFor(level)

    def handle(self, record: logging.LogRecord) -> None:
        if _captures.lowest is None:
            super().handle(record)
            return
        kept: bool | logging.LogRecord = self.filter(record)
        if not kept:
            return
        if isinstance(kept, logging.LogRecord):  # since Python 3.12 a filter may replace it
            record = kept
        attempt = current_attempt.get()
        if attempt is None:
            for stray in _captures.strays:
                stray(record)
        elif record.levelno >= attempt.run_log.level:
            write_record(attempt, record)
        if not _captures.forwards:
            self._call_own_handlers(record)
        elif super().isEnabledFor(record.levelno):
            self.callHandlers(record)

    def _own_level(self) -> int:
        """Return the level that the bundle has set on this logger, or on one above it; 0 where it has not."""
        return next((logger.level for logger in self._own_loggers() if logger.level), 0)

    def _call_own_handlers(self, record: logging.LogRecord) -> None:
        for logger in self._own_loggers():
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
            if not logger.propagate:
                break

    def _own_loggers(self) -> Iterator[logging.Logger]:
        logger: logging.Logger | None = self
        while logger is not None and logger.name.startswith(_PREFIX):
            yield logger
            logger = logger.parent


_PREFIX = f"{BUNDLES_LOGGER}."


def _logger_class(base: type[logging.Logger]) -> type[logging.Logger]:
    """Derive a class that makes our loggers for bundles and the host's own, `base`, for all others."""
    for_bundles: type[logging.Logger] = type("BundleLogger", (_BundleLogger, base), {})
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger) or type(logger) is not base:
            continue
        if logger.name.startswith(_PREFIX):  # made while nobody captured
            logger.__class__ = for_bundles

    class LoggerClass(base):  # type: ignore[misc, valid-type]  # what the host has set
        def __new__(cls, name: str, level: int = logging.NOTSET) -> Any:
            if cls is not LoggerClass:  # somebody has derived from it
                return super().__new__(cls)
            return (for_bundles if name.startswith(_PREFIX) else base)(name, level)

    return LoggerClass


class _Installed:
    """Our class in the place of the host's, which `logging.setLoggerClass` is for, as long as anybody captures."""

    def __init__(self) -> None:
        self._ours: type[logging.Logger] | None = None
        self._hosts: type[logging.Logger] = logging.Logger

    def put(self) -> None:
        self._hosts = logging.getLoggerClass()
        self._ours = _logger_class(self._hosts)
        logging.setLoggerClass(self._ours)

    def take_off(self) -> None:
        if logging.getLoggerClass() is self._ours:  # else somebody has put his own on top
            logging.setLoggerClass(self._hosts)
        self._ours = None


_installed = _Installed()


@contextmanager
def capture_bundle_loggers(
    level: int = logging.INFO, *, forward: bool = True, stray: Stray | None = None
) -> Iterator[None]:
    """While inside, records of bundle loggers from `level` on go into the log of the run that writes them.

    `stray` is given those that no attempt writes, in the thread that writes them. The host's own
    logging sees what it would have seen without this, or nothing if not `forward`.
    """
    with _guard:
        if not _captures.levels:
            _installed.put()
        _captures.levels = (*_captures.levels, level)
        _captures.forwards += forward
        _captures.strays = _captures.strays if stray is None else (*_captures.strays, stray)
    try:
        yield
    finally:
        with _guard:
            _captures.levels = _without(_captures.levels, level)
            _captures.forwards -= forward
            _captures.strays = _captures.strays if stray is None else _without(_captures.strays, stray)
            if not _captures.levels:
                _installed.take_off()


def _without(values: tuple[T, ...], value: T) -> tuple[T, ...]:
    at = values.index(value)
    return values[:at] + values[at + 1 :]


class _Line:
    """What an attempt has printed of a line that is not ended yet."""

    __slots__ = ("__weakref__", "attempt", "text")

    def __init__(self, attempt: LoggedAttempt) -> None:
        self.attempt = attempt
        self.text = ""
        _lines.setdefault(id(attempt), []).append(ref(self))

    def add(self, text: str) -> None:
        *lines, rest = (self.text + text).split("\n")
        self.text = rest
        for line in lines:
            self._write(line)
        if len(rest) > LINE_LIMIT:
            self.end()

    def end(self) -> None:
        text, self.text = self.text, ""
        if text:
            self._write(text)

    def _write(self, line: str) -> None:
        append_for(self.attempt.run_log, self.attempt, logging.INFO, line, PRINT_LOGGER)

    def __del__(self) -> None:
        # The attempt's context has gone, so nothing can end this line any more.
        self.end()


_lines: dict[int, list[ref[_Line]]] = {}
"""The lines of attempts that have printed, by the attempt's identity, until it ends."""


def end_prints(attempt: LoggedAttempt) -> None:
    """Write what an attempt has printed without ending the line: it has ended, or is about to."""
    for reference in _lines.pop(id(attempt), ()):
        line = reference()
        if line is not None and line.attempt is attempt:
            line.end()


_line: ContextVar[_Line | None] = ContextVar("scattersphere_print", default=None)


class _RoutedOutput:
    """Stands in for `sys.stdout`: text of attempts goes to their runs, all else to the real one.

    Not an `io.TextIOBase`, whose own attributes (`encoding` is None) would hide the real ones.
    """

    def __init__(self, real: TextIO) -> None:
        self.real = real
        self.active = True

    def write(self, text: str) -> int:
        attempt = current_attempt.get() if self.active else None
        if attempt is None or not attempt.run_log.takes_prints:  # the latter: of a Server that did not ask
            return self.real.write(text)
        line = _line.get()
        if line is None or line.attempt is not attempt:
            line = _Line(attempt)
            _line.set(line)
        line.add(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Stay open: the real one is not ours to close."""

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)  # flush, encoding, buffer, isatty and what else there may be


_printing: list[_RoutedOutput] = []
"""One entry for each `capture_print` that is entered; all the same object."""


@contextmanager
def capture_print() -> Iterator[None]:
    """While inside, what attempts `print` goes into the log of their run, line by line, if that takes prints."""
    with _guard:
        output = _printing[0] if _printing else _RoutedOutput(sys.stdout)
        _printing.append(output)
        if len(_printing) == 1:
            sys.stdout = cast("TextIO", output)
    try:
        yield
    finally:
        with _guard:
            _printing.pop()
            if not _printing:
                output.active = False  # somebody may keep it, or have put his own in its place
                if cast("Any", sys.stdout) is output:
                    sys.stdout = output.real

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
from typing import TYPE_CHECKING, Any, TextIO, cast

from scattersphere.execution.logs.runlog import LINE_LIMIT, LoggedAttempt, current_attempt, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Stray = Callable[[logging.LogRecord], object]
    """Takes a record that no attempt has written."""

BUNDLES_LOGGER = "scattersphere.bundles"
"""The parent of the loggers of all bundles: `logging.getLogger(__name__)` in one gives a child of it."""

PRINT_LOGGER = "print"
"""What the lines of captured prints show as their logger."""

_guard = threading.Lock()


class _BundleHandler(logging.Handler):
    """Sits on the parent of all bundle loggers, while it does not propagate.

    A level must be set there, or INFO would never arrive; but with propagation such a level would send INFO
    to the host's root handlers although the host has asked for WARNING. So the records stop here, and
    those that the host would have seen without us are handed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.forwards = 0
        self.strays: tuple[Stray, ...] = ()
        self._logger = logging.getLogger(BUNDLES_LOGGER)
        self._before = (0, True)

    def enter(self, level: int, stray: Stray | None, *, forward: bool) -> None:
        if not self.levels:
            self._before = (self._logger.level, self._logger.propagate)
            self._logger.propagate = False
            self._logger.addHandler(self)
        self.levels.append(level)
        self.forwards += forward
        if stray is not None:
            self.strays = (*self.strays, stray)  # a new tuple: other threads may be walking along the old one
        self._set_level()

    def leave(self, level: int, stray: Stray | None, *, forward: bool) -> None:
        self.levels.remove(level)
        self.forwards -= forward
        if stray is not None:
            kept = list(self.strays)
            kept.remove(stray)
            self.strays = tuple(kept)
        if self.levels:
            self._set_level()
            return
        self._logger.removeHandler(self)
        before, self._logger.propagate = self._before
        self._logger.setLevel(before)

    def _set_level(self) -> None:
        hosts = self._before[0]
        self._logger.setLevel(min(*self.levels, hosts) if hosts else min(self.levels))

    def handle(self, record: logging.LogRecord) -> bool:
        # Not `emit`: its lock would make threads of different runs wait for each other.
        attempt = current_attempt.get()
        if attempt is None:
            for stray in self.strays:
                stray(record)
        elif record.levelno >= attempt.run_log.level:
            write_record(attempt, record)
        if self.forwards and self._before[1] and record.levelno >= self._level_without_us(record.name):
            above = self._logger.parent
            if above is not None:
                above.callHandlers(record)
        return True

    def _level_without_us(self, name: str) -> int:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None and logger is not self._logger:
            if logger.level:
                return logger.level
            logger = logger.parent
        above = self._logger.parent
        return self._before[0] or (above.getEffectiveLevel() if above is not None else logging.WARNING)


_handler = _BundleHandler()


@contextmanager
def capture_bundle_loggers(
    level: int = logging.INFO, *, forward: bool = True, stray: Stray | None = None
) -> Iterator[None]:
    """While inside, records of bundle loggers from `level` on go into the log of the run that writes them.

    `stray` is given those that no attempt writes, in the thread that writes them. The host's own
    logging sees what it would have seen without this, or nothing if not `forward`.
    """
    with _guard:
        _handler.enter(level, stray, forward=forward)
    try:
        yield
    finally:
        with _guard:
            _handler.leave(level, stray, forward=forward)


class _Line:
    """What an attempt has printed of a line that is not ended yet."""

    __slots__ = ("attempt", "text")

    def __init__(self, attempt: LoggedAttempt) -> None:
        self.attempt = attempt
        self.text = ""

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
        attempt = self.attempt
        attempt.run_log.append(
            logging.INFO,
            line,
            task=attempt.task,
            index=attempt.index,
            attempt=attempt.attempt,
            logger=PRINT_LOGGER,
        )

    def __del__(self) -> None:
        # The attempt's context has gone, so nothing can end this line any more.
        self.end()


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

    def __getattr__(self, name: str) -> Any:
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

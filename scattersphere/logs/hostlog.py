"""Records for the host's own `logging`: failures of runs, tasks, bundles and job files, and what tasks log.

One record each, on loggers below `scattersphere`, with what a log pipeline asks for as attributes of the record
(`extra`). The library sets no level and adds no handler, and what the host sets (levels, `logging.disable`, filters)
takes nothing from the log of a run.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from scattersphere.logs.failures import format_failure
from scattersphere.logs.masking import hide
from scattersphere.logs.runlog import (
    TASK_LOGGER,
    current_attempt,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scattersphere.logs.runlog import LoggedAttempt

OURS = "scattersphere"
RUNS, BUNDLES, JOBS = f"{OURS}.runs", f"{OURS}.bundles", f"{OURS}.jobs"
"""Loggers of what happens. Below that of the bundles are those of their own modules."""
TASKS = f"{OURS}.{TASK_LOGGER}"
"""Above the loggers of `context.log`: `scattersphere.task.JOB.TASK`."""


def tell(
    name: str,
    level: int,
    message: str,
    *,
    error: BaseException | None = None,
    text: str = "",
    extra: dict[str, Any] | None = None,
) -> None:
    """Give the host's logging one record. Never raises.

    `text` is the traceback as it is to be shown, where that of `error` does not show it: the source of a bundle's
    version, without the engine's frames.
    """
    logger = logging.getLogger(name)
    with suppress(Exception):  # a filter or a handler of the host's
        if not logger.isEnabledFor(level):
            return
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        record = logger.makeRecord(name, level, "", 0, _writable(message), (), exc_info, extra=extra)
        if error is not None and not text:
            text = format_failure(error)
        record.exc_text = _writable(text) or None
        logger.handle(record)


def fields_of(attempt: LoggedAttempt, **more: object) -> dict[str, object]:
    """Return the attributes of the records of an attempt."""
    known: Any = attempt
    return {
        "run_id": known.run_id,
        "job": known.job,
        "task": known.task,
        "index": known.index,
        "attempt": known.attempt,
        "bundle": known.bundle,
        **more,
    }


def pass_on(attempt: LoggedAttempt, record: logging.LogRecord, message: str) -> None:
    """Give the host's logging what a task has logged with `context.log`, and its message. Never raises.

    What the host's handlers would fail at is written out before: a `__str__` of a user's may raise anything, and half
    of a surrogate pair can be written to no file.
    """
    error, hidden = record.exc_info[1] if record.exc_info else None, getattr(attempt.run_log, "hidden", ())
    if error is not None and not record.exc_text:
        record.exc_text = _writable(format_failure(error, hidden=hidden))
    if hidden:  # what could say it in another form goes nowhere either
        message = record.msg = hide(message, hidden)
        record.exc_text = hide(record.exc_text, hidden) if record.exc_text else None
        record.args = record.exc_info = record.stack_info = None
    writable = _writable(message)
    if writable is not message or (record.args and not _formats(record)):
        record.msg, record.args = writable, None
    with suppress(Exception):
        logger = _nearest(record.name)
        if logger.isEnabledFor(record.levelno):
            vars(record).update(fields_of(attempt))
            logger.handle(record)


def _formats(record: logging.LogRecord) -> bool:
    try:
        record.getMessage()
    except Exception:  # noqa: BLE001 - a user's arguments
        return False
    return True


def _writable(text: str) -> str:
    """Return a text that UTF-8 can say; the same object where that is the one that was given."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def pass_on_line(attempt: LoggedAttempt, level: int, message: str) -> None:
    """Do so with a line that has come from a worker process."""
    known: Any = attempt
    name = f"{TASKS}.{known.job}.{known.task}"
    pass_on(attempt, logging.LogRecord(name, level, "", 0, message, (), None), message)


def keep_quiet() -> None:
    """Keep Python from printing these records where no handler is set, in a program that tells all this by itself."""
    for name in (RUNS, BUNDLES, JOBS, TASKS):
        logging.getLogger(name).addHandler(logging.NullHandler())


def _nearest(name: str) -> logging.Logger:
    """Return the logger of this name, or the nearest one above it: each that is made stays for ever."""
    known = logging.Logger.manager.loggerDict
    while name:
        logger = known.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return logging.getLogger()


class _Captured(logging.Handler):
    """Puts records that are written while a task runs into the log of its run."""

    def __init__(self, is_ours: Callable[[LoggedAttempt], bool]) -> None:
        super().__init__()
        self._is_ours = is_ours

    def handle(self, record: logging.LogRecord) -> bool:  # without the lock: the log of a run has its own
        attempt = current_attempt.get()
        if attempt is None or record.name.partition(".")[0] == OURS or not self._is_ours(attempt):
            return False
        if record.levelno >= attempt.run_log.level:
            write_record(attempt, record)
        return True


class Capture:
    """Has loggers of the host write into the logs of the runs of one Server as well."""

    def __init__(self, names: Iterable[str], is_ours: Callable[[LoggedAttempt], bool]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._handler = _Captured(is_ours)

    def look(self) -> None:
        """Attach the handler where it is not: `logging.config` takes off all that it does not know."""
        for name in self._names:
            logger = logging.getLogger(name)
            if self._handler not in logger.handlers:
                logger.addHandler(self._handler)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Capture while inside."""
        self.look()
        try:
            yield
        finally:
            for name in self._names:
                logging.getLogger(name).removeHandler(self._handler)

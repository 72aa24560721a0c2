"""What a Server attaches to its process and its loop while it is entered, and takes off again when it is left.

Bundle loggers and prints are captured for the logs of runs, a watchdog looks whether the loop still turns. Capture is
process-wide, and several Servers may be entered: each line finds its way by the context in which it is written,
or by the bundle whose logger it comes through, and the last Server to leave takes the hooks away.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from scattersphere.engine.execution import Attempt
from scattersphere.engine.watchdog import Blocked, LoopWatchdog, warn
from scattersphere.logs.capture import BUNDLES_LOGGER, capture_bundle_loggers, capture_print
from scattersphere.logs.frames import logical_names
from scattersphere.logs.hostlog import Capture
from scattersphere.logs.runlog import RunLog, format_record

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable

    from scattersphere.engine.executor import JobExecutor

NO_RUN = 0
"""The run that lines outside any attempt bear; real ones count from 1."""


class ProcessHooks:
    """Of one Server. Constructing assigns; `open` attaches; `close` takes off, and may be repeated.

    `owns` says whether a version of that name (`etl_g7`) was loaded by this Server. `blocked_after` is
    the seconds after which a loop that does not turn is reported; None: nobody watches.
    """

    def __init__(
        self,
        executor: JobExecutor,
        *,
        owns: Callable[[str], bool],
        capture_print: bool,
        blocked_after: float | None,
        log_limit: int,
        capture_loggers: Iterable[str] = (),
    ) -> None:
        self.strays: RunLog = RunLog(NO_RUN, limit_bytes=log_limit)
        """What bundles logged outside any attempt: while they were imported, or in threads of their own."""
        self._executor = executor
        self._owns = owns
        self._captures_print = capture_print
        self._blocked_after = blocked_after
        self._capture = Capture(capture_loggers, self._is_ours)
        self._attached = ExitStack()

    def open(self) -> None:
        """Attach everything; on the loop's thread, when the executor is open."""
        with ExitStack() as stack:
            stack.enter_context(capture_bundle_loggers(stray=self._stray))
            stack.enter_context(self._capture.attached())
            if self._captures_print:
                stack.enter_context(capture_print())
            if self._blocked_after is not None:
                stack.enter_context(self._watchdog(self._blocked_after))
            self._attached = stack.pop_all()

    def close(self) -> None:
        """Take everything off."""
        self._attached.close()

    def look(self) -> None:
        """Attach again what the host's `logging.config` has taken off: a run begins."""
        self._capture.look()

    def _is_ours(self, attempt: object) -> bool:
        return isinstance(attempt, Attempt) and attempt.execution.engine is self._executor

    def late_line(self, level: int, message: str, logger: str, ago: float) -> None:
        """Keep a line of a worker process that belongs to no attempt any more; for any thread."""
        self.strays.append(level, message, logger=logger, ago=ago)

    def _stray(self, record: logging.LogRecord) -> None:
        """Keep a record that no attempt has written, if it comes from a bundle of this Server."""
        version = record.name[len(BUNDLES_LOGGER) + 1 :].partition(".")[0]
        if record.levelno >= self.strays.level and self._owns(version):
            name = logical_names(record.name)
            self.strays.append(record.levelno, format_record(record), logger=name)

    def _watchdog(self, limit: float) -> LoopWatchdog:
        executor = self._executor
        return LoopWatchdog(executor, lambda: bool(executor.running), self._blocked, limit=limit)

    def _blocked(self, blocked: Blocked) -> None:
        """In the watchdog's thread: the warning is there at once, the event when the loop turns again."""
        warn(blocked)
        executor, attempt = self._executor, blocked.attempt
        if isinstance(attempt, Attempt):
            executor.reports.blocking.append((attempt, str(blocked)))
            executor.soon(executor.reports.tell_blocked)

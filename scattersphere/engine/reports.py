"""Reports: what bodies say while they execute becomes events of their run: lines, progress, and that one blocks."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from scattersphere.engine.machine.codes import CANCELLING, RUNNING
from scattersphere.engine.progress import Gauge, ProgressHost
from scattersphere.logs.runlog import RunLog
from scattersphere.model.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.observer import RunObserver
    from scattersphere.logs.spill import LogFolder
    from scattersphere.worker.messages import Report


class ReportsHost(ProgressHost, Protocol):
    """What reports need of the executor."""

    def guard_call(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something that a body has called for."""

    observer: RunObserver
    takes_prints: bool
    log_limit: int
    log_folder: LogFolder | None


class Reports:
    """The reports of all runs of an executor. For the loop's thread, where nothing else is said."""

    def __init__(self, host: ReportsHost) -> None:
        self._host = host
        # An RLock: the collector may run a user's __del__, which may log, while this thread makes a log.
        self._log_guard = threading.RLock()
        self.blocking: deque[tuple[Attempt, str]] = deque()
        """Attempts that block the loop, as the watchdog's thread finds them, until the loop turns again."""

    # ---- lines

    def make_log(self, execution: Execution) -> None:
        """Give a run its log: now, because most runs of small tasks neither write nor are asked for one."""
        host = self._host
        with self._log_guard:
            log = RunLog(
                execution.id,
                limit_bytes=host.log_limit,
                takes_prints=host.takes_prints,
                spill=None if host.log_folder is None else host.log_folder.file_of(execution.id),
                clock=host.clock,
                epoch=execution.epoch,
            )
            log.hidden = execution.hidden
            if execution.state.ended:
                log.close()
            else:
                log.listener = partial(host.guard_call, execution, self._line_written, execution)
            execution.take_log(log)

    def _line_written(self, execution: Execution, clock: float) -> None:
        """The log of a run has a new line, of this time; called in the thread that wrote it."""
        host = self._host
        if host.on_loop():
            execution.journal.line_came(clock)
            if execution.watchers is not None:
                execution.tell()
        elif execution.watchers is not None and not execution.lines_due:
            execution.lines_due = True
            host.soon(host.guard, execution, self._lines_came, execution)

    def _lines_came(self, execution: Execution) -> None:
        execution.lines_due = False
        execution.note_lines()
        if execution.watchers is not None:
            execution.tell()

    # ---- progress

    def progress(self, attempt: Attempt, latest: Report) -> None:
        """Take a report of progress; may be called from any thread."""
        gauge = attempt.gauge
        if gauge is None:
            attempt.execution.talks = True
            made = Gauge(self._host, attempt.execution, partial(self._tell_progress, attempt))
            gauge = vars(attempt).setdefault("gauge", made)
        gauge.report(latest)

    def _tell_progress(self, attempt: Attempt, latest: Report, now: float) -> None:
        execution, unit, record = attempt.execution, attempt.unit, attempt.execution.machine.record
        if record.task_states[unit] in (RUNNING, CANCELLING) and record.attempts[unit] == attempt.attempt:
            execution.journal.add((EventKind.TASK_PROGRESS, unit, attempt.attempt, *latest), now)
            execution.tell()
        else:  # a thread of its body reports when it has ended, or while the next one executes
            vars(attempt).pop("gauge", None)

    # ---- the loop is blocked

    def tell_blocked(self) -> None:
        """Make events of what the watchdog has found; before an attempt ends, for nothing follows its run's end."""
        while self.blocking:
            attempt, words = self.blocking.popleft()
            self._host.guard(attempt.execution, self._tell_blocked, attempt, words)

    def _tell_blocked(self, attempt: Attempt, words: str) -> None:
        execution = attempt.execution
        if not execution.state.ended:
            extra = (EventKind.TASK_BLOCKED, attempt.unit, attempt.attempt, None, None, words)
            execution.journal.add(extra, self._host.clock())
            execution.tell()
        self._host.observer.task_blocked(attempt, words)

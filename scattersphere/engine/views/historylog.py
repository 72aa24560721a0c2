"""What has happened to the runs of a Server, in lines and in counts; kept when the runs themselves are gone."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from typing import TYPE_CHECKING

from scattersphere._shares import FairShares
from scattersphere.engine.machine.codes import CRASHED, FAILED, SUCCEEDED
from scattersphere.model.events import EventKind
from scattersphere.model.logs import LogLine
from scattersphere.model.states import RUN_ENDED, RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.execution import Execution

KEPT = 10_000
"""Lines that are kept: the beginnings and ends of some thousand runs."""

REASON = 300
"""Characters of a reason or a failure that a line shows; the log of the run has all of it."""

_LEVELS = {
    RunState.SUCCEEDED: logging.INFO,
    RunState.STOPPED: logging.WARNING,
    RunState.CANCELLED: logging.WARNING,
    RunState.FAILED: logging.ERROR,
    RunState.CRASHED: logging.ERROR,
}
_TOLD = {
    EventKind.RUN_PAUSING: "is asked to pause",
    EventKind.RUN_PAUSED: "is paused",
    EventKind.RUN_RESUMED: "is resumed",
    EventKind.RUN_STOPPING: "is asked to stop",
    EventKind.RUN_CANCELLING: "is cancelled",
    EventKind.RUN_SUSPENDED: "is suspended: the Server is closing",
    EventKind.RUN_RECOVERED: "goes on after a restart",
}

_Success = tuple[float, int]
"""Of a run that succeeded, with all its tasks: seconds and tasks. Most runs are like that."""

_Entry = tuple[float, int, str, int, "str | _Success"]
"""seconds since 1970, run, job, level, words; of plain values only, which the collector does not go through again."""


class RunHistoryLog:
    """Lines about runs, at most `keep` of them, and how many runs ended how.

    Where there are too many, the user that has the most gives up the oldest of his job that has the most: neither
    somebody who starts runs all the time nor a job that runs all the time takes the others' lines.
    """

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._entries: dict[int, _Entry] = {}
        self._last = 0
        self._shares = FairShares[int]()
        self.ended: Counter[RunState] = Counter()

    def moved(self, execution: Execution, kind: EventKind, when: float) -> None:
        """Take note of a run's move. Words are made when somebody reads them, where that can be later."""
        level = logging.INFO
        words: str | _Success
        if kind is EventKind.RUN_STARTED:
            words = "started" + _origin(execution)
        elif kind is EventKind.RUN_ENDED:
            state = execution.state
            self.ended[state] += 1
            level, words = _LEVELS[state], _success(execution) or _ending(execution)
        else:
            words = _TOLD[kind] + _reason(execution)
        job = execution.plan.job
        self._last += 1
        self._entries[self._last] = (when, execution.id, job, level, words)
        if len(self._entries) > self._keep:
            del self._entries[self._shares.replace(execution.user, job, self._last)]
        else:
            self._shares.add(execution.user, job, self._last)

    def lines(
        self,
        *,
        run: int | None = None,
        job: str | Callable[[str], bool] | None = None,
        level: int = 0,
        tail: int | None = None,
    ) -> list[LogLine]:
        """Return the kept lines in order, those that match all that is given, and of them the last `tail`."""
        wanted = job if callable(job) else lambda name: job in {None, name}
        chosen = [
            entry
            for entry in self._entries.values()
            if run in {None, entry[1]} and wanted(entry[2]) and entry[3] >= level
        ]
        if tail is not None:
            chosen = chosen[max(0, len(chosen) - tail) :]
        return [
            LogLine(
                time=dt.datetime.fromtimestamp(when, dt.UTC),
                run=number,
                task="",
                level=severity,
                logger="scattersphere",
                message=f"{job} {words if isinstance(words, str) else _of_success(*words)}",
            )
            for when, number, job, severity, words in chosen
        ]

    def counts(self, begun: int) -> dict[str, int]:
        """Return how many runs were begun, and how many ended in each state."""
        ends = [state for state in RunState if state in RUN_ENDED]
        return {"begun": begun} | {str(state): self.ended[state] for state in ends}


def _origin(execution: Execution) -> str:
    words = ""
    if execution.parent is not None:
        words = (
            f" by run {execution.parent}" if execution.is_child else f"; it runs run {execution.parent} again"
        )
    if execution.started_at is not None and (waited := execution.started_at - execution.created_at) >= 1:
        words += f"; it was queued for {waited:.1f} s"
    return words


def _reason(execution: Execution) -> str:
    causes = execution.machine.record.causes
    return f": {'; '.join(causes)[:REASON]}" if causes else ""


def _success(execution: Execution) -> _Success | None:
    """Return what is to be told of a run in which all went well; None of others."""
    size, machine = execution.plan.size, execution.machine
    if execution.started_at is None or execution.ended_at is None or machine.record.causes:
        return None
    if (
        execution.state is not RunState.SUCCEEDED
        or machine.record.task_states.count(SUCCEEDED, 0, size) < size
    ):
        return None
    return execution.ended_at - execution.started_at, size


def _of_success(seconds: float, size: int) -> str:
    return f"succeeded in {seconds:.2f} s, {size} {'task' if size == 1 else 'tasks'}"


def _ending(execution: Execution) -> str:
    machine, size = execution.machine, execution.plan.size
    words = str(execution.state)
    if execution.started_at is None:
        words += " before it started"
    elif execution.ended_at is not None:
        words += f" in {execution.ended_at - execution.started_at:.2f} s"
    states = machine.record.task_states[:size]
    bad = states.count(FAILED) + states.count(CRASHED)
    done = states.count(SUCCEEDED)
    words += (
        f", {done} of {size} tasks succeeded"
        if done < size
        else f", {size} {'task' if size == 1 else 'tasks'}"
    )
    if bad:
        units = (unit for unit in execution.failures if machine.record.task_states[unit] in {FAILED, CRASHED})
        unit = next(units, None)
        if unit is not None:
            where, failure = execution.label_of(unit), " ".join(str(execution.failures[unit]).split())
            words += f"; {where}: {failure[:REASON]}"
    return words + _reason(execution)

"""Which runs may run: the Server's slots, a job's `max_runs` and `overlap`, the queue between them. Pure."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING

from scattersphere.errors import BusyError
from scattersphere.model.states import Overlap, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.execution.execution import Execution
    from scattersphere.model.definition import JobDefinition

NAMED = 3
"""Runs that are named of those that have the slots."""


class Admission:
    """First come, first served, except that a job at its own limit lets others pass."""

    def __init__(self, max_runs: int | None, queue_limit: int) -> None:
        self._max_runs = max_runs
        self._queue_limit = queue_limit
        self._queue: deque[Execution] = deque()
        self._inside: dict[int, Execution] = {}
        self._by_job: Counter[str] = Counter()

    @property
    def queued(self) -> int:
        """How many runs wait."""
        return len(self._queue)

    def check(self, job: JobDefinition, *, child: bool) -> None:
        """Raise `BusyError` where a further run of `job` can be neither started nor queued."""
        if child:
            return
        if self._job_full(job) and job.overlap is Overlap.REFUSE:
            raise BusyError(f"job {job.name!r} runs already {job.max_runs} time(s), which is its max_runs")
        full = self._job_full(job) or self._full
        if full and len(self._queue) >= self._queue_limit:
            raise BusyError(f"{len(self._queue)} runs are queued, which is the queue_limit; try later")

    def enter(self, execution: Execution) -> list[Execution]:
        """Queue a run. Return the runs that it replaces (overlap "replace")."""
        self._queue.append(execution)
        job = execution.plan.definition
        if job.overlap is not Overlap.REPLACE or not self._job_full(job):
            return []
        same = [other for other in self._inside.values() if other.plan.job == job.name]
        waiting = [other for other in self._queue if other.plan.job == job.name and other is not execution]
        surplus = len(same) + len(waiting) + 1 - (job.max_runs or 1)
        return (same + waiting)[:surplus]

    def next(self) -> Execution | None:
        """Take the next run that may start out of the queue, or None."""
        if self._full:
            return None
        for execution in self._queue:
            if execution.state is RunState.QUEUED and not self._job_full(execution.plan.definition):
                self._queue.remove(execution)
                self._inside[execution.id] = execution
                self._by_job[execution.plan.job] += 1
                return execution
        return None

    def leave(self, execution: Execution) -> None:
        """A run has ended, wherever it was."""
        if self._inside.pop(execution.id, None) is not None:
            self._by_job[execution.plan.job] -= 1
            if not self._by_job[execution.plan.job]:
                del self._by_job[execution.plan.job]
        elif execution in self._queue:
            self._queue.remove(execution)

    def waits_for(self, execution: Execution) -> str:
        """Say which slot a queued run waits for, and who has it."""
        job = execution.plan.definition
        if self._job_full(job):
            holders = [each for each in self._inside.values() if each.plan.job == job.name]
            return f"a slot of its job (max_runs {job.max_runs}), {_held(holders)}"
        if self._full:
            return f"a slot of the server (max_runs {self._max_runs}), {_held(self._inside.values())}"
        return "its turn"

    @property
    def _full(self) -> bool:
        return self._max_runs is not None and len(self._inside) >= self._max_runs

    def _job_full(self, job: JobDefinition) -> bool:
        return job.max_runs is not None and self._by_job[job.name] >= job.max_runs


def _held(runs: Iterable[Execution]) -> str:
    names = [f"{run.plan.job}#{run.id}" for run in islice(runs, NAMED + 1)]
    return f"held by {', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}"

"""Admission of runs: the Server's slots, a job's `max_runs` and `overlap`, the queue between them. Pure."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from scattersphere.engine.naming import name_of
from scattersphere.errors import BusyError
from scattersphere.model.states import Overlap, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.engine.execution import Execution
    from scattersphere.model.definition import JobDefinition

NAMED = 3
"""Runs that are named of those that have the slots."""


class Admission:
    """First come, first served, except that a job at its own limit lets others pass."""

    def __init__(self, max_runs: int | None, queue_limit: int) -> None:
        self._max_runs = max_runs
        self._queue_limit = queue_limit
        self._queues: dict[tuple[str, int | None], dict[int, Execution]] = {}
        """What waits, by job and its `max_runs`, then by id, which is the order in which they came. Where a job is at
        its limit none of its queue is looked at: there may be ten thousand."""
        self.queued: int = 0
        """How many runs wait."""
        self._inside: dict[int, Execution] = {}
        self._by_job: Counter[str] = Counter()

    def check(self, job: JobDefinition) -> None:
        """Raise `BusyError` where a further run of `job` can be neither started nor queued."""
        if self._job_full(job) and job.overlap is Overlap.REFUSE:
            raise BusyError(f"job {job.name!r} runs already {job.max_runs} time(s), which is its max_runs")
        full = self._job_full(job) or self._full
        if full and self.queued >= self._queue_limit:
            raise BusyError(f"{self.queued} runs are queued, which is the queue_limit; try later")

    def pass_by(self, execution: Execution) -> bool:
        """Give a new run its slot at once, if there is one and nobody waits; else it is to `enter`."""
        if self.queued or self._full or self._job_full(execution.plan.definition):
            return False
        self.go_on(execution)
        return True

    def enter(self, execution: Execution) -> list[Execution]:
        """Queue a run. Return the runs that it replaces (overlap "replace")."""
        job = execution.plan.definition
        self._queues.setdefault((job.name, job.max_runs), {})[execution.id] = execution
        self.queued += 1
        if job.overlap is not Overlap.REPLACE or not self._job_full(job):
            return []
        same = [other for other in self._inside.values() if other.plan.job == job.name]
        queues = [queue for (name, _), queue in self._queues.items() if name == job.name]
        waiting = [other for queue in queues for other in queue.values() if other is not execution]
        waiting.sort(key=lambda other: other.id)
        surplus = len(same) + len(waiting) + 1 - (job.max_runs or 1)
        return (same + waiting)[:surplus]

    def next(self) -> Execution | None:
        """Take the next run that may start out of the queue, or None."""
        if self._full:
            return None
        firsts = [
            next((one for one in queue.values() if one.state is RunState.QUEUED), None)
            for (name, max_runs), queue in self._queues.items()
            if max_runs is None or self._by_job[name] < max_runs
        ]
        found = min(filter(None, firsts), key=lambda one: one.id, default=None)
        if found is not None:
            self._take_out(found)
            self.go_on(found)
        return found

    def _take_out(self, execution: Execution) -> bool:
        """Take a run out of its queue. Return whether it was there."""
        job = execution.plan.definition
        key = job.name, job.max_runs
        queue = self._queues.get(key, {})
        if queue.pop(execution.id, None) is None:
            return False
        self.queued -= 1
        if not queue:
            del self._queues[key]
        return True

    def go_on(self, execution: Execution) -> None:
        """Give a run a slot, whatever the limits are: one that had it in an earlier life of the Server has it again."""
        self._inside[execution.id] = execution
        self._by_job[execution.plan.job] += 1

    def give_back(self, execution: Execution) -> None:
        """A run that was taken out of the queue cannot start: it was paused. It waits again, in its old place."""
        self.leave(execution)
        job = execution.plan.definition
        queue = self._queues.setdefault((job.name, job.max_runs), {})
        queue[execution.id] = execution
        self._queues[job.name, job.max_runs] = dict(sorted(queue.items()))
        self.queued += 1

    def leave(self, execution: Execution) -> None:
        """A run has ended, wherever it was."""
        if self._inside.pop(execution.id, None) is not None:
            self._by_job[execution.plan.job] -= 1
            if not self._by_job[execution.plan.job]:
                del self._by_job[execution.plan.job]
        else:
            self._take_out(execution)

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
    names = [name_of(run.id, run.plan.job, f"{run.plan.job}#{run.id}") for run in islice(runs, NAMED + 1)]
    return f"held by {', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}"

"""When a run and its tasks were queued, started and ended, how often they were tried, and how long all that took."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from scattersphere.engine.events.numbers import Moves
from scattersphere.engine.execution import NEVER
from scattersphere.engine.machine.codes import (
    CANCELLING,
    CRASHED,
    FAILED,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ENDED_FROM,
    TASK_STATES,
)
from scattersphere.model.dicts import iso
from scattersphere.model.states import RunState, TaskState, TriggerRule

if TYPE_CHECKING:
    from scattersphere.engine.execution import Execution
    from scattersphere.model.dicts import RunStatisticsDict, TaskStatisticsDict

_MASK = (1 << STATE_BITS) - 1


@attrs.frozen(kw_only=True)
class TaskStatistics:
    """The times of one task of a run. Those of a mapped task are of all its instances together."""

    name: str
    state: TaskState
    attempts: int
    """How many times `run` of the task was executed."""
    queued_at: dt.datetime | None
    """When its trigger rule was met, so that it waited for nothing but a place."""
    started_at: dt.datetime | None
    """When its first attempt started."""
    ended_at: dt.datetime | None
    waiting: float | None
    """Seconds from `queued_at` to its first start; None if it never started."""
    running: float
    """Seconds in which its attempts executed, summed up; up to now for one that executes."""

    def as_dict(self) -> TaskStatisticsDict:
        """Return them as plain data."""
        return {
            "name": self.name,
            "state": str(self.state),
            "attempts": self.attempts,
            "queued_at": iso(self.queued_at),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "waiting": self.waiting,
            "running": self.running,
        }


@attrs.frozen(kw_only=True)
class RunStatistics:
    """The times of a run. `str()` of it is a table for a terminal."""

    run: int
    job: str
    state: RunState
    queued_at: dt.datetime
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    waiting: float
    """Seconds in the queue of the Server."""
    running: float
    """Seconds from its start to its end, or to now."""
    attempts: int
    states: Mapping[TaskState, int]
    """How many tasks are in each state."""
    tasks: Mapping[str, TaskStatistics]

    def as_dict(self) -> RunStatisticsDict:
        """Return them as plain data."""
        return {
            "run": self.run,
            "job": self.job,
            "state": str(self.state),
            "queued_at": self.queued_at.isoformat(),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "waiting": self.waiting,
            "running": self.running,
            "attempts": self.attempts,
            "states": {str(state): count for state, count in self.states.items()},
            "tasks": {name: task.as_dict() for name, task in self.tasks.items()},
        }

    def __str__(self) -> str:
        head = (
            f"run {self.run} of {self.job}: {self.state}, waited {self.waiting:.3f} s, "
            f"ran {self.running:.3f} s, {self.attempts} attempts"
        )
        width = max((len(name) for name in self.tasks), default=4)
        lines = [f"  {'task':<{width}}  {'state':<15} {'attempts':>8} {'waited s':>10} {'ran s':>10}"]
        for task in self.tasks.values():
            waited = "" if task.waiting is None else f"{task.waiting:.3f}"
            lines.append(
                f"  {task.name:<{width}}  {task.state:<15} {task.attempts:>8} {waited:>10} {task.running:>10.3f}"
            )
        return "\n".join([head, *lines])


def statistics(execution: Execution, now: float) -> RunStatistics:
    """Count and add up what the journal of the run holds; `now` is the loop's clock."""
    times = _Times(execution, now)
    tasks = [times.of_task(task) for task in range(execution.plan.size)]
    states: dict[TaskState, int] = {}
    for found in tasks:
        states[found.state] = states.get(found.state, 0) + 1
    started, ended = execution.started_at, execution.ended_at
    until = now if ended is None else ended
    return RunStatistics(
        run=execution.id,
        job=execution.plan.job,
        state=execution.state,
        queued_at=execution.wall(execution.created_at),
        started_at=None if started is None else execution.wall(started),
        ended_at=None if ended is None else execution.wall(ended),
        waiting=max(0.0, (until if started is None else started) - execution.created_at),
        running=0.0 if started is None else until - started,
        attempts=sum(found.attempts for found in tasks),
        states=states,
        tasks={found.name: found for found in tasks},
    )


class _Times:
    """First starts, ends and sums of one run, by task."""

    def __init__(self, execution: Execution, now: float) -> None:
        self._execution = execution
        size = execution.plan.size
        self._first: dict[int, float] = {}
        self._end: dict[int, float] = {}
        self._sums = [0.0] * size
        self._attempts = [0] * size
        begun: dict[int, float] = {}
        for piece in execution.journal.read(0, execution.journal.last):
            if isinstance(piece, Moves):
                for what in execution.journal.moves[piece.start : piece.stop]:
                    if what >= 0:
                        self._take(what >> STATE_BITS, what & _MASK, piece.clock, begun)
        for unit, since in begun.items():
            self._add(unit, since, now)

    def _take(self, unit: int, state: int, clock: float, begun: dict[int, float]) -> None:
        execution = self._execution
        task = execution.machine.record.task_of(unit)
        mapped = bool(execution.plan.tasks[task].mapped)
        if state == RUNNING and not (mapped and unit == task):
            self._attempts[task] += 1
            clock = self._exact(execution.started, unit, clock)
            begun[unit] = clock
            self._first.setdefault(task, clock)
        elif state != CANCELLING:
            clock = self._exact(execution.ended, unit, clock)
            if unit in begun:
                self._add(unit, begun.pop(unit), clock)
            if unit == task and state >= TASK_ENDED_FROM:
                self._end[task] = clock

    def _exact(self, times: Mapping[int, float] | object, unit: int, clock: float) -> float:
        """Return the time that was noted for a unit with one attempt; the journal's is that of a batch."""
        noted: float = times[unit] if unit < len(times) else -1.0  # type: ignore[index, arg-type]
        return noted if noted != NEVER and self._execution.machine.record.attempts[unit] == 1 else clock

    def _add(self, unit: int, since: float, until: float) -> None:
        self._sums[self._execution.machine.record.task_of(unit)] += max(0.0, until - since)

    def of_task(self, task: int) -> TaskStatistics:
        execution = self._execution
        wall = execution.wall
        queued, first, end = self._queued(task), self._first.get(task), self._end.get(task)
        if queued is not None and first is not None:
            queued = min(queued, first)  # both are as exact as a batch is
        return TaskStatistics(
            name=execution.plan.tasks[task].name,
            state=TASK_STATES[execution.machine.record.task_states[task]],
            attempts=self._attempts[task],
            queued_at=None if queued is None else wall(queued),
            started_at=None if first is None else wall(first),
            ended_at=None if end is None else wall(end),
            waiting=None if first is None or queued is None else first - queued,
            running=self._sums[task],
        )

    def _queued(self, task: int) -> float | None:
        """Return when the trigger rule of a task was met; None if it was not."""
        execution = self._execution
        graph, states = execution.plan.graph, execution.machine.record.task_states
        never_met = states[task] >= TASK_ENDED_FROM and states[task] not in (SUCCEEDED, FAILED)
        if task not in self._first and (never_met or not self._is_ready(task)):
            return None
        upstreams = graph.upstreams[task]
        rule = graph.tasks[task].rule
        if not upstreams:
            if not graph.tasks[task].finally_:
                return execution.started_at
            upstreams = tuple(other for other in range(graph.size) if not graph.tasks[other].finally_)
        ends = [self._end[up] for up in upstreams if up in self._end and self._matters(rule, states[up])]
        if not ends:
            return execution.started_at
        return min(ends) if rule in _AT_THE_FIRST else max(ends)

    def _is_ready(self, task: int) -> bool:
        return all(up in self._end for up in self._execution.plan.graph.upstreams[task])

    def _matters(self, rule: TriggerRule, state: int) -> bool:
        if rule is TriggerRule.ONE_SUCCESS:
            return state == SUCCEEDED
        return rule is not TriggerRule.ONE_FAILED or state in (FAILED, CRASHED, _UPSTREAM_FAILED)


_AT_THE_FIRST = frozenset({TriggerRule.ONE_SUCCESS, TriggerRule.ONE_FAILED})
_UPSTREAM_FAILED = TASK_STATES.index(TaskState.UPSTREAM_FAILED)

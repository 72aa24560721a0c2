"""Where the tasks of a run are, and what they came to: `run.tasks`, `run.results`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._text import did_you_mean
from scattersphere._turns import EACH
from scattersphere.definitions.shown import shown
from scattersphere.engine.machine.codes import TASK_STATES
from scattersphere.engine.reused import Reused
from scattersphere.errors import NoSuchTaskError
from scattersphere.logs.failures import Failure
from scattersphere.model.dicts import iso
from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from scattersphere.engine.execution import Execution
    from scattersphere.model.dicts import TaskStatusDict


@attrs.frozen(kw_only=True)
class TaskStatus:
    """Where one task of a run, or one instance of a mapped task, is. Times are aware UTC."""

    name: str
    index: int | None
    state: TaskState
    attempts: int
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    failure: Failure | None
    """Why it failed last; None where it succeeded after all."""
    stuck: bool
    waits_for: str = ""
    """What it waits for, and who has it: `a place in pool db (1 of 1, held by par#1/p)`; "" where it does not wait."""
    reused: Reused | None = None
    """Where its result comes from, if the run has not made it itself."""

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, in seconds; None while it has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()

    def as_dict(self) -> TaskStatusDict:
        """Return it as plain data."""
        failure = self.failure
        return {
            "name": self.name,
            "index": self.index,
            "state": str(self.state),
            "attempts": self.attempts,
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "seconds": self.seconds,
            "failure": None
            if failure is None
            else {"type": failure.type, "message": failure.message, "traceback": failure.traceback},
            "stuck": self.stuck,
        }


SHOWN_RESULT, SHOWN_RESULTS = 64 * 1024, 256 * 1024
"""Characters of one result, and of all results of a run, in a view."""


WHOLE = 1 << 40
"""Characters that no result has."""


class Results(Mapping[str, Any]):
    """The results of the tasks that succeeded, by name, without those that `keep_results: false` has dropped.

    What is not there raises `KeyError`, which says why.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __getitem__(self, name: str) -> Any:
        task_number(self._execution, name)
        try:
            return self._execution.result(name)
        except LookupError as exc:
            raise KeyError(str(exc)) from None

    def __iter__(self) -> Iterator[str]:
        for name, number in self._execution.plan.index.items():
            if self._execution.has_result(number):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Results of {', '.join(self) or 'no task yet'}>"

    def as_dict(self) -> dict[str, Any]:
        """Return all results as plain data, whole: `{"repr": ...}` stands for what has no JSON form."""
        return {name: shown(self[name], WHOLE) for name in self}

    def shown_of(self, name: str, limit: int = SHOWN_RESULT) -> Any:
        """Return a result as others may see it: JSON data of about `limit` characters, or `{"repr": ...}`.

        Raises `KeyError` like `results[name]`.
        """
        return shown(self[name], limit)

    def shown(self, limit: int = SHOWN_RESULTS) -> dict[str, Any]:
        """Return all results as others may see them, together of about `limit` characters.

        What no longer fits is left out; `shown_of` shows it alone.
        """
        return dict(self.each_shown(limit))

    def each_shown(self, limit: int = SHOWN_RESULTS) -> Iterator[tuple[str, object]]:
        """Yield what `shown` returns, one by one: thousands of results take longer than a turn of the loop may."""
        for name in self:
            if limit <= 0:
                break
            result = self.shown_of(name, min(limit, SHOWN_RESULT))
            limit -= len(name) + len(json.dumps(result))
            yield name, result


class Tasks(Mapping[str, TaskStatus]):
    """The tasks of a run, by name, in the definition's order."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __repr__(self) -> str:
        states, index = self._execution.machine.record.task_states, self._execution.plan.index
        words = [f"{name}: {TASK_STATES[states[number]]}" for name, number in islice(index.items(), 10)]
        return f"<Tasks {', '.join(words)}{', ...' if len(self) > len(words) else ''}>"

    def __getitem__(self, name: str) -> TaskStatus:
        return status_of(self._execution, task_number(self._execution, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._execution.plan.index)

    def __len__(self) -> int:
        return len(self._execution.plan.tasks)

    def named(self, *states: TaskState) -> Iterator[str]:
        """Yield the names of the tasks that are in one of these states; quick, however many tasks there are."""
        wanted = {TASK_STATES.index(state) for state in states}
        codes = bytes(self._execution.machine.record.task_states[: len(self)])
        if not wanted.isdisjoint(codes):
            pairs = EACH.get()(zip(self, codes, strict=True))
            yield from (name for name, code in pairs if code in wanted)

    def width(self, name: str) -> int | None:
        """Return how many instances a mapped task has; None for others, and before its list is known."""
        return self._execution.machine.record.width_of(task_number(self._execution, name))

    def instances(self, name: str) -> list[TaskStatus]:
        """Return the instances of a mapped task that have begun, in order."""
        machine = self._execution.machine
        task = task_number(self._execution, name)
        units = range(len(self._execution.plan.tasks), len(machine.record.task_states))
        return [
            status_of(self._execution, unit)
            for unit in EACH.get()(units)
            if machine.record.task_of(unit) == task
        ]


def task_number(execution: Execution, name: str) -> int:
    """Return the place of a task in the plan. Raises `NoSuchTaskError`, which suggests the nearest name."""
    plan = execution.plan
    try:
        return plan.index[name]
    except KeyError:
        hint = did_you_mean(name, plan.index)
        raise NoSuchTaskError(f"no task {name!r} in job {plan.job!r}{hint}") from None


def status_of(execution: Execution, unit: int) -> TaskStatus:
    """Return where a task or instance is."""
    record, plan = execution.machine.record, execution.plan
    task, index = (unit, None) if unit < len(plan.tasks) else (record.task_of(unit), record.index_of(unit))
    name, state = plan.tasks[task].name, TASK_STATES[record.task_states[unit]]
    started, ended = execution.time_of(execution.started, unit), execution.time_of(execution.ended, unit)
    return TaskStatus(
        name=name,
        index=index,
        state=state,
        attempts=record.attempts[unit],
        started_at=None if started is None else execution.wall(started),
        ended_at=None if ended is None else execution.wall(ended),
        failure=None if state is TaskState.SUCCEEDED else execution.failures.get(unit),
        reused=execution.reused.get(name) if index is None else None,
        stuck=unit in record.stuck,
        waits_for="" if state.ended else execution.engine.waits.of_task(execution, unit),
    )

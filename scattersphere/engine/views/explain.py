"""A run, told to a person in a terminal: what happened, to whom, why, and the user's traceback first."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from scattersphere.definitions.shown import shown
from scattersphere.engine.execution import NEVER
from scattersphere.engine.machine.codes import (
    CRASHED,
    FAILED,
    PENDING,
    SUCCEEDED,
    TASK_STATES,
    UPSTREAM_FAILED,
)
from scattersphere.model.logs import make_printable
from scattersphere.model.states import TaskState
from scattersphere.pictures.nodes import Node
from scattersphere.pictures.tree import tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scattersphere.engine.execution import Execution
    from scattersphere.logs.failures import Failure

TREE_TASKS = 40
"""Tasks that are drawn as a tree; of a larger run those are listed that did not just succeed."""
SHOWN_TASKS = 100
"""Tasks that are listed of a larger run."""
SHOWN_TRACEBACKS = 3
"""Tracebacks that are shown in full; the run's log has them all."""
SHOWN_NAMES = 5
SHOWN_RETRIES = 10
LINE = 200
"""Characters of a line that shows what a user's code has said."""

_SIGNS = {
    TaskState.SUCCEEDED: "+",
    TaskState.FAILED: "!",
    TaskState.CRASHED: "!",
    TaskState.UPSTREAM_FAILED: "x",
    TaskState.SKIPPED: "-",
    TaskState.CANCELLED: "x",
    TaskState.RUNNING: ">",
    TaskState.CANCELLING: ">",
}


def explain(execution: Execution, now: float, stuck: Mapping[str, str] | None = None) -> str:
    """Return the story of a run, live or ended. `now` is the loop's clock, `stuck` says where refusers stand."""
    story = _Story(execution, now)
    lines = [story.head()]
    causes = (*execution.machine.record.causes, *filter(None, [execution.crash_words]))
    lines += [f"because: {_cut(cause)}" for cause in causes]
    lines += [f"stuck: {label}, at {place or 'an unknown line'}" for label, place in (stuck or {}).items()]
    lines += [*story.failures(), *story.retries(), "", *story.tasks()]
    return make_printable("\n".join(lines))


def duration(seconds: float) -> str:
    """Return a time as people say it: `3.2 ms`, `1.24 s`, `2 min 05 s`, `3 h 02 min`."""
    if seconds < 0.9995:  # noqa: PLR2004 - what would be shown as 1000 ms
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


class _Story:
    """One run, and the words for its parts."""

    def __init__(self, execution: Execution, now: float) -> None:
        self._execution = execution
        self._now = now
        self._instances = _instances(execution)

    def head(self) -> str:
        run = self._execution
        words = f"run {run.id} of {run.plan.job}: {run.state}"
        if run.started_at is not None and run.ended_at is not None:
            words += f" after {duration(run.ended_at - run.started_at)}"
        elif run.started_at is not None:
            words += f" for {duration(self._now - run.started_at)}"
        elif run.ended_at is None:
            words += f" for {duration(self._now - run.created_at)}, has not started"
        if run.parent is not None:
            words += f"; started by run {run.parent}" if run.is_child else f"; run {run.parent} again"
        if run.scheduled is not None:
            words += f"; by {run.scheduled}"
        if run.recovered:
            words += f"; has survived {run.recovered} {_plural('restart', run.recovered)}"
        if waits := run.engine.waits.of_run(run):
            words += f"\nwaits for {waits}"
        if run.params:
            params = ", ".join(f"{name}={_short(value)}" for name, value in run.shown_params.items())
            words += f"\nwith {_cut(params)}"
        return words

    # ---- failures

    def failures(self) -> list[str]:
        """The failures in the order of the tasks, equal ones told once."""
        machine, execution = self._execution.machine, self._execution
        groups: dict[tuple[str, str], list[int]] = {}
        for unit in sorted(execution.failures):
            failure = execution.failures[unit]
            if machine.record.task_states[unit] in (FAILED, CRASHED):
                groups.setdefault((failure.type, failure.traceback or str(failure)), []).append(unit)
        lines: list[str] = []
        for units in list(groups.values())[:SHOWN_TRACEBACKS]:
            lines += ["", *self._failure(units, execution.failures[units[0]])]
        rest = list(groups.values())[SHOWN_TRACEBACKS:]
        if rest:
            names = _listed([execution.label_of(units[0]) for units in rest])
            more = _plural("failure", len(rest))
            lines += ["", f"... and {len(rest)} more {more}, of {names}: see the log of the run"]
        return lines

    def _failure(self, units: list[int], failure: Failure) -> list[str]:
        execution = self._execution
        names = _listed([execution.label_of(unit) for unit in units])
        word = "crashed" if execution.machine.record.task_states[units[0]] == CRASHED else "failed"
        lines = [f"{names} {word}: {_cut(str(failure))}"]
        return lines + [f"    {line}".rstrip() for line in failure.traceback.rstrip().splitlines()]

    def retries(self) -> list[str]:
        """Why attempts failed that were followed by another one."""
        earlier = sorted(self._execution.earlier.items())
        last: dict[int, str] = {unit: str(f) for unit, f in self._execution.failures.items()}
        told = [
            f"  {self._execution.label_of(unit)}, attempt {attempt}: {_cut(words)}"
            for (unit, attempt), words in earlier
            if self._execution.machine.record.task_states[unit] == SUCCEEDED or words != last.get(unit)
        ]
        more = [f"  ... and {len(told) - SHOWN_RETRIES} more"] if len(told) > SHOWN_RETRIES else []
        return ["", "retried:", *told[:SHOWN_RETRIES], *more] if told else []

    # ---- tasks

    def tasks(self) -> list[str]:
        """The tasks as a tree; of a large run those that did not just succeed, as a list."""
        plan = self._execution.plan
        if plan.size <= TREE_TASKS:
            nodes = [
                Node(task.name, (self._line(number),), finally_=task.definition.finally_)
                for number, task in enumerate(plan.tasks)
            ]
            drawn = tree("", nodes, plan.definition.upstreams)
            return _aligned(drawn.splitlines()[1:])
        states = self._execution.machine.record.task_states
        shown_ = [number for number in range(plan.size) if states[number] not in (SUCCEEDED, PENDING)]
        width = min(40, max((len(plan.tasks[number].name) for number in shown_[:SHOWN_TASKS]), default=0))
        lines = [
            f"{plan.tasks[number].name:<{width}}  {self._line(number)}" for number in shown_[:SHOWN_TASKS]
        ]
        counts = Counter(TASK_STATES[states[number]] for number in range(plan.size))
        counts.subtract(TASK_STATES[states[number]] for number in shown_[:SHOWN_TASKS])
        others = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        return [*lines, f"and {others}" if lines else others] if others else lines

    def _line(self, number: int) -> str:
        execution, machine = self._execution, self._execution.machine
        planned, state = execution.plan.tasks[number], TASK_STATES[machine.record.task_states[number]]
        head = f"{_SIGNS.get(state, '.')} {state}"
        took = self._took(number)
        if took is not None:
            head += f" {duration(took)}" if state.ended else f" for {duration(took)}"
        words = [head]
        if machine.record.attempts[number] > 1:
            words.append(f"{machine.record.attempts[number]} attempts")
        if forgiven := machine.record.forgiven.get(number):
            words.append(f"{forgiven} interrupted, not counted")
        if number in self._instances:
            words.append(self._of_map(number))
        if planned.name in execution.reused:
            words.append(f"result of {execution.reused[planned.name]}")
        elif state is TaskState.SUCCEEDED and not execution.has_result(number):
            words.append("result dropped")
        if state in {TaskState.FAILED, TaskState.CRASHED} and planned.definition.allow_failure:
            words.append("allowed to fail")
        if number in machine.record.stuck:
            words.append("stuck")
        words += self._why(number, state)
        if waits := execution.engine.waits.of_task(execution, number):
            words.append(f"waits for {waits}")
        words += self._progress(number)
        words += self._place(number)
        return ", ".join(words)

    def _took(self, number: int) -> float | None:
        """Return how long the task took, or takes by now; a map from its first start to its last end."""
        execution = self._execution
        units = self._instances.get(number, [number])
        starts = [execution.started[unit] for unit in units if unit < len(execution.started)]
        starts = [start for start in starts if start != NEVER]
        if not starts:
            return None
        if not TASK_STATES[execution.machine.record.task_states[number]].ended:
            return self._now - min(starts)
        ends = [execution.ended[unit] for unit in units if unit < len(execution.ended)]
        return max(0.0, max(ends, default=min(starts)) - min(starts))

    def _of_map(self, number: int) -> str:
        states = self._execution.machine.record.task_states
        counts = Counter(TASK_STATES[states[unit]] for unit in self._instances[number])
        width = self._execution.machine.record.width_of(number) or 0
        waiting = width - sum(counts.values())
        parts = [f"{count} {state}" for state, count in counts.items()]
        parts += [f"{waiting} not begun"] if waiting > 0 else []
        return f"{width} {_plural('instance', width)}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")

    def _why(self, number: int, state: TaskState) -> list[str]:
        """Say why a task never started."""
        execution = self._execution
        planned = execution.plan.tasks[number]
        if state is TaskState.UPSTREAM_FAILED:
            return [f"since {_listed(self._culprits(number))} did not succeed"]
        if state is TaskState.SKIPPED:
            states = execution.machine.record.task_states
            ups = execution.plan.graph.upstreams[number]
            if planned.run_if is not None and all(states[up] == SUCCEEDED for up in ups):
                return ["run_if is false"]
            return [f"its rule {planned.definition.rule} was not met"]
        return []

    def _culprits(self, number: int) -> list[str]:
        """Return the tasks above that failed themselves, so that this one could not start."""
        plan, states = self._execution.plan, self._execution.machine.record.task_states
        found: list[str] = []
        seen, todo = {number}, [number]
        while todo and len(found) <= SHOWN_NAMES:
            for up in plan.graph.upstreams[todo.pop()]:
                if up in seen or states[up] == SUCCEEDED:
                    continue
                seen.add(up)
                if states[up] == UPSTREAM_FAILED:
                    todo.append(up)
                else:
                    found.append(plan.tasks[up].name)
        return found

    def _progress(self, number: int) -> list[str]:
        attempt = self._execution.live.get(number)
        if attempt is None or attempt.gauge is None or attempt.gauge.latest is None:
            return []
        done, total, message = attempt.gauge.latest
        words = f"{done:g}" + (f" of {total:g}" if total is not None else "")
        return [_cut(f"{words} {message}".strip())]

    def _place(self, number: int) -> list[str]:
        """Say at which line a body stands. A worker process would have to be asked, and waited for."""
        attempt = self._execution.live.get(number)
        if attempt is None:
            return []
        found = [f"on {attempt.noted_place}"] if attempt.noted_place else []
        if self._execution.engine.traits[attempt.planned.backend].keeps_context:
            place = self._execution.engine.attempts.where(attempt)
            found += [f"at {place}"] if place else []
        return found


def _instances(execution: Execution) -> dict[int, list[int]]:
    """Return the units of each mapped task that has begun."""
    machine = execution.machine
    found: dict[int, list[int]] = {
        task: [] for task in range(execution.plan.size) if machine.record.width_of(task) is not None
    }
    for unit in range(execution.plan.size, len(machine.record.task_states)):
        found.setdefault(machine.record.task_of(unit), []).append(unit)
    return found


_STATE = re.compile(rf"  (?=[-+!x>.] (?:{'|'.join(TaskState)})\b)")
"""Where the name in a line of the tree ends: no name has a space in it."""


def _aligned(lines: list[str]) -> list[str]:
    """Let the states of a tree stand below each other."""
    parts = [_STATE.split(line, maxsplit=1) for line in lines]
    width = min(60, max((len(part[0]) for part in parts if len(part) > 1), default=0))
    return [f"{part[0]:<{width}}  {part[1]}" if len(part) > 1 else part[0] for part in parts]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > SHOWN_NAMES:
        return f"{', '.join(names[:SHOWN_NAMES])} and {len(names) - SHOWN_NAMES} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else "an upstream task"]))


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _short(value: object) -> str:
    return json.dumps(shown(value), ensure_ascii=False)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."

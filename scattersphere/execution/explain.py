"""A run, told to a person in a terminal: what happened, to whom, why, and the user's traceback first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.execution.machine.codes import TASK_STATES
from scattersphere.model.logs import make_printable
from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from scattersphere.execution.execution import Execution, Failure

SHOWN_TASKS = 200
"""Tasks that are listed; of a larger run first those that did not succeed."""
SHOWN_TRACEBACKS = 3
"""Tracebacks that are shown in full; the run's log has them all."""
_SIGNS = {
    TaskState.SUCCEEDED: "+",
    TaskState.FAILED: "!",
    TaskState.CRASHED: "!",
    TaskState.UPSTREAM_FAILED: "x",
    TaskState.SKIPPED: "-",
    TaskState.CANCELLED: "x",
}


def explain(execution: Execution) -> str:
    """Return the story of a run, live or ended."""
    lines = [_head(execution)]
    lines += [f"because: {cause}" for cause in execution.machine.causes]
    failures = _failures(execution)
    for where, failure in failures[:SHOWN_TRACEBACKS]:
        lines += ["", f"{where} failed: {failure}"]
        lines += [f"    {line}" for line in failure.traceback.rstrip().splitlines()]
    if len(failures) > SHOWN_TRACEBACKS:
        lines += ["", f"... and {len(failures) - SHOWN_TRACEBACKS} more failures: see the run's log"]
    return make_printable("\n".join([*lines, "", *_tasks(execution)]))


def _head(execution: Execution) -> str:
    head = f"run {execution.id} of {execution.plan.job}: {execution.state}"
    if execution.started_at is not None and execution.ended_at is not None:
        head += f" in {execution.ended_at - execution.started_at:.2f} s"
    return head


def _failures(execution: Execution) -> list[tuple[str, Failure]]:
    """The failures in the order of the tasks; those of attempts that were mended by a retry are left out."""
    machine, found = execution.machine, []
    for unit, failure in sorted(execution.failures.items()):
        if TASK_STATES[machine.task_states[unit]] in {TaskState.FAILED, TaskState.CRASHED}:
            index = machine.index_of(unit)
            name = execution.plan.tasks[machine.task_of(unit)].name
            found.append((name if index is None else f"{name}[{index}]", failure))
    return found


def _tasks(execution: Execution) -> list[str]:
    states = execution.machine.task_states
    numbers = list(range(len(execution.plan.tasks)))
    if len(numbers) > SHOWN_TASKS:
        succeeded = _SUCCEEDED
        numbers.sort(key=lambda number: states[number] == succeeded)
    width = max((len(task.name) for task in execution.plan.tasks), default=0)
    lines = [_task_line(execution, number, min(width, 40)) for number in numbers[:SHOWN_TASKS]]
    if len(numbers) > SHOWN_TASKS:
        lines.append(f"... and {len(numbers) - SHOWN_TASKS} more tasks")
    return lines


_SUCCEEDED = TASK_STATES.index(TaskState.SUCCEEDED)


def _task_line(execution: Execution, number: int, column: int) -> str:
    machine, planned = execution.machine, execution.plan.tasks[number]
    state = TASK_STATES[machine.task_states[number]]
    parts = [f"  {_SIGNS.get(state, '.')} {planned.name:<{column}}  {state}"]
    started, ended = execution.started[number], execution.ended[number]
    if ended >= started >= 0:
        parts.append(f"{ended - started:.3f} s")
    if machine.attempts[number] > 1:
        parts.append(f"{machine.attempts[number]} attempts")
    width = machine.width_of(number)
    if width is not None:
        parts.append(f"{width} instances")
    if state is TaskState.SUCCEEDED and not execution.has_result(number):
        parts.append("result dropped")
    if planned.name in execution.reused:
        parts.append(f"reused from {execution.reused[planned.name]}")
    if number in machine.stuck:
        parts.append("stuck")
    if state in {TaskState.UPSTREAM_FAILED, TaskState.SKIPPED} and planned.upstreams:
        parts.append(f"after {', '.join(planned.upstreams[:5])}")
    return "  ".join(parts)

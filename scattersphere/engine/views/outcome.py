"""What a run came to, for the program that waited for it: its result, or the exceptions of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.engine.machine.codes import CRASHED, FAILED
from scattersphere.errors import RunFailedError, RunStateError, TaskCrashedError, TaskFailedError
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.engine.execution import Execution
    from scattersphere.logs.failures import Failure

SHOWN_WORDS = 500
"""Characters of the first failure in the message of a RunFailedError."""


def result_of(execution: Execution, results: Mapping[str, object]) -> object:
    """Return the result of the one task that no other waits for, or a mapping of those of several.

    Finally-tasks are not asked: they tidy up. Raises `RunStateError` before the end, `RunFailedError` unless the run
    has succeeded, `KeyError` where the one result was dropped or its task skipped.
    """
    if not execution.state.ended:
        raise RunStateError(
            f"run {execution.id} is {execution.state}: it has no result yet; wait for it first (`await run`)"
        )
    if execution.state is not RunState.SUCCEEDED:
        raise failed_error(execution)
    graph, tasks = execution.plan.graph, execution.plan.tasks
    normal = [task for task in range(graph.size) if not graph.tasks[task].finally_]
    last = [
        tasks[task].name
        for task in normal or range(graph.size)
        if all(graph.tasks[after].finally_ for after in graph.successors[task])
    ]
    if len(last) == 1:
        return results[last[0]]
    return {name: results[name] for name in last if name in results}


def failed_error(execution: Execution) -> RunFailedError:
    """Return the error for a run that did not succeed, with the first failure as its cause."""
    units = failed_units(execution)
    words = f"run {execution.id} of {execution.plan.job} was {execution.state}"
    if execution.state in {RunState.FAILED, RunState.CRASHED}:
        words = f"run {execution.id} of {execution.plan.job} {execution.state}"
    if units:
        more = f" (and {len(units) - 1} more)" if len(units) > 1 else ""
        first = " ".join(str(execution.failures[units[0]]).split())[:SHOWN_WORDS]
        words += f": {execution.label_of(units[0])}: {first}{more}"
    if execution.machine.record.causes:
        words += f"; because: {'; '.join(execution.machine.record.causes)}"
    error = RunFailedError(words)
    error.__cause__ = _exception(execution.failures[units[0]]) if units else None
    return error


def exceptions_of(execution: Execution) -> dict[str, BaseException]:
    """Return what the tasks that failed have raised, by name, in the order in which they failed.

    Of a map it is that of the instance that failed first.
    """
    found: dict[str, BaseException] = {}
    for unit in failed_units(execution):
        name = execution.plan.tasks[execution.machine.record.task_of(unit)].name
        if name not in found:
            found[name] = _exception(execution.failures[unit])
    return found


def failed_units(execution: Execution) -> list[int]:
    """Return the tasks and instances that have failed, in the order in which they did."""
    states, ended = execution.machine.record.task_states, execution.ended
    failed = (unit for unit in list(execution.failures) if states[unit] in (FAILED, CRASHED))
    return sorted(failed, key=lambda unit: (ended[unit] if unit < len(ended) else 0.0, unit))


_TEXT_ONLY: dict[str, type[Exception]] = {"TimeoutError": TimeoutError, "Crashed": TaskCrashedError}
"""Failures that no code of a task has raised."""


def _exception(failure: Failure) -> BaseException:
    if failure.error is not None:
        return failure.error
    if failure.type in _TEXT_ONLY and not failure.traceback:
        return _TEXT_ONLY[failure.type](failure.message)
    return TaskFailedError(str(failure), failure.type, failure.traceback)

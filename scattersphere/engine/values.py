"""The values that a task's start depends on: whether it is to run at all, and what it is mapped over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.engine.machine.propagation import StartDecision
from scattersphere.logs.failures import Failure, text_of
from scattersphere.logs.masking import hide
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.definition import INSTANCES

if TYPE_CHECKING:
    from scattersphere.engine.execution import Execution


def decide_start(execution: Execution, task: int) -> StartDecision | int:
    """Evaluate `run_if` and `map` of a task whose rule is met. Runs no code of the user but that of types."""
    planned = execution.plan.tasks[task]
    # What is current is the attempt that has just ended, perhaps of another run: nothing may be filed under it.
    token = current_attempt.set(None)
    try:
        if planned.run_if is not None:
            wanted = planned.run_if.fill(execution.params, execution.result)
            if type(wanted) is not bool:
                raise TypeError(f"run_if is no bool but {type(wanted).__name__}")  # noqa: TRY301
            if not wanted:
                return StartDecision.SKIP
        return width_of(execution, task) if planned.mapped else StartDecision.GO
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it fails this task and nothing else
        execution.failures[task] = Failure(type(exc).__name__, hide(text_of(exc), execution.hidden))
        return StartDecision.FAIL
    finally:
        current_attempt.reset(token)


def width_of(execution: Execution, task: int) -> int:
    """Evaluate what a task maps over, and keep it; return how many elements there are. Raises what that raises."""
    planned = execution.plan.tasks[task]
    lists: dict[str, list[object]] = {}
    for key, template in planned.mapped:
        values = template.fill(execution.params, execution.result)
        if type(values) not in (list, tuple):
            raise TypeError(f"map.{key} needs a list, not {type(values).__name__}")
        parameter = planned.task_class.parameters.get(key)
        lists[key] = list(values)  # whoever made it may change it while the map goes over it
        if parameter is not None and not template.has_result:
            lists[key] = [parameter.structure(value) for value in values]
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1:
        shown = ", ".join(f"{key}: {len(values)}" for key, values in lists.items())
        raise ValueError(f"the lists of map have different lengths ({shown})")
    width = lengths.pop()
    if width > INSTANCES:
        raise ValueError(f"map over {width:,} elements; at most {INSTANCES:,} are allowed")
    execution.elements[task] = lists
    return width

"""Results that are dropped when their last reader has ended (`keep_results: false`).

A reader is a task that names the other one as upstream: only it can see the result. It has ended
when it is in a terminal state, so that each of its retries still finds what it reads.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scattersphere.execution.machine.shape import Shape


class Dropped(Enum):
    """What stands in the place of a result that was dropped."""

    DROPPED = "dropped"


DROPPED = Dropped.DROPPED


class Readers:
    """Counts, for each task whose result is not kept, whose end it waits for: the readers' and its own."""

    __slots__ = ("_left", "_shape")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._left: dict[int, int] = {
            index: len(shape.successors[index]) + 1
            for index, task in enumerate(shape.tasks)
            if not task.keeps_result
        }

    def ended(self, task: int) -> list[int]:
        """Note that a task has ended. Return the tasks whose results can be read no more."""
        left, free = self._left, []
        for one in (task, *self._shape.upstreams[task]):
            if one in left:
                left[one] -= 1
                if not left[one]:
                    free.append(one)
        return free

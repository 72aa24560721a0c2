"""The shape of a plan: what the machine needs to know of a job, compiled to integers once.

Any number of runs share one shape. It knows neither names nor classes nor arguments.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from scattersphere.execution.machine.rules import DECIDE
from scattersphere.model.states import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MANY_SUCCESSORS = 256
"""A task with more successors than this ends through the work list, so that no single signal takes
longer than some tens of microseconds."""


@attrs.frozen(kw_only=True)
class TaskShape:
    """One task. `upstreams` are indices into the plan; `max_attempts` counts the first attempt.

    `conditional` says that there is a `run_if` to ask for. `pools` may name several: the one that
    the task asks for and the one of its backend. `max_parallel` bounds the instances of a map; a
    task without a map never has more than one attempt anyway.
    """

    upstreams: tuple[int, ...] = ()
    rule: TriggerRule = TriggerRule.ALL_SUCCESS
    finally_: bool = False
    max_attempts: int = 1
    mapped: bool = False
    conditional: bool = False
    pools: tuple[str, ...] = ()
    max_parallel: int | None = None
    priority: int = 0
    allow_failure: bool = False
    keeps_result: bool = True


@attrs.frozen
class LaneShape:
    """Tasks that need exactly the same places: if one of them cannot start, none of them can."""

    priority: int
    pools: tuple[str, ...]
    mapped: bool
    owner: int | None
    max_parallel: int | None
    """The task whose instances alone use this lane, because it bounds them; and that bound."""


class Shape:
    """A compiled plan. Raises `ValueError` for what no run could ever finish: see `_check`."""

    __slots__ = (
        "asked",
        "decide",
        "degrees",
        "drops_results",
        "easy",
        "fail_fast",
        "finals",
        "gated",
        "hot_lane",
        "lane_of",
        "lanes",
        "max_parallel",
        "plain",
        "plain_roots",
        "roots",
        "size",
        "successors",
        "tasks",
    )

    def __init__(
        self, tasks: Sequence[TaskShape], *, max_parallel: int | None = None, fail_fast: bool = False
    ) -> None:
        self.tasks: tuple[TaskShape, ...] = tuple(tasks)
        self.size: int = len(self.tasks)
        self.max_parallel: int | None = max_parallel
        self.fail_fast: bool = fail_fast
        self.degrees: list[int] = [len(task.upstreams) for task in self.tasks]
        self.successors: list[tuple[int, ...]] = _successors(self.tasks)
        _check(self.tasks, self.successors, max_parallel)
        # A finally-task without upstreams waits for all normal tasks, and then its rule is all_done.
        self.decide: list[Callable[[int, int, int, int], int]] = [
            DECIDE[TriggerRule.ALL_DONE if task.finally_ and not task.upstreams else task.rule]
            for task in self.tasks
        ]
        self.finals: list[int] = [index for index, task in enumerate(self.tasks) if task.finally_]
        self.roots: list[int] = [
            index for index, task in enumerate(self.tasks) if not task.upstreams and not task.finally_
        ]
        self.lanes: list[LaneShape] = []
        self.lane_of: list[int] = []
        self._assign_lanes()
        self.gated: bool = max_parallel is not None or any(lane.pools for lane in self.lanes)
        """Whether any unmapped task needs places of the run or of pools."""
        self.drops_results: bool = not all(task.keeps_result for task in self.tasks)
        self.plain: list[bool] = [_is_plain(task) for task in self.tasks]
        self.asked: list[bool] = [task.mapped or task.conditional for task in self.tasks]
        self.hot_lane: int = self._choose_hot_lane()
        self.plain_roots: bool = all(
            self.plain[index] and self.lane_of[index] == self.hot_lane for index in self.roots
        )
        self.easy: list[bool] = [self._is_easy(index) for index in range(self.size)]

    def _assign_lanes(self) -> None:
        known: dict[LaneShape, int] = {}
        for index, task in enumerate(self.tasks):
            bound = task.max_parallel if task.mapped else None
            owner = index if bound is not None else None
            pools = tuple(dict.fromkeys(task.pools))
            lane = LaneShape(task.priority, pools, task.mapped, owner, bound)
            number = known.setdefault(lane, len(known))
            if number == len(self.lanes):
                self.lanes.append(lane)
            self.lane_of.append(number)

    def _is_easy(self, index: int) -> bool:
        """Whether a success of this task takes the hot path.

        It has only successors of the hot lane, which start as soon as they wait for nothing, and is
        no reader of a result that is dropped.
        """
        task = self.tasks[index]
        if task.finally_ or task.mapped:
            return False
        if self.drops_results and not all(self.tasks[one].keeps_result for one in (index, *task.upstreams)):
            return False
        below = self.successors[index]
        return len(below) <= MANY_SUCCESSORS and all(
            self.plain[successor] and self.lane_of[successor] == self.hot_lane for successor in below
        )

    def _choose_hot_lane(self) -> int:
        """Return the lane of most plain tasks (-1 without any)."""
        counts = Counter(self.lane_of[index] for index in range(self.size) if self.plain[index])
        return counts.most_common(1)[0][0] if counts else -1


def _is_plain(task: TaskShape) -> bool:
    return not (task.finally_ or task.mapped or task.conditional) and task.rule is TriggerRule.ALL_SUCCESS


def _successors(tasks: Sequence[TaskShape]) -> list[tuple[int, ...]]:
    below: list[list[int]] = [[] for _ in tasks]
    for index, task in enumerate(tasks):
        for upstream in task.upstreams:
            if not 0 <= upstream < len(tasks):
                raise ValueError(f"task {index} depends on task {upstream}, but there are {len(tasks)} tasks")
            below[upstream].append(index)
    return [tuple(successors) for successors in below]


def _check(
    tasks: Sequence[TaskShape], successors: Sequence[tuple[int, ...]], max_parallel: int | None
) -> None:
    """Refuse what would make a run wait for ever. The codec says the same to people, with names."""
    if max_parallel is not None and max_parallel < 1:
        raise ValueError(f"max_parallel is {max_parallel}; it is at least 1")
    for index, task in enumerate(tasks):
        if task.max_attempts < 1 or (task.max_parallel is not None and task.max_parallel < 1):
            raise ValueError(f"task {index}: max_attempts and max_parallel are at least 1")
        if len(set(task.upstreams)) != len(task.upstreams):
            raise ValueError(f"task {index} names an upstream task twice")
        if not (task.upstreams or task.finally_ or task.rule is TriggerRule.ALL_SUCCESS):
            raise ValueError(f"task {index} has no upstream tasks, so its rule can only be all_success")
        if not task.finally_ and any(tasks[upstream].finally_ for upstream in task.upstreams):
            raise ValueError(f"task {index} depends on a finally-task, which ends after it")
    in_order = all(upstream < index for index, task in enumerate(tasks) for upstream in task.upstreams)
    if not in_order and not _is_acyclic(tasks, successors):
        raise ValueError("the tasks depend on each other in a cycle")


def _is_acyclic(tasks: Sequence[TaskShape], successors: Sequence[tuple[int, ...]]) -> bool:
    """Kahn, "Topological sorting of large networks", 1962: all tasks can be put in an order."""
    waited = [len(task.upstreams) for task in tasks]
    ready = [index for index, count in enumerate(waited) if not count]
    for index in ready:  # grows while it is read
        for successor in successors[index]:
            waited[successor] -= 1
            if not waited[successor]:
                ready.append(successor)
    return len(ready) == len(tasks)

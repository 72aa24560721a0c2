"""The compiled graph of a plan: what the machine needs to know of a job, compiled to integers once.

Any number of runs share one. It knows neither names nor classes nor arguments.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from itertools import chain, repeat
from operator import is_
from typing import TYPE_CHECKING, TypeVar

import attrs

from scattersphere._graphs import in_order, is_ordered, successors_of
from scattersphere._turns import EACH
from scattersphere.engine.machine.rules import DECIDE
from scattersphere.model.states import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

MANY_SUCCESSORS = 256
"""A task with more successors than this ends through the work list, so that no single signal takes
longer than some tens of microseconds."""


@attrs.frozen(kw_only=True)
class TaskSpec:
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
    needs: tuple[tuple[str, int], ...] = ()
    """Pools of which it takes so many places, besides one of each in `pools`; all of them at once or none."""
    max_parallel: int | None = None
    priority: int = 0
    allow_failure: bool = False
    keeps_result: bool = True


@attrs.frozen
class QueueSpec:
    """Tasks that need exactly the same places: if one of them cannot start, none of them can."""

    priority: int
    pools: tuple[tuple[str, int], ...]
    """Names, and how many places of each."""
    mapped: bool
    owner: int | None
    max_parallel: int | None
    """The task whose instances alone use this queue, because it bounds them; and that bound."""


class CompiledGraph:
    """A compiled plan. Raises `ValueError` for what no run could ever finish: see `_check`.

    `upstreams` may be given apart: tasks that differ in nothing else then share one `TaskSpec`, and what
    follows from it is worked out once. `checked` says that somebody has looked for all of that already.
    """

    __slots__ = (
        "_distinct",
        "_kinds",
        "asked",
        "decide",
        "degrees",
        "drops_results",
        "fail_fast",
        "fast_path",
        "fast_queue",
        "fast_roots",
        "finals",
        "gated",
        "max_parallel",
        "queue_of",
        "queues",
        "roots",
        "size",
        "successors",
        "tasks",
        "unconditional",
        "upstreams",
    )

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        upstreams: Sequence[tuple[int, ...]] | None = None,
        checked: bool = False,
        max_parallel: int | None = None,
        fail_fast: bool = False,
    ) -> None:
        waits = [task.upstreams for task in tasks] if upstreams is None else upstreams
        self.tasks: tuple[TaskSpec, ...] = tuple(tasks)
        self.size: int = len(self.tasks)
        self.max_parallel: int | None = max_parallel
        self.fail_fast: bool = fail_fast
        self.upstreams: Sequence[tuple[int, ...]] = waits
        self.degrees: list[int] = list(map(len, waits))
        one_kind = all(map(is_, self.tasks, repeat(next(iter(self.tasks), None))))
        self._kinds = [] if one_kind else list(map(id, self.tasks))
        self._distinct = {id(task): task for task in (self.tasks[:1] if one_kind else self.tasks)}
        has_finals = any(task.finally_ for task in self._distinct.values())
        self.finals: list[int] = (
            [index for index, task in EACH.get()(enumerate(self.tasks)) if task.finally_]
            if has_finals
            else []
        )
        if not checked:
            _check(self.tasks, waits, max_parallel)
            _check_finals(self.tasks, waits, self.finals)
        self.successors: list[tuple[int, ...]] = [()] * self.size
        if any(waits):
            self.successors = list(map(tuple, successors_of(waits)))
            if not (checked or is_ordered(waits) or len(in_order(waits, self.successors)) == self.size):
                raise ValueError("the tasks depend on each other in a cycle")
        self.decide: list[Callable[[int, int, int, int], int]] = self._decisions(waits)
        self.roots: list[int] = [index for index, count in EACH.get()(enumerate(self.degrees)) if not count]
        if has_finals:
            self.roots = [index for index in EACH.get()(self.roots) if not self.tasks[index].finally_]
        self.queues: list[QueueSpec] = []
        self.queue_of: list[int] = []
        self._assign_queues()
        self.gated: bool = max_parallel is not None or any(queue.pools for queue in self.queues)
        """Whether any unmapped task needs places of the run or of pools."""
        self.drops_results: bool = not all(task.keeps_result for task in self._distinct.values())
        self.unconditional: list[bool] = self._each(
            lambda task: not (task.finally_ or task.mapped or task.conditional) and task.rule is _ALL_SUCCESS
        )
        self.asked: list[bool] = self._each(lambda task: task.mapped or task.conditional)
        self.fast_queue: int = self._choose_fast_queue()
        self.fast_roots: bool = all(
            self.unconditional[index] and self.queue_of[index] == self.fast_queue
            for index in EACH.get()(self.roots)
        )
        self.fast_path: list[bool] = self._fast_paths()
        del self._kinds, self._distinct

    def _each(self, fact: Callable[[TaskSpec], T]) -> list[T]:
        """Return `fact(task)` for each task; of those that share their `TaskSpec` one is asked."""
        known = {kind: fact(task) for kind, task in self._distinct.items()}
        if len(known) == 1:
            return list(known.values()) * self.size
        return [known[kind] for kind in EACH.get()(self._kinds)]

    def _decisions(self, waits: Sequence[tuple[int, ...]]) -> list[Callable[[int, int, int, int], int]]:
        decide = self._each(lambda task: DECIDE[task.rule])
        for index in self.finals:
            # A finally-task without upstreams waits for all normal tasks, and then its rule is all_done.
            if not waits[index]:
                decide[index] = DECIDE[TriggerRule.ALL_DONE]
        return decide

    def _assign_queues(self) -> None:
        if len(self._distinct) == 1 and not (self.tasks[0].mapped and self.tasks[0].max_parallel is not None):
            self.queues.append(_queue(self.tasks[0], None))
            self.queue_of = [0] * self.size
            return
        known: dict[QueueSpec, int] = {}
        seen: dict[int, int] = {}  # by identity: that is quicker than to compare them
        for index, task in EACH.get()(enumerate(self.tasks)):
            number = seen.get(id(task))
            if number is None:
                owner = index if task.mapped and task.max_parallel is not None else None
                queue = _queue(task, owner)
                number = known.setdefault(queue, len(known))
                if number == len(self.queues):
                    self.queues.append(queue)
                if owner is None:
                    seen[id(task)] = number
            self.queue_of.append(number)

    def _fast_paths(self) -> list[bool]:
        """Which tasks take the fast path when they succeed.

        They have only successors of the fast queue, which start as soon as they wait for nothing, and
        are no readers of a result that is dropped.
        """
        if all(self.unconditional) and len(self.queues) <= 1 and not self.drops_results:
            if max(map(len, self.successors), default=0) <= MANY_SUCCESSORS:
                return [True] * self.size
            return [len(below) <= MANY_SUCCESSORS for below in EACH.get()(self.successors)]
        return [self._is_fast(index) for index in EACH.get()(range(self.size))]

    def _is_fast(self, index: int) -> bool:
        task = self.tasks[index]
        if task.finally_ or task.mapped:
            return False
        if self.drops_results and not all(
            self.tasks[one].keeps_result for one in (index, *self.upstreams[index])
        ):
            return False
        below = self.successors[index]
        return len(below) <= MANY_SUCCESSORS and all(
            self.unconditional[successor] and self.queue_of[successor] == self.fast_queue
            for successor in below
        )

    def _choose_fast_queue(self) -> int:
        """Return the queue of most unconditional tasks (-1 without any)."""
        counts = Counter(
            queue
            for queue, unconditional in EACH.get()(zip(self.queue_of, self.unconditional, strict=True))
            if unconditional
        )
        return counts.most_common(1)[0][0] if counts else -1


_ALL_SUCCESS = TriggerRule.ALL_SUCCESS


def _queue(task: TaskSpec, owner: int | None) -> QueueSpec:
    bound = None if owner is None else task.max_parallel
    pools = dict.fromkeys(task.pools, 1)
    for name, amount in task.needs:
        pools[name] = pools.get(name, 0) + amount
    return QueueSpec(task.priority, tuple(pools.items()), task.mapped, owner, bound)


def _check(tasks: Sequence[TaskSpec], waits: Sequence[tuple[int, ...]], max_parallel: int | None) -> None:
    """Refuse what would make a run wait for ever. The check of definitions says the same to people, with names."""
    if max_parallel is not None and max_parallel < 1:
        raise ValueError(f"max_parallel is {max_parallel}; it is at least 1")
    size = len(waits)
    if min(chain.from_iterable(waits), default=0) < 0 or max(chain.from_iterable(waits), default=-1) >= size:
        index, upstream = next((i, u) for i, found in enumerate(waits) for u in found if not 0 <= u < size)
        raise ValueError(f"task {index} depends on task {upstream}, but there are {size} tasks")
    for index, (task, upstreams) in enumerate(zip(tasks, waits, strict=True)):
        if any(amount < 1 for _, amount in task.needs):
            raise ValueError(f"task {index}: what it needs of a pool is at least 1")
        if task.max_attempts < 1 or (task.max_parallel is not None and task.max_parallel < 1):
            raise ValueError(f"task {index}: max_attempts and max_parallel are at least 1")
        if upstreams:
            if len(upstreams) > 1 and len(set(upstreams)) != len(upstreams):
                raise ValueError(f"task {index} names an upstream task twice")
        elif not (task.finally_ or task.rule is _ALL_SUCCESS):
            raise ValueError(f"task {index} has no upstream tasks, so its rule can only be all_success")


def _check_finals(tasks: Sequence[TaskSpec], waits: Sequence[tuple[int, ...]], finals: Sequence[int]) -> None:
    late = set(finals)
    if not late:
        return
    for index, upstreams in enumerate(waits):
        if not tasks[index].finally_ and not late.isdisjoint(upstreams):
            raise ValueError(f"task {index} depends on a finally-task, which ends after it")


# ---- results that are dropped


class Dropped(Enum):
    """What stands in the place of a result that was dropped."""

    DROPPED = "dropped"


DROPPED = Dropped.DROPPED


class ResultRefs:
    """Drops results when their last reader has ended (`keep_results: false`).

    A reader is a task that names the other one as upstream: only it can see the result. It has ended
    when it is in a terminal state, so that each of its retries still finds what it reads.
    Counted is, for each task whose result is not kept, whose end it waits for: the readers' and its own.
    """

    __slots__ = ("_graph", "_left")

    def __init__(self, graph: CompiledGraph) -> None:
        self._graph = graph
        self._left: dict[int, int] = {
            index: len(graph.successors[index]) + 1
            for index, task in enumerate(graph.tasks)
            if not task.keeps_result
        }

    def ended(self, task: int) -> list[int]:
        """Note that a task has ended. Return the tasks whose results can be read no more."""
        left, free = self._left, []
        for one in (task, *self._graph.upstreams[task]):
            if one in left:
                left[one] -= 1
                if not left[one]:
                    free.append(one)
        return free

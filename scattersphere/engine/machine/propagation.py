"""Propagation: what follows when a unit ends. Rules are decided, maps end, finally-tasks come, the run ends.

Nothing here recurses. An ending is put on a work list; `drain` works it off in steps, of which a
signal does a few at once and `work` does the rest in slices.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from scattersphere.engine.machine.codes import (
    BY_CANCEL,
    BY_TIMEOUT,
    CANCEL,
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    FAILURE_CODES,
    KILL,
    NO_REQUEST,
    PENDING,
    RUN_CANCELLED,
    RUN_CANCELLING,
    RUN_ENDED_FROM,
    RUN_FAILED,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_STOPPED,
    RUN_STOPPING,
    RUN_SUCCEEDED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
    CommandKind,
)
from scattersphere.engine.machine.record import NO_UNITS, MapProgress
from scattersphere.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scattersphere.engine.machine.ready import ReadyTasks
    from scattersphere.engine.machine.record import RunRecord

AT_ONCE = 256
"""Steps of a mass move that a signal does itself: some hundred microseconds at most."""


class StartDecision(Enum):
    """What the driver found when it read the values that a task's start depends on.

    In the place of `GO` stands the number of instances where the task is mapped.
    """

    GO = "go"
    SKIP = "skip"
    """Its `run_if` is false."""
    FAIL = "fail"
    """Its `run_if` is no bool, or what it maps over is no list; the driver logs why."""


NOTHING_LEFT: deque[int] = deque(maxlen=0)
"""The work list of all ended runs: what is put into it is not there."""


def _nothing_to_ask(task: int) -> StartDecision | int:
    """Stand in for the values of a run that has ended."""
    raise EngineError(f"task {task} was asked for its values after the end of its run")


class Propagation:
    """Draws the conclusions for one run: it moves the record on, and queues what is ready.

    `ask(task)` is called when the rule of a conditional or mapped task is met.
    """

    __slots__ = (
        "_admitted",
        "_ask",
        "_at_once",
        "_decisions",
        "_draining",
        "_endings",
        "_failed_below",
        "_notified",
        "_other_below",
        "_ready",
        "_record",
        "_swept",
        "busy",
        "failed_fast",
        "finals_over",
        "waited",
    )

    def __init__(
        self, record: RunRecord, ready: ReadyTasks, ask: Callable[[int], StartDecision | int], at_once: int
    ) -> None:
        self._record = record
        self._ready = ready
        self._ask = ask
        self._at_once = at_once
        self.busy: bool = False
        """Whether a mass move is under way, so that `work` must be called."""
        self.failed_fast: bool = False
        """Whether `fail_fast` has come true."""
        self.finals_over: bool = False
        """Whether the finally-tasks of a cancelled run have used up their time."""
        self.waited: list[int] = record.graph.degrees.copy()
        """For how many upstream tasks each task waits."""
        self._failed_below: dict[int, int] = {}
        self._other_below: dict[int, int] = {}
        self._draining = False
        self._admitted = bytearray(record.graph.size)
        """Which tasks have been let through by their rule, so that none is queued twice. Those that the
        fast path queues are not marked: nothing asks their rule again."""
        self._endings: deque[int] = deque()
        """Tasks whose successors must still be told; of the first one, `_notified` were."""
        self._notified = 0
        self._swept = -1
        """The next unit that a sweep looks at; -1 without a sweep."""
        self._decisions: deque[int] = deque()

    def decide(self, tasks: Iterable[int]) -> None:
        """Put these tasks on the work list: their rules may be met."""
        self._decisions.extend(tasks)

    def count_ended(self, task: int) -> None:
        """Count a task, for those below it, that has ended before this machine was made."""
        record = self._record
        state = record.task_states[task]
        counts = self._below(state)
        for below in record.graph.successors[task]:
            self.waited[below] -= 1
            if state != SUCCEEDED:
                counts[below] = counts.get(below, 0) + 1

    def may_start(self, unit: int) -> bool:
        """Whether an attempt of a unit may begin: a stop is no business of finally-tasks and retries of them."""
        record = self._record
        return not record.is_over and not self.is_withheld(
            final=record.graph.tasks[record.task_of(unit)].finally_
        )

    def admit_again(self, task: int) -> None:
        """Note that a mapped task was let through by its rule before this machine was made."""
        self._admitted[task] = 1

    def is_admitted(self, task: int) -> bool:
        """Whether its rule is met, though tasks above it have not ended."""
        return bool(self._admitted[task])

    def compact(self) -> None:
        """Give back what an ended run no longer needs."""
        # It belongs to the run, which holds this machine: an evicted run would else be garbage that only the
        # collector finds, by going through the whole memory of the host.
        self._ask = _nothing_to_ask
        self.waited = NO_UNITS
        self._endings = self._decisions = NOTHING_LEFT

    # ---- the work list

    def drain(self, budget: int = 0) -> None:
        """Work off the work list: for at most about `budget` steps, or as far as a signal may do it itself."""
        record = self._record
        if self._draining:  # `ask` called back into this run; the outer call goes on with it
            return
        self._draining = True
        if (
            not budget and not self.busy
        ):  # else the driver works it off: a thousand signals would not be slices
            budget = self._at_once
        try:
            self._work_off(budget)
        finally:
            self._draining = False
        if record.state >= RUN_ENDED_FROM:
            self._endings.clear()
            self._decisions.clear()
            self._swept, self.busy = -1, False
            return
        if record.state == RUN_PAUSING and record.live == len(record.held):
            record.move_run(RUN_PAUSED)
        was_busy, self.busy = self.busy, self._has_work()
        if self.busy and not was_busy:
            record.command(CommandKind.WORK)

    def _work_off(self, budget: int) -> None:
        record = self._record
        while record.state < RUN_ENDED_FROM:
            if self._endings:  # first, so that what they decide is not swept away
                step = self._notify_successors
            elif self._swept >= 0:
                step = self._sweep
            elif self._decisions:
                step = self._decide_next
            elif self._advance():
                continue
            else:
                break
            if budget <= 0:
                break
            budget -= step(budget)

    def _has_work(self) -> bool:
        return bool(self._endings or self._decisions) or self._swept >= 0

    def _notify_successors(self, budget: int) -> int:
        """Tell successors of the first ending; return the steps that it took."""
        record = self._record
        task, told = self._endings[0], self._notified
        below = record.graph.successors[task]
        some = below[told : told + budget] if told or len(below) > budget else below
        state = record.task_states[task]
        counts = None if state == SUCCEEDED else self._below(state)
        waited, states = self.waited, record.task_states
        for successor in some:
            waited[successor] -= 1
            if counts is not None:
                counts[successor] = counts.get(successor, 0) + 1
            if states[successor] == PENDING:
                self._decide(successor)
        if told + len(some) == len(below):
            self._endings.popleft()
            self._notified = 0
        else:
            self._notified = told + len(some)
        return len(some) + 1

    def _below(self, state: int) -> dict[int, int]:
        """Return where it is counted, by successor, how many upstream tasks ended like this."""
        return self._failed_below if state in FAILURE_CODES else self._other_below

    def _advance(self) -> bool:
        """All that is known has been drawn; enter the next phase. Return whether there is more to do."""
        record = self._record
        if record.left or not record.started:
            return False
        if not record.finals_phase:
            record.finals_phase = True
            self._decisions.extend(record.graph.finals)
            return True
        if not record.finals_left:
            self.end(self._final_state())
        return False

    # ---- starting

    def _decide_next(self, budget: int) -> int:
        del budget  # it is one step
        self._decide(self._decisions.popleft())
        return 1

    def _decide(self, task: int) -> None:
        """Ask the trigger rule whether the task starts, never starts, or waits on."""
        record = self._record
        if record.task_states[task] != PENDING or self._admitted[task]:
            return
        graph = record.graph
        final = graph.tasks[task].finally_
        if final and not record.finals_phase:
            return
        waited = self.waited[task]
        failed, other = self._failed_below.get(task, 0), self._other_below.get(task, 0)
        verdict = graph.decide[task](waited, graph.degrees[task] - waited - failed - other, failed, other)
        if verdict == RUNNING:
            if not self.is_withheld(final=final):
                self._admitted[task] = 1
                self._admit(task)
        elif verdict != PENDING:
            self.finish(task, verdict)

    def is_withheld(self, *, final: bool) -> bool:
        """Whether nothing of this kind may start any more. A sweep gives it its terminal state."""
        record = self._record
        if final:
            return record.level == KILL or self.finals_over
        return record.level != NO_REQUEST or self.failed_fast

    def _admit(self, task: int) -> None:
        """Its rule is met: ask for its values if it has any to ask for, and queue it."""
        record = self._record
        if not record.graph.asked[task]:
            self._ready.push(task)
            return
        decision = self._ask(task)
        spec = record.graph.tasks[task]
        if record.task_states[task] != PENDING or self.is_withheld(final=spec.finally_):
            return  # reading the values has led to a request on this very run
        if decision is StartDecision.SKIP:
            self.finish(task, SKIPPED)
        elif decision is StartDecision.FAIL or spec.mapped is not isinstance(decision, int):
            self.finish(task, FAILED)
        elif isinstance(decision, StartDecision):
            self._ready.push(task)
        elif decision:
            record.maps[task] = MapProgress(decision)
            self._ready.push(task)
        else:
            record.results[task] = []
            self.finish(task, SUCCEEDED)

    # ---- ending

    def finish(self, unit: int, new: int) -> None:
        """Give the unit its terminal state."""
        record = self._record
        record.move(unit, new)
        if unit >= record.graph.size:
            self._instance_ended(unit, new)
            return
        task = record.graph.tasks[unit]
        if task.mapped:
            record.command(CommandKind.MAPPED, unit)
        record.drop_results(unit)
        if new != SUCCEEDED:
            record.clean = record.fast_path = False
        if task.finally_:
            record.finals_left -= 1
        else:
            record.left -= 1
        self._endings.append(unit)
        if new in (FAILED, CRASHED) and not task.allow_failure:
            record.task_failed = True
            if record.graph.fail_fast and not task.finally_ and not self.failed_fast:
                self._fail_fast()

    def _fail_fast(self) -> None:
        """`fail_fast`: withhold what has not begun; what executes goes on to its end.

        Argo Workflows' `failFast` means the same: schedule nothing new, wait for what runs, fail.
        """
        record = self._record
        self.failed_fast = True
        record.causes.append("fail_fast")
        self.start_sweep()

    def _instance_ended(self, unit: int, new: int) -> None:
        record = self._record
        progress = record.maps[record.task_of(unit)]
        progress.left -= 1
        progress.failed = progress.failed or new in (FAILED, CRASHED)
        progress.withdrawn = progress.withdrawn or new == CANCELLED
        self._map_ended(record.task_of(unit), progress)

    def _map_ended(self, task: int, progress: MapProgress) -> None:
        """End a mapped task when its last instance has ended; its result is the list in order."""
        record = self._record
        if progress.left or record.task_states[task] >= TASK_ENDED_FROM:
            return
        if progress.failed:
            self.finish(task, FAILED)
        elif progress.cut or progress.withdrawn:
            self.finish(task, CANCELLED)
        else:
            record.results[task] = [record.results[unit] for unit in progress.units]
            self.finish(task, SUCCEEDED)

    def _final_state(self) -> int:
        record = self._record
        if record.state == RUN_CANCELLING:
            return RUN_FAILED if record.first_cause_is_timeout else RUN_CANCELLED
        if record.state == RUN_STOPPING and record.withheld:
            return RUN_STOPPED
        return RUN_FAILED if record.task_failed else RUN_SUCCEEDED

    def end(self, new: int) -> None:
        """Give the run its terminal state."""
        self._record.move_run(new)
        self._ready.withdraw(forget=True)

    # ---- sweeping: stop, cancel, kill, fail_fast and the end of the finally-tasks' time

    def start_sweep(self) -> None:
        """Look at every unit, from the first one, and withhold or cancel it as the level says.

        What is queued is forgotten at once, so that nothing starts before the sweep comes to it. It
        is all of one kind: while normal tasks are left, no finally-task is queued.
        """
        record = self._record
        if not record.finals_phase or self.is_withheld(final=True):
            self._ready.withdraw(forget=True)
        self._swept = 0

    def _sweep(self, budget: int) -> int:
        record = self._record
        states, first = record.task_states, self._swept
        last = min(first + budget, len(states))
        for unit in range(first, last):
            if states[unit] < TASK_ENDED_FROM:
                self._sweep_unit(unit)
        self._swept = -1 if last == len(states) else last
        return last - first + 1

    def _sweep_unit(self, unit: int) -> None:
        record = self._record
        final = record.graph.tasks[record.task_of(unit)].finally_
        if not self.is_withheld(final=final):
            return
        cancels = record.level >= CANCEL
        state = record.task_states[unit]
        if unit in record.maps:  # perhaps before the first of its instances has begun
            self._cut(unit, cancels=cancels)
        elif state in (PENDING, UP_FOR_RETRY):
            self._withhold(unit)
        elif cancels:
            self.cancel(unit, BY_TIMEOUT if final and record.level < KILL else BY_CANCEL)

    def _withhold(self, unit: int) -> None:
        record = self._record
        if record.level != NO_REQUEST:
            record.withheld = True
        record.back_off.discard(unit)
        self.finish(unit, CANCELLED)

    def _cut(self, task: int, *, cancels: bool) -> None:
        """Begin no more instances of a mapped task; the sweep comes to those that have begun later."""
        record = self._record
        progress = record.maps[task]
        missing = progress.width - progress.next
        if missing:
            if record.level != NO_REQUEST:
                record.withheld = True
            progress.cut = True
            progress.next = progress.width
            progress.left -= missing
        if cancels and progress.left and record.task_states[task] == RUNNING:
            record.move(task, CANCELLING)
        self._map_ended(task, progress)

    def cancel(self, unit: int, reason: int) -> None:
        """Ask an attempt to end.

        A second request only matters if it is a kill: an attempt that is cleaning up must not be
        cancelled again.
        """
        record = self._record
        first = record.task_states[unit] == RUNNING
        if first:
            record.ask_to_end(unit, reason)
        if record.level == KILL and unit not in record.killed:  # a time-out may come before the sweep does
            record.killed.add(unit)
            record.command(CommandKind.KILL, unit)
        elif first:
            record.command(CommandKind.CANCEL, unit)

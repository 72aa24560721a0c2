"""What follows when a unit ends: rules are decided, maps end, finally-tasks come, the run ends.

Nothing here recurses. An ending is put on a work list; `_carry` works it off in steps, of which a
signal does a few at once and `work` does the rest in slices.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from scattersphere.errors import EngineError
from scattersphere.execution.machine.codes import (
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    FAILURE_CODES,
    PENDING,
    RUN_CANCELLED,
    RUN_CANCELLING,
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
)
from scattersphere.execution.machine.record import EMPTY_SET, MapProgress, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.execution.machine.dispatcher import Dispatcher
    from scattersphere.execution.machine.shape import Shape

AT_ONCE = 256
"""Steps of a mass move that a signal does itself: some hundred microseconds at most."""

NO_REQUEST, STOP, CANCEL, KILL = range(4)
"""Levels of escalation; they only go up."""

BY_CANCEL, BY_TIMEOUT = range(2)
"""Why an attempt was asked to end. The first cause stays."""


class Verdict(Enum):
    """What the driver found when it read the values that a task's start depends on."""

    GO = "go"
    SKIP = "skip"
    """Its `run_if` is false."""
    FAIL = "fail"
    """Its `run_if` is no bool, or what it maps over is no list; the driver logs why."""


NOTHING_LEFT: deque[int] = deque(maxlen=0)
"""The work list of all ended runs: what is put into it is not there."""
Answer = Verdict | tuple[Verdict, int | None]
"""A verdict, with the number of instances where the task is mapped: `(Verdict.GO, 12)`."""


def _nothing_to_ask(task: int) -> Answer:
    """Stand in for the values of a run that has ended."""
    raise EngineError(f"task {task} was asked for its values after the end of its run")


class Consequences(RunRecord):
    """A run record that draws conclusions."""

    at_once: ClassVar[int] = AT_ONCE

    __slots__ = (
        "_admitted",
        "_ask",
        "_carrying",
        "_decisions",
        "_endings",
        "_failed_below",
        "_finals_over",
        "_killed",
        "_lost",
        "_other_below",
        "_reasons",
        "_swept",
        "_told",
        "_tripped",
        "busy",
        "first_cause_is_timeout",
        "level",
    )

    # What is set here as well as above: said again for type checkers that read one class at a time.
    failed: bool
    left: int
    finals_left: int

    def __init__(
        self, shape: Shape, run_id: int, dispatcher: Dispatcher, ask: Callable[[int], Answer]
    ) -> None:
        super().__init__(shape, run_id, dispatcher)
        self._ask = ask
        self.level: int = NO_REQUEST
        self.first_cause_is_timeout: bool = False
        self.busy: bool = False
        """Whether a mass move is under way, so that `work` must be called."""
        self._tripped = False
        """Whether `fail_fast` has come true."""
        self._finals_over = False
        """Whether the finally-tasks of a cancelled run have used up their time."""
        self._reasons: dict[int, int] = {}
        self._killed: set[int] = set()
        self._lost: dict[int, int] = {}
        """How many attempts in a row have lost their place, by unit."""
        self._failed_below: dict[int, int] = {}
        self._other_below: dict[int, int] = {}
        self._carrying = False
        self._admitted = bytearray(shape.size)
        """Which tasks have been let through by their rule, so that none is queued twice. Those that the
        hot path queues are not marked: nothing asks their rule again."""
        self._endings: deque[int] = deque()
        """Tasks whose successors must still be told; of the first one, `_told` were."""
        self._told = 0
        self._swept = -1
        """The next unit that a sweep looks at; -1 without a sweep."""
        self._decisions: deque[int] = deque()

    def is_admitted(self, task: int) -> bool:
        """Whether its rule is met, though tasks above it have not ended."""
        return bool(self._admitted[task])

    def compacting(self) -> Iterator[None]:
        """Give back the work lists of an ended run too."""
        yield from super().compacting()
        if not self.is_over:
            return
        # It belongs to the run, which holds this machine: an evicted run would else be garbage that only the
        # collector finds, by going through the whole memory of the host.
        self._ask = _nothing_to_ask
        self._endings = self._decisions = NOTHING_LEFT
        if not self.live and not self.stuck:
            self._killed = EMPTY_SET

    # ---- the work list

    def work(self, budget: int) -> bool:
        """Carry on a mass move for at most about `budget` steps; True while more is left."""
        self._carry(budget)
        return self.busy

    def _carry(self, budget: int = 0) -> None:
        if self._carrying:  # `ask` called back into this run; the outer call goes on with it
            return
        self._carrying = True
        if (
            not budget and not self.busy
        ):  # else the driver works it off: a thousand signals would not be slices
            budget = self.at_once
        try:
            while not self.is_over:
                if self._has_work():
                    if budget <= 0:
                        break
                    budget -= self._do_some(budget)
                elif not self._advance():
                    break
        finally:
            self._carrying = False
        if self.is_over:
            self._endings.clear()
            self._decisions.clear()
            self._swept = -1
        elif self.state == RUN_PAUSING and self.live == len(self.held):
            self._move_run(RUN_PAUSED)
        was_busy, self.busy = self.busy, self._has_work()
        if self.busy and not was_busy:
            self.out.append(("work",))

    def _has_work(self) -> bool:
        return bool(self._endings or self._decisions) or self._swept >= 0

    def _do_some(self, budget: int) -> int:
        """Take some steps; endings come first, so that what they decide is not swept away."""
        if self._endings:
            return self._tell(budget)
        if self._swept >= 0:
            return self._sweep(budget)
        self._decide(self._decisions.popleft())
        return 1

    def _tell(self, budget: int) -> int:
        """Tell successors of the first ending; return the steps that it took."""
        task, told = self._endings[0], self._told
        below = self.shape.successors[task]
        some = below[told : told + budget] if told or len(below) > budget else below
        state = self.task_states[task]
        counts = (
            None
            if state == SUCCEEDED
            else self._failed_below
            if state in FAILURE_CODES
            else self._other_below
        )
        waited, states = self._waited, self.task_states
        for successor in some:
            waited[successor] -= 1
            if counts is not None:
                counts[successor] = counts.get(successor, 0) + 1
            if states[successor] == PENDING:
                self._decide(successor)
        if told + len(some) == len(below):
            self._endings.popleft()
            self._told = 0
        else:
            self._told = told + len(some)
        return len(some) + 1

    def _advance(self) -> bool:
        """All that is known has been drawn; enter the next phase. Return whether there is more to do."""
        if self.left or not self._started:
            return False
        if not self._finals_phase:
            self._finals_phase = True
            self._decisions.extend(self.shape.finals)
            return True
        if not self.finals_left:
            self._end(self._final_state())
        return False

    # ---- starting

    def _decide(self, task: int) -> None:
        """Ask the trigger rule whether the task starts, never starts, or waits on."""
        if self.task_states[task] != PENDING or self._admitted[task]:
            return
        shape = self.shape
        final = shape.tasks[task].finally_
        if final and not self._finals_phase:
            return
        waited = self._waited[task]
        failed, other = self._failed_below.get(task, 0), self._other_below.get(task, 0)
        verdict = shape.decide[task](waited, shape.degrees[task] - waited - failed - other, failed, other)
        if verdict == RUNNING:
            if not self._is_withheld(final=final):
                self._admitted[task] = 1
                self._admit(task)
        elif verdict != PENDING:
            self._finish(task, verdict)

    def _is_withheld(self, *, final: bool) -> bool:
        """Whether nothing of this kind may start any more. A sweep gives it its terminal state."""
        if final:
            return self.level == KILL or self._finals_over
        return self.level != NO_REQUEST or self._tripped

    def _admit(self, task: int) -> None:
        """Its rule is met: ask for its values if it has any to ask for, and queue it."""
        if not self.shape.asked[task]:
            self._push(task)
            return
        answer = self._ask(task)
        final = self.shape.tasks[task].finally_
        if self.task_states[task] != PENDING or self._is_withheld(final=final):
            return  # reading the values has led to a request on this very run
        verdict, width = answer if isinstance(answer, tuple) else (answer, None)
        if verdict is Verdict.SKIP:
            self._finish(task, SKIPPED)
        elif verdict is Verdict.FAIL or (self.shape.tasks[task].mapped and width is None):
            self._finish(task, FAILED)
        elif not self.shape.tasks[task].mapped:
            self._push(task)
        elif width:
            self._maps[task] = MapProgress(width)
            self._push(task)
        else:
            self.results[task] = []
            self._finish(task, SUCCEEDED)

    # ---- ending

    def _finish(self, unit: int, new: int) -> None:
        """Give the unit its terminal state."""
        self._move(unit, new)
        if unit >= self.shape.size:
            self._instance_ended(unit, new)
            return
        task = self.shape.tasks[unit]
        if task.mapped:
            self.out.append(("mapped", unit))
        self._drop_results(unit)
        if new != SUCCEEDED:
            self._clean = self._smooth = False
        if task.finally_:
            self.finals_left -= 1
        else:
            self.left -= 1
        self._endings.append(unit)
        if new in (FAILED, CRASHED) and not task.allow_failure:
            self.failed = True
            if self.shape.fail_fast and not task.finally_ and not self._tripped:
                self._trip()

    def _trip(self) -> None:
        """`fail_fast`: withhold what has not begun; what executes goes on to its end.

        Argo Workflows' `failFast` means the same: schedule nothing new, wait for what runs, fail.
        """
        self._tripped = True
        self.causes.append("fail_fast")
        self._start_sweep()

    def _instance_ended(self, unit: int, new: int) -> None:
        progress = self._maps[self.task_of(unit)]
        progress.left -= 1
        progress.failed = progress.failed or new in (FAILED, CRASHED)
        progress.withdrawn = progress.withdrawn or new == CANCELLED
        self._map_ended(self.task_of(unit), progress)

    def _map_ended(self, task: int, progress: MapProgress) -> None:
        """End a mapped task when its last instance has ended; its result is the list in order."""
        if progress.left or self.task_states[task] >= TASK_ENDED_FROM:
            return
        if progress.failed:
            self._finish(task, FAILED)
        elif progress.cut or progress.withdrawn:
            self._finish(task, CANCELLED)
        else:
            self.results[task] = [self.results[unit] for unit in progress.units]
            self._finish(task, SUCCEEDED)

    def _final_state(self) -> int:
        if self.state == RUN_CANCELLING:
            return RUN_FAILED if self.first_cause_is_timeout else RUN_CANCELLED
        if self.state == RUN_STOPPING and self._withheld:
            return RUN_STOPPED
        return RUN_FAILED if self.failed else RUN_SUCCEEDED

    def _end(self, new: int) -> None:
        self._move_run(new)
        self._withdraw(forget=True)

    # ---- sweeping: stop, cancel, kill, fail_fast and the end of the finally-tasks' time

    def _start_sweep(self) -> None:
        """Look at every unit, from the first one, and withhold or cancel it as the level says.

        What is queued is forgotten at once, so that nothing starts before the sweep comes to it. It
        is all of one kind: while normal tasks are left, no finally-task is queued.
        """
        if not self._finals_phase or self._is_withheld(final=True):
            self._withdraw(forget=True)
        self._swept = 0

    def _sweep(self, budget: int) -> int:
        states, first = self.task_states, self._swept
        last = min(first + budget, len(states))
        for unit in range(first, last):
            if states[unit] < TASK_ENDED_FROM:
                self._sweep_unit(unit)
        self._swept = -1 if last == len(states) else last
        return last - first + 1

    def _sweep_unit(self, unit: int) -> None:
        final = self.shape.tasks[self.task_of(unit)].finally_
        if not self._is_withheld(final=final):
            return
        cancels = self.level >= CANCEL
        state = self.task_states[unit]
        if unit in self._maps:  # perhaps before the first of its instances has begun
            self._cut(unit, cancels=cancels)
        elif state in (PENDING, UP_FOR_RETRY):
            self._withhold(unit)
        elif cancels:
            self._cancel(unit, BY_TIMEOUT if final and self.level < KILL else BY_CANCEL)

    def _withhold(self, unit: int) -> None:
        if self.level != NO_REQUEST:
            self._withheld = True
        self._back_off.discard(unit)
        self._finish(unit, CANCELLED)

    def _cut(self, task: int, *, cancels: bool) -> None:
        """Begin no more instances of a mapped task; the sweep comes to those that have begun later."""
        progress = self._maps[task]
        missing = progress.width - progress.next
        if missing:
            if self.level != NO_REQUEST:
                self._withheld = True
            progress.cut = True
            progress.next = progress.width
            progress.left -= missing
        if cancels and progress.left and self.task_states[task] == RUNNING:
            self._move(task, CANCELLING)
        self._map_ended(task, progress)

    def _cancel(self, unit: int, reason: int) -> None:
        """Ask an attempt to end.

        A second request only matters if it is a kill: an attempt that is cleaning up must not be
        cancelled again.
        """
        first = self.task_states[unit] == RUNNING
        if first:
            self._move(unit, CANCELLING)
            self._reasons[unit] = reason
        if self.level == KILL and unit not in self._killed:  # a time-out may come before the sweep does
            self._killed.add(unit)
            self.out.append(("kill", unit))
        elif first:
            self.out.append(("cancel", unit))

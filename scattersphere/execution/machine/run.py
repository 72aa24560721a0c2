"""The pure machine of one run: signals in, commands and a journal out. No clock, no I/O.

Requests come from people (`pause`, `cancel`), facts from attempts (`ok`, `ended`). After each of
them the driver carries out what is in `out`, and calls `work` in slices while `busy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from scattersphere.errors import RunStateError
from scattersphere.execution.machine.codes import (
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    FAILURE_CODES,
    PENDING,
    RUN_CANCELLED,
    RUN_CANCELLING,
    RUN_CRASHED,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_QUEUED,
    RUN_RUNNING,
    RUN_STATES,
    RUN_STOPPED,
    RUN_STOPPING,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
)
from scattersphere.execution.machine.consequences import (
    BY_CANCEL,
    BY_TIMEOUT,
    CANCEL,
    KILL,
    NO_REQUEST,
    STOP,
    Answer,
    Consequences,
    Verdict,
)
from scattersphere.execution.machine.facts import RunFacts, UnitFacts
from scattersphere.execution.machine.record import MapProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.execution.machine.dispatcher import Dispatcher
    from scattersphere.execution.machine.places import Lane
    from scattersphere.execution.machine.shape import Shape

__all__ = ["Answer", "RunMachine", "Verdict"]


LOST_IN_A_ROW = 3
"""So often an attempt of a unit may lose its place, one after the other, until that is its own fault."""


class RunMachine(Consequences):
    """One run of a shape.

    `ask(task)` is called when the rule of a conditional or mapped task is met; it reads the user's
    values safely and must not raise.

    Requests raise `RunStateError` where the run's state does not allow them; a repeat is a no-op.
    """

    __slots__ = ()

    # What is set here as well as above: said again for type checkers that read one class at a time.
    first_cause_is_timeout: bool
    level: int
    left: int
    finals_left: int
    live: int

    # ---- requests

    def slot(self) -> None:
        """Start the run, for which the server has a place: queued -> running."""
        if self.state != RUN_QUEUED or self.level:
            raise self._refusal("started")
        self._started = True
        self._move_run(RUN_RUNNING)
        shape = self.shape
        if shape.plain_roots and self.left + self.finals_left == shape.size:
            if shape.roots:
                lane = self._hot = self._lane(shape.hot_lane)
                lane.queue.extend(shape.roots)
                self.dispatcher.enlist(lane)
        elif self.left + self.finals_left == shape.size:
            self._decisions.extend(shape.roots)
        else:  # results were reused: other rules may be met already, plain ones where nothing is waited for
            waited, plain = self._waited, shape.plain
            self._decisions.extend(task for task in range(shape.size) if not (plain[task] and waited[task]))
        self._carry()

    def pause(self) -> None:
        """Start nothing from now on; attempts are held at their next checkpoint."""
        if self.state in (RUN_PAUSING, RUN_PAUSED):
            return
        if self.state == RUN_QUEUED:
            self._move_run(RUN_PAUSED)
        elif self.state == RUN_RUNNING:
            self._move_run(RUN_PAUSING)
            self._withdraw(forget=False)
            self._carry()
        else:
            raise self._refusal("paused")

    def resume(self) -> None:
        """Undo a pause."""
        if self.state in (RUN_QUEUED, RUN_RUNNING):
            return
        if self.state not in (RUN_PAUSING, RUN_PAUSED):
            raise self._refusal("resumed")
        if not self._started:
            self._move_run(RUN_QUEUED)
            return
        self._move_run(RUN_RUNNING)
        self._release_held()
        self._enlist_all()

    def stop(self, reason: str = "") -> None:
        """Start nothing new, let what executes finish, then the finally-tasks."""
        self._request(STOP, reason or "stop", "stopped")

    def cancel(self, reason: str = "") -> None:
        """Start nothing new, cancel what executes, then the finally-tasks."""
        self._request(CANCEL, reason or "cancel", "cancelled")

    def kill(self, reason: str = "") -> None:
        """End everything by force; no finally-tasks."""
        self._request(KILL, reason or "kill", "killed")

    def timeout(self) -> None:
        """Cancel the run because its time is over; it ends failed if this was the first cause.

        A timer may be late: on a run that has not started, or has ended, nothing happens.
        """
        if self._started and not self.is_over:
            self.first_cause_is_timeout = self.first_cause_is_timeout or self.level < CANCEL
            self._request(CANCEL, "timeout", "timed out")

    def crash(self) -> None:
        """End everything that lives as crashed, because the engine itself failed.

        The one mass move that is done at once: who would work it off in slices has failed.
        """
        if self.is_over:
            return
        self.level = KILL
        self._finals_phase = True
        states = self.task_states
        for unit in range(len(states)):
            if states[unit] >= TASK_ENDED_FROM:
                continue
            if states[unit] in (RUNNING, CANCELLING) and unit not in self._maps:
                self._give_up(unit)
                if unit not in self._killed:
                    self.out.append(("kill", unit))
            self._move(unit, CRASHED)
            if unit < self.shape.size:
                self._drop_results(unit)
        self.left = self.finals_left = 0
        self._back_off.clear()
        self._end(RUN_CRASHED)
        self._carry()

    def _request(self, level: int, cause: str, done: str) -> None:
        if self.is_over:
            raise self._refusal(done)
        if level >= self.level and cause not in self.causes:
            self.causes.append(cause)
        if level <= self.level:
            return
        self.level = level
        self._smooth = False
        if not self._started:
            self._cancel_all_pending()
            self._end(RUN_STOPPED if level == STOP else RUN_CANCELLED)
            return
        if level == STOP:
            self._move_run(RUN_STOPPING)
        elif self.state != RUN_CANCELLING:
            self._move_run(RUN_CANCELLING)
        self._release_held()
        self._start_sweep()
        self._enlist_all()
        self._carry()

    def _cancel_all_pending(self) -> None:
        """End a run that never started: no rules, no finally-tasks, so no work list either."""
        states = self.task_states
        pending = [unit for unit in range(self.shape.size) if states[unit] == PENDING]
        # All at once, and so without the check of each move: a hundred thousand take some milliseconds.
        self.journal.extend([unit << STATE_BITS | CANCELLED for unit in pending])
        for unit in pending if self.shape.drops_results else ():
            self._drop_results(unit)
        states[:] = bytes(CANCELLED if state == PENDING else state for state in states)
        self.left = self.finals_left = 0

    def _release_held(self) -> None:
        self.out.extend(("release", unit) for unit in sorted(self.held))
        self.held.clear()

    def _refusal(self, done: str) -> RunStateError:
        state = RUN_STATES[self.state]
        return RunStateError(f"run {self.run_id} is {state}; it cannot be {done}")

    # ---- facts

    def begin(self, unit: int) -> bool:
        """Note that a unit which was taken has its first step now. False: it may not begin any more.

        A pause, a request, `fail_fast` or the end of the run may have come since it was taken. Then its places
        are free again, and it is queued where it may begin later.
        """
        if self._smooth and unit < self.shape.size:  # the hot path: nothing holds or withholds
            self.task_states[unit] = RUNNING
            self.attempts[unit] += 1
            self.journal.append(unit << STATE_BITS | RUNNING)
            self.live += 1
            return True
        return self._begin_or_refuse(unit)

    def _begin_or_refuse(self, unit: int) -> bool:
        if self._may_begin(unit):
            self._begin(unit)
            return True
        self.free_places(unit)
        if self.task_states[unit] in (PENDING, UP_FOR_RETRY) and self._may_start_again(unit):
            self._put_back(unit)
        return False

    def _may_begin(self, unit: int) -> bool:
        waits = self.task_states[unit] in (PENDING, UP_FOR_RETRY)
        return waits and not self._is_holding() and self._may_start_again(unit)

    def may_still_begin(self, unit: int) -> bool:
        """Whether an attempt that a backend was given may have its first step; may be read from any thread."""
        return self.task_states[unit] == RUNNING and self._may_start_again(unit)

    def call_off(self, unit: int) -> None:
        """Note that an attempt which a backend was given will not begin; `ended` follows."""
        if self.task_states[unit] == RUNNING and unit not in self.stuck:
            self._move(unit, CANCELLING)
            self._reasons[unit] = BY_CANCEL
            self._withheld = self._withheld or self.level != NO_REQUEST

    def reuse(self, task: int, value: Any) -> None:
        """Take over the result of an earlier run, before `slot`: the task has succeeded."""
        if self._started or self.task_states[task] != PENDING:
            raise RunStateError(f"run {self.run_id}: task {task} has begun; its result cannot be reused")
        self._move(task, SUCCEEDED)
        self._uneven = True
        self.results[task] = value
        if self.shape.tasks[task].finally_:
            self.finals_left -= 1
        else:
            self.left -= 1
        # An upstream may be executed again although this is not: the hot path must not count to zero here.
        self._waited[task] = -1
        for successor in self.shape.successors[task]:
            self._waited[successor] -= 1
        self._drop_results(task)

    def ok(self, unit: int, value: Any) -> None:
        """Note that an attempt has returned `value` (the hot path; `ended` does the same, step by step)."""
        shape, states = self.shape, self.task_states
        if (
            not (self._smooth and states[unit] == RUNNING and unit < shape.size and shape.easy[unit])
            or self.lent
        ):
            self.ended(unit, SUCCEEDED, value)
            return
        states[unit] = SUCCEEDED
        self.journal.append(unit << STATE_BITS | SUCCEEDED)
        self.results[unit] = value
        self.live -= 1
        self.left -= 1
        dispatcher = self.dispatcher
        if dispatcher.limited:
            dispatcher.free += 1
        if shape.gated:
            dispatcher.give_back(self._lane_of(unit).needs)
        below = shape.successors[unit]
        if below:
            waited = self._waited
            lane = self._hot or self._find_hot()
            queue = lane.queue
            for successor in below:
                left = waited[successor] = waited[successor] - 1
                if not left:
                    queue.append(successor)
            if lane.idle and queue:
                dispatcher.enlist(lane)
        if not self.left:
            self._carry()

    def _find_hot(self) -> Lane:
        self._hot = self._lane(self.shape.hot_lane)
        return self._hot

    def ended(self, unit: int, kind: int, value: Any = None, retryable: bool = True) -> None:  # noqa: FBT001, FBT002 - the driver's interface
        """Note that an attempt has ended.

        `kind` is SUCCEEDED, FAILED, CRASHED (its process died) or CANCELLED (it let a CancelledError
        through); `value` is kept as the unit's result, whatever it is. What is not `retryable` is
        not tried again.

        A late outcome of an attempt that was given up is dropped, but its places become free.
        """
        if unit in self.stuck:
            self.end_of_stuck(unit)
            return
        if self.task_states[unit] not in (RUNNING, CANCELLING):
            return
        self._leave(unit)
        self._conclude(unit, kind, value, retryable=retryable)

    def _conclude(self, unit: int, kind: int, value: Any, *, retryable: bool = True) -> None:
        """Draw the conclusions from the end of an attempt that has no places any more."""
        kind, asked = self._read_ending(unit, kind)
        self._lost.pop(unit, None)
        if kind in (FAILED, CRASHED) and retryable and asked != BY_CANCEL and self._has_attempts_left(unit):
            if self._may_start_again(unit):
                self._move(unit, UP_FOR_RETRY)
                self._uneven = True
                self._back_off.add(unit)
                self.out.append(("retry", unit))
                self._carry()
                return
            if self.level != NO_REQUEST:
                self._withheld = True
        self.results[unit] = value
        self._finish(unit, kind)
        self._carry()

    def _read_ending(self, unit: int, kind: int) -> tuple[int, int | None]:
        """Return what the ending means, and why the attempt was asked to end (None: it was not)."""
        asked = self._reasons.pop(unit, None)
        if kind == CRASHED and unit in self._killed:
            kind = CANCELLED  # it is us who killed it
        self._killed.discard(unit)
        if kind == CANCELLED and asked != BY_CANCEL:
            kind = FAILED  # a time-out, or a CancelledError of its own
        return kind, asked

    def _has_attempts_left(self, unit: int) -> bool:
        return self.counted(unit) < self.shape.tasks[self.task_of(unit)].max_attempts

    def counted(self, unit: int) -> int:
        """Return how many attempts of a unit count."""
        return self.attempts[unit] - self.forgiven.get(unit, 0)

    def _may_start_again(self, unit: int) -> bool:
        """Finally-tasks are no business of a stop or a cancel, and neither are their retries."""
        return not self.is_over and not self._is_withheld(final=self.shape.tasks[self.task_of(unit)].finally_)

    def retry_due(self, unit: int) -> None:
        """Queue a unit whose back-off is over. Without effect if it was withheld meanwhile."""
        if unit in self._back_off:
            self._back_off.remove(unit)
            if self._may_start_again(unit):  # else a sweep is on its way to it
                self._push(unit)

    def attempt_timeout(self, unit: int) -> None:
        """Cancel an attempt whose time is over. Time stands still while it is held."""
        if self.task_states[unit] == RUNNING and unit not in self.held and unit not in self._maps:
            self._cancel(unit, BY_TIMEOUT)
            self._carry()

    def finally_timeout(self) -> None:
        """Cancel the finally-tasks of a cancelled run that execute, and withhold the others.

        Their time is used up. Without effect on a run that was not cancelled.
        """
        if self.level == CANCEL and self._started and not self.is_over and not self._finals_over:
            self._finals_over = True
            self._start_sweep()
            self._carry()

    def grace_over(self, unit: int) -> None:
        """Give up an attempt that refuses to end: its task ends now.

        The attempt is *stuck* until it really ends. Until then it keeps its places in pools and
        server; those of run and task become free.
        """
        if self.task_states[unit] != CANCELLING or unit in self._maps:
            return
        asked = self._reasons.pop(unit)
        self._killed.discard(unit)
        self._give_up(unit)
        self._finish(unit, CANCELLED if asked == BY_CANCEL else FAILED)
        self._carry()

    def holds(self, unit: int) -> bool:
        """Whether what comes to a checkpoint of an attempt is to wait there; may be read from any thread."""
        return self.state in (RUN_PAUSING, RUN_PAUSED) and self.task_states[unit] == RUNNING

    def checkpoint(self, unit: int) -> bool:
        """Count an attempt as held, all of it, until ("release", unit) or its cancel. False: it need not wait."""
        if not self.holds(unit):
            return False
        self.held.add(unit)
        self._carry()
        return True

    def asked_of(self, unit: int) -> str:
        """Return why an attempt was asked to end: "cancel" or "timeout"."""
        return "timeout" if self._reasons.get(unit) == BY_TIMEOUT else "cancel"

    # ---- places that are lost, and runs that are taken up again

    def suspend(self) -> None:
        """Begin nothing from now on. The state does not change: the run is to be taken up again later."""
        if not self.is_over:
            self.suspended = True
            self._smooth = False
            self._withdraw(forget=False)

    def interrupted(self, unit: int) -> None:
        """Note that an attempt has lost its place: by a suspend, a restart, a machine that is gone.

        It does not count, and is tried again at once; the third in a row is a crash. What is withheld by now is
        not tried again.
        """
        if unit in self.stuck:
            self.end_of_stuck(unit)
        elif self.task_states[unit] in (RUNNING, CANCELLING) and unit not in self._maps:
            self._leave(unit)
            self._interrupt(unit)
            self._carry()

    def _interrupt(self, unit: int) -> None:
        if self.task_states[unit] == CANCELLING or not self._may_start_again(unit):
            if self.task_states[unit] == RUNNING:
                self._withheld = self._withheld or self.level != NO_REQUEST
                self._finish(unit, CANCELLED)
            else:
                self._conclude(unit, CANCELLED, None)
            return
        self.forgiven[unit] = self.forgiven.get(unit, 0) + 1
        lost = self._lost[unit] = self._lost.get(unit, 0) + 1
        if lost >= LOST_IN_A_ROW:
            self._finish(unit, CRASHED)
            return
        self._move(unit, UP_FOR_RETRY)
        self._uneven = True
        self._push(unit)

    def facts(self) -> RunFacts:
        """Return what a journal has to keep of the run."""
        size, states = self.shape.size, self.task_states
        return RunFacts(
            state=self.state,
            started=self._started,
            level=self.level,
            causes=tuple(self.causes),
            timed_out_first=self.first_cause_is_timeout,
            failing_fast=self._tripped,
            finals_over=self._finals_over,
            withheld=self._withheld,
            widths={task: progress.width for task, progress in self._maps.items()},
            cut=frozenset(task for task, progress in self._maps.items() if progress.cut),
            units=tuple(
                UnitFacts(
                    task=self.task_of(unit),
                    index=self.index_of(unit),
                    state=states[unit],
                    attempts=self.attempts[unit],
                    forgiven=self.forgiven.get(unit, 0),
                    result=self.results[unit],
                    timed_out=self._reasons.get(unit) == BY_TIMEOUT,
                )
                for unit in range(len(states))
                if unit >= size or states[unit] != PENDING or self.attempts[unit]
            ),
        )

    @classmethod
    def restore(
        cls, shape: Shape, facts: RunFacts, run_id: int, dispatcher: Dispatcher, ask: Callable[[int], Answer]
    ) -> Self:
        """Make a machine that goes on where these facts were taken; what executed then was interrupted.

        Its journal begins with what follows. `out` says what is to be done: `("retry", unit)` for each back-off that
        was not over.
        """
        machine = cls(shape, run_id, dispatcher, ask)
        machine.state, machine._started, machine.level = facts.state, facts.started, facts.level
        machine.causes = list(facts.causes)
        machine.first_cause_is_timeout, machine._tripped = facts.timed_out_first, facts.failing_fast
        machine._finals_over, machine._withheld = facts.finals_over, facts.withheld
        machine._uneven = True
        machine._maps = {task: MapProgress(width) for task, width in facts.widths.items()}
        live = [machine._restore_unit(each) for each in facts.units]
        machine._derive(facts.cut)
        if machine.is_over:
            return machine
        if facts.started and (facts.level or facts.failing_fast or facts.finals_over):
            machine._start_sweep()
        for task, progress in machine._maps.items():
            if machine.task_states[task] < TASK_ENDED_FROM:
                machine._admitted[task] = 1
                if progress.next < progress.width and machine._may_start_again(task):
                    machine._push(task)
        for unit in live:
            if unit >= 0 and unit not in machine._maps:
                machine._go_on(unit)
        if facts.started:
            machine._decisions.extend(
                task for task in range(shape.size) if machine.task_states[task] == PENDING
            )
            machine._carry()
        return machine

    def _restore_unit(self, facts: UnitFacts) -> int:
        """Take over what is known of a unit; return its number, or -1 if it has ended."""
        unit = facts.task if facts.index is None else self._new_instance(facts.task, self._maps[facts.task])
        if facts.index is not None:
            self._instance_index[-1] = facts.index
        self.task_states[unit], self.attempts[unit] = facts.state, facts.attempts
        self.results[unit] = facts.result
        if facts.forgiven:
            self.forgiven[unit] = facts.forgiven
        if facts.state == CANCELLING and unit not in self._maps:
            self._reasons[unit] = BY_TIMEOUT if facts.timed_out else BY_CANCEL
        return unit if facts.state < TASK_ENDED_FROM else -1

    def _derive(self, cut: frozenset[int]) -> None:
        """Count anew what follows from the states of all units."""
        self._derive_maps(cut)
        shape, states = self.shape, self.task_states
        for task in range(shape.size):
            if states[task] >= TASK_ENDED_FROM:
                self._count_ended(task, states[task])
        for task in range(shape.size):
            if states[task] >= TASK_ENDED_FROM:
                self._waited[task] = -1  # see `reuse`
        self._finals_phase = self._started and not self.left
        self._smooth = False

    def _derive_maps(self, cut: frozenset[int]) -> None:
        shape, states = self.shape, self.task_states
        for task, progress in self._maps.items():
            progress.next = max(
                (self._instance_index[unit - shape.size] + 1 for unit in progress.units), default=0
            )
            ended = [states[unit] for unit in progress.units if states[unit] >= TASK_ENDED_FROM]
            progress.cut = task in cut
            progress.left = (progress.next if progress.cut else progress.width) - len(ended)
            if progress.cut:
                progress.next = progress.width
            progress.failed = FAILED in ended or CRASHED in ended
            progress.withdrawn = CANCELLED in ended

    def _count_ended(self, task: int, state: int) -> None:
        shape = self.shape
        if shape.tasks[task].finally_:
            self.finals_left -= 1
        else:
            self.left -= 1
        if state in (FAILED, CRASHED) and not shape.tasks[task].allow_failure:
            self.failed = True
        self._clean = self._clean and state == SUCCEEDED
        counts = self._failed_below if state in FAILURE_CODES else self._other_below
        for below in shape.successors[task]:
            self._waited[below] -= 1
            if state != SUCCEEDED:
                counts[below] = counts.get(below, 0) + 1
        if self._readers is not None:
            self._readers.ended(task)

    def _go_on(self, unit: int) -> None:
        """Let a unit go on that had begun: what executed was interrupted, what waited waits."""
        state = self.task_states[unit]
        if state in (RUNNING, CANCELLING):
            self._interrupt(unit)
        elif state == UP_FOR_RETRY:
            self._back_off.add(unit)
            self.out.append(("retry", unit))
        elif self._may_start_again(unit):  # an instance that was taken and had not begun
            self._push(unit)

    # ---- places

    def lend(self, unit: int) -> bool:
        """Give back the places of an attempt as long as it waits for a child run, which may need them.

        False where it may not: it has lent them already, or is being ended and so will not wait for long.
        """
        if unit in self.lent or self.task_states[unit] != RUNNING:
            return False
        self.free_places(unit)
        self.lent.add(unit)
        return True

    def reclaim(self, unit: int) -> bool:
        """Queue an attempt that has waited for its places, before all that has not begun.

        False if it has them. The dispatcher hands it out like a unit that begins; `take_back` follows.
        """
        if unit not in self.lent or unit in self._reclaiming:
            return False
        self._reclaiming.add(unit)
        self._put_back(unit)
        return True

    def take_back(self, unit: int) -> None:
        """Note that an attempt which was handed out has its places again."""
        self.lent.discard(unit)
        self._reclaiming.discard(unit)

    def seize(self, unit: int) -> None:
        """Let an attempt have its places at once: it was cancelled, or has waited enough.

        For a moment there may be more of them taken than there are.
        """
        if unit not in self.lent:
            return
        lane = self._lane_of(unit)
        if unit in self._reclaiming and unit in lane.queue:
            lane.queue.remove(unit)
        elif unit in self._reclaiming:  # handed out: it has them
            self.take_back(unit)
            return
        self.take_back(unit)
        self.dispatcher.seize(lane.needs)

    def hold_waiting(self, unit: int) -> None:
        """Count an attempt as held during a pause: all the runs for which it waits are paused."""
        if unit in self.lent and self.holds(unit):
            self.held.add(unit)
            self._carry()

    def _leave(self, unit: int) -> None:
        """An attempt has ended."""
        self.live -= 1
        self.held.discard(unit)
        self.free_places(unit)

    def free_places(self, unit: int) -> None:
        """Give back all places of a unit."""
        if self.lent and unit in self.lent:
            self.seize(unit)
        dispatcher = self.dispatcher
        if dispatcher.limited:
            dispatcher.free += 1
        lane = self._lane_of(unit)
        if lane.needs:
            dispatcher.give_back(lane.needs)

    def _give_up(self, unit: int) -> None:
        self.seize(unit)
        self.live -= 1
        self.held.discard(unit)
        self.stuck.add(unit)
        self.dispatcher.give_back(self._lane_of(unit).own)

    def end_of_stuck(self, unit: int) -> None:
        """Free the last places of a stuck attempt that has really ended. Its outcome is dropped."""
        self.stuck.discard(unit)
        if self.dispatcher.limited:
            self.dispatcher.free += 1
        self.dispatcher.give_back(self._lane_of(unit).shared)

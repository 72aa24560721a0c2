"""RunMachine: the pure machine of one run. Signals in; commands, and a journal, out. No clock, no I/O.

Requests come from people (`pause`, `cancel`), facts from attempts (`ok`, `ended`). Each signal returns what the driver
is to do then; while `busy`, it calls `work` in slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.engine.machine.codes import (
    BY_CANCEL,
    BY_TIMEOUT,
    CANCEL,
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    KILL,
    NO_REQUEST,
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
    STOP,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
    CommandKind,
)
from scattersphere.engine.machine.propagation import AT_ONCE, Propagation, StartDecision
from scattersphere.engine.machine.ready import ReadyTasks
from scattersphere.engine.machine.record import NO_COMMANDS, RunRecord
from scattersphere.errors import RunStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scattersphere.engine.machine.codes import Command
    from scattersphere.engine.machine.dispatcher import Dispatcher
    from scattersphere.engine.machine.graph import CompiledGraph

__all__ = ["RunMachine", "StartDecision"]


LOST_IN_A_ROW = 3
"""So often an attempt of a unit may lose its place, one after the other, until that is its own fault."""


class RunMachine:
    """One run of a graph: its record, what of it is ready, and how endings propagate.

    `ask(task)` is called when the rule of a conditional or mapped task is met; it reads the user's
    values safely and must not raise.

    Requests raise `RunStateError` where the run's state does not allow them; a repeat is a no-op.
    """

    __slots__ = ("_leaving", "_lost", "dispatcher", "propagation", "ready", "record")

    def __init__(
        self,
        graph: CompiledGraph,
        run_id: int,
        dispatcher: Dispatcher,
        ask: Callable[[int], StartDecision | int],
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self.dispatcher: Dispatcher = dispatcher
        self.record: RunRecord = RunRecord(graph, run_id)
        self.ready: ReadyTasks = ReadyTasks(self.record, dispatcher)
        self.propagation: Propagation = Propagation(self.record, self.ready, ask, at_once)
        self._leaving: int | None = None
        """The unit whose attempt has given its places back, until it has moved on: else a crash would do it again."""
        self._lost: dict[int, int] = {}
        """How many attempts in a row have lost their place, by unit."""

    def __repr__(self) -> str:
        record = self.record
        left = record.left + record.finals_left
        return (
            f"<{type(self).__name__} {record.run_id}: {RUN_STATES[record.state]}, "
            f"{left} of {record.graph.size} tasks left, {record.live} attempts>"
        )

    @property
    def busy(self) -> bool:
        """Whether a mass move is under way, so that `work` must be called."""
        return self.propagation.busy

    def work(self, budget: int) -> Sequence[Command]:
        """Carry on a mass move for at most about `budget` steps."""
        return self._draw(budget)

    def _draw(self, budget: int = 0) -> Sequence[Command]:
        """Draw the conclusions from a signal, and return what the driver is to do."""
        self.propagation.drain(budget)
        return self.take_commands()

    def take_commands(self) -> Sequence[Command]:
        """Return what the driver is to do after a signal."""
        record = self.record
        commands = record.commands
        if not commands:
            return NO_COMMANDS
        record.commands = []
        return commands

    def compact(self) -> None:
        """Give back what an ended run no longer needs; states, results and journal stay readable."""
        for _ in self.compacting():
            pass

    def compacting(self) -> Iterator[None]:
        """Do what `compact` does, in pieces of less than a millisecond."""
        record = self.record
        if not record.is_over:
            return
        yield from record.compacting()
        self.ready.compact(for_good=not record.live and not record.stuck)
        self.propagation.compact()

    # ---- requests

    def slot(self) -> Sequence[Command]:
        """Start the run, for which the server has a place: queued -> running."""
        record, graph = self.record, self.record.graph
        if record.state != RUN_QUEUED or record.level:
            raise self._refusal("started")
        record.started = True
        record.move_run(RUN_RUNNING)
        if record.left + record.finals_left != graph.size:
            # Results were reused: other rules may be met already, unconditional ones where nothing is waited for.
            waited, unconditional = self.propagation.waited, graph.unconditional
            self.propagation.decide(
                task for task in range(graph.size) if not (unconditional[task] and waited[task])
            )
        elif graph.fast_roots and record.left:
            self.ready.push_roots()
            return self.take_commands()  # nothing follows from it
        else:
            self.propagation.decide(graph.roots)
        return self._draw()

    def pause(self) -> Sequence[Command]:
        """Start nothing from now on; attempts are held at their next checkpoint."""
        record = self.record
        if record.state in (RUN_PAUSING, RUN_PAUSED):
            return NO_COMMANDS
        if record.state == RUN_QUEUED:
            record.move_run(RUN_PAUSED)
            return self.take_commands()
        if record.state != RUN_RUNNING:
            raise self._refusal("paused")
        record.move_run(RUN_PAUSING)
        self.ready.withdraw(forget=False)
        return self._draw()

    def resume(self) -> Sequence[Command]:
        """Undo a pause."""
        record = self.record
        if record.state in (RUN_QUEUED, RUN_RUNNING):
            return NO_COMMANDS
        if record.state not in (RUN_PAUSING, RUN_PAUSED):
            raise self._refusal("resumed")
        if record.started:
            record.move_run(RUN_RUNNING)
            self._release_held()
            self.ready.enlist_all()
        else:
            record.move_run(RUN_QUEUED)
        return self.take_commands()

    def stop(self, reason: str = "") -> Sequence[Command]:
        """Start nothing new, let what executes finish, then the finally-tasks."""
        return self._request(STOP, reason or "stop", "stopped")

    def cancel(self, reason: str = "") -> Sequence[Command]:
        """Start nothing new, cancel what executes, then the finally-tasks."""
        return self._request(CANCEL, reason or "cancel", "cancelled")

    def kill(self, reason: str = "") -> Sequence[Command]:
        """End everything by force; no finally-tasks."""
        return self._request(KILL, reason or "kill", "killed")

    def timeout(self) -> Sequence[Command]:
        """Cancel the run because its time is over; it ends failed if this was the first cause.

        A timer may be late: on a run that has not started, or has ended, nothing happens.
        """
        record = self.record
        if not record.started or record.is_over:
            return NO_COMMANDS
        record.first_cause_is_timeout = record.first_cause_is_timeout or record.level < CANCEL
        return self._request(CANCEL, "timeout", "timed out")

    def crash(self) -> Sequence[Command]:
        """End everything that lives as crashed, because the engine itself failed.

        The one mass move that is done at once: who would work it off in slices has failed.
        """
        record = self.record
        if record.is_over:
            return NO_COMMANDS
        record.level = KILL
        record.finals_phase = True
        states = record.task_states
        left = [unit for unit in range(len(states)) if states[unit] < TASK_ENDED_FROM]
        for unit in left:  # places first: they are of others too
            if states[unit] in (RUNNING, CANCELLING) and unit not in record.maps and unit != self._leaving:
                self._give_up(unit)
                if unit not in record.killed:
                    record.command(CommandKind.KILL, unit)
        for unit in left:
            record.move(unit, CRASHED)
            if unit < record.graph.size:
                record.drop_results(unit)
        record.left = record.finals_left = 0
        record.back_off.clear()
        self.propagation.end(RUN_CRASHED)
        return self._draw()

    def _request(self, level: int, cause: str, done: str) -> Sequence[Command]:
        record = self.record
        if record.is_over:
            raise self._refusal(done)
        if level >= record.level and cause not in record.causes:
            record.causes.append(cause)
        if level <= record.level:
            return NO_COMMANDS
        record.level = level
        record.fast_path = False
        if not record.started:
            self._cancel_all_pending()
            self.propagation.end(RUN_STOPPED if level == STOP else RUN_CANCELLED)
            return self.take_commands()
        if level == STOP:
            record.move_run(RUN_STOPPING)
        elif record.state != RUN_CANCELLING:
            record.move_run(RUN_CANCELLING)
        self._release_held()
        self.propagation.start_sweep()
        self.ready.enlist_all()
        return self._draw()

    def _cancel_all_pending(self) -> None:
        """End a run that never started: no rules, no finally-tasks, so no work list either."""
        record = self.record
        states, graph = record.task_states, record.graph
        pending = [unit for unit in range(graph.size) if states[unit] == PENDING]
        # All at once, and so without the check of each move: a hundred thousand take some milliseconds.
        record.journal.extend([unit << STATE_BITS | CANCELLED for unit in pending])
        for unit in pending if graph.drops_results else ():
            record.drop_results(unit)
        states[:] = bytes(CANCELLED if state == PENDING else state for state in states)
        record.left = record.finals_left = 0

    def _release_held(self) -> None:
        for unit in sorted(self.record.held):
            self.record.command(CommandKind.RELEASE, unit)
        self.record.held.clear()

    def _refusal(self, done: str) -> RunStateError:
        record = self.record
        return RunStateError(f"run {record.run_id} is {RUN_STATES[record.state]}; it cannot be {done}")

    # ---- facts

    def begin(self, unit: int) -> bool:
        """Note that a unit which was taken has its first step now. False: it may not begin any more.

        A pause, a request, `fail_fast` or the end of the run may have come since it was taken. Then its places
        are free again, and it is queued where it may begin later.
        """
        record = self.record
        if record.fast_path and unit < record.graph.size:  # nothing holds or withholds
            record.task_states[unit] = RUNNING
            record.attempts[unit] += 1
            record.journal.append(unit << STATE_BITS | RUNNING)
            record.live += 1
            return True
        return self._begin_or_refuse(unit)

    def _begin_or_refuse(self, unit: int) -> bool:
        record, may_start = self.record, self.propagation.may_start
        waits = record.task_states[unit] in (PENDING, UP_FOR_RETRY)
        if waits and not record.is_holding and may_start(unit):
            record.begin(unit)
            return True
        self.ready.free(unit)
        if waits and may_start(unit):
            self.ready.put_back(unit)
        return False

    def may_still_begin(self, unit: int) -> bool:
        """Whether an attempt that a backend was given may have its first step; may be read from any thread."""
        return self.record.task_states[unit] == RUNNING and self.propagation.may_start(unit)

    def call_off(self, unit: int) -> None:
        """Note that an attempt which a backend was given will not begin; `ended` follows."""
        record = self.record
        if record.task_states[unit] == RUNNING and unit not in record.stuck:
            record.ask_to_end(unit, BY_CANCEL)
            record.withheld = record.withheld or record.level != NO_REQUEST

    def reuse(self, task: int, value: object) -> None:
        """Take over the result of an earlier run, before `slot`: the task has succeeded."""
        record, waited = self.record, self.propagation.waited
        if record.started or record.task_states[task] != PENDING:
            raise RunStateError(f"run {record.run_id}: task {task} has begun; its result cannot be reused")
        record.move(task, SUCCEEDED)
        record.uneven = True
        record.results[task] = value
        if record.graph.tasks[task].finally_:
            record.finals_left -= 1
        else:
            record.left -= 1
        # An upstream may be executed again although this is not: the fast path must not count to zero here.
        waited[task] = -1
        for successor in record.graph.successors[task]:
            waited[successor] -= 1
        record.drop_results(task)

    def ok(self, unit: int, value: object) -> Sequence[Command]:
        """Note that an attempt has returned `value` (the fast path; `ended` does the same, step by step)."""
        record = self.record
        graph, states = record.graph, record.task_states
        if (
            not (record.fast_path and states[unit] == RUNNING and unit < graph.size and graph.fast_path[unit])
            or record.lent
        ):
            return self.ended(unit, SUCCEEDED, value)
        states[unit] = SUCCEEDED
        record.journal.append(unit << STATE_BITS | SUCCEEDED)
        record.results[unit] = value
        record.live -= 1
        record.left -= 1
        dispatcher = self.dispatcher
        if dispatcher.limited:
            dispatcher.free += 1
        if graph.gated:
            dispatcher.give_back(self.ready.queue_of(unit).needs)
        below = graph.successors[unit]
        if below:
            waited = self.propagation.waited
            queue = self.ready.fast_queue or self.ready.make_fast_queue()
            units = queue.units
            for successor in below:
                left = waited[successor] = waited[successor] - 1
                if not left:
                    units.append(successor)
            if queue.idle and units:
                dispatcher.enlist(queue)
        return NO_COMMANDS if record.left else self._draw()

    def ended(self, unit: int, kind: int, value: object = None, retryable: bool = True) -> Sequence[Command]:  # noqa: FBT001, FBT002 - the driver's interface
        """Note that an attempt has ended.

        `kind` is SUCCEEDED, FAILED, CRASHED (its process died) or CANCELLED (it let a CancelledError
        through); `value` is kept as the unit's result, whatever it is. What is not `retryable` is
        not tried again.

        A late outcome of an attempt that was given up is dropped, but its places become free.
        """
        if unit in self.record.stuck:
            self.end_of_stuck(unit)
        elif self.record.task_states[unit] in (RUNNING, CANCELLING):
            self._leave(unit)
            self._conclude(unit, kind, value, retryable=retryable)
            self._leaving = None
            return self._draw()
        return NO_COMMANDS

    def _conclude(self, unit: int, kind: int, value: object, *, retryable: bool = True) -> None:
        """Move a unit on whose attempt has ended, and has no places any more."""
        record = self.record
        kind, asked = self._read_ending(unit, kind)
        self._lost.pop(unit, None)
        if kind in (FAILED, CRASHED) and retryable and asked != BY_CANCEL and self._has_attempts_left(unit):
            if self.propagation.may_start(unit):
                record.move(unit, UP_FOR_RETRY)
                record.uneven = True
                record.back_off.add(unit)
                record.command(CommandKind.RETRY, unit)
                return
            if record.level != NO_REQUEST:
                record.withheld = True
        record.results[unit] = value
        self.propagation.finish(unit, kind)

    def _read_ending(self, unit: int, kind: int) -> tuple[int, int | None]:
        """Return what the ending means, and why the attempt was asked to end (None: it was not)."""
        record = self.record
        asked = record.reasons.pop(unit, None)
        if kind == CRASHED and unit in record.killed:
            kind = CANCELLED  # it is us who killed it
        record.killed.discard(unit)
        if kind == CANCELLED and asked != BY_CANCEL:
            kind = FAILED  # a time-out, or a CancelledError of its own
        return kind, asked

    def would_retry(self, unit: int) -> bool:
        """Whether a failure of this attempt that may be tried again is tried again, as things are now."""
        return self._has_attempts_left(unit) and self.propagation.may_start(unit)

    def _has_attempts_left(self, unit: int) -> bool:
        record = self.record
        return record.counted(unit) < record.graph.tasks[record.task_of(unit)].max_attempts

    def retry_due(self, unit: int) -> None:
        """Queue a unit whose back-off is over. Without effect if it was withheld meanwhile."""
        back_off = self.record.back_off
        if unit in back_off:
            back_off.remove(unit)
            if self.propagation.may_start(unit):  # else a sweep is on its way to it
                self.ready.push(unit)

    def attempt_timeout(self, unit: int) -> Sequence[Command]:
        """Cancel an attempt whose time is over. Time stands still while it is held."""
        record = self.record
        if record.task_states[unit] != RUNNING or unit in record.held or unit in record.maps:
            return NO_COMMANDS
        self.propagation.cancel(unit, BY_TIMEOUT)
        return self._draw()

    def finally_timeout(self) -> Sequence[Command]:
        """Cancel the finally-tasks of a cancelled run that execute, and withhold the others.

        Their time is used up. Without effect on a run that was not cancelled.
        """
        record, propagation = self.record, self.propagation
        if record.level != CANCEL or not record.started or record.is_over or propagation.finals_over:
            return NO_COMMANDS
        propagation.finals_over = True
        propagation.start_sweep()
        return self._draw()

    def grace_over(self, unit: int) -> Sequence[Command]:
        """Give up an attempt that refuses to end: its task ends now.

        The attempt is *stuck* until it really ends. Until then it keeps its places in pools and
        server; those of run and task become free.
        """
        record = self.record
        if record.task_states[unit] != CANCELLING or unit in record.maps:
            return NO_COMMANDS
        asked = record.reasons.pop(unit)
        record.killed.discard(unit)
        self._give_up(unit)
        self.propagation.finish(unit, CANCELLED if asked == BY_CANCEL else FAILED)
        return self._draw()

    def holds(self, unit: int) -> bool:
        """Whether what comes to a checkpoint of an attempt is to wait there; may be read from any thread."""
        record = self.record
        return record.state in (RUN_PAUSING, RUN_PAUSED) and record.task_states[unit] == RUNNING

    def checkpoint(self, unit: int) -> Sequence[Command] | None:
        """Count an attempt as held, all of it, until a RELEASE command or its cancel. None: it need not wait."""
        if not self.holds(unit):
            return None
        self.record.held.add(unit)
        return self._draw()

    def asked_of(self, unit: int) -> str:
        """Return why an attempt was asked to end: "cancel" or "timeout"."""
        return "timeout" if self.record.reasons.get(unit) == BY_TIMEOUT else "cancel"

    # ---- places that are lost, lent, given up

    def suspend(self) -> None:
        """Begin nothing from now on. The state does not change: the run is to be taken up again later."""
        record = self.record
        if not record.is_over:
            record.suspended = True
            record.fast_path = False
            self.ready.withdraw(forget=False)

    def interrupted(self, unit: int) -> Sequence[Command]:
        """Note that an attempt has lost its place: by a suspend, a restart, a machine that is gone.

        It does not count, and is tried again at once; the third in a row is a crash. What is withheld by now is
        not tried again.
        """
        record = self.record
        if unit in record.stuck:
            self.end_of_stuck(unit)
        elif record.task_states[unit] in (RUNNING, CANCELLING) and unit not in record.maps:
            self._leave(unit)
            self.lose(unit)
            self._leaving = None
            return self._draw()
        return NO_COMMANDS

    def lose(self, unit: int) -> None:
        """Move a unit on whose attempt has lost its place; for `interrupted`, and for runs that are taken up again."""
        record, propagation = self.record, self.propagation
        if record.task_states[unit] == CANCELLING:
            self._conclude(unit, CANCELLED, None)
        elif not propagation.may_start(unit):
            record.withheld = record.withheld or record.level != NO_REQUEST
            propagation.finish(unit, CANCELLED)
        else:
            record.forgiven[unit] = record.forgiven.get(unit, 0) + 1
            lost = self._lost[unit] = self._lost.get(unit, 0) + 1
            if lost >= LOST_IN_A_ROW:
                propagation.finish(unit, CRASHED)
                return
            record.move(unit, UP_FOR_RETRY)
            record.uneven = True
            self.ready.push(unit)

    def lend(self, unit: int) -> bool:
        """Give back the places of an attempt as long as it waits for a child run, which may need them.

        False where it may not: it has lent them already, or is being ended and so will not wait for long.
        """
        if unit in self.record.lent or self.record.task_states[unit] != RUNNING:
            return False
        self.ready.lend(unit)
        return True

    def _leave(self, unit: int) -> None:
        """An attempt has ended."""
        self.ready.free(unit)
        self._leaving = unit
        self.record.live -= 1
        self.record.held.discard(unit)

    def _give_up(self, unit: int) -> None:
        self.record.live -= 1
        self.record.held.discard(unit)
        self.record.stuck.add(unit)
        self.ready.free_own(unit)

    def end_of_stuck(self, unit: int) -> None:
        """Free the last places of an attempt that was given up, and has really ended. Its outcome is dropped."""
        self.record.stuck.discard(unit)
        self.ready.free_shared(unit)

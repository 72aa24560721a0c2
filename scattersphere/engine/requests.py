"""RunRequests: what people, parents and the clock ask of a run; and parents that wait for child runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

from scattersphere.engine.execution import Attempt
from scattersphere.engine.machine.codes import CANCEL, KILL, STOP
from scattersphere.errors import EngineError, RunStateError
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.arguments import check_seconds, check_text
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scattersphere.engine.cancellation import Canceller
    from scattersphere.engine.commands import CommandQueue
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.holds import Holds
    from scattersphere.engine.timers import Deadlines

Each = TypeVar("Each")
CHILD_GRACE = 0.5
"""The part of a parent's grace that its child runs get: they end before the parent is given up."""
FINALLY_LIMIT = 60.0
"""Seconds that finally-tasks have after a cancel (design, section 8)."""


class Suspending(Protocol):
    """What has runs suspended."""

    has_begun: bool


class AttemptEnder(Protocol):
    """What ends the attempts that the machine of a run asks nothing new of."""

    def kill_refusers(self, execution: Execution) -> None:
        """Kill what was given up of a run."""

    def shorten(self, execution: Execution, grace: float) -> None:
        """Have a grace that ends earlier count for what is cancelled already."""


class RequestHost(Protocol):
    """What requests need of the executor."""

    clock: Callable[[], float]
    grace: float
    running: dict[int, Execution]
    holds: Holds

    @property
    def canceller(self) -> AttemptEnder:
        """Cancels and kills attempts."""
        ...

    @property
    def suspension(self) -> Suspending:
        """Has runs suspended while the Server is being closed."""
        ...

    def admit(self) -> None:
        """Give free slots to queued runs."""

    def slot(self, execution: Execution) -> None:
        """Start a queued run."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def defect(self, execution: Execution, exc: BaseException) -> EngineError:
        """End a run because of a defect of ours; return what is raised where that is called from."""
        ...

    def wake(self) -> None:
        """Have the pump called soon."""


class RunRequests:
    """Pause, resume, stop, cancel, kill, and the run's timeout."""

    def __init__(
        self, host: RequestHost, canceller: Canceller, commands: CommandQueue, deadlines: Deadlines
    ) -> None:
        self._host = host
        self._canceller = canceller
        self._commands = commands
        self._deadlines = deadlines
        self.cancel_waiting: Callable[[Execution, str, str | None], None] | None = None
        """Ends a run of an earlier life that waits for its code."""
        self._late: dict[Execution, str] = {}
        """What is to be asked of child runs that wait for their code, when that is there."""

    # ---- requests on a run

    def request(self, execution: Execution, verb: str, reason: str | None, grace: float | None) -> None:
        """Carry out pause, resume, stop, cancel, kill. Raises `RunStateError`."""
        check_text(reason, "reason", optional=True)
        check_seconds(grace, "grace", optional=True)
        if self._host.suspension.has_begun and current_attempt.get() is not None:
            return  # a body that is ended by a suspend cleans up: it would end for good what is to go on
        if execution.is_end_held:
            return  # it has ended, which is seen when it is durable: what is asked comes too late
        if execution.waits_for and self.cancel_waiting is not None:
            if verb in {"pause", "resume"}:
                raise RunStateError(
                    f"run {execution.id} waits for {execution.waits_for}; it can only be cancelled"
                )
            self._late.pop(execution, None)
            self.cancel_waiting(execution, verb, reason)
            return
        try:
            self._request(execution, verb, reason, grace)
        except RunStateError:
            raise
        except Exception as exc:
            raise self._host.defect(execution, exc) from exc

    def ask(self, execution: Execution, verb: str, reason: str, grace: float | None = None) -> None:
        """Do as `request` for one run of several: one that ends by itself is left, and a defect is its own alone."""
        with contextlib.suppress(RunStateError, EngineError):  # the defect is in the logs
            self.request(execution, verb, reason, grace)

    def _request(self, execution: Execution, verb: str, reason: str | None, grace: float | None) -> None:
        if grace is not None:
            execution.grace = grace
        signal, was_cancelled = getattr(execution.machine, verb), execution.machine.record.level == CANCEL
        self._commands.apply(execution, signal() if verb in {"pause", "resume"} else signal(reason or verb))
        if (
            execution.state is RunState.QUEUED
        ):  # resumed: a place may have become free while nobody could take it
            if execution.is_child:  # it needs none, and was paused before it was durable
                self._host.slot(execution)
            self._host.admit()
        if verb == "kill":
            self._host.canceller.kill_refusers(execution)
        elif verb == "cancel" and was_cancelled and grace is not None:
            self._host.canceller.shorten(execution, grace)
        self.reach_children(execution, verb)

    async def cancel_runs(self, run_ids: Iterable[int], reason: str) -> None:
        """Cancel those of these runs that live, and wait for their ends."""
        executions = [self._host.running[run_id] for run_id in run_ids if run_id in self._host.running]
        for execution in executions:
            self.ask(execution, "cancel", reason)
        for execution in executions:
            await execution.wait()

    # ---- families

    def reach_children(self, execution: Execution, verb: str) -> None:
        """What is asked of a run is asked of the runs that its bodies have started.

        A finally-task goes on after a stop and a cancel, and so do its children.
        """
        execution.children = {child for child in execution.children if not child.state.ended}
        for child in list(execution.children):
            starter = child.started_by
            if verb in {"stop", "cancel"} and starter is not None and starter.planned.definition.finally_:
                continue
            self._ask_child(child, verb)
        for unit in list(execution.machine.record.lent):
            if (attempt := execution.live.get(unit)) is not None:
                self._host.holds.waits_for_runs(attempt)

    def end_children_of(self, attempt: Attempt) -> None:
        """An attempt is cancelled or killed: so are the runs that it has started."""
        for child in list(attempt.execution.children):
            if child.started_by is attempt and not child.state.ended:
                self._ask_child(child, "kill" if attempt.killed else "cancel")

    def inherit(self, child: Execution, starter: Attempt) -> None:
        """Ask of a new child run what its parent was asked before."""
        machine = starter.execution.machine
        final = starter.planned.definition.finally_
        if machine.record.level == KILL or starter.killed:
            self._ask_child(child, "kill")
        elif starter.cancel_reason is not None or (machine.record.level == CANCEL and not final):
            self._ask_child(child, "cancel")
        elif machine.record.level == STOP and not final:
            self._ask_child(child, "stop")
        elif starter.execution.pausing:
            self._ask_child(child, "pause")

    def ask_late(self, child: Execution) -> None:
        """Ask of a child that goes on what was asked of its parent while its code was not there."""
        if verb := self._late.pop(child, ""):
            self._ask_child(child, verb)

    def _ask_child(self, child: Execution, verb: str) -> None:
        if child.waits_for and verb in {"pause", "resume"}:
            self._late[child] = verb
            return
        reason = f"its parent, run {child.parent}, is ending"
        parent = None if child.started_by is None else child.started_by.execution
        grace = self._host.grace if parent is None or parent.grace is None else parent.grace
        self.ask(child, verb, reason, grace * CHILD_GRACE if verb == "cancel" else None)

    # ---- a parent that waits for a child

    async def wait_in_body(self, execution: Execution, at_most: float | None) -> bool:
        """Wait for the end of a run, at most so many seconds, in a body; return whether it came.

        A body that waits for a run which it has started lends its places meanwhile: that run may need them.
        """
        parent = current_attempt.get()
        if execution.state.ended or not isinstance(parent, Attempt):
            return await execution.wait(at_most)
        try:
            is_above = execution.descends_from(parent)
        except Exception as exc:
            raise self._host.defect(parent.execution, exc) from exc
        if not is_above:
            return await execution.wait(at_most)
        guard = self._host.guard
        guard(parent.execution, self._wait_begins, parent, execution)
        try:
            ended = await execution.wait(at_most)
            if ended:
                guard(parent.execution, self._reclaim, parent, execution)
                if parent.place is not None:
                    await parent.place.wait()
        finally:
            guard(parent.execution, self._wait_ends, parent, execution)
        return ended

    def _wait_begins(self, parent: Attempt, child: Execution) -> None:
        parent.waits_for = (*parent.waits_for, child)
        child.waited_by = (*child.waited_by, parent)
        if parent.execution.machine.lend(parent.unit):
            self._host.wake()
        self._host.holds.waits_for_runs(parent)

    def _reclaim(self, parent: Attempt, child: Execution) -> None:
        """Have the dispatcher give places to the parent again, if it waits for no other child: `place` is set then.

        Where it waits for its places already, in another of its tasks, it is for the same `place`.
        """
        if any(other is not child and not other.state.ended for other in parent.waits_for):
            return
        if parent.execution.machine.ready.reclaim(parent.unit):
            parent.place = anyio.Event()
            self._host.wake()
            self._host.holds.waits_for_runs(parent)  # during a pause it has no place until the resume

    def _wait_ends(self, parent: Attempt, child: Execution) -> None:
        parent.waits_for = _without(parent.waits_for, child)
        child.waited_by = _without(child.waited_by, parent)
        if not parent.waits_for:
            parent.execution.machine.ready.seize(parent.unit)
            parent.place = None

    def give_places(self, execution: Execution, unit: int) -> None:
        """The dispatcher has places for an attempt that had lent its own: let it go on."""
        execution.machine.ready.take_back(unit)
        attempt = execution.live.get(unit)
        if attempt is None or attempt.place is None:
            return
        attempt.place.set()
        if any(not run.state.ended for run in attempt.waits_for):
            execution.machine.lend(unit)  # another task of it waits for a run by now, which may need them

    def arm_run_timeout(self, execution: Execution) -> None:
        """Start or continue the clock of the run's own timeout."""
        if execution.remaining is None or execution.timer is not None:
            return
        execution.timer_from = self._host.clock()
        execution.timer = self._deadlines.call_later(
            execution, execution.remaining, lambda: self._run_timed_out(execution)
        )

    def limit_finals(self, execution: Execution) -> None:
        """Bound the finally-tasks of a cancelled run."""

        def over() -> None:
            self._commands.apply(execution, execution.machine.finally_timeout())

        execution.finals_timer = self._deadlines.call_later(execution, FINALLY_LIMIT, over)

    def run_paused(self, execution: Execution) -> None:
        """Stop the clock of the run's timeout while it is paused, and of parents that wait for it."""
        for parent in execution.waited_by:
            self._host.guard(parent.execution, self._host.holds.waits_for_runs, parent)
        if execution.timer is not None and execution.remaining is not None:
            execution.timer.cancel()
            execution.timer = None
            execution.remaining -= self._host.clock() - execution.timer_from

    def _run_timed_out(self, execution: Execution) -> None:
        execution.timer = None
        if not execution.state.ended:
            self._commands.apply(execution, execution.machine.timeout())
            self.reach_children(execution, "cancel")


def _without(those: tuple[Each, ...], one: Each) -> tuple[Each, ...]:
    """Return them without one that is there, once: others may wait for the same."""
    rest = list(those)
    with contextlib.suppress(ValueError):
        rest.remove(one)
    return tuple(rest)

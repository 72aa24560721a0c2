"""Requests: what people ask of a run, and the clock of the run itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.execution.interruptions import Interruptions
from scattersphere.model.arguments import check_seconds, check_text
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.execution.execution import Execution

FINALLY_LIMIT = 60.0
"""Seconds that finally-tasks have after a cancel (design, section 8)."""


class Requests(Interruptions):
    """Pause, resume, stop, cancel, kill, and the run's timeout."""

    running: dict[int, Execution]

    def admit(self) -> None:
        """Give free slots to queued runs."""
        raise NotImplementedError

    # ---- requests on a run

    def request(self, execution: Execution, verb: str, reason: str | None, grace: float | None) -> None:
        """Carry out pause, resume, stop, cancel, kill. Raises `RunStateError`."""
        check_text(reason, "reason", optional=True)
        check_seconds(grace, "grace", optional=True)
        machine = execution.machine
        if grace is not None:
            execution.grace = grace
        if verb in {"pause", "resume"}:
            getattr(machine, verb)()
        else:
            getattr(machine, verb)(reason or verb)
        execution.journal.stamp(self.clock())
        self.obey(execution)
        self.wake()
        if (
            execution.state is RunState.QUEUED
        ):  # resumed: a place may have become free while nobody could take it
            self.admit()
        if verb in {"pause", "resume"}:
            self._reach_children(execution, verb)

    async def cancel_runs(self, run_ids: Iterable[int], reason: str) -> None:
        """Cancel those of these runs that live, and wait for their ends."""
        executions = [self.running[run_id] for run_id in run_ids if run_id in self.running]
        for execution in executions:
            self.request(execution, "cancel", reason, None)
        for execution in executions:
            await execution.wait()

    def _reach_children(self, execution: Execution, verb: str) -> None:
        """A pause holds the child runs too; their ends are waited for by the task that started them."""
        execution.children = {child for child in execution.children if not child.state.ended}
        for child in execution.children:
            if child.state not in {RunState.STOPPING, RunState.CANCELLING}:
                self.request(child, verb, None, None)

    def arm_run_timeout(self, execution: Execution) -> None:
        """Start or continue the clock of the run's own timeout."""
        if execution.remaining is None or execution.timer is not None:
            return
        execution.timer_from = self.clock()
        execution.timer = self.timers.at(
            self.clock() + execution.remaining, lambda: self._run_timed_out(execution)
        )
        self.set_alarm()

    def limit_finals(self, execution: Execution) -> None:
        """Bound the finally-tasks of a cancelled run."""

        def over() -> None:
            execution.machine.finally_timeout()
            self.obey(execution)

        execution.finals_timer = self.timers.at(self.clock() + FINALLY_LIMIT, over)
        self.set_alarm()

    def suspend_run_timeout(self, execution: Execution) -> None:
        """Stop the clock of the run's timeout while it is paused."""
        if execution.timer is not None and execution.remaining is not None:
            execution.timer.cancel()
            execution.timer = None
            execution.remaining -= self.clock() - execution.timer_from

    def resume_run_timeout(self, execution: Execution) -> None:
        """Let the clock of the run's timeout go on."""
        if execution.started_at is not None:
            self.arm_run_timeout(execution)

    def _run_timed_out(self, execution: Execution) -> None:
        execution.timer = None
        if not execution.state.ended:
            execution.machine.timeout()
            self.obey(execution)

"""Suspension: the Server is closed with a journal, and what lives goes on at its next start."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel

from scattersphere.model.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.observer import RunObserver


class SuspendedRuns(Protocol):
    """What writes runs into the journal."""

    is_lost: bool
    """Whether this process commits no more."""


class AttemptSuspender(Protocol):
    """What ends attempts that are to be tried again."""

    def suspend(self, attempt: Attempt, *, kill: bool) -> None:
        """End an attempt: it is tried again at the next start of the Server."""


class SuspensionHost(Protocol):
    """What suspending needs of the executor."""

    observer: RunObserver
    running: dict[int, Execution]

    @property
    def recorder(self) -> SuspendedRuns | None:
        """Writes runs into the journal."""
        ...

    @property
    def canceller(self) -> AttemptSuspender:
        """Ends attempts."""
        ...

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def forget_timers(self, execution: Execution) -> None:
        """Forget what a run was to be called back for."""


class Suspension:
    """Has the runs of an executor suspended: `begin`, then `end_attempts`, then `let_go`."""

    def __init__(self, host: SuspensionHost) -> None:
        self._host = host
        self.has_begun: bool = False
        self.attempt_left: anyio.Event | None = None
        """Set when an attempt has ended, while that is waited for."""
        self._patience: anyio.CancelScope | None = None
        self._hurries = False
        """Whether what is suspended is killed without waiting for clean-up."""

    def begin(self, runs: Iterable[Execution]) -> None:
        """Let runs be as they are, for the next start of the Server: nothing more begins, and who waits is told."""
        self.has_begun = True
        for execution in [execution for execution in runs if not execution.state.ended]:
            self._host.guard(execution, self._begin, execution)

    def _begin(self, execution: Execution) -> None:
        execution.is_suspended = True
        execution.machine.suspend()
        for timer in execution.retries.values():
            timer.cancel()
        self._host.observer.run_moved(execution, EventKind.RUN_SUSPENDED)
        execution.note_event(EventKind.RUN_SUSPENDED, None, "")
        execution.tell_end()

    async def end_attempts(self, *, finish: float, grace: float, kill: float) -> None:
        """End what executes of suspended runs.

        What may end by itself has `finish` seconds; then it is cancelled and has `grace` seconds, then it is killed
        and has `kill` seconds.
        """
        suspended = [execution for execution in self._host.running.values() if execution.is_suspended]
        await anyio.lowlevel.checkpoint()
        for execution in suspended:
            for unit, attempt in list(execution.live.items()):
                if unit in execution.machine.record.held or attempt.waits_for:
                    self._suspend(attempt, kill=False)
        await self._attempts_left(suspended, finish)
        for kills, seconds in ((False, grace), (True, kill)):
            for execution in suspended:
                for attempt in list(execution.live.values()):
                    self._suspend(attempt, kill=kills)
            await self._attempts_left(suspended, seconds, last=kills)

    def _suspend(self, attempt: Attempt, *, kill: bool) -> None:
        self._host.guard(attempt.execution, partial(self._host.canceller.suspend, attempt, kill=kill))

    def hurry(self) -> None:
        """Kill what is being suspended, without waiting for clean-up."""
        self._hurries = True
        if self._patience is not None:
            self._patience.cancel()

    async def _attempts_left(
        self, executions: Iterable[Execution], at_most: float, *, last: bool = False
    ) -> None:
        """Wait until nothing of these runs executes any more, or is at the gate; for so many seconds."""
        if self._hurries and not last:
            return
        with anyio.move_on_after(at_most) as scope:
            self._patience = None if last else scope
            while any(self._is_to_end(attempt) for each in executions for attempt in each.live.values()):
                self.attempt_left = anyio.Event()
                await self.attempt_left.wait()

    def _is_to_end(self, attempt: Attempt) -> bool:
        """Whether it executes, or its outcome may still become durable."""
        recorder = self._host.recorder
        return attempt.left_at is None or recorder is None or not recorder.is_lost

    def let_go(self) -> None:
        """Forget the runs that are suspended."""
        for execution in list(self._host.running.values()):
            if execution.is_suspended:
                self._host.forget_timers(execution)
                self._host.running.pop(execution.id)

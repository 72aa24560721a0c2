"""Canceller: attempts that are cancelled, killed, held, timed out or given up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from scattersphere.engine.machine.codes import CANCELLED, CANCELLING
from scattersphere.engine.timers import within
from scattersphere.logs.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.abc.backend import BackendTraits
    from scattersphere.engine.attempts import AttemptRunner, Commands
    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.holds import Holds
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine import Command
    from scattersphere.engine.timers import Deadlines

RECANCEL = 1.0
"""Seconds until a refuser is cancelled again; doubled each time, at most `RECANCEL_MOST`."""
RECANCEL_MOST = 60.0


class Families(Protocol):
    """What looks after child runs."""

    def end_children_of(self, attempt: Attempt) -> None:
        """An attempt is cancelled or killed: so are the runs that it has started."""


class CancellerHost(Protocol):
    """What cancelling attempts needs of the executor."""

    clock: Callable[[], float]
    grace: float
    holds: Holds
    pumping: bool
    """Whether the pump is at work: it sets the alarm by itself."""
    stuck: dict[Attempt, Execution]
    traits: dict[str, BackendTraits]

    @property
    def loop(self) -> Loop:
        """The loop that bodies live on."""
        ...

    @property
    def commands(self) -> Commands:
        """Carries out what machines ask for."""
        ...

    @property
    def requests(self) -> Families:
        """Looks after runs and their families."""
        ...


class Canceller:
    """Carries out the machine's commands about attempts that do not just end by themselves."""

    def __init__(self, host: CancellerHost, attempts: AttemptRunner, deadlines: Deadlines) -> None:
        self._host = host
        self._attempts = attempts
        self._deadlines = deadlines

    # ---- commands about attempts

    def end_attempt(self, execution: Execution, unit: int, *, kill: bool) -> None:
        """Cancel or kill an executing attempt; give it up when its grace is over."""
        if execution.machine.record.task_states[unit] != CANCELLING:
            return  # it has ended while this command waited for its slice
        attempt = execution.live.get(unit)
        starting = self._attempts.starting
        if attempt is None and starting is not None and starting.is_of(execution, unit):
            # In its first step: nothing to cancel yet, and it may end in that step. If it does not,
            # `_suspended` interrupts it.
            starting.cancel_reason = execution.machine.asked_of(unit)
            starting.killed = starting.killed or kill
            return
        if (
            attempt is None or attempt.left_at is not None
        ):  # it has ended, and waits for its outcome to be durable
            return
        attempt.cancel_reason = execution.machine.asked_of(unit)
        if kill:
            attempt.killed = True
        self.interrupt(attempt)

    def kill_refusers(self, execution: Execution) -> None:
        """Kill what was given up of a run: its tasks have ended, so that the machine asks nothing of it any more."""
        for unit in list(execution.machine.record.stuck):
            attempt = execution.live.get(unit)
            if attempt is not None and attempt.left_at is None and not attempt.killed:
                attempt.killed = True
                self.interrupt(attempt)

    def shorten(self, execution: Execution, grace: float) -> None:
        """A run is cancelled once more: a grace that ends earlier counts, one that ends later does not."""
        until = self._host.clock() + within(grace)
        for attempt in list(execution.live.values()):
            if (
                attempt.grace is not None
                and not attempt.killed
                and until < attempt.grace_until
                and attempt not in self._host.stuck
            ):
                self._expire(attempt, grace)

    def suspend(self, attempt: Attempt, *, kill: bool) -> None:
        """End an attempt because the Server is closed with a journal: it is tried again at its next start.

        Nothing is asked of the runs that it has started: they are suspended too.
        """
        if attempt.left_at is not None or (attempt.cancel_reason not in {None, "suspend"} and not kill):
            return  # it has ended, or is being ended for a reason of its own, with a grace
        attempt.cancel_reason = attempt.cancel_reason or "suspend"
        attempt.killed = attempt.killed or kill
        self._interrupt(attempt, kill=kill)
        if kill and attempt.planned.on_loop:
            self.abandon(attempt)

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel or kill an attempt as it was asked to end, and time its grace."""
        self._interrupt(attempt, kill=attempt.killed)
        if attempt.execution.children:
            self._host.requests.end_children_of(attempt)
        if attempt.killed:
            grace = self._host.traits[attempt.planned.backend].kill_grace
        elif attempt.execution.grace is None:
            grace = self._host.grace
        else:
            grace = attempt.execution.grace
        self._expire(attempt, grace)

    def _expire(self, attempt: Attempt, grace: float) -> None:
        """Have an attempt come back to `expired` in so many seconds, and for no other reason."""
        timers = self._deadlines.timers
        lane = attempt.planned.definition.timeout if attempt.grace is None else attempt.grace
        if lane is not None:
            timers.forget(attempt, lane)
        attempt.grace = grace = within(grace)
        now = self._host.clock()
        attempt.grace_until = now + grace
        timers.expire(attempt, now, grace)
        if timers.changed and not self._host.pumping:
            self._deadlines.set_alarm()

    def _interrupt(self, attempt: Attempt, *, kill: bool) -> None:
        self._host.holds.release(attempt)
        if attempt.callbacks is not None:
            attempt.callbacks.cancel()
        if attempt.awaiting is not None:
            attempt.awaiting.interrupt()
        if attempt.handle is None:
            return
        if attempt.planned.on_loop:
            self._host.loop.cancel(attempt.handle)
        elif kill:
            attempt.handle.kill()
        else:
            attempt.handle.cancel()

    def expired(self, attempt: Attempt) -> None:
        """The timeout of an attempt has come, or its grace is over, or it is time to cancel a refuser again."""
        gap = attempt.grace
        if gap is None:
            self.attempt_timed_out(attempt)
        elif attempt.killed and attempt.planned.on_loop and self.abandon(attempt):
            return
        elif attempt in self._host.stuck:  # with growing gaps: in a loop it would take the whole processor
            self._interrupt(attempt, kill=False)
            self._expire(attempt, min(max(gap * 2, RECANCEL), RECANCEL_MOST))
        else:
            self._grace_over(attempt)

    def _grace_over(self, attempt: Attempt) -> None:
        execution = attempt.execution
        attempt.grace = None
        limit, failure = attempt.planned.definition.timeout, None
        if attempt.cancel_reason == "timeout" and limit is not None:
            words = f"took longer than {limit:g} s, and does not end; so it is not tried again"
            failure = Failure("TimeoutError", words)
        recording, give_up = execution.recording, partial(self._give_up, attempt, failure)
        if recording is None or not recording.give_up(attempt, failure, give_up):
            give_up()

    def _give_up(self, attempt: Attempt, failure: Failure | None) -> None:
        """Take an attempt for ended that refuses to: until it does it keeps its places of pools and Server."""
        execution = attempt.execution
        self._host.stuck[attempt] = execution
        if failure is not None:
            execution.failures[attempt.unit] = failure
        attempt.log.warning("does not end; given up. It stands at %s", self._attempts.where(attempt) or "?")
        execution.mark(execution.ended, attempt.unit, self._host.clock())
        commands = execution.machine.grace_over(attempt.unit)
        self._expire(attempt, RECANCEL)
        self._host.commands.apply(execution, commands)

    def abandon(self, attempt: Attempt) -> bool:
        """Close a coroutine that swallows cancellation. Return whether that was possible."""
        attempt.killed = True
        if attempt.handle is None or not self._host.loop.abandon(attempt.handle):
            return False
        if attempt.left_at is None and attempt.execution.live.get(attempt.unit) is attempt:
            self._attempts.finished(attempt, CANCELLED, None)
        return True  # else it has ended with what it raised when it was closed

    def release(self, execution: Execution, unit: int) -> None:
        """Let a held attempt go on."""
        attempt = execution.live.get(unit)
        if attempt is None:
            return
        self._host.holds.release(attempt)
        self.go_on(attempt)

    def go_on(self, attempt: Attempt) -> None:
        """Let the timeout of an attempt go on that is not held any more."""
        if attempt.remaining is not None:
            rest, attempt.remaining = attempt.remaining, None
            attempt.late = self._deadlines.call_later(
                attempt.execution, rest, lambda: self._time_out(attempt)
            )

    def stand_still(self, attempt: Attempt, commands: Sequence[Command]) -> None:
        """All of an attempt waits at checkpoints: its timeout stands still; carry out what the machine asks for."""
        timeout = attempt.planned.definition.timeout
        if attempt.late is not None:
            attempt.remaining = attempt.late.when - self._host.clock()
            attempt.late.cancel()
            attempt.late = None
        elif timeout is not None:
            when = self._deadlines.timers.forget(attempt, timeout)
            attempt.remaining = None if when is None else when - self._host.clock()
        if timeout is not None and not attempt.planned.on_loop and attempt.began_at is None:
            attempt.remaining = within(timeout)  # it is held before its first step
        self._host.commands.apply(attempt.execution, commands)

    def attempt_timed_out(self, attempt: Attempt) -> None:
        """The timeout of an attempt has come; where a backend begins later than it was told, it is due later."""
        began, timeout = attempt.began_at, attempt.planned.definition.timeout
        if not attempt.planned.on_loop and timeout is not None:
            rest = timeout if began is None else began + within(timeout) - self._host.clock()
            if rest > 0:
                attempt.late = self._deadlines.call_later(
                    attempt.execution, rest, lambda: self.attempt_timed_out(attempt)
                )
                return
        self._time_out(attempt)

    def _time_out(self, attempt: Attempt) -> None:
        execution, unit = attempt.execution, attempt.unit
        if execution.live.get(unit) is attempt:  # else it has ended, and what executes is the next one
            self._host.commands.apply(execution, execution.machine.attempt_timeout(unit))

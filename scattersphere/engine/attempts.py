"""AttemptRunner: what happens to a single attempt, from its start to its end, or to its next try."""

from __future__ import annotations

import contextvars
import logging
import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from scattersphere.abc.around import Carried
from scattersphere.abc.backend import Call, Outcome, OutcomeKind
from scattersphere.engine.execution import Attempt
from scattersphere.engine.invocation import Invocation
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    UP_FOR_RETRY,
)
from scattersphere.engine.timers import within
from scattersphere.errors import ClosedError, JournalError, TaskCrashedError
from scattersphere.logs.failures import Failure, format_failure
from scattersphere.logs.frames import clear_locals
from scattersphere.logs.masking import hide
from scattersphere.logs.remotefailure import kept_error
from scattersphere.logs.runlog import current_attempt
from scattersphere.worker.body import fully_awaited, outcome_of, retryable, run_on_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import anyio

    from scattersphere.abc.backend import Backend
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine import Command
    from scattersphere.engine.observer import RunObserver
    from scattersphere.engine.timers import Deadlines, WorkBudget
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.worker.around import Surroundings

PLAIN_RESULTS = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})
"""Results of which it is known at once that there is nothing to await in them."""
LOST = -1
"""How an attempt ended that lost its place: no state of a task, for the machine decides what follows."""
NOT_BEGUN = (PENDING, UP_FOR_RETRY)


class Commands(Protocol):
    """What carries out the commands of the machine."""

    def apply(self, execution: Execution, commands: Sequence[Command], now: float | None = None) -> None:
        """Carry out what the machine of a run has asked for in answer to a signal."""


class HeldCallbacks(Protocol):
    """What looks after the callbacks of bodies."""

    def held(self, attempt: Attempt) -> None:
        """Take note that all of an attempt is held."""


class AttemptCanceller(Protocol):
    """What cancels attempts."""

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel or kill an attempt as it was asked to end, and time its grace."""


class BlockReports(Protocol):
    """What tells of attempts that block the loop."""

    blocking: deque[tuple[Attempt, str]]

    def tell_blocked(self) -> None:
        """Make events of what the watchdog has found."""


class AwaitedEnds(Protocol):
    """What waits for the ends of attempts while the Server is being closed."""

    attempt_left: anyio.Event | None
    """Set when one has ended."""


class PlaceLender(Protocol):
    """What looks after parents that wait for child runs."""

    def give_places(self, execution: Execution, unit: int) -> None:
        """Let an attempt go on that had lent its places."""


class AttemptHost(Protocol):
    """What running attempts needs of the executor."""

    backends: dict[str, Backend]
    observer: RunObserver
    stuck: dict[Attempt, Execution]
    """Attempts that were given up and have not ended."""
    takes_prints: bool
    surroundings: Surroundings | None
    """The context managers of the host around each attempt; None where there is none."""
    pumping: bool
    """Whether the pump is at work: it looks again by itself."""
    woken: bool
    """Whether the pump will be called."""
    news: dict[Execution, None]
    """Runs whose readers are to be woken, in order."""

    @property
    def loop(self) -> Loop:
        """The loop that bodies live on."""
        ...

    @property
    def commands(self) -> Commands:
        """Carries out what machines ask for."""
        ...

    @property
    def callbacks(self) -> HeldCallbacks:
        """Looks after what bodies do at a pause and a cancel."""
        ...

    @property
    def canceller(self) -> AttemptCanceller:
        """Cancels attempts."""
        ...

    @property
    def reports(self) -> BlockReports:
        """Tells of attempts that block the loop."""
        ...

    @property
    def suspension(self) -> AwaitedEnds:
        """Has runs suspended while the Server is being closed."""
        ...

    @property
    def requests(self) -> PlaceLender:
        """Looks after runs and their families."""
        ...

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def wake(self) -> None:
        """Have the pump called soon."""

    def pump_now(self) -> None:
        """Have the pump called as soon as the loop allows."""

    def crash_run(self, execution: Execution, exc: BaseException) -> None:
        """End a run because of a defect of ours that came up while it was served."""


class AttemptRunner:
    """Starts attempts, tells the machine how they ended, and when one may be tried again."""

    def __init__(self, host: AttemptHost, deadlines: Deadlines, budget: WorkBudget) -> None:
        self._host = host
        self._deadlines = deadlines
        self._timers = deadlines.timers
        self._budget = budget
        self.starting: Attempt | None = None
        """The attempt that takes its first step at this moment."""
        self.starts_left: int = 0
        """How many more attempts may be started in this slice whose first step is not their last."""
        self.taken: deque[tuple[Execution, list[int]]] = deque()
        """Units that were taken from the dispatcher, and for whose start the slice was over."""
        self.random: Callable[[], float] = random.random
        """Gives the part of a retry's delay that is waited for; tests put a seeded one here."""
        self._now = 0.0
        """The time at which the attempt is started that is being started."""

    def open(self, loop: Loop, cancelled: type[BaseException]) -> None:
        """Take up the loop that bodies run on; `cancelled` is what it cancels them with."""
        self._cancelled = cancelled
        self._clock: Callable[[], float] = loop.clock
        self._start_body: Callable[[Coroutine[object, object, None], str], object] = loop.start
        self._surroundings = self._host.surroundings
        self._blocking = self._host.reports.blocking
        self._runs_plain = self._surroundings is None and not self._host.takes_prints
        """Whether nothing stands around a body without hooks."""

    # ---- starting

    def start(self, execution: Execution, units: list[int], now: float, end: float) -> float:  # noqa: C901, PLR0912 - as below
        """Start attempts for units that were taken; return the time. From `end` on the others wait in `taken`.

        The hot path: what is the same for all units is looked up once, and calls are inlined.
        """
        machine = execution.machine
        if execution.recording is not None and execution.recording.holds_starts:
            self._hold_starts(execution, units)
        tasks, attempts, states = execution.plan.tasks, machine.record.attempts, machine.record.task_states
        start_body, body, clock, size = self._start_body, self._body, self._clock, execution.plan.size
        self._now, lent, context = now, machine.record.lent, execution.context
        attempt, unit = None, -1
        try:
            while units:
                unit = units.pop()
                if lent and unit in lent:
                    self._host.requests.give_places(execution, unit)
                    continue
                if unit < size:
                    planned = tasks[unit]
                    attempt = Attempt(execution, unit, planned, attempts[unit] + 1)
                else:
                    planned = tasks[machine.record.task_of(unit)]
                    attempt = Attempt(execution, unit, planned, attempts[unit] + 1)
                    attempt.index = machine.record.index_of(unit)
                if context is not None:  # that of who called `start`: each attempt has a copy of its own
                    handle = context.copy().run(self._launch, attempt)
                elif planned.on_loop:  # `_launch`, inlined
                    current_attempt.set(attempt)
                    self.starting = attempt
                    handle = start_body(body(attempt), planned.name)
                    self.starting = None
                else:
                    handle = self._launch(attempt)
                if handle is not None:
                    attempt.handle = handle
                    self.starts_left -= 1
                    if states[unit] == RUNNING or states[unit] not in NOT_BEGUN:
                        execution.live[unit] = attempt
                        if planned.definition.timeout is not None or attempt.cancel_reason is not None:
                            self._suspended(attempt, now)
                self._now = now = clock()
                if now > end and units:
                    self.taken.append((execution, units))
                    break
        except BaseException:
            if attempt is None or attempt.unit != unit or attempts[unit] < attempt.attempt_number:
                units.append(unit)  # it has its places, and has not begun
            raise
        return now

    def _hold_starts(self, execution: Execution, units: list[int]) -> None:
        """Take those units out whose start is to be durable before they begin."""
        machine, recording = execution.machine, execution.recording
        for unit in units[::-1] if recording is not None else ():
            if unit in machine.record.lent:
                continue
            planned = execution.plan.tasks[machine.record.task_of(unit)]
            attempt = Attempt(execution, unit, planned, machine.record.attempts[unit] + 1)
            attempt.index = machine.record.index_of(unit)
            if recording is not None and recording.holds_start(
                attempt, partial(self._start_late, execution, unit)
            ):
                units.remove(unit)

    def _start_late(self, execution: Execution, unit: int) -> None:
        """Have an attempt started whose start is durable by now: in a slice, as all others."""
        self.taken.append((execution, [unit]))
        self._host.wake()

    def _launch(self, attempt: Attempt) -> object:
        """Give an attempt to the loop or its backend, in the present context. Return its handle if it suspended."""
        current_attempt.set(attempt)
        planned = attempt.planned
        if not planned.on_loop:
            self._serve(attempt, self._hand_over, attempt)
            return None
        self.starting = attempt
        handle = self._start_body(self._body(attempt), planned.name)
        self.starting = None
        return handle

    def _note_beginning(self, attempt: Attempt) -> bool:
        """Note when an attempt has begun; False if it needs not be executed."""
        execution = attempt.execution
        late = attempt.handle is not None
        now = self._clock() if late else self._now
        execution.mark(execution.started, attempt.unit, now)
        execution.journal.stamp(now)
        if execution.borrowed and self._ended_with_taken_result(attempt):
            return False
        if late:
            execution.live[attempt.unit] = attempt
            self._suspended(attempt, now)
            if execution.watchers is not None:  # those who were told of the start may have looked before this
                self._host.news[execution] = None
                self._host.wake()
        return True

    def _suspended(self, attempt: Attempt, now: float) -> None:
        """Keep track of a body that has begun and did not end in its first step."""
        timeout = attempt.planned.definition.timeout
        if timeout is not None:
            self._timers.expire(attempt, now, timeout)
            if self._timers.changed and not self._host.pumping:
                self._deadlines.set_alarm()
        if (
            attempt.cancel_reason is not None
        ):  # asked while in its first step: there was nothing to cancel yet
            self._host.canceller.interrupt(attempt)

    def _ended_with_taken_result(self, attempt: Attempt) -> bool:
        """End an instance at once whose result was taken over from an earlier run. Return whether it was."""
        execution, index = attempt.execution, attempt.index
        if index is None:
            return False
        place = (execution.machine.record.task_of(attempt.unit), index)
        if place not in execution.borrowed:
            return False
        self._returned(attempt, execution.borrowed.pop(place))
        return True

    def _hand_over(self, attempt: Attempt) -> None:
        if attempt.execution.machine.begin(attempt.unit) and self._note_beginning(attempt):
            self._start_elsewhere(attempt)

    def _start_elsewhere(self, attempt: Attempt) -> None:
        execution, planned = attempt.execution, attempt.planned
        backend = self._host.backends[planned.backend]
        execution.live[attempt.unit] = attempt
        timeout = planned.definition.timeout
        if timeout is not None:
            self._timers.expire(attempt, self._clock(), timeout)
        try:
            arguments = attempt.arguments()
        except BaseException as exc:  # noqa: BLE001 - a bad argument fails the attempt; its class may raise anything
            self._take_outcome(attempt, outcome_of(exc, attempt))
            return
        call = Call(
            invoke=Invocation(attempt, self._host.loop, self._surroundings),
            context=contextvars.copy_context(),
            task_class=planned.task_class,
            arguments=arguments,
            task_context=attempt,
            name=attempt.label,
            retry=planned.definition.retry,
            begins=attempt.begins,
            needs=planned.needs,
            result_may_stay=lambda: execution.plan.result_may_stay(planned.name),
            held=lambda: self._host.callbacks.held(attempt),
            carries=Carried if self._surroundings is None else self._surroundings.carried,
        )
        try:
            handle = backend.start(call, partial(self._serve, attempt, self._take_outcome, attempt))
        except BaseException as exc:  # noqa: BLE001 - it may be the host's, and what it pickles is the user's
            self._take_outcome(attempt, outcome_of(exc, attempt))
        else:
            if execution.live.get(attempt.unit) is attempt:  # else it has ended by now, and is forgotten
                attempt.handle = handle

    async def _body(self, attempt: Attempt) -> None:  # noqa: C901, PLR0912 - the hot path, inlined
        """What the loop runs for one attempt: never raises, but for being closed."""
        try:
            execution, unit = attempt.execution, attempt.unit
            if not execution.machine.begin(unit):
                return
            if attempt.handle is None and unit < execution.size and not execution.borrowed:
                execution.started[unit] = now = self._now
                journal = execution.journal
                if now < journal.same_until:  # `stamp`, inlined; what the body does comes later
                    journal.stamped = len(journal.moves)
                else:
                    journal.stamp(now)
            elif not self._note_beginning(attempt):  # an instance, or the loop starts tasks a turn later
                return
            try:
                planned = attempt.planned
                if planned.plain and self._runs_plain:
                    task = planned.cls(**planned.fixed) if planned.same_for_all else attempt.make()
                    value = await task.run(attempt)
                    if value is not None and type(value) not in PLAIN_RESULTS:
                        value = await fully_awaited(value)
                else:
                    value = await run_on_loop(attempt, self._surroundings)
            except GeneratorExit as exc:
                if attempt.killed:  # we are closing it; `abandon` does the accounts
                    raise
                self._raised(attempt, exc)
            except BaseException as exc:  # noqa: BLE001 - promise 7: SystemExit must not reach the loop
                self._raised(attempt, exc)
                # Those frames that the exception keeps hold this one (3.13: `f_back`).
                del attempt, execution
            else:
                self._returned(attempt, value)
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - what comes here is a defect of ours
            self._crash_with(attempt, exc)

    def _serve(self, attempt: Attempt, action: Callable[..., object], *args: object) -> None:
        """Do something for an attempt whose body does not execute: a defect of ours that comes up ends its run."""
        try:
            action(*args)
        except BaseException as exc:  # noqa: BLE001 - as in `JobExecutor.guard`
            self._crash_with(attempt, exc)

    def _crash_with(self, attempt: Attempt, exc: BaseException) -> None:
        """A defect of ours came up before an attempt could begin, or when it had ended."""
        execution, unit, machine = attempt.execution, attempt.unit, attempt.execution.machine
        begun = machine.record.attempts[unit] >= attempt.attempt_number
        host = self._host
        host.crash_run(execution, exc)
        host.guard(execution, self._forget, attempt)
        host.guard(execution, attempt.fall_silent)
        if not begun:
            host.guard(execution, machine.ready.free, unit)
        elif unit in machine.record.stuck:
            host.guard(execution, machine.end_of_stuck, unit)

    # ---- ending

    def _held_back(
        self,
        attempt: Attempt,
        kind: int,
        value: object,
        failure: Failure | None,
        release: Callable[[], object],
        *,
        retryable: bool = True,
    ) -> bool:
        """Write an outcome into the journal. True: `release` is called when it is durable; nothing more before."""
        recording = attempt.execution.recording
        if recording is None or not recording.hold(
            attempt, kind, value, failure, release, retryable=retryable
        ):
            return False
        attempt.execution.live[attempt.unit] = attempt
        if attempt.callbacks is not None:
            attempt.callbacks.close()
        self._forget_timers(attempt)
        return True

    def _returned(self, attempt: Attempt, value: object) -> None:  # noqa: C901, PLR0912 - the hot path, inlined
        execution, unit = attempt.execution, attempt.unit
        now, recording = self._clock(), execution.recording
        if (
            recording is not None
            and not recording.note(attempt, value, now)
            and self._held_back(attempt, SUCCEEDED, value, None, partial(self._returned, attempt, value))
        ):
            return
        machine = execution.machine
        if self._blocking:
            self._host.reports.tell_blocked()
        if unit < execution.size and not machine.record.stuck:
            execution.ended[unit] = now
        elif unit not in machine.record.stuck:  # else it is a late result, which changes nothing
            execution.mark(execution.ended, unit, now)
        if attempt.handle is not None or (recording is not None and attempt.left_at is not None):
            self._forget(attempt)
            if attempt.left_at is not None and unit not in machine.record.stuck:
                execution.mark(execution.ended, unit, attempt.left_at)
        if execution.talks:
            attempt.fall_silent()
        commands = machine.ok(unit, value)
        host, journal = self._host, execution.journal
        if commands:  # an event carries the time at which it happened, and no later one
            host.commands.apply(execution, commands, now)
            return
        if now < journal.same_until:  # `stamp`, inlined
            journal.stamped = len(journal.moves)
        else:
            journal.stamp(now)
        if not host.pumping:
            if attempt.left_at is not None:
                pass  # it has waited for the journal, whose callback has the pump called
            elif not execution.live and attempt.planned.on_loop:
                host.pump_now()
            elif (
                not host.woken
            ):  # others will end in this turn too: start what all of them make ready at once
                host.wake()
            if execution.watchers is not None:
                host.news[execution] = None

    def _raised(self, attempt: Attempt, exc: BaseException) -> None:
        # By `type`, here and below: `isinstance` asks `__class__`, which may be a user's property.
        if issubclass(type(exc), self._cancelled) and attempt.cancel_reason is not None:
            self.finished(attempt, CANCELLED, None)
            return
        if not issubclass(type(exc), Exception):
            self._host.loop.pass_on(exc)
        if not self._budget.do(partial(self._serve, attempt, self._fail_with_traceback, attempt, exc)):
            self._host.wake()

    def _fail_with_traceback(self, attempt: Attempt, exc: BaseException) -> None:
        self.fail(attempt, exc, format_failure(exc, of_body=True, hidden=attempt.execution.hidden))

    def _take_outcome(self, attempt: Attempt, outcome: Outcome) -> None:
        """A backend reports."""
        execution, unit = attempt.execution, attempt.unit
        execution.note_lines()  # what a thread has logged comes before its end
        if attempt.began_at is not None and unit not in execution.machine.record.stuck:
            execution.started[unit] = attempt.began_at
        match outcome.kind:
            case OutcomeKind.VALUE:
                self._returned(attempt, outcome.value)
            case OutcomeKind.CANCELLED if attempt.cancel_reason is not None:
                self.finished(attempt, CANCELLED, None)
            case OutcomeKind.CANCELLED if attempt.began_at is None and not attempt.may_begin:
                execution.machine.call_off(unit)
                self.finished(attempt, CANCELLED, None)
            case OutcomeKind.DIED:
                self._died(attempt, outcome)
            case OutcomeKind.LOST:
                self._lost(attempt, outcome)
            case _:
                self.fail(attempt, outcome.error or RuntimeError("cancelled itself"), outcome.traceback)

    def _died(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.killed:
            self.finished(attempt, CANCELLED, None)
            return
        text = hide(str(outcome.error or "its process ended"), attempt.execution.hidden)
        failure = Failure("Crashed", text)
        self.finished(attempt, CRASHED, None, failure=failure, words=f"crashed: {text}")

    def _lost(self, attempt: Attempt, outcome: Outcome) -> None:
        """The place is gone, with whatever was there: the attempt does not count."""
        if attempt.cancel_reason is not None:
            self.finished(attempt, CANCELLED, None)
            return
        text = f"lost: {outcome.error or 'the place where it ran is gone'}"
        text = hide(text, attempt.execution.hidden)
        attempt.execution.failures[attempt.unit] = Failure("Crashed", text)  # of the third in a row
        attempt.run_log.append_for(attempt, logging.WARNING, text)
        self.finished(attempt, LOST, None)

    def fail(self, attempt: Attempt, exc: BaseException, text: str) -> None:
        """An attempt raised: keep type, message and traceback as text, and tell the machine."""
        if issubclass(type(exc), TaskCrashedError):
            self._died(attempt, Outcome(OutcomeKind.DIED, error=exc))
            return
        if attempt.execution.is_suspended and issubclass(type(exc), (ClosedError, JournalError)):
            self.finished(
                attempt, LOST, None
            )  # it asked for something that the next start of the Server has for it
            return
        hidden, message = attempt.execution.hidden, _message(exc)
        if hidden:
            text, message = hide(text, hidden), hide(message, hidden)
        traceback = exc.__traceback__
        error = kept_error(exc, text, is_freed=attempt.planned.task_class.is_freed, hidden=hidden)
        failure = Failure(type(exc).__qualname__, message, text, error)
        may_retry = retryable(exc, attempt.planned.definition.retry)
        words = text.rstrip() or str(failure)
        self.finished(attempt, FAILED, None, retryable=may_retry, failure=failure, words=words)
        clear_locals(exc, traceback)  # what those of the body hold is not kept with the run

    def finished(
        self,
        attempt: Attempt,
        kind: int,
        value: object,
        *,
        retryable: bool = True,
        failure: Failure | None = None,
        words: str = "",
    ) -> None:
        """Tell the machine how an attempt ended, and the log of the run in `words` why it failed."""
        execution = attempt.execution
        if self._blocking:
            self._host.reports.tell_blocked()
        if attempt.cancel_reason == "suspend":  # whatever it made of that, it is to be tried again
            kind, failure = LOST, None
        elif kind == CANCELLED and attempt.cancel_reason == "timeout" and failure is None:
            limit = attempt.planned.definition.timeout
            words = (
                f"took longer than {limit:g} s" if limit is not None else "the finally-tasks took too long"
            )
            failure = Failure("TimeoutError", words)
        if (
            execution.recording is not None
            and kind != LOST
            and self._held_back(
                attempt,
                kind,
                value,
                failure,
                partial(
                    self.finished, attempt, kind, value, retryable=retryable, failure=failure, words=words
                ),
                retryable=retryable,
            )
        ):
            return
        self._note_end(attempt, kind, failure, words)
        self._forget(attempt)
        if execution.talks:
            attempt.fall_silent()
        machine, record = execution.machine, execution.machine.record
        is_late = attempt.unit in record.stuck
        if kind == LOST:
            commands = machine.interrupted(attempt.unit)
        else:
            commands = machine.ended(attempt.unit, kind, value, retryable=retryable)
        has_failed = not is_late and record.task_states[attempt.unit] in (FAILED, CRASHED)
        if has_failed:
            self._host.observer.task_failed(attempt)
        self._host.commands.apply(execution, commands)

    def _note_end(self, attempt: Attempt, kind: int, failure: Failure | None, words: str) -> None:
        """Keep when an attempt ended and why it failed, unless it was given up before."""
        execution, unit = attempt.execution, attempt.unit
        if unit in execution.machine.record.stuck:
            return
        if failure is not None:
            execution.note_failure(attempt, failure)
            attempt.run_log.append_for(attempt, logging.ERROR, words)
        elif kind == CANCELLED:
            execution.failures.pop(unit, None)  # that of the attempt before it: this one has not failed
        ended = self._clock() if attempt.left_at is None else attempt.left_at
        if unit < execution.size:
            execution.ended[unit] = ended
        else:
            execution.mark(execution.ended, unit, ended)

    def _forget(self, attempt: Attempt) -> None:
        execution = attempt.execution
        execution.live.pop(attempt.unit, None)
        # It knows the attempt: a circle would keep the results of an ended run for long.
        attempt.handle = None
        left = self._host.suspension.attempt_left
        if left is not None:
            left.set()
        stuck = self._host.stuck
        if stuck and stuck.pop(attempt, None) is not None and execution.state.ended:
            self._unstuck(execution)
        if attempt.cancel_reason is not None or attempt.planned.definition.timeout is not None:
            self._forget_timers(attempt)

    def _forget_timers(self, attempt: Attempt) -> None:
        lane = attempt.planned.definition.timeout if attempt.grace is None else attempt.grace
        if lane is not None:
            self._timers.forget(attempt, lane)
            attempt.grace = None
        if attempt.late is not None:
            attempt.late.cancel()
            attempt.late = None

    def _unstuck(self, execution: Execution) -> None:
        """A refuser has ended after its run: only now nothing executes the run's code any more."""
        if execution not in self._host.stuck.values():
            self._host.observer.run_left(execution)

    # ---- trying again

    def schedule_retry(self, execution: Execution, unit: int) -> None:
        """Let the machine know when the back-off of a failed attempt is over."""
        machine = execution.machine
        wait = execution.retry_waits.pop(unit, None)
        if wait is None:
            wait = self.wait_before_retry(execution, unit)

        def due() -> None:
            execution.retries.pop(unit, None)
            machine.retry_due(unit)
            self._host.wake()

        if wait <= 0:
            due()
        else:
            execution.retries[unit] = self._deadlines.call_later(execution, wait, due)

    def wait_before_retry(self, execution: Execution, unit: int) -> float:
        """Return the seconds of the back-off that follows a failure now."""
        machine = execution.machine
        policy = execution.plan.tasks[machine.record.task_of(unit)].definition.retry
        wait = back_off(policy, machine.record.counted(unit))
        return wait * self.random() if policy.jitter else wait

    # ---- where attempts stand

    def where(self, attempt: Attempt) -> str:
        """Say at which line an attempt stands."""
        if attempt.handle is None:
            return ""
        if attempt.planned.on_loop:
            return self._host.loop.where(attempt.handle)
        if attempt.awaiting is not None and (place := attempt.awaiting.where()):
            return place
        return str(attempt.handle.where())


def back_off(policy: RetryPolicy, failures: int) -> float:
    """Return the seconds between a failure and the next attempt, without jitter; whatever numbers the policy has."""
    if not policy.delay > 0:
        return 0.0
    try:
        wait = float(policy.delay) * float(policy.backoff) ** (failures - 1)
    except OverflowError:
        return within(policy.max_delay)
    return wait if wait < policy.max_delay else within(policy.max_delay)


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 - an error that cannot be printed is still an error
        return "(its message cannot be printed)"

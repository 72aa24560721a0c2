"""The records of a run and of its attempts. `Run` is the public face of the one, `TaskContext` of the other.

Both say what is known and change little: an `Execution` has its machine, its times, and what was left behind; an
`Attempt` is also what its body gets. What is done with them stands in the parts of the executor, of which they ask what
the protocols here say.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections import deque
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio

from scattersphere.engine.events.numbers import EventNumbers
from scattersphere.engine.machine.codes import RUN_STATES, TASK_STATES
from scattersphere.engine.machine.facts import take_up
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.machine.record import PIECE
from scattersphere.engine.machine.run import RunMachine
from scattersphere.engine.timers import within
from scattersphere.errors import SuspendedError, TaskCancelled
from scattersphere.logs.failures import shorten
from scattersphere.logs.hostlog import TASKS, pass_on
from scattersphere.logs.masking import hidden_texts
from scattersphere.logs.runlog import task_logger
from scattersphere.model.frozen import plain_copy
from scattersphere.model.states import RunState, TaskState
from scattersphere.runnable import TaskContext
from scattersphere.worker.messages import checked

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextvars import Context

    from scattersphere.abc.backend import BackendTraits
    from scattersphere.engine.invocation import Invocation
    from scattersphere.engine.machine.codes import Command
    from scattersphere.engine.machine.dispatcher import Dispatcher
    from scattersphere.engine.machine.facts import RunFacts
    from scattersphere.engine.machine.run import StartDecision
    from scattersphere.engine.plan import Plan, PlannedTask
    from scattersphere.engine.progress import Gauge
    from scattersphere.engine.reused import Reused
    from scattersphere.engine.timers import Timer
    from scattersphere.errors import EngineError
    from scattersphere.logs.failures import Failure
    from scattersphere.logs.runlog import RunLog
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.model.events import EventKind
    from scattersphere.runnable import RunnableTask
    from scattersphere.schedules.occurrences import ScheduledFor
    from scattersphere.worker.callbacks import Callbacks
    from scattersphere.worker.messages import Report

_SUCCEEDED = TASK_STATES.index(TaskState.SUCCEEDED)
_PAUSING = RUN_STATES.index(RunState.PAUSING)
_PAUSED = RUN_STATES.index(RunState.PAUSED)
EARLIER, EARLIER_WORDS = 1_000, 300
"""Of how many failures that were followed by a retry so many characters are kept; the log has more."""
NEVER = float("-inf")
"""In `started` and `ended`: it has not happened. What a run has done in an earlier life may have a negative clock."""
NO_WAITERS: set[anyio.Event] = cast("set[anyio.Event]", frozenset())
NO_CHILDREN: set[Execution] = cast("set[Execution]", frozenset())
NO_COMMANDS: deque[Command] = deque(maxlen=0)
"""Of runs that have ended: one for all of them, see `RunMachine.compacting`."""

BODYS_OWN = (RecursionError, MemoryError)
"""What a call by a body comes to because of the body, wherever it surfaces."""


class AttemptPlaces(Protocol):
    """What knows where attempts are, and how long the next one waits."""

    def where(self, attempt: Attempt) -> str: ...
    def wait_before_retry(self, execution: Execution, unit: int) -> float: ...


class AttemptHolds(Protocol):
    """What holds attempts at their checkpoints during a pause."""

    async def checkpoint(self, attempt: Attempt) -> None: ...
    def check(self, attempt: Attempt) -> None: ...


class AttemptReports(Protocol):
    """What takes the lines and the progress of attempts."""

    def make_log(self, execution: Execution) -> None: ...
    def progress(self, attempt: Attempt, latest: Report) -> None: ...


class AttemptCallbacks(Protocol):
    """What has the callbacks of bodies."""

    def of(self, attempt: Attempt) -> Callbacks: ...


class Words(Protocol):
    """What says for what runs and tasks wait."""

    def of_run(self, execution: Execution) -> str: ...
    def of_task(self, execution: Execution, unit: int) -> str: ...


class OutcomeGate(Protocol):
    """Through which each outcome of a run passes before the machine is told: it is believed when it is durable."""

    is_submitted: bool
    is_committed: bool
    at_gate: dict[Attempt, None]

    @property
    def failure(self) -> str | None: ...
    @property
    def left_at(self) -> float | None: ...
    @property
    def holds_starts(self) -> bool: ...

    def when_committed(self, callback: Callable[[], object]) -> None: ...
    def touch(self) -> None: ...
    def take_concluded(self, tasks: tuple[int, ...]) -> None: ...
    def note(self, attempt: Attempt, value: object, now: float) -> bool: ...
    def hold(
        self,
        attempt: Attempt,
        kind: int,
        value: object,
        failure: Failure | None,
        release: Callable[[], object],
        *,
        retryable: bool = True,
    ) -> bool: ...
    def holds_start(self, attempt: Attempt, launch: Callable[[], object]) -> bool: ...
    def give_up(self, attempt: Attempt, failure: Failure | None, release: Callable[[], object]) -> bool: ...
    def give_up_row(self) -> None: ...
    def has_ended(self, attempt: Attempt) -> bool: ...
    def end(self, then: Callable[[], object]) -> None: ...
    def close(self) -> None: ...


class Engine(Protocol):
    """What a run and its attempts ask of the executor."""

    identity: str
    life: int
    clock: Callable[[], float]
    traits: dict[str, BackendTraits]

    @property
    def attempts(self) -> AttemptPlaces: ...
    @property
    def reports(self) -> AttemptReports: ...
    @property
    def holds(self) -> AttemptHolds: ...
    @property
    def waits(self) -> Words: ...
    @property
    def callbacks(self) -> AttemptCallbacks: ...

    def decide_start(self, execution: Execution, task: int) -> StartDecision | int: ...
    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None: ...
    def guard_call(self, execution: Execution, action: Callable[..., object], *args: object) -> None: ...
    def defect(self, execution: Execution, exc: BaseException) -> EngineError: ...
    async def start_child(
        self, attempt: Attempt, job: str, params: Mapping[str, object] | None
    ) -> object: ...


class Attempt(TaskContext):
    """Few slots: one of these is made for each no-op task of a large job. What most never have stands in the class."""

    __slots__ = ("__dict__", "attempt_number", "execution", "handle", "planned", "unit")

    index: int | None = None  # pyright: ignore[reportIncompatibleMethodOverride] - read for each line and look
    awaiting: Invocation | None = None
    """What has the loop await something for a body that is no coroutine."""
    began_at: float | None = None
    """When its backend has begun it; None on the loop, where the machine knows at once."""
    cancel_reason: str | None = None
    """None, or why it was asked to end: "cancel", "timeout", or "suspend" when the Server is closed with a journal."""
    killed: bool = False
    is_committed: bool = False
    """Whether its outcome is durable, so that the machine may be told."""
    left_at: float | None = None
    """When it ended, where its outcome was held back until it was durable."""
    grace: float | None = None
    """Seconds from when it was asked to end until it is given up; of one that was, until it is cancelled again. It lies
    in the lane of `Timers` for as many seconds, and no more in that of its timeout."""
    grace_until: float = 0.0
    remaining: float | None = None
    """Seconds left of the timeout while it stands still."""
    late: Timer | None = None
    """The timeout of an attempt that was held: it left the order in which attempts expire."""
    waits_for: tuple[Execution, ...] = ()
    """The child runs for whose end it waits at this moment; its places are lent meanwhile."""
    place: anyio.Event | None = None
    """Set when it has its places again."""
    gates: Mapping[anyio.Event | threading.Event, object] = MappingProxyType({})
    """Where its tasks and threads wait during a pause, and which of them."""
    threads: frozenset[int] = frozenset()
    """The threads that have called `check()`."""
    own_params: dict[str, object] | None = None
    """The parameters of the run as its body sees them: what it changes in them is nobody else's."""
    callbacks: Callbacks | None = None
    """What its body has registered with `on_cancel` and `on_pause`."""
    children_started: int = 0
    """How many runs its body has started."""
    gauge: Gauge | None = None
    """What it has reported of its progress."""
    noted_place: str = ""
    """Where its backend says that it executes: a machine, a worker."""
    own_log: logging.LoggerAdapter[logging.Logger] | None = None
    """The logger that was made for it. It knows the attempt: dropped at the end, no work for the collector."""

    def __init__(self, execution: Execution, unit: int, planned: PlannedTask, number: int) -> None:
        self.execution: Execution = execution
        self.unit: int = unit
        self.planned: PlannedTask = planned
        self.attempt_number: int = number
        self.handle: Any = None

    def __repr__(self) -> str:
        return f"<Attempt {self.attempt} of {self.label}>"

    @property
    def label(self) -> str:
        """For people: `wordcount#3/count[7]`."""
        index = self.index
        suffix = "" if index is None else f"[{index}]"
        return f"{self.job}#{self.run_id}/{self.task}{suffix}"

    def fall_silent(self) -> None:
        """It has ended: tell the last of its progress, and let go of what it has registered."""
        self.own_log = None
        if self.gauge is not None:
            self.gauge.close()
        if self.callbacks is not None:
            self.callbacks.close()

    def is_of(self, execution: Execution, unit: int) -> bool:
        """Whether this is the live attempt of that unit."""
        return self.execution is execution and self.unit == unit

    @property
    def run_id(self) -> int:
        return self.execution.id

    @property
    def job(self) -> str:
        return self.execution.plan.job

    @property
    def task(self) -> str:
        return self.planned.name

    @property
    def bundle(self) -> str:
        """The name of the bundle that its class comes from."""
        return self.planned.task_class.bundle

    @property
    def attempt(self) -> int:
        return self.attempt_number

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self.own_log is None:
            execution = self.execution
            try:
                execution.talks = True
                name = f"{TASKS}.{execution.plan.job}.{self.planned.name}"
                self.own_log = task_logger(self, execution.log, pass_on, name)
            except BODYS_OWN:
                raise
            except Exception as exc:
                raise execution.engine.defect(execution, exc) from exc
        return self.own_log

    @property
    def run_log(self) -> RunLog:
        """The log that this attempt's lines go to."""
        return self.execution.log

    @property
    def hooks(self) -> frozenset[str]:
        """Which hooks its class has."""
        return self.planned.task_class.hooks

    @property
    def on_loop(self) -> bool:
        """Whether its body runs on the event loop itself."""
        return self.planned.on_loop

    @property
    def retry(self) -> RetryPolicy:
        """What happens after a failure."""
        return self.planned.definition.retry

    def make(self) -> RunnableTask:
        """Make its instance. Raises what filling in, structuring or the constructor raise."""
        planned = self.planned
        return planned.cls(**(planned.fixed if planned.same_for_all else self.arguments()))

    def arguments(self) -> dict[str, object]:
        """Return the keyword arguments for its instance. Raises what filling in and structuring raise."""
        execution = self.execution
        try:
            element = () if self.index is None else execution.elements_of(self, self.index)
        except Exception as exc:  # nothing of a user's is touched there
            raise execution.engine.defect(execution, exc) from exc
        return self.planned.arguments(execution.params, execution.result, element)

    @property
    def params(self) -> Mapping[str, object]:
        params = self.own_params
        if params is None:
            params = self.own_params = plain_copy(self.execution.params)
        return MappingProxyType(params)

    @property
    def results(self) -> Mapping[str, object]:
        return MappingProxyType(self.execution.upstream_results(self.planned))

    @property
    def idempotency_key(self) -> str:
        index = self.index
        suffix = "" if index is None else f"/{index}"
        return f"{self.execution.engine.identity}/{self.run_id}/{self.task}{suffix}"

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        engine, latest = self.execution.engine, checked(done, total, message, self.execution.hidden)
        engine.guard_call(self.execution, engine.reports.progress, self, latest)

    @property
    def may_begin(self) -> bool:
        """Whether nothing has come that keeps it from its first step; may be read from any thread."""
        return self.cancel_reason is None and self.execution.machine.may_still_begin(self.unit)

    def begins(self) -> bool:
        """Take the first step, in the thread in which the body is to run: False if it may not be taken any more.

        A pause holds it here. What has begun may be asked again.
        """
        if self.began_at is not None:
            return True
        try:
            if self.execution.pausing:
                self.check()
            if not self.may_begin:
                return False
            self.began_at = self.execution.engine.clock()
        except TaskCancelled:
            return False
        except Exception as exc:  # noqa: BLE001 - a defect of ours: the run has crashed, and ends it
            self.execution.engine.defect(self.execution, exc)
            return False
        return True

    async def checkpoint(self) -> None:
        await self.execution.engine.holds.checkpoint(self)

    def check(self) -> None:
        self.execution.engine.holds.check(self)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self._registered().on_cancel(callback)

    def on_pause(self, hold: Callable[[], object], resume: Callable[[], object]) -> None:
        self._registered().on_pause(hold, resume)

    def _registered(self) -> Callbacks:
        engine = self.execution.engine
        try:
            return engine.callbacks.of(self)
        except BODYS_OWN:
            raise
        except Exception as exc:
            raise engine.defect(self.execution, exc) from exc

    @property
    def grace_left(self) -> float | None:
        return None if self.grace is None else max(0.0, self.grace_until - self.execution.engine.clock())

    async def start(self, job: str, params: Mapping[str, object] | None = None) -> object:
        return await self.execution.engine.start_child(self, job, params)


class Execution:
    """A plan being carried out. Its state lives in the machine; this adds time and text."""

    __slots__ = (
        "__weakref__", "borrowed", "children", "commands", "context", "crash_words", "created_at", "depth",
        "earlier", "elements", "ended", "ended_at", "engine", "epoch", "failures", "finals_timer",
        "given_secrets", "grace", "hidden", "id", "is_child", "is_end_held", "is_suspended", "journal", "key",
        "known_log", "lines_due", "live", "machine", "obeying", "params", "parent", "plan", "recording",
        "recovered", "remaining", "retries", "retry_waits", "reused", "scheduled", "secrets", "size",
        "started", "started_at", "started_by", "state", "talks", "timer", "timer_from", "unkept", "user",
        "waited_by", "waiters", "waits_for", "watchers",
    )  # fmt: skip

    def __init__(  # noqa: PLR0915 - a field a line
        self,
        run_id: int,
        plan: Plan,
        params: Mapping[str, object],
        engine: Engine,
        dispatcher: Dispatcher,
        *,
        keep_events: int,
    ) -> None:
        self.size: int = plan.size
        """How many tasks it has: units from here on are instances of maps."""
        self.id: int = run_id
        self.plan: Plan = plan
        self.params: Mapping[str, object] = params
        self.engine: Engine = engine
        self.known_log: RunLog | None = None
        """The log of the run, if anybody has written or read it."""
        self.machine: RunMachine = RunMachine(
            plan.graph, run_id, dispatcher, partial(engine.decide_start, self)
        )
        self.state: RunState = RunState.QUEUED
        """Where the run is: the last move that was told. That of the machine may be ahead by what is not durable."""
        self.journal: EventNumbers = EventNumbers(self.machine.record.journal, keep_events)
        self.started: array[float] = array("d", [NEVER]) * plan.size
        self.ended: array[float] = array("d", [NEVER]) * plan.size
        self.created_at: float = 0.0
        self.epoch: float = 0.0
        """Seconds since 1970 at which the loop's clock was 0, as it was seen on the wall when the run was made."""
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.live: dict[int, Attempt] = {}
        self.failures: dict[int, Failure] = {}
        self.elements: dict[int, dict[str, list[object]]] = {}
        self.earlier: dict[tuple[int, int], str] = {}
        """Why attempts failed that were not the last: one line for each (unit, attempt), for events."""
        self.watchers: anyio.Event | None = None
        """Set at the next event; None while nobody waits for one."""
        self.lines_due: bool = False
        """Whether the loop was told that a thread has written lines."""
        self.waiters: set[anyio.Event] = set()
        self.secrets: frozenset[str] = frozenset()
        """Names of the parameters that nobody is to see."""
        self.hidden: tuple[str, ...] = ()
        """How their values may stand in a text."""
        self.key: str | None = None
        self.user: str = ""
        """Who has asked for it, or for the run that has started it; "" for the host and schedules."""
        self.context: Context | None = None
        """The context variables of who called `start`, while the run lives; None where they are the Server's own."""
        self.scheduled: ScheduledFor | None = None
        """By which schedule it was started, and for when."""
        self.parent: int | None = None
        self.is_child: bool = False
        """Whether a task of the parent has started this run; else it runs the parent again."""
        self.reused: dict[str, Reused] = {}
        """Where results come from that were taken over, by the name of the task."""
        self.borrowed: dict[tuple[int, int], object] = {}
        """Results of instances that were taken over, by mapped task and index, until they are used."""
        self.talks: bool = False
        """Whether a body has logged, reported its progress, or registered callbacks: each is let go of at its end."""
        self.children: set[Execution] = set()
        self.started_by: Attempt | None = None
        """The attempt of the parent whose body has started this run; None of a run that has ended."""
        self.depth: int = 0
        """How many runs stand above this one, each started by a body of the next."""
        self.waited_by: tuple[Attempt, ...] = ()
        """Attempts above it that wait for its end."""
        self.timer: Timer | None = None
        timeout = plan.definition.timeout
        self.remaining: float | None = None if timeout is None else within(timeout)
        self.timer_from: float = 0.0
        self.finals_timer: Timer | None = None
        self.retries: dict[int, Timer] = {}
        """Back-offs that are not over, by unit."""
        self.grace: float | None = None
        self.commands: deque[Command] = deque()
        """What the machine has asked for and did not fit into a slice."""
        self.obeying: bool = False
        self.recording: OutcomeGate | None = None
        """What writes the run into the journal; None where there is none, or the run is not to survive."""
        self.is_end_held: bool = False
        """Whether the run has ended, and nobody is to know before that is durable."""
        self.is_suspended: bool = False
        """Whether the Server is being closed, and the run goes on at its next start."""
        self.retry_waits: dict[int, float] = {}
        """Back-offs that were written into the journal, by unit, until they begin."""
        self.recovered: int = 0
        """Restarts of the Server that it has survived."""
        self.waits_for: str = ""
        """What is missing before a run goes on that an earlier life of the Server has begun; "" where nothing is."""
        self.given_secrets: frozenset[str] = frozenset()
        """Secret parameters that were given by value: the journal does not have them."""
        self.unkept: Mapping[int, str] = {}
        """Why the results of units are not there which an earlier life of the Server has made."""
        self.crash_words: str = ""
        """Why the run crashed, where no task says so."""

    @property
    def log(self) -> RunLog:
        """The log of the run, made when somebody first writes or reads it; from any thread."""
        if self.known_log is None:
            self.engine.reports.make_log(self)
        return cast("RunLog", self.known_log)

    def keep_secret(self, names: frozenset[str]) -> None:
        """Show `***` for parameters from now on, and for their values in the log and in failures."""
        self.secrets = names
        if names:
            self.hidden = hidden_texts(self.params[name] for name in names if name in self.params)
            if self.known_log is not None:
                self.log.hidden = self.hidden

    def take_log(self, log: RunLog) -> None:
        """Have `log` from now on, unless there is one already."""
        if self.known_log is None:
            self.known_log = log
            if not self.state.ended:
                self.journal.follow(log)

    @property
    def pausing(self) -> bool:
        """Whether attempts are to be held at their checkpoints; may be read from any thread."""
        return self.machine.record.state in (_PAUSING, _PAUSED)

    @property
    def visible_params(self) -> Mapping[str, object]:
        """The parameters without secrets: the run's own, to be read."""
        secrets = self.secrets
        return {name: "***" if name in secrets else value for name, value in self.params.items()}

    @property
    def shown_params(self) -> Mapping[str, object]:
        """The parameters as people may see them, and keep."""
        return {name: plain_copy(value) for name, value in self.visible_params.items()}

    # ---- runs of earlier lives

    def show(self, state: int, units: Iterable[tuple[int, int, int]]) -> None:
        """Have a machine without code say where the run was: (unit, state, attempts)."""
        machine = self.machine
        machine.record.state, self.state = state, RUN_STATES[state]
        for unit, task_state, attempts in units:
            if unit < self.plan.size:
                machine.record.task_states[unit], machine.record.attempts[unit] = task_state, attempts

    def renew(self, plan: Plan) -> None:
        """Have a plan with code, and a new machine for it; nothing of the run was executed in this life."""
        self.plan = plan
        self.machine = RunMachine(
            plan.graph, self.id, self.machine.dispatcher, partial(self.engine.decide_start, self)
        )
        self.journal.moves = self.machine.record.journal

    def take_up(self, facts: RunFacts) -> Sequence[Command]:
        """Have the new machine go on where these facts were taken; return what is to be done then."""
        self.state = RUN_STATES[facts.state]
        return take_up(self.machine, facts)

    def note_event(self, kind: EventKind, task: int | None, message: str) -> None:
        """Add an event of the run, or of one of its tasks, that is no move; and wake the readers."""
        self.journal.add((kind, task, None, None, None, message), self.engine.clock())
        self.tell()

    def descends_from(self, attempt: Attempt) -> bool:
        """Whether the attempt, or a run that it has started, has started this run."""
        starter = self.started_by
        while starter is not None and starter is not attempt:
            starter = starter.execution.started_by
        return starter is attempt

    @property
    def chain(self) -> str:
        """The runs above this one and itself: `etl#1/load > load#2`."""
        names, starter = [f"{self.plan.job}#{self.id}"], self.started_by
        while starter is not None:
            names.append(starter.label)
            starter = starter.execution.started_by
        return " > ".join(reversed(names))

    # ---- results

    def result(self, name: str) -> object:
        """Return the result of a task that succeeded; else raise `LookupError` with its state."""
        task = self.plan.index[name]
        state = self.machine.record.task_states[task]
        if state != _SUCCEEDED:
            raise LookupError(f"task {name!r} has no result: it is {TASK_STATES[state]}")
        value = self.machine.record.results[task]
        if value is DROPPED:
            why = self.unkept.get(task)
            if why is None:
                why = "its result was dropped (keep_results is false)"
            raise LookupError(f"task {name!r} has succeeded; {why}")
        return value

    def has_result(self, task: int) -> bool:
        """Whether the task of this number has succeeded and its result is still there."""
        machine = self.machine
        return machine.record.task_states[task] == _SUCCEEDED and machine.record.results[task] is not DROPPED

    def upstream_results(self, planned: PlannedTask) -> dict[str, object]:
        """Return the results of the declared upstream tasks that succeeded, by name."""
        index, results = self.plan.index, self.machine.record.results
        waits = self.plan.definition.upstreams[planned.name]
        return {name: results[index[name]] for name in waits if self.has_result(index[name])}

    def elements_of(self, attempt: Attempt, index: int) -> list[object]:
        """Return what an instance has of the lists that its task is mapped over, one of each, in their order."""
        lists = self.elements[self.machine.record.task_of(attempt.unit)]
        return [lists[key][index] for key, _ in attempt.planned.mapped]

    def label_of(self, unit: int) -> str:
        """Name a task or an instance for people: `count`, `count[7]`."""
        name, index = (
            self.plan.tasks[self.machine.record.task_of(unit)].name,
            self.machine.record.index_of(unit),
        )
        return name if index is None else f"{name}[{index}]"

    # ---- failures

    def note_failure(self, attempt: Attempt, failure: Failure) -> None:
        """Keep why an attempt failed; why earlier attempts of the unit did, in one line each."""
        unit, number = attempt.unit, attempt.attempt
        self.failures[unit] = failure
        if number < attempt.planned.definition.retry.max_attempts and len(self.earlier) < EARLIER:
            self.earlier[unit, number] = shorten(str(failure), EARLIER_WORDS)

    # ---- times

    def wall(self, clock: float) -> dt.datetime:
        """Translate the loop's clock to aware UTC, for all that is told of this run."""
        return dt.datetime.fromtimestamp(self.epoch + clock, dt.UTC)

    @property
    def times(self) -> tuple[dt.datetime, dt.datetime | None, dt.datetime | None]:
        """When it was created, started, and ended, in aware UTC."""
        started, ended = self.started_at, self.ended_at
        return (
            self.wall(self.created_at),
            None if started is None else self.wall(started),
            None if ended is None else self.wall(ended),
        )

    def time_of(self, times: array[float], unit: int) -> float | None:
        """Return a time of a unit; None where it has not come."""
        return times[unit] if unit < len(times) and times[unit] != NEVER else None

    def retry_wait(self, unit: int) -> float:
        """Return the seconds of the back-off that follows a failure now, and keep it until that begins."""
        wait = self.retry_waits[unit] = self.engine.attempts.wait_before_retry(self, unit)
        return wait

    def mark(self, times: array[float], unit: int, now: float) -> None:
        """Note a time of a unit; instances of maps come after the tasks, as they begin."""
        if unit >= len(times):
            times.extend([NEVER] * (unit + 1 - len(times)))
        times[unit] = now

    # ---- watchers

    def note_lines(self) -> None:
        """Number the log lines that are no events yet. On the loop's thread.

        Lines of the loop's own thread are noted as they are written; those of other threads before
        their attempt ends, or as soon as somebody reads. Nothing follows the end of a run.
        """
        if self.known_log is not None:
            self.journal.take_lines()

    def compact(self) -> None:
        """The run has ended: give back what is not needed to look at it, or to run it again."""
        for _ in self.compacting():
            pass

    def compacting(self) -> Iterator[None]:
        """Do what `compact` does, in pieces of less than a millisecond."""
        if self.known_log is not None:
            self.known_log.listener = None
            self.known_log.close()
        self.waited_by, self.started_by = (), None
        yield from self.machine.compacting()
        moves = self.journal.moves
        self.journal.moves = self.machine.record.journal
        if not self.live and not self.machine.record.stuck:  # see `RunMachine.compacting`
            self.children, self.commands = NO_CHILDREN, NO_COMMANDS
        # Nobody reads the old list any more: to free a hundred thousand numbers takes milliseconds too.
        while isinstance(moves, list) and moves:
            del moves[-PIECE:]
            yield

    def discard_log(self) -> None:
        """The run is forgotten: delete the file of its log."""
        if self.known_log is not None:
            self.known_log.discard()

    def tell(self) -> None:
        """Wake those who read events. Called once for each batch."""
        watchers, self.watchers = self.watchers, None
        if watchers is not None:
            watchers.set()

    def conclude(self) -> None:
        """The run has ended: tell it, and compact the record."""
        try:
            self.tell_end()
        finally:
            self.compact()

    def tell_end(self) -> None:
        """Wake those who wait for the end, and for the last events."""
        try:
            self.tell()
        finally:
            self.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake those who wait for the end."""
        waiters, self.waiters = self.waiters, NO_WAITERS
        for waiter in waiters:
            waiter.set()

    async def changed(self) -> None:
        """Wait for the next `tell()`. All who wait share one event of the loop."""
        if self.watchers is None:
            self.watchers = anyio.Event()
            if self.journal.has_new_lines:
                return  # a thread has logged in between, when it could not know that somebody waits
        await self.watchers.wait()

    async def wait(self, at_most: float | None = None) -> bool:
        """Wait for the end, at most so many seconds; return whether it came.

        Those who wait are not woken by each event: that would cost a turn each. Raises `SuspendedError` where the
        Server is closed before, and the run goes on at its next start.
        """
        with anyio.move_on_after(None if at_most is None else within(at_most)):
            while not self.state.ended:
                if self.is_suspended:
                    raise SuspendedError(
                        f"run {self.id} of {self.plan.job} was suspended: the Server is closing; the run goes on when "
                        "a Server next opens the journal"
                    )
                event, waiters = anyio.Event(), self.waiters
                waiters.add(event)
                try:
                    await event.wait()
                finally:
                    waiters.discard(event)
        return self.state.ended

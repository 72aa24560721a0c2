"""The record of one run: its machine, its times, what it left behind. `Run` is its public face."""

from __future__ import annotations

import copy
import datetime as dt
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import ReferenceType, ref

import anyio
import attrs

from scattersphere.engine.events.numbers import EventNumbers
from scattersphere.engine.events.pages import EventPages
from scattersphere.engine.machine.codes import RUN_STATES, TASK_STATES
from scattersphere.engine.machine.facts import take_up
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.machine.record import PIECE
from scattersphere.engine.machine.run import RunMachine, StartDecision
from scattersphere.engine.timers import within
from scattersphere.errors import SuspendedError
from scattersphere.logs.failures import shorten, text_of
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.definition import INSTANCES
from scattersphere.model.frozen import plain_copy
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextvars import Context

    from scattersphere.abc.backend import BackendTraits
    from scattersphere.engine.attempt import Attempt
    from scattersphere.engine.callbacks import BodyCallbacks
    from scattersphere.engine.holds import Holds
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine.codes import Command
    from scattersphere.engine.machine.dispatcher import Dispatcher
    from scattersphere.engine.machine.facts import RunFacts
    from scattersphere.engine.plan import Plan, PlannedTask
    from scattersphere.engine.progress import Gauge
    from scattersphere.engine.recording import Recording
    from scattersphere.engine.reused import Reused
    from scattersphere.engine.timers import Timer
    from scattersphere.engine.views.waits import Waits
    from scattersphere.logs.runlog import RunLog
    from scattersphere.model.events import EventKind
    from scattersphere.schedules.occurrences import ScheduledFor

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


class AttemptPlaces(Protocol):
    """What knows where attempts are, and how long the next one waits."""

    def where(self, attempt: Attempt) -> str:
        """Say at which line an attempt stands."""
        ...

    def wait_before_retry(self, execution: Execution, unit: int) -> float:
        """Return the seconds of the back-off that follows a failure now."""
        ...


class Engine(Protocol):
    """What a run and its attempts ask of the executor."""

    identity: str
    life: int
    clock: Callable[[], float]
    traits: dict[str, BackendTraits]
    holds: Holds
    waits: Waits
    callbacks: BodyCallbacks

    @property
    def loop(self) -> Loop: ...
    @property
    def attempts(self) -> AttemptPlaces: ...

    def guard(self, execution: Execution, action: Callable[..., object], *args: Any) -> None: ...
    def soon(self, callback: Callable[..., object], *args: Any) -> None: ...
    def make_log(self, execution: Execution) -> None: ...
    def progress(self, attempt: Attempt, done: float, total: float | None, message: str) -> None: ...
    def on_loop(self) -> bool: ...
    async def start_child(self, attempt: Attempt, job: str, params: Mapping[str, Any] | None) -> Any: ...


def _nobody(*_: object) -> None:
    """Nobody is told."""


class RunObserver:
    """Who is told of what has happened to runs: the Server, with its history, its feed and the host's logging."""

    def __init__(
        self,
        *,
        run_moved: Callable[[Execution, EventKind], None] = _nobody,
        run_left: Callable[[Execution], None] = _nobody,
        task_failed: Callable[[Attempt], None] = _nobody,
        task_blocked: Callable[[Attempt, str], None] = _nobody,
    ) -> None:
        self.run_moved: Callable[[Execution, EventKind], None] = run_moved
        self.run_left: Callable[[Execution], None] = run_left
        """The last attempt that refused to end has ended, after its run: only now nothing executes the run's code."""
        self.task_failed: Callable[[Attempt], None] = task_failed
        """A task, or an instance of a map, has failed for good."""
        self.task_blocked: Callable[[Attempt, str], None] = task_blocked
        """A task blocks the loop."""


@attrs.frozen
class Failure:
    """Why an attempt failed, as text; `error` is the exception itself where it is had.

    Of a bundle's code it is not: it would keep the version alive.
    """

    type: str
    message: str
    traceback: str = attrs.field(default="", repr=False)
    error: BaseException | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def _own_copy(value: Any) -> Any:
    return value if type(value) in _NEVER_CHANGED else copy.deepcopy(value)


_NEVER_CHANGED = frozenset({bool, int, float, str, bytes, type(None)})


class Execution:
    """A plan being carried out. Its state lives in the machine; this adds time and text."""

    __slots__ = (
        "__weakref__",
        "_pages",
        "borrowed",
        "children",
        "commands",
        "context",
        "crash_words",
        "created_at",
        "depth",
        "earlier",
        "elements",
        "ended",
        "ended_at",
        "engine",
        "epoch",
        "failures",
        "finals_timer",
        "gauges",
        "given_secrets",
        "grace",
        "id",
        "is_child",
        "is_end_held",
        "is_suspended",
        "journal",
        "key",
        "known_log",
        "lines_due",
        "live",
        "machine",
        "obeying",
        "params",
        "parent",
        "plan",
        "recording",
        "recovered",
        "remaining",
        "retries",
        "retry_waits",
        "reused",
        "scheduled",
        "secrets",
        "size",
        "started",
        "started_at",
        "started_by",
        "state",
        "timer",
        "timer_from",
        "unkept",
        "user",
        "waited_by",
        "waiters",
        "waits_for",
        "watchers",
    )

    def __init__(  # noqa: PLR0915 - a field a line
        self,
        run_id: int,
        plan: Plan,
        params: Mapping[str, Any],
        engine: Engine,
        dispatcher: Dispatcher,
        *,
        keep_events: int,
    ) -> None:
        self.size: int = plan.size
        """How many tasks it has: units from here on are instances of maps."""
        self.id: int = run_id
        self.plan: Plan = plan
        self.params: Mapping[str, Any] = params
        self.engine: Engine = engine
        self.known_log: RunLog | None = None
        """The log of the run, if anybody has written or read it."""
        self.machine: RunMachine = RunMachine(plan.graph, run_id, dispatcher, self._ask)
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
        self.gauges: dict[int, Gauge] = {}
        """What attempts report of their progress, by unit; empty where none does."""
        self.elements: dict[int, dict[str, list[Any]]] = {}
        self.earlier: dict[tuple[int, int], str] = {}
        """Why attempts failed that were not the last: one line for each (unit, attempt), for events."""
        self.watchers: anyio.Event | None = None
        """Set at the next event; None while nobody waits for one."""
        self.lines_due: bool = False
        """Whether the loop was told that a thread has written lines."""
        self._pages: ReferenceType[EventPages] | None = None
        self.waiters: set[anyio.Event] = set()
        self.secrets: frozenset[str] = frozenset()
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
        self.borrowed: dict[tuple[int, int], Any] = {}
        """Results of instances that were taken over, by mapped task and index, until they are used."""
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
        self.recording: Recording | None = None
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
            self.engine.make_log(self)
        return cast("RunLog", self.known_log)

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
    def visible_params(self) -> Mapping[str, Any]:
        """The parameters without secrets: the run's own, to be read."""
        secrets = self.secrets
        return {name: "***" if name in secrets else value for name, value in self.params.items()}

    @property
    def shown_params(self) -> Mapping[str, Any]:
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
        self.machine = RunMachine(plan.graph, self.id, self.machine.dispatcher, self._ask)
        self.journal.moves = self.machine.record.journal

    def take_up(self, facts: RunFacts) -> Sequence[Command]:
        """Have the new machine go on where these facts were taken; return what is to be done then."""
        self.state = RUN_STATES[facts.state]
        return take_up(self.machine, facts)

    def note_event(self, kind: EventKind, task: int | None, message: str) -> None:
        """Add an event of the run, or of one of its tasks, that is no move; and wake the readers."""
        self.journal.add((kind, task, None, None, None, message), self.engine.clock())
        self.tell()

    def look_at_map(self, task: int) -> int:
        """Evaluate again what a task maps over; return how many elements there are. Raises what that raises."""
        return self._width(task, self.plan.tasks[task])

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

    # ---- what the machine asks

    def _ask(self, task: int) -> StartDecision | int:
        """Evaluate `run_if` and `map` of a task whose rule is met. Runs no code of the user but that of types."""
        planned = self.plan.tasks[task]
        # What is current is the attempt that has just ended, perhaps of another run: nothing may be filed under it.
        token = current_attempt.set(None)
        try:
            if planned.run_if is not None:
                wanted = planned.run_if.fill(self.params, self.result)
                if type(wanted) is not bool:
                    raise TypeError(f"run_if is no bool but {type(wanted).__name__}")  # noqa: TRY301
                if not wanted:
                    return StartDecision.SKIP
            return self._width(task, planned) if planned.mapped else StartDecision.GO
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it fails this task and nothing else
            self.failures[task] = Failure(type(exc).__name__, text_of(exc))
            return StartDecision.FAIL
        finally:
            current_attempt.reset(token)

    def _width(self, task: int, planned: PlannedTask) -> int:
        lists: dict[str, list[Any]] = {}
        for key, template in planned.mapped:
            values = template.fill(self.params, self.result)
            if type(values) not in (list, tuple):
                raise TypeError(f"map.{key} needs a list, not {type(values).__name__}")
            parameter = planned.task_class.parameters.get(key)
            lists[key] = list(values)  # whoever made it may change it while the map goes over it
            if parameter is not None and not template.has_result:
                lists[key] = [parameter.structure(value) for value in values]
        lengths = {len(values) for values in lists.values()}
        if len(lengths) != 1:
            shown = ", ".join(f"{key}: {len(values)}" for key, values in lists.items())
            raise ValueError(f"the lists of map have different lengths ({shown})")
        width = lengths.pop()
        if width > INSTANCES:
            raise ValueError(f"map over {width:,} elements; at most {INSTANCES:,} are allowed")
        self.elements[task] = lists
        return width

    # ---- results

    def result(self, name: str) -> Any:
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

    def upstream_results(self, planned: PlannedTask) -> dict[str, Any]:
        """Return the results of the declared upstream tasks that succeeded, by name."""
        index, results = self.plan.index, self.machine.record.results
        waits = self.plan.definition.upstreams[planned.name]
        return {name: results[index[name]] for name in waits if self.has_result(index[name])}

    def arguments(self, attempt: Attempt) -> dict[str, Any]:
        """Return the keyword arguments for the attempt's instance."""
        element = {} if attempt.index is None else self.element_of(attempt, attempt.index)
        return attempt.planned.arguments(self.params, self.result, element)

    def element_of(self, attempt: Attempt, index: int) -> dict[str, Any]:
        """Return the arguments that an attempt of an instance has of what its task is mapped over."""
        lists = self.elements[self.machine.record.task_of(attempt.unit)]
        # Elements of an upstream's result are passed by reference, as results are; others are each attempt's own.
        return {
            key: lists[key][index] if template.has_result else _own_copy(lists[key][index])
            for key, template in attempt.planned.mapped
        }

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

    @property
    def pages(self) -> EventPages:
        """What makes the events of this run; its readers share it and keep it alive."""
        pages = None if self._pages is None else self._pages()
        if pages is None:
            pages = EventPages(self)
            self._pages = ref(pages)
        return pages

    def note_lines(self) -> None:
        """Number the log lines that are no events yet. On the loop's thread.

        Lines of the loop's own thread are noted as they are written; those of other threads before
        their attempt ends, or as soon as somebody reads. Nothing follows the end of a run.
        """
        if self.known_log is not None:
            self.journal.take_lines()

    def settle(self) -> None:
        """The run has ended: give back what is not needed to look at it, or to run it again."""
        for _ in self.settling():
            pass

    def settling(self) -> Iterator[None]:
        """Do what `settle` does, in pieces of less than a millisecond."""
        if self.known_log is not None:
            self.known_log.listener = None
            self.known_log.close()
        self.gauges.clear()
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
        """The run has ended: tell it, and settle."""
        try:
            self.tell_end()
        finally:
            self.settle()

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

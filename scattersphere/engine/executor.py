"""JobExecutor: the driver around the pure machine. It starts, cancels, times and reports; it decides nothing.

One pump serves all runs: it takes what the dispatcher offers, starts it, and gives the loop a turn
after two milliseconds. The executor is made of parts, each with a protocol of what it needs of it: `attempts`
starts attempts and tells the machine how they ended, `commands` carries out what the machine asks for then, for
which `canceller` ends attempts; `requests` are what people ask of a run; `deadlines` are its clock.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import functools
import logging
import secrets
import threading
import time
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from scattersphere._lifecycle import LoopHome
from scattersphere.abc.backend import LOOP_TRAITS, BackendTraits
from scattersphere.engine.admission import Admission
from scattersphere.engine.attempts import AttemptRunner
from scattersphere.engine.callbacks import BodyCallbacks
from scattersphere.engine.cancellation import Canceller
from scattersphere.engine.commands import CommandQueue
from scattersphere.engine.defects import Defects
from scattersphere.engine.execution import BODYS_OWN, Attempt, Execution
from scattersphere.engine.holds import Holds
from scattersphere.engine.loops import current_loop
from scattersphere.engine.machine.dispatcher import Dispatcher
from scattersphere.engine.observer import RunObserver
from scattersphere.engine.reports import Reports
from scattersphere.engine.requests import RunRequests
from scattersphere.engine.suspension import Suspension
from scattersphere.engine.timers import (
    SLICE,
    AdaptiveBatchSize,
    Deadlines,
    Timer,
    WallClock,
    WorkBudget,
)
from scattersphere.engine.values import decide_start
from scattersphere.engine.views.waits import Waits
from scattersphere.errors import ClosedError, ConflictError, EngineError, SuspendedError
from scattersphere.logs.runlog import current_attempt
from scattersphere.model.events import EVENT_OF_MOVE, EventKind
from scattersphere.model.states import RunState
from scattersphere.model.taskclass import LOOP
from scattersphere.worker.around import Surroundings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from scattersphere.abc.around import Around
    from scattersphere.abc.backend import Backend, Call
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.machine.run import StartDecision
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.recorder import Recorder
    from scattersphere.logs.spill import LogFolder
    from scattersphere.model.definition import JobDefinition

_log = logging.getLogger("scattersphere.engine")
MANY = 10_000
"""Tasks and instances of a run that is compacted in a turn of its own."""
DEEPEST = 16
"""How deep child runs may be nested (design, section 8): a job that starts itself would else fill the memory."""
CHUNK = 32
"""Attempts that are taken from one run before the next one has its turn."""


class JobExecutor:
    """Carries out plans. Made by a Server; lives on one event loop from `open` to `aclose`."""

    def __init__(  # noqa: PLR0915 - a part a line
        self,
        *,
        backends: Mapping[str, Backend],
        pools: Mapping[str, int] | None = None,
        max_parallel: int | None = None,
        max_runs: int | None = None,
        queue_limit: int = 10_000,
        grace: float = 10.0,
        log_limit: int = 1 << 20,
        log_folder: LogFolder | None = None,
        keep_events: int = 10_000,
        takes_prints: bool = False,
        around: Iterable[Around] = (),
        observer: RunObserver | None = None,
    ) -> None:
        self.backends: dict[str, Backend] = dict(backends)
        of_others = {name: BackendTraits.of(backend) for name, backend in self.backends.items()}
        self.traits: dict[str, BackendTraits] = {LOOP: LOOP_TRAITS, **of_others}
        """What a definition may write as `backend`, and what those say of themselves."""
        self.grace: float = grace
        self.log_limit = log_limit
        self.log_folder: LogFolder | None = log_folder
        self.keep_events = keep_events
        self.observer: RunObserver = observer or RunObserver()
        self.takes_prints = takes_prints
        factories = tuple(around)
        self.surroundings: Surroundings | None = Surroundings(factories) if factories else None
        self.instance: str = secrets.token_hex(4)
        self.identity: str = self.instance
        """What keys that are handed to other systems begin with: the journal's id, where there is one."""
        self.life: int = 0
        """The life of the journal; 0 where there is none."""
        self.recorder: Recorder | None = None
        """What writes runs into the journal; None without one."""
        self.child_starter: Callable[[Attempt, str, Mapping[str, object] | None], Awaitable[object]]
        self.running: dict[int, Execution] = {}
        self.stuck: dict[Attempt, Execution] = {}
        """Attempts that were given up and have not ended."""
        self.budget: WorkBudget = WorkBudget(SLICE)
        self.reports: Reports = Reports(self)
        self.deadlines: Deadlines = Deadlines(self.guard, self._attempt_expired)
        self.attempts: AttemptRunner = AttemptRunner(self, self.deadlines, self.budget)
        self.canceller: Canceller = Canceller(self, self.attempts, self.deadlines)
        self.commands: CommandQueue = CommandQueue(self, self.attempts, self.canceller)
        self.requests: RunRequests = RunRequests(self, self.canceller, self.commands, self.deadlines)
        self.holds: Holds = Holds(self)
        self.waits: Waits = Waits(self)
        self.callbacks: BodyCallbacks = BodyCallbacks(self)
        self.suspension: Suspension = Suspension(self)
        self.defects: Defects = Defects(self)
        self.admission: Admission = Admission(max_runs, queue_limit)
        limits = {f"backend:{name}": b.limit for name, b in self.backends.items() if b.limit is not None}
        self.dispatcher: Dispatcher = Dispatcher(max_parallel, {**(pools or {}), **limits})
        self._unlimited = frozenset(f"backend:{n}" for n, b in self.backends.items() if b.limit is None)
        self._loop: Loop | None = None
        self._loop_home: LoopHome | None = None
        self.wall_epoch: float | None = None
        """What to add to the loop's clock for the time on the wall, where that goes on from another executor's."""
        self.pumping: bool = False
        """Whether the pump is at work: it looks again by itself."""
        self.woken: bool = False
        """Whether the pump will be called."""
        self.news: dict[Execution, None] = {}
        """Runs whose readers are to be woken, in order."""
        self._began = False
        self._told_at = 0.0
        self._last_id = 0
        self.failure: BaseException | None = None

    # ---- life

    @property
    def loop(self) -> Loop:
        """The loop this executor lives on. Raises `ClosedError` outside `open`/`aclose`."""
        if self._loop is None:
            raise ClosedError("the Server is not running: use it inside `async with Server() as server`")
        return self._loop

    async def open(self) -> None:
        """Take up the current event loop and open the backends."""
        loop = current_loop()
        self.clock: Callable[[], float] = loop.clock
        self.wall_clock: WallClock = WallClock(loop.clock, self.wall_epoch)
        await loop.open(self._pump, self._on_alarm, self.crash)
        self._loop, self.woken = loop, False
        self.attempts.open(loop, anyio.get_cancelled_exc_class())
        self.deadlines.open(loop)
        self._batch_size: AdaptiveBatchSize = AdaptiveBatchSize(loop.starts_a_turn)
        self._loop_home = LoopHome()
        self._context = contextvars.copy_context()
        self._thread = threading.get_ident()
        try:
            for backend in self.backends.values():
                await backend.open(self)
        except BaseException:
            with anyio.CancelScope(shield=True):  # the host never gets to leave what it could not enter
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """Let go of the loop and the backends. Runs must have ended or been given up."""
        loop = self._loop
        if loop is None:
            return
        for backend in self.backends.values():
            await backend.aclose()  # while `soon` still works: that is how its threads say goodbye
        for attempt in list(self.stuck):
            if attempt.planned.on_loop and not self.canceller.abandon(attempt) and not loop.can_abandon:
                _log.warning(
                    "closing waits for %s, at %s", attempt.label, self.attempts.where(attempt) or "?"
                )
        await self.callbacks.aclose()
        self._loop = self._loop_home = None
        self.deadlines.close()
        await loop.aclose()

    def check_loop(self) -> None:
        """Raise `WrongLoopError` where the caller is not on the loop of this executor, while that is open."""
        if self._loop_home is not None:
            self._loop_home.check("Server")

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; for any thread (`BackendHost` of the backends)."""
        loop = self._loop
        if loop is not None:
            loop.soon(callback, *args)

    @property
    def journal(self) -> str:
        """The id of the journal, "" without one (`BackendHost`)."""
        return "" if self.recorder is None else self.identity

    def limit_changed(self, backend: Backend, limit: int | None) -> None:
        """Take note that a backend runs more or fewer calls at once from now on; for any thread."""
        self.soon(self._resize, backend, limit)

    def _resize(self, backend: Backend, limit: int | None) -> None:
        for name, known in self.backends.items():
            if known is backend:
                self.dispatcher.set_pool(f"backend:{name}", limit)
        self.wake()

    def note_where(self, call: Call, place: str) -> None:
        """Take note of where a call executes; for any thread."""
        if isinstance(call.task_context, Attempt):
            call.task_context.noted_place = place

    # ---- runs

    def submit(
        self,
        plan: Plan,
        params: Mapping[str, object],
        *,
        secrets: frozenset[str] = frozenset(),
        key: str | None = None,
        child_of: Attempt | None = None,
        user: str = "",
        prepare: Callable[[Execution], None] | None = None,
    ) -> Execution:
        """Make a run of a plan, queued or started; `prepare` is called before it can start.

        `secrets` are the names of parameters that nobody is to see; `user` is whose run it is, if it is nobody's child.
        Raises `BusyError`, `ClosedError`, `EngineError`.
        """
        loop = self.loop
        self._check_start(plan.definition, child_of)
        if self.recorder is not None:
            self._last_id = self.recorder.take_number()
        else:
            self._last_id += 1
        execution = self.make(self._last_id, plan, params)
        execution.context = self._context_of_caller()
        execution.created_at = loop.clock()
        execution.key, execution.user = key, user
        if secrets:
            execution.keep_secret(secrets)
        if child_of is not None:
            execution.parent, execution.is_child = child_of.run_id, True
            execution.user = child_of.execution.user
            execution.started_by, execution.depth = child_of, child_of.execution.depth + 1
        if prepare is not None:
            prepare(execution)
            if execution.machine.record.journal:  # results were taken over
                execution.journal.stamp(execution.created_at)
        self.running[execution.id] = execution
        self.guard(execution, self._begin, execution, child_of)
        return execution

    def _begin(self, execution: Execution, child_of: Attempt | None) -> None:
        """Start a new run, or queue it."""
        self.observer.run_moved(execution, EventKind.RUN_QUEUED)
        if child_of is not None:
            child_of.execution.children.add(execution)
            self.slot(execution)
            self.requests.inherit(execution, child_of)
        elif self.admission.pass_by(execution):
            self.slot(execution)
        else:
            for replaced in self.admission.enter(execution):
                self.requests.ask(replaced, "cancel", f"replaced by run {execution.id}")
            self.admit()

    def _check_start(self, job: JobDefinition, child_of: Attempt | None) -> None:
        """Raise where no run of a job may be made now. Raises `BusyError`, `ConflictError`, `EngineError`."""
        if self.failure is not None:
            raise EngineError(f"the engine failed before: {self.failure!r}") from self.failure
        if child_of is None:
            self.admission.check(job)
        elif child_of.execution.depth >= DEEPEST:
            raise ConflictError(
                f"job {job.name!r} cannot be started here: child runs may be nested {DEEPEST} deep, "
                f"and this is {child_of.execution.chain}"
            )

    def decide_start(self, execution: Execution, task: int) -> StartDecision | int:
        """Say for the machine of a run whether a task is to start, or how many instances it has."""
        return decide_start(execution, task)

    def make(self, number: int, plan: Plan, params: Mapping[str, object]) -> Execution:
        """Make the record of a run, and nothing more."""
        execution = Execution(number, plan, params, self, self.dispatcher, keep_events=self.keep_events)
        execution.epoch = self.wall_clock.epoch()
        return execution

    def _context_of_caller(self) -> contextvars.Context | None:
        """Return a copy of the present context; None where it holds just what that of the Server holds."""
        present, own = contextvars.copy_context(), self._context
        # By identity: values are the user's, and what their `==` does is theirs.
        if len(present) == len(own) and all(own.get(name, own) is value for name, value in present.items()):
            return None
        return present

    def admit(self) -> None:
        """Give free slots to queued runs."""
        while self.admission.queued and (execution := self.admission.next()) is not None:
            self.guard(execution, self.slot, execution)

    def slot(self, execution: Execution) -> None:
        """Start a queued run; with a journal, when it is durable."""
        recording = execution.recording
        if recording is not None and not recording.is_committed:
            recording.when_committed(functools.partial(self.guard, execution, self.slot, execution))
            return
        if execution.state is RunState.PAUSED:
            if (
                not execution.is_child
            ):  # paused before it could start: it queues again, and others may have its slot
                self.admission.give_back(execution)
                self.admit()
            return
        if execution.state is not RunState.QUEUED or execution.is_suspended or execution.is_end_held:
            return
        execution.started_at = self.clock()
        if execution.remaining is not None:
            self.requests.arm_run_timeout(execution)
        self.commands.apply(execution, execution.machine.slot())

    # ---- what runs and attempts ask for (`Engine`)

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run: a defect of ours that comes up ends that run, and nothing else."""
        try:
            action(*args)
        except BaseException as exc:  # noqa: BLE001 - nothing of it may reach the host's loop, or other runs
            self.defect(execution, exc)

    def guard_call(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do the same in a call by a body: a full stack, no memory and Ctrl-C are the body's failure."""
        try:
            action(*args)
        except BODYS_OWN:
            raise
        except Exception as exc:  # noqa: BLE001 - a defect of ours
            self.defect(execution, exc)

    def defect(self, execution: Execution, exc: BaseException) -> EngineError:
        """End a run by a defect of ours that was found in any thread; return what is raised to who called."""
        # Where the stack is full, nothing can be done before it is left.
        if self.on_loop() and not isinstance(exc, RecursionError):
            self.crash_run(execution, exc)
        else:
            self.soon(self.crash_run, execution, exc)
        return EngineError(f"run {execution.id} has crashed by a defect of the engine: {exc!r}")

    def on_loop(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.get_ident() == self._thread

    async def start_child(self, attempt: Attempt, job: str, params: Mapping[str, object] | None) -> object:
        """Start a child run; the Server says how."""
        return await self.child_starter(attempt, job, params)

    # ---- the pump

    def wake(self) -> None:
        """Have the pump called soon. A pump that is running looks again by itself."""
        if not self.pumping and self._loop is not None:
            self.woken = True
            self._loop.wake()

    def pump_now(self) -> None:
        """Start what an ended body made ready, without a turn of the loop where it allows that."""
        if not self.pumping and self._loop is not None:
            self._loop.pump_now(True)

    def turn_now(self) -> None:
        """Do what a turn of the loop does, in a callback of `soon` that has let attempts end."""
        if not self.pumping and self._loop is not None:
            self._loop.pump_now(False)

    def _pump(self, within_turn: bool) -> bool:  # noqa: FBT001 - the loop calls it
        """Start what is ready, for one slice of time. True: there is more.

        `within_turn` says that it is called from a body's last step, and not by the loop.
        """
        if not within_turn:
            self.woken = False
        if self._loop is None:
            return False
        self.pumping, self._began = True, False
        try:
            more = not within_turn and self._go_on()
            # Other runs start attempts while a mass move goes on.
            batch = self._batch_size
            if batch.left_at is not None and not within_turn:
                batch.adapt()
            self.attempts.starts_left = CHUNK if within_turn else batch.size
            more = self._start_ready() or more
            # What has just ended in its first step may have left a mass move, or words to be found.
            more = more or bool(self.commands.waiting or self.budget.waiting)
            if self.news:
                more = self._tell_news() or more
            if self.recorder is not None and self.recorder.is_due:
                if within_turn:
                    more = True  # what ends in this turn of the loop is written together
                else:
                    self.recorder.flush()
        except BaseException as exc:  # noqa: BLE001 - a defect of ours must not end the host's loop
            self.crash(exc)
            more = False
        finally:
            self.pumping = False
            current_attempt.set(None)
        if more and not within_turn:  # only after a full turn the time until the next one tells anything
            self._batch_size.left_at = time.perf_counter()
        if self.deadlines.timers.changed:
            self.deadlines.set_alarm()
        return more

    def _go_on(self) -> bool:
        """Go on with what did not fit into the turns before. Return whether there is more."""
        more = bool(self.budget.waiting) and self.budget.new_turn()
        return (bool(self.commands.waiting) and self.commands.work()) or more

    def _start_ready(self) -> bool:
        """Take and start attempts until nothing is ready (False) or the slice is over (True)."""
        dispatcher, attempts, taken = self.dispatcher, self.attempts, self.attempts.taken
        take, drained, start = dispatcher.take, dispatcher.is_drained, attempts.start
        now = self.clock()
        end = now + SLICE
        while attempts.starts_left > 0:
            if taken:
                execution, units = taken.popleft()
            else:
                try:
                    offer = take(min(CHUNK, attempts.starts_left))
                except BaseException as exc:  # noqa: BLE001 - a defect of ours
                    self._crash_first(exc)
                    continue
                if offer is None:
                    return False
                run_id, units = offer
                units.reverse()  # `start` takes them from the end: the first that was ready begins first
                execution = self.running[run_id]
            self._began = True
            try:
                now = start(execution, units, now, end)
            except BaseException as exc:  # noqa: BLE001 - a defect of ours
                self._crash_starting(execution, units, exc)
                now = self.clock()
            if execution.watchers is not None:
                self.news[execution] = None
            if now > end:
                return True
            if drained() and not taken:
                return False
        return True

    def _crash_first(self, exc: BaseException) -> None:
        """Something failed while units of the first run in the dispatcher's list were taken."""
        run_id = self.dispatcher.first
        if run_id is None:
            raise exc
        self.crash_run(self.running[run_id], exc)

    def _crash_starting(self, execution: Execution, units: list[int], exc: BaseException) -> None:
        """Something failed while one of these units was started: they give their places back."""
        self.attempts.starting = None
        self.crash_run(execution, exc)
        for unit in units:  # those that it had not come to
            self.guard(execution, execution.machine.ready.free, unit)

    def _tell_news(self) -> bool:
        """Wake readers, unless they were just woken and more is coming. Return whether to look again.

        Bodies that suspend take a turn of the loop for a few of them; a turn of every reader for each would
        cost more than the tasks do. Real time, because nothing may wait for this in virtual time.
        """
        now = time.perf_counter()
        if self._began and now - self._told_at < SLICE:
            return True
        self._told_at = now
        news, self.news = self.news, {}
        for execution in news:
            self.guard(execution, execution.tell)
        return False

    # ---- runs move

    def run_moved(self, execution: Execution, state: RunState) -> None:
        """Take note that the run itself has moved: tell of it, and stop or start its clock."""
        before, execution.state = execution.state, state
        if state.ended:
            left_at = None if execution.recording is None else execution.recording.left_at
            execution.ended_at = self.clock() if left_at is None else left_at
        self.observer.run_moved(execution, EVENT_OF_MOVE[before, state])
        if state is RunState.RUNNING:
            if execution.remaining is not None:
                self.requests.arm_run_timeout(execution)
            if before is not RunState.QUEUED:
                self.callbacks.resume(execution)
        elif state is RunState.PAUSING:
            self.callbacks.pause(execution)
        elif state is RunState.PAUSED:
            self.requests.run_paused(execution)
        elif state.ended:
            self._run_ended(execution)

    def _run_ended(self, execution: Execution) -> None:
        self.running.pop(execution.id, None)
        if execution.recording is not None:
            execution.recording.close()
        if execution.known_log is not None:
            execution.journal.close()
        self.admission.leave(execution)
        self.forget_timers(execution)
        execution.elements.clear()
        execution.context = None  # what it holds is kept no longer than what runs
        starter = execution.started_by
        if starter is not None:
            starter.execution.children.discard(execution)
        if len(execution.machine.record.task_states) < MANY:
            self.guard(execution, execution.conclude)
        else:  # to compact it takes some milliseconds, to which this turn's share is not to be added
            self.guard(execution, execution.tell_end)
            self.budget.in_pieces(self._compacting(execution))
            self.wake()
        self.admit()

    def _compacting(self, execution: Execution) -> Iterator[None]:
        try:
            yield from execution.compacting()
        except Exception as exc:  # noqa: BLE001 - a defect of ours
            self.crash_run(execution, exc)

    def forget_timers(self, execution: Execution) -> None:
        """Forget what a run was to be called back for."""
        for timer in (execution.timer, execution.finals_timer, *execution.retries.values()):
            if timer is not None:
                timer.cancel()
        execution.retries.clear()

    def crash(self, exc: BaseException) -> None:
        """The loop is broken, or the pump itself: nothing can be carried out any more, so all runs have crashed."""
        self.failure = exc
        self.attempts.taken.clear()
        self.commands.waiting.clear()
        self.budget.clear()
        for execution in list(self.running.values()):
            self.crash_run(execution, exc)

    def crash_run(self, execution: Execution, exc: BaseException) -> None:
        """End a run as crashed: a defect of ours has come up while it was served. Nothing else is touched."""
        self.defects.crash_run(execution, exc)

    # ---- the clock

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called at `when`; the timer that is returned can be cancelled."""
        return self.deadlines.call_at(when, callback)

    def _on_alarm(self) -> None:
        try:
            self.deadlines.meet()
        except BaseException as exc:  # noqa: BLE001 - a defect of ours must not end the host's loop
            self.crash(exc)
        self.deadlines.set_alarm()
        self.wake()

    def _attempt_expired(self, attempt: Attempt) -> None:
        self.guard(attempt.execution, self.canceller.expired, attempt)

    # ---- all runs

    @property
    def begun(self) -> int:
        """How many runs there have been."""
        return self._last_id

    def now(self) -> dt.datetime:
        """Return the time, as aware UTC."""
        return dt.datetime.fromtimestamp(self.wall_clock.now(), dt.UTC)

    async def end_all(self, verb: str, reason: str, grace: float | None) -> None:
        """Make the same request on every live run; the loop has turns meanwhile."""
        for execution in list(self.running.values()):
            if not execution.state.ended:
                self.requests.ask(execution, verb, reason, grace)
                await anyio.lowlevel.checkpoint()

    async def all_ended(self) -> None:
        """Wait until no run is live."""
        while self.running:
            with contextlib.suppress(SuspendedError):
                await next(iter(self.running.values())).wait()
                continue
            return

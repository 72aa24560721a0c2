"""Recorder: what runs do is written into a journal, and an outcome is believed when it is durable.

The gate stands *before* the machine: an attempt that has ended shows `running` and keeps its places until the row of
its outcome is committed; only then is the machine told. So nothing is seen, and nothing starts, that a crash could take
back. What follows from committed facts needs no commit of its own: its rows go with the next transaction.
"""

from __future__ import annotations

import json
import logging
from array import array
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from scattersphere.abc.journal import (
    AttemptRow,
    BundleRow,
    DefinitionRow,
    DroppedRow,
    DurabilityLevel,
    LifeRow,
    LogRow,
    MetaRow,
    MovesRow,
    RunRow,
    RunStateRow,
    StepRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CANCELLING,
    CRASHED,
    FAILED,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ENDED_FROM,
    UP_FOR_RETRY,
)
from scattersphere.engine.machine.facts import facts_of
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.engine.timers import within
from scattersphere.errors import JournalError, SuspendedError
from scattersphere.logs.failures import text_of
from scattersphere.logs.runlog import ENGINE_LOGGER, current_attempt
from scattersphere.model import states
from scattersphere.model.logs import pack_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scattersphere.abc.journal import Journal, JournalState, Row
    from scattersphere.engine.attempt import Attempt
    from scattersphere.engine.execution import Execution, Failure
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.timers import WallClock
    from scattersphere.registry.records import BundleVersion

BLOCK = 1_000
"""Numbers of runs that are reserved by one commit: each is known at once, and never comes again."""
LOW = BLOCK // 2
"""With so many left the next block is reserved."""
BACKLOG_ROWS, BACKLOG_BYTES = 100_000, 32 << 20
"""With more that is not committed, runs that need not wait for their commits wait all the same."""
FRUITLESS = 3
"""Restarts without a new outcome after which what executed has crashed."""
INLINE_TASKS = 200
"""Tasks of a definition whose text is made on the loop's thread: about a millisecond."""
CLOCK_BEHIND = 2.0
"""Seconds by which the clock may be behind the journal before that is a problem: clocks are set by as much."""
MICRO = 1_000_000
_MASK = (1 << STATE_BITS) - 1
_TO_RUNNING, _TO_SUCCEEDED = (
    bytes(byte for byte in range(256) if byte & _MASK == state) for state in (RUNNING, SUCCEEDED)
)
"""The last bytes of moves to these states; no move of a run, `~state`, ends with one of them."""
_USUAL = _TO_RUNNING + _TO_SUCCEEDED
DURABILITY = {
    states.Durability.STRICT: DurabilityLevel.STRICT,
    states.Durability.RELAXED: DurabilityLevel.RELAXED,
    states.Durability.NONE: DurabilityLevel.NONE,
}
FIRST_IS_TIMEOUT, FAILING_FAST, FINALS_OVER, WITHHELD = 1, 2, 4, 8
"""The bits of `RunStateRow.flags`."""


class ResultCodec(Protocol):
    """Writes the values of results: exactly, or not at all."""

    def is_quick(self, value: Any) -> bool:
        """Whether `encode` runs no code of users for it, and takes next to no time."""
        ...

    def encode(self, value: Any, versions: Iterable[BundleVersion]) -> tuple[int, bytes]:
        """Return the form and the bytes of a value. Raises whatever it likes where it cannot be kept."""
        ...

    def decode(self, form: int, data: bytes, versions: Iterable[BundleVersion]) -> Any:
        """Return the value again, equal and of the same types. Raises where it cannot be read."""
        ...


class RecorderHost(Protocol):
    """What recording needs of the executor."""

    clock: Callable[[], float]
    wall_clock: WallClock

    @property
    def loop(self) -> Loop:
        """The loop that bodies live on."""
        ...

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back on the loop's thread; for any thread."""

    def wake(self) -> None:
        """Have the pump called soon; at its end it calls `flush` where something is due."""

    def turn_now(self) -> None:
        """Have the pump called now, or soon where it is at work."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: Any) -> None:
        """Do something on behalf of a run."""


class Recorder:
    """Writes for all runs of a Server: numbers, lives, code, and what happens to each run (`Recording`)."""

    def __init__(
        self,
        host: RecorderHost,
        journal: Journal,
        codec: ResultCodec,
        on_failed: Callable[[str], None],
        on_mended: Callable[[], None],
    ) -> None:
        self.host = host
        self.journal = journal
        self.codec = codec
        self.id: str = ""
        self.life: LifeRow | None = None
        self.failure: str | None = None
        """Why nothing is committed at present."""
        self.is_lost: bool = False
        """Whether this process commits no more."""
        self.is_open: bool = False
        self.is_due: bool = False
        """Whether something is to be written at the end of this turn of the loop."""
        self.is_full: bool = False
        """Whether so much was not committed, when last something was written, that even what need not wait does."""
        self._on_failed = on_failed
        self._on_mended = on_mended
        self._next = self._reserved = self._asked = 1
        self._wall = 0
        self._changed: dict[Recording, None] = {}
        self._digests: WeakKeyDictionary[Plan, str] = WeakKeyDictionary()
        self._special: WeakKeyDictionary[Plan, tuple[frozenset[int], frozenset[int]]] = WeakKeyDictionary()
        self._definitions: set[str] = set()
        self._bundles: set[str] = set()
        self._waiting: dict[anyio.Event, bool] = {}
        """Who waits for a commit, and whether also while commits do not succeed."""

    # ---- what the journal says (`JournalHost`)

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back on the loop's thread; from any thread."""
        self.host.soon(callback, *args)

    def journal_failed(self, words: str, *, lasting: bool) -> None:
        """Nothing is committed until further notice: what would go on holds."""
        self.is_lost = self.is_lost or lasting
        if lasting:
            words += "; this process writes no more: restart the program"
        if words != self.failure:
            self.failure = words
            self._on_failed(words)
        self._wake_waiting(lasting=lasting)

    def journal_mended(self) -> None:
        """Commits succeed again."""
        if self.failure is not None and not self.is_lost:
            self.failure = None
            self._on_mended()

    # ---- life

    def now(self) -> int:
        """Return the time on the wall in microseconds, never earlier than what the journal has seen."""
        self._wall = max(self._wall, round(self.host.wall_clock.now() * MICRO))
        return self._wall

    @property
    def problem(self) -> str:
        """What is wrong: nothing is committed, or the clock was set back; "" where all is well."""
        if self.failure is not None:
            return self.failure
        behind = self._wall / MICRO - self.host.wall_clock.now()
        if behind < CLOCK_BEHIND:
            return ""
        return f"the clock on the wall is {behind:.0f} s behind what the journal has seen: times stand still until then"

    def open(self, state: JournalState, *, pid: int, version: str) -> list[Row]:
        """Begin a new life; return the rows of its first transaction, beside which those of its runs come."""
        self.id, self._wall = state.id, state.wall
        number = state.lives[-1].number + 1 if state.lives else 1
        self.life = LifeRow(number, self.now(), pid, version, None)
        self._next, self._asked = state.next_run, state.next_run + BLOCK
        self.is_open = True
        return [self._meta(), self.life]

    def begun(self) -> None:
        """The first transaction is durable: numbers may be given."""
        self._reserved = self._asked

    def _meta(self) -> MetaRow:
        return MetaRow(next_run=self._asked, wall=self.now())

    def close(self) -> None:
        """Write the last rows of this life: it was closed in order."""
        self.flush()
        if self.life is not None:
            self.life = self.life._replace(suspended=self.now())
            self._asked = self._reserved = self._next  # what was not given to any run is the next life's
            self.write([self._meta(), self.life])
        self.is_open = False
        self._wake_waiting()

    def take_number(self) -> int:
        """Return the number of a new run. Raises `JournalError` where none is reserved, or nothing is committed."""
        self.check()
        if self._next >= self._reserved:
            raise JournalError("no numbers of runs are left before the journal has committed more; try again")
        number = self._next
        self._next += 1
        if self._asked - self._next < LOW:
            self._asked += BLOCK
            asked = self._asked
            self.write([self._meta()], lambda: self._reserve(asked))
        return number

    def _reserve(self, asked: int) -> None:
        self._reserved = asked

    def check(self) -> None:
        """Raise `JournalError` while the journal commits nothing: no new run is taken."""
        if self.failure is not None:
            raise JournalError(f"the journal commits nothing at present: {self.failure}")

    # ---- writing

    def write(self, rows: Sequence[Row], committed: Callable[[], object] | None = None) -> None:
        """Write one transaction."""
        self.journal.write(rows, committed)
        count, size = self.journal.backlog
        self.is_full = count > BACKLOG_ROWS or size > BACKLOG_BYTES

    def touch(self, recording: Recording) -> None:
        """A run has changed: write that at the end of this turn, with all that changes till then."""
        self._changed[recording] = None
        if not self.is_due and self.is_open:
            self.is_due = True
            self.host.wake()

    def flush(self) -> None:
        """Write what has changed, of all runs in one transaction."""
        self.is_due = False
        if self.is_open:
            changes = self.changes()
            if changes.rows:
                self.write(changes.rows, changes.committed)

    def changes(self) -> RunChanges:
        """Take what has changed, and was not written."""
        changed, self._changed = self._changed, {}
        changes = RunChanges()
        for recording in changed:
            if recording.is_submitted:
                self.host.guard(recording.execution, recording.add_to, changes)
        return changes

    async def committed(self) -> None:
        """Wait until all that was asked for is durable; where nothing waits to be written, at once.

        Raises `JournalError` while the journal commits nothing, `SuspendedError` where it is closed before.
        """
        self.flush()
        if not self.is_open or self.journal.backlog == (0, 0):
            return
        try:
            self.check()
            await self.wait_for(lambda done: self.write([], done), patient=False)
        except JournalError as error:
            words = f"{error}; what was asked for has taken effect, and a crash would take it back"
            raise JournalError(words) from None

    async def wait_for(self, ask: Callable[[Callable[[], None]], object], *, patient: bool = True) -> None:
        """Wait until the callback that `ask` is given is called; unless `patient`, only while commits succeed.

        Raises `JournalError` where it never will be, `SuspendedError`.
        """
        event, done = anyio.Event(), False

        def committed() -> None:
            nonlocal done
            done = True
            event.set()

        self._waiting[event] = patient
        try:
            ask(committed)
            if not done and not self.is_lost:
                await event.wait()
        finally:
            del self._waiting[event]
        if not done:
            self.check()
            if self.is_open and not self.is_lost:  # the failure that woke this is over by now
                raise JournalError("the journal could not commit for a moment: ask again whether it has")
            raise SuspendedError("the Server was closed before the journal had committed this")

    def _wake_waiting(self, *, lasting: bool = True) -> None:
        for event, patient in self._waiting.items():
            if lasting or not patient:
                event.set()

    # ---- runs

    async def ready(self, plan: Plan) -> list[Row]:
        """Return the rows of what a run of a plan needs in the journal: its definition, its code. In a thread."""
        rows: list[Row] = []
        if not self.has(plan):
            text = await _in_thread(plan.definition.dumps)
            digest = self._digests[plan] = definition_digest(text)
            rows.append(DefinitionRow(digest, plan.job, text))
        for version in plan.versions:
            if version.digest and version.digest not in self._bundles:
                content = await _in_thread(version.export)
                rows.append(BundleRow(version.digest, content))
        return rows

    def ready_now(self, plan: Plan) -> list[Row] | None:
        """Do as `ready` where that takes next to no time; None: it does not."""
        if any(version.digest and version.digest not in self._bundles for version in plan.versions):
            return None
        if self.has(plan):
            return []
        if len(plan.tasks) > INLINE_TASKS:
            return None
        text = plan.definition.dumps()
        digest = self._digests[plan] = definition_digest(text)
        return [] if digest in self._definitions else [DefinitionRow(digest, plan.job, text)]

    def special_tasks(self, plan: Plan) -> tuple[frozenset[int], frozenset[int]]:
        """Return the tasks of a plan that fail at a restart, and those whose results are dropped."""
        found = self._special.get(plan)
        if found is None:
            tasks = list(enumerate(plan.definition.tasks.values()))
            fails = frozenset(number for number, task in tasks if task.on_restart is states.TaskRestart.FAIL)
            dropped = frozenset(number for number, task in tasks if not task.keep_results)
            found = self._special[plan] = fails, dropped
        return found

    def has(self, plan: Plan) -> bool:
        """Whether the definition of a plan is in the journal, or on its way."""
        return self._digests.get(plan) in self._definitions

    def digest_of(self, plan: Plan) -> str:
        """Return what the definition of a plan is known by, after `ready` or `ready_now`."""
        return self._digests[plan]

    def written(self, rows: Iterable[Row]) -> None:
        """Note which definitions and versions of code the journal has."""
        for row in rows:
            if isinstance(row, DefinitionRow):
                self._definitions.add(row.digest)
            elif isinstance(row, BundleRow):
                self._bundles.add(row.digest)


class RunChanges:
    """What has changed in some runs: one transaction, and what is to be done when that is durable."""

    __slots__ = ("_then", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._then: list[Callable[[], object]] = []

    def then(self, callback: Callable[[], object]) -> None:
        """Have `callback` called after those that were given before."""
        self._then.append(callback)

    @property
    def committed(self) -> Callable[[], object] | None:
        """What the journal is to call; None: nobody waits."""
        return self._call_all if self._then else None

    def _call_all(self) -> None:
        for callback in self._then:
            callback()


def definition_digest(text: str) -> str:
    """Return what a definition is known by in the journal."""
    return sha256(text.encode()).hexdigest()[:32]


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=False)


def failure_text(failure: Failure | None, **more: Any) -> str | None:
    """Return a failure as the journal keeps it."""
    said: dict[str, Any] = {}
    if failure is not None:
        said = {"type": failure.type, "message": failure.message, "traceback": failure.traceback}
    said |= {name: value for name, value in more.items() if value}
    return json.dumps(said) if said else None


class Recording:
    """Writes what happens to one run, and holds back what must be durable first."""

    def __init__(  # noqa: PLR0915 - its state, line by line
        self, recorder: Recorder, execution: Execution, durability: DurabilityLevel
    ) -> None:
        self.recorder = recorder
        self.execution = execution
        self.durability = durability
        self.is_submitted: bool = False
        """Whether the run itself is written."""
        self.is_committed: bool = False
        """Whether the run itself is durable: before that nothing of it starts."""
        self._then: list[Callable[[], object]] = []
        """What is to be done when it is."""
        self.recovered: int = 0
        self.fruitless: int = 0
        self.spent: int = 0
        """Microseconds of the run's timeout that earlier lives have used up."""
        self.base: int = 0
        """How many moves earlier lives have written."""
        self.lines_before: int = 0
        """How many lines of the log earlier lives have written."""
        self.concluded: tuple[int, ...] = ()
        """Tasks that had ended when the run was restored, and whose row says so only now."""
        self.at_gate: dict[Attempt, None] = {}
        self.left_at: float | None = None
        """When the run ended, which is told when that is durable."""
        self._outcomes: list[Row] = []
        """What ended since `rows` was last called, ..."""
        self._successes: list[tuple[int, float, str]] = []
        """... and what succeeded at once: unit, time, JSON of the value."""
        self._held: list[tuple[Attempt, Callable[[], object]]] = []
        """Which of them wait, and what tells the machine."""
        self._given_up: dict[Attempt, list[Callable[[], object]]] = {}
        """Attempts whose giving up is at the gate, each with what is told after it: how it has ended meanwhile."""
        self._may_begin: set[int] = set()
        """Units whose start is durable, and that are started next."""
        self._written = 0
        self._lines = 0
        self._told: dict[int, int] = {}
        """The states that rows have told of units before the machine knew."""
        self._noted: set[int] = set()
        """Moves to `succeeded` that were told in the same way: thousands in a turn."""
        self._last: RunStateRow | None = None
        self._looks: tuple[object, ...] = ()
        """What that row was made of."""
        definition = execution.plan.definition
        self._fails, dropped = recorder.special_tasks(execution.plan)
        self._droppable: set[int] = set(dropped)
        """Tasks whose values are to be given up when nobody reads them any more."""
        self.apart: set[int] = self._droppable | self._fails
        """Units that have a row of their own, or are to have one: it would hold against a later `SuccessesRow`."""
        self._unkept: set[str] = set()
        """Tasks of which that was said."""
        self._size = len(definition.tasks)
        self._may_pass = durability is DurabilityLevel.RELAXED
        self._times_out = definition.timeout is not None

    def __repr__(self) -> str:
        return f"<Recording of run {self.execution.id}: {len(self.at_gate)} outcomes at the gate>"

    # ---- submitting

    def submit(self, row: RunRow, more: Sequence[Row]) -> None:
        """Write the run; when that is durable it may start."""
        self.is_submitted = True
        changes = self.recorder.changes()  # what this run replaces is cancelled in the same transaction
        changes.rows[:0] = [*more, row, *self.rows()]
        self.recorder.written(more)
        changes.then(partial(self.recorder.host.guard, self.execution, self._submitted))
        self.recorder.write(changes.rows, changes.committed)

    def give_up_row(self) -> None:
        """The run cannot be written, and has ended because of that: nobody waits for its row any more."""
        self._submitted()

    def _submitted(self) -> None:
        self.is_committed = True
        callbacks, self._then = self._then, []
        for callback in callbacks:
            callback()

    def when_committed(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when the run is durable."""
        if self.is_committed:
            callback()
        else:
            self._then.append(callback)

    # ---- the gate

    def note(self, attempt: Attempt, value: Any, now: float) -> bool:
        """Note that a task has succeeded, where the machine may be told at once. False: `hold` is to be asked.

        The hot path of `relaxed`: all that is done for a task before its turn is written.
        """
        unit, recorder = attempt.unit, self.recorder
        if (
            not self._may_pass
            or attempt.attempt_number != 1
            or unit >= self._size
            or unit in self.apart
            or attempt.is_committed
            or recorder.is_full
            or not recorder.is_open
            or self.execution.machine.record.task_states[unit] != RUNNING
        ):
            return False
        text = "null" if value is None else self._text(value)
        if text is None:
            return False
        if not self._successes:
            self.fruitless = 0
            recorder.touch(self)
        self._successes.append((unit, now, text))
        return True

    def _text(self, value: Any) -> str | None:
        """Return the JSON of a value that is small and exact; None for others."""
        codec = self.recorder.codec
        if value is None:
            return "null"
        if not codec.is_quick(value):
            return None
        form, data = codec.encode(value, self.execution.plan.versions)
        return data.decode() if form == ValueForm.JSON else None

    def hold(
        self,
        attempt: Attempt,
        kind: int,
        value: Any,
        failure: Failure | None,
        release: Callable[[], object],
        *,
        retryable: bool = True,
    ) -> bool:
        """Write how an attempt has ended. True: the machine is told by `release`, when that is durable."""
        machine, unit = self.execution.machine, attempt.unit
        if attempt in self._given_up:
            self._given_up[attempt].append(release)
            return True
        if attempt.is_committed or machine.record.task_states[unit] not in (RUNNING, CANCELLING):
            return False
        if unit in machine.record.stuck:
            return False
        if not self.recorder.is_open:
            return self.execution.is_suspended  # the run goes on in another life, which does not know of it
        now = attempt.left_at = self.recorder.host.clock()
        state = self._outlook(attempt, kind, retryable=retryable)
        if state != SUCCEEDED:
            text = failure_text(failure) if state != CANCELLED else None
            return self._write_outcome(attempt, state, ValueForm.NONE, None, text, release)
        is_first = attempt.attempt_number == 1 and unit < self._size and unit not in self.apart
        if is_first and (text := self._text(value)) is not None:
            self._successes.append((unit, now, text))
            return self._pass_or_wait(attempt, release)
        if not self.recorder.codec.is_quick(value):
            self.at_gate[attempt] = None
            self.recorder.host.loop.start(self._encode(attempt, value, release), "scattersphere journal")
            return True
        return self._write_outcome(attempt, state, *self.encoded(value), release)

    def give_up(self, attempt: Attempt, failure: Failure | None, release: Callable[[], object]) -> bool:
        """Write that an attempt refuses to end and is given up. True: `release` is called when that is durable."""
        if not self.recorder.is_open:
            return self.execution.is_suspended
        is_cancelled = self.execution.machine.asked_of(attempt.unit) == "cancel"
        state, text = (CANCELLED, None) if is_cancelled else (FAILED, failure_text(failure))
        attempt.left_at, self._given_up[attempt] = self.recorder.host.clock(), []

        def given_up() -> None:
            attempt.left_at, ended = None, self._given_up.pop(attempt)
            release()
            for tell in ended:
                tell()

        if self._write_outcome(attempt, state, ValueForm.NONE, None, text, given_up):
            return True
        attempt.left_at = None
        del self._given_up[attempt]
        return False

    async def _encode(self, attempt: Attempt, value: Any, release: Callable[[], object]) -> None:
        """Encode in a thread: it may run code of users, and take its time."""
        current_attempt.set(None)
        form, data, text = await _in_thread(partial(self.encoded, value))
        self.recorder.host.guard(self.execution, self._encoded, attempt, form, data, text, release)

    def _encoded(
        self, attempt: Attempt, form: int, data: bytes | None, text: str | None, release: Callable[[], object]
    ) -> None:
        if not self._write_outcome(attempt, SUCCEEDED, form, data, text, release):
            self._release_all([(attempt, release)])

    def encoded(self, value: Any) -> tuple[int, bytes | None, str | None]:
        """Return form, bytes, and why it could not be kept."""
        try:
            if self.durability is DurabilityLevel.NONE and not self.recorder.codec.is_quick(value):
                raise ValueError('of a run with "durability": "none" only small values are kept')  # noqa: TRY301 - as others
            form, data = self.recorder.codec.encode(value, self.execution.plan.versions)
        except BaseException as exc:  # noqa: BLE001 - whatever the code of a value raises, it cannot be kept
            return ValueForm.UNKEPT, None, json.dumps({"unkept": text_of(exc)[:500] or type(exc).__name__})
        return form, data, None

    def _write_outcome(
        self,
        attempt: Attempt,
        state: int,
        form: int,
        data: bytes | None,
        text: str | None,
        release: Callable[[], object],
    ) -> bool:
        """Write the row of an outcome. False: it may be told at once."""
        execution, unit = self.execution, attempt.unit
        assert attempt.left_at is not None  # noqa: S101 - for type checkers
        due = None
        if state == UP_FOR_RETRY:
            wait = execution.retry_wait(unit)
            due = self.micros(attempt.left_at + wait)
            number = execution.machine.record.attempts[unit]
            self._outcomes.append(AttemptRow(execution.id, unit, number, FAILED, text, self.recorder.now()))
        if form == ValueForm.UNKEPT:
            self._tell_unkept(attempt, text or "")
        self._outcomes.append(self._step(unit, state, form, data, text, ended=attempt.left_at, due=due))
        self._told[unit] = state
        return self._pass_or_wait(attempt, release)

    def _tell_unkept(self, attempt: Attempt, text: str) -> None:
        """Say once of a task that its results are not kept, and what that means."""
        if attempt.task not in self._unkept:
            self._unkept.add(attempt.task)
            words = f"its result is not in the journal, and made again after a restart: {json.loads(text)['unkept']}"
            self.execution.log.append_for(attempt, logging.WARNING, words, logger=ENGINE_LOGGER)

    def _pass_or_wait(self, attempt: Attempt, release: Callable[[], object]) -> bool:
        """Have what was noted written at the end of this turn. True: the machine is told when it is durable."""
        self.fruitless = 0
        self.recorder.touch(self)
        if self._may_pass and not self.recorder.is_full:
            return False
        self.at_gate[attempt] = None
        self._held.append((attempt, release))
        return True

    def _release_all(self, held: list[tuple[Attempt, Callable[[], object]]]) -> None:
        """Tell the machine of outcomes that were committed together, in the order in which they came."""
        guard, execution = self.recorder.host.guard, self.execution
        for attempt, release in held:
            guard(execution, self._release, attempt, release)
        self.recorder.host.turn_now()

    def _release(self, attempt: Attempt, release: Callable[[], object]) -> None:
        self.at_gate.pop(attempt, None)
        attempt.is_committed = True
        release()

    def _outlook(self, attempt: Attempt, kind: int, *, retryable: bool) -> int:
        """Return the state that the machine will give the unit, as things are now."""
        machine, unit = self.execution.machine, attempt.unit
        if kind == SUCCEEDED:
            return SUCCEEDED
        is_cancelled = machine.record.task_states[unit] == CANCELLING and machine.asked_of(unit) == "cancel"
        if kind == CRASHED and attempt.killed:
            kind = CANCELLED
        if kind == CANCELLED:
            kind = CANCELLED if is_cancelled else FAILED
        if kind in (FAILED, CRASHED) and retryable and not is_cancelled and machine.would_retry(unit):
            return UP_FOR_RETRY
        return kind

    # ---- starts

    @property
    def holds_starts(self) -> bool:
        """Whether there may be starts that must be durable before their bodies."""
        return bool(self.fruitless or self._fails)

    def holds_start(self, attempt: Attempt, launch: Callable[[], object]) -> bool:
        """Write that an attempt starts, where that must be durable before its body. True: `launch` is called then."""
        machine, unit = self.execution.machine, attempt.unit
        task = machine.record.task_of(unit)
        if not self.fruitless and task not in self._fails:
            return False
        if unit in self._may_begin:
            self._may_begin.discard(unit)
            return False
        step = self._step(unit, RUNNING, ValueForm.NONE, None, None)
        started = self.micros(self.recorder.host.clock())

        def durable() -> None:
            self._may_begin.add(unit)
            launch()

        self._write_now(durable, step._replace(attempts=attempt.attempt_number, started=started))
        return True

    def _write_now(self, then: Callable[[], object], *rows: Row) -> None:
        """Write what has changed, and more, without waiting for the end of this turn; `then` is called afterwards."""
        changes = RunChanges()
        self.add_to(changes)
        changes.rows += rows
        changes.then(partial(self.recorder.host.guard, self.execution, then))
        self.recorder.write(changes.rows, changes.committed)

    # ---- the end

    def end(self, then: Callable[[], object]) -> None:
        """Write that the run has ended; `then` is called when that is durable."""
        self.execution.is_end_held = True
        self.left_at = self.recorder.host.clock()

        def ended() -> None:
            self.execution.is_end_held = False
            then()

        if not self.recorder.is_open or self.recorder.is_lost:
            ended()
        elif not self.is_submitted:  # its row comes first, and has all of this in its transaction
            self.when_committed(ended)
        else:
            self._write_now(ended)

    def close(self) -> None:
        """The run has ended: what was not written yet is, and nothing more."""
        if self.recorder.is_open and self.is_submitted:  # else all of it is written with its row, if that is
            changes = RunChanges()
            self.add_to(changes)
            if changes.rows:
                self.recorder.write(changes.rows, changes.committed)
        self.execution.recording, self.execution.is_end_held = None, False

    # ---- rows

    @property
    def _since(self) -> int:
        """When the loop's clock was zero, in microseconds since 1970."""
        return round(self.execution.epoch * MICRO)

    def micros(self, clock: float) -> int:
        """Return the instant of the loop's clock in microseconds since 1970."""
        return self._since + int(clock * MICRO)

    def add_to(self, changes: RunChanges) -> None:
        """Add what has changed to a transaction."""
        changes.rows += self.rows()
        if self._held:
            changes.then(partial(self._release_all, self._held))
            self._held = []

    def rows(self) -> list[Row]:
        """Return the rows of all that has changed since they were last asked for."""
        rows: list[Row] = [*self._log_rows()]
        machine, execution = self.execution.machine, self.execution
        outcomes, self._outcomes = self._outcomes, []
        successes, self._successes = self._successes, []
        spent = bool(outcomes or successes)
        if successes:
            outcomes.append(self._success_row(successes))
        rows += outcomes  # before what the machine has made of them
        moves = machine.record.journal
        if self._written < len(moves):
            new = moves[self._written :]
            data = array("q", new).tobytes()
            first = self.base + self._written
            assert self.recorder.life is not None  # noqa: S101 - for type checkers
            rows.append(MovesRow(execution.id, first, self.recorder.life.number, self.recorder.now(), data))
            self._written = len(moves)
            if not self._tells_all(successes, data[::8]):
                self._noted.update([unit << STATE_BITS | SUCCEEDED for unit, _, _ in successes])
                rows += self._derived(new)
            if self._droppable:
                rows += self._dropped_rows(new)
        else:
            self._noted.update([unit << STATE_BITS | SUCCEEDED for unit, _, _ in successes])
        concluded, self.concluded = self.concluded, ()
        rows += [self._derived_step(task, machine.record.task_states[task]) for task in concluded]
        rows += self._state_rows(spent=spent)
        return rows

    def _tells_all(self, successes: Sequence[object], moves: bytes) -> bool:
        """Whether moves, of which these are the last bytes, are just those to `running`, and of these successes.

        So it is where the machine was told at once, and nothing else has happened: the moves need no closer look.
        """
        if not self._may_pass or self._held or self._noted or moves.translate(None, _USUAL):
            return False
        ended = len(moves) - len(moves.translate(None, _TO_SUCCEEDED))
        return ended == len(successes) and not self.execution.machine.record.is_over

    def _derived(self, moves: Sequence[int]) -> list[Row]:
        """Return the rows of units that have ended, or wait for a retry, without an outcome that was held back."""
        states, told, noted = self.execution.machine.record.task_states, self._told, self._noted
        # Beginnings make no row, and nearly all others were noted: of thousands of moves few are left.
        left = [move for move in moves if move & _MASK != RUNNING and move not in noted and move >= 0]
        noted.difference_update(moves)
        rows: list[Row] = []
        for unit, state in {move >> STATE_BITS: move & _MASK for move in left}.items():
            if state == CANCELLING and (unit in told or unit << STATE_BITS | SUCCEEDED in noted):
                continue  # too late: how it has ended is written
            if told.get(unit) == state:
                del told[unit]
            elif states[unit] == state >= CANCELLING:
                rows.append(self._derived_step(unit, state))
        return rows

    def _dropped_rows(self, moves: Sequence[int]) -> list[Row]:
        """Give up the values whose last reader has ended by these moves (`keep_results: false`)."""
        record, run = self.execution.machine.record, self.execution.id
        upstreams = self.execution.plan.graph.upstreams
        ended = {
            record.task_of(move >> STATE_BITS)
            for move in moves
            if move >= 0 and move & _MASK >= TASK_ENDED_FROM
        }
        read = {task for reader in ended for task in (reader, *upstreams[reader])} & self._droppable
        rows: list[Row] = []
        for task in sorted(read):
            if record.task_states[task] == SUCCEEDED and record.results[task] is DROPPED:
                self._droppable.discard(task)
                units = (task, *(record.maps[task].units if task in record.maps else ()))
                rows += [DroppedRow(run, unit) for unit in units if record.task_states[unit] == SUCCEEDED]
        return rows

    def _success_row(self, successes: Sequence[tuple[int, float, str]]) -> SuccessesRow:
        """Return the one row of all tasks that have succeeded at once."""
        started = self.execution.started
        entries = [(unit, started[unit], ended, text) for unit, ended, text in successes]
        return SuccessesRow.of(self.execution.id, self._since, entries)

    def _derived_step(self, unit: int, state: int) -> StepRow:
        execution, machine = self.execution, self.execution.machine
        if state == CANCELLING:
            text = failure_text(None, asked=machine.asked_of(unit))
            return self._step(unit, state, ValueForm.NONE, None, text)
        if state == SUCCEEDED and machine.record.results[unit] is DROPPED:
            return self._step(unit, state, ValueForm.DROPPED, None, None)
        is_map = unit < execution.plan.size and machine.record.width_of(unit) is not None
        if state == SUCCEEDED and not is_map:  # reused, or a map over nothing
            return self._step(unit, state, *self.encoded(machine.record.results[unit]))
        due = None
        if state == UP_FOR_RETRY and unit in execution.retries:
            due = self.micros(execution.retries[unit].when)
        return self._step(
            unit, state, ValueForm.NONE, None, failure_text(execution.failures.get(unit)), due=due
        )

    def _step(
        self,
        unit: int,
        state: int,
        form: int,
        data: bytes | None,
        text: str | None,
        *,
        ended: float | None = None,
        due: int | None = None,
    ) -> StepRow:
        execution, machine = self.execution, self.execution.machine
        self.apart.add(unit)
        task, size = machine.record.task_of(unit), execution.plan.size
        reused = execution.reused.get(execution.plan.tasks[task].name) if unit < size else None
        if ended is None:
            ended = execution.time_of(execution.ended, unit)
        started = execution.time_of(execution.started, unit)
        return StepRow(
            run=execution.id,
            unit=unit,
            task=task,
            place=machine.record.index_of(unit),
            state=state,
            attempts=machine.record.attempts[unit],
            forgiven=machine.record.forgiven.get(unit, 0),
            started=None if started is None else self.micros(started),
            ended=None if ended is None or state < TASK_ENDED_FROM else self.micros(ended),
            due=due,
            form=form,
            value=data,
            failure=text,
            reused=None if reused is None or reused.instances is not None else reused.run,
        )

    def _state_rows(self, *, spent: bool) -> list[RunStateRow]:
        """Return the row of the run itself, where it has changed."""
        record, propagation = self.execution.machine.record, self.execution.machine.propagation
        looks = (
            record.state,
            record.level,
            len(record.causes),
            record.first_cause_is_timeout,
            record.withheld,
            record.started,
            len(record.maps),
            propagation.failed_fast,
            propagation.finals_over,
            self.execution.started_at,
            self.execution.crash_words,
            self.fruitless,
            spent and self._times_out,
        )
        if looks == self._looks and not looks[-1]:  # as nearly always; the row itself costs ten times as much
            return []
        state, known, self._looks = self._state(spent=spent), self._last, looks
        if known is not None and state._replace(spent=0) == known._replace(spent=0) and not looks[-1]:
            return []
        self._last = state
        return [state]

    def _state(self, *, spent: bool = False) -> RunStateRow:
        execution, machine = self.execution, self.execution.machine
        facts = facts_of(machine, units=False)
        flags = (
            FIRST_IS_TIMEOUT * facts.timed_out_first
            + FAILING_FAST * facts.failing_fast
            + FINALS_OVER * facts.finals_over
            + WITHHELD * facts.withheld
        )
        started = execution.started_at
        return RunStateRow(
            id=execution.id,
            state=facts.state,
            level=facts.level,
            flags=flags,
            causes=facts.causes,
            begun=facts.started,
            started=None if started is None else self.micros(started),
            ended=self._ended(),
            spent=self._spent() if spent or self._times_out else 0,
            recovered=self.recovered,
            fruitless=self.fruitless,
            widths=json.dumps({str(task): width for task, width in sorted(facts.widths.items())}),
            failure=execution.crash_words or None,
        )

    def _ended(self) -> int | None:
        if not self.execution.machine.record.is_over:
            return None
        if self.left_at is not None:
            return self.micros(self.left_at)
        return self.recorder.now() if self._last is None or self._last.ended is None else self._last.ended

    def _spent(self) -> int:
        """Return the microseconds of the run's timeout that are used up."""
        execution, timeout = self.execution, self.execution.plan.definition.timeout
        if timeout is None or execution.remaining is None:
            return 0
        used = within(timeout) - execution.remaining
        if execution.timer is not None:
            used += self.recorder.host.clock() - execution.timer_from
        return max(0, round(used * MICRO))

    def _log_rows(self) -> list[LogRow]:
        log = self.execution.known_log
        if log is None or log.last_number == self._lines:
            return []
        lines, last = log.since(self._lines)
        first, self._lines = self.lines_before + self._lines + 1, last
        return [LogRow(self.execution.id, first, len(lines), pack_lines([line.as_dict() for line in lines]))]

"""Recorder: what is written into the journal of a Server, in one transaction for each turn of its loop.

It gives numbers to runs, begins and ends a life, knows which definitions and code the journal has, and waits for
commits. What is written of a run, and what of it is held back until that is durable, says its `Recording`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from scattersphere.abc.journal import BundleRow, DefinitionRow, DurabilityLevel, LifeRow, MetaRow
from scattersphere.errors import JournalError, SuspendedError
from scattersphere.model import states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scattersphere.abc.journal import Journal, JournalState, Row
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.loops import Loop
    from scattersphere.engine.plan import Plan
    from scattersphere.engine.timers import WallClock
    from scattersphere.registry.records import BundleVersion

_T = TypeVar("_T")

BLOCK = 1_000
"""Numbers of runs that are reserved by one commit: each is known at once, and never comes again."""
LOW = BLOCK // 2
"""With so many left the next block is reserved."""
BACKLOG_ROWS, BACKLOG_BYTES = 100_000, 32 << 20
"""With more that is not committed, runs that need not wait for their commits wait all the same."""
INLINE_TASKS = 200
"""Tasks of a definition whose text is made on the loop's thread: about a millisecond."""
CLOCK_BEHIND = 2.0
"""Seconds by which the clock may be behind the journal before that is a problem: clocks are set by as much."""
MICRO = 1_000_000
DURABILITY = {
    states.Durability.STRICT: DurabilityLevel.STRICT,
    states.Durability.RELAXED: DurabilityLevel.RELAXED,
    states.Durability.NONE: DurabilityLevel.NONE,
}


class ResultCodec(Protocol):
    """Writes the values of results: exactly, or not at all."""

    def is_quick(self, value: object) -> bool:
        """Whether `encode` runs no code of users for it, and takes next to no time."""
        ...

    def encode(self, value: object, versions: Iterable[BundleVersion]) -> tuple[int, bytes]:
        """Return the form and the bytes of a value. Raises whatever it likes where it cannot be kept."""
        ...

    def decode(self, form: int, data: bytes, versions: Iterable[BundleVersion]) -> object:
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

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; for any thread."""

    def wake(self) -> None:
        """Have the pump called soon; at its end it calls `flush` where something is due."""

    def turn_now(self) -> None:
        """Have the pump called now, or soon where it is at work."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def defect(self, execution: Execution, exc: BaseException) -> object:
        """End a run because of a defect of ours; for any thread."""


class Recorded(Protocol):
    """What the recorder knows of a run: its `Recording`."""

    @property
    def execution(self) -> Execution:
        """The run."""
        ...

    @property
    def is_submitted(self) -> bool:
        """Whether the run itself is written."""
        ...

    def add_to(self, changes: RunChanges) -> None:
        """Add what has changed to a transaction."""


class Recorder:
    """Writes for all runs of a Server: numbers, lives, code, and what has changed in them."""

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
        self._changed: dict[Recorded, None] = {}
        self._digests: WeakKeyDictionary[Plan, str] = WeakKeyDictionary()
        self._special: WeakKeyDictionary[Plan, tuple[frozenset[int], frozenset[int]]] = WeakKeyDictionary()
        self._definitions: set[str] = set()
        self._bundles: set[str] = set()
        self._waiting: dict[anyio.Event, bool] = {}
        """Who waits for a commit, and whether also while commits do not succeed."""

    # ---- what the journal says (`JournalHost`)

    def soon(self, callback: Callable[..., object], *args: object) -> None:
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

    def touch(self, recording: Recorded) -> None:
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


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=False)

"""The contract of a journal: where a Server writes what has to survive it.

A journal keeps rows. It is told of them in transactions, commits those in the order in which they were written, and
knows nothing of what they mean: which row is written when, and how runs are made of rows again, is decided by the
engine. Two journals exist: `scattersphere.journal.SqliteJournal`, and `scattersphere.testing.MemoryJournal`, which
commits when a test tells it to.

States are the places of `RunState` and `TaskState` in their enums. Instants are microseconds since 1970, UTC.

Most rows are of tasks that succeed at their first attempt, and thousands may do so in one turn of the loop: those come
together, in one `SuccessesRow`, since a row for each of them would cost more than the tasks themselves.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import attrs

from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class ValueForm(IntEnum):
    """How the value of a row is written."""

    NONE = 0
    """There is no value: the unit did not succeed, or has not ended."""
    JSON = 1
    """JSON text, exact as it stands."""
    TAGGED = 2
    """JSON text in which what JSON lacks (tuples, bytes, dates, classes of the bundle) is tagged."""
    PICKLE = 3
    FILE = 4
    """The value is the name of a file beside the journal; `read_value` gives what that holds, and its form."""
    UNKEPT = 5
    """The value could not be kept; the failure of the row says why."""
    DROPPED = 6
    """The value was given up since nobody reads it any more (`keep_results: false`)."""


class DurabilityLevel(IntEnum):
    """What a run asks of the journal; the field `durability` of a job."""

    NONE = 0
    RELAXED = 1
    STRICT = 2


# ---- rows. Each one is an insertion or a replacement by its key; what several make together is one transaction.


class MetaRow(NamedTuple):
    """Counters of the whole journal: the next free run number, and the newest time seen on the wall."""

    next_run: int
    wall: int


class LifeRow(NamedTuple):
    """One opening of the journal by a Server, by number."""

    number: int
    opened: int
    pid: int
    version: str
    suspended: int | None
    """When it was closed in order; None while it lives, and of one that was killed."""


class DefinitionRow(NamedTuple):
    """The text of a definition, by its digest."""

    digest: str
    job: str
    text: str


class BundleRow(NamedTuple):
    """The code of a version of a bundle, by its digest; None where the classes are the host's own."""

    digest: str
    content: bytes | None


class RunRow(NamedTuple):
    """What never changes of a run, written when it is submitted."""

    id: int
    job: str
    definition: str
    """Digest of its definition."""
    bundles: tuple[tuple[str, str], ...]
    """(name, digest) of the versions of code that it uses."""
    params: str
    """JSON, without secrets."""
    secrets: tuple[str, ...]
    """Names of the parameters that are secret."""
    durability: int
    created: int
    key: str | None = None
    user: str = ""
    """Whose key it is: keys are unique by job and user."""
    request: bytes | None = None
    """Digest of the parameters without secrets, to tell a repeat of a key from a misuse."""
    parent: int | None = None
    parent_unit: int | None = None
    """Which task of the parent has started it, by its place; of an instance of a map, `index + 1 << 32 | task`."""
    parent_try: int | None = None
    child: int | None = None
    """The child-th run that this try of the parent's unit has started; None of a rerun."""
    again: int | None = None
    """The run that it runs again."""
    scheduled: str | None = None
    """JSON of the schedule that fired it, and of the time it was due."""
    extra: str = "{}"
    """JSON of what else the engine needs to make it again: reused results, who started it, ..."""


class RunStateRow(NamedTuple):
    """What changes of a run; the newest row of its id stands."""

    id: int
    state: int
    level: int
    """How far requests have escalated: 0 none, 1 stop, 2 cancel, 3 kill."""
    flags: int
    """1 the first cause is its timeout, 2 failing fast, 4 time of finally-tasks over, 8 something was withheld."""
    causes: tuple[str, ...]
    begun: bool
    """Whether it had its slot."""
    started: int | None
    ended: int | None
    spent: int
    """Microseconds of its timeout that are used up."""
    recovered: int
    """Restarts that it has survived."""
    fruitless: int
    """Restarts since its last committed outcome."""
    widths: str = "{}"
    """JSON: how many instances mapped tasks have, by number of the task."""
    failure: str | None = None
    """Why it crashed, where no task says so."""


class StepRow(NamedTuple):
    """A task or an instance of a map that has ended, waits for its retry, or whose start had to be committed."""

    run: int
    unit: int
    task: int
    place: int | None
    """Its index in the map; None for a task."""
    state: int
    attempts: int
    forgiven: int
    """How many of them do not count, since their place was lost."""
    started: int | None
    ended: int | None
    due: int | None
    """When its retry is due."""
    form: int
    value: bytes | None
    failure: str | None
    """JSON of its failure."""
    reused: int | None = None
    """The run from which the result was taken."""


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SUCCEEDED = tuple(TaskState).index(TaskState.SUCCEEDED)


class SuccessesRow(NamedTuple):
    """Tasks of a run that succeeded at their first attempt, with small results: as many as ended together.

    By run and `first`. A task stands in one such row at most. It may have a `StepRow` too, which is newer and holds.
    """

    run: int
    first: int
    """The first of these tasks."""
    number: int
    """How many they are."""
    since: int
    """The instant from which times are counted."""
    tasks: str
    """JSON: `[[unit, started, ended, value], ...]`, times in microseconds."""

    @classmethod
    def of(cls, run: int, since: int, entries: Sequence[tuple[int, float, float, str]]) -> SuccessesRow:
        """Make the row of (unit, started, ended, value): seconds from `since` on, and the JSON text of the value."""
        texts = [
            f"[{unit},{int(started * 1e6)},{int(ended * 1e6)},{value}]"
            for unit, started, ended, value in entries
        ]
        return cls(run, entries[0][0], len(entries), since, f"[{','.join(texts)}]")

    def steps(self) -> Iterator[StepRow]:
        """Yield a row for each of the tasks. Raises `ValueError` where the text is damaged."""
        for unit, started, ended, value in json.loads(self.tasks):
            yield StepRow(
                run=self.run,
                unit=unit,
                task=unit,
                place=None,
                state=_SUCCEEDED,
                attempts=1,
                forgiven=0,
                started=self.since + started,
                ended=self.since + ended,
                due=None,
                form=ValueForm.JSON,
                value=_json(value).encode(),
                failure=None,
            )


class AttemptRow(NamedTuple):
    """An attempt that was not the last one of its unit."""

    run: int
    unit: int
    number: int
    how: int
    """The state that the unit would have had; RUNNING's place for an interrupted one."""
    failure: str | None
    ended: int


class DroppedRow(NamedTuple):
    """The value of a step is given up; of one that has a `StepRow`."""

    run: int
    unit: int


class MovesRow(NamedTuple):
    """A slice of the moves of a run, as the machine writes them."""

    run: int
    first: int
    """The place of the first of them among all moves of the run, over all lives."""
    life: int
    at: int
    moves: bytes
    """int64, little endian."""


class LogRow(NamedTuple):
    """Lines of the log of a run."""

    run: int
    first: int
    lines: int
    data: bytes


class ScheduleRow(NamedTuple):
    """The state of a schedule, by job and name."""

    job: str
    name: str
    state: str
    """JSON of its `ScheduleState`, with the timing that it belongs to."""
    last: int | None
    paused: bool
    gone: int | None
    """Since when it is not defined any more."""


class RollbackRow(NamedTuple):
    """A bundle that was rolled back to an older version; `digest` None: it is no more. No Server writes one yet."""

    bundle: str
    digest: str | None
    instead_of: str
    at: int


Row: TypeAlias = (
    MetaRow
    | LifeRow
    | DefinitionRow
    | BundleRow
    | RunRow
    | RunStateRow
    | StepRow
    | SuccessesRow
    | AttemptRow
    | DroppedRow
    | MovesRow
    | LogRow
    | ScheduleRow
    | RollbackRow
)


# ---- what is read back


@attrs.frozen(kw_only=True)
class StoredRun:
    """All rows of one run."""

    run: RunRow
    state: RunStateRow
    steps: tuple[StepRow, ...] = ()
    """By unit; those of the `SuccessesRow`s among them."""
    attempts: tuple[AttemptRow, ...] = ()
    moves: tuple[MovesRow, ...] = ()
    """By place; slices that follow each other within one life may come back as one."""
    lines: int = 0
    """The number of the last line of its log that was written."""


@attrs.frozen(kw_only=True)
class JournalState:
    """What a journal holds when it is opened, but for the runs themselves."""

    id: str
    """Of the journal, for ever: keys that are handed to other systems are made of it."""
    next_run: int
    wall: int
    lives: tuple[LifeRow, ...]
    """Oldest first; empty where the journal is new."""
    unfinished: tuple[int, ...]
    """Numbers of the runs that have not ended, in order."""
    schedules: tuple[ScheduleRow, ...] = ()
    rollbacks: tuple[RollbackRow, ...] = ()


class JournalHost(Protocol):
    """What the Server lends a journal."""

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; from any thread, never blocks."""

    def journal_failed(self, words: str, *, lasting: bool) -> None:
        """A commit did not succeed; on the loop's thread.

        What was written stays in its order and is tried again each second. `lasting`: this process commits no more,
        since it cannot know what is on disk (an I/O error, a failed fsync).
        """

    def journal_mended(self) -> None:
        """Commits succeed again; on the loop's thread."""


class Journal(Protocol):
    """Keeps rows over the end of the process.

    `open`, `close` and the reading methods block, and are called in a thread. `write` is called on the loop's thread,
    never blocks, and never raises.
    """

    def open(self, host: JournalHost) -> JournalState:
        """Take the journal for this process alone, bring its schema up to date, and say what it holds.

        Nothing else is written: the engine does that, with a first `write` of the new life. Raises
        `JournalBusyError` where another Server holds it, `JournalError` where it cannot be used.
        """
        ...

    def write(self, rows: Sequence[Row], committed: Callable[[], object] | None = None) -> None:
        """Add one transaction, after all that were written before.

        `committed` is called on the loop's thread, in the order of writing, when the rows are durable. It is not
        called where the journal fails for good or is closed before.
        """
        ...

    @property
    def backlog(self) -> tuple[int, int]:
        """How many (rows, bytes) are written and not committed yet."""
        ...

    def read_runs(self, ids: Iterable[int]) -> list[StoredRun]:
        """Read runs, in the order of `ids`; those that are not there are left out."""
        ...

    def read_children(self, runs: Iterable[int]) -> list[RunRow]:
        """Return the rows of the runs whose parents are these, by number."""
        ...

    def read_definition(self, digest: str) -> str:
        """Read the text of a definition. Raises `LookupError`."""
        ...

    def read_bundle(self, digest: str) -> bytes | None:
        """Read the code of a version; None where it is the host's own. Raises `LookupError`."""
        ...

    def read_value(self, row: StepRow) -> tuple[int, bytes]:
        """Return the (form, bytes) of a value, read from its file where it is in one.

        Raises `LookupError`, `OSError`.
        """
        ...

    def read_log(self, run: int, first: int = 1) -> list[LogRow]:
        """Read the lines of a run, from the chunk that holds line `first` on."""
        ...

    def find_key(self, job: str, user: str, key: str) -> int | None:
        """Return the run that was started with a key."""
        ...

    def find_runs(
        self,
        *,
        job: str | None = None,
        states: Sequence[int] | None = None,
        since: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredRun]:
        """Find runs, newest first, without their steps.

        They are of a job, in one of these states, created since an instant, and numbered below `before`.
        """
        ...

    def close(self) -> None:
        """Commit what is written, and let go of the journal."""
        ...

    def after_fork_in_child(self) -> None:
        """Forget the connection and close the descriptor of the lock: the journal stays the parent's."""
        ...

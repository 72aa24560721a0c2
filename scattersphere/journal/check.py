"""Integrity check of a journal: everything that must be true of its rows, looked at one run after the other.

It finds what no crash can leave behind: a gap in the moves of a run, a run that has ended while a task of it lives, a
task that began before what it reads was committed. It reads one snapshot of the journal, also beside its Server.
"""

from __future__ import annotations

import io
import json
import zipfile
from array import array
from typing import TYPE_CHECKING

import attrs

from scattersphere.abc.journal import DurabilityLevel, StepRow, ValueForm
from scattersphere.engine.machine.codes import (
    CANCELLED,
    CRASHED,
    FAILED,
    PENDING,
    RUN_ALLOWED,
    RUN_CANCELLED,
    RUN_CRASHED,
    RUN_FAILED,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_QUEUED,
    RUN_STATES,
    RUN_STOPPED,
    RUN_SUCCEEDED,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ALLOWED,
    TASK_ENDED_FROM,
    TASK_STATES,
    UP_FOR_RETRY,
)
from scattersphere.engine.machine.rules import DECIDE
from scattersphere.errors import DefinitionError, JournalError
from scattersphere.journal.place import JournalFiles
from scattersphere.journal.schema import RESTORED, damage_of
from scattersphere.journal.sqlite import JournalReader
from scattersphere.model.definition import JobDefinition
from scattersphere.registry.snapshots.store import digest_of, digest_of_all

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from scattersphere.abc.journal import MovesRow, RunStateRow, StoredRun

TIMED_OUT, WITHHELD = 1, 8
"""Bits of `RunStateRow.flags`."""
STOP, CANCEL = 1, 2
"""Levels of requests."""
_AT_ONCE = 100
"""Runs that are held at a time."""
_MOST = 1_000
"""Findings after which the search ends: a journal in which so much is wrong is wrong as a whole."""


@attrs.frozen
class Finding:
    """Something that cannot be true of a sound journal."""

    words: str
    run: int | None = None

    def __str__(self) -> str:
        return self.words if self.run is None else f"run {self.run}: {self.words}"


def check(path: str | os.PathLike[str]) -> list[Finding]:
    """Return what is wrong with a journal, in the order of its runs. Raises `JournalError` where it is none."""
    files = JournalFiles.at(path)
    try:
        reader = JournalReader(files)
    except JournalError:
        found = [Finding(f"the database is damaged: {words}") for words in damage_of(files.database)]
        if not found:
            raise
        return [*found, Finding("nothing more can be read: put a backup in its place (`journal restore`)")]
    try:
        reader.all("BEGIN")  # one snapshot, whatever a Server writes meanwhile
        found = list[Finding]()
        for finding in _findings(reader):
            found.append(finding)
            if len(found) == _MOST:
                found.append(Finding("and perhaps more: the search ends here"))
                break
        return found
    finally:
        reader.close()


def _findings(reader: JournalReader) -> Iterator[Finding]:
    try:
        yield from _database(reader)
        yield from _rows(reader)
    except JournalError as error:  # a page that cannot be read
        yield Finding(str(error))


def _rows(reader: JournalReader) -> Iterator[Finding]:
    yield from _whole(reader)
    yield from _bundles(reader)
    definitions = _Definitions(reader)
    newest = max((life.number for life in reader.state().lives), default=0)
    names = [number for (number,) in reader.all("SELECT id FROM run ORDER BY id")]
    for start in range(0, len(names), _AT_ONCE):
        for stored in reader.runs(names[start : start + _AT_ONCE]):
            yield from _of_run(_Run(stored, definitions.of(stored.run.definition), reader, newest))
    yield from _files(reader)


# ---- the journal as a whole


def _database(reader: JournalReader) -> Iterator[Finding]:
    """SQLite's own: pages, indexes, columns, references."""
    for (words,) in reader.all("PRAGMA integrity_check"):
        if words != "ok":
            yield Finding(f"the database is damaged: {words}")
    for table, _, other, _ in reader.all("PRAGMA foreign_key_check"):
        yield Finding(f"a row of the table {table} names one of {other} that is not there")


_SIMPLE = {
    "SELECT id FROM run WHERE id NOT IN (SELECT id FROM run_state)": "it has no state",
    "SELECT id FROM run WHERE id >= (SELECT value FROM meta WHERE name = 'next_run')": (
        "its number was never reserved: another run may get it too"
    ),
    """SELECT c.id FROM run AS c JOIN run_state AS s ON s.id = c.id
       WHERE s.ended IS NULL AND c.parent IS NOT NULL AND c.parent NOT IN (SELECT id FROM run)""": (
        "it has not ended, and its parent is not there"
    ),
    **{
        f"SELECT DISTINCT run FROM {table} WHERE run NOT IN (SELECT id FROM run) "  # noqa: S608 - our own names
        "AND run NOT IN (SELECT run FROM given_up)": f"it is not there, and there are rows of it in the table {table}"
        for table in ("step", "successes", "attempt", "moves", "log")
    },
    "SELECT run FROM successes WHERE NOT json_valid(tasks)": "tasks of it that succeeded cannot be read",
    """SELECT run FROM successes WHERE json_valid(tasks)
       AND (json_array_length(tasks) <> number OR json_extract(tasks, '$[0][0]') <> first)""": (
        "tasks of it that succeeded together are not those that their row counts"
    ),
    """SELECT DISTINCT run FROM successes, json_each(iif(json_valid(tasks), tasks, '[]')) AS each
       GROUP BY run, json_extract(each.value, '$[0]') HAVING count(*) > 1""": "a task of it has succeeded twice",
    """SELECT DISTINCT run FROM moves WHERE life NOT IN (SELECT number FROM life)""": (
        "it has moves of a life that is not there"
    ),
}
"""Queries that find numbers of runs, and what is wrong with those."""


def _whole(reader: JournalReader) -> Iterator[Finding]:
    for query, words in _SIMPLE.items():
        for (number,) in reader.all(query):
            yield Finding(words, number)
    lives = reader.state().lives
    for place, life in enumerate(lives):
        before = lives[place - 1].number if place else 0
        if life.number != before + 1 and life.version != RESTORED:  # a restore leaves numbers out
            yield Finding(f"life {before + 1} is missing")
            break
    for life in lives:
        if life.suspended is not None and life.suspended < life.opened:
            yield Finding(f"life {life.number} was closed before it was opened")


def _bundles(reader: JournalReader) -> Iterator[Finding]:
    """The code of each version gives the digest that it is known by."""
    for (digest,) in reader.all("SELECT digest FROM bundle WHERE content IS NOT NULL ORDER BY digest"):
        try:
            with zipfile.ZipFile(io.BytesIO(reader.bundle(digest) or b"")) as archive:
                found = digest_of_all({name: digest_of(archive.read(name)) for name in archive.namelist()})
        except Exception as error:  # noqa: BLE001 - whatever zipfile raises for damaged bytes
            yield Finding(f"the code {digest} cannot be read: {error}")
        else:
            if found != digest:
                yield Finding(f"the code {digest} is other code: its digest is {found}")


def _files(reader: JournalReader) -> Iterator[Finding]:
    """Each file that a row names is there, and holds what its name says."""
    seen: set[bytes] = set()
    columns = ", ".join(StepRow._fields)
    for values in reader.all(f"SELECT {columns} FROM step WHERE form = 4 ORDER BY value"):  # noqa: S608 - our own names
        row = StepRow(*values)
        if row.value in seen or row.value is None:
            continue
        seen.add(row.value)
        try:
            reader.value(row)
        except (LookupError, OSError) as error:
            yield Finding(str(error.args[0] if isinstance(error, LookupError) else error), row.run)


# ---- one run


class _Definitions:
    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._known: dict[str, JobDefinition | None] = {}

    def of(self, digest: str) -> JobDefinition | None:
        """Return a definition; None where it cannot be read."""
        if digest not in self._known:
            try:
                self._known[digest] = JobDefinition.loads(self._reader.definition(digest))
            except (DefinitionError, LookupError):
                self._known[digest] = None
        return self._known[digest]


class _Run:
    """A run with its rows, and the states that its moves tell."""

    def __init__(
        self,
        stored: StoredRun,
        definition: JobDefinition | None,
        reader: JournalReader,
        newest_life: int,
    ) -> None:
        self.stored = stored
        self.newest_life = newest_life
        self.definition = definition
        self.reader = reader
        self.state = stored.state
        self.steps: dict[int, StepRow] = {step.unit: step for step in stored.steps}
        if stored.state.recovered:
            self.steps |= _concluded(stored)
        self.moves: list[tuple[int, Sequence[int]]] = [(row.life, _entries(row)) for row in stored.moves]
        self.ended_once: set[int] = {
            entry >> STATE_BITS
            for _, entries in self.moves
            for entry in entries
            if entry >= 0 and entry & _MASK >= TASK_ENDED_FROM
        }
        """Units that ended by their moves; one whose result was lost is done again at a restart."""

    @property
    def is_whole(self) -> bool:
        """Whether it has ended as runs end: one that crashed stands where it stood."""
        return self.state.ended is not None and self.state.state != RUN_CRASHED

    def name_of(self, unit: int) -> str:
        step = self.steps.get(unit)
        task = unit if step is None else step.task
        names = () if self.definition is None else tuple(self.definition.tasks)
        name = names[task] if task < len(names) else f"number {task}"
        return f"task {name}" if step is None or step.place is None else f"task {name}[{step.place}]"


def _concluded(stored: StoredRun) -> dict[int, StepRow]:
    """Return rows for the mapped tasks whose end a restart has concluded from those of all their instances."""
    found = {step.unit for step in stored.steps}
    instances: dict[int, list[StepRow]] = {}
    for step in stored.steps:
        if step.place is not None:
            instances.setdefault(step.task, []).append(step)
    rows: dict[int, StepRow] = {}
    for task, steps in instances.items():
        states = {step.state for step in steps}
        if task in found or min(states) < TASK_ENDED_FROM or len(steps) != _widths_of(stored).get(task):
            continue
        state = FAILED if states & {FAILED, CRASHED} else CANCELLED if CANCELLED in states else SUCCEEDED
        rows[task] = steps[0]._replace(unit=task, place=None, state=state, form=ValueForm.NONE, value=None)
    return rows


def _widths_of(stored: StoredRun) -> dict[int, int]:
    try:
        return {int(task): int(width) for task, width in json.loads(stored.state.widths).items()}
    except (ValueError, AttributeError, TypeError):
        return {}


_MASK = (1 << STATE_BITS) - 1


def _entries(row: MovesRow) -> Sequence[int]:
    if len(row.moves) % 8:
        return ()
    entries = array("q")
    entries.frombytes(row.moves)
    return entries


def _of_run(run: _Run) -> Iterator[Finding]:
    number = run.stored.run.id
    if run.definition is None:
        yield Finding("its definition cannot be read", number)
    for examine in _EXAMINATIONS:
        for words in examine(run):
            yield Finding(words, number)


def _gaps(run: _Run) -> Iterator[str]:
    """Moves and lines follow each other without a gap, and lives do not run backwards."""
    place, life = 0, 0
    for row in run.stored.moves:
        if row.first != place:
            yield f"its moves from {place} on are missing; the next ones begin at {row.first}"
        if len(row.moves) % 8:
            yield f"its moves from {row.first} on are cut"
        if row.life < life:
            yield f"its moves from {row.first} on are of life {row.life}, and come after those of life {life}"
        place, life = row.first + len(row.moves) // 8, row.life
    line = 1
    for chunk in run.reader.log(run.stored.run.id, 0):
        if chunk.first != line:
            yield f"lines {line} to {chunk.first - 1} of its log are missing"
        line = chunk.first + chunk.lines


def _moves(run: _Run) -> Iterator[str]:
    """Each move is a row of the tables. Between two lives a unit may have got further than its moves say."""
    run_state, units, life, again, crossed = RUN_QUEUED, dict[int, int](), None, False, False
    for row_life, entries in run.moves:
        if row_life != life:
            units, again, crossed = {}, life is not None, life is not None
            life = row_life
        for entry in entries:
            if entry < 0:
                new = ~entry
                if not crossed and run_state << STATE_BITS | new not in RUN_ALLOWED:
                    yield f"it went from {_run_word(run_state)} to {_run_word(new)}"
                run_state, crossed = new, False
                continue
            unit, new = entry >> STATE_BITS, entry & _MASK
            old = units.get(unit, None if again else PENDING)
            if old is not None and old << STATE_BITS | new not in TASK_ALLOWED:
                yield f"{run.name_of(unit)} went from {_word(old)} to {_word(new)}"
            units[unit] = new


def _rows_and_moves(run: _Run) -> Iterator[str]:
    """The rows say what the last moves say; only an outcome may be committed before its move."""
    last, last_life, of_run = dict[int, tuple[int, int]](), 0, RUN_QUEUED
    for life, entries in run.moves:
        last_life = life
        for entry in entries:
            if entry < 0:
                of_run = ~entry
            else:
                last[entry >> STATE_BITS] = (entry & _MASK, life)
    state = run.state.state
    if run.moves and state not in {of_run, RUN_CRASHED} and (of_run, state) != (RUN_PAUSING, RUN_PAUSED):
        yield f"it is {_run_word(state)}, and its last move was to {_run_word(of_run)}"
    for unit, (moved, life) in last.items():
        step = run.steps.get(unit)
        if step is None:
            if moved >= TASK_ENDED_FROM:
                yield f"{run.name_of(unit)} has ended ({_word(moved)}) by its moves, and has no row"
        elif step.state != moved and (
            (run.is_whole and life == last_life) or (moved >= TASK_ENDED_FROM and life == run.newest_life)
        ):
            yield f"{run.name_of(unit)} is {_word(step.state)}, and its last move was to {_word(moved)}"


def _ends(run: _Run) -> Iterator[str]:
    """A run that has ended has no task that lives, and ended as its tasks and requests say."""
    if not run.is_whole:
        return
    for unit, step in run.steps.items():
        if step.state < TASK_ENDED_FROM:
            yield f"it has ended, and {run.name_of(unit)} is {_word(step.state)}"
    if run.definition is None:
        return
    if run.state.begun:
        for number in range(len(run.definition.tasks)):
            if number not in run.steps:
                yield f"it has ended, and {run.name_of(number)} has no row"
    wanted = _end_of(run.state, failed=_has_failed(run, run.definition))
    if run.state.state != wanted:
        yield f"it is {_run_word(run.state.state)}; what its tasks and requests say is {_run_word(wanted)}"


def _has_failed(run: _Run, definition: JobDefinition) -> bool:
    return any(
        number in run.steps and run.steps[number].state in {FAILED, CRASHED} and not task.allow_failure
        for number, task in enumerate(definition.tasks.values())
    )


def _end_of(state: RunStateRow, *, failed: bool) -> int:
    """Return the state in which a run ends, as the machine has it."""
    if state.level >= CANCEL:
        return RUN_FAILED if state.flags & TIMED_OUT else RUN_CANCELLED
    if state.level == STOP and (state.flags & WITHHELD or not state.begun):
        return RUN_STOPPED
    return RUN_FAILED if failed else RUN_SUCCEEDED


def _attempts(run: _Run) -> Iterator[str]:
    """No task had more attempts than its policy allows, and none after the last one."""
    tasks = () if run.definition is None else tuple(run.definition.tasks.values())
    for unit, step in run.steps.items():
        most = tasks[step.task].retry.max_attempts if step.task < len(tasks) else None
        if most is not None and step.attempts - step.forgiven > most:
            yield f"{run.name_of(unit)} had {step.attempts - step.forgiven} attempts that count, of at most {most}"
        if step.forgiven > step.attempts:
            yield f"{run.name_of(unit)} had {step.attempts} attempts, of which {step.forgiven} do not count"
    for attempt in run.stored.attempts:
        found = run.steps.get(attempt.unit)
        if found is None or attempt.number > found.attempts:
            yield f"{run.name_of(attempt.unit)} has an attempt {attempt.number} after its last one"


def _order(run: _Run) -> Iterator[str]:
    """What a task waits for was committed before it began (strict)."""
    definition = run.definition
    if definition is None or run.stored.run.durability != DurabilityLevel.STRICT:
        return
    tasks = tuple(definition.tasks.values())
    begun = {step.task for step in run.steps.values() if step.attempts > 0 and step.reused is None}
    normal = [number for number, task in enumerate(tasks) if not task.finally_]
    for number in sorted(begun):
        if number >= len(tasks):
            continue
        task, waits = tasks[number], list(definition.upstream_indices[number])
        lacking = [other for other in (normal if task.finally_ else waits) if not _has_ended(run, other)]
        if not task.finally_:
            ends = [run.steps[other].state for other in waits if other not in lacking and other in run.steps]
            succeeded = ends.count(SUCCEEDED)
            failures = sum(state in _FAILURES for state in ends)
            other_ends = len(ends) - succeeded - failures
            reset = sum(other not in lacking and other not in run.steps for other in waits)
            if DECIDE[task.rule](len(lacking), succeeded + reset, failures, other_ends) == RUNNING:
                continue
            if not lacking:
                yield f"{run.name_of(number)} began, though its rule ({task.rule}) was not met"
                continue
        if lacking:
            names = ", ".join(run.name_of(other) for other in lacking)
            yield f"{run.name_of(number)} began before {names} had ended"


_FAILURES = frozenset(
    TASK_STATES.index(state) for state in TASK_STATES if state in {"failed", "crashed", "upstream_failed"}
)


def _has_ended(run: _Run, task: int) -> bool:
    step = run.steps.get(task)
    return (step is not None and step.state >= TASK_ENDED_FROM) or task in run.ended_once


_WITHOUT = frozenset({ValueForm.NONE, ValueForm.UNKEPT, ValueForm.DROPPED})
"""Forms of which there are no bytes."""


def _values(run: _Run) -> Iterator[str]:
    """What has succeeded has a value, and it can be read."""
    tasks = () if run.definition is None else tuple(run.definition.tasks.values())
    for unit, step in run.steps.items():
        if step.state == SUCCEEDED and step.form == ValueForm.NONE:
            mapped = step.task < len(tasks) and tasks[step.task].map is not None and step.place is None
            if not mapped:
                yield f"{run.name_of(unit)} has succeeded, and has no value"
        elif step.state != SUCCEEDED and step.form != ValueForm.NONE:
            yield f"{run.name_of(unit)} is {_word(step.state)}, and has a value"
        if (step.value is None) != (step.form in _WITHOUT) or not 0 <= step.form <= ValueForm.DROPPED:
            yield f"the value of {run.name_of(unit)} is not as its form ({step.form}) has it"
        if step.state < TASK_ENDED_FROM and step.state != UP_FOR_RETRY and step.ended is not None:
            yield f"{run.name_of(unit)} is {_word(step.state)}, and has a time at which it ended"
        if step.form in {ValueForm.JSON, ValueForm.TAGGED}:
            try:
                json.loads(step.value or b"")
            except ValueError:
                yield f"the value of {run.name_of(unit)} is no JSON"


def _widths(run: _Run) -> Iterator[str]:
    """Instances are of mapped tasks, and within their widths."""
    widths = _widths_of(run.stored)
    if not widths and run.state.widths != "{}":
        yield f"the widths of its maps cannot be read: {run.state.widths[:100]!r}"
        return
    size = None if run.definition is None else len(run.definition.tasks)
    for unit, step in run.steps.items():
        if step.place is None:
            if unit != step.task or (size is not None and unit >= size):
                yield f"unit {unit} is no task of its definition"
            continue
        width = widths.get(step.task)
        if width is None or not 0 <= step.place < width:
            yield f"{run.name_of(unit)} is outside its map, whose width is {width}"


_EXAMINATIONS: tuple[Callable[[_Run], Iterator[str]], ...] = (
    _gaps,
    _moves,
    _rows_and_moves,
    _ends,
    _attempts,
    _order,
    _values,
    _widths,
)


def _word(state: int) -> object:
    return TASK_STATES[state] if 0 <= state < len(TASK_STATES) else f"no state ({state})"


def _run_word(state: int) -> object:
    return RUN_STATES[state] if 0 <= state < len(RUN_STATES) else f"no state ({state})"

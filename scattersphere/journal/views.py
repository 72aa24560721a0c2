"""Rows of a journal as JSON data for people and programs: runs, their tasks, lines of their logs."""

from __future__ import annotations

import datetime as dt
import json
from array import array
from typing import TYPE_CHECKING, Any

from scattersphere.abc.journal import DurabilityLevel, ValueForm
from scattersphere.model.logs import unpack_lines
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.abc.journal import AttemptRow, MovesRow, StepRow, StoredRun
    from scattersphere.journal.sqlite import JournalReader

RUN_STATES, TASK_STATES = tuple(RunState), tuple(TaskState)
MICRO = 1_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_STATE_BITS = 4
_DIGITS = 12
"""Of the name of a file that are shown in a table."""


def stamp(instant: int | None) -> str | None:
    """Return an instant as text: ISO 8601, UTC."""
    return None if instant is None else (_EPOCH + dt.timedelta(microseconds=instant)).isoformat()


def seconds(started: int | None, ended: int | None) -> float | None:
    """Return how long something took."""
    return None if started is None or ended is None else (ended - started) / MICRO


def run_row(stored: StoredRun) -> dict[str, object]:
    """Return a run in a line."""
    run, state = stored.run, stored.state
    row: dict[str, object] = {
        "run": run.id,
        "job": run.job,
        "state": str(RUN_STATES[state.state]),
        "created": stamp(run.created),
        "seconds": seconds(state.started, state.ended),
    }
    return row | ({"key": run.key} if run.key is not None else {})


class RunViews:
    """Shows runs of one journal: it knows the names of their tasks."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._names: dict[str, tuple[str, ...]] = {}

    def whole(self, stored: StoredRun, *, everything: bool = False) -> dict[str, object]:
        """Return a run with its tasks; with everything also its moves, its log, and large values."""
        run, state = stored.run, stored.state
        shown: dict[str, object] = {
            **run_row(stored),
            "started": stamp(state.started),
            "ended": stamp(state.ended),
            "params": json.loads(run.params),
            "secrets": list(run.secrets),
            "user": run.user or None,
            "durability": DurabilityLevel(run.durability).name.lower(),
            "parent": run.parent,
            "again": run.again,
            "scheduled": None if run.scheduled is None else json.loads(run.scheduled),
            "causes": list(state.causes),
            "recovered": state.recovered or None,
            "failure": state.failure,
            "code": dict(run.bundles),
            "tasks": [self.task(stored, step, everything=everything) for step in stored.steps],
        }
        shown = {key: value for key, value in shown.items() if value not in (None, [], {})}
        if everything:
            shown["attempts"] = [self._attempt(stored, row) for row in stored.attempts]
            shown["moves"] = [move for row in stored.moves for move in _moves(row)]
            shown["log"] = [*self.lines(run.id)]
        return shown

    def task(self, stored: StoredRun, step: StepRow, *, everything: bool = False) -> dict[str, object]:
        """Return a task or an instance of a map."""
        row = {
            "task": self._name(stored, step.task),
            "index": step.place,
            "state": str(TASK_STATES[step.state]),
            "attempts": step.attempts,
            "interrupted": step.forgiven or None,
            "started": stamp(step.started),
            "seconds": seconds(step.started, step.ended),
            "due": stamp(step.due),
            "failure": _failure(step.failure),
            "reused": step.reused,
        }
        shown = {key: value for key, value in row.items() if value is not None}
        return shown | self._result(step, everything=everything)

    def _result(self, step: StepRow, *, everything: bool) -> dict[str, object]:
        if step.form == ValueForm.NONE:
            return {}
        if step.form in {ValueForm.UNKEPT, ValueForm.DROPPED}:
            why = ValueForm(step.form).name.lower()
            return {"result": _NotShown(why, kept=False, why=why)}
        if step.form == ValueForm.FILE and not everything:
            name = (step.value or b"").decode("ascii", "replace")
            return {"result": _NotShown(f"in the file {name[:_DIGITS]}...", file=name)}
        try:
            form, data = self._reader.value(step)
        except (LookupError, OSError) as error:
            return {"result": _NotShown(str(error), kept=False, why=str(error))}
        if form == ValueForm.PICKLE:  # reading it would execute code
            return {"result": _NotShown(f"pickled, {len(data)} bytes", pickle=len(data))}
        return {"result": json.loads(data)}

    def lines(self, run: int, first: int = 1) -> Iterator[dict[str, Any]]:
        """Yield the lines of a run's log, from line `first` on. Raises `ValueError` where they are damaged."""
        for chunk in self._reader.log(run, first):
            yield from unpack_lines(chunk.data)[max(0, first - chunk.first) :]

    def _name(self, stored: StoredRun, task: int) -> str:
        digest = stored.run.definition
        if digest not in self._names:
            try:
                self._names[digest] = tuple(json.loads(self._reader.definition(digest))["tasks"])
            except (LookupError, ValueError, TypeError):
                self._names[digest] = ()
        names = self._names[digest]
        return names[task] if task < len(names) else f"task {task}"

    def _attempt(self, stored: StoredRun, row: AttemptRow) -> dict[str, object]:
        step = next((step for step in stored.steps if step.unit == row.unit), None)
        how = "interrupted" if row.how == TASK_STATES.index(TaskState.RUNNING) else str(TASK_STATES[row.how])
        return {
            "task": self._name(stored, row.unit if step is None else step.task),
            "index": None if step is None else step.place,
            "number": row.number,
            "how": how,
            "ended": stamp(row.ended),
            "failure": _failure(row.failure),
        }


def in_words(shown: dict[str, Any]) -> dict[str, Any]:
    """Return a run for a table: of failures type and message, of results that are not shown why, in words."""
    return shown | {"tasks": [_task_in_words(task) for task in shown.get("tasks", ())]}


def _task_in_words(task: dict[str, Any]) -> dict[str, Any]:
    failure, result, words = task.get("failure"), task.get("result"), dict[str, Any]()
    if isinstance(failure, dict) and "type" in failure:
        words["failure"] = f"{failure['type']}: {failure.get('message', '')}".removesuffix(": ")
    elif isinstance(failure, dict) and "unkept" in failure:
        words["failure"] = f"its result was not kept: {failure['unkept']}"
    if isinstance(result, _NotShown):
        words["result"] = result.words
    return task | words


class _NotShown(dict[str, object]):
    """Says of a result why it is not shown, as data and in words."""

    def __init__(self, words: str, /, **data: object) -> None:
        super().__init__(data)
        self.words = f"({words})"


def _failure(text: str | None) -> object:
    return None if text is None else json.loads(text)


def _moves(row: MovesRow) -> Iterator[dict[str, object]]:
    entries = array("q")
    entries.frombytes(row.moves[: len(row.moves) // 8 * 8])
    for place, entry in enumerate(entries, row.first):
        if entry < 0:
            yield {"place": place, "life": row.life, "state": str(RUN_STATES[~entry])}
        else:
            state = TASK_STATES[entry & (1 << _STATE_BITS) - 1]
            yield {"place": place, "life": row.life, "unit": entry >> _STATE_BITS, "state": str(state)}

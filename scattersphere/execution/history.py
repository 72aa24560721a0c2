"""Events, made from a run's journal when somebody reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from scattersphere.execution.journal import JournalReader
from scattersphere.execution.machine.codes import RUN_STATES, RUNNING, STATE_BITS, TASK_STATES
from scattersphere.model.events import Event, EventKind, run_event, task_event
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from scattersphere.execution.execution import Execution


CHUNK = 256
"""Events that are made at once; about a millisecond."""


class EventStream(AsyncIterator[Event]):
    """The events of a run from a number on, until it has ended. Reading costs the run nothing.

    It pulls: nothing is queued for a slow reader, so nothing of the moves is ever lost. Where
    progress or log events were dropped meanwhile, one `lagged` event stands for them.
    """

    def __init__(self, execution: Execution, since: int = 0) -> None:
        self._execution = execution
        self._reader = JournalReader(execution.journal, since)
        self._last = since
        self._ready: deque[Event] = deque()
        self._attempts: dict[int, int] = {}
        self._before: RunState | None = None
        for what in execution.machine.journal[: self._reader.position]:
            self._note(what)

    async def __anext__(self) -> Event:
        """Return the next event; wait for it if need be."""
        while not self._ready:
            ended = self._execution.state.ended
            for entry in self._reader.read(CHUNK):
                self._make(*entry)
            if not self._ready:
                if ended:
                    raise StopAsyncIteration
                await self._execution.changed()
        return self._ready.popleft()

    def _make(self, seq: int, clock: float, what: Any) -> None:
        execution = self._execution
        common = {
            "time": execution.engine.wall(clock),
            "run": execution.id,
            "job": execution.plan.job,
        }
        if seq > self._last + 1:
            missing = f"{seq - self._last - 1} events were dropped"
            self._ready.append(Event(seq=seq - 1, kind=EventKind.LAGGED, message=missing, **common))
        self._last = seq
        if not isinstance(what, int):
            self._ready.append(Event(seq=seq, **common, **_extra(*what)))
            return
        before = self._before
        self._note(what)
        fields = self._run_move(what, before) if what < 0 else self._task_move(what)
        self._ready.append(Event(seq=seq, **common, **fields))

    def _note(self, what: int) -> None:
        """Keep count of attempts and of the run's state while reading along."""
        if what < 0:
            self._before = RUN_STATES[~what]
        elif what & _STATE_MASK == RUNNING:
            unit = what >> STATE_BITS
            self._attempts[unit] = self._attempts.get(unit, 0) + 1

    def _run_move(self, what: int, before: RunState | None) -> dict[str, Any]:
        state = RUN_STATES[~what]
        causes = "; ".join(self._execution.machine.causes) if state in _SHOWS_CAUSES else ""
        return {"kind": run_event(state, before), "state": state, "message": causes}

    def _task_move(self, what: int) -> dict[str, Any]:
        execution, unit = self._execution, what >> STATE_BITS
        state = TASK_STATES[what & _STATE_MASK]
        failure = execution.failures.get(unit) if state in _SHOWS_FAILURE else None
        return {
            "kind": task_event(state),
            "task": execution.plan.tasks[execution.machine.task_of(unit)].name,
            "index": execution.machine.index_of(unit),
            "attempt": self._attempts.get(unit),
            "state": state,
            "message": str(failure) if failure is not None else "",
        }


_STATE_MASK = (1 << STATE_BITS) - 1
_SHOWS_CAUSES = frozenset(RunState) - {RunState.RUNNING, RunState.SUCCEEDED}
_SHOWS_FAILURE = frozenset({TaskState.FAILED, TaskState.CRASHED, TaskState.UP_FOR_RETRY})


def _extra(word: str, task: str, index: int | None, attempt: int, *rest: Any) -> dict[str, Any]:
    """Return the fields of a progress event or of a log line."""
    fields = {"task": task, "index": index, "attempt": attempt}
    if word == "progress":
        done, total, message = rest
        return fields | {"kind": EventKind.TASK_PROGRESS, "done": done, "total": total, "message": message}
    if word == "blocked":
        return fields | {"kind": EventKind.TASK_BLOCKED, "message": rest[0]}
    level, message = rest
    return fields | {"kind": EventKind.LOG, "level": level, "message": message}

"""Events: facts about runs and bundles, numbered, in the past tense."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - who asks for the types of the fields finds it here
import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, cast

from scattersphere.model.logs import LEVEL_NAMES, make_block
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.model.dicts import EventDict


class EventKind(StrEnum):
    """The names of events, as the wire protocol spells them."""

    RUN_QUEUED = "run-queued"
    RUN_STARTED = "run-started"
    RUN_PAUSING = "run-pausing"
    RUN_PAUSED = "run-paused"
    RUN_RESUMED = "run-resumed"
    RUN_STOPPING = "run-stopping"
    RUN_CANCELLING = "run-cancelling"
    RUN_ENDED = "run-ended"
    RUN_SUSPENDED = "run-suspended"
    """The Server is being closed; the run goes on when a Server next opens the journal."""
    RUN_RECOVERED = "run-recovered"
    """It goes on where an earlier life of the Server has left it."""
    TASK_STARTED = "task-started"
    TASK_CANCELLING = "task-cancelling"
    TASK_RETRYING = "task-retrying"
    TASK_PROGRESS = "task-progress"
    TASK_BLOCKED = "task-blocked"
    TASK_ENDED = "task-ended"
    TASK_RESET = "task-reset"
    """It had succeeded, and its result was not kept: it is made again, since somebody reads it."""
    LOG = "log"
    LAGGED = "lagged"
    BUNDLE_LOADED = "bundle-loaded"
    BUNDLE_FAILED = "bundle-failed"
    BUNDLE_RELEASED = "bundle-released"
    BUNDLE_REMOVED = "bundle-removed"
    JOB_DEFINED = "job-defined"
    JOB_UNDEFINED = "job-undefined"
    JOB_FAILED = "job-failed"
    """A file of the job folder could not be loaded; `job` is its name without the ending."""
    JOURNAL_FAILED = "journal-failed"
    """The journal commits nothing: runs hold, and new ones are refused; `message` says why."""
    JOURNAL_MENDED = "journal-mended"
    SCHEDULE_FIRED = "schedule-fired"
    SCHEDULE_MISSED = "schedule-missed"
    """No run was or will be started for a time, or for several; `message` says why."""
    SCHEDULE_PAUSED = "schedule-paused"
    SCHEDULE_RESUMED = "schedule-resumed"


_RUN_EVENTS = {
    RunState.QUEUED: EventKind.RUN_QUEUED,
    RunState.RUNNING: EventKind.RUN_STARTED,
    RunState.PAUSING: EventKind.RUN_PAUSING,
    RunState.PAUSED: EventKind.RUN_PAUSED,
    RunState.STOPPING: EventKind.RUN_STOPPING,
    RunState.CANCELLING: EventKind.RUN_CANCELLING,
}
_TASK_EVENTS = {
    TaskState.RUNNING: EventKind.TASK_STARTED,
    TaskState.CANCELLING: EventKind.TASK_CANCELLING,
    TaskState.UP_FOR_RETRY: EventKind.TASK_RETRYING,
}


EVENT_ID = r"^(?:([0-9]{1,16})\.)?([0-9]{1,18})$"
"""What an `Event.id` looks like; after a restore the number of its life may be made of the clock."""
_ID = re.compile(EVENT_ID, re.ASCII)


def read_event_id(text: str) -> tuple[int | None, int] | None:
    """Return the life (None where none is said) and the number in an `Event.id`; None where it is none."""
    found = _ID.fullmatch(text)
    return None if found is None else (None if found[1] is None else int(found[1]), int(found[2]))


EVENT_OF_MOVE: Mapping[tuple[RunState | None, RunState], EventKind] = {
    (before, state): EventKind.RUN_RESUMED
    if state is RunState.RUNNING and before in {RunState.PAUSING, RunState.PAUSED}
    else _RUN_EVENTS.get(state, EventKind.RUN_ENDED)
    for before in (None, *RunState)
    for state in RunState
}
"""The name of a run's move, by the states that it comes from (None: an earlier life of the Server) and goes into."""


def task_event(state: TaskState) -> EventKind:
    """Return the name of a task's move into `state`."""
    return _TASK_EVENTS.get(state, EventKind.TASK_ENDED)


class Event(NamedTuple):
    """A fact about a run, or about the Server where `run` is None. `time` is aware UTC.

    `seq` counts from 1 without gaps for each run, and for the Server's own stream. A named tuple,
    because a large run makes hundreds of thousands of them and this is the quickest immutable object
    there is; take its members by their names.
    """

    seq: int
    time: dt.datetime
    kind: EventKind
    run: int | None = None
    job: str | None = None
    task: str | None = None
    index: int | None = None  # type: ignore[assignment]  # it hides tuple.index, which nobody needs here
    attempt: int | None = None
    state: str | None = None
    message: str = ""
    done: float | None = None
    total: float | None = None
    level: int | None = None
    bundle: str | None = None
    dropped: int = 0
    """How many events are missing before the next one (`lagged`); 0 where nobody knows."""
    schedule: str | None = None
    life: int = 0
    """The life of the Server's journal in which it happened: numbers begin anew in each; 0 without a journal."""

    @property
    def id(self) -> str:
        """What `events(since=...)` takes, after a restart too: `LIFE.NUMBER`; without a journal the number."""
        return f"{self.life}.{self.seq}" if self.life else str(self.seq)

    def __str__(self) -> str:
        """Return one line for a terminal."""
        # The time without its date and zone is written three times as quickly, and a log may have a million lines.
        return f"{self.time.time().isoformat('milliseconds')} {self._words()}"

    def __repr__(self) -> str:
        return f"<Event {self.seq} {self._words()}>"

    def as_dict(self) -> EventDict:
        """Return it as plain data; what it does not say is left out."""
        said: dict[str, object] = {
            name: value for name, value in self._asdict().items() if value not in (None, "", 0)
        }
        said |= {"seq": self.seq, "time": self.time.isoformat(), "kind": str(self.kind)}
        said |= {name: str(said[name]) for name in ("state",) if name in said}
        said |= {
            name: value for name in ("index", "done", "total") if (value := getattr(self, name)) is not None
        }
        return cast("EventDict", said)

    def _words(self) -> str:
        (
            _,
            _,
            kind,
            run,
            job,
            task,
            index,
            attempt,
            state,
            message,
            done,
            total,
            level,
            bundle,
            _,
            schedule,
            _,
        ) = self
        words: list[str] = [kind]
        if run is not None:
            words.append(f"{job or 'run'}#{run}")
        if task:
            again = f"/{attempt}" if attempt is not None and attempt > 1 else ""
            words.append(f"{task}{'' if index is None else f'[{index}]'}{again}")
        if schedule is not None:
            words.append(f"{job}/{schedule}")
        if bundle is not None:
            words.append(bundle)
        if state is not None:
            words.append(state)
        if level is not None:
            words.append(LEVEL_NAMES.get(level) or str(level))
        if done is not None:
            words.append(f"{done:g}" + (f"/{total:g}" if total is not None else ""))
        if message:
            words.append(make_block(message))
        return " ".join(words)

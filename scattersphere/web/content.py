"""What one principal sees of a Server, and runs, lines and values as pages show them: plain values, no HTML."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from scattersphere._turns import EACH
from scattersphere.commands.access import Principal
from scattersphere.commands.gateway import Gateway
from scattersphere.commands.table import COMMANDS
from scattersphere.engine.run import Run
from scattersphere.model.definition import JobDefinition
from scattersphere.model.logs import LEVEL_NAMES
from scattersphere.model.problem import Problem
from scattersphere.model.states import RunState, TaskState
from scattersphere.pictures.labels import duration
from scattersphere.registry.records import Bundle
from scattersphere.schedules.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scattersphere.engine.status import TaskStatus
    from scattersphere.model.logs import LogLine
    from scattersphere.server import Server

FAILED = frozenset({RunState.FAILED, RunState.CRASHED})
_BAD = frozenset({TaskState.FAILED, TaskState.CRASHED})
LINES, EVENTS, ROWS = 500, 30, 60
"""Lines of a log, events, and rows of a timeline on the page of a run."""


@attrs.frozen
class Taken:
    """What there is on a Server at one moment, for one principal."""

    runs: list[Run]
    jobs: dict[str, JobDefinition]
    bundles: list[Bundle]
    unresolved: Mapping[str, tuple[Problem, ...]]
    schedules: list[Schedule]
    files: dict[Path, str]
    telling: Callable[[], AbstractContextManager[None]]
    """See `Gateway.telling`."""


@attrs.frozen
class VisibleServer:
    """The Server as one principal sees it: what is hidden is not there."""

    gateway: Gateway
    principal: Principal

    @property
    def server(self) -> Server:
        """The Server itself."""
        return self.gateway.server

    def can(self, command: str) -> bool:
        """Whether the principal may use a command at all: what it may not use is not offered."""
        row = COMMANDS[command]
        return self.principal.may_use(row.role, whole_server=row.whole_server)

    def take(self) -> Taken:
        """Return all that it sees, to be shown in a thread. Call it on the loop, where nothing changes meanwhile."""
        server, sees = self.server, self.principal.sees_job
        bundles, runs = server.registry.bundles, server.runs
        return Taken(
            runs=[
                run
                for number in sorted(runs, reverse=True)
                if self.gateway.sees_run(self.principal, run := runs[number])
            ],
            jobs={name: server.definitions[name] for name in sorted(server.definitions) if sees(name)},
            bundles=[bundles[name] for name in sorted(bundles) if self.principal.sees_bundle(name)],
            unresolved={job: self.lacks(job) for job in server.unresolved if sees(job)},
            schedules=[each for (job, _), each in server.schedules.items() if sees(job)],
            files=dict(server.problems) if self.principal.unbounded else {},
            telling=partial(self.gateway.telling, self.principal),
        )

    def lacks(self, job: str) -> tuple[Problem, ...]:
        """Return what a job lacks of the code that is here; the words may suggest names of code that is hidden."""
        found: tuple[Problem, ...] = tuple(self.server.unresolved.get(job, ()))
        if self.principal.unbounded:
            return found
        return tuple(attrs.evolve(each, message="its code is not here", suggestion=None) for each in found)

    def waits_for(self, run: Run) -> str:
        """Return what a run waits for, and who has it if that may be told."""
        with self.gateway.telling(self.principal):
            return run.waits_for


# ---- runs in lists


@attrs.frozen
class ListedRun:
    """A run in a list."""

    id: int
    job: str
    state: str
    why: str
    created: dt.datetime
    started: dt.datetime | None
    seconds: float
    counts: dict[str, int]
    total: int
    since: int | None
    """Seconds since 1970 from which a live run's time is counted."""

    @property
    def took(self) -> str:
        """How long it took, or takes so far, in words."""
        return duration(self.seconds)

    @property
    def ended(self) -> int:
        """How many tasks have ended."""
        return sum(count for state, count in self.counts.items() if TaskState(state).ended)


def run_row(run: Run) -> ListedRun:
    """Return a run as a list shows it."""
    begin = run.started_at or run.created_at
    live = not run.state.ended
    return ListedRun(
        id=run.id,
        job=run.job,
        state=str(run.state),
        why=first_line(run.reason),
        created=run.created_at,
        started=run.started_at,
        seconds=seconds_of(run),
        counts={str(state): count for state, count in run.counts.items()},
        total=len(run.tasks),
        since=int(begin.timestamp()) if live and run.state is RunState.RUNNING else None,
    )


def first_line(text: str, most: int = 200) -> str:
    """Return the first line of a text, cut."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= most else line[: most - 1] + "…"


def last_line(text: str, most: int = 200) -> str:
    """Return the last line of a traceback: what went wrong."""
    lines = text.strip().splitlines()
    return first_line(lines[-1], most) if lines else ""


def what_failed(run: Run) -> str:
    """Return which task failed and with what, of the first that did."""
    for name, status in failed_tasks(run, 1):
        return f"{name}: {last_line(str(status.failure))}" if status.failure is not None else name
    return first_line(run.reason)


def failed_tasks(run: Run, most: int) -> list[tuple[str, TaskStatus]]:
    """Return the tasks and instances that failed, in the order of the definition."""
    found: list[tuple[str, TaskStatus]] = []
    for name in islice(run.tasks.named(TaskState.FAILED, TaskState.CRASHED), most):
        bad = (one for one in EACH.get()(run.tasks.instances(name)) if one.state in _BAD)
        instance = next(bad, None)
        if instance is None:
            found.append((name, run.tasks[name]))
        else:
            found.append((f"{name}[{instance.index}]", instance))
    return found


def seconds_of(run: Run) -> float:
    """Return for how long a run went on, so far or to its end."""
    begin = run.started_at or run.created_at
    return max(0.0, ((run.ended_at or dt.datetime.now(dt.UTC)) - begin).total_seconds())


def what_now(run: Run) -> str:
    """Return what a live run does at the moment: which tasks execute, or what it waits for."""
    if run.state is RunState.QUEUED:
        return first_line(run.waits_for or "waits for its turn")
    if not run.counts.get(TaskState.RUNNING):
        return ""
    names = list(islice(run.tasks.named(TaskState.RUNNING), 2))
    more = run.counts[TaskState.RUNNING] - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def number_of(text: str | None) -> int | None:
    """Return a number of a query, None for what is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004


# ---- one run


def log_rows(lines: Iterable[LogLine], *, level: int = 0, find: str = "") -> list[dict[str, object]]:
    """Return lines as the log shows them, those of a level and with a text."""
    wanted = find.casefold()
    return [
        {
            "time": f"{line.time:%H:%M:%S}.{line.time.microsecond // 1000:03}",
            "level": LEVEL_NAMES.get(line.level, str(line.level)).lower(),
            "task": line.place or "run",
            "text": line.message,
        }
        for line in EACH.get()(lines)
        if line.level >= level and (not wanted or wanted in line.message.casefold())
    ]


def shown_value(value: object) -> str:
    """Return a parameter or a result as a short text."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return first_line(text, 500)

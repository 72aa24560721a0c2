"""The page of one run, and the parts of it that are drawn again while it goes on."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
from markupsafe import Markup

from scattersphere.model.events import EventKind
from scattersphere.model.states import RunState, TaskState
from scattersphere.pictures.labels import duration, words
from scattersphere.pictures.svg import graph
from scattersphere.pictures.timeline import timeline
from scattersphere.web.content import (
    EVENTS,
    LINES,
    ROWS,
    Look,
    RunRow,
    failed_tasks,
    last_line,
    log_rows,
    run_row,
    shown_value,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.execution.run import Run
    from scattersphere.execution.views.pictures import RunPicture
    from scattersphere.pictures.timeline import AttemptBar

WIDE, NARROW = 1080, 740
"""Pixels that the graph has alone, and beside a task that is looked at."""
FAILURES = 3
"""Failures that are shown before everything else."""
LEVELS = (("0", "all levels"), ("20", "info and above"), ("30", "warnings and errors"), ("40", "errors"))
_FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+), in (.+)$', re.MULTILINE)


@attrs.frozen
class FailureRow:
    """A failed task as the top of the page tells it."""

    name: str
    task: str
    line: str
    words: str
    source: str
    text: str


@attrs.frozen
class AttemptRow:
    """An attempt, or the attempts of an instance."""

    name: str
    state: str
    begin: float
    seconds: float


@attrs.frozen
class ChosenTask:
    """The task that somebody looks at."""

    name: str
    path: str
    state: str
    counts: dict[str, int]
    attempts: list[AttemptRow]
    after: tuple[str, ...]
    facts: list[tuple[str, str]]


@attrs.frozen
class Query:
    """What the address of the page asks for."""

    task: str
    of_task: bool
    level: int
    find: str
    window: tuple[float, float] | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Query:
        """Read a query; what is not understood is as if it were not there."""
        level = query.get("level", "0")
        try:
            window = (float(query["from"]), float(query["to"]))
        except (KeyError, ValueError):
            window = None
        if window is not None and not 0 <= window[0] < window[1] < 1e9:  # noqa: PLR2004 - thirty years
            window = None
        return cls(
            task=query.get("task", ""),
            of_task=query.get("of") == "task",
            level=int(level) if level in dict(LEVELS) else 0,
            find=query.get("find", "")[:200],
            window=window,
        )


def live_parts(look: Look, run: Run, query: Query) -> dict[str, Any]:
    """Return what is drawn again as a run goes on. It reads the whole run: call it in a thread."""
    picture = run.picture()
    row = run_row(run)
    chosen = _chosen(run, picture, query)
    begun = [each for each in picture.rows if each.attempts]
    shown = begun[:ROWS]
    failures = failed_tasks(run, FAILURES)
    bad = sum(run.counts.get(state, 0) for state in (TaskState.FAILED, TaskState.CRASHED))
    return {
        "r": _Row(
            row, is_over=run.state.ended, unwell=run.state.ended and run.state is not RunState.SUCCEEDED
        ),
        "defined": run.job in look.server.definitions,
        "failures": [_failure(run, name, status) for name, status in failures],
        "more_failures": max(0, bad - len(failures)),
        "stuck": run.stuck,
        "parent": run.parent,
        "params_short": [(name, shown_value(value)) for name, value in list(run.params.items())[:2]],
        "graph": Markup(  # noqa: S704 - escaped where it is drawn
            graph(
                picture.nodes,
                picture.upstreams,
                fit=NARROW if chosen else WIDE,
                chosen=chosen.name if chosen else None,
                link=_link_to_task,
            )
        ),
        "chosen": chosen,
        "rows": shown,
        "rows_more": len(begun) - len(shown),
        "timeline": Markup(  # noqa: S704 - the same
            timeline(
                shown,
                picture.lasted,
                window=query.window,
                pauses=picture.pauses,
                chosen=chosen.name if chosen else None,
            )
        ),
        "window": f"{duration(query.window[0])} to {duration(query.window[1])}"
        if query.window
        else duration(picture.lasted.seconds),
        "zoomed": query.window is not None,
    }


class _Row:
    """A run's row, whether it is over, and whether it ended in another way than well: what templates read."""

    def __init__(self, row: RunRow, *, is_over: bool, unwell: bool) -> None:
        self._row = row
        self.is_over = is_over
        self.unwell = unwell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def whole_page(look: Look, run: Run, query: Query) -> dict[str, Any]:
    """Return all that the page of a run shows; call it in a thread."""
    parts = live_parts(look, run, query)
    chosen = parts["chosen"]
    task = chosen.name if chosen is not None and query.of_task else None
    lines = run.logs(task=task, tail=None if query.find or query.level else LINES)
    rows = log_rows(lines, level=query.level, find=query.find)
    return parts | {
        "lines": rows[-LINES:],
        "log_cut": len(rows) > LINES or (len(lines) == LINES and not query.find),
        "level": str(query.level),
        "levels": LEVELS,
        "find": query.find,
        "of_task": query.of_task,
        "params": {name: shown_value(value) for name, value in run.params.items()},
        "results": _results(run),
        "code": sorted({str(version.label) for version in run.plan.versions if version.digest})
        or ["classes of the host"],
        "last_event": run.last_event,
    }


def _results(run: Run) -> dict[str, str]:
    shown = run.results.shown()
    return {name: shown_value(value) for name, value in list(shown.items())[:50] if value is not None}


def _link_to_task(name: str) -> str:

    return f"?task={quote(name)}#task"


def _failure(run: Run, name: str, status: Any) -> FailureRow:
    text = status.failure.traceback if status.failure is not None else ""
    frames = _FRAME.findall(text)
    where = f"{frames[-1][0]}, line {frames[-1][1]}, in {frames[-1][2]}" if frames else ""
    most = 1
    retry = run.definition.tasks[status.name].retry
    if retry is not None:
        most = retry.max_attempts
    took = f", after {duration(status.seconds)}" if status.seconds is not None else ""
    return FailureRow(
        name=name,
        task=status.name,
        line=last_line(text) or words(str(status.state)),
        words=f"attempt {status.attempts} of {most}{took}",
        source=where,
        text=text.strip(),
    )


def _chosen(run: Run, picture: RunPicture, query: Query) -> ChosenTask | None:
    """Return the task that the address names; of a failed run, the first that failed."""
    name = query.task
    if name not in run.tasks:
        failed = failed_tasks(run, 1)
        if not failed:
            return None
        name = failed[0][1].name
    place = next(at for at, node in enumerate(picture.nodes) if node.name == name)
    node, row, now = picture.nodes[place], picture.rows[place], picture.lasted.seconds
    definition = run.definition.tasks[name]
    facts = [("Backend", str(definition.backend or "its own")), ("Bundle", str(definition.bundle or ""))]
    if definition.retry is not None:
        facts.append(("Retry", f"{definition.retry.max_attempts} attempts"))
    if definition.timeout is not None:
        facts.append(("Time limit", duration(definition.timeout)))
    if name in run.results:
        facts.append(("Result", shown_value(run.results.shown_of(name))))
    return ChosenTask(
        name=name,
        path=definition.task,
        state=str(run.tasks[name].state),
        counts=node.progress.counts if node.progress is not None else {},
        attempts=_slowest(run, name)
        if node.mapped
        else [_attempt(at, one, now) for at, one in enumerate(row.attempts, 1)],
        after=picture.upstreams.get(name, ()),
        facts=[(key, value) for key, value in facts if value],
    )


def _attempt(number: int, attempt: AttemptBar, now: float) -> AttemptRow:
    end = now if attempt.end is None else attempt.end
    return AttemptRow(f"attempt {number}", attempt.state, attempt.begin, end - attempt.begin)


def _slowest(run: Run, name: str, most: int = 8) -> list[AttemptRow]:
    begin = run.started_at or run.created_at
    now = dt.datetime.now(dt.UTC)
    found = [
        AttemptRow(
            f"[{one.index}]" + (f", {one.attempts} attempts" if one.attempts > 1 else ""),
            str(one.state),
            (one.started_at - begin).total_seconds(),
            ((one.ended_at or now) - one.started_at).total_seconds(),
        )
        for one in run.tasks.instances(name)
        if one.started_at is not None
    ]
    return sorted(found, key=lambda row: -row.seconds)[:most]


async def last_events(run: Run) -> list[Any]:
    """Return the newest events that happened already, the last one first."""
    found: list[Any] = []
    last = run.last_event
    if not last:
        return found
    async for event in run.events(since=max(0, last - 10 * EVENTS)):
        if event.kind not in {EventKind.LOG, EventKind.TASK_PROGRESS}:
            found.append(event)
        if event.seq >= last:
            break
    return found[: -EVENTS - 1 : -1]

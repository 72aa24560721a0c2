"""The page of one run, and the parts of it that are drawn again while it goes on."""

from __future__ import annotations

import datetime as dt
import heapq
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs
from markupsafe import Markup

from scattersphere._turns import EACH
from scattersphere.model.events import EventKind
from scattersphere.model.states import RunState, TaskState
from scattersphere.pictures import charts
from scattersphere.pictures.labels import duration, words
from scattersphere.pictures.svg import graph
from scattersphere.pictures.timeline import timeline
from scattersphere.web.content import (
    EVENTS,
    LINES,
    ROWS,
    ListedRun,
    VisibleServer,
    failed_tasks,
    last_line,
    log_rows,
    number_of,
    run_row,
    shown_value,
)
from scattersphere.web.fields import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere._json_words import JsonObject
    from scattersphere.engine.run import Run
    from scattersphere.engine.status import TaskStatus
    from scattersphere.engine.views.pictures import RunPicture
    from scattersphere.pictures.timeline import AttemptBar, Band

WIDE, NARROW = 1080, 740
"""Pixels that the graph has alone, and beside a task that is looked at."""
CROWD = 24
"""Rows of the timeline of a run with more tasks than `ROWS`: what failed, what executes, what took longest."""
BINS = 24
"""Columns of how long the instances of a map took."""
BUCKETS = 80
"""Columns of how many attempts ended over time, where there are too many for a row each."""
LISTED = 10
"""Instances of a map on a page of them."""
FAILURES = 3
"""Failures that are shown before everything else."""
RESULTS = 50
"""Results that are shown."""
REST = "<!-- the rest -->"
"""Where in the page of a run the parts stand that take longer to draw. No text of a user's holds it: it is escaped."""
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
class ShownAttempt:
    """An attempt, or the attempts of an instance."""

    name: str
    state: str
    begin: float
    seconds: float
    why: str = ""
    index: int | None = None


@attrs.frozen
class Instances:
    """The instances of a map that somebody looks at: all of them as cells, some of them as rows."""

    counts: dict[str, int]
    state: str
    """The state whose instances are listed; "" for all."""
    rows: list[ShownAttempt]
    page: int
    pages: int
    cells: str
    each: int
    """How many instances a cell stands for."""
    bins: list[Counter[str]]
    shortest: float
    median: float
    longest: float


@attrs.frozen
class ChosenTask:
    """The task that somebody looks at."""

    name: str
    path: str
    state: str
    counts: dict[str, int]
    attempts: list[ShownAttempt]
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
    instances: str
    page: int

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
            instances=query.get("instances", ""),
            page=number_of(query.get("page")) or 1,
        )


def head_parts(look: VisibleServer, run: Run, query: Query) -> JsonObject:
    """Return what the page of a run shows first, which is quick however many tasks there are."""
    failures = failed_tasks(run, FAILURES)
    bad = sum(run.counts.get(state, 0) for state in (TaskState.FAILED, TaskState.CRASHED))
    # The task that the address names; of a failed run, the first that failed.
    looked_at = query.task if query.task in run.tasks else failures[0][1].name if failures else ""
    return {
        "r": _Row(
            run_row(run),
            is_over=run.state.ended,
            unwell=run.state.ended and run.state is not RunState.SUCCEEDED,
        ),
        "defined": run.job in look.server.definitions,
        "failures": [_failure(run, name, status) for name, status in failures],
        "more_failures": max(0, bad - len(failures)),
        "stuck": run.stuck,
        "parent": run.parent,
        "params_short": [(name, shown_value(value)) for name, value in islice(run.params.items(), 2)],
        "could_not_start": run.counts.get(TaskState.UPSTREAM_FAILED, 0),
        "waits_for": look.waits_for(run) if run.state is RunState.QUEUED else "",
        "looked_at": looked_at,
        "mapped": bool(looked_at and run.tasks.width(looked_at)),
    }


def live_parts(look: VisibleServer, run: Run, query: Query) -> dict[str, object]:
    """Return what is drawn again as a run goes on. It reads the whole run: call it in a thread."""
    head = head_parts(look, run, query)
    return head | picture_parts(run, query, head)


def picture_parts(run: Run, query: Query, head: JsonObject) -> dict[str, object]:
    """Return graph, task and timeline of a run whose head was drawn already; call it in a thread."""
    picture, name = run.picture(), head["looked_at"]
    chosen = _chosen(run, picture, name) if name else None
    begun = [row for row in EACH.get()(picture.rows) if row.attempts]
    crowd = len(begun) > ROWS
    shown = _worth_a_row(begun) if crowd else begun
    return {
        "graph": Markup(  # noqa: S704 - escaped where it is drawn
            graph(
                picture.nodes,
                picture.upstreams,
                fit=NARROW if chosen else WIDE,
                chosen=name or None,
                link=_link_to_task,
            )
        ),
        "chosen": chosen,
        "instances": _instances(run, chosen, query) if chosen is not None and head["mapped"] else None,
        "zoom": _zoom(query.window, picture.lasted.seconds),
        "throughput": _throughput(begun, picture.lasted.seconds) if crowd else None,
        "lasted": picture.lasted.seconds,
        "rows": shown,
        "rows_more": len(begun) - len(shown),
        "timeline": Markup(  # noqa: S704 - the same
            timeline(shown, picture.lasted, window=query.window, pauses=picture.pauses, chosen=name or None)
        ),
        "window": f"{duration(query.window[0])} to {duration(query.window[1])}"
        if query.window
        else duration(picture.lasted.seconds),
        "zoomed": query.window is not None,
        "results": _results(run),
    }


class _Row:
    """A run's row, whether it is over, and whether it ended in another way than well: what templates read."""

    def __init__(self, row: ListedRun, *, is_over: bool, unwell: bool) -> None:
        self._row = row
        self.is_over = is_over
        self.unwell = unwell

    def __getattr__(self, name: str) -> object:
        return getattr(self._row, name)


def rest_parts(look: VisibleServer, run: Run, query: Query, head: JsonObject) -> dict[str, object]:
    """Return all that the page of a run shows below its head; call it in a thread."""
    task = head["looked_at"] if query.of_task else None
    lines = run.logs(task=task or None, tail=None if query.find or query.level else LINES)
    rows = log_rows(lines, level=query.level, find=query.find)
    return picture_parts(run, query, head) | {
        "lines": rows[-LINES:],
        "log_cut": len(rows) > LINES or (len(lines) == LINES and not query.find),
        "level": str(query.level),
        "levels": LEVELS,
        "find": query.find,
        "of_task": query.of_task,
        "params": _params(run),
        "code": _code(look, run),
        "last_event": run.last_event,
    }


def _results(run: Run) -> dict[str, str]:
    """Return the first results that are something."""
    found = ((name, run.results[name]) for name in EACH.get()(run.results))
    some = islice((name for name, value in found if value is not None), RESULTS)
    return {name: shown_value(run.results.shown_of(name)) for name in some}


def _params(run: Run) -> list[tuple[str, str, str]]:
    """Return the parameters of a run, and whether each was given, is the default, or is secret."""
    declared = parameters_of(run.definition)
    found = []
    for name, value in run.params.items():
        parameter = declared.get(name)
        if parameter is None:
            how = "given"
        else:
            how = "secret" if parameter.secret else "default" if value == parameter.default else "given"
        found.append((name, shown_value(value), how))
    return found


def _code(look: VisibleServer, run: Run) -> list[tuple[str, str]]:
    """Return the versions of bundles that a run has pinned, and whether there is a newer one."""
    found = []
    bundles = look.server.registry.bundles
    for label in sorted({str(version.label) for version in run.plan.versions if version.digest}):
        bundle = bundles.get(label.partition("@")[0])
        current = bundle.current.label if bundle is not None and bundle.current is not None else ""
        found.append(
            (label, "current" if current == label else f"{current} is current" if current else "gone")
        )
    return found or [("classes of the host", "")]


_LOUD = frozenset({"failed", "crashed", "running", "cancelling", "up_for_retry"})


def _worth_a_row(rows: list[Band]) -> list[Band]:
    """Return the rows of a large run that are worth a look, in the order in which they began."""

    def took(row: Band) -> float:
        first, last = row.attempts[0], row.attempts[-1]
        return (last.end or first.begin) - first.begin

    order = [(row.state not in _LOUD, -took(row), place) for place, row in EACH.get()(enumerate(rows))]
    chosen = [rows[place] for *_, place in heapq.nsmallest(CROWD, order)]
    return sorted(chosen, key=lambda row: row.attempts[0].begin)


def _throughput(rows: list[Band], seconds: float) -> list[Counter[str]]:
    found = [Counter[str]() for _ in range(BUCKETS)]
    for row in EACH.get()(rows):
        for attempt in row.attempts:
            if attempt.end is not None:
                found[min(BUCKETS - 1, int(attempt.end / max(seconds, 1e-9) * BUCKETS))][attempt.state] += 1
    return found


def _zoom(window: tuple[float, float] | None, whole: float) -> list[tuple[str, str]]:
    """Return the steps from a part of the timeline to others: words, and the query of each."""
    begin, end = window or (0.0, whole)
    half = (end - begin) / 2
    steps = [("Zoom in", begin + half / 2, end - half / 2)]
    if window is not None:
        steps += [
            ("Zoom out", max(0.0, begin - half), min(whole, end + half)),
            ("Earlier", max(0.0, begin - half), max(0.0, begin - half) + 2 * half),
            ("Later", begin + half, end + half),
        ]
    return [(words, f"from={first:.6g}&to={last:.6g}") for words, first, last in steps if first < last]


def _instances(run: Run, chosen: ChosenTask, query: Query) -> Instances:
    each = EACH.get()
    statuses = list(each(run.tasks.instances(chosen.name)))
    states = [str(one.state) for one in each(statuses)]
    picked = [one for one in each(statuses) if query.instances in {"", str(one.state)}]
    origin, now = run.started_at or run.created_at, dt.datetime.now(dt.UTC)

    def took(one: TaskStatus) -> float:
        return (
            ((one.ended_at or now) - one.started_at).total_seconds() if one.started_at is not None else -1.0
        )

    if query.instances == "":
        picked = [
            picked[place]
            for _, place in sorted((-took(one), place) for place, one in each(enumerate(picked)))
        ]
    pages = max(1, -(-len(picked) // LISTED))
    page = min(max(1, query.page), pages)
    times = sorted(
        seconds for one in each(statuses) if one.ended_at is not None and (seconds := took(one)) >= 0
    )
    longest = times[-1] if times else 0.0
    bins = [Counter[str]() for _ in range(BINS)]
    for one in each(statuses):
        if one.ended_at is not None and (seconds := took(one)) >= 0:
            bins[min(BINS - 1, int(seconds / max(longest, 1e-9) * BINS))][str(one.state)] += 1
    return Instances(
        counts=chosen.counts,
        state=query.instances,
        rows=[
            ShownAttempt(
                name=f"[{one.index}]",
                state=str(one.state),
                begin=(one.started_at - origin).total_seconds() if one.started_at is not None else 0.0,
                seconds=max(0.0, took(one)),
                why=last_line(one.failure.traceback) if one.failure is not None else "",
                index=one.index,
            )
            for one in picked[(page - 1) * LISTED : page * LISTED]
        ],
        page=page,
        pages=pages,
        cells=Markup(charts.cells(states)),  # noqa: S704 - escaped where it is drawn
        each=max(1, -(-len(states) // charts.CELLS)),
        bins=bins if times else [],
        shortest=times[0] if times else 0.0,
        median=times[len(times) // 2] if times else 0.0,
        longest=longest,
    )


def _link_to_task(name: str) -> str:
    return f"?task={quote(name)}#task"


def _failure(run: Run, name: str, status: TaskStatus) -> FailureRow:
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


def _chosen(run: Run, picture: RunPicture, name: str) -> ChosenTask:
    """Return the task that somebody looks at."""
    place = next(at for at, node in EACH.get()(enumerate(picture.nodes)) if node.name == name)
    node, row, now = picture.nodes[place], picture.rows[place], picture.lasted.seconds
    definition = run.definition.tasks[name]
    facts = [("Backend", str(definition.backend or "its own")), ("Bundle", str(definition.bundle or ""))]
    if definition.retry is not None and definition.retry.max_attempts > 1:
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
        attempts=[] if node.mapped else _attempts(run, name, row.attempts, now),
        after=picture.upstreams.get(name, ()),
        facts=[(key, value) for key, value in facts if value],
    )


def _attempts(run: Run, name: str, attempts: Sequence[AttemptBar], now: float) -> list[ShownAttempt]:
    """Return the attempts of a task, each with what went wrong in it."""
    wrong = {}
    if len(attempts) > 1 or run.tasks[name].failure is not None:
        for line in run.logs(task=name, tail=LINES):
            if line.attempt and line.message.startswith("Traceback"):
                wrong[line.attempt] = last_line(line.message)
    return [
        ShownAttempt(
            name=f"attempt {number}",
            state=one.state,
            begin=one.begin,
            seconds=(now if one.end is None else one.end) - one.begin,
            why=wrong.get(number, ""),
        )
        for number, one in enumerate(attempts, 1)
    ]


async def last_events(run: Run) -> list[object]:
    """Return the newest events that happened already, the last one first."""
    found: list[object] = []
    last = run.last_event
    if not last:
        return found
    async for event in run.events(since=max(0, last - 10 * EVENTS)):
        if event.kind not in {EventKind.LOG, EventKind.TASK_PROGRESS}:
            found.append(event)
        if event.seq >= last:
            break
    return found[: -EVENTS - 1 : -1]

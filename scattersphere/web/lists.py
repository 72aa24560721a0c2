"""Content of the pages of many things, for one principal: the overview, runs, jobs, bundles, schedules."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._turns import EACH
from scattersphere.model.states import RunState
from scattersphere.pictures.labels import duration
from scattersphere.web.content import (
    FAILED,
    ListedRun,
    Taken,
    VisibleServer,
    first_line,
    last_line,
    number_of,
    run_row,
    seconds_of,
    what_failed,
    what_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scattersphere._json_words import JsonObject
    from scattersphere.engine.run import Run
    from scattersphere.jobs.history import RunSummary
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.problem import Problem
    from scattersphere.schedules.schedule import Schedule

WAITING = frozenset({RunState.QUEUED, RunState.PAUSED})
DAY = dt.timedelta(hours=24)
PAGE = 50
"""Runs on a page of the list."""
STRIP = 20
"""Runs that the list of jobs shows of each."""


def overview(taken: Taken) -> dict[str, object]:
    """Return what the first page shows: what runs, what failed last, what needs a look."""
    now = dt.datetime.now(dt.UTC)
    runs = taken.runs
    each = EACH.get()
    day = [run for run in each(runs) if now - run.created_at < DAY]
    live = [run for run in each(runs) if not run.state.ended]
    failed = [run for run in each(runs) if run.state in FAILED]
    with taken.telling():
        active = [(run_row(run), what_now(run)) for run in each(live[:PAGE])]
    return {
        "running": sum(run.state not in WAITING for run in live),
        "waiting": sum(run.state in WAITING for run in live),
        "failed_day": sum(run.state in FAILED for run in day),
        "day": len(day),
        "active": active,
        "active_more": max(0, len(live) - PAGE),
        "failed": [(run_row(run), what_failed(run)) for run in failed[:8]],
        "problems": problems(taken),
        "hours": by_hour(day, now),
        "day_counts": Counter(str(run.state) for run in day),
        "next": next_firings(taken, 4),
        "nothing": not runs and not taken.jobs,
    }


def by_hour(runs: Iterable[Run], now: dt.datetime) -> list[Counter[str]]:
    """Return how the runs of the last 24 hours are, by the hour in which they were started."""
    hours = [Counter[str]() for _ in range(24)]
    for run in EACH.get()(runs):
        ago = int((now - run.created_at).total_seconds() // 3600)
        hours[23 - min(max(ago, 0), 23)][str(run.state)] += 1
    return hours


@attrs.frozen
class OverviewProblem:
    """Something that somebody should look at."""

    state: str
    what: str
    where: str
    page: str
    why: str


def problems(taken: Taken) -> list[OverviewProblem]:
    """Return what is wrong with bundles, jobs and what executes."""
    found = [
        OverviewProblem(
            "failed", "Bundle broken", bundle.name, f"bundles#b-{bundle.name}", last_line(bundle.error)
        )
        for bundle in taken.bundles
        if bundle.error
    ]
    for job, lacks in taken.unresolved.items():
        found.append(
            OverviewProblem("up_for_retry", "Job waits for code", job, f"jobs/{job}", str(lacks[0].message))
        )
    for path, message in taken.files.items():
        found.append(OverviewProblem("failed", "File not loaded", path.name, "bundles", first_line(message)))
    for run in EACH.get()(taken.runs):
        for label, place in run.stuck.items():
            found.append(
                OverviewProblem("crashed", "Attempt stuck", label, f"runs/{run.id}", f"still in {place}")
            )
    return found[:20]


# ---- runs, jobs, bundles


@attrs.frozen
class SortOrder:
    """The column that a table is sorted by, as its address says."""

    column: str
    descending: bool

    @classmethod
    def of(
        cls, query: Mapping[str, str], columns: Iterable[str], *, first: str, descending: bool
    ) -> SortOrder:
        """Read `sort` and `order` of a query; what is not understood is as if it were not there."""
        column = query.get("sort", "")
        if column not in columns:
            return cls(first, descending)
        return cls(column, query.get("order", "asc") == "desc")


_RUN_ORDER: dict[str, Callable[[Run], Any]] = {
    "run": lambda run: run.id,
    "job": lambda run: run.job,
    "state": lambda run: str(run.state),
    "tasks": lambda run: len(run.tasks),
    "took": seconds_of,
}


def runs_page(taken: Taken, query: Mapping[str, str]) -> dict[str, object]:
    """Return a page of runs, filtered and sorted by the query: job, state, q, sort, order, page."""
    runs = taken.runs
    job, state, find = query.get("job", ""), query.get("state", ""), query.get("q", "").casefold()
    of_job = [
        run
        for run in EACH.get()(runs)
        if job in {"", run.job} and (not find or find in run.job.casefold() or find in run.reason.casefold())
    ]
    counts = Counter(str(run.state) for run in EACH.get()(of_job))
    chosen = [run for run in EACH.get()(of_job) if state in {"", str(run.state)}]
    order = SortOrder.of(query, _RUN_ORDER, first="run", descending=True)
    if (order.column, order.descending) != ("run", True):
        chosen.sort(key=_RUN_ORDER[order.column], reverse=order.descending)
    pages = max(1, -(-len(chosen) // PAGE))
    page = min(max(1, number_of(query.get("page")) or 1), pages)
    shown = chosen[(page - 1) * PAGE : page * PAGE]
    return {
        "rows": [
            (run_row(run), what_failed(run) if run.state in FAILED else "") for run in EACH.get()(shown)
        ],
        "counts": counts,
        "total": len(of_job),
        "matching": len(chosen),
        "first": (page - 1) * PAGE + 1,
        "page": page,
        "pages": pages,
        "order": order,
        "asked": {"job": job, "state": state, "q": query.get("q", "")},
        "jobs": sorted({run.job for run in runs}),
    }


def record_row(look: VisibleServer, record: RunSummary) -> tuple[ListedRun, str]:
    """Return a run of the history as a list shows it, and what failed; of one in the journal tasks are not known."""
    run = look.server.runs.get(record.id)
    if run is not None:
        return run_row(run), what_failed(run) if run.state in FAILED else ""
    begin, end = record.started_at or record.created_at, record.ended_at or record.created_at
    row = ListedRun(
        id=record.id,
        job=record.job,
        state=str(record.state),
        why=first_line(record.reason),
        created=record.created_at,
        started=record.started_at,
        seconds=max(0.0, (end - begin).total_seconds()),
        counts={},
        total=0,
        since=None,
    )
    return row, ""


async def history_page(look: VisibleServer, query: Mapping[str, str], before: int) -> JsonObject:
    """Return the runs with numbers below `before`, those of the journal too, filtered by the query: job, state, q."""
    job, state, find = query.get("job", ""), query.get("state", ""), query.get("q", "").casefold()
    wanted = RunState(state) if state in set(RunState) else None

    def seen(record: RunSummary) -> bool:
        found = not find or find in record.job.casefold() or find in record.reason.casefold()
        return found and look.gateway.sees_record(look.principal, record)

    found = await look.server.history.list(
        job=job or None, state=wanted, before=before, limit=PAGE, where=seen
    )
    return {
        "rows": [record_row(look, record) for record in found],
        "older": found.before or 0,
        "asked": {"job": job, "state": state, "q": query.get("q", "")},
        "states": list(map(str, RunState)),
    }


@attrs.frozen
class JobRow:
    """A job in the list."""

    name: str
    description: str
    tasks: int
    bundles: str
    lacks: str
    recent: list[ListedRun]
    seconds: float

    @property
    def median(self) -> str:
        """How long its last runs took, the middle one of them, in words."""
        return duration(self.seconds) if self.seconds >= 0 else ""


_JOB_ORDER: dict[str, Callable[[JobRow], Any]] = {
    "job": lambda row: row.name.casefold(),
    "last": lambda row: row.recent[-1].created if row.recent else dt.datetime.min.replace(tzinfo=dt.UTC),
    "state": lambda row: row.recent[-1].state if row.recent else "",
    "took": lambda row: row.seconds,
    "tasks": lambda row: row.tasks,
}


def jobs_page(taken: Taken, query: Mapping[str, str]) -> dict[str, object]:
    """Return the jobs, filtered and sorted by the query: q, sort, order."""
    find = query.get("q", "").casefold()
    recent: dict[str, list[Run]] = {}
    for run in EACH.get()(taken.runs):
        recent.setdefault(run.job, []).append(run)
    rows = [
        _job_row(name, job, recent.get(name, [])[:STRIP], taken.unresolved.get(name, ()))
        for name, job in EACH.get()(taken.jobs.items())
        if not find or find in name.casefold() or find in job.description.casefold()
    ]
    order = SortOrder.of(query, _JOB_ORDER, first="job", descending=False)
    rows.sort(key=_JOB_ORDER[order.column], reverse=order.descending)
    return {"jobs": rows, "order": order, "asked": {"q": query.get("q", "")}}


def _job_row(name: str, job: JobDefinition, last: list[Run], lacks: Sequence[Problem]) -> JobRow:
    took = sorted(seconds_of(run) for run in last if run.ended_at and run.started_at)
    return JobRow(
        name=name,
        description=first_line(job.description),
        tasks=len(job.tasks),
        bundles=", ".join(
            sorted({task.bundle for task in EACH.get()(job.tasks.values()) if task.bundle})[:3]
        ),
        lacks=first_line(str(lacks[0].message)) if lacks else "",
        recent=[run_row(run) for run in reversed(last)],
        seconds=took[len(took) // 2] if took else -1.0,
    )


@attrs.frozen
class VersionRow:
    """A version of a bundle."""

    label: str
    current: bool
    runs: list[int]


def bundles_page(look: VisibleServer, taken: Taken, query: Mapping[str, str]) -> dict[str, object]:
    """Return the bundles with their versions, who holds them, and what is wrong; those that a search names."""
    rows = []
    seen = {run.id for run in taken.runs}
    find = query.get("q", "").casefold()
    for bundle in EACH.get()(taken.bundles):
        if find not in bundle.name.casefold():
            continue
        older = bundle.versions
        versions = []
        if bundle.current is not None:
            of_current = bundle.runs.difference(*older.values())
            versions.append(VersionRow(bundle.current.label, True, sorted(seen & of_current)))
        versions += [
            VersionRow(version.label, False, sorted(seen.intersection(runs)))
            for version, runs in reversed(list(older.items()))
        ]
        rows.append(
            {
                "name": bundle.name,
                "kind": str(bundle.kind),
                "file": str(bundle.path) if bundle.path is not None and look.principal.unbounded else "",
                "label": bundle.current.label if bundle.current else "",
                "loaded": bundle.loaded_at,
                "error": (bundle.error or "").strip(),
                "error_line": last_line(bundle.error or ""),
                "warnings": list(bundle.warnings),
                "versions": versions,
                "tasks": [
                    {
                        "path": path,
                        "summary": task.summary,
                        "parameters": ", ".join(f"{p.name}: {p.type_name}" for p in task.parameters.values()),
                    }
                    for path, task in sorted(bundle.tasks.items())
                ],
                "reloads": bundle.path is not None,
            }
        )
    return {
        "bundles": rows,
        "asked": {"q": query.get("q", "")},
        "roots": bool(look.gateway.bundle_roots),
        "files": [(path.name, first_line(message)) for path, message in taken.files.items()],
    }


# ---- schedules


@attrs.frozen
class ListedSchedule:
    """A schedule: when it fires, in the zone that it is written in and in UTC, and how its last run went."""

    job: str
    name: str
    state: str
    said: str
    words: str
    expression: str
    zone: str
    next: list[tuple[str, str, str]]
    missed: int
    last: ListedRun | None
    paused: bool
    defined: bool


def schedules_page(taken: Taken, query: Mapping[str, str], times: int = 3) -> JsonObject:
    """Return the schedules of the jobs that it sees, the next to fire first, filtered by the query: q, state."""
    find, state = query.get("q", "").casefold(), query.get("state", "")
    found = [each for each in schedules_of(taken) if find in f"{each.job} / {each.name}".casefold()]
    counts = Counter(said_of(each) for each in found)
    chosen = [each for each in found if state in {"", said_of(each)}]
    last = {run.id: run for run in taken.runs}
    rows = [_schedule_row(last, schedule, times) for schedule in chosen[:PAGE]]
    asked = {"q": query.get("q", ""), "state": state}
    return {"schedules": rows, "asked": asked, "counts": counts, "total": len(found), "matching": len(chosen)}


def said_of(schedule: Schedule) -> str:
    """Return in a word whether a schedule will fire."""
    return "paused" if schedule.paused else "waits" if schedule.fires else "off"


def schedules_of(taken: Taken) -> list[Schedule]:
    """Return the schedules: those that fire next first, those that fire no more last."""
    never = dt.datetime.max.replace(tzinfo=dt.UTC)
    return sorted(
        taken.schedules,
        key=lambda each: (not each.fires, next(iter(each.next()), never), each.job, each.name),
    )


def _schedule_row(runs: Mapping[int, Run], schedule: Schedule, times: int) -> ListedSchedule:
    zone = zoneinfo.ZoneInfo(schedule.definition.zone or "UTC")
    now = dt.datetime.now(dt.UTC)
    last = runs.get(schedule.last_run or 0)
    state = "paused" if schedule.paused else "queued" if schedule.fires else "stopped"
    definition = schedule.definition
    expression = definition.cron or (
        f"every {definition.every:g} s" if definition.every else ", ".join(definition.at or ())
    )
    return ListedSchedule(
        job=schedule.job,
        name=schedule.name,
        state=state,
        said=said_of(schedule),
        words=schedule.words(),
        expression=expression,
        zone=definition.zone or "UTC",
        next=[
            (
                f"{time.astimezone(zone):%a %d %b, %H:%M:%S}",
                f"{time:%H:%M:%S}",
                duration(max(0.0, (time - now).total_seconds())),
            )
            for time in (schedule.next(times) if schedule.fires else ())
        ],
        missed=schedule.state.missed,
        last=run_row(last) if last is not None else None,
        paused=schedule.paused,
        defined=schedule.is_defined,
    )


def next_firings(taken: Taken, most: int) -> list[tuple[str, str, str, str]]:
    """Return the schedules that fire next: time in UTC, job, name, and in how long."""
    found = []
    now = dt.datetime.now(dt.UTC)
    for schedule in schedules_of(taken)[:most]:
        for time in schedule.next() if schedule.fires else ():
            left = (time - now).total_seconds()
            day = "" if time.date() == now.date() else f"{time:%a} "
            found.append((f"{day}{time:%H:%M}", schedule.job, schedule.name, duration(max(0.0, left))))
    return found

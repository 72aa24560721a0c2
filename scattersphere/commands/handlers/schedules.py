"""Commands about schedules: listed, their next times, paused, resumed, backfilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from anyio import lowlevel, to_thread

from scattersphere.commands.access import Role
from scattersphere.commands.arguments import Arg
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import Context
from scattersphere.commands.paging import Cursor, page
from scattersphere.commands.table import Reply, command
from scattersphere.schedules.occurrences import read_instant
from scattersphere.schedules.schedule import Schedule
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    import datetime as dt

JobName = Annotated[str, Arg("the name of a job")]
ScheduleName = Annotated[str, Arg("the name of a schedule of the job")]
SHOWN = 200
"""Schedules that are listed at once: 20 milliseconds, if nobody has asked for their words before."""


@command("schedules", role=Role.VIEWER, example="schedules", method="GET", path="/schedules", idempotent=True)
async def schedules(
    context: Context,
    *,
    job: Annotated[str | None, Arg("only those of this job")] = None,
    limit: Annotated[int, Arg("at most so many", low=1, high=SHOWN)] = SHOWN,
    cursor: Cursor = None,
) -> Reply:
    """List the schedules of the jobs."""
    if job is not None:
        context.gateway.job(context.principal, job)  # raises
    principal, server = context.principal, context.gateway.server
    seen = {
        f"{of}/{name}": schedule
        for (of, name), schedule in server.schedules.items()
        if job in {None, of} and principal.sees_job(of)
    }
    keys, more = page((key for key in sorted(seen) if cursor is None or key > cursor), limit)
    rows = []
    for key in keys:
        rows.append(_row(context, seen[key]))  # a millisecond or two, where it has to look for a rare time
        await lowlevel.checkpoint()
    return {"schedules": rows, "count": len(seen), **more}


def _row(context: Context, schedule: Schedule) -> dict[str, object]:
    row = schedule.as_dict()
    if not context.principal.unbounded:
        del row["refused"]  # its words may tell of what others have
    return row


@command(
    "next",
    role=Role.VIEWER,
    example="next nightly early 5",
    method="GET",
    path="/jobs/{job}/schedules/{schedule}/next",
    idempotent=True,
)
async def next_times(
    context: Context,
    *,
    job: JobName,
    schedule: ScheduleName,
    count: Annotated[int, Arg("how many times", low=1, high=100)] = 5,
) -> Reply:
    """Tell when a schedule fires next."""
    found = _find(context, job, schedule)
    zone = found.table.zone
    times = [
        {"utc": show_instant(time), "local": time.astimezone(zone).isoformat(timespec="seconds")}
        for time in await to_thread.run_sync(found.next, count)
    ]
    return {**_row(context, found), "next": times}


@command(
    "pause-schedule",
    role=Role.OPERATOR,
    example="pause-schedule nightly early",
    method="POST",
    path="/jobs/{job}/schedules/{schedule}/pause",
    idempotent=True,
)
async def pause_schedule(context: Context, *, job: JobName, schedule: ScheduleName) -> Reply:
    """Let a schedule start nothing until it is resumed."""
    found = _find(context, job, schedule)
    found.pause()
    return _row(context, found)


@command(
    "resume-schedule",
    role=Role.OPERATOR,
    example="resume-schedule nightly early",
    method="POST",
    path="/jobs/{job}/schedules/{schedule}/resume",
    idempotent=True,
)
async def resume_schedule(context: Context, *, job: JobName, schedule: ScheduleName) -> Reply:
    """Let a schedule start runs again."""
    found = _find(context, job, schedule)
    found.resume()
    return _row(context, found)


@command(
    "run-schedule",
    role=Role.RUNNER,
    example="run-schedule nightly early",
    method="POST",
    path="/jobs/{job}/schedules/{schedule}/run",
)
async def run_schedule(context: Context, *, job: JobName, schedule: ScheduleName) -> Reply:
    """Start a run as a schedule would, now."""
    found = _find(context, job, schedule)
    _check_code(context, job)
    return {"job": job, "schedule": schedule, "run": (await found.run_now()).id}


@command(
    "backfill",
    role=Role.OPERATOR,
    example="backfill nightly early 2026-11-01T00:00:00Z 2026-11-08T00:00:00Z dry_run=true",
    method="POST",
    path="/jobs/{job}/schedules/{schedule}/backfill",
)
async def backfill(
    context: Context,
    *,
    job: JobName,
    schedule: ScheduleName,
    since: Annotated[str, Arg("the first time, ISO with an offset")],
    until: Annotated[str, Arg("the end, which is not one of the times")],
    max_parallel: Annotated[int, Arg("runs at the same time", low=1, high=100)] = 1,
    dry_run: Annotated[bool, Arg("start nothing, and tell for which times")] = False,
) -> Reply:
    """Start a run for each time of a schedule in the past."""
    found = _find(context, job, schedule)
    _check_code(context, job)
    begin, end = _instant("since", since), _instant("until", until)
    made = await found.backfill(begin, end, max_parallel=max_parallel, dry_run=dry_run)
    return {
        "job": job,
        "schedule": schedule,
        "times": [show_instant(time) for time in made.times],
        "started": not dry_run,
    }


def _find(context: Context, job: str, name: str) -> Schedule:
    """Return a schedule that exists for who asks. Raises `RequestError` (`no-such-job`, `no-such-schedule`)."""
    context.gateway.job(context.principal, job)  # raises; what is hidden is answered as what is absent
    found = context.gateway.server.schedules.get((job, name))
    if found is None:
        names = context.gateway.server.definitions[job].schedules
        shown = f"; it has {', '.join(list(names)[:10])}" if names else "; it has none"
        raise RequestError("no-such-schedule", f"no schedule {name[:64]!r} in {job}{shown}", field="schedule")
    return found


def _check_code(context: Context, job: str) -> None:
    """Raise `RequestError` where the job has a task whose code who asks may not use: as `run` does."""
    gateway = context.gateway
    task = gateway.uncovered(context.principal, gateway.server.definitions[job])
    if task is not None:
        raise RequestError("forbidden", f"your token does not cover the code of task {task!r}", field="job")


def _instant(field: str, text: str) -> dt.datetime:
    try:
        return read_instant(text)
    except (ValueError, OverflowError):
        message = f"{field} is no time; write it like 2026-11-30T02:30:00+01:00"
        raise RequestError("bad-args", message, field=field) from None

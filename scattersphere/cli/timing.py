"""What `scattersphere next` prints: when the schedules of a definition file fire, on the wall and in UTC."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import TYPE_CHECKING

from scattersphere.model.definition import JobDefinition
from scattersphere.model.logs import make_printable
from scattersphere.schedules.occurrences import first_times, read_instant, timetable_of
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.model.schedules import ScheduleDefinition


def print_next(file: str, count: int, since: str | None, only: str | None, *, as_json: bool) -> None:
    """Print the next times of each schedule of a file, or of `only` one.

    Raises `DefinitionError`, `OSError`, `LookupError` where there is no such schedule.
    """
    definition = JobDefinition.load(file)
    begin = dt.datetime.now(dt.UTC) if since is None else read_instant(since)
    if only is not None and only not in definition.schedules:
        raise LookupError(
            f"no schedule {only!r} in {file}; there are: {', '.join(definition.schedules) or 'none'}"
        )
    chosen = {name: held for name, held in definition.schedules.items() if only in {None, name}}
    lines = _as_json if as_json else _as_text
    for name, schedule in chosen.items():
        for line in lines(definition.name, name, schedule, begin, count):
            sys.stdout.write(make_printable(line) + "\n")
    if not chosen and not as_json:
        sys.stdout.write(f"{make_printable(definition.name)} has no schedules\n")


def _as_json(
    job: str, name: str, schedule: ScheduleDefinition, begin: dt.datetime, count: int
) -> Iterator[str]:
    table = timetable_of(job, name, schedule)
    times = [
        {"utc": show_instant(time), "local": time.astimezone(table.zone).isoformat(timespec="seconds")}
        for time in first_times(table, begin, count)
    ]
    shown = {"schedule": name, "words": table.words(), "zone": schedule.zone, "enabled": schedule.enabled}
    yield json.dumps({**shown, "next": times})


def _as_text(
    job: str, name: str, schedule: ScheduleDefinition, begin: dt.datetime, count: int
) -> Iterator[str]:
    table = timetable_of(job, name, schedule)
    yield f"{name}: {table.words()}" + ("" if schedule.enabled else "; it is not enabled")
    times = first_times(table, begin, count)
    for time in times:
        local = time.astimezone(table.zone)
        yield f"  {local:%a} {local:%Y-%m-%d %H:%M:%S %z}  {show_instant(time)}  in {_distance(time - begin)}"
    if not times:
        yield "  never again"


def _distance(span: dt.timedelta) -> str:
    minutes, seconds = divmod(round(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"

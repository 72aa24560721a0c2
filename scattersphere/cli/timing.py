"""The times at which the schedules of a file or a job fire, as `scattersphere next` prints them."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import TYPE_CHECKING, Any

from scattersphere.cli.checking import name_of, right
from scattersphere.model.logs import make_printable
from scattersphere.schedules.occurrences import first_times, read_instant, timetable_of
from scattersphere.schedules.triggers import show_instant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scattersphere.model.schedules import ScheduleDefinition


def print_next(file: str, count: int, since: str | None, only: str | None, *, as_json: bool) -> None:
    """Print the next times of each schedule of a file, or of `only` one.

    Raises `DefinitionError`, `OSError`, `LookupError` where there is no such schedule.
    """
    definition = right(file)
    begin = dt.datetime.now(dt.UTC) if since is None else read_instant(since)
    if only is not None and only not in definition.schedules:
        raise LookupError(
            f"no schedule {only!r} in {name_of(file)}; there are: {', '.join(definition.schedules) or 'none'}"
        )
    chosen = {name: held for name, held in definition.schedules.items() if only in {None, name}}
    rows = [_row(definition.name, name, schedule, begin, count) for name, schedule in chosen.items()]
    write_rows(definition.name, rows, begin, as_json=as_json)


def write_rows(job: str, rows: Sequence[Mapping[str, object]], begin: dt.datetime, *, as_json: bool) -> None:
    """Print a row for each schedule: `schedule`, `words`, `enabled`, and the times that are `next` after `begin`."""
    for row in rows:
        for line in [json.dumps(row)] if as_json else _as_text(row, begin):
            sys.stdout.write(make_printable(line) + "\n")
    if not rows and not as_json:
        sys.stdout.write(f"{make_printable(job)} has no schedules\n")


def _row(
    job: str, name: str, schedule: ScheduleDefinition, begin: dt.datetime, count: int
) -> dict[str, object]:
    table = timetable_of(job, name, schedule)
    times = [
        {"utc": show_instant(time), "local": time.astimezone(table.zone).isoformat(timespec="seconds")}
        for time in first_times(table, begin, count)
    ]
    shown = {"schedule": name, "words": table.words(), "zone": schedule.zone, "enabled": schedule.enabled}
    return {**shown, "next": times}


def _as_text(row: Mapping[str, Any], begin: dt.datetime) -> Iterator[str]:
    yield f"{row['schedule']}: {row['words']}" + ("" if row["enabled"] else "; it is not enabled")
    for time in row["next"]:
        local = dt.datetime.fromisoformat(time["local"])
        shown = f"{local:%a} {local:%Y-%m-%d %H:%M:%S %z}"
        yield f"  {shown}  {time['utc']}  in {_distance(local - begin)}"
    if not row["next"]:
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

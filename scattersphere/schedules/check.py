"""Validation of schedules of a definition: each problem with its place, and what to write instead."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from typing import TYPE_CHECKING

from scattersphere._json_words import quote
from scattersphere._text import nearest
from scattersphere._version import installing
from scattersphere.model.forms import NAME
from scattersphere.schedules.cron import NEVER, expression_fault
from scattersphere.schedules.occurrences import (
    LITERAL,
    SCHEDULED,
    TRIGGERS,
    Scheduled,
    read_instant,
    timetable_of,
    timings_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.schedules import ScheduleDefinition

Fault = tuple[tuple[str | int, ...], str, str | None]
"""A path from the document's root, what is wrong there, and what was probably meant."""

MOST_SCHEDULES = 100
"""Schedules of one job."""
MOST_TIMES = 1_000
"""Entries of one "at"."""
NEVERS_FOUND = 3
"""Expressions without any date that are told of at once: each is looked for through fifty years."""
_FORM = '"2026-12-24T18:00:00+01:00"'


def schedule_faults(job: JobDefinition) -> Iterator[Fault]:
    """Yield what is wrong with the schedules of a job, but for the values of their parameters."""
    if len(job.schedules) > MOST_SCHEDULES:
        yield ("schedules",), f"{len(job.schedules):,} schedules are more than {MOST_SCHEDULES}", None
        return
    nevers = 0
    for name, schedule in job.schedules.items():
        path = ("schedules", name)
        if not NAME.fullmatch(name):
            words = "letters, digits, _ . and -, at most 128, not beginning with . or -"
            yield path, f"{quote(name)} is no name; a name has {words}", None
        timing = list(_timing_faults(schedule, looks_for_a_date=nevers < NEVERS_FOUND))
        nevers += any(words.startswith(NEVER) for _, words, _ in timing)
        faults = [*timing, *_number_faults(schedule), *_param_faults(schedule.params)]
        yield from (((*path, *place), words, meant) for place, words, meant in faults)
        if not faults:
            yield from _empty_window(job.name, name, schedule)


def _timing_faults(schedule: ScheduleDefinition, *, looks_for_a_date: bool) -> Iterator[Fault]:
    given = timings_of(schedule)
    if not given:
        *words, last = map(quote, TRIGGERS)
        yield (), f"does not say when: write one of {', '.join(words)} and {last}", None
    elif len(given) > 1:
        yield (given[1],), f'"{given[0]}" stands here too: only one of them says when', None
    yield from zone_fault(schedule.zone)
    if schedule.cron is not None:
        wrong = expression_fault(schedule.cron, looks_for_a_date=looks_for_a_date)
        if wrong is not None:
            yield ("cron",), *wrong
    if len(schedule.at) > MOST_TIMES:
        yield ("at",), f"{len(schedule.at):,} times are more than {MOST_TIMES:,}", None
        return
    for index, text in enumerate(schedule.at):
        yield from _instant_faults(("at", index), text, schedule.zone)
    yield from _window_faults(schedule)


def _window_faults(schedule: ScheduleDefinition) -> Iterator[Fault]:
    faults = [
        fault
        for key in ("start", "stop")
        if (text := getattr(schedule, key)) is not None
        for fault in _instant_faults((key,), text, schedule.zone)
    ]
    yield from faults
    if faults or schedule.start is None or schedule.stop is None:
        return
    if read_instant(schedule.stop) < read_instant(schedule.start):
        yield ("stop",), "lies before start", None


@functools.cache
def _known_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def zone_fault(zone: str) -> Iterator[Fault]:
    """Yield what is wrong with the name of a time zone."""
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        zones = _known_zones()
        city = zone.strip().replace(" ", "_").casefold()
        ending = sorted(known for known in zones if known.casefold().rpartition("/")[2] == city)
        hint = "" if zones else f"; no time zone is known here: {installing('schedules')}"
        yield ("zone",), f"no time zone {quote(zone)}{hint}", ending[0] if ending else nearest(zone, zones)


def _instant_faults(path: tuple[str | int, ...], text: str, zone: str) -> Iterator[Fault]:
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError:
        yield path, f"is no time; write it like {_FORM}", None
        return
    if instant.microsecond:
        yield path, "is to the second: leave out the fraction", instant.replace(microsecond=0).isoformat()
    elif instant.utcoffset() is None:
        yield path, f"needs an offset from UTC, like {_FORM}", _with_offset(instant, zone)
    else:
        try:
            instant.astimezone(dt.UTC)
        except OverflowError:
            yield path, "lies outside the years 1 to 9999 in UTC", None


def _with_offset(instant: dt.datetime, zone: str) -> str | None:
    try:
        return instant.replace(tzinfo=zoneinfo.ZoneInfo(zone)).isoformat()
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _number_faults(schedule: ScheduleDefinition) -> Iterator[Fault]:
    every = schedule.every
    if every is not None and every != int(every):
        yield ("every",), f"must be a whole number of seconds, not {every:g}", None
    elif every is not None and schedule.jitter > every:
        yield ("jitter",), f"must not be longer than the period, {every} seconds", None


def _param_faults(params: object) -> Iterator[Fault]:
    for path, value in _objects(params, ("params",)):
        word = value[SCHEDULED]
        if len(value) > 1:
            yield path, f'"{SCHEDULED}" stands alone in its object', None
        elif word not in Scheduled.WORDS:
            meant = nearest(word, Scheduled.WORDS) if isinstance(word, str) else None
            yield (*path, SCHEDULED), f"must be one of {', '.join(Scheduled.WORDS)}", meant


def _objects(
    value: object, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, object]]]:
    """Yield the objects with "$scheduled" inside a value. What stands in a "$literal" is not looked at."""
    if isinstance(value, dict):
        if SCHEDULED in value:
            yield path, value
        elif LITERAL not in value:
            for key, child in value.items():
                yield from _objects(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _objects(child, (*path, index))


def _empty_window(job: str, name: str, schedule: ScheduleDefinition) -> Iterator[Fault]:
    """Say so where nothing lies between start and stop, or no single time does."""
    if schedule.stop is None:
        return
    table = timetable_of(job, name, schedule)
    if table.previous(read_instant(schedule.stop) + dt.timedelta(seconds=1)) is None:
        yield ("schedules", name, "stop"), "no time of this schedule lies between start and stop", None


def example_params(params: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters of a schedule with texts in place of `$scheduled`, to see whether their types fit."""

    def shown(value: object) -> object:
        if isinstance(value, dict):
            if SCHEDULED in value:
                return "2026-11-30"
            if LITERAL in value:
                return value[LITERAL]
            return {key: shown(child) for key, child in value.items()}
        return [shown(child) for child in value] if isinstance(value, list) else value

    return {name: shown(value) for name, value in params.items()}

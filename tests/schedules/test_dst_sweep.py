"""All zones, over five years, at every change of their clocks: never twice, never silently not."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

import pytest
from wallclock import Wanted, Watch, changes

from scattersphere.schedules.triggers import CronTrigger

pytestmark = pytest.mark.needs("cronsim")

ALL = frozenset(range(60))
HOURS = frozenset(range(24))
WANTED = [
    Wanted("30", "2", frozenset({30}), frozenset({2})),
    Wanted("0", "0", frozenset({0}), frozenset({0})),
    Wanted("30", "1", frozenset({30}), frozenset({1})),
    Wanted("15", "3", frozenset({15}), frozenset({3})),
    Wanted("59", "23", frozenset({59}), frozenset({23})),
    Wanted("0,20,40", "1-3", frozenset({0, 20, 40}), frozenset({1, 2, 3})),
    Wanted("10", "0,2,5", frozenset({10}), frozenset({0, 2, 5})),
    Wanted("*/10", "2", frozenset(range(0, 60, 10)), frozenset({2})),
    Wanted("*/10", "0", frozenset(range(0, 60, 10)), frozenset({0})),
    Wanted("*/20", "1,3", frozenset({0, 20, 40}), frozenset({1, 3})),
    Wanted("0", "*", frozenset({0}), HOURS),
    Wanted("5,50", "*", frozenset({5, 50}), HOURS),
    Wanted("*/15", "*", frozenset({0, 15, 30, 45}), HOURS),
    Wanted("0", "*/2", frozenset({0}), frozenset(range(0, 24, 2))),
    Wanted("45", "*/3", frozenset({45}), frozenset(range(0, 24, 3))),
]
"""Times of the day, rhythms, and what lies between, around the hours at which clocks are set."""
NOTABLE = [
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "America/Santiago",
    "Pacific/Chatham",
    "Africa/Cairo",
    "Antarctica/Troll",
    "America/Havana",
    "Europe/Dublin",
]
"""Half an hour, two hours, midnight, a winter time that is the exception, and none at all."""
AROUND = dt.timedelta(hours=30)


def sweep(zone_name: str, first: int, last: int) -> list[str]:
    """Return what is wrong in a zone at the changes of its clocks."""
    zone = zoneinfo.ZoneInfo(zone_name)
    wrong = []
    for change in changes(zone, first, last) or [dt.datetime(first, 6, 1, 12, tzinfo=dt.UTC)]:
        since, until = change - AROUND, change + AROUND
        watch = Watch(zone, since, until)
        for wanted in WANTED:
            trigger = CronTrigger.of(wanted.text, zone_name)
            judged = wanted.times(watch)
            found, at = [], trigger.next(since)
            while at is not None and at < until:
                found.append(at)
                at = trigger.next(at)
            if found != judged:
                wrong.append(f"{wanted.text} in {zone_name} around {change}: {found} and not {judged}")
    return wrong


@pytest.mark.parametrize("zone", NOTABLE)
def test_each_time_fires_once_where_clocks_are_set(zone: str) -> None:
    assert sweep(zone, 2026, 2026) == []


def test_a_day_that_a_zone_left_out_is_made_up_for_at_its_end() -> None:
    assert sweep("Pacific/Apia", 2011, 2011) == []  # no 30 December


@functools.cache
def kinds(first: int, last: int) -> list[str]:
    """Return one zone for each way in which clocks are set in these years: 600 names have 70."""
    found: dict[object, str] = {}
    for name in sorted(zoneinfo.available_timezones()):
        zone = zoneinfo.ZoneInfo(name)
        moments = [dt.datetime(first, 1, 1, tzinfo=dt.UTC), *changes(zone, first, last)]
        found.setdefault(tuple((at, at.astimezone(zone).utcoffset()) for at in moments), name)
    return list(found.values())


PARTS = 8


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_each_time_fires_once_in_all_zones_over_five_years(part: int) -> None:
    assert [wrong for zone in kinds(2024, 2028)[part::PARTS] for wrong in sweep(zone, 2024, 2028)] == []

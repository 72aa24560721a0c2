from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.abc import Trigger
from scattersphere.schedules import triggers
from scattersphere.schedules.cron import CronExpression, expression_fault
from scattersphere.schedules.triggers import AtTrigger, CronTrigger, EveryTrigger

pytestmark = pytest.mark.needs("cronsim")

BERLIN = "Europe/Berlin"


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def some(trigger: Trigger, after: str, count: int) -> list[str]:
    found, at = [], trigger.next(utc(after))
    while at is not None and len(found) < count:
        found.append(f"{at:%m-%d %H:%M}")
        at = trigger.next(at)
    return found


FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/7", "*", "0,45", "10-20/5"]),
    st.sampled_from(["2", "*", "*/5", "0", "1-3", "23"]),
    st.sampled_from(["*", "1", "L", "31", "*/2", "29"]),
    st.sampled_from(["*", "3", "2", "10-11"]),
    st.sampled_from(["*", "SUN", "MON-FRI", "0#2", "5L"]),
).map(" ".join)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "America/Santiago",
        "Antarctica/Troll",
    ]
)
INSTANTS = st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1)).map(
    lambda naive: naive.replace(tzinfo=dt.UTC)
)
TIMES = INSTANTS.map(lambda instant: instant.replace(microsecond=0))
EVERY = st.builds(EveryTrigger, st.integers(1, 100_000), TIMES)
AT = st.builds(AtTrigger, st.lists(TIMES, min_size=1, max_size=5).map(tuple))


def cron_trigger(text: str, zone: str) -> CronTrigger | None:
    return None if expression_fault(text) else CronTrigger.of(text, zone)  # there may be no such date


CRON = st.builds(cron_trigger, FIELDS, ZONES).filter(lambda trigger: trigger is not None)


@given(st.one_of(CRON, EVERY, AT), INSTANTS)
def test_next_and_previous_are_one_row_of_whole_seconds(trigger: Trigger, instant: dt.datetime) -> None:
    later = trigger.next(instant)
    if later is not None:
        assert later > instant
        assert later.microsecond == 0
        assert later.tzinfo is dt.UTC
        assert trigger.next(later - dt.timedelta(microseconds=1)) == later  # from any instant before it
        assert trigger.previous(later + dt.timedelta(microseconds=1)) == later
    earlier = trigger.previous(instant)
    if earlier is not None:
        assert earlier < instant
        assert trigger.next(earlier - dt.timedelta(microseconds=1)) == earlier
        following = trigger.next(earlier)
        assert following is None or following >= instant  # nothing lies between
        if later is not None:
            assert trigger.previous(later) == (following if following != later else earlier)


@given(CRON, INSTANTS, st.integers(1, 20))
def test_a_row_of_times_does_not_depend_on_where_one_begins(
    trigger: CronTrigger, instant: dt.datetime, count: int
) -> None:
    row, at = [], instant
    for _ in range(count):
        following = trigger.next(at)
        if following is None:
            break
        row.append(at := following)
    for first, second in itertools.pairwise(row):
        middle = first + (second - first) / 2
        assert trigger.next(middle) == second
        assert trigger.previous(second) == first
        assert trigger.previous(middle) == first


RARE = st.builds(
    CronTrigger.of,
    st.sampled_from(
        ["*/10 * * 2 1#5", "*/30 2 * 3 SUN#5", "0 * 29 2 *", "* * 31 12 5#5", "0 */5 * 10 SUN#5"]
    ),
    ZONES,
)
YEARS = st.datetimes(dt.datetime(1975, 1, 1), dt.datetime(2040, 1, 1)).map(
    lambda naive: naive.replace(tzinfo=dt.UTC)
)


@given(RARE, YEARS)
def test_the_next_time_in_years_is_the_one_that_going_along_all_the_changes_of_the_clock_finds(
    trigger: CronTrigger, instant: dt.datetime
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fast = trigger.next(instant), trigger.previous(instant)
        patch.setattr(triggers, "_FAR", dt.timedelta(days=10**8))
        assert fast == (trigger.next(instant), trigger.previous(instant))


def test_the_next_time_in_years_is_looked_for_once_however_often_the_clock_is_set_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For each change the seventeen years were gone through again: 20 ms on the event loop."""
    asked: list[dt.datetime] = []
    real = CronExpression.after
    monkeypatch.setattr(CronExpression, "after", lambda self, wall: asked.append(wall) or real(self, wall))
    for zone in (BERLIN, "Africa/Casablanca"):
        asked.clear()
        assert CronTrigger.of("*/10 * * 2 1#5", zone).next(utc("2026-11-30T00:00")) == utc("2044-02-28T23:00")
        assert len(asked) <= 2


def test_a_time_of_the_day_that_is_left_out_fires_at_the_moment_after_it() -> None:
    assert some(CronTrigger.of("30 2 * * *", BERLIN), "2026-03-28T00:00", 3) == [
        "03-28 01:30",
        "03-29 01:00",
        "03-30 00:30",
    ]


def test_a_time_of_the_day_that_comes_twice_fires_at_the_first() -> None:
    trigger = CronTrigger.of("30 2 * * *", BERLIN)
    assert some(trigger, "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    assert some(trigger, "2026-10-25T01:10", 1) == ["10-26 01:30"]  # within the second pass


def test_a_rhythm_follows_the_clock_through_both_equal_hours_and_over_the_gap() -> None:
    trigger = CronTrigger.of("*/30 * * * *", BERLIN)
    assert some(trigger, "2026-10-24T23:55", 5) == [
        f"10-25 0{h}" for h in ("0:00", "0:30", "1:00", "1:30", "2:00")
    ]
    assert some(trigger, "2026-03-29T00:10", 3) == ["03-29 00:30", "03-29 01:00", "03-29 01:30"]


def test_a_rhythm_within_an_hour_that_is_left_out_fires_once_after_it() -> None:
    assert some(CronTrigger.of("*/10 2 * * *", BERLIN), "2026-03-29T00:00", 2) == [
        "03-29 01:00",
        "03-30 00:00",
    ]


def test_half_an_hour_at_lord_howe_leaves_no_time_out() -> None:
    trigger = CronTrigger.of("*/10 2 * * *", "Australia/Lord_Howe")
    day = [time for time in some(trigger, "2026-04-04T12:00", 7) if time.startswith("04-04")]
    assert day == [f"04-04 15:{minute}" for minute in (30, 40, 50)] + [
        f"04-04 16:{m:02}" for m in (0, 10, 20)
    ]


def test_every_counts_from_its_anchor_also_backwards() -> None:
    trigger = EveryTrigger(300, utc("2026-12-01T00:02"))
    assert trigger.next(utc("2026-12-01T00:02")) == utc("2026-12-01T00:07")
    assert trigger.next(utc("2026-11-30T00:00")) == utc("2026-11-30T00:02")
    assert trigger.previous(utc("2026-12-01T00:02")) == utc("2026-11-30T23:57")
    assert EveryTrigger(3600).next(utc("2026-12-01T00:02")) == utc("2026-12-01T01:00")
    assert EveryTrigger(300_000_000).next(utc("9998-01-01T00:00")) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "every second"), (300, "every 5 minutes"), (3600, "every hour"), (90, "every 90 seconds"), (172_800, "every 2 days")],
)  # fmt: skip
def test_every_is_said_in_words(seconds: int, words: str) -> None:
    assert EveryTrigger(seconds).words() == words


def test_single_times_are_over_after_the_last() -> None:
    trigger = AtTrigger((utc("2026-12-24T17:00"), utc("2026-12-01T00:00"), utc("2026-12-24T17:00")))
    assert some(trigger, "2026-01-01T00:00", 9) == ["12-01 00:00", "12-24 17:00"]
    assert trigger.words() == "at 2026-12-01T00:00:00Z, 2026-12-24T17:00:00Z"
    assert trigger.previous(utc("2026-12-01T00:00")) is None


def test_triggers_are_equal_where_their_times_are() -> None:
    assert CronTrigger.of("0 0 * * *") == CronTrigger.of("@daily")
    assert hash(CronTrigger.of("0 0 * * *")) == hash(CronTrigger.of("@daily"))
    assert CronTrigger.of("0 0 * * *") != CronTrigger.of("0 0 * * *", BERLIN)
    assert isinstance(EveryTrigger(1), Trigger)
    assert CronTrigger.of("30 2 * * *", BERLIN).words() == "at 02:30 every day (Europe/Berlin)"


def test_the_calendar_ends_without_an_error() -> None:
    trigger = CronTrigger.of("0 0 1 1 *", BERLIN)
    assert trigger.next(utc("9999-06-01T00:00")) is None
    assert trigger.next(utc("9998-12-31T22:00")) is not None

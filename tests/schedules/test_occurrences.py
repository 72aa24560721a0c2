from __future__ import annotations

import datetime as dt
import json

import attrs
import pytest
from budgets import budget
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.model.schedules import MissedPolicy, ScheduleDefinition
from scattersphere.schedules.occurrences import (
    MOST_MISSED,
    ScheduledFor,
    ScheduleState,
    Timetable,
    expire,
    fill_scheduled,
    first_times,
    started,
    take_due,
    timetable_of,
    timing_of,
)

pytestmark = pytest.mark.needs("cronsim")


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def table_of(**fields: object) -> Timetable:
    return timetable_of("job", "nightly", ScheduleDefinition(**fields))  # type: ignore[arg-type]


def state_at(last: str, **fields: object) -> ScheduleState:
    state = ScheduleState(job="job", name="nightly", timing="", last=utc(last))
    return attrs.evolve(state, **fields)  # type: ignore[arg-type]


def take(table: Timetable, last: str, now: str) -> tuple[list[str], list[str]]:
    """Return what became pending, and what was missed, in words."""
    state, gone = take_due(table, state_at(last), utc(now))
    return [f"{time:%d %H:%M}" for time in state.pending], [str(missed) for missed in gone]


# ---- windows


def test_nothing_lies_before_start_or_after_stop() -> None:
    table = table_of(every=3600, start="2026-12-01T01:30:00+01:00", stop="2026-12-01T03:30:00+01:00")
    assert [f"{t:%d %H:%M}" for t in first_times(table, utc("2026-01-01T00:00"), 9)] == [
        "01 00:30",
        "01 01:30",
        "01 02:30",
    ]
    assert table.previous(utc("2027-01-01T00:00")) == utc("2026-12-01T02:30")
    assert table.previous(utc("2026-12-01T00:30")) is None
    assert table.words() == "every hour, from 2026-12-01T00:30:00Z, until 2026-12-01T02:30:00Z"


def test_start_itself_fires_where_the_expression_says_so() -> None:
    table = table_of(cron="0 * * * *", start="2026-12-01T01:00:00Z")
    assert table.next(utc("2026-01-01T00:00")) == utc("2026-12-01T01:00")


@given(
    st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 1, 1)), st.integers(1, 5000), st.integers(0, 20)
)
def test_times_are_those_from_since_on_and_before_until(since: dt.datetime, every: int, count: int) -> None:
    table, since = table_of(every=every), since.replace(tzinfo=dt.UTC)
    times = first_times(table, since, count)
    assert len(times) == count
    assert all(time > since for time in times)
    if times:
        assert list(table.times(since, times[-1])) in (times[:-1], [since, *times[:-1]])
        assert list(table.times(times[0], times[0] + dt.timedelta(seconds=1))) == [times[0]]


# ---- jitter


def test_jitter_is_the_same_each_time_and_for_each_occurrence_another() -> None:
    table = table_of(every=3600, jitter=600)
    times = first_times(table, utc("2026-01-01T00:00"), 50)
    delays = [(table.due(time) - time).total_seconds() for time in times]
    assert delays == [(table.due(time) - time).total_seconds() for time in times]
    assert len(set(delays)) == 50
    assert all(0 <= delay < 600 for delay in delays)
    assert min(delays) < 100
    assert max(delays) > 500
    other = attrs.evolve(table, label="job/other")
    assert other.due(times[0]) != table.due(times[0])


def test_what_is_not_due_yet_because_of_jitter_waits() -> None:
    table = table_of(every=3600, jitter=3600)
    nominal = utc("2026-01-01T01:00")
    before = table.due(nominal) - dt.timedelta(seconds=1)
    assert take_due(table, state_at("2026-01-01T00:30"), before) == (state_at("2026-01-01T00:30"), [])
    state, gone = take_due(table, state_at("2026-01-01T00:30"), table.due(nominal))
    assert (state.pending, state.last, gone) == ((nominal,), nominal, [])


# ---- missed


def test_a_time_that_has_just_come_is_due_whatever_the_policy() -> None:
    for policy in MissedPolicy:
        table = table_of(cron="30 2 * * *", missed=policy)
        assert take(table, "2026-01-01T03:00", "2026-01-02T02:30:20") == (["02 02:30"], [])


def test_skip_makes_up_for_nothing_and_says_so() -> None:
    table = table_of(cron="30 2 * * *", missed="skip")
    assert take(table, "2026-01-01T03:00", "2026-01-04T11:30") == (
        [],
        ["3 times, 2026-01-02T02:30:00Z to 2026-01-04T02:30:00Z, were missed: found 9 h late"],
    )


def test_last_makes_up_for_the_newest_if_it_is_not_too_late() -> None:
    table = table_of(cron="30 2 * * *", missed="last", catch_up_within=3600)
    pending, gone = take(table, "2026-01-01T03:00", "2026-01-04T03:00")
    assert pending == ["04 02:30"]
    assert gone == ["2 times, 2026-01-02T02:30:00Z to 2026-01-03T02:30:00Z, were missed: found 24 h late"]
    assert take(table, "2026-01-03T03:00", "2026-01-04T04:00")[0] == []


def test_by_default_the_newest_is_made_up_for_within_one_period_at_most_a_day() -> None:
    assert take(table_of(cron="30 2 * * *", missed="last"), "2026-01-01T03:00", "2026-01-04T02:00")[0] == [
        "03 02:30"
    ]
    monthly = table_of(cron="0 0 1 * *", missed="last")
    assert take(monthly, "2026-01-15T00:00", "2026-02-01T23:00")[0] == ["01 00:00"]
    assert take(monthly, "2026-01-15T00:00", "2026-02-02T01:00")[0] == []


def test_all_makes_up_for_each_at_most_a_thousand() -> None:
    table = table_of(every=3600, missed="all")
    state, gone = take_due(table, state_at("2026-01-01T00:30"), utc("2026-01-04T00:30"))
    assert len(state.pending) == 72
    assert gone == []
    state, gone = take_due(
        table_of(every=60, missed="all"), state_at("2026-01-01T00:30"), utc("2026-01-04T00:30")
    )
    assert len(state.pending) == MOST_MISSED
    assert state.pending[-1] == state.last == utc("2026-01-04T00:30")
    assert [missed.more for missed in gone] == [True]
    assert str(gone[0]).startswith(
        "more than 1,000 times, 2026-01-01T00:31:00Z to 2026-01-03T07:50:00Z, were missed"
    )


def test_all_within_a_time_leaves_out_what_is_older() -> None:
    table = table_of(every=3600, missed="all", catch_up_within=3 * 3600)
    pending, gone = take(table, "2026-01-01T00:30", "2026-01-02T00:30")
    assert pending == ["01 22:00", "01 23:00", "02 00:00"]
    assert len(gone) == 1


def test_a_year_asleep_is_decided_about_in_a_moment() -> None:
    table = table_of(cron="* * * * *", missed="last")
    pending, gone = take(table, "2026-01-01T00:00:30", "2027-01-01T00:00:30")
    assert pending == ["01 00:00"]
    assert gone[0].startswith("more than 100 times")


def test_a_newer_time_replaces_one_that_still_waits_unless_all_are_wanted() -> None:
    waiting = state_at("2026-01-01T01:00", pending=(utc("2026-01-01T01:00"),), refused="busy")
    state, gone = take_due(table_of(every=3600), waiting, utc("2026-01-01T02:00"))
    assert state.pending == (utc("2026-01-01T02:00"),)
    assert [str(missed) for missed in gone] == ["2026-01-01T01:00:00Z was missed: busy"]
    assert state.missed == 1
    state, gone = take_due(table_of(every=3600, missed="all"), waiting, utc("2026-01-01T02:00"))
    assert len(state.pending) == 2
    assert gone == []


def test_what_is_refused_is_tried_until_the_time_is_over() -> None:
    table = table_of(cron="30 2 * * *", catch_up_within=600)
    waiting = state_at("2026-01-01T02:30", pending=(utc("2026-01-01T02:30"),), refused="job busy")
    assert expire(table, waiting, utc("2026-01-01T02:40")) == (waiting, [])
    state, gone = expire(table, waiting, utc("2026-01-01T02:40:01"))
    assert (state.pending, state.refused, state.missed) == ((), "", 1)
    assert [str(missed) for missed in gone] == ["2026-01-01T02:30:00Z was missed: job busy"]


ROWS = st.sampled_from(
    [
        {"every": 60},
        {"every": 3600, "jitter": 900},
        {"cron": "*/7 * * * *", "zone": "Europe/Berlin"},
        {"cron": "30 2 * * *", "zone": "America/New_York", "jitter": 60},
        {"at": ["2026-03-01T12:00:00Z", "2026-03-08T12:00:00Z"]},
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([-7200, -60, 0, 1, 30, 600, 3600, 86_400, 300_000]), st.booleans(), st.booleans()
    ),
    max_size=30,
)


@budget(100)
@given(ROWS, st.sampled_from(MissedPolicy), st.sampled_from([None, 0, 100, 7200]), STEPS)
def test_each_time_is_started_once_or_missed_once_whatever_the_clock_does(
    row: dict[str, object], policy: MissedPolicy, within: int | None, steps: list[tuple[int, bool, bool]]
) -> None:
    table = table_of(**row, missed=policy, catch_up_within=within)
    begin = now = utc("2026-03-01T00:00")
    state = state_at("2026-03-01T00:00")
    fired: list[dt.datetime] = []
    missed = 0
    for seconds, refuses, crashes in steps:
        now += dt.timedelta(seconds=seconds)
        last = state.last
        stored = state
        state, gone = take_due(table, state, now)
        state, over = expire(table, state, now)
        assert state.last >= last
        for nominal in state.pending:
            assert table.due(nominal) <= max(now, table.due(last))
            if refuses:
                state = attrs.evolve(state, refused="busy")
                break
            if nominal not in fired:  # the start key
                fired.append(nominal)
            state = started(state, nominal)
        missed += sum(times.count for times in [*gone, *over])
        if crashes:  # what was started is known by its key, the rest by what was stored
            missed -= sum(times.count for times in [*gone, *over])
            state = stored
    assert len(set(fired)) == len(fired)
    if not any(crashed for _, _, crashed in steps):
        assert fired == sorted(fired)
        assert state.missed == missed
        expected = [time for time in table.times(begin) if time <= state.last] if "at" in row else None
        if expected is not None:
            assert len(fired) + missed + len(state.pending) == len([t for t in expected if t > begin])


# ---- what runs are given


def test_scheduled_parameters_are_of_the_zone() -> None:
    table = table_of(cron="30 2 * * *", zone="Europe/Berlin")
    params = {
        "at": {"$scheduled": "time"},
        "day": {"$scheduled": "date"},
        "span": [{"$scheduled": "previous"}, {"deep": {"$scheduled": "next"}}],
        "plain": {"$literal": {"$scheduled": "date"}},
        "n": 5,
    }
    assert fill_scheduled(params, table, utc("2026-10-25T00:30")) == {
        "at": "2026-10-25T02:30:00+02:00",
        "day": "2026-10-25",
        "span": ["2026-10-24T02:30:00+02:00", {"deep": "2026-10-26T02:30:00+01:00"}],
        "plain": {"$scheduled": "date"},
        "n": 5,
    }


def test_the_date_is_that_of_the_zone_and_not_of_utc() -> None:
    table = table_of(cron="30 0 * * *", zone="Asia/Tokyo")
    assert fill_scheduled({"day": {"$scheduled": "date"}}, table, utc("2026-11-29T15:30")) == {
        "day": "2026-11-30"
    }


def test_where_there_is_no_previous_or_next_it_is_null() -> None:
    table = table_of(at=["2026-12-24T18:00:00+01:00"])
    given = fill_scheduled(
        {"p": {"$scheduled": "previous"}, "n": {"$scheduled": "next"}}, table, utc("2026-12-24T17:00")
    )
    assert given == {"p": None, "n": None}


def test_a_key_names_job_schedule_and_the_nominal_time_to_the_second() -> None:
    table = table_of(cron="30 2 * * *", zone="Europe/Berlin", jitter=300)
    assert table.key(utc("2026-11-30T01:30")) == "job/nightly/2026-11-30T01:30:00Z"


def test_for_whom_a_run_was_started_is_said_in_words() -> None:
    time = utc("2026-11-30T01:30")
    assert str(ScheduledFor("nightly", time)) == "schedule nightly for 2026-11-30T01:30:00Z"
    words = "schedule nightly for 2026-11-30T01:30:00Z (2026-11-30T02:30:00+01:00 in Europe/Berlin), backfill"
    assert str(ScheduledFor("nightly", time, "Europe/Berlin", backfill=True)) == words
    assert str(ScheduledFor("nightly", None)) == "schedule nightly, run now"


# ---- what is remembered


def test_what_is_remembered_is_plain_enough_to_be_stored() -> None:
    state = state_at("2026-01-01T00:00", pending=(utc("2026-01-01T00:00"),))
    stored = json.dumps(attrs.asdict(state), default=dt.datetime.isoformat)
    back = json.loads(stored)
    read = dt.datetime.fromisoformat
    assert (
        ScheduleState(**{**back, "last": read(back["last"]), "pending": tuple(map(read, back["pending"]))})
        == state
    )


def test_timing_is_equal_where_the_times_are_said_alike() -> None:
    one = ScheduleDefinition(cron="30  2 * * *", missed="all", params={"a": 1}, jitter=5)
    assert timing_of(one) == timing_of(ScheduleDefinition(cron="30 2 * * *"))
    assert timing_of(one) != timing_of(ScheduleDefinition(cron="30 2 * * *", zone="Europe/Berlin"))
    assert timing_of(one) != timing_of(ScheduleDefinition(cron="30 3 * * *"))


def test_python_may_give_datetimes_and_timedeltas() -> None:
    when = dt.datetime(2026, 12, 24, 18, tzinfo=dt.UTC)
    assert ScheduleDefinition(at=when).at == ("2026-12-24T18:00:00+00:00",)
    assert ScheduleDefinition(every=dt.timedelta(minutes=5)).every == 300

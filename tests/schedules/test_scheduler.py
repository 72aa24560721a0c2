"""The driver in a world without a loop: steps of the clock, sleep, refusals, restarts."""

from __future__ import annotations

import datetime as dt
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtualworld import World, utc

from scattersphere import (
    ArgumentError,
    BusyError,
    ClosedError,
    ConflictError,
    NoSuchScheduleError,
    UnresolvedError,
)
from scattersphere.model.problem import Problem
from scattersphere.schedules.backfill import Backfill
from scattersphere.schedules.driver import AT_A_TIME, LOOK

pytestmark = pytest.mark.needs("cronsim")

HOURLY = {"cron": "0 * * * *"}
NIGHTLY = {"cron": "30 2 * * *", "zone": "Europe/Berlin"}


def world(start: str, **fields: Any) -> World:
    return World(start, {"job": {"it": fields}})


# ---- firing


def test_each_occurrence_fires_once_and_on_time() -> None:
    at = world("2026-03-28T00:00", **NIGHTLY)
    at.go(3 * 86_400)
    assert at.fired == ["28 01:30", "29 01:00", "30 00:30"]
    assert [run.at - run.scheduled.time for run in at.runs] == [dt.timedelta(0)] * 3
    assert at.runs[1].key == "job/it/2026-03-29T01:00:00Z"
    assert ("schedule-fired", "job/it", "for 2026-03-29T01:00:00Z") in at.events


def test_between_times_it_looks_at_the_wall_every_half_minute_and_no_more() -> None:
    at = world("2026-03-28T00:00", cron="30 2 * * *")
    at.go(3600)
    assert at.looks <= 3600 / LOOK + 1


def test_without_schedules_there_is_no_timer() -> None:
    at = World("2026-03-28T00:00")
    assert at.timers == []
    at.define("job", {"it": {"every": 60, "enabled": False}})
    assert at.timers == []


def test_many_schedules_have_one_timer_and_each_fires() -> None:
    names = {f"s{n}": {"every": 60 + n} for n in range(50)}
    at = World("2026-01-01T00:00", {"job": names})
    at.go(600)
    assert len(at.timers) == 1
    counts = {name: sum(run.scheduled.schedule == name for run in at.runs) for name in names}
    begin = utc("2026-01-01T00:00")
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for n in range(50):
        every = dt.timedelta(seconds=60 + n)
        assert (
            counts[f"s{n}"] == (begin + dt.timedelta(seconds=600) - epoch) // every - (begin - epoch) // every
        )


def test_ten_thousand_idle_schedules_cost_a_look_at_the_first_of_them_every_half_minute() -> None:
    nightly = {"every": 86_400, "start": "2026-01-01T23:00:00Z"}
    at = World("2026-01-01T00:00", {f"j{n}": {f"s{m}": nightly for m in range(100)} for n in range(100)})
    at.go(1)  # the first time of each is found, in slices
    at.looks = 0
    asked: list[str] = []
    advance = at.scheduler.driver._advance
    at.scheduler.driver._advance = lambda *args: (asked.append("asked"), advance(*args))  # type: ignore[method-assign]
    used = time.process_time()
    at.go(3600)
    used = time.process_time() - used
    assert len(at.timers) == 1
    assert at.looks <= 3600 / LOOK + 1
    assert asked == []
    assert used < 3600 / 1000, "a tenth of one per cent of a processor"


def test_a_run_is_given_what_it_is_scheduled_for() -> None:
    at = world("2026-03-28T00:00", **NIGHTLY, params={"day": {"$scheduled": "date"}, "n": 1})
    at.go(86_400)
    assert at.runs[0].params == {"day": "2026-03-28", "n": 1}
    assert str(at.runs[0].scheduled).startswith("schedule it for 2026-03-28T01:30:00Z")


# ---- the clock


def test_an_hour_put_forward_misses_what_lies_between_and_says_so() -> None:
    at = world("2026-01-01T00:30", every=600)
    at.step(3600)
    at.go(31)
    assert at.fired == ["01 01:30"]  # on time but for the half minute
    assert at.missed == [
        "5 times, 2026-01-01T00:40:00Z to 2026-01-01T01:20:00Z, were missed: found 11 min late"
    ] or (len(at.missed) == 1 and at.missed[0].startswith("5 times"))


def test_an_hour_put_back_fires_nothing_until_the_wall_passes_the_last_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = world("2026-01-01T00:30", every=600)
    at.go(1800)
    assert at.fired[-1] == "01 01:00"
    at.step(-3600)
    at.go(3599)
    assert at.fired[-1] == "01 01:00"
    at.go(602)
    assert at.fired[-1] == "01 01:10"
    assert len(set(at.fired)) == len(at.fired)
    assert "put back by" in caplog.text


def test_three_days_asleep() -> None:
    for policy, fired, missed in (("skip", 0, 72), ("last", 1, 71), ("all", 72, 0)):
        at = world("2026-01-01T00:30", **HOURLY, missed=policy)
        at.step(3 * 86_400 + 300)
        at.go(60)
        assert len(at.fired) == fired, policy
        assert at.scheduler["job", "it"].state.missed == missed, policy
        at.go(3600)
        assert at.fired[-1] == "04 01:00"


def test_making_up_for_many_starts_ten_at_a_time() -> None:
    at = world("2026-01-01T00:30", **HOURLY, missed="all")
    at.ends_at_once = False
    at.step(3 * 86_400)
    at.go(60)
    assert len(at.runs) == AT_A_TIME
    at.go(300)
    assert len(at.runs) == AT_A_TIME
    at.end(at.runs[0])
    at.end(at.runs[1])
    at.go(0)
    assert len(at.runs) == AT_A_TIME + 2
    assert at.looks < 50  # it waits, and does not spin


# ---- refusals


def test_a_refused_start_is_tried_again_when_a_run_has_ended() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.refuse = BusyError("job 'job' runs already")
    at.until("2026-01-01T01:10")
    assert at.fired == []
    at.refuse = None
    at.scheduler.run_ended(99, "job")
    at.go(0)
    assert at.fired == ["01 01:00"]
    assert at.missed == []


def test_a_refused_start_is_tried_again_when_code_has_come() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.refuse = UnresolvedError("bundle 'etl' is not registered")
    at.until("2026-01-01T01:10")
    at.refuse = None
    at.scheduler.driver.try_again()
    at.go(0)
    assert at.fired == ["01 01:00"]


def test_a_start_refused_for_too_long_is_missed_with_the_reason() -> None:
    at = world("2026-01-01T00:30", every=3600, catch_up_within=600)
    at.refuse = UnresolvedError("no", [Problem("tasks.load.task", "no task", suggestion="secret.Load")])
    at.until("2026-01-01T01:09")
    assert at.missed == []
    at.until("2026-01-01T01:10:01")
    words = "it lacks code (1 problem; see `unresolved`)"
    assert at.missed == [f"2026-01-01T01:00:00Z was missed: {words}"]
    at.refuse = None
    at.until("2026-01-01T02:00:01")
    assert at.fired == ["01 02:00"]


def test_a_refused_start_gives_way_to_the_next_time() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.refuse = BusyError("busy")
    at.until("2026-01-01T03:30")
    assert at.missed == ["2026-01-01T01:00:00Z was missed: busy", "2026-01-01T02:00:00Z was missed: busy"]
    at.refuse = None
    at.go(LOOK)
    assert at.fired == ["01 03:00"]


def test_a_key_that_stands_for_another_run_is_missed_and_not_tried_again() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.refuse = ConflictError("key 'job/it/..' stands for run 7: another job or other parameters")
    at.until("2026-01-01T01:00:01")
    assert len(at.missed) == 1
    assert "stands for run 7" in at.missed[0]


def test_a_defect_while_starting_is_told_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.refuse = ZeroDivisionError("oh")
    at.until("2026-01-01T01:00:01")
    at.refuse = None
    at.go(LOOK)
    assert at.fired == ["01 01:00"]
    assert "could not be started" in caplog.text


def test_a_closing_server_stops_the_scheduler() -> None:
    at = world("2026-01-01T00:30", every=60)
    at.refuse = ClosedError("the Server is closing")
    at.go(600)
    assert at.timers == []
    assert at.missed == []


# ---- pause and resume


def test_while_paused_nothing_fires_and_resume_makes_up_as_the_policy_says() -> None:
    for policy, fired in (
        ("skip", []),
        ("last", ["01 05:00"]),
        ("all", ["01 03:00", "01 04:00", "01 05:00"]),
    ):
        at = world("2026-01-01T00:30", every=3600, missed=policy)
        at.until("2026-01-01T02:10")
        schedule = at.scheduler["job", "it"]
        schedule.pause()
        schedule.pause()
        assert schedule.paused
        at.until("2026-01-01T05:10")
        assert at.fired == ["01 01:00", "01 02:00"]
        assert schedule.next(2) == [utc("2026-01-01T06:00"), utc("2026-01-01T07:00")]
        schedule.resume()
        at.go(1)
        assert at.fired[2:] == fired, policy
        assert all("it was paused" in words for words in at.missed)
        assert len(at.missed) == (policy != "all")
        kinds = [kind for kind, _, _ in at.events]
        assert (kinds.count("schedule-paused"), kinds.count("schedule-resumed")) == (1, 1)


def test_what_was_refused_before_a_long_pause_does_not_start_after_it() -> None:
    at = world("2026-01-01T00:30", every=3600, missed="last")
    at.refuse = BusyError("busy")
    at.until("2026-01-01T01:01")
    at.scheduler["job", "it"].pause()
    at.refuse = None
    at.step(3 * 86_400)
    at.scheduler["job", "it"].resume()
    at.go(1)
    assert at.fired == ["04 01:00"]


# ---- definitions come and go


def test_redefined_with_equal_timing_what_is_remembered_is_kept() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.until("2026-01-01T01:10")
    held = at.scheduler["job", "it"]
    held.pause()
    at.define("job", {"it": {"every": 3600, "params": {"a": 1}, "missed": "last"}})
    assert at.scheduler["job", "it"] is held
    assert held.paused
    assert held.state.fired == 1
    assert held.definition.params == {"a": 1}


def test_changed_timing_begins_now_and_stays_paused() -> None:
    at = world("2026-01-01T00:30", every=3600, missed="all")
    at.step(7200)
    at.scheduler["job", "it"].pause()
    at.define("job", {"it": {"every": 600, "missed": "all"}})
    at.scheduler["job", "it"].resume()
    at.go(601)
    assert at.fired == ["01 02:40"]


def test_time_while_undefined_or_disabled_is_not_missed() -> None:
    for gone in ({}, {"it": {"every": 3600, "enabled": False}}):
        at = world("2026-01-01T00:30", every=3600)
        at.define("job", gone)
        at.go(3 * 3600)
        at.define("job", {"it": {"every": 3600}})
        at.until("2026-01-01T04:00:01")
        assert at.fired == ["01 04:00"]
        assert at.missed == []


def test_a_pause_outlives_an_undefine() -> None:
    at = world("2026-01-01T00:30", every=3600)
    held = at.scheduler["job", "it"]
    held.pause()
    at.scheduler.undefine("job")
    with pytest.raises(NoSuchScheduleError, match="defined no more"):
        held.resume()
    assert list(at.scheduler) == []
    at.define("job", {"it": {"every": 3600}})
    assert at.scheduler["job", "it"].paused


def test_what_waits_is_missed_when_the_schedule_is_changed_or_disabled() -> None:
    for change, words in (({"every": 60}, "changed"), ({"every": 3600, "enabled": False}, "disabled")):
        at = world("2026-01-01T00:30", every=3600)
        at.refuse = BusyError("busy")
        at.until("2026-01-01T01:01")
        at.define("job", {"it": change})
        assert at.missed == [f"2026-01-01T01:00:00Z was missed: the schedule was {words}"]


def test_each_time_that_waits_counts_as_missed_when_the_schedule_is_changed() -> None:
    at = world("2026-01-01T00:30", every=3600, missed="all")
    at.refuse = BusyError("busy")
    at.until("2026-01-01T03:01")
    assert len(at.scheduler["job", "it"].state.pending) == 3
    at.define("job", {"it": {"every": 60}})
    state = at.scheduler["job", "it"].state
    assert (state.pending, state.missed) == ((), 3)


def test_a_clock_that_was_put_back_while_a_schedule_was_not_defined_fires_nothing_twice() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.until("2026-01-01T02:30")
    at.define("job", {})
    at.step(-3600)
    at.keys.clear()
    at.define("job", {"it": {"every": 3600}})
    at.until("2026-01-01T03:01")
    assert at.fired == ["01 01:00", "01 02:00", "01 03:00"]


def test_a_wrong_name_suggests_the_right_one() -> None:
    at = world("2026-01-01T00:30", every=3600)
    with pytest.raises(NoSuchScheduleError, match='did you mean "it"'):
        at.scheduler["job", "itt"]
    with pytest.raises(NoSuchScheduleError, match='did you mean "job"'):
        at.scheduler["jobb", "it"]
    with pytest.raises(NoSuchScheduleError, match=r"schedules\[job, name\]"):
        at.scheduler["job"]  # type: ignore[index]
    assert ("job", "x") not in at.scheduler


# ---- run now, backfill


@pytest.mark.anyio
async def test_run_now_has_no_key_and_now_as_its_time() -> None:
    at = world("2026-01-01T00:30", every=3600, params={"at": {"$scheduled": "time"}, "n": 1})
    schedule = at.scheduler["job", "it"]
    schedule.pause()
    run = await schedule.run_now({"n": 2})
    assert run.key is None
    assert run.params == {"at": "2026-01-01T00:30:00+00:00", "n": 2}
    assert str(run.scheduled) == "schedule it, run now"  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_backfill_starts_runs_in_order_some_at_once() -> None:
    at = world("2026-01-02T00:30", every=3600)
    at.ends_at_once = False
    schedule = at.scheduler["job", "it"]
    backfill = await schedule.backfill(utc("2026-01-01T00:00"), utc("2026-01-01T05:00"), max_parallel=2)
    assert len(backfill.times) == 5
    at.go(0)
    assert at.fired == ["01 00:00", "01 01:00"]
    assert not backfill.ended
    while len(at.runs) < 5:
        at.end(next(run for run in at.runs if not run.state.ended))
        at.go(0)
    for run in at.runs:
        at.end(run)
    at.go(0)
    await backfill.wait()
    assert list(backfill.runs.values()) == [1, 2, 3, 4, 5]
    assert schedule.backfills == []
    assert "backfill" in str(at.runs[0].scheduled)
    at.ends_at_once = True
    at.until("2026-01-02T01:00:01")
    assert at.fired[-1] == "02 01:00"  # the schedule itself goes on


@pytest.mark.anyio
async def test_a_backfill_starts_nothing_twice_and_a_dry_run_nothing() -> None:
    at = world("2026-01-01T00:30", every=3600)
    at.go(2 * 3600)
    schedule = at.scheduler["job", "it"]
    since, until = utc("2026-01-01T00:00"), utc("2026-01-01T02:30")
    dry = await schedule.backfill(since, until, dry_run=True)
    assert [f"{time:%H:%M}" for time in dry.times] == ["00:00", "01:00", "02:00"]
    assert dry.ended
    assert len(at.runs) == 2
    backfill = await schedule.backfill(since, until)
    at.go(0)
    await backfill.wait()
    assert at.fired == ["01 01:00", "01 02:00", "01 00:00"]
    assert list(backfill.runs.values()) == [3, 1, 2]


@pytest.mark.anyio
async def test_a_backfill_waits_while_the_job_is_busy_and_says_what_is_refused() -> None:
    at = world("2026-01-01T12:30", every=3600)
    at.refuse = BusyError("busy")
    schedule = at.scheduler["job", "it"]
    backfill = await schedule.backfill(utc("2026-01-01T00:00"), utc("2026-01-01T02:00"))
    at.go(1)
    assert not backfill.ended
    at.refuse = UnresolvedError("no code")
    at.go(LOOK)
    assert backfill.ended
    assert [words.split(" (")[0] for words in backfill.refused.values()] == ["it lacks code"] * 2


@pytest.mark.anyio
async def test_a_backfill_ends_with_the_server_and_when_cancelled() -> None:
    at = world("2026-01-01T12:30", every=3600)
    at.ends_at_once = False
    schedule = at.scheduler["job", "it"]
    first = await schedule.backfill(utc("2026-01-01T00:00"), utc("2026-01-01T03:00"))
    second = await schedule.backfill(utc("2026-01-01T05:00"), utc("2026-01-01T07:00"))
    first.cancel()
    at.scheduler.stop()
    assert (first.reason, second.reason) == ("cancelled", "the server is closing")
    with pytest.raises(ClosedError):
        await schedule.backfill(utc("2026-01-01T00:00"), utc("2026-01-01T03:00"))


@pytest.mark.anyio
async def test_a_backfill_that_cannot_be_meant_is_refused() -> None:
    schedule = world("2026-01-01T12:30", every=1).scheduler["job", "it"]
    now = utc("2026-01-01T00:00")
    with pytest.raises(ArgumentError, match="lies before"):
        await schedule.backfill(now, now - dt.timedelta(1))
    with pytest.raises(ArgumentError, match="more than 1,000 times"):
        await schedule.backfill(now - dt.timedelta(1), now)
    with pytest.raises(ArgumentError, match=r"has not come yet \(it is 2026-01-01 12:30:00\+0000\)"):
        await schedule.backfill(now, utc("2026-01-01T12:30") + dt.timedelta(microseconds=1))
    with pytest.raises(ArgumentError, match="has not come yet"):
        await schedule.backfill(now, now + dt.timedelta(1), dry_run=True)
    assert len((await schedule.backfill(now - dt.timedelta(seconds=1_000), now, dry_run=True)).times) == 1_000
    nothing = await schedule.backfill(now, now)
    assert (nothing.times, nothing.ended) == ((), True)
    until = utc("2026-01-01T12:30")  # what is over by now is past
    assert len((await schedule.backfill(until - dt.timedelta(seconds=5), until, dry_run=True)).times) == 5
    last = dt.datetime.max.replace(microsecond=0, tzinfo=dt.UTC)  # after which there is no time at all
    assert (
        len((await Backfill.of(schedule.table, last - dt.timedelta(seconds=4), last, 1, now=last)).times) == 4
    )
    with pytest.raises(ArgumentError, match="needs a zone"):
        await schedule.backfill(now.replace(tzinfo=None), now)
    with pytest.raises(TypeError, match="aware datetime"):
        await schedule.backfill("yesterday", now)  # type: ignore[arg-type]


# ---- numbers


def test_statistics_tell_lag_and_misses() -> None:
    at = world("2026-01-01T00:30", every=3600, catch_up_within=60)
    assert at.scheduler.statistics() == {
        "schedules": 1, "schedules_paused": 0, "schedules_missed": 0, "schedule_lag": 0.0,
    }  # fmt: skip
    at.refuse = BusyError("busy")
    at.until("2026-01-01T01:00:40")
    assert at.scheduler.statistics()["schedule_lag"] == 40.0
    at.until("2026-01-01T01:02")
    assert at.scheduler.statistics()["schedules_missed"] == 1


def test_a_schedule_tells_of_itself() -> None:
    at = world("2026-01-01T00:30", **NIGHTLY)
    at.until("2026-01-01T01:31")
    assert at.scheduler["job", "it"].as_dict() == {
        "job": "job", "name": "it", "words": "at 02:30 every day (Europe/Berlin)", "zone": "Europe/Berlin",
        "enabled": True, "paused": False, "next": "2026-01-02T01:30:00Z", "waiting": [], "refused": "",
        "fired": 1, "missed": 0, "last_run": 1,
    }  # fmt: skip
    assert at.scheduler["job", "it"].previous == utc("2026-01-01T01:30")


# ---- restarts


@given(
    st.sampled_from(["skip", "last", "all"]),
    st.integers(0, 10**6),
    st.sampled_from([{"every": 600}, {"cron": "*/10 * * * *"}, {"every": 600, "jitter": 300}]),
)
def test_restarted_at_any_instant_each_occurrence_happens_once(
    policy: str, seed: int, timing: dict[str, Any]
) -> None:
    """Keys and what is remembered outlive a crash, as with a journal; what was remembered last may be lost."""
    choose = random.Random(seed)
    at = world("2026-01-01T00:00", **timing, missed=policy)
    stored = [at.scheduler.states()]
    for _ in range(12):
        at.go(choose.choice([0, 1, 299.5, 600, 601, 1900]))
        stored.append(at.scheduler.states())
        if choose.random() < 0.5:
            at.step(choose.choice([0, 30, 4000]))  # downtime
            at.begin(stored[-choose.choice([1, 1, 2])])
    at.go(4000)
    times = [run.scheduled.time for run in at.runs]
    assert len(set(times)) == len(times)  # never twice
    schedule = at.scheduler["job", "it"]
    last = schedule.state.last
    wanted = []
    time = schedule.table.next(utc("2026-01-01T00:00"))
    while time is not None and time <= last:
        wanted.append(time)
        time = schedule.table.next(time)
    if policy == "all":
        assert sorted(times) == wanted  # never silently not
    else:
        assert set(times) <= set(wanted)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("go"), st.sampled_from([0, 1, 30, 299, 600, 3700, 50_000])),
        st.tuples(st.just("step"), st.sampled_from([-4000, -30, 30, 4000, 300_000])),
        st.tuples(
            st.sampled_from(["pause", "resume", "refuse", "accept", "end", "redefine", "code"]), st.just(0)
        ),
    ),
    max_size=25,
)


@given(
    st.sampled_from(["skip", "last", "all"]),
    st.sampled_from(
        [{"every": 600}, {"cron": "*/10 * * * *", "jitter": 400}, {"cron": "0 3 * * *", "zone": "Asia/Tokyo"}]
    ),
    st.sampled_from([{}, {"catch_up_within": 0}, {"catch_up_within": 5000}]),
    st.integers(0, 1),
    OPERATIONS,
)
def test_whatever_happens_each_time_is_started_once_or_missed_once(
    policy: str,
    timing: dict[str, Any],
    within: dict[str, Any],
    at_once: int,
    operations: list[tuple[str, int]],
) -> None:
    fields = {**timing, **within, "missed": policy}
    at = world("2026-01-01T00:00", **fields)
    at.ends_at_once = bool(at_once)
    schedule = at.scheduler["job", "it"]
    for what, seconds in operations:
        looks = at.looks
        at.do(what, seconds, fields)
        assert at.looks - looks <= 3 * (abs(seconds) / LOOK + len(at.runs) + 100)  # it never spins
    times = [run.scheduled.time for run in at.runs]
    assert len(set(times)) == len(times)
    state = schedule.state
    assert state.fired == len(times)
    wanted = 0
    time = schedule.table.next(utc("2026-01-01T00:00"))
    while time is not None and time <= state.last:
        wanted += 1
        time = schedule.table.next(time)
    told = state.fired + state.missed + len(state.pending)
    assert told == wanted or (told < wanted and any("more than" in words for words in at.missed))


@pytest.mark.anyio
async def test_a_backfill_of_an_undefined_schedule_ends_with_the_reason() -> None:
    at = world("2026-01-01T12:30", every=3600)
    at.ends_at_once = False
    schedule = at.scheduler["job", "it"]
    backfill = await schedule.backfill(utc("2026-01-01T00:00"), utc("2026-01-01T03:00"))
    at.go(0)
    at.scheduler.undefine("job")
    assert (await backfill.wait()).reason == "the schedule is no longer defined"
    assert repr(backfill) == "<Backfill of 3 times, 1 started, 1 live>"
    with pytest.raises(NoSuchScheduleError):
        await schedule.run_now()


def test_a_defect_in_one_schedule_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    at = World("2026-01-01T00:00", {"job": {"bad": {"every": 60}, "good": {"every": 60}}})
    at.scheduler["job", "bad"].table = None  # type: ignore[assignment]
    at.go(200)
    assert len(at.fired) == 3
    assert "bad of job: looked at again" in caplog.text

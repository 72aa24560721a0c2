"""The occurrences of a schedule: which are due, which are missed, what their runs are given. Pure: `now` is passed in.

A *nominal* time is what the expression says; it is due `jitter` seconds later at most. What a schedule remembers is one
frozen record, `ScheduleState`, made to be stored as it is.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import itertools
import json
import math
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import attrs

from scattersphere.abc.ports import Trigger
from scattersphere.model.schedules import MissedPolicy
from scattersphere.schedules.triggers import (
    EPOCH,
    SECOND,
    AtTrigger,
    CheckedTrigger,
    CronTrigger,
    EveryTrigger,
    show_instant,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scattersphere.model.schedules import ScheduleDefinition

DAY = 86_400.0
ON_TIME = 60.0
"""Seconds that a start may be late and still counts as on time, whatever the policy: a busy loop, a small step of the
clock, a look at it every half a minute."""
MOST_MISSED = 1_000
"""Missed times that `"missed": "all"` makes up for."""
COUNTED = 100
"""Missed times that are counted one by one; to count what a schedule of every minute missed in a year takes seconds."""
SCHEDULED = "$scheduled"
LITERAL = "$literal"


class Scheduled:
    """The words that `{"$scheduled": word}` takes."""

    TIME, DATE, PREVIOUS, NEXT = WORDS = ("time", "date", "previous", "next")


# ---- when


@attrs.frozen(kw_only=True)
class Timetable:
    """The times of one schedule: those of its trigger, between `start` and `stop`."""

    label: str
    """`job/name`: begins its keys, and decides about its jitter."""
    trigger: Trigger
    zone: ZoneInfo
    start: dt.datetime | None = None
    stop: dt.datetime | None = None
    jitter: float = 0.0
    missed: MissedPolicy = MissedPolicy.SKIP
    catch_up_within: float | None = None

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first nominal time after `after`."""
        if self.start is not None and after < self.start:
            after = self.start - SECOND
        found = self.trigger.next(after)
        return None if found is None or (self.stop is not None and found > self.stop) else found

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last nominal time before `before`."""
        if self.stop is not None and before > self.stop:
            before = self.stop + SECOND
        found = self.trigger.previous(before)
        return None if found is None or (self.start is not None and found < self.start) else found

    def times(self, since: dt.datetime, until: dt.datetime | None = None) -> Iterator[dt.datetime]:
        """Yield the nominal times from `since` on, and before `until`."""
        try:
            found = self.next(since - dt.timedelta(microseconds=1) if not since.microsecond else since)
        except OverflowError:  # nothing comes before the year 1
            found = self.next(since)
        while found is not None and (until is None or found < until):
            if found >= since:
                yield found
            found = self.next(found)

    def due(self, nominal: dt.datetime) -> dt.datetime:
        """Return when the run for a nominal time is started: the same `jitter` each time that it is asked."""
        if not self.jitter:
            return nominal
        digest = hashlib.blake2b(self.key(nominal).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        share = int.from_bytes(digest) / 2**64
        try:
            return nominal + dt.timedelta(seconds=share * self.jitter)
        except OverflowError:  # the years of Python's calendar are over
            return nominal

    def key(self, nominal: dt.datetime) -> str:
        """Return the start key of a nominal time: with it each one is started once."""
        return f"{self.label}/{show_instant(nominal)}"

    def tried_for(self, nominal: dt.datetime) -> float:
        """Return for how many seconds the run of a nominal time may be late."""
        if self.catch_up_within is not None:
            return self.catch_up_within
        if self.missed is MissedPolicy.ALL:
            return math.inf  # "all" would else mean no more than "last"
        following = self.trigger.next(nominal)
        return DAY if following is None else min((following - nominal).total_seconds(), DAY)

    def words(self) -> str:
        """Say in words when it fires."""
        parts = [self.trigger.words()]
        if self.start is not None:
            parts.append(f"from {show_instant(self.start)}")
        if self.stop is not None:
            parts.append(f"until {show_instant(self.stop)}")
        if self.jitter:
            parts.append(f"within {self.jitter:g} s")
        return ", ".join(parts)


def read_instant(text: str) -> dt.datetime:
    """Return the instant of an ISO text with an offset, in UTC. Raises `ValueError`."""
    instant = dt.datetime.fromisoformat(text)
    if instant.utcoffset() is None:
        raise ValueError("no offset")
    return instant.astimezone(dt.UTC)


def timetable_of(
    job: str,
    name: str,
    schedule: ScheduleDefinition,
    missed: MissedPolicy = MissedPolicy.SKIP,
    trigger: Trigger | None = None,
) -> Timetable:
    """Return the timetable of a schedule that was found right.

    `missed` is the policy where it names none; `trigger` is one of the host's, in place of what the definition says.
    """
    start = None if schedule.start is None else read_instant(schedule.start)
    stop = None if schedule.stop is None else read_instant(schedule.stop)
    return Timetable(
        label=f"{job}/{name}",
        trigger=trigger_of(schedule, start) if trigger is None else CheckedTrigger(trigger),
        zone=ZoneInfo(schedule.zone),
        start=start,
        stop=stop,
        jitter=schedule.jitter,
        missed=schedule.missed or missed,
        catch_up_within=schedule.catch_up_within,
    )


TRIGGERS: Mapping[str, Callable[[ScheduleDefinition, dt.datetime], Trigger]] = {
    "cron": lambda schedule, _: CronTrigger.of(schedule.cron or "", schedule.zone),
    "every": lambda schedule, start: EveryTrigger(int(schedule.every or 1), start),
    "at": lambda schedule, _: AtTrigger(tuple(map(read_instant, schedule.at))),
}
"""What makes the trigger of a schedule, by the field that says when it fires: exactly one of these is given."""


def timings_of(schedule: ScheduleDefinition) -> list[str]:
    """Return which of the fields are given that say when a schedule fires."""
    return [word for word in TRIGGERS if getattr(schedule, word) not in (None, ())]


def trigger_of(schedule: ScheduleDefinition, start: dt.datetime | None = None) -> Trigger:
    """Return the trigger of a schedule that was found right. Raises `ValueError`, `MissingExtraError`."""
    (word,) = timings_of(schedule)
    return TRIGGERS[word](schedule, EPOCH if start is None else start)


# ---- what is remembered


@attrs.frozen(kw_only=True)
class ScheduleState:
    """What is known of a schedule: all that a restart needs, in values that JSON has but for the instants."""

    job: str
    name: str
    timing: str
    """The fields that say when it fires, as text: with others, what was remembered of `last` means nothing."""
    last: dt.datetime
    """Up to here each nominal time was decided about. Never goes back."""
    paused: bool = False
    pending: tuple[dt.datetime, ...] = ()
    """Nominal times that are due and not started yet, in order."""
    refused: str = ""
    """Why the first of them was not started when it was tried."""
    fired: int = 0
    missed: int = 0


def timing_of(schedule: ScheduleDefinition, trigger: Trigger | None = None) -> str:
    """Return the fields that say when a schedule fires, or its own trigger, as a text that is equal where they are."""
    fields = {name: getattr(schedule, name) for name in (*TRIGGERS, "zone", "start", "stop")}
    told = {  # an expression is the same with more spaces in it
        name: " ".join(value.split()) if isinstance(value, str) else value
        for name, value in fields.items()
        if value
    }
    if trigger is not None:
        told["trigger"] = f"{type(trigger).__qualname__}: {CheckedTrigger(trigger).words()}"
    return json.dumps(told, sort_keys=True)


@attrs.frozen(kw_only=True)
class MissedTimes:
    """Nominal times for which no run was or will be started, with one reason."""

    first: dt.datetime
    last: dt.datetime
    count: int
    more: bool = False
    """Whether `count` is only where the counting ended."""
    reason: str

    def __str__(self) -> str:
        if self.count == 1 and not self.more:
            return f"{show_instant(self.last)} was missed: {self.reason}"
        count = f"more than {self.count:,}" if self.more else f"{self.count:,}"
        span = f"{show_instant(self.first)} to {show_instant(self.last)}"
        return f"{count} times, {span}, were missed: {self.reason}"


def missed_times(times: list[dt.datetime], reason: str) -> list[MissedTimes]:
    """Return nominal times, in order, as one record; none where there are none."""
    if not times:
        return []
    return [MissedTimes(first=times[0], last=times[-1], count=len(times), reason=reason)]


def take_due(
    table: Timetable, state: ScheduleState, now: dt.datetime, while_: str = "found"
) -> tuple[ScheduleState, list[MissedTimes]]:
    """Decide about the nominal times after `state.last` that are due at `now`: each becomes pending, or is missed.

    One that is pending already gives way to a newer one, unless `missed` is "all": nothing piles up.
    """
    times, cut = _due_times(table, state.last, now)
    if not times:
        return state, []
    kept = [time for time in times if _lateness(table, time, now) <= _patience(table, time)]
    late = [time for time in times if time not in kept]
    gone: list[MissedTimes] = []
    if cut is not None:
        gone.append(attrs.evolve(cut, reason=f"{while_} {_ago(table, cut.last, now)} late"))
    if late:
        gone += missed_times(late, f"{while_} {_ago(table, late[-1], now)} late")
    pending, refused = list(state.pending), state.refused
    if table.missed is MissedPolicy.ALL:
        pending += kept
        gone += missed_times(pending[:-MOST_MISSED], f"more than {MOST_MISSED:,} wait to be made up for")
        pending = pending[-MOST_MISSED:]
    elif kept:
        gone += missed_times(pending, refused or "the next time came before it was started")
        gone += missed_times(kept[:-1], "the next time had come as well")
        pending, refused = kept[-1:], ""
    state = attrs.evolve(
        state,
        last=times[-1],
        pending=tuple(pending),
        refused=refused,
        missed=state.missed + sum(times.count for times in gone),
    )
    return state, sorted(gone, key=lambda missed: missed.first)


def expire(
    table: Timetable, state: ScheduleState, now: dt.datetime
) -> tuple[ScheduleState, list[MissedTimes]]:
    """Give up the pending times that were refused for longer than they are tried, or came too late to be tried."""
    limit = table.tried_for if state.refused else functools.partial(_patience, table)
    over = [time for time in state.pending if _lateness(table, time, now) > limit(time)]
    if not over:
        return state, []
    gone = missed_times(over, state.refused or f"it could not be started for {_ago(table, over[-1], now)}")
    left = tuple(time for time in state.pending if time not in over)
    refused = state.refused if left else ""
    return attrs.evolve(state, pending=left, refused=refused, missed=state.missed + len(over)), gone


def started(state: ScheduleState, nominal: dt.datetime) -> ScheduleState:
    """Return the state after the run of a pending time was started."""
    left = tuple(time for time in state.pending if time != nominal)
    return attrs.evolve(state, pending=left, refused="", fired=state.fired + 1)


def _due_times(
    table: Timetable, last: dt.datetime, now: dt.datetime
) -> tuple[list[dt.datetime], MissedTimes | None]:
    """Return the nominal times that are due; of very many the newest, and what was cut off, without a reason."""
    wanted, most = (MOST_MISSED, MOST_MISSED) if table.missed is MissedPolicy.ALL else (1, COUNTED)
    times: list[dt.datetime] = []
    found = table.next(last)
    while found is not None and table.due(found) <= now:
        if len(times) == most:
            newest = _newest(table, now, wanted)
            counted = sum(time < newest[0] for time in times)
            before = table.previous(newest[0])
            if not counted or before is None:
                return newest, None
            cut = MissedTimes(first=times[0], last=before, count=counted, more=counted == most, reason="")
            return newest, cut
        times.append(found)
        found = table.next(found)
    return times, None


def _newest(table: Timetable, now: dt.datetime, wanted: int) -> list[dt.datetime]:
    newest: list[dt.datetime] = []
    found = table.previous(now + SECOND)
    while found is not None and len(newest) < wanted:
        if table.due(found) <= now:
            newest.append(found)
        found = table.previous(found)
    return newest[::-1]


def _patience(table: Timetable, nominal: dt.datetime) -> float:
    if table.missed is MissedPolicy.SKIP:
        return ON_TIME
    return max(ON_TIME, table.tried_for(nominal))


def _lateness(table: Timetable, nominal: dt.datetime, now: dt.datetime) -> float:
    return (now - table.due(nominal)).total_seconds()


def _ago(table: Timetable, nominal: dt.datetime, now: dt.datetime) -> str:
    seconds = max(0.0, _lateness(table, nominal, now))
    for unit, size in (("days", DAY), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# ---- what runs are given


@attrs.frozen
class ScheduledFor:
    """By which schedule a run was started, and for when; `time` is None where somebody said `run_now`."""

    schedule: str
    time: dt.datetime | None
    """The nominal time, in UTC."""
    zone: str = "UTC"
    backfill: bool = False
    """Whether it was made up for by `backfill`."""

    def __str__(self) -> str:
        if self.time is None:
            return f"schedule {self.schedule}, run now"
        local = self.time.astimezone(ZoneInfo(self.zone)).isoformat(timespec="seconds")
        shown = show_instant(self.time) + ("" if self.zone == "UTC" else f" ({local} in {self.zone})")
        return f"schedule {self.schedule} for {shown}" + (", backfill" if self.backfill else "")


def fill_scheduled(params: Mapping[str, object], table: Timetable, nominal: dt.datetime) -> dict[str, object]:
    """Return the parameters of the run for a nominal time."""
    values: dict[str, Callable[[], str | None]] = {
        Scheduled.TIME: lambda: _local(table, nominal),
        Scheduled.DATE: lambda: nominal.astimezone(table.zone).date().isoformat(),
        Scheduled.PREVIOUS: lambda: _local(table, table.previous(nominal)),
        Scheduled.NEXT: lambda: _local(table, table.next(nominal)),
    }

    def filled(value: object) -> object:
        if isinstance(value, dict):
            if SCHEDULED in value:
                return values[value[SCHEDULED]]()
            if LITERAL in value:
                return value[LITERAL]
            return {key: filled(child) for key, child in value.items()}
        return [filled(child) for child in value] if isinstance(value, list) else value

    return {name: filled(value) for name, value in params.items()}


def _local(table: Timetable, instant: dt.datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(table.zone).isoformat(timespec="seconds")


def first_times(table: Timetable, since: dt.datetime, count: int) -> list[dt.datetime]:
    """Return the next `count` nominal times after `since`."""
    return list(itertools.islice(table.times(since + dt.timedelta(microseconds=1)), count))

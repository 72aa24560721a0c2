"""Schedules and times as the journal keeps them: what is remembered of a schedule, and which one started a run."""

from __future__ import annotations

import datetime as dt
import json

import attrs

from scattersphere.abc.journal import ScheduleRow
from scattersphere.schedules.occurrences import ScheduledFor, ScheduleState

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def micros_of(time: dt.datetime) -> int:
    """Return a time as the journal has it, exactly: a product of floats is a microsecond off now and then."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def schedule_row(state: ScheduleState, gone: dt.datetime | None = None) -> ScheduleRow:
    """Return what is remembered of a schedule as a row; `gone`: since when it is not defined any more."""
    kept = {
        "timing": state.timing,
        "last": state.last.isoformat(),
        "pending": [time.isoformat() for time in state.pending],
        "refused": state.refused,
        "fired": state.fired,
        "missed": state.missed,
    }
    since = None if gone is None else micros_of(gone)
    return ScheduleRow(state.job, state.name, json.dumps(kept), micros_of(state.last), state.paused, since)


def schedule_of(row: ScheduleRow) -> ScheduleState:
    """Return what a row remembers of a schedule."""
    kept = json.loads(row.state)
    last = dt.datetime.fromisoformat(kept.pop("last"))
    pending = tuple(map(dt.datetime.fromisoformat, kept.pop("pending")))
    return ScheduleState(job=row.job, name=row.name, paused=row.paused, last=last, pending=pending, **kept)


def scheduled_text(scheduled: ScheduledFor) -> str:
    """Return by which schedule a run was started, and for when, as a text."""
    time = None if scheduled.time is None else scheduled.time.isoformat()
    return json.dumps({**attrs.asdict(scheduled), "time": time})


def scheduled_of(text: str) -> ScheduledFor:
    """Return what `scheduled_text` was given."""
    said = json.loads(text)
    time = None if said["time"] is None else dt.datetime.fromisoformat(said["time"])
    return ScheduledFor(**{**said, "time": time})

"""ScheduleDefinition: when a job starts by itself, with which parameters, and what becomes of a missed time.

Times and expressions stay as they are written (`"30 2 * * *"`, ISO strings); `schedules/triggers.py` reads them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

import attrs

from scattersphere.model.fields import COMMENT_ROW, NO_COMMENT, says
from scattersphere.model.forms import Flag, Names, Number, Object, OneOf, OrNull, Text
from scattersphere.model.frozen import plain_copy


class MissedPolicy(StrEnum):
    """What becomes of times that passed while nobody could start a run."""

    SKIP = "skip"
    """Nothing is made up for."""
    LAST = "last"
    """One run, for the newest of them."""
    ALL = "all"
    """A run for each, at most 1,000."""


# Converters leave what they cannot convert as it is: the checks say what is wrong with it, and where.


def _policy(value: object) -> Any:
    return MissedPolicy(value) if value in _POLICIES else value


_POLICIES = [str(policy) for policy in MissedPolicy]


def _instant(value: object) -> Any:
    """Write a datetime as JSON has it. One without an offset stays without: the checks ask for it."""
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _instants(value: object) -> Any:
    if isinstance(value, dt.datetime | str):
        value = [value]
    return tuple(map(_instant, value)) if isinstance(value, list | tuple) else value


def _seconds(value: object) -> Any:
    if not isinstance(value, dt.timedelta):
        return value
    seconds = value.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


@attrs.frozen(kw_only=True, slots=False)
class ScheduleDefinition:
    """When a job is started by itself: exactly one of `cron`, `every` and `at` says so.

    `cron` has five fields (six with seconds first) or is an alias like "@daily", read in `zone`; `every` is seconds,
    counted from `start`, else from 1970; `at` is a list of ISO times with an offset. Nothing fires before `start` or
    after `stop`, nor while `enabled` is false. `params` override those of the job; `{"$scheduled": "date"}` in them
    stands for the date of the time for which a run is started (`time`, `previous`, `next` likewise).

    `missed` is "skip", "last" or "all"; None stands for "last" on a Server with a journal, else "skip".
    `catch_up_within` is how many seconds late a run may start; None stands for one period, at most a day.
    `jitter` spreads starts over so many seconds.
    """

    cron: str | None = attrs.field(
        default=None,
        metadata=says(OrNull(Text()), 'Five fields, or an alias: "30 2 * * *", "@daily".'),
    )
    every: float | None = attrs.field(
        default=None,
        converter=_seconds,
        metadata=says(OrNull(Number(1, unit="seconds")), "Seconds from one time to the next."),
    )
    at: tuple[str, ...] = attrs.field(
        default=(),
        converter=_instants,
        metadata=says(Names("time"), "ISO times with an offset: 2026-12-24T18:00:00+01:00."),
    )
    zone: str = attrs.field(default="UTC", metadata=says(Text(), "The time zone of cron: Europe/Berlin."))
    start: str | None = attrs.field(
        default=None,
        converter=_instant,
        metadata=says(OrNull(Text()), "Nothing fires before this ISO time, which has an offset."),
    )
    stop: str | None = attrs.field(
        default=None,
        converter=_instant,
        metadata=says(OrNull(Text()), "Nothing fires after this ISO time, which has an offset."),
    )
    params: Mapping[str, Any] = attrs.field(
        factory=dict,
        converter=plain_copy,
        metadata=says(
            Object(), 'Parameters of its runs; {"$scheduled": "date"} stands for their time.', since=2
        ),
    )
    missed: MissedPolicy | None = attrs.field(
        default=None,
        converter=_policy,
        metadata=says(OrNull(OneOf(MissedPolicy)), "What becomes of times that passed unused."),
    )
    catch_up_within: float | None = attrs.field(
        default=None,
        converter=_seconds,
        metadata=says(OrNull(Number(0, unit="seconds")), "Seconds that a run may start late."),
    )
    jitter: float = attrs.field(
        default=0,
        converter=_seconds,
        metadata=says(Number(0), "Seconds over which starts are spread."),
    )
    enabled: bool = attrs.field(default=True, metadata=says(Flag(), "False: it does not fire."))
    description: str = attrs.field(default="", metadata=says(Text(), "What it is for."))
    comment: Any = attrs.field(default=NO_COMMENT, metadata=COMMENT_ROW)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return attrs.evolve(self, **changes)

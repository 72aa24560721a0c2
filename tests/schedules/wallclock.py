"""What a person with a clock on the wall and a list of minutes would say: the judge of the cron trigger.

It knows nothing of cronsim, nor of how the trigger goes about it: it looks at every minute of a span.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MINUTE = dt.timedelta(minutes=1)


@attrs.frozen
class Wanted:
    """An expression, field by field, and what it means."""

    minute: str
    hour: str
    minutes: frozenset[int]
    hours: frozenset[int]
    rest: str = "* * *"

    @property
    def text(self) -> str:
        return f"{self.minute} {self.hour} {self.rest}"

    def matches(self, wall: dt.datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours

    def times(self, watch: Watch) -> list[dt.datetime]:
        """Return when it fires while the clock is watched."""
        named_hours = not self.hour.startswith("*")
        named = named_hours and not self.minute.startswith("*")
        return [
            instant
            for instant, wall, skipped, shown_before in watch.minutes
            if (self.matches(wall) and not (named and shown_before))
            or (named_hours and any(self.matches(step) for step in skipped))
        ]


class Watch:
    """A clock on the wall of a zone, looked at in each minute of (since, until)."""

    def __init__(self, zone: ZoneInfo, since: dt.datetime, until: dt.datetime) -> None:
        self.minutes: list[tuple[dt.datetime, dt.datetime, list[dt.datetime], bool]] = []
        """The instant, what the clock shows, what it left out just before, and whether it has shown this before."""
        seen: set[dt.datetime] = set()
        now = since.replace(second=0) - dt.timedelta(days=1)
        before = _wall(now - MINUTE, zone)
        while now < until:
            wall = _wall(now, zone)
            skipped, step = [], before + MINUTE
            while step < wall:  # the clock was put forward
                skipped.append(step)
                step += MINUTE
            if since < now:
                self.minutes.append((now, wall, skipped, wall in seen))
            seen.add(wall)
            before, now = wall, now + MINUTE


def _wall(instant: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def changes(zone: ZoneInfo, first: int, last: int) -> list[dt.datetime]:
    """Return the instants, to the minute, at which the clocks of a zone are set in these years."""
    found = []
    now, end = dt.datetime(first, 1, 1, tzinfo=dt.UTC), dt.datetime(last + 1, 1, 1, tzinfo=dt.UTC)
    while now < end:
        later = now + dt.timedelta(days=1)
        if now.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            at = now
            while at.astimezone(zone).utcoffset() == now.astimezone(zone).utcoffset():
                at += MINUTE
            found.append(at)
        now = later
    return found

"""Triggers: the next time after an instant, and the last one before it. Pure; every instant is aware UTC.

UTC, because two aware datetimes of one zone compare by their clocks on the wall: 02:30+02:00 and 02:30+01:00, an hour
apart, are equal for Python.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import attrs

from scattersphere.abc.ports import Trigger
from scattersphere.schedules.cron import CronExpression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
_PROBE = dt.timedelta(days=1)
"""No zone sets its clock twice within so short a time."""
_FAR = dt.timedelta(days=3)
"""No zone sets its clock by so much."""


# ---- every


@attrs.frozen
class EveryTrigger:
    """Fires every `seconds`, counted from `anchor`: also before it."""

    seconds: int
    anchor: dt.datetime = EPOCH

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after `after`."""
        return self._at((after - self.anchor) // dt.timedelta(seconds=self.seconds) + 1)

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before `before`."""
        return self._at(-((self.anchor - before) // dt.timedelta(seconds=self.seconds)) - 1)

    def _at(self, number: int) -> dt.datetime | None:
        try:
            return self.anchor + number * dt.timedelta(seconds=self.seconds)
        except OverflowError:  # the years of Python's calendar are over
            return None

    def words(self) -> str:
        """Say in words when it fires."""
        for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
            count, rest = divmod(self.seconds, size)
            if not rest:
                return f"every {unit}" if count == 1 else f"every {count:,} {unit}s"
        raise AssertionError


# ---- at


def _in_order(times: Iterable[dt.datetime]) -> tuple[dt.datetime, ...]:
    return tuple(sorted(set(times)))


@attrs.frozen
class AtTrigger:
    """Fires at single times."""

    times: tuple[dt.datetime, ...] = attrs.field(converter=_in_order)

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after `after`."""
        place = bisect_right(self.times, after)
        return self.times[place] if place < len(self.times) else None

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before `before`."""
        place = bisect_left(self.times, before)
        return self.times[place - 1] if place else None

    def words(self) -> str:
        """Say in words when it fires."""
        shown = [show_instant(time) for time in self.times[:3]]
        more = len(self.times) - len(shown)
        return f"at {', '.join(shown)}" + (f" and {more} more times" if more else "")


def show_instant(instant: dt.datetime) -> str:
    """Write an instant in UTC as keys and messages have it: `2026-11-30T01:30:00Z`."""
    return instant.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


# ---- somebody else's


@attrs.frozen
class CheckedTrigger:
    """A trigger of the host's, whose answers are looked at: one that goes back would hold the loop for ever."""

    trigger: Trigger

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after `after`. Raises `ValueError` where that is none."""
        found = self._instant(f"next({after})", _answer(self.trigger.next, after))
        if found is not None and found <= after:
            raise ValueError(f"{self.trigger!r}: next({after}) is {found}, which does not lie after it")
        return found

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before `before`. Raises `ValueError` where that is none."""
        found = self._instant(f"previous({before})", _answer(self.trigger.previous, before))
        if found is not None and found >= before:
            raise ValueError(f"{self.trigger!r}: previous({before}) is {found}, which does not lie before it")
        return found

    def words(self) -> str:
        """Say in words when it fires."""
        return " ".join(str(_answer(self.trigger.words)).split())

    def _instant(self, question: str, found: object) -> dt.datetime | None:
        if found is None:
            return None
        if not isinstance(found, dt.datetime) or found.utcoffset() is None or found.microsecond:
            raise ValueError(
                f"{self.trigger!r}: {question} is {found!r}; it must be an aware datetime to the second, or None"
            )
        return found.astimezone(dt.UTC)


def _answer(question: Callable[..., object], *asked: dt.datetime) -> object:
    """Ask a trigger of the host's. What would end the program, raised in the clock of all schedules, is an error."""
    try:
        return question(*asked)
    except (SystemExit, GeneratorExit) as exc:
        raise RuntimeError(f"a trigger raised {type(exc).__name__}") from exc


# ---- cron


@attrs.frozen
class CronTrigger:
    """Fires when the clock on the wall in `zone` shows what a cron expression says.

    Where clocks are set, an expression that names times of the day ("30 2 * * *") fires once for each of them: at the
    first of two equal times, and for times that are left out at the moment after them. One with a rhythm of minutes
    ("*/10 2 * * *", "0 * * * *") follows the clock: through both equal hours; if it names hours, all of whose times
    that are left out have one at the moment after them. So does Debian's cron, but for that last.
    """

    expression: CronExpression = attrs.field(eq=lambda expression: expression.fields)
    zone: ZoneInfo = attrs.field(eq=str)

    @classmethod
    def of(cls, text: str, zone: str = "UTC") -> CronTrigger:
        """Make the trigger of an expression. Raises `ValueError`, `MissingExtraError`, `ZoneInfoNotFoundError`."""
        return cls(CronExpression(text), ZoneInfo(zone))

    def next(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first time after `after`."""
        after = after.replace(microsecond=0)
        if self.expression.names_times:
            return self._next_of_named(after)
        return self._next_by_clock(after)

    def _next_of_named(self, after: dt.datetime) -> dt.datetime | None:
        """Each time of the wall has one instant: the first of two; the end of the gap where there is none."""
        wall = self._wall(after)
        while (found := self.expression.after(wall)) is not None:
            instant = self._instant(found)
            if instant is None or instant > after:
                return instant
            wall = found  # its first of two equal times is over
        return None

    def _next_by_clock(self, after: dt.datetime) -> dt.datetime | None:
        """Go along stretches in which the zone's offset stays the same."""
        start, wall = after, self._wall(after)
        while (found := self.expression.after(wall)) is not None:
            instant = _shifted(found, -self._offset(start))
            if instant is None:
                return None
            if instant - start > 2 * _FAR and self._first_change(start, start + _FAR) is None:
                # Until shortly before it the wall shows nothing that is meant, however often it is set in these years.
                start = instant - _FAR
                instant = _shifted(found, -self._offset(start))
                if instant is None:
                    return None
            change = self._first_change(start, instant)
            if change is None:
                return instant
            if self.expression.names_hours and found < self._wall(change):
                return change  # in the gap
            start, wall = change, self._wall(change) - SECOND
        return None

    def previous(self, before: dt.datetime) -> dt.datetime | None:
        """Return the last time before `before`: the last that `next` gives, beginning a little earlier."""
        wall: dt.datetime | None = self._wall(before)
        if before.microsecond:
            wall = self._wall(before.replace(microsecond=0) + SECOND)
        while wall is not None and (wall := self.expression.before(wall)) is not None:
            begin = _shifted(wall, -self._offset_of_wall(wall, fold=0))
            if begin is None or begin >= before:
                continue
            found, later = None, self.next(begin - SECOND)
            while later is not None and later < before:
                found, later = later, self.next(later)
            if found is not None:
                return found
        return None

    def words(self) -> str:
        """Say in words when it fires."""
        return f"{self.expression.words()} ({self.zone})"

    # ---- the zone

    def _offset(self, instant: dt.datetime) -> dt.timedelta:
        return instant.astimezone(self.zone).utcoffset() or dt.timedelta()

    def _offset_of_wall(self, wall: dt.datetime, fold: int) -> dt.timedelta:
        return wall.replace(tzinfo=self.zone, fold=fold).utcoffset() or dt.timedelta()

    def _wall(self, instant: dt.datetime) -> dt.datetime:
        return instant.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _instant(self, wall: dt.datetime) -> dt.datetime | None:
        """Return when the wall shows this for the first time; if it never does, when it shows something later."""
        instant = _shifted(wall, -self._offset_of_wall(wall, fold=0))
        if instant is None or self._wall(instant) == wall:
            return instant
        before_gap = _shifted(wall, -self._offset_of_wall(wall, fold=1))
        return None if before_gap is None else self._first_change(before_gap, instant)

    def _first_change(self, start: dt.datetime, end: dt.datetime) -> dt.datetime | None:
        """Return the first instant in (start, end] with another offset than `start`, or None."""
        offset = self._offset(start)
        low = start
        for probe in _probes(start, end):
            if self._offset(probe) != offset:
                break
            low = probe
        else:
            return None
        high = probe
        while high - low > SECOND:
            middle = low + (high - low) // 2 // SECOND * SECOND
            low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
        return high


def _probes(start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    while end - start > _PROBE:
        start += _PROBE
        yield start
    yield end


def _shifted(wall: dt.datetime, offset: dt.timedelta) -> dt.datetime | None:
    """Return the instant of a wall's time, given minus its offset from UTC."""
    try:
        return (wall + offset).replace(tzinfo=dt.UTC)
    except OverflowError:  # the years of Python's calendar are over
        return None

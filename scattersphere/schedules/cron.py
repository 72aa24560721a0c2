"""Cron expressions: their check in words, and their times by a wall clock that is never set.

The one file that knows cronsim, which is an extra: it is imported when an expression is first used. cronsim is asked
about naive times only. What a zone does to them is the business of `triggers.py`: cronsim's own way of walking a
zone by whole hours leaves out times where clocks are set by half an hour (Lord Howe), and days whose only times fall
into a gap.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere._version import installing
from scattersphere.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

ALIASES: Mapping[str, str] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
LONGEST = 500
"""Characters of an expression: one that lists every minute has 169."""
NEVER = "never fires"
_CALENDAR_REPEATS = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - a clock on the wall
"""From here on an expression that ever fires does so within cronsim's fifty years."""


@attrs.frozen
class _Field:
    """One field of an expression: what its numbers are, and what else may stand there."""

    name: str
    plural: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, word: str) -> int | None:
        """Return the number that a word stands for, or None."""
        if word in self.names:
            return self.names.index(word) + self.low
        return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else None

    @property
    def range(self) -> str:
        named = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.plural} are {self.low} to {self.high}{named}"


_FIELDS = (
    _Field("second", "seconds", 0, 59),
    _Field("minute", "minutes", 0, 59),
    _Field("hour", "hours", 0, 23),
    _Field("day of the month", "days of the month", 1, 31),
    _Field("month", "months", 1, 12, tuple(MONTHS)),
    _Field("day of the week", "days of the week", 0, 7, tuple(DAYS)),
)
_DAY, _WEEKDAY = _FIELDS[3], _FIELDS[5]
FORM = "five fields (minute hour day month weekday), six with seconds first"


def fields_of(text: str) -> list[str]:
    """Return the six fields of an expression, seconds first; whatever number there is of a wrong one."""
    parts = ALIASES.get(text.strip().lower(), text).upper().split()
    return ["0", *parts] if len(parts) == len(_FIELDS) - 1 else parts


def expression_fault(text: str, *, looks_for_a_date: bool = True) -> tuple[str, str | None] | None:
    """Return what is wrong with an expression, and what may have been meant; None if nothing is.

    That one never fires is found by going through fifty years, 13 ms, unless it is not looked for.
    """
    if len(text) > LONGEST:
        return f"is longer than {LONGEST} characters", None
    if text.strip().startswith("@") and text.strip().lower() not in ALIASES:
        from scattersphere._text import nearest  # noqa: PLC0415 - only where something is wrong

        return f"no such word; there are {', '.join(ALIASES)}", nearest(text.strip().lower(), ALIASES)
    parts = fields_of(text)
    if len(parts) != len(_FIELDS):
        count = len(text.split())
        return f"has {count} field{'' if count == 1 else 's'}; a cron expression has {FORM}", None
    for field, part in zip(_FIELDS, parts, strict=True):
        for fault in _part_faults(field, part):
            return fault
    return _refused(text, looks_for_a_date=looks_for_a_date)


def _part_faults(field: _Field, part: str) -> Iterator[tuple[str, str | None]]:
    for term in part.split(","):
        base, slash, step = term.partition("/")
        if slash and (not step.isascii() or not step.isdigit() or int(step[:9]) < 1):
            yield f"{field.name} {term}: the step after / is a whole number, at least 1", None
        yield from _base_faults(field, base, term, part)


def _base_faults(field: _Field, base: str, term: str, part: str) -> Iterator[tuple[str, str | None]]:
    if base == "*" or (field is _DAY and base in {"L", "LW"}):
        return
    if base == "":
        yield f"{field.name} {part}: something is missing beside a comma or a slash", None
    elif base == "?":
        yield f"{field.name} ?: Quartz has that; here any {field.name} is *", "*"
    elif base.startswith("H"):
        yield f'{field.name} {term}: Jenkins has H; here write a number, and "jitter" to spread starts', None
    elif field is _WEEKDAY and (base.endswith("L") or "#" in base):
        yield from _weekday_faults(base)
    else:
        low, dash, high = base.partition("-")
        for word in (low, high) if dash else (low,):
            number = field.number(word)
            if number is None or not field.low <= number <= field.high:
                hint = "; midnight is 0" if field.name == "hour" and number == 24 else ""  # noqa: PLR2004
                yield f"{field.name} {_shown(word or term)}: {field.range}{hint}", _near(field, word)
                return
        if dash and (field.number(low) or 0) > (field.number(high) or 0):
            both = f"{low}-{field.names[-1] if low in field.names else field.high}"
            both += f",{field.names[0] if high in field.names else field.low}-{high}"
            yield f"{field.plural} {base}: a range goes upwards", both


def _shown(word: str) -> str:
    return word if word.isprintable() else ascii(word)


def _near(field: _Field, word: str) -> str | None:
    """Return the short name of a month or day that was written out."""
    return word[:3] if word[:3] in field.names else None


def _weekday_faults(base: str) -> Iterator[tuple[str, str | None]]:
    if base.endswith("L"):
        if base[:-1] not in {"0", "1", "2", "3", "4", "5", "6", "7"}:
            yield f"day of the week {base}: the last Friday of the month is 5L", None
        return
    day, _, nth = base.partition("#")
    number = _WEEKDAY.number(day)
    if number is None or number > _WEEKDAY.high:
        yield f"day of the week {day or base}: {_WEEKDAY.range}", _near(_WEEKDAY, day)
    elif nth not in {"1", "2", "3", "4", "5"}:
        yield f"day of the week {base}: behind # stands 1 to 5, the first to the fifth of the month", None


def _refused(text: str, *, looks_for_a_date: bool) -> tuple[str, str | None] | None:
    """Return what cronsim has against an expression in which nothing else is wrong."""
    try:
        cronsim = load_cronsim()
    except MissingExtraError as error:
        return str(error), None
    try:
        times = cronsim.CronSim(" ".join(fields_of(text)), _CALENDAR_REPEATS)
        found = next(times, None) if looks_for_a_date else times
    except cronsim.CronSimError as error:
        if "day-of-month" not in str(error):
            return f"is no cron expression: {error}", None
        found = None
    if found is None:
        _, _, _, day, month, weekday = fields_of(text)
        return f"{NEVER}: no date has day {day}, month {month} and weekday {weekday}", None
    return None


def load_cronsim() -> ModuleType:
    """Import cronsim. Raises `MissingExtraError` where it is not installed."""
    try:
        import cronsim  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError(
            f"cron expressions need the package cronsim: {installing('schedules')}. "
            '"every" and "at" need no package'
        ) from None
    return cronsim


@attrs.frozen(eq=False)
class CronExpression:
    """A right expression and its times on the wall: naive, to the second. Raises `ValueError` for a wrong one.

    That one never fires is looked for where definitions are checked, off the event loop; here it just has no times.
    """

    text: str
    fields: tuple[str, ...] = attrs.field(init=False)
    _CronSim: Any = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        fault = expression_fault(self.text, looks_for_a_date=False)
        if fault is not None:
            raise ValueError(f"{self.text!r}: {fault[0]}")
        object.__setattr__(self, "fields", tuple(fields_of(self.text)))
        object.__setattr__(self, "_CronSim", load_cronsim().CronSim)

    @property
    def names_hours(self) -> bool:
        """Whether it names hours, and not just a rhythm of them (`*`, `*/2`)."""
        return not self.fields[2].startswith("*")

    @property
    def names_times(self) -> bool:
        """Whether it names times of the day: hours and minutes."""
        return self.names_hours and not self.fields[1].startswith("*") and "*" not in self.fields[0]

    def after(self, wall: dt.datetime) -> dt.datetime | None:
        """Return the first time after `wall`, or None where there is none any more."""
        return self._step(wall, back=False)

    def before(self, wall: dt.datetime) -> dt.datetime | None:
        """Return the last time before `wall`."""
        return self._step(wall, back=True)

    def _step(self, wall: dt.datetime, *, back: bool) -> dt.datetime | None:
        try:
            found: dt.datetime | None = next(self._CronSim(" ".join(self.fields), wall, reverse=back), None)
        except (OverflowError, ValueError):  # the years of Python's calendar are over
            return None
        return found

    def words(self) -> str:
        """Say in words when it fires: "at 02:30 every day"."""
        words: str = self._CronSim(" ".join(self.fields), _CALENDAR_REPEATS).explain()
        return words[:1].lower() + words[1:]

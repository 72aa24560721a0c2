from __future__ import annotations

import datetime as dt
import sys

import pytest

from scattersphere import ScattersphereError
from scattersphere.schedules.cron import CronExpression, expression_fault

pytestmark = pytest.mark.needs("cronsim")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 25 * * *", "hour 25: hours are 0 to 23"),
        ("0 24 * * *", "hour 24: hours are 0 to 23; midnight is 0"),
        ("61 * * * *", "minute 61: minutes are 0 to 59"),
        ("0 0 0 * *", "day of the month 0: days of the month are 1 to 31"),
        ("0 0 1 13 *", "month 13: months are 1 to 12, or JAN to DEC"),
        ("0 0 * * 8", "day of the week 8: days of the week are 0 to 7, or SUN to SAT"),
        ("0 0 * * 9#1", "day of the week 9: days of the week are 0 to 7, or SUN to SAT"),
        ("0 0 * * 5#6", "day of the week 5#6: behind # stands 1 to 5, the first to the fifth of the month"),
        ("0 0 * * FRIL", "day of the week FRIL: the last Friday of the month is 5L"),
        ("0 0 1W * *", "day of the month 1W: days of the month are 1 to 31"),
        ("*/0 * * * *", "minute */0: the step after / is a whole number, at least 1"),
        ("*/ * * * *", "minute */: the step after / is a whole number, at least 1"),
        (", * * * *", "minute ,: something is missing beside a comma or a slash"),
        ("H * * * *", 'minute H: Jenkins has H; here write a number, and "jitter" to spread starts'),
        ("* * * *", "has 4 fields; a cron expression has five fields (minute hour day month weekday), six with seconds first"),
        ("0 0 0 * * * 2026", "has 7 fields; a cron expression has five fields (minute hour day month weekday), six with seconds first"),
        ("", "has 0 fields; a cron expression has five fields (minute hour day month weekday), six with seconds first"),
        ("0 0 30 2 *", "never fires: no date has day 30, month 2 and weekday *"),
        ("0 0 31 4,6 *", "never fires: no date has day 31, month 4,6 and weekday *"),
        ("0 0 */31 * 1#5", "never fires: no date has day */31, month * and weekday 1#5"),
        ("٣ * * * *", "minute ٣: minutes are 0 to 59"),
        ("1" * 400 + " * * * *", None),
        ("*" * 501, "is longer than 500 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_expression_is_said_in_words(text: str, words: str | None) -> None:
    fault = expression_fault(text)
    assert fault is not None
    assert words is None or fault[0] == words


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("@dialy", "@daily"),
        ("0 0 ? * *", "*"),
        ("0 0 * JANUARY *", "JAN"),
        ("0 0 * * MONDAY", "MON"),
        ("0 0 * * FRIDAY#1", "FRI"),
        ("0 17-9 * * *", "17-23,0-9"),
        ("0 0 * * FRI-MON", "FRI-SAT,SUN-MON"),
    ],
)
def test_what_was_probably_meant_is_suggested(text: str, meant: str) -> None:
    fault = expression_fault(text)
    assert fault is not None
    assert fault[1] == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 2 * * *", "at 02:30 every day"),
        ("@hourly", "at the start of every hour"),
        ("@Daily", "at 00:00 every day"),
        ("*/15 * * * *", "every 15th minute of every hour"),
        ("0 12 * * mon-fri", "at 12:00 on Monday through Friday"),
        ("0 0 L * *", "at 00:00 on the last day of every month"),
        ("30 5 0 * * *", "at 00:05:30 every day"),
    ],
)
def test_an_expression_is_said_in_words(text: str, words: str) -> None:
    assert CronExpression(text).words() == words


def test_a_wrong_expression_is_no_expression() -> None:
    with pytest.raises(ValueError, match="hours are 0 to 23"):
        CronExpression("30 25 * * *")


def test_times_on_the_wall_end_with_the_years_of_the_calendar() -> None:
    expression = CronExpression("0 0 1 1 *")
    assert expression.after(dt.datetime(9999, 6, 1)) is None
    assert expression.before(dt.datetime(1, 1, 1)) is None
    assert expression.before(dt.datetime(2026, 6, 1)) == dt.datetime(2026, 1, 1)


def test_without_the_extra_an_expression_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ValueError, match=r"pip install cronsim tzdata \(the extra schedules\)"):
        CronExpression("30 2 * * *")
    fault = expression_fault("30 25 * * *")
    assert fault is not None
    assert "hours are 0 to 23" in fault[0]  # what is wrong with it is said all the same
    assert issubclass(sys.modules["scattersphere.errors"].MissingExtraError, ScattersphereError)

"""What is wrong with schedules in a definition file: where, in words, and what to write instead."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scattersphere import DefinitionError, JobDefinition

if TYPE_CHECKING:
    from scattersphere.model.problem import Problem

pytestmark = pytest.mark.needs("cronsim")


def text_of(schedule: dict[str, Any], **more: Any) -> str:
    job = {
        "format": 2,
        "name": "job",
        "schedules": {"nightly": schedule},
        "tasks": {"t": {"task": "a.B"}},
        **more,
    }
    return json.dumps(job, indent=2)


def problems(schedule: dict[str, Any], **more: Any) -> list[str]:
    found: tuple[Problem, ...] = ()
    try:
        JobDefinition.loads(text_of(schedule, **more))
    except DefinitionError as error:
        found = error.problems
    assert all(problem.line is not None for problem in found)
    return [str(problem).split("  ", 1)[1] for problem in found]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cron": "30 25 * * *"}, "schedules.nightly.cron  hour 25: hours are 0 to 23"),
        ({"cron": "@dialy"}, 'schedules.nightly.cron  no such word; there are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly; did you mean "@daily"?'),
        ({}, 'schedules.nightly  does not say when: write one of "cron", "every" and "at"'),
        ({"at": []}, 'schedules.nightly  does not say when: write one of "cron", "every" and "at"'),
        ({"cron": "@daily", "every": 5}, 'schedules.nightly.every  "cron" stands here too: only one of them says when'),
        ({"cron": "@daily", "zone": "Europe/Berln"}, 'schedules.nightly.zone  no time zone "Europe/Berln"; did you mean "Europe/Berlin"?'),
        ({"cron": "@daily", "zone": "berlin"}, 'schedules.nightly.zone  no time zone "berlin"; did you mean "Europe/Berlin"?'),
        ({"cron": "@daily", "zone": "../etc/passwd"}, 'schedules.nightly.zone  no time zone "../etc/passwd"'),
        ({"every": 1.5}, "schedules.nightly.every  must be a whole number of seconds, not 1.5"),
        ({"every": 10**400}, "schedules.nightly.every  must be at most 1,000,000,000 seconds"),
        ({"every": 60, "jitter": 61}, "schedules.nightly.jitter  must not be longer than the period, 60 seconds"),
        ({"cron": "@daily", "jitter": 1e300}, "schedules.nightly.jitter  must be at most 1,000,000,000"),
        ({"cron": "@daily", "catch_up_within": 10**10}, "schedules.nightly.catch_up_within  must be at most 1,000,000,000 seconds"),
        ({"at": ["2026-12-24T18:00:00"], "zone": "Europe/Berlin"}, 'schedules.nightly.at[0]  needs an offset from UTC, like "2026-12-24T18:00:00+01:00"; did you mean "2026-12-24T18:00:00+01:00"?'),
        ({"at": ["tomorrow"]}, 'schedules.nightly.at[0]  is no time; write it like "2026-12-24T18:00:00+01:00"'),
        ({"at": ["2026-12-24T18:00:00.5Z"]}, 'schedules.nightly.at[0]  is to the second: leave out the fraction; did you mean "2026-12-24T18:00:00+00:00"?'),
        ({"at": ["9999-12-31T23:00:00-05:00"]}, "schedules.nightly.at[0]  lies outside the years 1 to 9999 in UTC"),
        ({"every": 60, "start": "2026-12-01"}, 'schedules.nightly.start  needs an offset from UTC, like "2026-12-24T18:00:00+01:00"; did you mean "2026-12-01T00:00:00+00:00"?'),
        ({"every": 60, "start": "2026-12-02T00:00Z", "stop": "2026-12-01T00:00Z"}, "schedules.nightly.stop  lies before start"),
        ({"cron": "0 0 1 1 *", "start": "2026-02-01T00:00Z", "stop": "2026-12-01T00:00Z"}, "schedules.nightly.stop  no time of this schedule lies between start and stop"),
        ({"every": 60, "params": {"day": {"$scheduled": "dat"}}}, 'schedules.nightly.params.day.$scheduled  must be one of time, date, previous, next; did you mean "date"?'),
        ({"every": 60, "params": {"day": {"$scheduled": 5}}}, "schedules.nightly.params.day.$scheduled  must be one of time, date, previous, next"),
        ({"every": 60, "params": {"day": {"$scheduled": "date", "x": 1}}}, 'schedules.nightly.params.day  "$scheduled" stands alone in its object'),
        ({"every": 60, "params": {"dya": "x"}}, "schedules.nightly.params.dya  job 'job' has no such parameter; did you mean \"day\"?"),
        ({"every": 60, "params": {"day": 5}}, "schedules.nightly.params.day  must be of type string; the number 5 is not"),
        ({"every": 60, "params": {"n": {"$scheduled": "date"}}}, "schedules.nightly.params.n  must be of type integer; the string"),
        ({"every": 60, "missed": "lst"}, "schedules.nightly.missed  must be one of"),
        ({"every": 60, "tz": "UTC"}, "schedules.nightly.tz  unknown key"),
    ],
)  # fmt: skip
def test_a_problem_says_where_and_what_to_write(schedule: dict[str, Any], words: str) -> None:
    found = problems(schedule, params={"day": "x", "n": 1})
    assert len(found) == 1, found
    assert found[0].startswith(words), found[0]


def test_a_required_parameter_must_be_given_by_each_schedule() -> None:
    params = {"day": {"type": "string", "required": True}}
    words = 'schedules.nightly  does not give the parameter "day", which is required'
    assert problems({"every": 60}, params=params) == [words]
    assert problems({"every": 60, "params": {"day": {"$scheduled": "date"}}}, params=params) == []


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"cron": "61 25 * * *", "zone": "x/y", "start": "soon", "jitter": 10**10})) == 4


def test_too_many_schedules_and_wrong_names_are_refused() -> None:
    many = {f"s{n}": {"every": 60} for n in range(101)}
    assert problems({}, schedules=many) == ["schedules  101 schedules are more than 100"]
    assert problems({}, schedules={"a b": {"every": 60}})[0].startswith('schedules["a b"]  "a b" is no name')


def test_the_example_of_the_contract_is_right_and_survives_a_round_trip() -> None:
    schedules = {
        "nightly": {
            "cron": "30 2 * * *", "zone": "Europe/Berlin", "params": {"day": {"$scheduled": "date"}},
            "missed": "last", "catch_up_within": 3600,
        },
        "poll": {"every": 300, "jitter": 30, "start": "2026-12-01T00:00:00Z"},
        "once": {"at": ["2026-12-24T18:00:00+01:00"]},
        "paused": {"cron": "@hourly", "enabled": False},
    }  # fmt: skip
    job = JobDefinition.loads(text_of({}, schedules=schedules, params={"day": "x"}))
    assert JobDefinition.loads(job.dumps()) == job
    assert json.loads(job.dumps())["schedules"] == schedules


def test_without_the_extra_only_cron_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    assert problems({"every": 60}) == []
    assert problems({"at": ["2026-12-24T18:00:00+01:00"]}) == []
    (words,) = problems({"cron": "@daily"})
    assert "pip install cronsim tzdata (the extra schedules)" in words

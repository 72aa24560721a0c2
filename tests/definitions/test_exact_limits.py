"""Limits hold exactly where they stand, and each fault of a definition is told once."""

import json

import pytest

from scattersphere import DefinitionError, JobDefinition
from scattersphere.definitions import validate


def job(**tasks):
    entries = {name: {"task": "a.A", **entry} for name, entry in tasks.items()}
    return {"format": 1, "name": "j", "tasks": entries}


def problems(definition):
    try:
        JobDefinition.loads(json.dumps(definition))
    except DefinitionError as error:
        return [(problem.path, problem.message, problem.suggestion) for problem in error.problems]
    return []


def test_exactly_so_many_tasks_are_allowed_and_one_more_is_not(monkeypatch):
    monkeypatch.setattr(validate, "TASKS", 3)
    assert problems(job(a={}, b={}, c={})) == []
    assert problems(job(a={}, b={}, c={}, d={})) == [("tasks", "4 tasks are more than 3", None)]


def test_exactly_so_many_dependencies_are_allowed_declared_and_implied_and_one_more_is_not(monkeypatch):
    monkeypatch.setattr(validate, "EDGES", 3)
    tasks = {
        "a": {},
        "b": {"depends_on": ["a"]},
        "c": {"args": {"x": {"$result": "a"}, "y": {"$result": "b"}}},
    }
    assert problems(job(**tasks)) == []
    tasks["d"] = {"depends_on": ["a"]}
    assert problems(job(**tasks)) == [("tasks", "there are more than 3 dependencies", None)]


def test_a_name_without_its_prefix_finds_the_one_task_it_may_mean_and_none_of_several():
    one = job(**{"long-prefix.of.load": {}, "b": {"depends_on": ["load"]}})
    assert problems(one) == [("tasks.b.depends_on[0]", 'no task "load" in this job', "long-prefix.of.load")]
    two = job(**{"long-prefix.of.load": {}, "other-prefix.of.load": {}, "b": {"depends_on": ["load"]}})
    assert problems(two) == [("tasks.b.depends_on[0]", 'no task "load" in this job', None)]


def test_a_result_of_an_unknown_task_lacks_the_task_and_not_a_default_as_well():
    wrong = job(a={}, b={"depends_on": ["a"], "trigger_rule": "all_done", "args": {"x": {"$result": "gone"}}})
    assert [(path, words) for path, words, _ in problems(wrong)] == [
        ("tasks.b.args.x", 'no task "gone" in this job')
    ]


@pytest.mark.parametrize(
    "more", [{}, {"timeout": 0}, {"retry": {"backoff": 0}}, {"args": {"x": {"$param": "p"}}}]
)
def test_a_task_that_waits_for_a_finally_task_is_told_so_once_whatever_else_is_wrong_with_it(more):
    wrong = job(tidy={"finally": True}, b={"depends_on": ["tidy"], **more})
    told = [words for _, words, _ in problems(wrong)]
    assert sum("is a finally-task" in words for words in told) == 1
    assert len(told) == len(set(told)) == 1 + bool(more)


@pytest.mark.parametrize("entry", [{"cron": 7}, {"evry": 60}])
def test_a_schedule_that_cannot_be_read_is_not_told_what_it_lacks_as_well(entry):
    wrong = {**job(a={}), "format": 2, "schedules": {"night": entry}}
    (key,) = entry
    assert [path for path, *_ in problems(wrong)] == [f"schedules.night.{key}"]

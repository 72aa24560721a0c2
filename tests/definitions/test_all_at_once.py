"""Everything wrong is told at once, once, and briefly; what Python builds is told like what files say."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle

import pytest

from scattersphere import JobDefinition
from scattersphere.definitions.load import read
from scattersphere.errors import MESSAGE_LIMIT, DefinitionError, UnresolvedError, listing
from scattersphere.model.definition import NO_COMMENT, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.problem import Problem


def shown(text):
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(text)
    return [f"{p.path}  {p.message}" for p in caught.value.problems]


def job(**tasks):
    return json.dumps(
        {"name": "x", "params": {"s": "", "l": {"type": "array"}, "n": {"type": "integer"}}, "tasks": tasks}
    )


def test_a_task_with_faults_of_form_still_tells_those_of_its_references():
    task = {
        "odd": 1,
        "timeout": "5",
        "retry": {"delay": -1, "tries": 3},
        "depends_on": ["nobody", 7, "t"],
        "args": {"a": {"$param": "no"}, "b": {"$result": "none", "pointer": 1}},
        "trigger_rule": "all_odd",
    }
    assert shown(job(t=task)) == [
        "tasks.t.task  is missing",
        "tasks.t.odd  unknown key",
        'tasks.t.timeout  must be a number, not the string "5"',
        "tasks.t.retry.delay  must not be negative, but is -1",
        "tasks.t.retry.tries  unknown key",
        'tasks.t.depends_on[0]  no task "nobody" in this job',
        "tasks.t.depends_on[1]  must be a name in quotes, not the number 7",
        "tasks.t.depends_on[2]  a task cannot wait for itself",
        'tasks.t.args.a  no parameter "no" in this job',
        'tasks.t.args.b  "pointer" is an RFC 6901 pointer: empty, or beginning with "/"',
        "tasks.t.trigger_rule  must be one of all_success, none_failed, all_done, all_failed, one_failed, one_success, "
        'not the string "all_odd"',
    ]


def test_a_missing_task_is_told_at_the_task_that_misses_it():
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads('{\n "name": "x",\n "tasks": {\n  "a": {"task": "A"},\n  "b": {}\n }\n}')
    assert str(caught.value.problems[0]) == "5:3  tasks.b.task  is missing"


def test_a_fault_of_the_text_hides_no_other_and_is_told_once():
    assert shown('{"name": "x", "timeout": NaN, "timeout": "5", "tasks": {"t": {"tsak": 1e999}}}') == [
        "timeout  NaN is no JSON number",
        'timeout  the key "timeout" stands here twice, first at 1:15',
        "tasks.t.task  is missing",
        "tasks.t.tsak  the number 1e999 is too large",
    ]


def test_what_follows_from_a_fault_is_not_told_as_well():
    # Without its depends_on the rule would be wrong, and without its name nothing could refer to the task.
    assert shown(
        job(
            a=5,
            b={"task": "B", "trigger_rule": "all_done", "depends_on": "a"},
            c={"task": "C", "depends_on": ["a"]},
        )
    ) == [
        "tasks.a  must be an object, not the number 5",
        'tasks.b.depends_on  must be a list of names, not the string "a"; write ["a"]',
    ]
    assert shown(
        '{"name": 5, "params": [], "tasks": {"t": {"task": "T", "args": {"k": {"$param": "p"}}}}}'
    ) == [
        "name  must be a string, not the number 5",
        "params  must be an object, not an empty list",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"run_if": {"$param": "s"}}, 'run_if  must be true or false, not the string ""'),
        (
            {"run_if": {"$param": "n"}},
            'run_if  must be of type boolean; the parameter "n" is of type integer',
        ),
        ({"run_if": {"$literal": 1}}, "run_if  must be true or false, not the number 1"),
        (
            {"run_if": {"$result": "up", "default": "no"}},
            'run_if  must be true or false, not the string "no"',
        ),
        (
            {"run_if": {"$result": "up", "default": True}, "trigger_rule": "all_failed"},
            'run_if  is never asked for the result: all_failed starts this task only where "up" failed',
        ),
        (
            {"run_if": {"$param": "b"}, "depends_on": ["off"]},
            'run_if  is never asked: "off" has "run_if": false, so this task is skipped too',
        ),
        ({"map": {"k": {"$param": "s"}}}, 'map.k  must be a list, not the string ""'),
        (
            {"map": {"k": {"$param": "n"}}},
            'map.k  must be of type array; the parameter "n" is of type integer',
        ),
        ({"map": {"k": {"$literal": {}}}}, "map.k  must be a list, not an empty object"),
        ({"map": {"k": {"$result": "up", "default": 1}}}, "map.k  must be a list, not the number 1"),
        ({"args": {"$param": "s"}}, 'args.$param  "args" names arguments; write {"name": {"$param": ..}}'),
    ],
)
def test_conditions_and_maps_that_cannot_be_are_told(fields, line):
    text = json.dumps(
        {
            "name": "x",
            "params": {"s": "", "b": True, "n": {"type": "integer"}},
            "tasks": {
                "up": {"task": "U"},
                "off": {"task": "O", "run_if": False},
                "t": {"task": "T", **fields},
            },
        }
    )
    assert shown(text) == [f"tasks.t.{line}"]


@pytest.mark.parametrize(
    "value", [[], {"$literal": [1]}, {"$param": "l"}, {"$result": "up", "pointer": "/a", "default": []}]
)
def test_a_map_may_go_over_any_list(value):
    JobDefinition.loads(job(up={"task": "U"}, t={"task": "T", "map": {"k": value}}))


def test_no_message_is_longer_than_the_limit_however_long_names_are():
    long = "k" * 100_000
    value = {
        "name": long,
        long: 1,
        "params": {long: {"type": long}},
        "tasks": {long: {"task": 5, long: {"$a": long}}},
    }
    deep = {"k": {"$x" + long: 1}}
    for _ in range(50):
        deep = {long: deep}
    value["tasks"]["t"] = {"task": "T", "args": {"a": deep}}
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(json.dumps(value))
    assert len(str(caught.value)) <= MESSAGE_LIMIT
    assert all(len(str(problem)) <= MESSAGE_LIMIT for problem in caught.value.problems)
    problems = [Problem("p" * 10**6, "m" * 10**6)] * 1_000
    assert len(listing("h" * 10**6, problems)) <= MESSAGE_LIMIT
    assert len(str(UnresolvedError(listing("job", problems), problems))) <= MESSAGE_LIMIT
    assert "more" in listing("h", problems)


WRONG = [
    (JobDefinition(name=5), "name  must be a string, not the number 5"),
    (JobDefinition(name="x", tasks=[]), 'tasks  must be an object {"name": {"task": ..}}, not an empty list'),
    (JobDefinition(name="x", tasks={"t": {"task": 5}}), "tasks.t.task  must be a string, not the number 5"),
    (
        JobDefinition(name="x", tasks={1: TaskDefinition(task="T")}),
        "tasks  a key must be a string, not the number 1",
    ),
    (JobDefinition(name="x", tasks={"t": 1}), "tasks.t  must be an object, not the number 1"),
    (JobDefinition(name="x", params=[1]), "params  must be an object, not a list"),
    (
        JobDefinition(name="x", params={"p": Parameter(type=5)}),
        "params.p.type  must be a string, not the number 5",
    ),
    (
        JobDefinition(name="x", overlap="odd"),
        'overlap  must be one of queue, refuse, replace, not the string "odd"',
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", depends_on="u")}),
        'tasks.t.depends_on  must be a list of names, not the string "u"; write ["u"]',
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", retry=RetryPolicy(delay="1"))}),
        'tasks.t.retry.delay  must be a number, not the string "1"',
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", retry=3)}),
        "tasks.t.retry  must be an object, not the number 3",
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", args={"d": dt.date(2026, 1, 1)})}),
        "tasks.t.args.d  a Python date has no JSON form; a definition holds strings, numbers, booleans, lists, dicts",
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", args={"d": [{1}]})}),
        "tasks.t.args.d[0]  a Python set has no JSON form; a definition holds strings, numbers, booleans, lists, dicts",
    ),
    (
        JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", args={"d": "\ud800"})}),
        "tasks.t.args.d  half of a surrogate pair is no character",
    ),
    (JobDefinition(name="x", timeout=float("inf")), "timeout  inf is no JSON number"),
    (
        JobDefinition(name="x", comments={"odd": 1}),
        "comments  maps bundles and schedules and params and tasks to the comments inside them, and nothing else",
    ),
]


@pytest.mark.parametrize(("definition", "line"), WRONG)
def test_wrong_python_values_are_problems_like_those_of_a_file(definition, line, tmp_path):
    with pytest.raises(DefinitionError) as caught:
        definition.save(tmp_path / "x.json")
    assert [f"{p.path}  {p.message}" for p in caught.value.problems] == [line]
    assert list(tmp_path.iterdir()) == []


def test_python_values_that_hold_themselves_or_go_too_deep_are_told_and_not_followed():
    loop = []
    loop.append(loop)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        definition = JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", args={"k": value})})
        with pytest.raises(DefinitionError, match="more than 64 lists and objects inside one another"):
            definition.save("never-written.json")


def test_what_python_builds_does_not_change_with_the_dicts_it_was_made_of_and_cannot_be_changed():
    args = {"k": [1, (2, 3)]}
    task = TaskDefinition(task="T", args=args)
    tasks = {"t": task}
    definition = JobDefinition(name="x", tasks=tasks)
    args["k"].append(9)
    tasks["u"] = task
    assert definition == JobDefinition.loads(definition.dumps())
    assert definition.tasks["t"].args == {"k": [1, [2, 3]]}
    for change in (
        lambda: definition.tasks.update(u=task),
        lambda: definition.tasks.pop("t"),
        lambda: definition.params.setdefault("p", 1),
        lambda: definition.tasks.__setitem__("u", task),
    ):
        with pytest.raises(TypeError, match="evolve"):
            change()
    for again in (copy.deepcopy(definition), pickle.loads(pickle.dumps(definition))):
        assert again == definition


def test_a_comment_that_is_null_survives_and_none_is_written_where_there_is_none():
    text = '{"name": "x", "//": null, "tasks": {"t": {"task": "T", "//": null, "retry": {"//": null}}}}'
    definition = JobDefinition.loads(text)
    assert definition.comment is None
    written = json.loads(definition.dumps())
    assert written["//"] is written["tasks"]["t"]["//"] is written["tasks"]["t"]["retry"]["//"] is None
    assert JobDefinition.loads(definition.dumps()) == definition
    assert JobDefinition(name="x").comment is NO_COMMENT
    assert "//" not in JobDefinition(name="x").dumps()


def test_a_copy_is_checked_anew_and_what_was_read_is_not():
    definition = JobDefinition.loads('{"name": "x"}')
    assert definition.checked
    assert not definition.evolve(name="a b").checked
    assert not JobDefinition(name="x").checked
    assert read({"name": "a b"})[0].checked is False


def test_versions_are_told_apart_by_their_digest():
    one = JobDefinition.loads('{"name": "x", "tasks": {"a": {"task": "A"}, "b": {"task": "B"}}}')
    same = JobDefinition.build("x").task("a", "A").task("b", "B").done()
    other = JobDefinition.build("x").task("b", "B").task("a", "A").done()
    assert one.digest == same.digest
    assert len(one.digest) == 12
    assert one.digest != other.digest
    assert one.evolve(description="d").digest != one.digest


def test_what_is_read_stays_the_callers_with_its_comments():
    given = {"name": "x", "tasks": {"a": {"task": "A"}, "//": "why"}}
    definition, problems = read(given)
    assert problems == []
    assert given["tasks"]["//"] == "why"
    assert json.loads(definition.dumps())["tasks"]["//"] == "why"

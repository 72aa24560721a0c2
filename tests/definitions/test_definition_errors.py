"""Each kind of error, with the line that is shown for it."""

from __future__ import annotations

import json

import pytest

from scattersphere import JobDefinition
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import TaskDefinition

NAME_WORDS = "letters, digits, _ . and -, at most 128, not beginning with . or -"


def shown(text):
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(text)
    return [str(problem) for problem in caught.value.problems]


def job(**fields):
    return json.dumps({"name": "x", **fields})


def task(**fields):
    """Return a job of tasks `up` and `t`, each on a line of its own."""
    up, t = json.dumps({"task": "a.Up"}), json.dumps({"task": "a.B", **fields})
    return f'{{"name": "x", "params": {{"day": ""}}, "tasks": {{\n"up": {up},\n"t": {t}}}}}'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "1:1  (document)  a definition is an object, not an empty list"),
        ("{}", "1:1  name  is missing"),
        ('{"name": "x",\n "name": "y"}', '2:2  name  the key "name" stands here twice, first at 1:2'),
        ('{"name": NaN}', "1:10  name  NaN is no JSON number"),
        (job(format=3), "1:15  format  is 3; this program knows 1 or 2: a newer one is needed"),
        (
            job(format=10**9, new_key=1, tasks=[]),
            "1:15  format  is 1000000000; this program knows 1 or 2: a newer one is needed",
        ),
        (job(format="1"), '1:15  format  must be 1 or 2, not the string "1"'),
        (
            job(format=1, schedules={}),
            '1:28  schedules  exists since format 2, and this file says 1: write "format": 2',
        ),
        (job(name="a b"), f'1:2  name  "a b" is no name; a name has {NAME_WORDS}'),
        (job(name="a\n"), f'1:2  name  "a\\n" is no name; a name has {NAME_WORDS}'),
        (job(name="é"), f'1:2  name  "é" is no name; a name has {NAME_WORDS}'),
        (job(name=5), "1:2  name  must be a string, not the number 5"),
        (job(origin=None), "1:15  origin  unknown key"),
        (job(comments={}), '1:15  comments  unknown key; did you mean "//"?'),
        (job(steps={}), '1:15  steps  unknown key; did you mean "tasks"?'),
        (job(parms={}), '1:15  parms  unknown key; did you mean "params"?'),
        (job(fail_fast=1), "1:15  fail_fast  must be true or false, not the number 1"),
        (job(timeout=True), "1:15  timeout  must be a number, not true"),
        (job(timeout=0), "1:15  timeout  must be more than 0 seconds, not 0"),
        (job(max_runs=0), "1:15  max_runs  must be at least 1, not 0"),
        (job(max_parallel=1.5), "1:15  max_parallel  must be a whole number, not the number 1.5"),
        (
            job(overlap="queu"),
            (
                '1:15  overlap  must be one of queue, refuse, replace, not the string "queu"; '
                'did you mean "queue"?'
            ),
        ),
        (job(params=[]), "1:15  params  must be an object, not an empty list"),
        (
            job(params={"p": {"secert": True}}),
            '1:32  params.p.secert  unknown key; did you mean "secret"?',
        ),
        (
            job(params={"p": {"type": "strin"}}),
            (
                "1:32  params.p.type  must be one of string, integer, number, boolean, array, object, null; "
                'did you mean "string"?'
            ),
        ),
        (
            job(params={"p": {"type": "integer", "default": True}}),
            "1:51  params.p.default  must be of type integer; true is not",
        ),
        (
            job(params={"p": {"type": "integer", "default": "pa$$", "secret": True}}),
            "1:51  params.p.default  must be of type integer; it is not",
        ),
        (job(bundles={"b": 1}), "1:27  bundles.b  must be a path in quotes, not the number 1"),
        (job(tasks=[]), '1:15  tasks  must be an object {"name": {"task": ..}}, not an empty list'),
        (job(tasks={"t": {}}), "1:25  tasks.t.task  is missing"),
        (job(tasks={"t": 1}), "1:25  tasks.t  must be an object, not the number 1"),
        (
            job(tasks={"a b": {"task": "a"}}),
            f'1:25  tasks["a b"]  "a b" is no name; a name has {NAME_WORDS}',
        ),
    ],
)
def test_what_is_wrong_with_a_job_is_said_where_it_stands(text, line):
    assert shown(text) == [line]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"task": ""}, "task  must be the path of a task class"),
        ({"task": 5}, "task  must be a string, not the number 5"),
        ({"after": ["up"]}, 'after  unknown key; did you mean "depends_on"?'),
        (
            {"needs": ["up"]},
            'needs  must be an object {"pool": amount}, not a list; the tasks that must end before are in '
            '"depends_on"; did you mean "depends_on"?',
        ),
        ({"qqqqqqqq": 1}, "qqqqqqqq  unknown key"),
        ({"": 1}, '[""]  unknown key ""'),
        ({"depends_on": "up"}, 'depends_on  must be a list of names, not the string "up"; write ["up"]'),
        ({"depends_on": [1]}, "depends_on[0]  must be a name in quotes, not the number 1"),
        ({"depends_on": ["upp"]}, 'depends_on[0]  no task "upp" in this job; did you mean "up"?'),
        ({"depends_on": ["t"]}, "depends_on[0]  a task cannot wait for itself"),
        ({"depends_on": ["up", "up"]}, 'depends_on[1]  "up" stands here already, at [0]'),
        ({"args": []}, "args  must be an object, not an empty list"),
        ({"args": {"k": {"$param": "dya"}}}, 'args.k  no parameter "dya" in this job; did you mean "day"?'),
        ({"args": {"k": [{"$result": "u"}]}}, 'args.k[0]  no task "u" in this job; did you mean "up"?'),
        (
            {"args": {"k": {"$env": "X"}}},
            'args.k  no reference is called "$env"; there are $param, $result and $literal',
        ),
        ({"args": {"k": {"$param": 1}}}, 'args.k  "$param" takes a name in quotes'),
        ({"args": {"k": {"$param": "day", "a": 1}}}, 'args.k  "a" does not belong beside "$param"'),
        (
            {"args": {"k": {"$result": "up", "pointer": "a"}}},
            'args.k  "pointer" is an RFC 6901 pointer: empty, or beginning with "/"',
        ),
        (
            {"args": {"k": {"$result": "up", "pointer": "/~2"}}},
            'args.k  "pointer" may hold "~" only as "~0" (a tilde) and "~1" (a slash)',
        ),
        (
            {"args": {"k": {"$result": "up"}}, "trigger_rule": "all_done"},
            'args.k  needs a "default": all_done may start this task although "up" did not succeed',
        ),
        (
            {"args": {"k": {"$result": "up"}}, "finally": True},
            'args.k  needs a "default": all_done may start this task although "up" did not succeed',
        ),
        (
            {"map": {"k": [1]}, "args": {"k": 1}},
            'map.k  "k" is in args too; it can only come from one of them',
        ),
        ({"map": {}}, "map  must name at least one argument"),
        ({"map": {"k": 5}}, "map.k  must be a list, or a reference to one, not the number 5"),
        ({"run_if": 1}, "run_if  must be true, false or a reference"),
        ({"run_if": {}}, "run_if  must be true, false or a reference"),
        (
            {"trigger_rule": "all_done"},
            "trigger_rule  a task that depends on none can only have all_success",
        ),
        (
            {"trigger_rule": "all_don", "depends_on": ["up"]},
            (
                "trigger_rule  must be one of all_success, none_failed, all_done, all_failed, one_failed, "
                'one_success, not the string "all_don"; did you mean "all_done"?'
            ),
        ),
        ({"timeout": -1}, "timeout  must be more than 0 seconds, not -1"),
        ({"max_parallel": 0}, "max_parallel  must be at least 1, not 0"),
        ({"priority": "5"}, 'priority  must be a whole number, not the string "5"'),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts  must be at least 1, not 0"),
        ({"retry": {"delay": -1}}, "retry.delay  must not be negative, but is -1"),
        ({"retry": {"backoff": 0.5}}, "retry.backoff  must be at least 1, not 0.5"),
        ({"retry": {"attempts": 2}}, 'retry.attempts  unknown key; did you mean "max_attempts"?'),
        ({"retry": 3}, "retry  must be an object, not the number 3"),
        ({"finally": "yes"}, 'finally  must be true or false, not the string "yes"'),
    ],
)
def test_what_is_wrong_with_a_task_is_said_with_its_path(fields, line):
    (found,) = shown(task(**fields))
    place, _, rest = found.partition("  ")
    assert place.startswith("3:")
    assert rest == "tasks.t" + ("" if line.startswith("[") else ".") + line


def test_a_value_under_literal_is_not_read():
    text = task(args={"k": {"$literal": {"$env": {"$result": "nobody"}}}})
    assert JobDefinition.loads(text).tasks["t"].args["k"]["$literal"] == {"$env": {"$result": "nobody"}}


def test_a_normal_task_may_not_wait_for_a_finally_task():
    text = job(tasks={"f": {"task": "a", "finally": True}, "t": {"task": "b", "depends_on": ["f"]}})
    (line,) = shown(text)
    assert line.endswith('tasks.t.depends_on[0]  "f" is a finally-task: it starts after all normal tasks')


def test_a_cycle_is_shown_once_and_short():
    (line,) = shown(
        job(tasks={"b": {"task": "x", "depends_on": ["a"]}, "a": {"task": "x", "depends_on": ["b"]}})
    )
    assert line.endswith("the tasks wait for each other: a -> b -> a")
    ring = {f"t{i}": {"task": "x", "depends_on": [f"t{(i + 1) % 5000}"]} for i in range(5000)}
    (line,) = shown(job(tasks=ring))
    assert line.count("->") == 9  # ten names, one of them three dots
    assert len(line) < 300


def test_a_cycle_runs_the_way_the_tasks_wait():
    """`a -> b` reads: first a, then b."""
    ring = {"a": "c", "b": "a", "c": "b"}
    (line,) = shown(job(tasks={name: {"task": "x", "depends_on": [on]} for name, on in ring.items()}))
    assert line.endswith("a -> b -> c -> a")


def test_structure_and_references_are_reported_together():
    lines = shown(job(tasks={"a": {"task": 1}, "b": {"task": "x", "depends_on": ["c", "a"]}}, fail_fast=0))
    assert [line.split("  ")[1] for line in lines] == ["tasks.a.task", "tasks.b.depends_on[0]", "fail_fast"]


def test_what_python_builds_is_refused_in_the_same_words(tmp_path):
    wrong = JobDefinition(name="x", tasks={"t": TaskDefinition(task="a", args={"k": {"$param": "no"}})})
    with pytest.raises(DefinitionError, match='no parameter "no" in this job'):
        wrong.save(tmp_path / "x.json")
    unwritable = JobDefinition(name="x", tasks={"t": TaskDefinition(task="a", args={"k": float("nan")})})
    with pytest.raises(DefinitionError, match=r"tasks\.t\.args\.k  nan is no JSON number"):
        unwritable.save(tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [0, -1, "2"])
def test_a_format_that_never_was_hides_nothing_else_that_is_wrong(number):
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(json.dumps({"format": number, "name": "job", "tasks": {"a": {"task": 5}}}))
    assert [problem.path for problem in caught.value.problems] == ["format", "tasks.a.task"]

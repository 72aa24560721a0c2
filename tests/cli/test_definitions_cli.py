"""`validate`, `graph`, `schema` and the pictures of `run`: what a shell sees."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = """
from scattersphere import RunnableTask

class Load(RunnableTask):
    '''Load one day.'''
    day: str
    sizes: list[int] = []

    def run(self, context):
        return self.day
"""
GOOD = {
    "name": "good",
    "params": {"day": "2026-11-23", "n": {"type": "integer", "default": 1}},
    "bundles": {"etl": "etl.py"},
    "tasks": {
        "one.load": {"task": "etl.Load", "args": {"day": {"$param": "day"}}},
        "two": {"task": "etl.Load", "args": {"day": "x", "sizes": [1]}, "depends_on": ["one.load"]},
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "etl.py").write_text(BUNDLE)
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    return tmp_path


def call(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scattersphere", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        input=given,
    )


def test_validate_says_everything_that_is_wrong_at_once_in_the_order_of_the_file(folder):
    (folder / "bad.json").write_text("""{
  "name": "bad", "bundles": {"etl": "etl.py"},
  "tasks": {
    "a": {"task": "etl.Lod", "afetr": []},
    "b": {"task": "etl.Load", "args": {"dya": 1, "sizes": [1, "2"]}, "depends_on": ["aa", "b"]},
    "c": {"depends_on": ["load"], "timeout": true, "args": {"x": {"$result": "a", "odd": 1}}},
    "one.load": {"task": "etl.Load", "args": {"day": "x"}, "backend": "lop"}
  }
}""")
    done = call(folder, "validate", "bad.json", "good.json")
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "bad.json: 12 problems",
        '  4:11  tasks.a.task  no task "etl.Lod" in any bundle; did you mean "etl.Load"?',
        '  4:30  tasks.a.afetr  unknown key; did you mean "depends_on"?',
        "  5:31  tasks.b.args  etl.Load needs 'day' (str)",
        "  5:40  tasks.b.args.dya  etl.Load takes no 'dya'; did you mean \"day\"?",
        '  5:63  tasks.b.args.sizes[1]  must be a whole number, not the string "2"',
        '  5:85  tasks.b.depends_on[0]  no task "aa" in this job; did you mean "a"?',
        "  5:91  tasks.b.depends_on[1]  a task cannot wait for itself",
        "  6:5  tasks.c.task  is missing",
        '  6:26  tasks.c.depends_on[0]  no task "load" in this job; did you mean "one.load"?',
        "  6:35  tasks.c.timeout  must be a number, not true",
        '  6:61  tasks.c.args.x  "odd" does not belong beside "$result"',
        '  7:60  tasks["one.load"].backend  no backend "lop"; this Server has loop, process, thread; did you mean "loop"?',
        "good.json: nothing is wrong, 2 tasks",
    ]
    assert done.stderr == ""


def test_validate_in_json_is_one_object_for_each_file(folder):
    (folder / "bad.json").write_text('{"name": "bad", "odd": 1}')
    done = call(folder, "validate", "good.json", "bad.json", "none.json", "--json")
    assert done.returncode == 3
    good, bad, none = map(json.loads, done.stdout.splitlines())
    assert good == {"file": "good.json", "tasks": 2, "problems": []}
    assert bad["problems"] == [
        {
            "path": "odd",
            "message": "unknown key",
            "line": 1,
            "column": 17,
            "suggestion": None,
            "is_warning": False,
        }
    ]
    assert none["problems"][0]["message"] == "No such file or directory"
    assert call(folder, "validate", "good.json").returncode == 0


def test_validate_names_a_bundle_that_cannot_be_loaded_and_checks_without_code_where_none_is_named(folder):
    broken = {**GOOD, "bundles": {"etl": "gone.py"}}
    (folder / "broken.json").write_text(json.dumps(broken))
    alone = {key: item for key, item in GOOD.items() if key != "bundles"}
    (folder / "alone.json").write_text(json.dumps(alone))
    done = call(folder, "validate", "broken.json", "alone.json")
    assert "bundles.etl" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[-1] == "alone.json: nothing is wrong, 2 tasks"
    assert call(folder, "validate", "alone.json", "--bundle", "etl.py").returncode == 0


@pytest.mark.parametrize(
    ("form", "words"), [("tree", "↓ two"), ("mermaid", "t0 --> t1"), ("dot", '"one.load" -> "two"')]
)
def test_graph_draws_a_file(folder, form, words):
    done = call(folder, "graph", "good.json", "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout


def test_graph_of_a_wrong_file_says_what_is_wrong(folder):
    (folder / "bad.json").write_text('{"name": 5}')
    done = call(folder, "graph", "bad.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "1:2  name  must be a string" in done.stderr
    assert "Traceback" not in done.stderr
    missing = call(folder, "graph", "nix.json")
    assert (missing.returncode, missing.stderr) == (3, "scattersphere: nix.json: No such file or directory\n")


def test_schema_with_a_bundle_knows_the_arguments_of_its_tasks(folder):
    done = call(folder, "schema", "--bundle", "etl.py")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid(GOOD)
    for arguments in ({"day": 5}, {"day": "x", "odd": 1}, {"sizes": ["1"], "day": "x"}):
        job = {"name": "x", "tasks": {"t": {"task": "etl.Load", "args": arguments}}}
        assert not validator.is_valid(job), arguments
        assert jsonschema.Draft202012Validator(JobDefinition.schema()).is_valid(job)
    words = schema["properties"]["tasks"]["additionalProperties"]["properties"]["task"]["anyOf"]
    assert {"const": "etl.Load", "description": "Load one day."} in words
    assert call(folder, "schema", "--bundle", "none.py").returncode == 3


def test_run_draws_its_timeline_and_its_tasks(folder):
    done = call(folder, "run", "good.json", "--trace", "t.json", "--picture", "p.mmd")
    assert done.returncode == 0, done.stderr
    events = json.loads((folder / "t.json").read_text())["traceEvents"]
    assert {"one.load", "two", "running"} <= {event["name"] for event in events}
    picture = (folder / "p.mmd").read_text()
    assert "succeeded" in picture
    assert "t0 --> t1" in picture
    unwritable = call(folder, "run", "good.json", "--picture", "no/such/p.mmd")
    assert unwritable.returncode == 3
    assert "no/such/p.mmd: No such file or directory" in unwritable.stderr


def test_a_text_for_a_whole_number_is_told_how_to_write_one(folder):
    done = call(folder, "run", "good.json", "-p", "n=5")
    assert done.returncode == 2
    assert 'must be of type integer; the string "5" is not; as a word of a command write n:=5' in done.stderr
    assert call(folder, "run", "good.json", "-p", "n:=5").returncode == 0


def test_what_is_wrong_with_a_task_as_a_whole_hides_nothing_inside_it(folder):
    tasks = {"a": {"task": "etl.Lost", "depends_on": ["b"]}, "b": {"task": "etl.Lost", "depends_on": ["a"]}}
    (folder / "bad.json").write_text(json.dumps({"name": "x", "bundles": {"etl": "etl.py"}, "tasks": tasks}))
    told = call(folder, "validate", "bad.json").stdout
    assert "wait for each other: a -> b -> a" in told
    assert told.count('no task "etl.Lost"') == 2


def test_a_definition_may_come_on_standard_input_with_bundles_of_the_current_folder(folder):
    good, wrong = json.dumps(GOOD), json.dumps(GOOD).replace("etl.Load", "etl.Laod")
    outside = json.dumps({**GOOD, "bundles": {"etl": "../etl.py"}})
    told = [
        (("validate", "-"), good, 0, "standard input: nothing is wrong, 2 tasks"),
        (("validate", "-"), wrong, 3, 'did you mean "etl.Load"?'),
        (("graph", "-"), good, 0, "one.load"),
        (("next", "-"), good, 0, "good has no schedules"),
        (("run", "-", "-p", "day=today"), good, 0, "2 succeeded"),
        (("run", "-"), wrong, 3, "standard input: 2 problems"),
        (("run", "-"), outside, 3, "lies outside"),
        (("run", "-"), "{", 3, "(document)  the text ends inside an object"),
    ]
    for words, given, status, shown in told:
        done = call(folder, *words, given=given)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        assert shown in done.stdout + done.stderr
        assert "Traceback" not in done.stderr

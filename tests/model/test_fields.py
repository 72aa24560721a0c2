"""One row for each field of a definition file: reader, writer, schema, builder and reference are made from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE

import scattersphere
from scattersphere import DefinitionError, JobDefinition, Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.amounts import places_of
from scattersphere.model.fields import FORMAT, rows
from scattersphere.model.forms import MOST, Number, OrNull
from scattersphere.model.schedules import ScheduleDefinition

CLASSES = [JobDefinition, TaskDefinition, RetryPolicy, Parameter, ScheduleDefinition]
ROW = """
    tags: tuple[str, ...] = attrs.field(
        default=(), converter=names, metadata=says(Names("tag"), "Words to find it by.", since=3)
    )
    timeout: float"""
PROGRAM = """
import json, os, runpy, sys
from scattersphere import DefinitionError, JobDefinition
from scattersphere.model.definition import TaskDefinition
TEXT = '{"format":3,"name":"j","tasks":{"a":{"task":"N","tags":%s}}}'
definition = JobDefinition.loads(TEXT % '["x"]')
seen = {"read": definition.tasks["a"].tags, "saved": json.loads(definition.dumps())["tasks"]["a"]}
seen["format"] = [json.loads(text)["format"] for text in (definition.dumps(), JobDefinition(name="x").dumps())]
seen["again"] = JobDefinition.loads(definition.dumps()) == definition
seen["built"] = JobDefinition.build("j").task("a", "N", tags=["x"]).done() == definition
seen["wrong"] = []
for wrong in ('"x"', "[1]", '{"a":1}'):
    try:
        JobDefinition.loads(TEXT % wrong)
    except DefinitionError as error:
        seen["wrong"] += [str(problem) for problem in error.problems]
task = JobDefinition.schema()["properties"]["tasks"]["additionalProperties"]["properties"]
seen["schema"] = task["tags"]
try:
    JobDefinition.loads((TEXT % '["x"]').replace("3", "1", 1))
except DefinitionError as error:
    seen["older"] = [str(problem) for problem in error.problems]
sys.path.insert(0, os.path.dirname(sys.argv[1]))  # as docs/conf.py does
seen["row"] = [row for row in runpy.run_path(sys.argv[1])["rows"](TaskDefinition) if row[0] == "tags"]
print(json.dumps(seen))
"""


def test_a_field_that_is_added_in_one_place_is_found_in_all(tmp_path):
    """Forgotten in one of six places, `"x"` was once read as `("x",)` and never saved."""
    pytest.importorskip("docutils")
    source = Path(scattersphere.__file__).parent
    shutil.copytree(source, tmp_path / "scattersphere", ignore=shutil.ignore_patterns("__pycache__"))
    model = tmp_path / "scattersphere" / "model"
    text = (model / "definition.py").read_text()
    (model / "definition.py").write_text(text.replace("\n    timeout: float", ROW, 1))
    fields = (model / "fields.py").read_text()
    (model / "fields.py").write_text(fields.replace(f"FORMAT: Final = {FORMAT}", "FORMAT: Final = 3"))
    table = Path(__file__).parents[2] / "docs" / "_ext" / "fields.py"
    command = [sys.executable, "-c", PROGRAM, str(table)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert json.loads(done.stdout) == {
        "read": ["x"],
        "saved": {"task": "N", "tags": ["x"]},
        "format": [3, 1],
        "again": True,
        "built": True,
        "wrong": [
            '1:49  tasks.a.tags  must be a list of tags, not the string "x"; write ["x"]',
            "1:57  tasks.a.tags[0]  must be a tag in quotes, not the number 1",
            "1:49  tasks.a.tags  must be a list of tags, not an object",
        ],
        "schema": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "older": ['1:49  tasks.a.tags  exists since format 3, and this file says 1: write "format": 3'],
        "row": [["tags", "a list of tags", "none", "Words to find it by. Since format 3."]],
    }


def test_a_field_that_says_nothing_is_an_error_that_says_what_to_write():
    @attrs.frozen
    class Odd:
        tags: tuple[str, ...] = ()

    with pytest.raises(TypeError, match=r"Odd\.tags does not say what JSON it takes: add metadata=says"):
        rows(Odd)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_default_is_a_value_that_its_own_row_does_not_write(cls):
    for row in rows(cls).values():
        assert row.help.endswith(".")
        assert row.required or row.is_default(row.default)
        assert 1 <= row.since <= FORMAT


NUMBERS = [
    (cls, row)
    for cls in CLASSES
    for row in rows(cls).values()
    if isinstance(row.json.of if isinstance(row.json, OrNull) else row.json, Number)
]
HUGE = [
    MOST + 1,
    -MOST - 1,
    1e308,
    -1e308,
    10**400,
    float(MOST) * 1.0001,
    float("inf"),
    float("nan"),
    float("-inf"),
]


def job_with(cls, name, value):
    """Return a definition made in Python in which one field has a value."""
    made = cls(**{row.name: "x" for row in rows(cls).values() if row.required}, **{name: value})
    parts = {
        JobDefinition: lambda: made,
        TaskDefinition: lambda: JobDefinition(name="x", tasks={"t": made}),
        RetryPolicy: lambda: JobDefinition(name="x", tasks={"t": TaskDefinition(task="T", retry=made)}),
        ScheduleDefinition: lambda: JobDefinition(name="x", schedules={"s": made}),
    }
    return parts[cls]()


@pytest.mark.parametrize(("cls", "row"), NUMBERS, ids=lambda one: getattr(one, "key", None))
@pytest.mark.parametrize("value", HUGE, ids=str)
def test_a_number_that_the_engine_could_not_count_with_is_refused_where_it_is_written(
    cls, row, value, tmp_path
):
    """`backoff: 1e200` once ended the engine with every run in it."""
    with pytest.raises(DefinitionError) as caught:
        job_with(cls, row.name, value).save(tmp_path / "x.json")
    (problem,) = [one for one in caught.value.problems if one.path.endswith(row.key)]
    assert len(problem.message) < 100
    text = json.dumps({"name": "x", "tasks": {"t": {"task": "T", "retry": {"delay": value}}}})
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(text)
    assert caught.value.problems[0].line == 1


@pytest.mark.parametrize("value", [0, 5e-324, 1e-308, 0.0, -0.0, MOST])
def test_tiny_numbers_and_zero_are_taken_where_nothing_is_divided_by_them(value):
    text = json.dumps(
        {"name": "x", "tasks": {"t": {"task": "T", "retry": {"delay": value, "max_delay": value}}}}
    )
    assert JobDefinition.loads(text).tasks["t"].retry.delay == value


@pytest.mark.parametrize(
    ("amount", "places"),
    [(1, 1), ("4GiB", 4 * 2**30), ("1kB", 1000), ("999999999TB", 999999999 * 10**12), ("7B", 7)],
)
def test_amounts_are_places_and_sizes_bytes(amount, places):
    text = json.dumps({"name": "x", "tasks": {"t": {"task": "T", "needs": {"p": amount}}}})
    assert places_of(JobDefinition.loads(text).tasks["t"].needs["p"]) == places


@pytest.mark.parametrize(
    "amount", [0, -1, 1.0, True, "0GiB", "4", "4 GiB", "4gb", "1e3B", "", None, [1], 10**10]
)
def test_what_is_no_amount_is_refused(amount):
    text = json.dumps({"name": "x", "tasks": {"t": {"task": "T", "needs": {"p": amount}}}})
    with pytest.raises(DefinitionError, match=r"tasks\.t\.needs\.p  must be a whole number from 1 to"):
        JobDefinition.loads(text)


def test_a_secret_may_come_from_the_environment_and_nothing_else_may():
    good = '{"name": "x", "params": {"p": {"secret": true, "env": "DB_PASSWORD"}}}'
    assert JobDefinition.loads(good).params["p"].env == "DB_PASSWORD"
    for params, words in (
        ({"env": "P"}, 'is for secrets only: write "secret": true beside it'),
        ({"secret": True, "env": "A-B"}, "must be the name of an environment variable"),
        ({"secret": True, "env": ""}, "must be the name of an environment variable"),
    ):
        with pytest.raises(DefinitionError) as caught:
            JobDefinition.loads(json.dumps({"name": "x", "params": {"p": params}}))
        assert words in str(caught.value)


NEWER = {
    "durability": "none",
    "on_restart": "crash",
    "schedules": {"n": {"every": 60}},
    "params": {"p": {"secret": True, "env": "P"}},
    "tasks": {"t": {"task": "T", "needs": {"gpu": 1}}, "u": {"task": "T", "on_restart": "fail"}},
}


@given(st.dictionaries(st.sampled_from(sorted(NEWER)), st.booleans()))
def test_a_save_says_the_lowest_format_that_has_all_that_is_used(chosen):
    value = {"name": "x", **{key: NEWER[key] for key, used in chosen.items() if used}}
    definition = JobDefinition.loads(json.dumps(value))
    newer = any(chosen.values())
    assert json.loads(definition.dumps())["format"] == (2 if newer else 1)
    if newer:
        with pytest.raises(DefinitionError, match="exists since format 2, and this file says 1"):
            JobDefinition.loads(json.dumps({"format": 1, **value}))

"""The schema for editors says what the loader does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition
from scattersphere.errors import DefinitionError

FILE = Path(__file__).parents[2] / "docs" / "job-definition.schema.json"
SCHEMA = JobDefinition.schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
JOB_KEYS = sorted(SCHEMA["properties"])
TASK_KEYS = sorted(SCHEMA["properties"]["tasks"]["additionalProperties"]["properties"])
RETRY_KEYS = sorted(
    SCHEMA["properties"]["tasks"]["additionalProperties"]["properties"]["retry"]["properties"]
)
# Values of every form that some key takes, and some that none does. Names that refer are left out:
# that they exist only the loader can say.
VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2.5,
        -1,
        "",
        "a b",
        "x",
        "queue",
        "all_success",
        [],
        ["x", "x"],
        [1],
        {},
        {"//": 1},
    ]
)
RETRY = st.dictionaries(st.sampled_from([*RETRY_KEYS, "odd"]), VALUES, max_size=3)
TASK = st.builds(
    lambda fields, retry: {"task": "a.B", **fields, **retry},
    st.dictionaries(st.sampled_from([*TASK_KEYS, "odd"]), VALUES, max_size=3),
    st.just({}) | RETRY.map(lambda retry: {"retry": retry}),
)
PARAMETER = st.dictionaries(
    st.sampled_from(["type", "required", "secret", "description", "odd"]), VALUES, max_size=3
)
JOB = st.builds(
    lambda fields, tasks, params: {"name": "x", **fields, **tasks, **params},
    st.dictionaries(st.sampled_from([*JOB_KEYS, "odd"]), VALUES, max_size=2),
    st.just({})
    | st.dictionaries(st.sampled_from(["t", "a b", ""]), TASK).map(lambda value: {"tasks": value}),
    st.just({})
    | st.dictionaries(st.sampled_from(["p", "//"]), PARAMETER).map(lambda value: {"params": value}),
)
ONLY_THE_LOADER = (
    "no task ",
    "a task cannot wait for itself",
    "can only have all_success",
)


def refused(value):
    try:
        JobDefinition.loads(json.dumps(value))
    except DefinitionError as error:
        return [
            problem for problem in error.problems if not any(w in problem.message for w in ONLY_THE_LOADER)
        ]
    return []


@given(JOB)
def test_schema_and_loader_agree_on_the_structure(value):
    problems = refused(value)
    assert VALIDATOR.is_valid(value) == (not problems), problems


@pytest.mark.parametrize("key", TASK_KEYS)
@pytest.mark.parametrize("item", [None, True, 1, 0, 1.5, "x", "", [], {}], ids=repr)
def test_they_agree_on_each_key_of_a_task(key, item):
    value = {"name": "x", "tasks": {"t": {"task": "a", key: item}}}
    assert VALIDATOR.is_valid(value) == (not refused(value))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_published_schema_is_the_current_one():
    """`python -c "..."` in docs/ wrote it: json.dumps(JobDefinition.schema(), indent=2) and a newline."""
    assert FILE.read_text(encoding="utf-8") == json.dumps(SCHEMA, indent=2) + "\n"

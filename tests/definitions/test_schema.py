"""The schema for editors says what the loader does."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition
from scattersphere.definitions import validate
from scattersphere.errors import DefinitionError

FILE = Path(__file__).parents[2] / "docs" / "job-definition.schema.json"
SCHEMA = JobDefinition.schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TASK_SCHEMA = SCHEMA["properties"]["tasks"]["additionalProperties"]["properties"]
JOB_KEYS = sorted(SCHEMA["properties"])
TASK_KEYS = sorted(TASK_SCHEMA)
RETRY_KEYS = sorted(TASK_SCHEMA["retry"]["properties"])
PARAMETER_KEYS = sorted(SCHEMA["properties"]["params"]["additionalProperties"]["then"]["properties"])
# Values of every form that some key takes, and some that none does. 1.0 is left out: JSON Schema calls it an integer.
SCALARS = st.sampled_from(
    [
        None, True, False, 0, 1, 2.5, -1, "", "a b", "x", "x\n", "queue", "all_success", "all_done", "string",
        "integer", "boolean", "null",
    ]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS | st.sampled_from([[], ["x", "x"], ["up"], [1], {}, {"//": 1}]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "//", "$odd"]), inner, max_size=2)
    ),
    max_leaves=3,
)
POINTERS = st.sampled_from(["", "/", "/a/~0~1", "/~", "a", "\n", "/a\n", 1])
REFERENCES = st.one_of(
    st.builds(lambda name: {"$param": name}, st.sampled_from(["p", "q", "", 1, None])),
    st.builds(
        lambda name, more: {"$result": name, **more},
        st.sampled_from(["up", "t", 1]),
        st.fixed_dictionaries({}, optional={"pointer": POINTERS, "default": VALUES, "odd": VALUES}),
    ),
    st.builds(lambda value: {"$literal": value}, VALUES),
    st.sampled_from([{"$env": 1}, {"$param": "p", "$result": "up"}, {"$literal": 1, "a": 1}]),
)
ANYTHING = (
    VALUES
    | REFERENCES
    | st.lists(REFERENCES, max_size=2)
    | st.builds(lambda value: {"in": value}, REFERENCES)
)
ARGUMENTS = st.dictionaries(st.sampled_from(["k", "l", "//", "$param", "$odd", ""]), ANYTHING, max_size=2)
RETRY = st.dictionaries(st.sampled_from([*RETRY_KEYS, "odd"]), VALUES, max_size=3)
TASK = st.builds(
    lambda fields, more: {"task": "a.B", **fields, **more},
    st.dictionaries(st.sampled_from([*TASK_KEYS, "odd"]), VALUES, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "retry": RETRY,
            "args": ARGUMENTS,
            "map": ARGUMENTS,
            "run_if": ANYTHING,
            "depends_on": st.just(["up"]),
        },
    ),
)
PARAMETER = st.dictionaries(st.sampled_from([*PARAMETER_KEYS, "odd"]), VALUES, max_size=3)
PARAMS = st.dictionaries(st.sampled_from(["p", "q", "//", ""]), PARAMETER | VALUES, max_size=2)
TASKS = st.dictionaries(st.sampled_from(["t", "a b", "", "t\n", "//"]), TASK | VALUES, max_size=1)
JOB = st.builds(
    lambda fields, tasks, params: {"name": "x", **fields, **tasks, **params},
    st.dictionaries(st.sampled_from([*JOB_KEYS, "odd"]), VALUES, max_size=1),
    st.just({}) | TASKS.map(lambda value: {"tasks": {"up": {"task": "a.Up"}, **value}}),
    st.just({}) | PARAMS.map(lambda value: {"params": value}),
)
ONLY_THE_LOADER = (
    "no task ",
    "no parameter ",
    "a task cannot wait for itself",
    "can only have all_success",
    "is a finally-task",
    'needs a "default": ',
    "is in args too",
    "stands here already, at",
    "; the parameter ",  # a map over a parameter that is no list, a condition that is no bool
    "is never asked",
    "wait for each other",
)
"""Names that must exist, and what follows from what they name."""


def refused(value):
    # A plain parameter gives a map or a condition its value: only the loader follows the reference.
    try:
        JobDefinition.loads(json.dumps(value))
    except DefinitionError as error:
        return [p for p in error.problems if not any(words in p.message for words in ONLY_THE_LOADER)]
    return []


def refers_to_plain_parameter(value):
    """Whether a map or a condition is a parameter whose value the schema cannot know."""
    params = value.get("params")
    plain = (
        [k for k, item in params.items() if not isinstance(item, dict)] if isinstance(params, dict) else []
    )
    tasks = value.get("tasks")
    for task in tasks.values() if isinstance(tasks, dict) else ():
        if isinstance(task, dict):
            places = [
                task.get("run_if"),
                *(task["map"].values() if isinstance(task.get("map"), dict) else ()),
            ]
            if any(isinstance(place, dict) and place.get("$param") in plain for place in places if place):
                return True
    return False


@pytest.fixture(scope="module", autouse=True)
def schedules_by_their_form_alone():
    """What an expression, a zone or a time means, only the loader knows; a name is one for both."""
    found = validate.schedule_faults
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            validate, "schedule_faults", lambda job: [one for one in found(job) if "is no name" in one[1]]
        )
        patch.setattr(validate, "_scheduled_params", lambda job: [])
        yield


@given(JOB)
def test_the_schema_accepts_exactly_what_the_loader_accepts(value):
    problems = refused(copy.deepcopy(value))
    valid = VALIDATOR.is_valid(value)
    if valid and problems and refers_to_plain_parameter(value):
        return
    assert valid == (not problems), problems


@pytest.mark.parametrize("key", TASK_KEYS)
@pytest.mark.parametrize(
    "item", [None, True, 1, 0, 1.5, "x", "", [], {}, {"$param": 1}, [[{"$a": 1}]]], ids=repr
)
def test_they_agree_on_each_key_of_a_task(key, item):
    value = {"name": "x", "tasks": {"t": {"task": "a", key: item}}}
    assert VALIDATOR.is_valid(value) == (not refused(value))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_explained():
    for part in (SCHEMA, {"properties": TASK_SCHEMA}, TASK_SCHEMA["retry"], {"properties": {}}):
        assert [key for key, item in part["properties"].items() if "description" not in item] == []


def test_the_published_schema_is_the_current_one():
    """`scattersphere schema docs/job-definition.schema.json` wrote it."""
    assert FILE.read_text(encoding="utf-8") == json.dumps(SCHEMA, indent=2) + "\n"

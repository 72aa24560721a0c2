from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import Parameter, RetryPolicy, TaskDefinition
from scattersphere.model.states import Overlap, TriggerRule

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,6}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
KEYS = TEXT.filter(lambda key: not key.startswith(("$", "//")))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
COMMENTS = st.none() | VALUES
SECONDS = st.integers(1, 10**6) | st.floats(0.001, 10**6)
COUNTS = st.none() | st.integers(1, 10**6)
PARAMETERS = st.one_of(
    VALUES.filter(lambda value: not isinstance(value, dict)),
    st.builds(
        Parameter,
        type=st.just("string"),
        default=TEXT,
        secret=st.booleans(),
        description=TEXT,
        comment=COMMENTS,
    ),
    st.builds(Parameter, required=st.booleans(), default=VALUES),
)
RETRIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 99),
    delay=SECONDS,
    backoff=st.integers(1, 9),
    max_delay=SECONDS,
    jitter=st.booleans(),
    retry_on=st.lists(TEXT, max_size=2).map(tuple),
    comment=COMMENTS,
)


@st.composite
def references(draw, upstream, params):
    """Return a value for an argument: plain, or with references at some depth."""
    choices = [VALUES, VALUES.map(lambda value: {"$literal": value})]
    if params:
        choices.append(st.sampled_from(params).map(lambda name: {"$param": name}))
    if upstream:
        choices.append(
            st.builds(
                lambda name, default: {"$result": name, "pointer": "/a/0", "default": default},
                st.sampled_from(upstream),
                VALUES,
            )
        )
    value = draw(st.one_of(choices))
    return draw(st.sampled_from([value, [value], {"in": [value, 1]}]))


@st.composite
def task_definitions(draw, upstream, params):
    arguments = draw(st.dictionaries(KEYS, references(upstream, params), max_size=2))
    lists = st.dictionaries(
        KEYS.filter(lambda key: key not in arguments), st.lists(VALUES, max_size=2), min_size=1
    )
    after = draw(st.lists(st.sampled_from(upstream), unique=True, max_size=3)) if upstream else []
    return TaskDefinition(
        task=draw(st.text("abc.:", min_size=1)),
        bundle=draw(st.none() | NAMES),
        description=draw(TEXT),
        args=arguments,
        map=draw(st.none() | lists),
        depends_on=after,
        run_if=draw(st.booleans()),
        trigger_rule=draw(st.sampled_from(TriggerRule)) if after else None,
        finally_=draw(st.booleans()) and not upstream,
        allow_failure=draw(st.booleans()),
        keep_results=draw(st.booleans()),
        retry=draw(st.just(RetryPolicy()) | RETRIES),
        timeout=draw(st.none() | SECONDS),
        max_parallel=draw(COUNTS),
        pool=draw(st.none() | TEXT),
        priority=draw(st.integers(-9, 9)),
        backend=draw(st.none() | TEXT),
        comment=draw(COMMENTS),
        comments=draw(st.dictionaries(st.just("args"), VALUES)),
    )


@st.composite
def definitions(draw):
    params = draw(st.dictionaries(KEYS, PARAMETERS, max_size=3))
    tasks = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        upstream = [other for other, task in tasks.items() if not task.finally_]
        tasks[name] = draw(task_definitions(upstream, list(params)))
    return JobDefinition(
        name=draw(NAMES),
        description=draw(TEXT),
        params=params,
        bundles=draw(st.dictionaries(KEYS, TEXT, max_size=2)),
        max_parallel=draw(COUNTS),
        max_runs=draw(COUNTS),
        overlap=draw(st.sampled_from(Overlap)),
        fail_fast=draw(st.booleans()),
        timeout=draw(st.none() | SECONDS),
        tasks=tasks,
        comment=draw(COMMENTS),
        comments=draw(st.dictionaries(st.sampled_from(["params", "bundles", "tasks"]), VALUES)),
    )


@given(definitions())
def test_what_is_dumped_loads_as_the_same_definition_in_the_same_order(definition):
    text = definition.dumps()
    again = JobDefinition.loads(text)
    assert again == definition
    assert list(again.tasks) == list(definition.tasks)
    assert again.dumps() == text
    assert text.endswith("}\n")


def test_comments_survive_in_every_object_of_the_file_and_are_nobodys_name():
    retry = {"//": "why", "max_attempts": 2}
    task = {"task": "a.B", "//": 6, "args": {"//": {"$no": 1}}, "map": {"//": 7, "k": []}, "retry": retry}
    value = {
        "name": "x",
        "//": {"$result": "nobody"},
        "params": {"//": {"odd": 1}, "p": {"//": "long", "type": "string"}},
        "bundles": {"//": 3},
        "tasks": {"//": ["any"], "t": task},
    }
    definition = JobDefinition.loads(json.dumps(value))
    assert set(definition.params) == {"p"}
    assert definition.bundles == {}
    assert set(definition.tasks) == {"t"}
    assert definition.tasks["t"].args == {}
    assert definition.tasks["t"].map == {"k": []}
    written = json.loads(definition.dumps())
    assert {key: item for key, item in written.items() if key not in {"$schema", "format"}} == value


def test_everything_wrong_is_reported_at_once_with_its_line_and_the_fix():
    text = """{
  "name": "nightly",
  "tasks": {
    "load":  {"task": "etl.load.LoadDay"},


    "clean": {"task": "etl.claen", "afetr": ["load"]},
    "mail":  {"task": "notify.Mail", "depends_on": ["claen"]}
  }
}"""
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(text)
    assert [" ".join(str(problem).split()) for problem in caught.value.problems] == [
        '7:36 tasks.clean.afetr unknown key; did you mean "depends_on"?',
        '8:53 tasks.mail.depends_on[0] no task "claen" in this job; did you mean "clean"?',
    ]

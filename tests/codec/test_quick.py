"""The quick reading of usual tasks agrees with the careful one."""

from __future__ import annotations

import contextlib
import copy
import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition
from scattersphere.codec import crossrefs, quick
from scattersphere.codec import structure as structure_module
from scattersphere.codec.alike import with_bundle
from scattersphere.codec.collecting import collection_paused
from scattersphere.codec.quick import Quick, read_usual
from scattersphere.codec.structure import structure
from scattersphere.errors import DefinitionError
from scattersphere.model.definition import TaskDefinition

ODD = st.sampled_from(
    [None, True, 0, 1, -1, 2.5, "", "x", [], ["up"], ["up", "up"], [1], {}, {"a": 1}, {"//": 1}]
)
REFERENCES = st.sampled_from(
    [
        {"$param": "p"}, {"$param": "q"}, {"$param": 1}, {"$result": "up"}, {"$result": "no"}, {"$result": "t"},
        {"$result": "late"}, {"$result": "last"}, {"$literal": {"$param": "q"}}, {"$odd": 1}, [{"$result": "up"}],
        {"in": {"$param": "p"}}, {"$result": "up", "default": {"$result": "up2"}},
    ]
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {"task": st.sampled_from(["a.B", "", 1])},
    optional={
        "args": st.dictionaries(st.sampled_from(["k", "l", "//", "$x"]), ODD | REFERENCES, max_size=2) | ODD,
        "depends_on": st.lists(st.sampled_from(["up", "up2", "no", "t", "late", "last"]), max_size=3) | ODD,
        "retry": st.dictionaries(
            st.sampled_from(["max_attempts", "delay", "backoff", "max_delay", "jitter", "retry_on", "odd"]),
            ODD,
            max_size=2,
        ),
        **dict.fromkeys(
            ["bundle", "description", "pool", "priority", "backend", "allow_failure", "timeout"], ODD
        ),
        "finally": st.booleans(),
        "odd": ODD,
    },
)
UP = {"up": {"task": "a.Up"}, "up2": {"task": "a.Up"}, "last": {"task": "a.Last", "finally": True}}
TASKS = st.builds(
    lambda t, late, name: {**UP, name: t, "late": late},
    TASK,
    TASK | st.just({"task": "a"}),
    st.sampled_from(["t", "a b"]),
)


def all_closer(items, params):
    """Stand in for the quick reading: nothing is usual."""
    names = list(items)
    number = {name: index for index, name in enumerate(names)}
    return Quick(
        tasks=dict.fromkeys(names),
        after=dict.fromkeys(names, ()),
        indices=[()] * len(names),
        number=number,
        closer=names,
        unread=names,
    )


MANY = st.lists(TASK, min_size=1, max_size=3).flatmap(
    lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=50).map(
        lambda tasks: {**UP, **{f"t{number}": copy.deepcopy(task) for number, task in enumerate(tasks)}}
    )
)
"""Tasks that are alike, and some among them that are not."""


@given(TASKS | MANY)
def test_what_is_read_quickly_is_what_is_read_carefully(tasks):
    value = {"name": "x", "params": {"p": 1}, "tasks": tasks}
    fast, fast_faults = structure(copy.deepcopy(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure_module, "read_usual", all_closer)
        slow, slow_faults = structure(copy.deepcopy(value))
    assert sorted(map(str, fast_faults)) == sorted(map(str, slow_faults))
    assert fast == slow
    if not fast_faults:
        plain = JobDefinition(name="x", tasks=fast.tasks)
        assert fast.upstreams == slow.upstreams == dict(plain.upstreams)
        assert fast.upstream_indices == slow.upstream_indices == plain.upstream_indices
        assert fast.dumps() == slow.dumps()


def test_usual_tasks_never_see_the_careful_reader(monkeypatch):
    text = json.dumps(
        {
            "name": "x",
            "params": {"day": ""},
            "tasks": {
                "a": {"task": "etl.A", "args": {"day": {"$param": "day"}, "n": [1, {"k": 2}]}},
                "b": {
                    "task": "etl.B",
                    "args": {"x": {"$result": "a"}},
                    "depends_on": ["a"],
                    "retry": {"delay": 1},
                },
            },
        }
    )

    def careful(*_):
        raise AssertionError("asked")

    monkeypatch.setattr(structure_module, "structure_task", careful)
    monkeypatch.setattr(crossrefs._Checks, "task", careful)
    job = JobDefinition.loads(text)
    assert job.upstreams == {"a": (), "b": ("a",)}


def test_a_copy_that_names_its_bundle_is_what_evolve_gives():
    task = read_usual({"t": {"task": "A", "retry": {"delay": 1}, "args": {"k": 1}}}, {}).tasks["t"]
    assert with_bundle(task, "m.A", "m") == task.evolve(task="m.A", bundle="m")
    assert task.bundle is None
    assert with_bundle(TaskDefinition(task="A"), "m.A", "m") == TaskDefinition(task="m.A", bundle="m")
    assert quick.NAME.pattern


@pytest.mark.parametrize("text", ["[" * 200_000, '{"name": "x", "tasks": {}}' + " " * 200_000])
def test_the_collector_is_on_again_after_a_large_reading_right_or_wrong(text):
    assert gc.isenabled()
    with contextlib.suppress(DefinitionError):
        JobDefinition.loads(text)
    assert gc.isenabled()


def test_a_collector_that_the_host_has_turned_off_stays_off():
    gc.disable()
    try:
        with collection_paused(tasks=10**6):
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with collection_paused(tasks=10**6):
        assert not gc.isenabled()
    assert gc.isenabled()

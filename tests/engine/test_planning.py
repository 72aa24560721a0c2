"""What the plan of a definition takes from its fields, and what it refuses."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import attrs
import pytest

from scattersphere import (
    JobDefinition,
    RetryPolicy,
    RunnableTask,
    Server,
    TaskContext,
    TaskDefinition,
    UnresolvedError,
)
from scattersphere.abc.backend import LOOP_TRAITS, BackendTraits
from scattersphere.engine import planning
from scattersphere.engine.planning import compile_plan
from scattersphere.model.fields import rows

BACKENDS = {"loop": LOOP_TRAITS, "thread": BackendTraits(), "process": BackendTraits(runs_async=True)}


class Colour(StrEnum):
    """Values that are made of text."""

    RED = "red"


class Load(RunnableTask):
    """Needs a day."""

    day: str
    number: int = 0
    colour: Colour = Colour.RED
    share: float = 1.0
    names: list[str] = attrs.field(factory=list)

    async def run(self, context: TaskContext) -> None:
        """Do nothing."""


class Watched(RunnableTask):
    """Has a hook, so that it is not plain; takes nothing."""

    async def run(self, context: TaskContext) -> None:
        """Do nothing."""

    async def on_success(self, context: TaskContext, result: Any) -> None:
        """Do nothing."""


class Count(RunnableTask):
    """A plain function."""

    number: int = 0

    def run(self, context: TaskContext) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def find():
    server = Server()  # never entered: nothing runs
    server.register_tasks("app", [Load, Watched, Count, Make])
    return server.registry.find


# What each field of a task that shapes the plan may say, other than its default.
OTHERS: dict[str, Any] = {
    "map": {"number": [1, 2]},
    "run_if": False,
    "trigger_rule": "all_done",
    "finally": True,
    "allow_failure": True,
    "keep_results": False,
    "max_parallel": 3,
    "pool": "db",
    "needs": {"db": 2},
    "priority": 7,
    "backend": "process",
    "bundle": "app",
    "description": "d",
    "args": {"number": 3},
    "depends_on": ["up"],
    "retry": {"delay": 3},
    "timeout": 3,
    "on_restart": "fail",
    "//": "c",
}


def compiled(find, **fields):
    tasks = {"up": {"task": "Count"}, "t": {"task": "Count", "depends_on": ["up"], **fields}}
    definition = JobDefinition.loads(json.dumps({"name": "x", "tasks": tasks}))
    planner = planning._Planner(find, BACKENDS)
    for name, task in definition.tasks.items():
        planner.add(name, task)
    return planner.specs[1]


@pytest.mark.parametrize("key", [key for key in rows(TaskDefinition) if key != "task"])
def test_each_field_that_shapes_the_plan_does_and_no_other_does(key, find):
    """One that says so in its row and is forgotten in the plan would be ignored in silence."""
    shaped = compiled(find, **{key: OTHERS[key]}) != compiled(find)
    assert shaped == rows(TaskDefinition)[key].shapes_plan


def test_each_field_of_a_policy_that_shapes_the_plan_does(find):
    others = {
        "max_attempts": 3,
        "delay": 3,
        "backoff": 3,
        "max_delay": 3,
        "jitter": False,
        "retry_on": ["X"],
        "//": "c",
    }
    for key, row in rows(RetryPolicy).items():
        assert (compiled(find, retry={key: others[key]}) != compiled(find)) == row.shapes_plan


def test_what_is_wrong_is_told_in_the_order_of_the_tasks(find):
    tasks = {f"t{number}": {"task": ["Load", "Count", "Lost"][number % 3]} for number in range(30)}
    definition = JobDefinition.loads(json.dumps({"name": "x", "tasks": tasks}))
    with pytest.raises(UnresolvedError) as caught:
        compile_plan(definition, find, BACKENDS)
    told = [int(problem.path.split(".")[1][1:]) for problem in caught.value.problems]
    assert told == [number for number in range(30) if number % 3 != 1]


class Make(RunnableTask):
    """Is a body for a thread or a process."""

    value: Any = None

    def run(self, context: TaskContext) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("reader", "stays"),
    [
        ({"args": {"value": {"$result": "a"}}}, True),
        ({"args": {"value": [{"$result": "a"}, 7]}}, True),
        ({"depends_on": ["a"]}, True),
        ({"args": {"value": {"$result": "a", "pointer": "/0"}}}, False),
        ({"map": {"value": {"$result": "a"}}}, False),
        ({"run_if": {"$result": "a"}}, False),
        ({"args": {"value": {"$result": "a"}}, "backend": "thread"}, False),
        ({"depends_on": ["a"], "backend": "thread"}, False),
        ({}, True),
    ],
)
def test_a_result_may_stay_where_it_is_if_all_readers_are_there_and_take_it_whole(find, reader, stays):
    tasks = {
        "a": {"task": "Make", "backend": "process"},
        "b": {"task": "Make", "backend": "process", **reader},
    }
    definition = JobDefinition.loads(json.dumps({"name": "x", "tasks": tasks}))
    plan = compile_plan(definition, find, BACKENDS)
    assert plan.result_may_stay("a") is stays
    assert plan.result_may_stay("b")


def test_the_results_of_a_map_may_stay_though_it_is_gone_over(find):
    tasks = {
        "a": {"task": "Make", "backend": "process", "map": {"value": {"$literal": [1, 2]}}},
        "b": {"task": "Make", "backend": "process", "map": {"value": {"$result": "a"}}},
        "c": {"task": "Make", "args": {"value": {"$result": "b"}}},
    }
    plan = compile_plan(JobDefinition.loads(json.dumps({"name": "x", "tasks": tasks})), find, BACKENDS)
    assert [plan.result_may_stay(name) for name in "abc"] == [True, False, True]

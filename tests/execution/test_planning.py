"""Tasks that are alike are planned together: that makes the same plan, and finds the same faults."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition, RunnableTask, Server, TaskContext, UnresolvedError
from scattersphere.codec.structure import structure
from scattersphere.execution import planning
from scattersphere.execution.planning import compile_plan

BACKENDS = frozenset({"loop", "thread"})


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
    server.register_tasks("app", [Load, Watched, Count])
    return server.registry.find


VALUES = st.sampled_from(
    ["x", 1, True, 2.5, None, [], ["x"], {}, {"$param": "p"}, {"$param": "q"}, {"$literal": {"$param": "p"}},
     {"$result": "up"}, "red", {"in": {"$param": "p"}}]
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {"task": st.sampled_from(["Load", "Load", "Watched", "Count", "Lost"])},
    optional={
        "args": st.dictionaries(
            st.sampled_from(["day", "number", "colour", "share", "names", "odd"]), VALUES, max_size=3
        ),
        "bundle": st.sampled_from(["app", "none"]),
        "retry": st.sampled_from([{"max_attempts": 1}, {"max_attempts": 3}]),
        "backend": st.sampled_from(["loop", "thread", "odd"]),
        "priority": st.integers(0, 1),
        "depends_on": st.just(["up"]),
        "map": st.just({"number": [1, 2]}),
        "run_if": st.just(False),
    },
)
LIKE = st.lists(TASK, min_size=1, max_size=2).flatmap(
    lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=30)
)
VARIED = LIKE.flatmap(
    lambda tasks: st.lists(VALUES, min_size=len(tasks), max_size=len(tasks)).map(
        lambda values: [
            {**task, "args": {**task["args"], "number": value}} if "number" in task.get("args", {}) else task
            for task, value in zip(tasks, values, strict=True)
        ]
    )
)


def outcome(definition, find, few):
    """Return the plan as values, or what is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_FEW", few)
        try:
            plan = compile_plan(definition, find, BACKENDS)
        except UnresolvedError as exc:
            return [str(problem) for problem in exc.problems]
    tasks = [
        (
            *(task.name, task.definition, task.cls, task.made_by.code, task.made_by.digest, task.fixed),
            [(one.name, one.parameter.name, one.template.constant) for one in task.varying],
            *([key for key, _ in task.mapped], task.run_if is None, task.backend, task.plain),
        )
        for task in plan.tasks
    ]
    names = ("tasks", "upstreams", "successors", "plain", "lane_of", "easy", "roots", "degrees")
    return tasks, plan.index, plan.size, [task.name for task in plan.fed], [
        getattr(plan.shape, name) for name in names
    ]  # fmt: skip


@given(tasks=LIKE | VARIED)
def test_tasks_that_are_planned_together_are_planned_as_each_by_itself(tasks, find):
    named = {"up": {"task": "Watched"}, **{f"t{number}": dict(task) for number, task in enumerate(tasks)}}
    definition, faults = structure({"name": "x", "params": {"p": "1", "q": 2}, "tasks": named})
    if not faults:
        assert outcome(definition, find, 1) == outcome(definition, find, 10**9)


def test_what_is_wrong_is_told_in_the_order_of_the_tasks(find):
    tasks = {f"t{number}": {"task": ["Load", "Count", "Lost"][number % 3]} for number in range(30)}
    definition = JobDefinition.loads(json.dumps({"name": "x", "tasks": tasks}))
    with pytest.raises(UnresolvedError) as caught:
        compile_plan(definition, find, BACKENDS)
    told = [int(problem.path.split(".")[1][1:]) for problem in caught.value.problems]
    assert told == [number for number in range(30) if number % 3 != 1]


def test_a_large_job_shares_what_its_tasks_have_in_common(find):
    tasks = {
        f"t{number}": {"task": "Load", "args": {"day": {"$param": "p"}, "number": number}}
        for number in range(100)
    }
    definition = JobDefinition.loads(json.dumps({"name": "x", "params": {"p": "1"}, "tasks": tasks}))
    plan = compile_plan(definition, find, BACKENDS)
    assert len({id(task.varying) for task in plan.tasks}) == 1
    assert all(task.fixed is task.definition.args for task in plan.tasks)
    assert len(set(map(id, plan.shape.tasks))) == 1

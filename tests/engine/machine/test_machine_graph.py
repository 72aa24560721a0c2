"""What a shape refuses, and that nothing pure touches the world."""

import ast
from pathlib import Path

import pytest

import scattersphere.engine.machine as package
from scattersphere.engine.machine import CompiledGraph, TaskSpec
from scattersphere.model.states import TriggerRule


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([TaskSpec(upstreams=(1,))], "task 0 depends on task 1, but there are 1 tasks"),
        ([TaskSpec(), TaskSpec(upstreams=(0, 0))], "task 1 names an upstream task twice"),
        ([TaskSpec(rule=TriggerRule.ALL_DONE)], "its rule can only be all_success"),
        ([TaskSpec(finally_=True), TaskSpec(upstreams=(0,))], "task 1 depends on a finally-task"),
        ([TaskSpec(upstreams=(1,)), TaskSpec(upstreams=(0,))], "in a cycle"),
        ([TaskSpec(max_attempts=0)], "at least 1"),
        ([TaskSpec(mapped=True, max_parallel=0)], "at least 1"),
    ],
)
def test_a_shape_that_no_run_could_finish_is_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        CompiledGraph(tasks)


def test_a_run_needs_at_least_one_place():
    with pytest.raises(ValueError, match="max_parallel is 0"):
        CompiledGraph([TaskSpec()], max_parallel=0)


def test_tasks_need_not_come_in_topological_order():
    graph = CompiledGraph([TaskSpec(upstreams=(1,)), TaskSpec()])
    assert graph.roots == [1]


def test_plain_tasks_with_plain_successors_take_the_hot_path():
    graph = CompiledGraph([TaskSpec(), TaskSpec(upstreams=(0,)), TaskSpec(upstreams=(1,), conditional=True)])
    assert graph.fast_path == [True, False, True]


def test_the_machine_is_pure():
    forbidden = {"anyio", "asyncio", "socket", "ssl", "time", "os", "logging", "threading", "datetime"}
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not forbidden & {name.split(".")[0] for name in names}, file.name

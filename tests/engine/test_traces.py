"""Two recorded workflows replayed in virtual time: order kept, each task once, no time lost.

The traces are reduced from wfcommons/WfInstances (tests/data/README.md).
"""

import json
from collections import Counter
from pathlib import Path

import anyio
import pytest

from scattersphere import EventKind, JobDefinition, RunnableTask, Server, TaskDefinition

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

DATA = Path(__file__).parents[1] / "data"


class Work(RunnableTask):
    """Take as long as the recorded task did."""

    seconds: float

    async def run(self, context):
        await anyio.sleep(self.seconds)


def job_of(trace):
    tasks = {
        task["id"]: TaskDefinition(
            task="Work", args={"seconds": task["runtime"]}, depends_on=tuple(task["parents"])
        )
        for task in trace["tasks"]
    }
    return JobDefinition(name="trace", tasks=tasks)


def critical_path(trace):
    done: dict[str, float] = {}
    left = list(trace["tasks"])
    while left:
        later = []
        for task in left:
            if all(parent in done for parent in task["parents"]):
                start = max((done[parent] for parent in task["parents"]), default=0.0)
                done[task["id"]] = start + task["runtime"]
            else:
                later.append(task)
        left = later
    return max(done.values())


@pytest.mark.parametrize("name", ["montage", "1000genome"])
def test_a_recorded_workflow_keeps_its_order_and_takes_its_critical_path(name):
    trace = json.loads((DATA / f"{name}-trace.json").read_text())
    parents = {task["id"]: task["parents"] for task in trace["tasks"]}

    async def main():
        async with Server() as server:
            server.register_tasks("app", [Work])
            server.define(job_of(trace))
            begin = anyio.current_time()
            run = await (await server.start("trace")).wait()
            took = anyio.current_time() - begin
            assert run.succeeded, run.explain()
            return took, [event async for event in run.events()]

    took, events = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert took <= 1.1 * critical_path(trace)
    started = Counter(event.task for event in events if event.kind is EventKind.TASK_STARTED)
    assert started == dict.fromkeys(parents, 1)
    ended: set[str] = set()
    for event in events:
        if event.kind is EventKind.TASK_STARTED:
            assert ended.issuperset(parents[event.task])
        elif event.kind is EventKind.TASK_ENDED:
            ended.add(event.task)

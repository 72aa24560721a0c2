"""`as_dict()` gives plain data of the shape that its TypedDict says, which `json` takes as it is."""

import datetime as dt
import json
from typing import get_type_hints

import pytest

from scattersphere import JobDefinition, RunnableTask, Server, SyncServer
from scattersphere.model import dicts

pytestmark = pytest.mark.anyio


class Make(RunnableTask):
    """Return what is no JSON by itself, and report and log on the way."""

    async def run(self, context):
        context.log.info("making")
        context.progress(0, 2)
        return {"day": dt.date(2026, 1, 2), "rows": (1, 2), "odd": object}


class Fail(RunnableTask):
    """Raise."""

    async def run(self, context):
        raise ValueError("no")


JOB = JobDefinition.build("j", params={"n": 3}).task("make", "Make").task("fail", "Fail").done()


def fits(data, shape):
    assert json.loads(json.dumps(data)) == data
    hints = get_type_hints(shape)
    assert set(data) <= set(hints)
    assert shape.__required_keys__ <= set(data)


async def test_everything_is_plain_data_of_its_shape():
    async with Server() as server:
        server.register_tasks("app", [Make, Fail])
        run = await (await server.start(JOB))
        fits(run.as_dict(), dicts.RunDict)
        for status in run.tasks.values():
            fits(status.as_dict(), dicts.TaskStatusDict)
        fits(run.statistics.as_dict(), dicts.RunStatisticsDict)
        fits(run.statistics.tasks["make"].as_dict(), dicts.TaskStatisticsDict)
        fits(server.registry.bundles["app"].as_dict(), dicts.BundleDict)
        for line in run.logs():
            fits(line.as_dict(), dicts.LogLineDict)
        events = [event.as_dict() async for event in run.events()]
        for event in events:
            fits(event, dicts.EventDict)
        assert [event["done"] for event in events if event["kind"] == "task-progress"] == [0]
        assert run.as_dict()["tasks"]["fail"]["failure"]["message"] == "no"
        results = run.results.as_dict()
        assert results["make"]["rows"] == [1, 2]
        assert json.dumps(results)


def test_a_blocking_run_gives_the_same_also_after_the_end():
    with SyncServer() as server:
        server.register_tasks("app", [Make, Fail])
        run = server.start(JOB).wait()
    assert json.loads(json.dumps(run.as_dict()))["params"] == {"n": 3}

"""`rerun` over the line protocol: what it answers, and who may see the new run."""

import json

import pytest
from wire import job

from scattersphere import RunnableTask

pytestmark = pytest.mark.anyio


class OnceBroken(RunnableTask):
    """Fail in the first run."""

    async def run(self, context):
        if context.run_id == 1:
            raise ValueError("boom")


async def test_the_new_run_its_parent_and_what_was_reused_are_told(front):
    front.server.register_tasks("late", [OnceBroken])
    definition = job("j")
    definition["tasks"]["broken"] = {"task": "OnceBroken", "depends_on": ["only"]}
    async with front.client() as client:
        await client.ok("define " + json.dumps(definition))
        assert await client.ok("start j") == {"run": 1}
        assert (await client.ok("wait 1"))["state"] == "failed"
        again = await client.ok("rerun 1")
        assert {"run": again["run"], "parent": again["parent"]} == {"run": 2, "parent": 1}
        assert list(again["reused"]) == ["only"]
        assert (again["reused"]["only"]["run"], again["reused"]["only"]["older"]) == (1, False)
        assert (await client.ok("wait 2"))["state"] == "succeeded"
        status = await client.ok("status 2")
        assert status["parent"] == 1
        assert {task["task"]: task.get("reused") for task in status["tasks"]} == {
            "only": "run 1",
            "broken": None,
        }
        assert (await client.ok("rerun 1 from_failed=false code=latest"))["reused"] == {}


async def test_a_live_run_is_a_conflict(front):
    async with front.client() as client:
        await client.ok("define " + json.dumps(job("j", "Forever")))
        await client.ok("start j")
        reply = await client.ask("rerun 1")
        assert reply["error"]["code"] == "conflict"
        assert "it can be run again when it has ended" in reply["error"]["message"]


async def test_who_saw_the_run_of_a_task_sees_its_rerun(front):
    class Say2(RunnableTask):
        """Say nothing."""

        async def run(self, context):
            return 1

    Say2.__qualname__ = "Say2"
    front.server.register_tasks("etl", [Say2])
    async with front.client("bounded") as client:
        assert await client.ok("start-task Say2") == {"run": 1}
        await client.ok("wait 1")
        assert (await client.ok("rerun 1"))["run"] == 2
        assert (await client.ok("status 2"))["run"] == 2

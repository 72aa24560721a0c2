"""What is handed out is a copy, or cannot be changed: what one body or reader changes in it nobody else sees."""

from typing import Any

import anyio
import pytest

from scattersphere import JobDefinition, Parameter, RunnableTask, Server, param, result

pytestmark = pytest.mark.anyio


class Spoils(RunnableTask):
    """Tell all that it was given, change all of it, and fail the first time."""

    anything: Any = None
    table: dict[str, Any] = {}  # noqa: RUF012 - each instance has its own
    rows: list[Any] = []  # noqa: RUF012 - as above
    element: Any = None

    async def run(self, context):
        given = [self.anything, self.table, self.rows, self.element, context.params["options"]]
        seen = repr(given)
        for value in [*given, context.params["options"]["list"]]:
            if isinstance(value, list):
                value.append("spoilt")
            elif isinstance(value, dict):
                value["spoilt"] = True
        assert "spoilt" in context.params["options"], "what it has changed itself it does see"
        if context.attempt == 1:
            raise OSError(seen)
        return seen


class SpoilsInThread(Spoils):
    def run(self, context):
        given = [self.anything, self.table, self.rows, self.element, context.params["options"]]
        seen = repr(given)
        for value in given:
            if isinstance(value, list):
                value.append("spoilt")
            elif isinstance(value, dict):
                value["spoilt"] = True
        if context.attempt == 1:
            raise OSError(seen)
        return seen


@pytest.mark.parametrize("task", ["Spoils", "SpoilsInThread"])
async def test_what_a_body_changes_in_what_it_was_given_reaches_no_retry_no_other_task_and_no_rerun(task):
    options = {"list": [1], "deep": {"er": []}}
    async with Server() as server:
        server.register_tasks("app", [Spoils, SpoilsInThread])
        job = JobDefinition.build("j", params={"options": Parameter(default=options)})
        args = {
            "anything": param("options"),
            "table": {"a": param("options"), "b": []},
            "rows": [param("options"), {"c": []}],
        }
        retry = {"max_attempts": 2, "delay": 0}
        job = job.task("first", task, args=args, retry=retry)
        elements = {"element": [{"e": 1}, [2]]}
        job = job.task("mapped", task, args=args, retry=retry, map=elements, depends_on=["first"])
        again = {**args, "rows": [result("first"), param("options"), {"$literal": {"d": []}}]}
        server.define(job.task("last", task, args=again, retry=retry, depends_on=["mapped"]).done())
        definition = server.definitions["j"].dumps()
        run = await (await server.start("j")).wait()
        assert run.succeeded, run.explain()
        assert run.results["first"] == repr(
            [options, {"a": options, "b": []}, [options, {"c": []}], None, options]
        )
        assert "spoilt" not in repr([*run.results.values(), run.params, run.tasks["first"].failure])
        run.params["options"]["list"].append("spoilt")
        rerun = await (await server.rerun(run.id, from_failed=False)).wait()
        assert "spoilt" not in repr([*rerun.results.values(), rerun.params])
        assert server.definitions["j"].dumps() == definition
        assert options == {"list": [1], "deep": {"er": []}}


CLEARED = []


class Makes(RunnableTask):
    async def run(self, context):
        CLEARED[:] = [1, 2, 3]
        return CLEARED


class Clears(RunnableTask):
    number: int

    async def run(self, context):
        CLEARED.clear()
        await anyio.lowlevel.checkpoint()
        return self.number


async def test_a_map_goes_over_the_list_as_it_was_though_somebody_clears_it():
    async with Server() as server:
        server.register_tasks("app", [Makes, Clears])
        job = JobDefinition.build("j").task("makes", "Makes")
        job = job.task("clears", "Clears", map={"number": result("makes")}, max_parallel=1)
        server.define(job.done())
        run = await (await server.start("j")).wait()
        assert run.succeeded, run.explain()
        assert run.results["clears"] == [1, 2, 3]


async def test_the_mappings_of_a_server_may_be_gone_through_while_they_change():
    async with Server(history=(1, 3600.0)) as server:
        server.register_tasks("app", [Makes])
        server.define(JobDefinition.build("j").task("t", "Makes").done())
        for _ in range(2):
            await server.start("j")
        seen = []
        for run_id, run in server.runs.items():
            await run.wait()
            await (await server.start("j")).wait()
            seen.append(run_id)
        assert seen == [1, 2]
        for name in server.definitions:
            server.define(JobDefinition.build(f"{name}2").task("t", "Makes").done())
        for name, bundle in server.registry.bundles.items():
            server.register_tasks(f"{name}2", [Clears])
            assert bundle.name == name
        for path in server.registry.tasks:
            await server.deregister("app2")
            assert path
            break
        assert [run.id for run in server.runs.values()] == list(server.runs)

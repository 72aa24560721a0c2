"""Pages of thousands of tasks: nothing that is drawn of them goes through all without giving the loop its turns."""

from __future__ import annotations

import contextvars
import sys
from collections import Counter

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere._turns import let_others_wait
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.gateway import Gateway
from scattersphere.definitions import dumps_definition
from scattersphere.engine.planning import compile_plan
from scattersphere.pictures import svg
from scattersphere.pictures.nodes import nodes_of
from scattersphere.web import content, runpage
from scattersphere.web.rendering import drawn

pytestmark = pytest.mark.anyio
TASKS = 600
"""Squares without edges, as thousands are: see `few`."""


class Nothing(RunnableTask):
    async def run(self, context):
        context.log.info("here")
        return 1


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(svg, "CHIPS", 200)
    monkeypatch.setattr(svg, "EDGES", 200)


def definition(*, chain):
    job = JobDefinition.build("large")
    for at in range(TASKS):
        job = job.task(f"t{at}", "Nothing", depends_on=[f"t{at - 1}"] if chain and at else [])
    return job.done()


def loops_in_one_go(work):
    """Return the lines that `work` comes to as often as there are tasks, or half so often, between two places where it gives way."""
    seen, found = Counter(), set()

    def count(frame, event, _):
        if event == "line":
            place = frame.f_code, frame.f_lineno
            seen[place] += 1
            if seen[place] > TASKS / 2:
                found.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return count

    def ours(frame, event, argument):
        return count(frame, event, argument) if "scattersphere" in frame.f_code.co_filename else None

    def traced():
        let_others_wait(seen.clear)
        before = sys.gettrace()
        sys.settrace(ours)
        try:
            work()
        finally:
            sys.settrace(before)

    contextvars.copy_context().run(traced)
    return found


@pytest.mark.parametrize("chain", [False, True])
def test_the_graph_of_a_large_job_is_drawn_without_a_walk_over_all_tasks_in_one_go(chain):
    job = definition(chain=chain)
    nodes = nodes_of(job.tasks)
    assert not loops_in_one_go(lambda: nodes_of(job.tasks))
    assert not loops_in_one_go(lambda: svg.graph(nodes, job.upstreams))


@pytest.mark.parametrize("chain", [False, True])
async def test_so_are_the_head_the_rest_and_the_live_parts_of_the_page_of_a_large_run(chain):
    async with Server() as server:
        server.register_tasks("app", [Nothing])
        server.define(definition(chain=chain))
        with anyio.fail_after(PATIENCE):
            run = await (await server.start("large")).wait()
        look = content.VisibleServer(Gateway(server=server), Principal(user="me", role=Role.ADMIN))
        query = runpage.Query.of({"task": "t7", "find": "here"})
        head = runpage.head_parts(look, run, query)
        assert not loops_in_one_go(lambda: runpage.head_parts(look, run, query))
        assert not loops_in_one_go(lambda: runpage.rest_parts(look, run, query, head))
        assert not loops_in_one_go(lambda: runpage.live_parts(look, run, query))


@pytest.mark.parametrize("chain", [False, True])
async def test_so_are_the_text_the_codes_and_the_plan_of_a_large_job(chain):
    async with Server() as server:
        server.register_tasks("app", [Nothing])
        job = server.define(definition(chain=chain))
        for cached in ("codes", "upstreams", "upstream_indices"):
            vars(job).pop(cached, None)
        assert not loops_in_one_go(lambda: job.codes)
        assert not loops_in_one_go(lambda: dumps_definition(job))
        assert not loops_in_one_go(lambda: compile_plan(job, server.registry.find, server._jobs._backends))


async def test_so_many_pages_are_drawn_at_once_as_the_host_has_threads():
    drawing, most = 0, 0

    def draw():
        nonlocal drawing, most
        drawing += 1
        most = max(most, drawing)
        anyio.from_thread.run_sync(lambda: None)
        drawing -= 1

    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    try:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(drawn, draw)
    finally:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 40
    assert most == 1

"""A distribution of somebody else's brings a backend, by public names only, and it keeps the contract."""

import ast
import contextlib
import importlib
import sys
from pathlib import Path

import anyio
import around_bodies
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunState, Server, TaskState
from scattersphere.abc import Backend, BackendTraits
from scattersphere.testing.backends import CHECKS
from scattersphere.testing.bodies import Echo, Obey, Registers

FOLDER = Path(__file__).parent / "outside_backend"
PUBLIC = {"scattersphere", "scattersphere.abc", "scattersphere.worker"}
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", autouse=True)
def outside():
    """Have it on the path, as an installed distribution is."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("outside_backend")
    finally:
        sys.path.remove(str(FOLDER))


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_it_imports_public_names_only():
    for file in FOLDER.glob("outside_backend/*.py"):
        assert {name for name in imports(file) if name.startswith("scattersphere")} <= PUBLIC
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in PUBLIC:
                names = importlib.import_module(node.module).__all__
                assert {alias.name for alias in node.names} <= set(names)


def test_it_is_a_backend_that_says_what_it_can(outside):
    backend = outside.NodeBackend()
    assert isinstance(backend, Backend)
    assert BackendTraits.of(backend) == BackendTraits(runs_async=True, kill_grace=5.0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_it_keeps_the_contract(outside, check):
    await check(outside.NodeBackend)


@contextlib.asynccontextmanager
async def serving(outside, *classes, **options):
    nodes = outside.NodeBackend()
    async with Server(backends={"nodes": nodes}, grace=PATIENCE, **options) as server:
        server.register_tasks("app", classes)
        yield server, nodes


def job(cls, **task):
    return JobDefinition.build("job").task("t", cls, backend="nodes", **task).done()


async def begun(run, attempt=1):
    async for event in run.events():
        if event.done is not None and event.attempt == attempt:
            return run
    raise AssertionError(run.explain())


@pytest.mark.parametrize("name", ["Request", "RequestAsync"])
async def test_what_stands_around_attempts_stands_around_them_on_nodes_too(outside, name):
    cls = getattr(around_bodies, name)
    around_bodies.REQUEST.set("r-17")
    async with serving(outside, cls, around=[around_bodies.noting, around_bodies.Carrier()]) as (server, _):
        run = await server.run(job(cls), timeout=PATIENCE)
    assert run.result[:2] == ["r-17", "inside t 1"]


async def test_a_node_that_is_lost_does_not_count_and_the_task_goes_on_elsewhere(outside):
    async with serving(outside, Obey) as (server, nodes):
        run = await begun(await server.start(job(Obey)))
        assert f"on node {nodes.nodes[0].process.pid}" in run.explain()
        nodes.nodes[0].process.kill()
        await begun(run, attempt=2)
        run.cancel()
        assert (await run.wait(PATIENCE)).state is RunState.CANCELLED
        assert any(line.message.startswith("lost: node") for line in run.logs())


async def test_a_kill_of_the_run_kills_the_node_and_is_no_loss(outside):
    async with serving(outside, Obey) as (server, _):
        run = await begun(await server.start(job(Obey)))
        run.kill()
        await run.wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.CANCELLED
        assert not any("lost" in line.message for line in run.logs())


async def test_a_pause_holds_what_the_body_has_registered(outside):
    async with serving(outside, Registers) as (server, _):
        run = await begun(await server.start(job(Registers)))
        run.pause()
        async for event in run.events():
            if event.kind == "run-paused":
                break
        run.resume()
        run.cancel()
        await run.wait(PATIENCE)
        assert [line.message for line in run.logs()] == ["hold", "resume", "on_cancel"]


async def test_its_nodes_end_with_the_server(outside):
    async with serving(outside, Echo) as (server, nodes):
        await server.run(job(Echo), timeout=PATIENCE)
        processes = [node.process for node in nodes.nodes]
    for process in processes:
        assert await anyio.to_thread.run_sync(process.wait, PATIENCE) is not None

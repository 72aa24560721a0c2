"""A Server's life in the hosts that there are: fixtures, web applications, notebooks; cancelled or closed at any moment."""

import asyncio
import contextlib
import json
import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere import ClosedError, JobDefinition, RunnableTask, RunState, Server

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Forever(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


class Say(RunnableTask):
    """Return a word."""

    async def run(self, context):
        return "said"


class SayInThread(RunnableTask):
    """Return a word, from a thread."""

    def run(self, context):
        return "said"


class Clean(RunnableTask):
    """Take half a second to clean up."""

    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)


CLASSES = [Forever, Say, SayInThread, Clean]


async def use(server):
    """Do what a host does; leave a run behind that does not end by itself."""
    server.register_tasks("app", CLASSES)
    for path in ("Say", "SayInThread"):
        run = await (await server.start_task(path)).wait(PATIENCE)
        assert run.results[path] == "said"
    return await server.start_task("Forever")


# ---- fixtures: what is entered in one task is left in another


@pytest.fixture
async def fixture_server():
    async with Server(grace=0.2) as server:
        yield server


@pytest.mark.anyio
async def test_a_server_lives_in_a_fixture_of_anyio(fixture_server):
    run = await use(fixture_server)
    run.cancel()  # the suite counts the tasks that a test leaves before its fixtures are torn down
    await run.wait(PATIENCE)


def test_a_server_lives_in_a_fixture_of_pytest_asyncio():
    """pytest-asyncio runs set-up, test and tear-down as three tasks of one loop."""

    async def fixture():
        async with Server(grace=0.2) as server:
            yield server

    with asyncio.Runner() as runner:
        generator = fixture()
        server = runner.run(anext(generator))
        run = runner.run(use(server))
        with pytest.raises(StopAsyncIteration):
            runner.run(anext(generator))
        assert run.state is RunState.CANCELLED


def test_a_server_lives_in_a_fixture_of_pytest_trio():
    """pytest-trio runs fixtures and test as tasks beside each other."""

    async def main():
        ready, done = trio.Event(), trio.Event()
        served = []

        async def fixture():
            async with Server(grace=0.2) as server:
                served.append(server)
                ready.set()
                await done.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fixture)
            await ready.wait()
            run = await use(served[0])
            done.set()
        assert run.state is RunState.CANCELLED

    trio.run(main)


# ---- hosts


@contextlib.asynccontextmanager
async def asgi(app):
    """Serve an application as uvicorn does: its lifespan is one task, each request another."""
    state, to_app, from_app = {}, asyncio.Queue(), asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    lifespan = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"

    async def get(path):
        sent = []
        request = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await asyncio.create_task(app(request | {"state": state.copy()}, receive, send))
        return json.loads(b"".join(message.get("body", b"") for message in sent))

    yield get
    await to_app.put({"type": "lifespan.shutdown"})
    assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
    await lifespan


def test_a_server_lives_in_the_lifespan_of_a_web_application():
    """FastAPI's lifespan is that of Starlette, which it builds on."""
    starlette = pytest.importorskip("starlette.applications")
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    servers = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with Server(grace=0.2) as server:
            server.register_tasks("app", CLASSES)
            servers.append(server)
            yield {"server": server}

    async def say(request):
        run = await (await request.state.server.start_task("Say")).wait(PATIENCE)
        return JSONResponse({"run": run.id, "said": run.results["Say"]})

    async def leave(request):
        run = await request.state.server.start_task("Forever")
        return JSONResponse({"run": run.id})

    routes = [Route("/say", say), Route("/leave", leave)]
    app = starlette.Starlette(lifespan=lifespan, routes=routes)

    async def main():
        async with asgi(app) as get:
            assert await get("/say") == {"run": 1, "said": "said"}
            left = (await get("/leave"))["run"]
            assert (await get("/say"))["run"] == 3
        assert servers[0].runs[left].state is RunState.CANCELLED

    asyncio.run(main())


def test_a_server_lives_in_a_notebook_whose_loop_runs_all_the_time():
    """Each cell is a coroutine that is given to a loop which runs in between, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def cell(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    server = Server(grace=0.2)
    cell(server.__aenter__())
    run = cell(use(server))
    cell(server.aclose())
    assert run.state is RunState.CANCELLED
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


# ---- the ends


def virtually(main):
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.5, 1.0])
def test_a_host_that_is_cancelled_at_any_moment_gives_its_runs_the_grace_and_leaves_nothing(moment):
    async def main():
        began = trio.current_time()
        with trio.move_on_after(moment) as scope:
            async with Server(grace=5) as server:
                server.register_tasks("app", CLASSES)
                run = await server.start_task("Clean")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        if moment:
            assert run.state is RunState.CANCELLED
            assert trio.current_time() - began == moment + 0.5

    virtually(main)


def test_leaving_is_bounded_by_the_grace_where_a_body_does_not_end():
    async def main():
        class Refuse(RunnableTask):
            async def run(self, context):
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(50)

        server = Server(grace=3)
        async with server:
            bundle = server.register_tasks("app", [Refuse])
            run = await server.start_task(next(iter(bundle.tasks)))
            await trio.sleep(1)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose)
                await run.wait()
                # trio cannot abandon a coroutine: the run has ended in time, closing waits and says for whom.
                assert trio.current_time() - began <= 3 + 0.05
                assert server.stuck
        assert not server.stuck

    virtually(main)


def test_finally_tasks_run_when_the_server_closes_within_the_grace():
    async def main():
        async with Server(grace=5) as server:
            server.register_tasks("app", CLASSES)
            job = JobDefinition.build("j").task("forever", "Forever").task("tidy", "Say", finally_=True)
            server.define(job.done())
            run = await server.start("j")
            await trio.testing.wait_all_tasks_blocked()
        assert run.results["tidy"] == "said"
        assert run.state is RunState.CANCELLED

    virtually(main)


@pytest.mark.anyio
async def test_closing_may_be_repeated_and_all_who_close_wait_until_it_is_done():
    server = Server(grace=5)
    states = []

    async def close():
        await server.aclose()
        states.append(run.state)

    async with server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Clean")
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(close)
        assert states == [RunState.CANCELLED] * 3
        with pytest.raises(ClosedError):
            await server.start_task("Say")
    await server.aclose()


@pytest.mark.anyio
async def test_a_server_that_was_never_entered_closes_without_a_word():
    await Server().aclose()


@pytest.mark.anyio
async def test_a_server_is_entered_once():
    server = Server()
    async with server:
        with pytest.raises(ClosedError, match="entered once"):
            await server.__aenter__()
    with pytest.raises(ClosedError):
        await server.__aenter__()


@pytest.mark.anyio
async def test_closing_while_the_server_starts_leaves_nothing_and_no_run_begins(tmp_path):
    for number in range(3):
        (tmp_path / f"b{number}.py").write_text("from scattersphere import RunnableTask\n")
    server = Server(bundle_roots=[tmp_path], grace=0.2)
    async with anyio.create_task_group() as group:
        group.start_soon(server.aclose)
        with contextlib.suppress(ClosedError):
            await server.__aenter__()
    await server.aclose()
    with pytest.raises(ClosedError):
        await server.start_task("Say")


@pytest.mark.anyio
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_host_that_is_cancelled_while_the_server_starts_leaves_nothing(tmp_path, turns):
    (tmp_path / "b.py").write_text("from scattersphere import RunnableTask\n")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel():
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

            group.start_soon(cancel)
            async with Server(bundle_roots=[tmp_path], grace=0.2):
                await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_drain_lets_runs_start_what_they_need_and_refuses_others():
    class Parent(RunnableTask):
        async def run(self, context):
            await anyio.wait_all_tasks_blocked()
            return (await (await context.start("child")).wait()).state

    async with Server(grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        bundle = server.register_tasks("parents", [Parent])
        server.define(JobDefinition.build("child").task("say", "Say").done())
        run = await server.start_task(next(iter(bundle.tasks)))
        await server.drain()
        assert list(run.results.values()) == [RunState.SUCCEEDED]
        with pytest.raises(ClosedError):
            await server.start("child")

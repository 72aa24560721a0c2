"""`Server(around=[factory])`: context managers of the host around each attempt, wherever it runs."""

import contextlib
import os
import threading

import anyio
import around_bodies
import pytest
from around_bodies import REQUEST, SEEN, Carrier, noting
from patience import PATIENCE

from scattersphere import JobDefinition, Server
from scattersphere.worker import around as worker_around

pytestmark = pytest.mark.anyio

CLASSES = [
    around_bodies.Whole,
    around_bodies.WholeAsync,
    around_bodies.Plain,
    around_bodies.Flaky,
    around_bodies.FlakyAsync,
    around_bodies.Parent,
    around_bodies.Await,
    around_bodies.Swallow,
    around_bodies.Refuse,
    around_bodies.Request,
    around_bodies.RequestAsync,
]


@pytest.fixture(autouse=True)
def fresh():
    SEEN.clear()
    worker_around._complained.clear()
    around_bodies.GATE.clear()
    around_bodies.LEFT.clear()
    yield
    around_bodies.GATE.set()


@contextlib.asynccontextmanager
async def serving(*factories, **options):
    async with Server(around=factories or [noting], **options) as server:
        server.register_tasks("app", CLASSES)
        yield server


def job(name, **task):
    return JobDefinition.build(name.lower()).task("t", name, **task).done()


async def started(server, definition):
    """Start it, and wait until its body says that it is there."""
    run = await server.start(definition)
    async for event in run.events():
        if event.done is not None:
            return run
    raise AssertionError(run.explain())


@pytest.mark.parametrize("name", ["Whole", "WholeAsync"])
async def test_instance_hooks_body_and_clean_up_are_inside(name):
    async with serving() as server:
        run = await server.run(job(name), timeout=PATIENCE)
    assert set(run.result) == {"inside t 1"}
    assert SEEN == [
        ("enter", "t", None, 1, "outside"),
        ("clean_up", "inside t 1"),
        ("leave", "t", 1, None),
    ]


async def test_a_body_without_hooks_on_the_loop_is_inside_too():
    async with serving() as server:
        assert (await server.run(job("Plain"), timeout=PATIENCE)).result == "inside t 1"


@pytest.mark.parametrize("name", ["Flaky", "FlakyAsync"])
async def test_each_attempt_has_its_own_and_it_sees_what_was_raised(name):
    async with serving() as server:
        run = await server.run(job(name, retry={"max_attempts": 2}), timeout=PATIENCE)
    assert run.result == "inside t 2"
    assert SEEN == [
        ("enter", "t", None, 1, "outside"),
        ("leave", "t", 1, "ValueError"),
        ("enter", "t", None, 2, "outside"),  # of the first one nothing is left in its context
        ("leave", "t", 2, None),
    ]


async def test_a_child_run_begins_inside_of_its_parent():
    async with serving() as server:
        server.define(JobDefinition.build("child").task("c", "Plain").done())
        run = await server.run(job("Parent"), timeout=PATIENCE)
    assert run.result == "inside c 1"
    assert ("enter", "c", None, 1, "inside t 1") in SEEN


async def test_a_true_return_suppresses_nothing():
    class Suppressing:
        def __init__(self, info):
            """Take it."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return True

    async with serving(Suppressing) as server:
        for name in ("Flaky", "FlakyAsync"):
            run = await (await server.start(job(name))).wait(PATIENCE)
            assert type(run.failures["t"]) is ValueError


@pytest.mark.parametrize("fails", ["calling", "entering", "leaving"])
async def test_an_error_is_logged_once_and_the_attempts_go_on(fails, caplog):
    def factory(info):
        if fails == "calling":
            raise OSError("no collector")
        return manager()

    @contextlib.contextmanager
    def manager():
        if fails == "entering":
            raise OSError("no collector")
        yield
        raise OSError("no collector")

    async with serving(factory, noting) as server:
        for name in ("Whole", "WholeAsync", "Plain"):
            assert (await server.run(job(name), timeout=PATIENCE)).succeeded
    assert [record.name for record in caplog.records] == ["scattersphere.around"]
    assert "no collector" in caplog.text
    assert [seen[0] for seen in SEEN].count("leave") == 3


async def test_a_cancelled_body_leaves_it_by_its_cancellation():
    async with serving() as server:
        run = await started(server, job("Await"))
        run.cancel()
        await run.wait(PATIENCE)
    assert [seen[0] for seen in SEEN] == ["enter", "leave"]
    assert SEEN[1][3] in {"CancelledError", "Cancelled"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio cannot close a task's coroutine
async def test_a_coroutine_that_is_closed_leaves_it_by_generator_exit():
    async with serving(grace=0.05) as server:
        run = await started(server, job("Swallow"))
        run.kill()
        await run.wait(PATIENCE)
    assert SEEN == [("enter", "t", None, 1, "outside"), ("leave", "t", 1, "GeneratorExit")]


async def test_a_thread_that_was_given_up_leaves_it_late():
    async with serving(grace=0) as server:
        run = await started(server, job("Refuse"))
        run.kill()
        await run.wait(PATIENCE)
        assert [seen[0] for seen in SEEN] == ["enter"]
        around_bodies.GATE.set()
        assert await anyio.to_thread.run_sync(around_bodies.LEFT.wait, PATIENCE)
    assert SEEN[1] == ("leave", "t", 1, None)


@pytest.mark.parametrize("name", ["Request", "RequestAsync"])
async def test_in_a_process_it_is_entered_there_with_what_was_carried(name):
    REQUEST.set("r-17")
    async with serving(noting, Carrier()) as server:
        run = await server.run(job(name, backend="process"), timeout=PATIENCE)
    request, life, process, seen = run.result
    assert (request, life) == ("r-17", "inside t 1")
    assert process != os.getpid()
    assert seen == ["enter"]
    assert not SEEN  # here nothing is entered for it


async def test_a_factory_without_an_import_path_stays_in_its_process():
    def local(info):
        return noting(info)

    async with serving(local) as server:
        run = await server.run(job("Request", backend="process"), timeout=PATIENCE)
        assert run.result[1] == "outside"
        run = await server.run(job("Request", backend="thread"), timeout=PATIENCE)
        assert run.result[1] == "inside t 1"


async def test_what_cannot_be_carried_is_logged_and_the_call_goes_on(caplog):
    class Broken(Carrier):
        def carry(self, carrier):
            raise OSError("no collector")

    async with serving(Broken(), noting) as server:
        run = await server.run(job("Request", backend="process"), timeout=PATIENCE)
    assert run.result[:2] == ["none", "inside t 1"]
    assert "no collector" in caplog.text


async def test_without_any_the_fast_path_is_the_one_of_before():
    async with Server() as server:
        assert server._executor.surroundings is None
        assert server._executor.attempts._runs_plain


async def test_it_is_entered_in_the_thread_of_the_body():
    threads = []

    @contextlib.contextmanager
    def factory(info):
        threads.append(threading.get_ident())
        yield
        threads.append(threading.get_ident())

    async with serving(factory) as server:
        await server.run(job("Whole"), timeout=PATIENCE)
        assert threads[0] == threads[1] != threading.get_ident()


@pytest.mark.parametrize(("around", "words"), [([3], "factories"), ("noting", "a list"), (3, "a list")])
def test_what_is_no_factory_is_refused(around, words):
    with pytest.raises(TypeError, match=words):
        Server(around=around)

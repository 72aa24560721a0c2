"""Nothing of an ended run stays but what is kept for reading: with it go its results, without the garbage collector.

A collection goes through the whole memory of the host. Runs must not make work for it, nor wait for it: what a run has
come to may be large.
"""

import contextlib
import gc
import logging
import weakref

import anyio
import left_bodies
import pytest
from left_bodies import CLASSES
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.engine.backends.threads import ThreadBackend

pytestmark = pytest.mark.anyio

CASES = [
    (name, backend)
    for name, backends in {
        "AsyncValue": [None, "process"],
        "SuspendedValue": [None, "process"],
        "PlainValue": [None, "process", "own"],
        "AsyncFailure": [None, "process"],
        "PlainFailure": [None, "process", "own"],
        "CausedFailure": [None, "process"],
        "Cancelled": [None, "process"],
        "CancelledPlain": [None, "process"],
    }.items()
    for backend in backends
]


@pytest.fixture(autouse=True)
def _nobody_keeps_records():
    """pytest keeps each record that is logged, with the exception in it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def uncollected():
    """Have no garbage collection, in a fresh state."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def gone(*references):
    """Wait until nothing holds these any more; threads and loops let go a moment after they have told."""
    with anyio.fail_after(PATIENCE):
        while any(reference() is not None for reference in references):  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.002)


async def run_and_leave(server, job):
    """Run a job; return references to the run, and to what it came to."""
    run = await server.start(job)
    if "Cancelled" in job.tasks["t"].task:
        while not run._execution.live:
            await anyio.lowlevel.checkpoint()
        run.cancel()
    await run.wait(PATIENCE)
    left = [weakref.ref(run.execution)]
    left += [weakref.ref(value) for value in run.results.values()]
    left += [weakref.ref(failure) for failure in run.failures.values()]
    return left


@pytest.mark.parametrize("surrounded", [False, True], ids=["alone", "surrounded"])
@pytest.mark.parametrize(("name", "backend"), CASES)
async def test_an_ended_run_and_what_it_came_to_are_gone_with_it(name, backend, surrounded):
    around = [lambda _: contextlib.nullcontext()] if surrounded else []
    async with Server(
        history=(0, 0.0), backends={"own": ThreadBackend()}, around=around, grace=PATIENCE
    ) as server:
        server.register_tasks("app", CLASSES)
        job = (
            JobDefinition.build("j")
            .task("t", name, **({} if backend is None else {"backend": backend}))
            .done()
        )
        with uncollected():
            await gone(*await run_and_leave(server, job))


class Kept(RunnableTask):
    """Raise what others have caught long ago."""

    async def run(self, context):
        raise KEPT[0]


class KeptPlain(RunnableTask):
    """The same in a thread."""

    def run(self, context):
        raise KEPT[0]


KEPT: list[BaseException] = []


def keeps():
    """Keep what is raised while suspended, and go on."""
    while True:
        try:
            yield len(KEPT)
        except left_bodies.OwnError as exc:
            KEPT[:] = [exc]


@pytest.mark.parametrize("name", ["Kept", "KeptPlain"])
async def test_a_failure_does_not_end_the_coroutine_that_has_kept_it_and_goes_on(name):
    """Such is a connection that keeps its last error, raises it for those who ask, and is being made again."""
    more, ended = anyio.Event(), []

    async def connection():
        try:
            await left_bodies.failing(context)
        except left_bodies.OwnError as exc:
            KEPT[:] = [exc]
        await more.wait()
        ended.append("orderly")

    class context:  # noqa: N801 - what `failing` reads
        task = "connection"

    async with Server() as server, anyio.create_task_group() as group:
        server.register_tasks("app", [Kept, KeptPlain])
        KEPT.clear()
        group.start_soon(connection)
        while not KEPT:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.001)
        run = await (await server.start_task(name)).wait(PATIENCE)
        assert run.failures[name] is KEPT[0]
        await anyio.wait_all_tasks_blocked()
        assert not ended
        more.set()
    assert ended == ["orderly"]


async def test_a_failure_does_not_end_the_generator_that_has_kept_it_and_goes_on():
    generator = keeps()
    next(generator)
    generator.throw(left_bodies.OwnError("kept"))
    async with Server() as server:
        server.register_tasks("app", [Kept])
        await (await server.start_task("Kept")).wait(PATIENCE)
    assert next(generator) == 1

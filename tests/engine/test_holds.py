"""A body may consist of several tasks or threads: a pause holds all of them, and lets all of them go on."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState

pytestmark = pytest.mark.anyio


class Group(RunnableTask):
    """Have three children that come to checkpoints."""

    async def run(self, context):
        async def work():
            for _ in range(3):
                await anyio.sleep(0.01)
                await context.checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        return "all"


class NativeGroup(RunnableTask):
    """Have three children of asyncio's own."""

    async def run(self, context):
        async def work():
            for _ in range(3):
                await asyncio.sleep(0.01)
                await context.checkpoint()

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())
        return "all"


class Gathered(RunnableTask):
    """Gather coroutines that come to checkpoints."""

    async def run(self, context):
        async def work():
            await asyncio.sleep(0.01)
            await context.checkpoint()
            return 1

        return await asyncio.gather(work(), work())


class OneWorks(RunnableTask):
    """Have a child that comes to a checkpoint, and one that works on until it is told to end."""

    async def run(self, context):
        async def checks():
            while not DONE.is_set():
                await anyio.sleep(0.005)
                await context.checkpoint()

        async def works():
            while not DONE.is_set():
                TURNS.append(1)
                await anyio.sleep(0.005)

        async with anyio.create_task_group() as group:
            group.start_soon(checks)
            group.start_soon(works)


class ManyThreads(RunnableTask):
    """Have three threads that check, besides the one that waits for them."""

    def run(self, context):
        def work(_):
            for _ in range(300):
                threading.Event().wait(0.002)
                context.check()
            return 1

        with ThreadPoolExecutor(3) as pool:
            return sum(pool.map(work, range(3)))


class OneThreadWorks(RunnableTask):
    """Have a thread that works on although another one is held."""

    def run(self, context):
        context.check()

        def checks():
            while not DONE.is_set():
                threading.Event().wait(0.002)
                context.check()

        thread = threading.Thread(target=checks)
        thread.start()
        while not DONE.is_set():
            TURNS.append(1)
        thread.join()


DONE = threading.Event()
TURNS: list[int] = []
CLASSES = [Group, NativeGroup, Gathered, OneWorks, ManyThreads, OneThreadWorks]


async def reach(run, state):
    with anyio.fail_after(PATIENCE):
        while run.state is not state:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.005)


async def started(server, name, **policies):
    DONE.clear()
    TURNS.clear()
    server.register_tasks("app", CLASSES)
    server.define(JobDefinition.build("j").task("t", name, **policies).done())
    return await server.start("j")


@pytest.mark.parametrize("name", ["Group", "NativeGroup", "Gathered", "ManyThreads"])
async def test_all_tasks_and_threads_of_a_body_are_held_and_released(name, anyio_backend):
    if anyio_backend == "trio" and name in {"NativeGroup", "Gathered"}:
        pytest.skip("asyncio's own")
    async with Server() as server:
        run = await started(server, name)
        await anyio.sleep(0.002)
        run.pause()
        await reach(run, RunState.PAUSED)
        await anyio.sleep(0.05)
        assert run.state is RunState.PAUSED
        run.resume()
        await run.wait(PATIENCE)
        assert run.succeeded, run.explain()


@pytest.mark.parametrize("name", ["OneWorks", "OneThreadWorks"])
async def test_a_run_is_not_paused_as_long_as_a_task_or_thread_of_a_body_works(name):
    async with Server() as server:
        run = await started(server, name)
        while not TURNS:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.002)
        run.pause()
        for _ in range(3):
            before = len(TURNS)
            await anyio.sleep(0.1)
            assert len(TURNS) > before
            assert run.state is RunState.PAUSING
        DONE.set()  # now it ends, and the others wait
        await reach(run, RunState.PAUSED)
        run.resume()
        await run.wait(PATIENCE)
        assert run.succeeded, run.explain()


@pytest.mark.parametrize("name", ["Group", "ManyThreads"])
async def test_a_cancel_reaches_all_that_is_held(name):
    async with Server() as server:
        run = await started(server, name)
        await anyio.sleep(0.002)
        run.pause()
        await reach(run, RunState.PAUSED)
        run.cancel()
        await run.wait(PATIENCE)
        assert run.state is RunState.CANCELLED
        assert not server.stuck


@pytest.mark.parametrize("name", ["Group", "ManyThreads"])
async def test_the_timeout_reaches_them_after_a_pause_in_which_it_stood_still(name):
    async with Server() as server:
        run = await started(server, name, timeout=PATIENCE)
        await anyio.sleep(0.002)
        run.pause()
        await reach(run, RunState.PAUSED)
        attempt = run._execution.live[0]
        assert 0 < attempt.remaining <= PATIENCE
        attempt.remaining = 0.0
        run.resume()
        await run.wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.FAILED
        assert run.tasks["t"].failure.type == "TimeoutError"

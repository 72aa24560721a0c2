"""A body may consist of several tasks or threads: a pause holds all of them, and lets all of them go on."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from patience import PATIENCE
from virtualtime import virtually

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskDefinition, TaskState

pytestmark = pytest.mark.anyio


class Group(RunnableTask):
    """Have three children that come to checkpoints until they are told to end."""

    async def run(self, context):
        async def work():
            TURNS.append(1)
            while not DONE.is_set():
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
            TURNS.append(1)
            while not DONE.is_set():
                await asyncio.sleep(0.01)
                await context.checkpoint()

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())
        return "all"


class Gathered(RunnableTask):
    """Gather three coroutines that come to checkpoints."""

    async def run(self, context):
        async def work():
            TURNS.append(1)
            while not DONE.is_set():
                await asyncio.sleep(0.01)
                await context.checkpoint()
            return 1

        return await asyncio.gather(work(), work(), work())


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
            TURNS.append(1)
            while not DONE.is_set():
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


class Relay(RunnableTask):
    """Have a child that comes to a checkpoint, and one at a time that works on: each is followed by a new one."""

    async def run(self, context):
        async def work():
            for _ in range(3):
                TURNS.append(1)
                await anyio.lowlevel.checkpoint()
            if not DONE.is_set():
                group.start_soon(work)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await context.checkpoint()
            while not DONE.is_set():
                await anyio.lowlevel.checkpoint()
                await context.checkpoint()


class BusyChild(RunnableTask):
    """Come to a checkpoint when a door is open, with a child that works on until all is done."""

    async def run(self, context):
        async def work():
            await END[0].wait()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await OPEN[0].wait()
            await context.checkpoint()


class AtOnce(RunnableTask):
    """Come to a checkpoint when a door is open."""

    async def run(self, context):
        await OPEN[0].wait()
        await context.checkpoint()


OPEN: list[anyio.Event] = []
END: list[anyio.Event] = []
DONE = threading.Event()
TURNS: list[int] = []
CLASSES = [Group, NativeGroup, Gathered, OneWorks, ManyThreads, OneThreadWorks, Relay, BusyChild, AtOnce]


async def reach(run, state):
    with anyio.fail_after(PATIENCE):
        while run.state is not state:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.005)


async def started(server, name, parts=1, **policies):
    server.register_tasks("app", CLASSES)
    server.define(JobDefinition.build("j").task("t", name, **policies).done())
    return await begun(server, parts)


async def begun(server, parts):
    """Start the job, and wait until so many parts of its body have begun: before that a pause finds nothing to hold."""
    DONE.clear()
    TURNS.clear()
    run = await server.start("j")
    with anyio.fail_after(PATIENCE):
        while len(TURNS) < parts:
            await anyio.lowlevel.checkpoint()
    return run


@pytest.mark.parametrize("name", ["Group", "NativeGroup", "Gathered", "ManyThreads"])
async def test_all_tasks_and_threads_of_a_body_are_held_and_released(name, anyio_backend):
    if anyio_backend == "trio" and name in {"NativeGroup", "Gathered"}:
        pytest.skip("asyncio's own")
    async with Server() as server:
        run = await started(server, name, parts=3)
        run.pause()
        await reach(run, RunState.PAUSED)
        await anyio.sleep(0.05)
        assert run.state is RunState.PAUSED
        assert len(run._execution.machine.record.held) == 1
        DONE.set()
        run.resume()
        await run.wait(PATIENCE)
        assert run.succeeded, run.explain()


@pytest.mark.parametrize("name", ["OneWorks", "OneThreadWorks"])
async def test_a_run_is_not_paused_as_long_as_a_task_or_thread_of_a_body_works(name):
    async with Server() as server:
        run = await started(server, name)
        run.pause()
        for _ in range(3):
            before = len(TURNS)
            await anyio.sleep(0.1)
            with anyio.fail_after(PATIENCE):
                while len(TURNS) == before or not run._execution.live[0].gates:
                    await anyio.lowlevel.checkpoint()
            assert run.state is RunState.PAUSING
        DONE.set()  # now it ends, and the others wait
        await reach(run, RunState.PAUSED)
        run.resume()
        await run.wait(PATIENCE)
        assert run.succeeded, run.explain()


@pytest.mark.parametrize("name", ["Group", "ManyThreads"])
async def test_a_cancel_reaches_all_that_is_held(name):
    async with Server() as server:
        run = await started(server, name, parts=3)
        run.pause()
        await reach(run, RunState.PAUSED)
        run.cancel()
        await run.wait(PATIENCE)
        assert run.state is RunState.CANCELLED
        assert not server.stuck


@pytest.mark.parametrize("name", ["Group", "ManyThreads"])
async def test_the_timeout_reaches_them_after_a_pause_in_which_it_stood_still(name):
    async with Server() as server:
        run = await started(server, name, parts=3, timeout=PATIENCE)
        run.pause()
        await reach(run, RunState.PAUSED)
        attempt = run._execution.live[0]
        assert 0 < attempt.remaining <= PATIENCE
        attempt.remaining = 0.0
        run.resume()
        await run.wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.FAILED
        assert run.tasks["t"].failure.type == "TimeoutError"


MANY = 500
"""Attempts that come to their checkpoints in one turn."""


async def crowd(server, name):
    """Have a run paused of which many attempts come to their checkpoints at once."""
    OPEN[:], END[:] = [anyio.Event()], [anyio.Event()]
    server.register_tasks("app", CLASSES)
    tasks = {f"t{number}": TaskDefinition(task=name) for number in range(MANY)}
    run = await server.start(JobDefinition(name="crowd", tasks=tasks))
    while len(run._execution.live) < MANY:
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    run.pause()
    OPEN[0].set()
    return run


async def test_of_many_attempts_that_come_to_their_checkpoints_at_once_a_few_are_looked_at_in_a_turn():
    async with Server() as server:
        server._executor.budget._share = 0.0  # one piece a turn, however quick the machine
        run = await crowd(server, "AtOnce")
        held, most = 0, 0
        with anyio.fail_after(PATIENCE):
            while run.state is not RunState.PAUSED:
                await anyio.lowlevel.checkpoint()
                now = len(run._execution.machine.record.held)
                held, most = now, max(most, now - held)
        assert held == MANY
        assert most <= MANY // 5
        run.resume()
        assert (await run.wait(PATIENCE)).succeeded


async def test_a_resume_in_the_middle_of_a_look_lets_everything_go_on():
    async with Server() as server:
        server._executor.budget._share = 0.0
        run = await crowd(server, "AtOnce")
        with anyio.fail_after(PATIENCE):
            while not run._execution.machine.record.held:
                await anyio.lowlevel.checkpoint()
        assert run.state is RunState.PAUSING
        run.resume()
        assert (await run.wait(PATIENCE)).succeeded


async def test_a_run_is_not_paused_while_tasks_of_a_body_work_that_follow_one_another():
    async with Server() as server:
        server._executor.budget._share = 0.0  # a look takes longer than each of them lives
        run = await started(server, "Relay")
        run.pause()
        before = len(TURNS)
        with anyio.fail_after(PATIENCE):
            while len(TURNS) < before + 1_000:
                await anyio.lowlevel.checkpoint()
                assert run.state is RunState.PAUSING
        DONE.set()
        await reach(run, RunState.PAUSED)
        run.resume()
        assert (await run.wait(PATIENCE)).succeeded


@virtually
async def test_many_attempts_of_which_something_works_on_are_looked_at_together_and_seldom():
    async with Server() as server:
        loop, looks = server._executor.loop, []
        survey = loop.survey
        loop.survey = lambda held: looks.append(len(held)) or survey(held)
        run = await crowd(server, "BusyChild")
        await anyio.sleep(60)
        assert run.state is RunState.PAUSING
        assert MANY in looks
        assert len(looks) < 100
        END[0].set()
        await reach(run, RunState.PAUSED)
        run.resume()
        assert (await run.wait(PATIENCE)).succeeded


async def test_a_defect_while_attempts_are_looked_at_ends_their_runs_and_nothing_else():
    async with Server() as server:
        run = await started(server, "Group", parts=3)
        survey = server._executor.loop.survey

        def defect(held):
            server._executor.loop.survey = survey
            raise AssertionError("a defect")
            yield

        server._executor.loop.survey = defect
        run.pause()
        assert (await run.wait(PATIENCE)).state is RunState.CRASHED
        other = await begun(server, parts=3)
        other.pause()
        await reach(other, RunState.PAUSED)
        DONE.set()
        other.resume()
        assert (await other.wait(PATIENCE)).succeeded


class Leaves(RunnableTask):
    """Have two tasks that come to checkpoints, one of which can be made to leave its own."""

    async def run(self, context):
        async def waits():
            await OPEN[0].wait()
            await context.checkpoint()

        async def leaves():
            await OPEN[0].wait()
            with SCOPE[0]:
                await context.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            group.start_soon(leaves)


SCOPE: list[anyio.CancelScope] = []


async def test_a_part_that_leaves_its_checkpoint_while_its_body_is_looked_at_is_no_part_that_works_on():
    OPEN[:], SCOPE[:] = [anyio.Event()], [anyio.CancelScope()]
    async with Server() as server:
        server.register_tasks("app", [Leaves])
        server._executor.budget._share = 0.0  # one piece a turn
        loop, seen = server._executor.loop, []
        survey = loop.survey

        def left_meanwhile(held):
            is_at_work = yield from survey(held)
            if (attempt := next(iter(held))) and not seen and len(attempt.gates) == 2:
                seen.append(attempt)
                SCOPE[0].cancel()
                while len(attempt.gates) == 2:
                    yield
            return is_at_work

        loop.survey = left_meanwhile
        run = await server.start_task("Leaves")
        while not run._execution.live:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        run.pause()
        OPEN[0].set()
        await reach(run, RunState.PAUSED)
        assert seen
        run.resume()
        assert (await run.wait(PATIENCE)).succeeded

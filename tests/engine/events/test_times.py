"""One clock a run: what its events, its lines and its statistics tell of time agrees, and is in order."""

import itertools
import threading
import time

import anyio
import pytest
from patience import PATIENCE

from scattersphere import EventKind, JobDefinition, RunnableTask, Server, TaskState

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Wall:
    """The clock on the wall, which can be set."""

    ahead = 0.0
    next_step = 0.0


@pytest.fixture
def wall(monkeypatch):
    real = time.time
    monkeypatch.setattr(Wall, "ahead", 0.0)
    monkeypatch.setattr(time, "time", lambda: real() + Wall.ahead)


class OnLoop(RunnableTask):
    """Write a line, have the wall set, write another."""

    async def run(self, context):
        context.log.info("before")
        Wall.ahead = Wall.next_step
        context.log.info("after")


class InThread(RunnableTask):
    """The same in a thread."""

    def run(self, context):
        context.log.info("before")
        Wall.ahead = Wall.next_step
        context.log.info("after")


async def listed(stream):
    return [event async for event in stream]


def in_order(times):
    return all(before <= after for before, after in itertools.pairwise(times))


@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["ahead", "back"])
@pytest.mark.parametrize("task", [OnLoop, InThread])
async def test_a_step_of_the_wall_changes_no_time_of_a_run_under_way_and_all_of_the_next(wall, shift, task):
    Wall.next_step = shift
    async with Server() as server:
        server.register_tasks("app", [task])
        begun = time.time()
        run = await (await server.start_task(task.__name__)).wait()
        ended = time.time() - shift
        events = await listed(run.events())
        told = [run.created_at, run.started_at, *(event.time for event in events), run.ended_at]
        assert in_order(told)
        told += [line.time for line in run.logs()]
        told += [run.statistics.started_at, run.statistics.ended_at, run.tasks[task.__name__].ended_at]
        assert all(begun - 1 < each.timestamp() < ended + 1 for each in told)

        begun = time.time()
        run = await (await server.start_task(task.__name__)).wait()
        told = [run.created_at, run.ended_at, *(line.time for line in run.logs())]
        told += [event.time for event in await listed(run.events())]
        assert all(begun - 1 < each.timestamp() < time.time() + 1 for each in told)
        server.define(JobDefinition.build("j").task("t", task.__name__).done())

    feed = await listed(server.events())
    assert [event.seq for event in feed] == list(range(1, len(feed) + 1))
    assert in_order([event.time for event in feed])
    assert in_order([line.time for line in server.logs()])


class Blocks(RunnableTask):
    """Keep the loop so long."""

    seconds: float = 0.05

    async def run(self, context):
        context.log.info("blocking")
        time.sleep(self.seconds)  # noqa: ASYNC251 - it is to block
        context.progress(1, 2)


async def test_events_carry_the_time_at_which_it_happened_and_not_that_of_the_batch():
    async with Server(blocked_after=None) as server:
        server.register_tasks("app", [Blocks])
        job = JobDefinition.build("j")
        for number in range(3):
            job = job.task(f"t{number}", "Blocks")
        server.define(job.done())
        run = await (await server.start("j")).wait()
        events = await listed(run.events())
        assert in_order([event.time for event in events])
        for number in range(3):
            status = run.tasks[f"t{number}"]
            started, log, progress, ended = (event for event in events if event.task == status.name)
            assert [started.kind, log.kind, progress.kind, ended.kind] == [
                EventKind.TASK_STARTED,
                EventKind.LOG,
                EventKind.TASK_PROGRESS,
                EventKind.TASK_ENDED,
            ]
            assert abs((started.time - status.started_at).total_seconds()) < 0.002
            assert abs((ended.time - status.ended_at).total_seconds()) < 0.002
            assert (ended.time - log.time).total_seconds() >= 0.05
            (line,) = run.logs(status.name)
            assert line.time == log.time


class Talks(RunnableTask):
    """Write from a thread while others start and end."""

    async def run(self, context):
        logged = threading.Event()

        def talk():
            for number in range(20):
                context.log.info("%d", number)
            logged.set()

        threading.Thread(target=talk).start()
        assert await anyio.to_thread.run_sync(logged.wait, PATIENCE)


class Nothing(RunnableTask):
    async def run(self, context):
        pass


@pytest.mark.parametrize("watched", [False, True])
async def test_lines_of_threads_take_the_place_among_the_moves_that_their_time_has(watched):
    async with Server() as server:
        server.register_tasks("app", [Talks, Nothing])
        job = JobDefinition.build("j").task("talks", "Talks").task("other", "Talks")
        for number in range(20):
            after = [f"n{number - 1}"] if number else []
            job = job.task(f"n{number}", "Nothing", depends_on=after)
        server.define(job.done())
        run = await server.start("j")
        async with anyio.create_task_group() as tasks:
            seen = []

            async def watch():
                seen.extend([event async for event in run.events()])

            if watched:
                tasks.start_soon(watch)
            await run.wait()
        events = await listed(run.events())
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert in_order([event.time for event in events])
        assert seen in ([], events)
        lines = run.logs()
        assert in_order([line.time for line in lines])
        found = [event for event in events if event.kind is EventKind.LOG]
        assert [event.message for event in found] == [line.message for line in lines]
        assert [event.time for event in found] == [line.time for line in lines]
        assert run.tasks["talks"].state is TaskState.SUCCEEDED

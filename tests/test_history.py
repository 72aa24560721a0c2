"""What is left of runs: how long they are kept, the Server's log of them, counts and times."""

import gc
import tracemalloc
import weakref

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, NoSuchRunError, RunnableTask, RunState, Server, TaskState, result
from scattersphere.sync import SyncServer

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

pytestmark = pytest.mark.anyio


class Silent(RunnableTask):
    """Do nothing, say nothing."""

    async def run(self, context):
        return None


class Add(RunnableTask):
    """Add one."""

    to: int = 0

    async def run(self, context):
        context.log.info("adding")
        return self.to + 1


class Fail(RunnableTask):
    """Fail until the given attempt."""

    until: int = 99

    async def run(self, context):
        await anyio.sleep(1)
        if context.attempt < self.until:
            raise ValueError("no\nluck")


class Sleep(RunnableTask):
    """Take so many seconds."""

    seconds: float = 1.0

    async def run(self, context):
        await anyio.sleep(self.seconds)


class Numbers(RunnableTask):
    """Return a list."""

    async def run(self, context):
        return [1.0, 2.0, 3.0]


class Parent(RunnableTask):
    """Start a child run."""

    async def run(self, context):
        await (await context.start("child")).wait()


CLASSES = [Silent, Add, Fail, Sleep, Numbers, Parent]


def virtually(main, **options):
    """Run `main(server)` under trio's MockClock; time only passes when all wait."""

    async def run():
        async with Server(**options) as server:
            server.register_tasks("app", CLASSES)
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


# ---- how long runs are kept


def test_ended_runs_go_when_they_are_too_old_although_no_other_run_ends():
    async def main(server):
        for _ in range(3):
            await (await server.start_task("Sleep", {"seconds": 10})).wait()
        assert list(server.runs) == [1, 2, 3]
        await trio.sleep(85)  # the first one ended 105 seconds ago
        assert list(server.runs) == [2, 3]
        await trio.sleep(10)
        assert list(server.runs) == [3]
        with pytest.raises(NoSuchRunError, match="no run 1; kept are 3 to 3"):
            server.runs[1]
        await trio.sleep(1000)
        assert list(server.runs) == []
        assert server.stats()["evicted"] == 3

    virtually(main, history=(10, 100.0))


def test_a_live_run_is_kept_however_long_it_takes():
    async def main(server):
        run = await server.start_task("Sleep", {"seconds": 1000})
        await trio.sleep(500)
        assert server.runs[1] is run
        await run.wait()

    virtually(main, history=(10, 100.0))


def test_runs_are_evicted_in_the_order_in_which_they_ended():
    async def main(server):
        for seconds in (30, 10, 20):
            await server.start_task("Sleep", {"seconds": seconds})
        await server.runs[1].wait()
        assert list(server.runs) == [1, 3]

    virtually(main, history=(2, 1e9))


async def test_an_evicted_run_leaves_no_memory_behind():
    async with Server(history=(1, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Add")).wait(PATIENCE)
        gone = weakref.ref(run.execution)
        del run
        await (await server.start_task("Add")).wait(PATIENCE)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert gone() is None


async def test_an_evicted_run_is_gone_without_the_garbage_collector():
    """A full collection takes 100 ms in a large host, and stops all of it: runs must not make work for it."""
    async with Server(history=(1, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        gc.disable()
        try:
            run = await (await server.start_task("Add")).wait(PATIENCE)
            run.logs()
            gone = weakref.ref(run.execution)
            del run
            await (await server.start_task("Add")).wait(PATIENCE)
            await anyio.wait_all_tasks_blocked()
            assert gone() is None
        finally:
            gc.enable()


async def test_a_kept_run_is_few_objects_for_the_garbage_collector():
    async with Server(history=(200, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        server.define(JobDefinition.build("one").task("only", "Silent").done())

        async def objects_after(count):
            for _ in range(count):
                await (await server.start("one")).wait(PATIENCE)
            gc.collect()
            return len(gc.get_objects())

        before = await objects_after(20)
        assert (await objects_after(100) - before) / 100 < 20


async def test_a_job_that_runs_all_the_time_leaves_the_others_their_lines_in_the_server_s_log():
    """One runner filled the log of everybody within seconds."""
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        server._history_log._keep = 10
        for name in ("rare", "busy"):
            server.define(JobDefinition.build(name).task("only", "Silent").done())
        await (await server.start("rare")).wait(PATIENCE)
        for _ in range(20):
            await (await server.start("busy")).wait(PATIENCE)
        kept = server.logs()
        assert len(kept) == 10
        assert [line.run for line in kept if line.message.startswith("rare")] == [1, 1]
        assert [line.run for line in kept][-2:] == [21, 21]  # and the newest are there
        assert [line.time for line in kept] == sorted(line.time for line in kept)


async def test_runs_beyond_the_history_leave_memory_as_it_was():
    async with Server(history=(20, 3600.0), keep_events=10) as server:
        server.register_tasks("app", CLASSES)
        server._history_log._keep = 10  # both logs of the server are full, as they are after a while

        async def some(count):
            for _ in range(count):
                await (await server.start_task("Add")).wait(PATIENCE)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        await some(50)
        tracemalloc.start()
        try:
            before = await some(100)
            grown = await some(300) - before
        finally:
            tracemalloc.stop()
        assert grown / 300 < 200  # a run itself takes some thousands


async def test_a_kept_run_takes_few_bytes_a_task():
    size = 5_000
    job = JobDefinition.build("wide")
    for number in range(size):
        job = job.task(f"t{number}", "Numbers")
    async with Server(history=(3, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        server.define(job.done())
        await (await server.start("wide")).wait(PATIENCE)
        gc.collect()
        tracemalloc.start()
        try:
            run = await (await server.start("wide")).wait(PATIENCE)
            results = sum(len(run.results[name]) for name in run.results)
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0] / size
        finally:
            tracemalloc.stop()
    assert results == 3 * size
    assert kept < 400


# ---- the Server's log of its runs


def lines(server, **chosen):
    return [line.message for line in server.logs(**chosen)]


def test_the_server_keeps_a_line_for_each_start_request_and_end():
    async def main(server):
        server.define(JobDefinition.build("bad").task("f", "Fail").task("a", "Add", depends_on=["f"]).done())
        await (await server.start_task("Add")).wait()
        await (await server.start("bad")).wait()
        slow = await server.start_task("Sleep", {"seconds": 10})
        slow.pause()
        slow.cancel("enough")
        await slow.wait()
        assert lines(server) == [
            "Add started",
            "Add succeeded in 0.00 s, 1 task",
            "bad started",
            "bad failed in 1.00 s, 0 of 2 tasks succeeded; f: ValueError: no luck",
            "Sleep started",
            "Sleep is asked to pause",
            "Sleep is paused",
            "Sleep is cancelled: enough",
            "Sleep cancelled in 0.00 s, 0 of 1 tasks succeeded: enough",
        ]
        assert [line.level for line in server.logs(run=2)] == [20, 40]
        assert lines(server, job="Add", tail=1) == ["Add succeeded in 0.00 s, 1 task"]
        assert [line.run for line in server.logs(level=30)] == [2, 3]
        assert str(server.logs(run=2)[1]).endswith(" #2 - ERROR   " + lines(server)[3])

    virtually(main)


def test_the_log_says_who_waited_and_who_started_whom():
    async def main(server):
        server.define(JobDefinition.build("child").task("a", "Add").done())
        await server.start_task("Sleep", {"seconds": 5})
        run = await server.start_task("Parent")
        await run.wait()
        await (await server.rerun(run.id)).wait()
        assert "Parent started; it was queued for 5.0 s" in lines(server)
        assert "child started by run 2" in lines(server)
        assert "Parent started; it runs run 2 again" in lines(server)

    virtually(main, max_runs=1)


async def test_the_log_outlives_the_runs():
    async with Server(history=(0, 3600.0)) as server:
        server.register_tasks("app", CLASSES)
        await (await server.start_task("Add")).wait(PATIENCE)
        assert list(server.runs) == []
        assert len(server.logs()) == 2


def test_the_server_counts_how_runs_ended():
    async def main(server):
        for _ in range(3):
            await (await server.start_task("Add")).wait()
        await (await server.start_task("Fail")).wait()
        (await server.start_task("Sleep")).cancel()
        await server.drain()
        stats = server.stats()
        assert stats["begun"] == 5
        assert (stats["succeeded"], stats["failed"], stats["cancelled"], stats["stopped"]) == (3, 1, 1, 0)
        assert stats["evicted"] == 3

    virtually(main, history=(2, 3600.0))


# ---- statistics


def test_the_statistics_of_a_run_tell_when_it_waited_and_when_it_ran():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep", args={"seconds": 2})
        job = job.task(
            "b", "Fail", args={"until": 3}, retry={"max_attempts": 3, "delay": 10, "jitter": False}
        )
        job = job.task("c", "Sleep", args={"seconds": 4}, depends_on=["a", "b"]).task(
            "never", "Add", run_if=False
        )
        server.define(job.done())
        await server.start_task("Sleep", {"seconds": 5})
        run = await (await server.start("j")).wait()
        found = run.statistics
        assert (round(found.waiting, 3), found.attempts) == (5, 5)
        assert round(found.running, 3) == round((run.ended_at - run.started_at).total_seconds(), 3) == 37
        assert found.states == {TaskState.SUCCEEDED: 3, TaskState.SKIPPED: 1}
        a, b, c, never = (found.tasks[name] for name in ("a", "b", "c", "never"))
        assert (a.attempts, round(a.waiting, 3), round(a.running, 3)) == (1, 0, 2)
        assert (b.attempts, round(b.waiting, 3), round(b.running, 3)) == (3, 0, 3)
        assert (c.attempts, round(c.waiting, 3), round(c.running, 3)) == (1, 0, 4)
        assert (never.attempts, never.started_at, never.waiting, never.running) == (0, None, None, 0)
        assert c.queued_at == b.ended_at
        assert (found.queued_at, found.started_at) == (run.created_at, run.started_at)

    virtually(main, max_runs=1)


def test_waiting_for_a_place_is_counted_for_each_task():
    async def main(server):
        job = JobDefinition.build("j", max_parallel=1)
        for name in "abc":
            job = job.task(name, "Sleep", args={"seconds": 3})
        server.define(job.done())
        run = await server.start("j")
        await trio.sleep(4)
        live = run.statistics
        assert [round(live.tasks[name].running, 3) for name in "abc"] == [3, 1, 0]
        assert live.tasks["c"].waiting is None
        assert live.tasks["c"].queued_at == run.started_at
        await run.wait()
        waited = [round(task.waiting, 3) for task in run.statistics.tasks.values()]
        assert waited == [0, 3, 6]

    virtually(main)


def test_the_instances_of_a_map_are_added_up():
    async def main(server):
        job = JobDefinition.build("j").task("n", "Numbers")
        server.define(job.task("m", "Sleep", map={"seconds": result("n")}).done())
        run = await (await server.start("j")).wait()
        m = run.statistics.tasks["m"]
        assert (m.attempts, round(m.running, 3)) == (3, 6)
        assert round((m.ended_at - m.started_at).total_seconds(), 3) == 3

    virtually(main)


def test_statistics_are_a_table_for_a_terminal():
    async def main(server):
        run = await (await server.start_task("Sleep", {"seconds": 2})).wait()
        head, columns, row = str(run.statistics).splitlines()
        assert head == "run 1 of Sleep: succeeded, waited 0.000 s, ran 2.000 s, 1 attempts"
        assert columns.split() == ["task", "state", "attempts", "waited", "s", "ran", "s"]
        assert row.split() == ["Sleep", "succeeded", "1", "0.000", "2.000"]

    virtually(main)


def test_a_blocking_program_has_the_same():
    with SyncServer() as server:
        server.register_tasks("app", CLASSES)
        run = server.start_task("Add").wait(PATIENCE)
        assert [line.message for line in run.follow_logs()] == ["adding"]
        assert run.statistics.attempts == 1
        assert server.logs(tail=1)[0].message.startswith("Add succeeded in ")
        assert run.state is RunState.SUCCEEDED


async def test_one_job_that_runs_all_the_time_does_not_take_the_history_of_the_others():
    """One runner evicted everybody's history in 16 s."""
    async with Server(history=(6, 3600)) as server:
        server.register_tasks("app", [Silent])
        for name in ("often", "rare", "once"):
            server.define(JobDefinition.build(name).task("a", "Silent").done())
        for name in ("once", "rare", "often", "rare", *["often"] * 40):
            await (await server.start(name)).wait()
        kept = [run.job for run in server.runs.values()]
        assert (kept.count("once"), kept.count("rare"), kept.count("often")) == (1, 2, 3)
        assert max(server.runs) == 44

"""Delay, RunJob and Repeat in virtual time: child runs share their parent's fate."""

import anyio
import pytest
from patience import PATIENCE

import scattersphere.tasks
from scattersphere import JobDefinition, RunnableTask, RunState, Server, param

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Slow(RunnableTask):
    """Take ten seconds, with a checkpoint after each."""

    async def run(self, context):
        for _ in range(10):
            await anyio.sleep(1)
            await context.checkpoint()
        return "slept"


class Echo(RunnableTask):
    """Return the number."""

    n: int = 0

    async def run(self, context):
        if self.n == 99:
            raise ValueError("no 99")
        return self.n


class Stubborn(RunnableTask):
    """Take forty seconds whatever is asked."""

    async def run(self, context):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(40)


class Tidy(RunnableTask):
    """Take a second to tidy."""

    async def run(self, context):
        await anyio.sleep(1)
        return "tidied"


def virtually(main):
    async def run():
        async with Server() as server:
            server.register_tasks("std", scattersphere.tasks.ALL)
            server.register_tasks("app", [Slow, Echo, Stubborn, Tidy])
            child = JobDefinition.build("child").task("slow", "Slow")
            server.define(child.task("tidy", "Tidy", finally_=True).done())
            server.define(JobDefinition.build("stubborn").task("s", "Stubborn").done())
            echo = JobDefinition.build("echo", params={"n": 1}).task("e", "Echo", args={"n": param("n")})
            server.define(echo.done())
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def seconds(run):
    return round((run.ended_at - run.started_at).total_seconds(), 3)


def test_delay_waits_so_long_and_a_pause_does_not_count():
    async def main(server):
        run = await server.start_task("Delay", {"seconds": 5.5})
        await trio.sleep(2.5)
        run.pause()
        await trio.sleep(100)
        assert run.state is RunState.PAUSED
        run.resume()
        await run.wait()
        assert run.succeeded
        assert seconds(run) == 5.5 + (102.5 - 3)

    virtually(main)


def test_delay_refuses_a_negative_time_and_is_cancelled_at_once():
    async def main(server):
        failed = await (await server.start_task("Delay", {"seconds": -1})).wait()
        assert "seconds must not be negative: -1" in failed.explain()
        run = await server.start_task("Delay", {"seconds": 1000})
        await trio.sleep(2.25)
        run.cancel()
        await run.wait()
        assert run.state is RunState.CANCELLED
        assert seconds(run) == 2.25

    virtually(main)


def test_run_job_returns_the_results_of_the_child():
    async def main(server):
        run = await (await server.start_task("RunJob", {"job": "echo", "params": {"n": 7}})).wait()
        assert run.results["RunJob"] == {"e": 7}
        assert server.runs[2].parent == run.id

    virtually(main)


def test_pause_and_resume_reach_the_child_run():
    async def main(server):
        run = await server.start_task("RunJob", {"job": "child"})
        await trio.sleep(2.5)
        run.pause()
        await trio.sleep(100)
        assert server.runs[2].state is RunState.PAUSED
        assert run.state is RunState.PAUSED
        run.resume()
        await run.wait()
        assert run.succeeded, run.explain()
        assert seconds(run) == 11 + (102.5 - 3)

    virtually(main)


def test_a_cancel_reaches_the_child_run_and_lets_its_finally_tasks_run():
    async def main(server):
        run = await server.start_task("RunJob", {"job": "child"})
        await trio.sleep(2.5)
        run.cancel()
        await run.wait()
        assert run.state is server.runs[2].state is RunState.CANCELLED
        assert server.runs[2].results["tidy"] == "tidied"
        assert server.runs[2].reason == "its parent, run 1, is ending"
        assert not run.stuck

    virtually(main)


def test_a_child_that_does_not_end_is_killed_before_the_parent_is_given_up():
    async def main(server):
        run = await server.start_task("RunJob", {"job": "stubborn"})
        await trio.sleep(2)
        run.cancel(grace=10)
        await run.wait()
        assert run.state is server.runs[2].state is RunState.CANCELLED
        assert not run.stuck
        assert list(server.stuck) == ["stubborn#2/s"]
        assert seconds(run) == 2 + 5  # half of the grace is the child's

    virtually(main)


def test_a_kill_reaches_the_child_run():
    async def main(server):
        run = await server.start_task("RunJob", {"job": "child"})
        await trio.sleep(2.5)
        run.kill()
        await run.wait()
        assert run.state is server.runs[2].state is RunState.CANCELLED
        assert "tidy" not in server.runs[2].results  # a kill runs no finally-tasks
        assert seconds(run) < 3

    virtually(main)


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["cancel", "kill"])
async def test_an_end_reaches_the_child_run_in_real_time_too(verb):
    async with Server() as server:
        server.register_tasks("std", scattersphere.tasks.ALL)
        server.define(JobDefinition.build("long").task("d", "Delay", args={"seconds": 600}).done())
        run = await server.start_task("RunJob", {"job": "long"})
        while 2 not in server.runs or not server.runs[2].tasks["d"].attempts:
            await anyio.lowlevel.checkpoint()
        getattr(run, verb)()
        await run.wait(PATIENCE)
        assert run.state is server.runs[2].state is RunState.CANCELLED
        assert not server.stuck


def test_a_failed_child_fails_the_task_and_tells_why():
    async def main(server):
        run = await (await server.start_task("RunJob", {"job": "echo", "params": {"n": 99}})).wait()
        assert run.state is RunState.FAILED
        assert "ValueError: no 99" in run.explain()

    virtually(main)


def test_repeat_runs_a_job_in_turn_and_counts():
    async def main(server):
        args = {"job": "echo", "times": 3, "delay": 2.0, "index": "n"}
        run = await (await server.start_task("Repeat", args)).wait()
        assert run.results["Repeat"] == [{"e": 0}, {"e": 1}, {"e": 2}]
        assert seconds(run) == 4
        async for event in run.events():
            if event.done == 3:
                assert event.total == 3

    virtually(main)


def test_repeat_none_at_all_and_a_negative_number():
    async def main(server):
        run = await (await server.start_task("Repeat", {"job": "echo", "times": 0})).wait()
        assert run.results["Repeat"] == []
        failed = await (await server.start_task("Repeat", {"job": "echo", "times": -1})).wait()
        assert "times must not be negative: -1" in failed.explain()

    virtually(main)


def test_the_first_failure_ends_a_repeat_and_a_cancel_reaches_the_round_under_way():
    async def main(server):
        failing = {"job": "echo", "times": 3, "params": {"n": 99}}
        run = await (await server.start_task("Repeat", failing)).wait()
        assert run.state is RunState.FAILED
        assert len(server.runs) == 2
        run = await server.start_task("Repeat", {"job": "child", "times": 5})
        await trio.sleep(11 + 3)
        run.cancel()
        await run.wait()
        assert [kept.state for kept in server.runs.values()][-2:] == [RunState.SUCCEEDED, RunState.CANCELLED]

    virtually(main)


@pytest.mark.anyio
async def test_in_a_worker_process_run_job_says_which_backend_it_needs():
    async with Server() as server:
        server.register_tasks("std", scattersphere.tasks.ALL)
        parent = JobDefinition.build("parent")
        server.define(parent.task("p", "RunJob", args={"job": "child"}, backend="process").done())
        run = await server.start("parent")
        await run.wait()
    assert run.state is RunState.FAILED
    assert "cannot start a run of 'child'; give the task the backend \"loop\"" in run.explain()

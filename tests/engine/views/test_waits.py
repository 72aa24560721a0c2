"""Whatever waits says for what, and who has it: in the status of tasks, of runs, and in explain()."""

import anyio
import pytest

import scattersphere.tasks
from scattersphere import JobDefinition, RetryPolicy, RunnableTask, Server

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Sleep(RunnableTask):
    """Take ten seconds, with a checkpoint in the middle."""

    async def run(self, context):
        await anyio.sleep(5)
        await context.checkpoint()
        await anyio.sleep(5)


class Fail(RunnableTask):
    """Fail."""

    async def run(self, context):
        raise OSError("no")


class Refuse(RunnableTask):
    """Do not end when cancelled."""

    async def run(self, context):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(20)


def virtually(main, **options):
    async def run():
        async with Server(**options) as server:
            server.register_tasks("app", [Sleep, Fail, Refuse])
            server.register_tasks("std", scattersphere.tasks.ALL)
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def waits_of(server, job, task, seconds=1.0):
    """Start a job, and say after some time what one of its tasks waits for."""
    server.define(job.done())
    run = await server.start(job.done().name)
    await trio.sleep(seconds)
    words = run.tasks[task].waits_for
    assert f"waits for {words}" in run.explain() if words else "waits for" not in run.explain()
    return words


def test_a_task_names_the_tasks_above_it_that_have_not_ended():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("b", "Sleep")
        words = await waits_of(server, job.task("c", "Sleep", depends_on=["a", "b"]), "c")
        assert words == "a, b"
        assert server.runs[1].tasks["a"].waits_for == ""

    virtually(main)


def test_a_finally_task_waits_for_all_others():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("f", "Sleep", finally_=True)
        assert await waits_of(server, job, "f") == "the end of all tasks that are no finally-tasks"

    virtually(main)


def test_a_place_is_named_with_those_who_hold_it():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep", pool="db").task("b", "Sleep", pool="db")
        assert await waits_of(server, job, "b") == "a place in pool db (1 of 1, held by j#1/a)"
        other = JobDefinition.build("o").task("c", "Sleep", pool="db")
        assert await waits_of(server, other, "c") == "a place in pool db (1 of 1, held by j#1/a)"
        narrow = JobDefinition.build("n", max_parallel=1).task("a", "Sleep").task("b", "Sleep")
        assert (
            await waits_of(server, narrow, "b") == "a place in its run (max_parallel) (1 of 1, held by n#3/a)"
        )

    virtually(main, pools={"db": 1})


def test_a_full_server_is_named():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("b", "Sleep")
        assert await waits_of(server, job, "b") == "a place of the server (max_parallel), held by j#1/a"

    virtually(main, max_parallel=1)


def test_a_queued_run_names_its_slot_and_so_do_its_tasks():
    async def main(server):
        job = JobDefinition.build("j", max_runs=1).task("a", "Sleep")
        await waits_of(server, job, "a")
        second = await server.start("j")
        assert second.waits_for == "a slot of its job (max_runs 1), held by j#1"
        assert second.tasks["a"].waits_for == f"its run, which waits for {second.waits_for}"
        assert second.waits_for in second.explain()

    virtually(main)


def test_a_slot_of_the_server_is_named():
    async def main(server):
        await waits_of(server, JobDefinition.build("j").task("a", "Sleep"), "a")
        second = await server.start("j")
        assert second.waits_for == "a slot of the server (max_runs 1), held by j#1"

    virtually(main, max_runs=1)


def test_a_back_off_says_until_when():
    async def main(server):
        retry = RetryPolicy(max_attempts=2, delay=60, jitter=False)
        words = await waits_of(server, JobDefinition.build("j").task("a", "Fail", retry=retry), "a")
        assert words.startswith("its back-off, until ")
        assert words.endswith(" UTC (59.0 s)")

    virtually(main)


def test_a_pause_is_named():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("b", "Sleep", depends_on=["a"])
        await waits_of(server, job, "b")
        run = server.runs[1]
        run.pause()
        assert run.waits_for == "a checkpoint or the end of what executes, to be paused"
        await trio.sleep(10)
        assert run.waits_for == "a resume"
        assert run.tasks["a"].waits_for == "a resume, at a checkpoint"

    virtually(main)


def test_a_parent_names_its_child_and_then_its_place():
    async def main(server):
        server.define(JobDefinition.build("kid").task("k", "Sleep", pool="db").done())
        job = JobDefinition.build("par").task("p", "RunJob", args={"job": "kid"}, pool="db")
        assert await waits_of(server, job, "p") == "run 2 of kid"
        other = JobDefinition.build("o").task("c", "Sleep", pool="db", priority=1)
        await waits_of(server, other, "c", seconds=10)
        words = server.runs[1].tasks["p"].waits_for
        assert words == "a place in pool db (1 of 1, held by o#3/c), which it has lent"

    virtually(main, pools={"db": 1})


def test_what_is_being_cancelled_says_when_it_is_given_up():
    async def main(server):
        await waits_of(server, JobDefinition.build("j").task("a", "Refuse"), "a")
        server.runs[1].cancel(grace=10)
        assert server.runs[1].tasks["a"].waits_for == "its end; it is given up in 10.0 s"

    virtually(main)

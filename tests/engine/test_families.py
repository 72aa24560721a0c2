"""A run and the runs that its bodies start: what is asked of it reaches them, and they never wait for each other in vain."""

import contextlib

import anyio
import pytest
from patience import PATIENCE
from virtualtime import both_loops, run_virtually

import scattersphere.tasks
from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

KIDS: list = []


class Parent(RunnableTask):
    """Start a child and wait for it."""

    async def run(self, context):
        child = await context.start("kid")
        KIDS.append(child)
        await child.wait()
        return child.state.value


class LateParent(RunnableTask):
    """Start a child when it is itself asked to end, or after so many seconds."""

    async def run(self, context):
        try:
            await anyio.sleep(5)
        finally:
            with anyio.CancelScope(shield=True):
                KIDS.append(await context.start("kid"))


class Slow(RunnableTask):
    """Take ten seconds."""

    async def run(self, context):
        for _ in range(10):
            await anyio.sleep(1)
            await context.checkpoint()


class Quick(RunnableTask):
    """Return at once."""

    async def run(self, context):
        return context.run_id


class Recursive(RunnableTask):
    """Start the own job again."""

    async def run(self, context):
        child = await context.start("rec")
        await child.wait()
        if not child.succeeded:
            raise RuntimeError(next(iter(child.tasks.values())).failure.message)


class Two(RunnableTask):
    """Wait for two children at once."""

    async def run(self, context):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon((await context.start("kid")).wait)


class Busy(RunnableTask):
    """Wait for a child in one task; work for four seconds in another, then come to checkpoints there."""

    async def run(self, context):
        child = await context.start("kid")
        KIDS.append(child)

        async def works():
            await anyio.sleep(4)
            for _ in range(10):
                await anyio.sleep(1)
                await context.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(child.wait)
            group.start_soon(works)


class Impatient(RunnableTask):
    """Wait for a child for two seconds, then cancel it."""

    async def run(self, context):
        child = await context.start("kid")
        with contextlib.suppress(TimeoutError):
            await child.wait(2)
        child.cancel()
        await child.wait()
        return child.state.value


def virtually(main, *, kid="Slow", **options):
    async def run():
        KIDS.clear()
        async with Server(**{"pools": {"db": 9}, **options}) as server:
            server.register_tasks("std", scattersphere.tasks.ALL)
            server.register_tasks("app", [Parent, LateParent, Slow, Quick, Recursive, Two, Busy, Impatient])
            server.define(JobDefinition.build("kid").task("k", kid, pool="db").done())
            server.define(JobDefinition.build("rec").task("r", "Recursive").done())
            server.define(JobDefinition.build("short", timeout=2).task("p", "Parent").done())
            server.define(JobDefinition.build("tries").task("p", "Parent", timeout=2).done())
            tidy = JobDefinition.build("tidy").task("a", "Slow").task("p", "Parent", finally_=True)
            server.define(tidy.done())
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("verb", ["stop", "cancel", "kill"])
def test_what_ends_a_run_ends_the_runs_that_its_bodies_started(verb):
    async def main(server):
        run = await server.start_task("Parent")
        await trio.sleep(1.5)
        getattr(run, verb)("enough")
        await run.wait(60)
        await trio.testing.wait_all_tasks_blocked()
        (kid,) = KIDS
        assert kid.state.ended
        assert kid.state in {RunState.CANCELLED, RunState.STOPPED, RunState.SUCCEEDED}
        assert kid.reason == "its parent, run 1, is ending"

    virtually(main)


@pytest.mark.parametrize("job", ["short", "tries"])
def test_a_timeout_of_a_run_or_of_an_attempt_ends_the_runs_that_it_started(job):
    async def main(server):
        run = await (await server.start(job)).wait()
        await trio.testing.wait_all_tasks_blocked()
        assert run.state is RunState.FAILED
        assert KIDS[0].state is RunState.CANCELLED

    virtually(main)


@pytest.mark.parametrize("verb", ["stop", "cancel", "kill"])
def test_a_child_that_is_started_after_the_request_has_the_same_fate(verb):
    async def main(server):
        run = await server.start_task("LateParent")
        await trio.sleep(1)
        getattr(run, verb)()
        await run.wait()
        await trio.testing.wait_all_tasks_blocked()
        (kid,) = KIDS
        assert kid.state is (RunState.STOPPED if verb == "stop" else RunState.CANCELLED)
        assert all(task.state is TaskState.CANCELLED and not task.attempts for task in kid.tasks.values())

    virtually(main)


def test_a_child_that_is_started_during_a_pause_is_held_until_it_is_resumed():
    async def main(server):
        run = await server.start_task("LateParent")
        await trio.sleep(1)
        run.pause()
        await trio.sleep(10)
        (kid,) = KIDS
        assert kid.state is RunState.PAUSED
        assert not kid.tasks["k"].attempts

    virtually(main)


def test_a_finally_task_may_start_a_child_after_a_cancel_and_waits_for_its_end():
    async def main(server):
        run = await server.start("tidy")
        await trio.sleep(1)
        run.cancel()
        await run.wait()
        assert run.state is RunState.CANCELLED
        assert run.results["p"] == "succeeded"
        assert KIDS[0].succeeded

    virtually(main)


def test_a_parent_is_paused_when_its_child_is():
    async def main(server):
        run = await server.start_task("Parent")
        await trio.sleep(1.5)
        run.pause()
        assert run.state is RunState.PAUSING  # the child has not come to its checkpoint
        await trio.sleep(10)
        assert run.state is KIDS[0].state is RunState.PAUSED
        run.resume()
        await run.wait()
        assert run.succeeded
        assert run.results["Parent"] == "succeeded"

    virtually(main)


def test_a_parent_of_which_a_task_works_while_another_waits_for_a_child_is_paused_when_that_one_is_held():
    async def main(server):
        run = await server.start_task("Busy")
        await trio.sleep(1.5)
        run.pause()
        await trio.sleep(2)
        assert KIDS[0].state is RunState.PAUSED
        assert run.state is RunState.PAUSING  # it works
        await trio.sleep(4)
        assert run.state is RunState.PAUSED  # at a checkpoint, and waiting for a run that is paused
        run.resume()
        assert (await run.wait(60)).succeeded

    virtually(main)


def test_a_job_that_starts_itself_gets_an_error_at_the_sixteenth_level_that_names_the_chain():
    async def main(server):
        run = await (await server.start("rec")).wait()
        assert run.state is RunState.FAILED
        assert len(server.runs) == 17
        message = run.tasks["r"].failure.message
        assert "child runs may be nested 16 deep" in message
        assert "rec#1/r > rec#2/r > rec#3/r" in message
        assert "rec#17" in message

    virtually(main)


@pytest.mark.parametrize(
    "options", [{"max_parallel": 1}, {"pools": {"db": 1}}], ids=["of the server", "of a pool"]
)
@pytest.mark.parametrize("task", ["Parent", "Two", "Impatient"])
def test_a_parent_lends_its_places_while_it_waits_for_its_child(options, task):
    async def main(server):
        server.define(JobDefinition.build("par", max_parallel=1).task("p", task, pool="db").done())
        one, two = await server.start("par"), await server.start("par")
        await one.wait(1000)
        await two.wait(1000)
        assert one.succeeded, one.explain()
        assert two.succeeded, two.explain()
        dispatcher = server._executor.dispatcher
        assert dispatcher.free == options.get("max_parallel", dispatcher.free)
        assert dispatcher.pools["db"].free == options.get("pools", {"db": 9})["db"]

    virtually(main, **options)


def test_a_child_takes_no_slot_and_is_never_refused():
    async def main(server):
        assert (await server.run_task("Parent")).result == "succeeded"

    virtually(main, kid="Quick", max_runs=1, queue_limit=0)


def test_a_parent_goes_on_only_when_it_has_its_place_again():
    async def main(server):
        server.define(JobDefinition.build("par").task("p", "Parent", pool="db").done())
        server.define(JobDefinition.build("other").task("o", "Slow", pool="db").done())
        run = await server.start("par")
        await trio.sleep(0.5)
        other = await server.start("other")  # waits for the child's place, and the parent for its own
        await run.wait()
        assert run.succeeded
        assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(20)  # it came second
        await other.wait()
        assert other.succeeded

    virtually(main, pools={"db": 1})


@pytest.mark.parametrize("verb", ["stop", "cancel", "kill"])
def test_a_parent_that_is_ended_while_it_waits_for_its_place_leaves_all_places_free(verb):
    async def main(server):
        server.define(JobDefinition.build("par").task("p", "Parent", pool="db").done())
        server.define(JobDefinition.build("other").task("o", "Slow", pool="db", priority=5).done())
        run = await server.start("par")
        await trio.sleep(0.5)
        other = await server.start("other")
        await trio.sleep(9.7)  # the child has ended, and the more important one has its place
        assert KIDS[0].succeeded
        assert run.tasks["p"].state is TaskState.RUNNING
        getattr(run, verb)()
        await run.wait()
        await other.wait()
        assert other.succeeded
        assert run.state is (RunState.SUCCEEDED if verb == "stop" else RunState.CANCELLED)
        assert server._executor.dispatcher.pools["db"].free == 1

    virtually(main, pools={"db": 1})


@pytest.mark.anyio
async def test_run_job_needs_no_second_place():
    async with Server(max_parallel=1) as server:
        server.register_tasks("std", scattersphere.tasks.ALL)
        server.register_tasks("app", [Quick])
        server.define(JobDefinition.build("kid").task("k", "Quick").done())
        run = await (await server.start_task("RunJob", {"job": "kid"})).wait(PATIENCE)
        assert run.succeeded, run.explain()


ENDS: list = []


class UntilTold(RunnableTask):
    """End when it is told to, and look at nothing else meanwhile."""

    async def run(self, context):
        begun, end = ENDS[-1]
        begun.set()
        await end.wait()


@pytest.mark.anyio
async def test_a_parent_whose_child_ends_during_a_pause_is_held_and_goes_on_at_the_resume():
    begun, end = anyio.Event(), anyio.Event()
    ENDS.append((begun, end))
    async with Server() as server:
        server.register_tasks("app", [Parent, UntilTold])
        server.define(JobDefinition.build("kid").task("k", "UntilTold").done())
        run = await server.start_task("Parent")
        with anyio.fail_after(PATIENCE):
            await begun.wait()
            run.pause()
            end.set()
            async for _ in run.events():
                if run.state is RunState.PAUSED:
                    break
            run.resume()
            await run.wait()
        assert run.succeeded


class Waiters(RunnableTask):
    """Wait for runs of these jobs in tasks of its own, each begun after so many seconds; note when each went on."""

    waits: list[tuple[str, float]]

    async def run(self, context):
        begun, runs, ends = anyio.current_time(), {}, []

        async def wait_for(job, after):
            await anyio.sleep(after)
            if job not in runs:
                runs[job] = await context.start(job)
            await runs[job].wait()
            ends.append((job, round(anyio.current_time() - begun)))

        async with anyio.create_task_group() as group:
            for job, after in self.waits:
                group.start_soon(wait_for, job, after)
        return ends


class Sleep(RunnableTask):
    """Take so many seconds."""

    seconds: float

    async def run(self):
        await anyio.sleep(self.seconds)


@both_loops
@pytest.mark.parametrize(
    ("waits", "ends"),
    [
        pytest.param([("one", 0), ("one", 0)], [("one", 10)] * 2, id="twice for one run"),
        pytest.param(
            [("one", 0), ("one", 0.6), ("two", 1.2)],
            [("one", 10), ("one", 10), ("two", 10)],
            id="for runs that end while it waits for its places",
        ),
        pytest.param(
            [("one", 0), ("pooled", 2)],
            [("one", 10), ("pooled", 14)],
            id="for one that is started while it waits for them and needs them itself",
        ),
        pytest.param(
            [("one", 0), ("long", 2)],
            [("one", 10), ("long", 22)],
            id="for one that goes on when it has them",
        ),
    ],
)
def test_a_parent_that_waits_in_several_tasks_goes_on_in_all_of_them(backend, waits, ends):
    """Another has its place from 0.5 to 10 seconds: it is waited for, in each of its tasks, and lent again."""

    async def main():
        async with Server(pools={"db": 1}) as server:
            server.register_tasks("app", [Waiters, Sleep])
            for job, seconds in (("one", 1), ("two", 1), ("long", 20)):
                server.define(JobDefinition.build(job).task("t", "Sleep", args={"seconds": seconds}).done())
            pooled = JobDefinition.build("pooled").task("t", "Sleep", args={"seconds": 4}, pool="db")
            server.define(pooled.done())
            other = JobDefinition.build("other").task("t", "Sleep", args={"seconds": 9.5}, pool="db")
            server.define(other.done())
            server.define(
                JobDefinition.build("par").task("p", "Waiters", args={"waits": waits}, pool="db").done()
            )
            run = await server.start("par")
            await anyio.sleep(0.5)
            other = await server.start("other")
            await run.wait(1000)
            assert run.state is RunState.SUCCEEDED, run.explain()
            assert sorted(run.result) == sorted(ends)
            assert other.succeeded
            assert server._executor.dispatcher.pools["db"].free == 1

    run_virtually(backend, main)


class WaitsTwice(RunnableTask):
    """Wait for one run in two tasks, of which one has no patience."""

    async def run(self, context):
        child = await context.start("kid")

        async def waits(at_most):
            with contextlib.suppress(TimeoutError):
                await child.wait(at_most)

        async with anyio.create_task_group() as group:
            group.start_soon(waits, None)
            group.start_soon(waits, 2)


@both_loops
def test_a_parent_of_which_one_task_has_waited_enough_still_lends_its_places_for_the_other(backend):
    async def main():
        async with Server(pools={"db": 1}) as server:
            server.register_tasks("app", [WaitsTwice, Sleep])
            server.define(JobDefinition.build("kid").task("k", "Sleep", args={"seconds": 5}).done())
            server.define(JobDefinition.build("par").task("p", "WaitsTwice", pool="db").done())
            server.define(
                JobDefinition.build("other").task("o", "Sleep", args={"seconds": 1}, pool="db").done()
            )
            run = await server.start("par")
            await anyio.sleep(3)
            other = await server.start("other")
            await other.wait()
            assert (other.ended_at - other.started_at).total_seconds() == pytest.approx(1)
            await run.wait()
            assert run.succeeded

    run_virtually(backend, main)

"""Runs go on after a crash: what was committed stays, what executed is done again, and nothing else is."""

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, Note, World

from scattersphere import (
    ConflictError,
    JobDefinition,
    JournalError,
    RetryPolicy,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    TaskDefinition,
)
from scattersphere._blocking import ready
from scattersphere.abc.journal import ValueForm
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


def note(name, *upstreams, **fields):
    args = {key: fields.pop(key) for key in ("value", "gate", "fails") if key in fields}
    return TaskDefinition(task="Note", args={"name": name, **args}, depends_on=upstreams, **fields)


def job(name="etl", /, **tasks):
    return JobDefinition(name=name, tasks=tasks)


async def settle():
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_a_run_ends_and_its_rows_say_so(world):
    journal = MemoryJournal()
    async with Life(journal, jobs=[job(a=note("a", value=1), b=note("b", "a", value=[2]))]) as life:
        run = await life.server.start("etl")
        await run.wait()
        assert run.state is RunState.SUCCEEDED
    (stored,) = journal.again().read_runs([run.id])
    assert [(step.unit, step.value) for step in stored.steps] == [(0, b"1"), (1, b"[2]")]


async def test_an_outcome_is_believed_when_it_is_committed(world):
    journal = MemoryJournal()
    async with (
        Life(journal, jobs=[job(a=note("a", value=1), b=note("b", "a"))]) as life,
        anyio.create_task_group() as tasks,
    ):
        journal.auto = False
        tasks.start_soon(life.server.start, "etl")
        await settle()
        assert not world.begun  # nothing starts before its run is durable
        journal.commit_all()
        await settle()
        run = life.server.runs[1]
        assert dict(world.begun) == {"a": 1}
        assert run.tasks["a"].state == "running"
        journal.commit_all()
        await settle()
        assert dict(world.begun) == {"a": 1, "b": 1}
        assert run.tasks["a"].state == "succeeded"
        assert run.state is RunState.RUNNING
        journal.commit_all()
        await settle()
        assert run.state is RunState.RUNNING  # its end is not durable yet
        journal.commit_all()
        await settle()
        assert run.state is RunState.SUCCEEDED
        journal.auto = True


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "cancel", "kill"])
async def test_what_is_asked_of_a_run_whose_end_is_not_durable_yet_comes_too_late(world, verb):
    journal = MemoryJournal()
    async with (
        Life(journal, jobs=[job(a=note("a", value=1, gate="a"))]) as life,
        anyio.create_task_group() as tasks,
    ):
        run = await life.server.start("etl")
        await settle()
        run.pause()
        await settle()
        journal.auto = False
        world.gate("a").set()
        while not run.execution.is_end_held:
            await settle()
            journal.commit()
        assert run.state is RunState.PAUSING  # as far as anybody may know
        getattr(run, verb)()
        journal.auto = True
        journal.commit_all()
        tasks.start_soon(run.wait)
    assert run.state is RunState.SUCCEEDED


async def test_a_crash_takes_what_was_not_committed_and_nothing_else(world):
    definition = job(a=note("a", value=[1]), b=note("b", "a", gate="b", value="x"), c=note("c", "b"))
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    assert dict(world.begun) == {"a": 1, "b": 1}
    after = await life.crash()
    world.gate("b").set()
    async with Life(after) as life:
        run = life.server.runs[run.id]
        with anyio.fail_after(PATIENCE):
            await run.wait()
        assert run.state is RunState.SUCCEEDED
        assert dict(run.results) == {"a": [1], "b": "x", "c": None}
        assert run.recovered == 1
    assert dict(world.begun) == {"a": 1, "b": 2, "c": 1}
    assert len(world.keys) == 3


async def test_the_results_of_a_map_are_in_its_order_whichever_of_its_instances_had_ended(world):
    names = {"name": ["x", "y", "z"], "value": {"$literal": [1, 2, 3]}, "gate": ["", "y", ""]}
    definition = JobDefinition(
        name="etl",
        tasks={
            "first": TaskDefinition(task="Note", args={"gate": "first"}, map={"name": ["first"]}),
            "each": TaskDefinition(task="Note", map=names),
        },
    )
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    assert dict(world.begun) == {"first": 1, "x": 1, "y": 1, "z": 1}
    after = await life.crash()
    world.gate("first").set()
    world.gate("y").set()
    async with Life(after) as life:
        assert (await life.server.runs[run.id].wait()).results["each"] == [1, 2, 3]
    assert dict(world.begun) == {"first": 2, "x": 1, "y": 2, "z": 1}


async def test_waiters_are_told_of_a_suspend_and_the_run_goes_on(world):
    from scattersphere import SuspendedError

    definition = job(a=note("a", gate="a", value=1), b=note("b", "a"))
    journal = MemoryJournal()
    async with Life(journal, jobs=[definition]) as life:
        run = await life.server.start("etl")
        await settle()
        async with anyio.create_task_group() as tasks:

            async def wait():
                with pytest.raises(SuspendedError):
                    await run.wait()

            tasks.start_soon(wait)
            await settle()
            await life.server.aclose(finish=0)
        assert run.state is RunState.RUNNING
    world.gate("a").set()
    async with Life(journal.again()) as life:
        run = await life.server.runs[run.id].wait()
        assert (run.state, run.recovered) == (RunState.SUCCEEDED, 1)
    assert dict(world.begun) == {"a": 2, "b": 1}


async def test_instances_of_a_map_that_ended_stay_and_the_others_are_done(world):
    each = TaskDefinition(
        task="Note", args={"gate": "b"}, map={"name": ["x", "y", "z"], "value": {"$literal": [1, 2, 3]}}
    )
    first = note("first", value=0)
    definition = JobDefinition(name="etl", tasks={"first": first, "each": each, "last": note("last", "each")})
    world.gate("b").set()
    journal = MemoryJournal()
    life = await Life(journal, jobs=[definition], max_parallel=1).__aenter__()
    journal.on_commit = lambda done: world.begun["y"] and journal.crash_after is None and stop(journal)

    def stop(journal):
        journal.crash_after = journal.commits

    run = await life.server.start("etl")
    await settle()
    async with Life(await life.crash(), max_parallel=1) as life:
        run = await life.server.runs[run.id].wait()
        assert run.results["each"] == [1, 2, 3]
    assert (world.begun["x"], world.begun["y"], world.begun["z"]) == (1, 1, 2)


async def test_a_retry_keeps_its_count_and_its_due_time(world):
    retry = RetryPolicy(max_attempts=3, delay=200, jitter=False)
    definition = job(a=note("a", fails=1, value=1, retry=retry))
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    assert run.tasks["a"].state == "up_for_retry"
    async with Life(await life.crash()) as life:
        run = life.server.runs[run.id]
        await settle()
        assert run.tasks["a"].state == "up_for_retry"
        assert run.tasks["a"].attempts == 1
        assert "RuntimeError: failure 1" in str(run.tasks["a"].failure)
        (timer,) = run.execution.retries.values()
        assert 100 < timer.when - life.server._executor.clock() <= 200


async def test_a_failed_run_ends_as_it_would_have_without_the_crash(world):
    definition = job(
        a=note("a", fails=9), b=note("b", "a"), c=note("c", gate="c"), d=note("d", "c", finally_=True)
    )
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    world.gate("c").set()
    async with Life(await life.crash()) as life:
        run = await life.server.runs[run.id].wait()
        assert run.state is RunState.FAILED
        states = {name: str(status.state) for name, status in run.tasks.items()}
        assert states == {"a": "failed", "b": "upstream_failed", "c": "succeeded", "d": "succeeded"}
        assert "failure 1" in str(run.tasks["a"].failure)
    assert dict(world.begun) == {"a": 1, "c": 2, "d": 1}


@pytest.mark.parametrize("verb", ["stop", "cancel"])
async def test_what_was_asked_of_a_run_is_still_asked_of_it(world, verb):
    definition = job(a=note("a", gate="a"), b=note("b", "a"), last=note("last", finally_=True, gate="last"))
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    getattr(run, verb)("enough")
    await settle()
    world.gate("last").set()
    async with Life(await life.crash()) as life:
        run = await life.server.runs[run.id].wait()
        assert run.state is (RunState.STOPPED if verb == "stop" else RunState.CANCELLED)
        assert run.tasks["a"].state == "cancelled"
        assert run.tasks["last"].state == "succeeded"
        assert "enough" in run.reason


async def test_a_paused_run_comes_back_paused(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", gate="a"), b=note("b", "a"))]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    run.pause()
    await settle()
    assert run.state is RunState.PAUSING
    world.gate("a").set()
    journal = life.journal
    journal.crash_after = journal.commits
    async with Life(await life.crash()) as life:
        run = life.server.runs[run.id]
        await settle()
        assert run.state is RunState.PAUSED
        run.resume()
        assert (await run.wait()).state is RunState.SUCCEEDED
    assert dict(world.begun) == {"a": 2, "b": 1}


async def test_a_task_that_must_not_be_done_twice_has_crashed(world):
    definition = job(a=note("a", gate="a", on_restart="fail"), b=note("b", "a"))
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    assert world.begun["a"] == 1
    async with Life(await life.crash()) as life:
        run = await life.server.runs[run.id].wait()
        assert run.state is RunState.FAILED
        assert run.tasks["a"].state == "crashed"
        assert 'on_restart": "fail' in str(run.tasks["a"].failure)
    assert dict(world.begun) == {"a": 1}


async def test_a_job_that_is_not_to_go_on_has_crashed_and_says_why(world):
    definition = JobDefinition(name="etl", tasks={"a": note("a", gate="a")}, on_restart="crash")
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    after = await life.crash()
    async with Life(after) as life:
        assert run.id not in life.server.runs
        (stored,) = after.read_runs([run.id])
        assert "on_restart" in stored.state.failure
    assert dict(world.begun) == {"a": 1}


async def test_three_restarts_without_an_outcome_are_the_tasks_own_fault(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", gate="a"))]).__aenter__()
    run = await life.server.start("etl")
    for _ in range(3):
        await settle()
        after = await life.crash()
        life = await Life(after).__aenter__()
    run = await life.server.runs[run.id].wait()
    assert run.tasks["a"].state == "crashed"
    assert world.begun["a"] == 3
    await life.server.aclose()


async def test_a_run_whose_code_is_not_there_waits_and_can_be_cancelled(world):
    life = await Life(
        MemoryJournal(), jobs=[job(a=note("a", value=1), b=note("b", "a", gate="b"))]
    ).__aenter__()
    first, second = await life.server.start("etl"), await life.server.start("etl")
    await settle()
    async with Life(await life.crash(), classes=()) as life:
        server = life.server
        first, second = server.runs[first.id], server.runs[second.id]
        assert "no bundle 'app'" in first.waits_for
        assert (first.state, str(first.tasks["a"].state)) == (RunState.RUNNING, "succeeded")
        with pytest.raises(RunStateError, match="waits for its code"):
            first.pause()
        first.cancel()
        assert (await first.wait()).state is RunState.CANCELLED
        world.gate("b").set()
        server.register_tasks("app", [Note])
        assert (await second.wait()).state is RunState.SUCCEEDED
    assert dict(world.begun) == {"a": 2, "b": 3}


async def test_numbers_never_come_again_and_keys_stand_for_runs_of_earlier_lives(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", value=[1]))]).__aenter__()
    run = await life.server.start("etl", key="k")
    await run.wait()
    async with Life(await life.crash(), jobs=[job(a=note("a", value=[1]))]) as life:
        again = await life.server.start("etl", key="k")
        assert (again.id, again.state, again.results["a"]) == (run.id, RunState.SUCCEEDED, [1])
        new = await life.server.start("etl")
        assert new.id > run.id
        await new.wait()
    assert world.begun["a"] == 2


async def test_a_run_is_of_its_user_in_later_lives_too_and_so_is_its_key(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", value=[1]))]).__aenter__()
    run = await life.server.start("etl", key="k", user="ann")
    await run.wait()
    async with Life(await life.crash(), jobs=[job(a=note("a", value=[1]))]) as life:
        again = await life.server.start("etl", key="k", user="ann")
        assert (again.id, again.user) == (run.id, "ann")
        assert (await life.server.start("etl", key="k", user="bob")).id != run.id


async def test_the_key_of_a_task_stands_for_its_run_of_an_earlier_life_and_of_no_other(world):
    journal, task = MemoryJournal(), "Note"
    async with Life(journal) as life:
        first = await life.server.run_task(task, {"name": "a"}, key="k")
        waits = await life.server.start_task(task, {"name": "b", "gate": "b"}, key="waits")
    async with Life(journal.again()) as life:
        assert (await life.server.start_task(task, {"name": "a"}, key="k")).id == first.id
        assert (await life.server.start_task(task, {"name": "b", "gate": "b"}, key="waits")).id == waits.id
        with pytest.raises(ConflictError):
            await life.server.start_task(task, {"name": "c"}, key="k")
        world.gate("b").set()
        assert (await life.server.runs[waits.id].wait()).succeeded
    assert world.begun["a"] == 1


async def test_a_key_stands_for_its_run_though_memory_keeps_no_runs(world):
    journal, definition = MemoryJournal(), job(a=note("a"))
    async with Life(journal, jobs=[definition], history=(0, 1e9)) as life:
        first = await life.server.run("etl", key="k")
        assert first.id not in life.server.runs
        assert (await life.server.run("etl", key="k")).id == first.id
        assert not life.server.problems
    async with Life(journal.again(), jobs=[definition], history=(0, 1e9)) as life:
        assert (await life.server.run("etl", key="k")).id == first.id
    assert world.begun == {"a": 1}


async def test_a_key_stands_for_an_unfinished_run_though_the_job_is_defined_later_and_otherwise(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", gate="a"))]).__aenter__()
    run = await life.server.start("etl", key="k")
    changed = job(a=note("a", gate="a"), b=note("b"))
    async with Life(await life.crash(), jobs=[changed]) as life:
        again = await life.server.start("etl", key="k")
        assert again.id == run.id
        world.gate("a").set()
        assert (await again.wait()).state is RunState.SUCCEEDED


async def test_queued_runs_are_there_again_in_their_order(world):
    definition = JobDefinition(name="etl", tasks={"a": note("a", gate="a")}, max_runs=1)
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    runs = [await life.server.start("etl") for _ in range(3)]
    await settle()
    assert [run.state for run in runs] == [RunState.RUNNING, RunState.QUEUED, RunState.QUEUED]
    async with Life(await life.crash(), jobs=[definition]) as life:
        runs = [life.server.runs[run.id] for run in runs]
        await settle()
        assert [run.state for run in runs] == [RunState.RUNNING, RunState.QUEUED, RunState.QUEUED]
        world.gate("a").set()
        for run in runs:
            assert (await run.wait()).state is RunState.SUCCEEDED
    assert world.begun["a"] == 4


async def test_a_parent_that_is_done_again_gets_the_child_that_it_had(world):
    jobs = [
        JobDefinition(name="parent", tasks={"p": TaskDefinition(task="Parent")}),
        JobDefinition(name="child", tasks={"c": note("c", gate="c", value=1)}),
    ]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    run = await life.server.start("parent")
    await settle()
    assert world.begun == {"parent": 1, "c": 1}
    async with Life(await life.crash(), jobs=jobs) as life:
        await settle()
        world.gate("c").set()
        run = await life.server.runs[run.id].wait()
        assert run.state is RunState.SUCCEEDED
        assert run.results["p"] == 2
        assert len(life.server.runs) == 2
    assert world.begun == {"parent": 2, "c": 2}


async def test_a_result_that_could_not_be_kept_is_made_again_where_it_is_read(world):
    definition = job(a=note("a"), b=note("b", "a", gate="b"), c=note("c"))
    life = await Life(MemoryJournal(), jobs=[definition], classes=(Odd,)).__aenter__()
    run = await life.server.start("etl")
    seen = set()
    async for event in run.events():
        seen.add((str(event.kind), event.task))
        if {("task-ended", "c"), ("task-started", "b")} <= seen:
            break
    world.gate("b").set()
    async with Life(await life.crash(), classes=(Odd,)) as life:
        run = await life.server.runs[run.id].wait()
        assert run.state is RunState.SUCCEEDED
        kinds = [event.kind async for event in run.events()]
        assert "run-recovered" in kinds
        assert "task-reset" in kinds
    assert dict(world.begun) == {"a": 2, "b": 2, "c": 1}


class Odd(Note):
    """Returns what has no exact form."""

    async def run(self, context):
        await super().run(context)
        return object()


Odd.__qualname__ = "Note"


@pytest.mark.parametrize("lasting", [False, True])
async def test_a_commit_that_fails_holds_runs_and_refuses_new_ones(world, lasting):
    journal = MemoryJournal()
    async with Life(journal, jobs=[job(a=note("a", gate="a"))]) as life:
        run = await life.server.start("etl")
        await settle()
        journal.auto = False
        journal.fail_next(lasting=lasting)
        world.gate("a").set()
        await settle()
        assert not journal.commit()
        assert run.tasks["a"].state == "running"
        assert run.tasks["a"].waits_for.startswith("the journal, which commits nothing at present: ")
        assert "a  > running" in run.explain()
        assert "disk is full" in run.explain()
        with pytest.raises(JournalError, match="disk is full"):
            await life.server.start("etl")
        assert "disk is full" in str(life.server.problems)
        if not lasting:
            journal.auto = True
            journal.commit_all()
            assert (await run.wait()).state is RunState.SUCCEEDED
            assert not life.server.problems
            await (await life.server.start("etl")).wait()


async def test_relaxed_runs_do_not_wait_for_commits_but_for_their_end(world):
    journal = MemoryJournal()
    definition = JobDefinition(name="etl", tasks={"a": note("a"), "b": note("b", "a")}, durability="relaxed")
    async with Life(journal, jobs=[definition]) as life:
        run = await life.server.start("etl")
        journal.auto = False
        await settle()
        assert dict(world.begun) == {"a": 1, "b": 1}
        assert run.state is RunState.RUNNING
        journal.commit_all()
        await settle()
        journal.commit_all()
        assert run.state is RunState.SUCCEEDED
        journal.auto = True


async def test_runs_without_durability_are_forgotten_by_a_crash_and_cancelled_by_a_close(world):
    definition = JobDefinition(name="etl", tasks={"a": note("a", gate="a")}, durability="none")
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    async with Life(await life.crash(), jobs=[definition]) as life:
        assert not life.server.runs
        run = await life.server.start("etl")
        await settle()
        await life.server.aclose()
    assert run.state is RunState.CANCELLED


async def test_what_is_asked_of_a_parent_reaches_the_children_that_it_had(world):
    jobs = [
        JobDefinition(name="parent", tasks={"p": TaskDefinition(task="Parent")}),
        JobDefinition(name="child", tasks={"c": note("c", gate="c", value=1)}),
    ]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    run = await life.server.start("parent")
    await settle()
    run.pause()
    await settle()
    async with Life(await life.crash(), jobs=jobs) as life:
        run, child = life.server.runs[run.id], life.server.runs[run.id + 1]
        await settle()
        assert (run.state, child.state) == (RunState.PAUSED, RunState.PAUSED)
        run.resume()
        world.gate("c").set()
        assert (await run.wait()).state is RunState.SUCCEEDED
    assert world.begun == {"parent": 2, "c": 2}


async def test_children_of_a_run_that_cannot_go_on_are_cancelled(world):
    jobs = [
        JobDefinition(name="parent", tasks={"p": TaskDefinition(task="Parent")}, on_restart="crash"),
        JobDefinition(name="child", tasks={"c": note("c", gate="c")}),
    ]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    run = await life.server.start("parent")
    await settle()
    async with Life(await life.crash(), jobs=jobs) as life:
        child = life.server.runs[run.id + 1]
        assert (await child.wait()).state is RunState.CANCELLED
        assert "could not go on" in child.reason


async def test_children_of_a_task_that_must_not_run_again_are_cancelled_whichever_life_comes_to_that(world):
    parent = {"p": TaskDefinition(task="Parent", on_restart="fail"), "other": note("other", gate="other")}
    jobs = [
        JobDefinition(name="parent", tasks=parent),
        JobDefinition(name="child", tasks={"c": note("c", gate="c")}),
    ]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    run = await life.server.start("parent")
    await settle()
    life.server.runs[run.id + 1].pause()
    await settle()
    after = await life.crash()
    after.crash_after = 1  # only the first transaction of this life, in which the task has crashed
    after = await (await Life(after, jobs=jobs).__aenter__()).crash()
    async with Life(after, jobs=jobs) as life:
        child = life.server.runs[run.id + 1]
        assert (await child.wait()).state is RunState.CANCELLED
        assert "could not go on" in child.reason
        world.gate("other").set()
        run = await life.server.runs[run.id].wait()
        assert run.tasks["p"].state == "crashed"
    assert world.begun["c"] == 1


async def test_children_of_what_a_failing_run_does_not_begin_again_are_cancelled(world):
    parent = {
        "p": TaskDefinition(task="Parent"),
        "bad": note("bad", gate="bad", fails=9),
        "last": note("last", "p"),
    }
    jobs = [
        JobDefinition(name="parent", tasks=parent, fail_fast=True),
        JobDefinition(name="child", tasks={"c": note("c", gate="c")}),
    ]
    life = await Life(MemoryJournal(), jobs=jobs).__aenter__()
    run = await life.server.start("parent")
    await settle()
    run.pause()
    world.gate("bad").set()
    await settle()
    async with Life(await life.crash(), jobs=jobs) as life:
        child = life.server.runs[run.id + 1]
        run = life.server.runs[run.id]
        with anyio.fail_after(PATIENCE):
            assert (await child.wait()).state is RunState.CANCELLED
        assert "could not go on" in child.reason
        await run.wait()
        assert run.tasks["p"].state == "cancelled"


async def test_the_end_of_a_map_that_was_not_written_is_written_when_the_run_goes_on(world):
    each = TaskDefinition(task="Note", map={"name": ["x", "y"], "value": {"$literal": [1, 2]}})
    definition = JobDefinition(name="etl", tasks={"each": each, "last": note("last", "each", gate="last")})
    journal = MemoryJournal()

    def stop(transaction):
        steps = journal.read_runs([1])[0].steps if journal.read_runs([1]) else ()
        if [step.place for step in steps] == [0, 1]:
            journal.crash_after = journal.commits

    journal.on_commit = stop
    life = await Life(journal, jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    world.gate("last").set()
    after = await life.crash()
    assert [step.place for step in after.read_runs([1])[0].steps] == [0, 1]
    async with Life(after) as life:
        assert (await life.server.runs[run.id].wait()).results["each"] == [1, 2]
        assert [step.task for step in after.read_runs([1])[0].steps] == [0, 1, 0, 0]
    assert (world.begun["x"], world.begun["y"]) == (1, 1)


async def test_what_is_asked_of_a_run_that_was_recovered_is_durable_too(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", gate="a"))]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    life = await Life(await life.crash()).__aenter__()
    await settle()
    life.server.runs[run.id].pause()
    await life.server.committed()
    world.gate("a").set()
    async with Life(await life.crash()) as life:
        run = life.server.runs[run.id]
        await settle()
        assert run.state is RunState.PAUSED
        run.cancel()


async def test_numbers_go_on_after_a_close_and_leave_a_gap_after_a_crash(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a"))]).__aenter__()
    assert (await life.server.run("etl")).id == 1
    await life.__aexit__()
    life = await Life(life.journal.again(), jobs=[job(a=note("a"))]).__aenter__()
    assert (await life.server.run("etl")).id == 2
    async with Life(await life.crash(), jobs=[job(a=note("a"))]) as life:
        assert (await life.server.run("etl")).id > 3


class Stubborn(RunnableTask):
    """Takes a cancel for nothing until it is killed."""

    async def run(self, context):
        WORLD["now"].begun["stubborn"] += 1
        while not context.killed:
            try:
                await anyio.sleep_forever()
            except BaseException:
                if context.killed:
                    raise


async def test_who_hurries_a_close_kills_what_executes_and_its_run_goes_on_all_the_same(world):
    stubborn = JobDefinition(name="etl", tasks={"a": TaskDefinition(task="Stubborn")})
    journal = MemoryJournal()
    async with anyio.create_task_group() as tasks:
        life = Life(journal, classes=[Stubborn], jobs=[stubborn])
        life.server = Server(journal=journal, watch=False, grace=86_400)
        async with life:
            run = await life.server.start("etl")
            await settle()
            tasks.start_soon(life.server.aclose)
            await settle()
            life.server.hurry()
            with anyio.fail_after(PATIENCE):
                await life.server.aclose()
    async with Life(journal.again(), classes=[Stubborn]) as life:
        await settle()
        assert life.server.runs[run.id].state is RunState.RUNNING
        assert world.begun["stubborn"] == 2


async def test_explain_says_what_a_restart_has_done(world, caplog):
    definition = job(a=note("a", fails=1, retry=RetryPolicy(max_attempts=3)), b=note("b", "a", gate="b"))
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    life = await Life(await life.crash()).__aenter__()
    await settle()
    assert "has survived 1 restart\n" in life.server.runs[run.id].explain()
    async with Life(await life.crash()) as life:
        await settle()
        text = life.server.runs[run.id].explain()
        assert "has survived 2 restarts\n" in text
        assert "a, attempt 1: RuntimeError: failure 1" in text
        assert "1 interrupted, not counted" in text
        world.gate("b").set()
        await life.server.runs[run.id].wait()
    life = await Life(
        MemoryJournal(), jobs=[job(c=note("c", gate="c")).evolve(on_restart="crash")]
    ).__aenter__()
    run = await life.server.start("etl")
    await settle()
    caplog.clear()
    async with Life(await life.crash()) as life:
        told = [
            record.message for record in caplog.records if record.message.startswith("run 1 of etl crashed")
        ]
        assert len(told) == 1
        assert "while it lived" in told[0]
        assert [(str(event.kind), event.state) for event in ready(life.server.events())] == [
            ("run-ended", "crashed"), ("bundle-loaded", None),
        ]  # fmt: skip
        run = await life.server.history.get(run.id)
        assert "because: the program has ended while it lived" in run.explain()


async def test_runs_without_durability_are_written_with_their_end(world):
    definition = job(a=note("a", value=1), b=note("b", "a", value="x" * 9_000)).evolve(durability="none")
    journal = MemoryJournal()
    life = await Life(journal, jobs=[definition]).__aenter__()
    run = await life.server.run("etl", key="k")
    await life.server.committed()
    async with Life(await life.crash()) as life:
        again = await life.server.history.get(run.id)
        assert (again.state, again.results["a"]) == (RunState.SUCCEEDED, 1)
        with pytest.raises(KeyError, match="only small values are kept"):
            again.results["b"]
        life.server.define(definition)
        assert (await life.server.start("etl", key="k")).id == run.id


async def test_values_that_nobody_reads_any_more_leave_the_journal_with_their_last_reader(world):
    definition = job(
        n=note("n", value=[1, 2]),
        m=note("m", "n", keep_results=False).evolve(map={"value": {"$result": "n"}}),
        a=note("a", "m", value="big", keep_results=False),
        b=note("b", "a", "m"),
        c=note("c", "a", "b", gate="c"),
    )
    life = await Life(MemoryJournal(), jobs=[definition]).__aenter__()
    run = await life.server.start("etl")
    await settle()
    run.pause()  # what the journal has is written at the next occasion
    run.resume()
    await life.server.committed()
    forms = {step.unit: ValueForm(step.form) for step in life.journal.read_runs([run.id])[0].steps}
    assert forms[2] is ValueForm.JSON  # c reads it still
    assert [forms[unit] for unit in (5, 6)] == [ValueForm.DROPPED] * 2  # instances
    world.gate("c").set()
    await run.wait()
    await life.server.committed()
    (stored,) = life.journal.read_runs([run.id])
    steps = {step.unit: step for step in stored.steps}
    assert (steps[2].form, steps[2].value) == (ValueForm.DROPPED, None)
    assert steps[0].value == b"[1,2]"
    await life.__aexit__()


@pytest.mark.parametrize("results", ["exact", "pickle"])
async def test_what_has_no_exact_form_is_pickled_where_the_operator_says_so(world, results):
    class Odd(Note):
        async def run(self, context):
            return range(3)

    Odd.__qualname__ = "Odd"
    definition = JobDefinition(name="etl", tasks={"a": TaskDefinition(task="Odd", args={"name": "a"})})
    life = await Life(MemoryJournal(), classes=[Odd], jobs=[definition], results=results).__aenter__()
    run = await life.server.run("etl")
    async with Life(await life.crash(), classes=[Odd], results=results) as life:
        again = await life.server.history.get(run.id)
        assert dict(again.results) == ({"a": range(3)} if results == "pickle" else {})
        said = [line.message for line in again.logs("a")]
        assert len(said) == (results == "exact")
        assert all(line.startswith("its result is not in the journal") for line in said)


async def test_a_clock_that_was_set_back_is_a_problem_until_it_has_caught_up(world):
    journal = MemoryJournal()
    async with Life(journal, jobs=[job(a=note("a"))]) as life:
        await life.server.run("etl")
        assert not life.server.problems
    journal = journal.again()
    meta = journal._tables.meta
    journal._tables.meta = meta._replace(wall=meta.wall + 3_600_000_000)
    async with Life(journal, jobs=[job(a=note("a"))]) as life:
        (words,) = life.server.problems.values()
        assert "behind what the journal has seen" in words
        assert (await life.server.run("etl")).succeeded


async def test_drain_waits_for_no_run_that_is_paused_or_has_no_code(world):
    journal = MemoryJournal()
    life = await Life(journal, jobs=[job(a=note("a", gate="a"), z=note("z", "a"))]).__aenter__()
    await life.server.start("etl")
    await settle()
    async with Life(await life.crash(), jobs=[job("other", b=note("b", gate="b"), c=note("c", "b"))]) as life:
        lost = life.server.runs[1]
        await settle()
        other = await life.server.start("other")
        await settle()
        drained = []

        async def drain():
            drained.append(await life.server.drain())

        async with anyio.create_task_group() as tasks:
            lost.pause()
            world.gate("a").set()
            tasks.start_soon(drain)
            await settle()
            assert not drained
            other.pause()
            world.gate("b").set()
            await settle()
            assert drained
        assert {str(lost.state), str(other.state)} == {"paused"}
    async with Life(life.journal.again(), classes=()) as life:
        assert all(run.waits_for.startswith("its code") for run in life.server.runs.values())
        with anyio.fail_after(PATIENCE):
            await life.server.drain()


async def test_a_run_that_is_cancelled_before_its_code_is_there_is_recovered_first(world):
    life = await Life(MemoryJournal(), jobs=[job(a=note("a", gate="a"))]).__aenter__()
    await life.server.start("etl")
    await settle()
    async with Life(await life.crash(), classes=()) as life:
        run = life.server.runs[1]
        run.cancel()
        with anyio.fail_after(PATIENCE):
            await run.wait()
        kinds = [str(event.kind) async for event in run.events()]
        assert (kinds[0], kinds[-1]) == ("run-recovered", "run-ended")

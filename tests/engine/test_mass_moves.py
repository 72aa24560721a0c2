"""Mass moves in the driver: thousands of tasks, a few at a time, while others have their turns.

`python -m benchmarks mass` measures the milliseconds; here only the structure is shown, on a machine of any speed.
"""

import sys

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskDefinition, TaskState

pytestmark = pytest.mark.anyio

MANY = 2_000
BELOW = (
    20_000  # tasks that end without having begun, half a microsecond each: a slice of 2 ms is a fifth of them
)


class Sleep(RunnableTask):
    """Sleep until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


class Fail(RunnableTask):
    """Fail."""

    async def run(self, context):
        raise ValueError("on purpose")


class Quick(RunnableTask):
    """Return at once."""

    async def run(self, context):
        pass


@pytest.fixture
async def server():
    async with Server(grace=5) as server:
        server.register_tasks("app", [Sleep, Fail, Quick])
        yield server


def flat(task, **policies):
    tasks = {f"t{n}": TaskDefinition(task=task, **policies) for n in range(MANY)}
    return JobDefinition(name="mass", tasks=tasks)


class Watch:
    """Counts the moves of a run between two turns of the loop."""

    def __init__(self, run):
        self.run, self.most, self.turns = run, 0, 0

    async def __call__(self, *, task_status):
        journal = self.run._execution.machine.record.journal
        before = len(journal)
        task_status.started()
        while not self.run.state.ended:
            await anyio.lowlevel.checkpoint()
            now = len(self.run._execution.machine.record.journal)
            self.most, self.turns, before = max(self.most, now - before), self.turns + 1, now


async def watched(run, act):
    watch = Watch(run)
    async with anyio.create_task_group() as group:
        await group.start(watch)
        act()
        await run.wait(PATIENCE)
    # A mass move that is not sliced makes at least one move of each task in one turn.
    assert watch.most < len(run.tasks) * 3 // 4, f"{watch.most} moves in one of {watch.turns} turns"
    return watch


async def executing(run):
    while len(run._execution.live) < MANY:
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("verb", ["cancel", "kill"])
async def test_what_executes_is_ended_a_few_at_a_time(server, verb):
    server.define(flat("Sleep"))
    run = await server.start("mass")
    await executing(run)
    await watched(run, getattr(run, verb))
    assert run.state is RunState.CANCELLED
    assert {task.state for task in run.tasks.values()} == {TaskState.CANCELLED}
    assert not server.stuck


async def test_one_failure_reaches_all_below_it_a_few_at_a_time(server):
    tasks = {"root": TaskDefinition(task="Fail")}
    tasks |= {f"t{n}": TaskDefinition(task="Quick", depends_on=("root",)) for n in range(BELOW)}
    server.define(JobDefinition(name="mass", tasks=tasks))
    run = await server.start("mass")
    await watched(run, lambda: None)
    assert run.state is RunState.FAILED


async def test_a_failure_at_the_head_of_a_long_chain_does_not_recurse(server):
    tasks = {"t0": TaskDefinition(task="Fail")}
    tasks |= {f"t{n}": TaskDefinition(task="Quick", depends_on=(f"t{n - 1}",)) for n in range(1, BELOW)}
    server.define(JobDefinition(name="mass", tasks=tasks))
    assert sys.getrecursionlimit() < BELOW
    run = await server.start("mass")
    await watched(run, lambda: None)
    assert run.tasks[f"t{BELOW - 1}"].state is TaskState.UPSTREAM_FAILED


async def test_attempts_that_fail_in_one_turn_are_put_into_words_in_several(server):
    gate = anyio.Event()

    class Together(RunnableTask):
        async def run(self, context):
            await gate.wait()
            raise ValueError("together")

    bundle = server.register_tasks("together", [Together])
    server.define(flat(next(iter(bundle.tasks))))
    run = await server.start("mass")
    await executing(run)
    await watched(run, gate.set)
    assert run.state is RunState.FAILED
    assert {task.failure.message for task in run.tasks.values()} == {"together"}


async def test_attempts_whose_time_is_over_at_once_are_cancelled_a_few_at_a_time(server):
    server.define(flat("Sleep", timeout=3600))
    run = await server.start("mass")
    await executing(run)
    attempts = list(run._execution.live.values())

    def time_passes():
        timers = server._executor.deadlines.timers
        for attempt in attempts:
            timers.forget(attempt, 3600)
            timers.expire(attempt, anyio.current_time() - 1, 0)
        server._executor.deadlines.set_alarm()

    await watched(run, time_passes)
    assert run.state is RunState.FAILED
    assert {task.failure.type for task in run.tasks.values()} == {"TimeoutError"}


async def test_other_runs_start_and_end_while_a_mass_move_goes_on(server):
    server.define(flat("Sleep"))
    run = await server.start("mass")
    await executing(run)
    run.cancel()
    other = await (await server.start_task("Quick")).wait(PATIENCE)
    assert other.succeeded
    assert run.state is RunState.CANCELLING
    await run.wait(PATIENCE)


async def test_a_run_that_waits_for_its_slot_ends_at_once_however_large_it_is():
    async with Server(max_runs=1) as server:
        server.register_tasks("app", [Sleep])
        server.define(flat("Sleep").evolve(name="mass"))
        await server.start_task("Sleep")
        run = await server.start("mass")
        assert run.state is RunState.QUEUED
        run.cancel("not needed")
        assert run.state is RunState.CANCELLED
        assert {task.state for task in run.tasks.values()} == {TaskState.CANCELLED}

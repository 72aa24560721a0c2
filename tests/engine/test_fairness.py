"""Who starts next: priorities across runs, turns among equals, nobody starves, no free place is left unused."""

import itertools
from collections import Counter

import anyio
import pytest
from budgets import budget
from hypothesis import example, given
from hypothesis import strategies as st

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskDefinition, TaskState

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

BEGUN: list[tuple[float, int]] = []


class Work(RunnableTask):
    """Take a while, and note when it began."""

    seconds: float = 1.0

    async def run(self, context):
        BEGUN.append((anyio.current_time(), context.run_id))
        await anyio.sleep(self.seconds)


def job(name, count, *, priority=0, pool=None, seconds=1.0):
    tasks = {
        f"t{n}": TaskDefinition(task="Work", priority=priority, pool=pool, args={"seconds": seconds})
        for n in range(count)
    }
    return JobDefinition(name=name, tasks=tasks)


def virtually(main, **options):
    async def run():
        BEGUN.clear()
        async with Server(**options) as server:
            server.register_tasks("app", [Work])
            await main(server)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def instants():
    """Return the runs whose tasks began at each moment. Which of those is first, trio decides by lot."""
    return [
        [run_id for _, run_id in group] for _, group in itertools.groupby(sorted(BEGUN), lambda one: one[0])
    ]


async def start(server, definition):
    server.define(definition)
    return await server.start(definition.name)


@budget(40)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.integers(1, 4),
    st.booleans(),
)
def test_runs_of_equal_priority_take_turns_however_many_tasks_they_have(sizes, places, by_pool):
    """Of two that both still have something to start, neither is ever ahead by more than one."""

    async def main(server):
        pool = "p" if by_pool else None
        runs = [await start(server, job(f"j{n}", size, pool=pool)) for n, size in enumerate(sizes)]
        for run in runs:
            await run.wait()
        begun = Counter({run.id: 0 for run in runs})
        for started in instants():
            begun.update(started)
            waiting = [run.id for run in runs if begun[run.id] < len(run.tasks)]
            assert not waiting or max(begun[one] for one in started) - min(map(begun.get, waiting)) <= 1
        assert begun == {run.id: len(run.tasks) for run in runs}

    virtually(main, **({"pools": {"p": places}} if by_pool else {"max_parallel": places}))


@budget(40)
@given(
    st.lists(st.tuples(st.sampled_from([-1, 0, 0, 5]), st.integers(1, 6)), min_size=2, max_size=5),
    st.integers(1, 3),
)
def test_nothing_starts_while_something_more_urgent_waits_in_any_run(specs, places):
    async def main(server):
        # All wait behind one task that takes every place, so that they are ready at the same moment.
        blocker = await start(server, job("blocker", places))
        await trio.testing.wait_all_tasks_blocked()
        runs = [
            await start(server, job(f"j{n}", size, priority=priority))
            for n, (priority, size) in enumerate(specs)
        ]
        for run in (blocker, *runs):
            await run.wait()
        urgency = {run.id: priority for run, (priority, _) in zip(runs, specs, strict=True)}
        order = [
            sorted((urgency[run_id] for run_id in started if run_id in urgency), reverse=True)
            for started in instants()
        ]
        flat = [priority for started in order for priority in started]
        assert flat == sorted(flat, reverse=True)

    virtually(main, max_parallel=places)


def idle(server, pools, limit):
    """Name a task that is ready and could have every place that it needs, if there is one."""
    executing, by_pool = 0, Counter()
    for run in server.runs.values():
        for name, task in run.tasks.items():
            if task.state is TaskState.RUNNING:
                executing += 1
                by_pool[run.plan.definition.tasks[name].pool] += 1
    if limit is not None and executing >= limit:
        return None
    for run in server.runs.values():
        for name, task in run.tasks.items():
            pool = run.plan.definition.tasks[name].pool
            free = pool is None or by_pool[pool] < pools[pool]
            if run.state is RunState.RUNNING and task.state is TaskState.PENDING and free:
                return f"{run.id}/{name}"
    return None


@budget(60)
@example(  # a pause in the instant in which a task ends
    [(1, 0, None, 0.0), (2, 0, None, 0.0), (2, 0, "a", 1.0), (3, 0, None, 1.0), (3, 3, "a", 1.0)],
    [(0, "pause"), (0, "pause"), (0, "pause"), (4, "pause")],
    None,
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.sampled_from([0, 3]),
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([0.0, 1.0, 2.5]),
        ),
        min_size=2,
        max_size=5,
    ),
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["pause", "resume", "stop", "cancel", "kill"])),
        max_size=8,
    ),
    st.sampled_from([None, 1, 2, 3]),
)
def test_a_place_that_becomes_free_is_offered_until_somebody_takes_it(specs, requests, limit):
    """Whoever it was offered to may be held, withdrawn or ended when its turn comes."""
    pools = {"a": 1, "b": 2}

    async def main(server):
        runs = []
        for n, (size, priority, pool, seconds) in enumerate(specs):
            runs.append(
                await start(server, job(f"j{n}", size, priority=priority, pool=pool, seconds=seconds))
            )
            await trio.testing.wait_all_tasks_blocked()
            assert idle(server, pools, limit) is None
        for target, verb in requests:
            await anyio.sleep(0.75)
            run = runs[target % len(runs)]
            if run.state in {RunState.RUNNING, RunState.PAUSING, RunState.PAUSED}:
                getattr(run, verb)()
            await anyio.sleep(0.001)  # what else is due in this very instant, such as the end of a task
            await trio.testing.wait_all_tasks_blocked()
            assert idle(server, pools, limit) is None
        for run in runs:
            if run.state in {RunState.PAUSING, RunState.PAUSED}:
                run.resume()
            await run.wait(1_000)

    virtually(main, pools=pools, max_parallel=limit)


@pytest.mark.parametrize("newcomers", [1, 3])
def test_a_stream_of_short_runs_does_not_starve_a_long_one(newcomers):
    """The long run has one task to start; others come as long as it has not."""

    async def main(server):
        first = await start(server, job("first", 1))
        await trio.testing.wait_all_tasks_blocked()
        long = await start(server, job("long", 1, pool="p"))
        for n in range(20):
            for m in range(newcomers):
                await start(server, job(f"short{n}-{m}", 1, pool="p", seconds=0.5))
            await anyio.sleep(0.5)
            if not long.state.ended and long.tasks["t0"].state is not TaskState.PENDING:
                break
        else:
            pytest.fail("it has not started while 20 rounds of others have")
        assert n <= 3
        await first.wait()

    virtually(main, pools={"p": 1}, max_parallel=2, grace=0.1)


def test_queued_runs_get_their_slots_in_the_order_of_arrival():
    async def main(server):
        runs = [await start(server, job(f"j{n}", 1)) for n in range(6)]
        for run in runs:
            await run.wait()
        assert instants() == [[run.id] for run in runs]
        starts = [run.started_at for run in runs]
        assert starts == sorted(starts)

    virtually(main, max_runs=1)


class Note(RunnableTask):
    """Note which one it is when it begins."""

    number: int

    async def run(self, context):
        ORDER.append(self.number)
        await anyio.lowlevel.checkpoint()


ORDER: list[int] = []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles what becomes ready in one turn
@pytest.mark.parametrize("mapped", [False, True])
async def test_what_is_ready_together_begins_in_the_order_of_the_definition(mapped):
    ORDER.clear()
    builder = JobDefinition.build("many")
    if mapped:
        builder = builder.task("each", "Note", map={"number": list(range(100))})
    else:
        for number in range(100):
            builder = builder.task(f"t{number}", "Note", args={"number": number})
    async with Server() as server:
        server.register_tasks("app", [Note])
        server.define(builder.done())
        await (await server.start("many")).wait()
    assert sorted(ORDER) == ORDER

"""Tasks that take several places of a pool: all at once or none, and nobody is overtaken by who needs less."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import DefinitionError, JobDefinition, RunnableTask, Server, TaskDefinition
from scattersphere.engine.backends.threads import ThreadBackend

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Use(RunnableTask):
    """Use what it needs for ten seconds."""

    async def run(self, context):
        await anyio.sleep(10)


def job(name, **needs):
    tasks = {task: TaskDefinition(task="Use", needs=amounts) for task, amounts in needs.items()}
    return JobDefinition(name=name, tasks=tasks)


def begun_at(run):
    """When each task began, in seconds since the first."""
    first = min(task.started_at for task in run.tasks.values())
    return {name: round((task.started_at - first).total_seconds()) for name, task in run.tasks.items()}


def virtually(main, **pools):
    async def run():
        async with Server(pools=pools) as server:
            server.register_tasks("app", [Use])
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_as_many_run_at_once_as_there_are_places_for():
    async def main(server):
        server.define(job("j", a={"gpu": 2}, b={"gpu": 2}, c={"gpu": 2}))
        run = await (await server.start("j")).wait()
        assert sorted(begun_at(run).values()) == [0, 0, 10]

    virtually(main, gpu=5)


def test_who_waits_first_is_not_overtaken_by_who_needs_less():
    async def main(server):
        server.define(job("j", small={"gpu": 2}, large={"gpu": 3}, later={"gpu": 1}))
        run = await (await server.start("j")).wait()
        assert begun_at(run) == {"small": 0, "large": 10, "later": 20}

    virtually(main, gpu=3)


def test_several_pools_are_taken_together_and_sizes_are_bytes():
    async def main(server):
        needs = {"gpu": 1, "memory": "4KiB"}
        server.define(job("j", a=needs, b=needs, c={"memory": "2KiB"}))
        run = await server.start("j")
        await trio.sleep(1)
        assert "memory" in run.tasks["b"].waits_for
        await run.wait()
        assert run.succeeded
        assert sorted(begun_at(run).values()) in ([0, 0, 10], [0, 10, 20], [0, 10, 10])
        pools = server._executor.dispatcher.pools
        assert (pools["gpu"].free, pools["memory"].free) == (2, 6 * 1024)

    virtually(main, gpu=2, memory=6 * 1024)


def test_more_than_a_pool_has_and_a_pool_that_is_not_there_are_located_problems():
    async def main(server):
        with pytest.raises(DefinitionError) as caught:
            server.define(job("j", a={"gpu": 3}, b={"gpus": 1}))
        text = str(caught.value)
        assert "tasks.a.needs.gpu" in text
        assert "needs 3 places of pool gpu, which has 2: it could never start" in text
        assert 'no pool "gpus"' in text
        assert "did you mean" in text

    virtually(main, gpu=2)


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel", "kill"])
def test_who_waits_behind_one_that_needs_more_goes_on_when_that_one_is_withdrawn(verb):
    async def main(server):
        server.define(job("holder", task={"gpu": 1}))
        server.define(job("large", task={"gpu": 2}))
        server.define(job("small", task={"gpu": 1}))
        holder, large, small = [await server.start(name) for name in ("holder", "large", "small")]
        await trio.sleep(1)
        assert (holder.tasks["task"].state, small.tasks["task"].state) == ("running", "pending")
        getattr(large, verb)()
        await trio.sleep(1)
        assert small.tasks["task"].state == "running"
        await small.wait()
        large.resume() if verb == "pause" else None
        await large.wait()
        assert large.succeeded == (verb == "pause")

    virtually(main, gpu=2)


def test_who_waits_is_told_how_much_it_needs_who_has_it_and_who_comes_before():
    async def main(server):
        for name, amount in (("holder", 3), ("other", 1), ("large", 3), ("small", 1)):
            server.define(job(name, t={"gpu": amount}))
        _, _, large, small = [await server.start(name) for name in ("holder", "other", "large", "small")]
        await trio.sleep(1)
        held = "held by holder#1/t (3), other#2/t"
        assert large.tasks["t"].waits_for == f"3 places in pool gpu (4 of 5, {held})"
        assert small.tasks["t"].waits_for == (
            f"a place in pool gpu (4 of 5, {held}), behind large#3/t, which needs more"
        )
        assert f"({held})" in large.explain().replace("4 of 5, ", "")
        for run in (large, small):
            await run.wait()

    virtually(main, gpu=5)


@given(
    size=st.integers(2, 6),
    small=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), max_size=30),
    arrives=st.integers(0, 30),
)
def test_whoever_needs_much_begins_when_all_have_ended_that_began_before_it_came(size, small, arrives):
    """No stream of small ones starves it: each takes ten seconds, and none that comes later is before it."""

    async def main(server):
        large = server.define(job("large", t={"gpu": size}))
        runs = []

        async def start_at(when, definition):
            await trio.sleep(when)
            runs.append(await server.start(definition))

        async with trio.open_nursery() as nursery:
            for number, (amount, when) in enumerate(small):
                few = job(f"small{number}", t={"gpu": min(amount, size)})
                nursery.start_soon(start_at, when + 0.25, few)  # never in the same moment
            await trio.sleep(arrives)
            before = {run.id for run in runs}
            run = await server.start(large)
        for other in [*runs, run]:
            await other.wait()
        begun = run.tasks["t"].started_at
        for other in runs:
            if other.id not in before:
                assert other.tasks["t"].started_at >= begun
        # Each of those before it may have waited for all of the others, and no longer.
        assert (begun - run.created_at).total_seconds() <= 10 * len(before) + 0.1

    virtually(main, gpu=size)


class Allotting(ThreadBackend):
    """Looks after what tasks need by itself."""

    takes_needs = True

    def __init__(self):
        super().__init__(4)
        self.given = []

    def start(self, call, done):
        self.given.append(dict(call.needs))
        return super().start(call, done)


class Say(RunnableTask):
    """Do nothing in a thread."""

    def run(self):
        return "done"


@pytest.mark.anyio
async def test_a_backend_that_takes_needs_is_told_them_and_the_pools_are_left_alone():
    cluster = Allotting()
    task = TaskDefinition(task="Say", needs={"gpu": 9, "memory": "4KiB"}, pool="licence", backend="cluster")
    async with Server(pools={"gpu": 1}, backends={"cluster": cluster}) as server:
        server.register_tasks("app", [Say])
        run = await server.run(JobDefinition(name="j", tasks={"t": task}))
        assert run.result == "done"
        assert cluster.given == [{"gpu": 9, "memory": 4096, "licence": 1}]
        assert server._executor.dispatcher.pools["gpu"].free == 1
        elsewhere = TaskDefinition(task="Say", needs={"gpu": 1}, backend="thread")
        assert (await server.run(JobDefinition(name="k", tasks={"t": elsewhere}))).result == "done"

"""Tasks that take several places of a pool: all at once or none, and nobody is overtaken by who needs less."""

import anyio
import pytest

from scattersphere import DefinitionError, JobDefinition, RunnableTask, Server, TaskDefinition

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

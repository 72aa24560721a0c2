"""Eager tasks of Python 3.11. The function itself works on later ones too, which have their own."""

import asyncio
import functools
import gc
from contextvars import ContextVar
from typing import ClassVar

import anyio
import pytest

from scattersphere import JobDefinition, RunnableTask, Server, TaskContext
from scattersphere.engine.loops.asyncio import can_start_eagerly, eager_task

seen: ContextVar[str] = ContextVar("seen", default="nothing")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_body_that_never_suspends_has_ended_at_once() -> None:
    steps: list[str] = []

    async def body() -> None:
        steps.append("body")

    task = eager_task(asyncio.get_running_loop(), body(), "quick")
    steps.append("caller")
    assert task.done()
    assert task.get_name() == "quick"
    assert steps == ["body", "caller"]


@pytest.mark.anyio
async def test_the_current_task_is_that_of_the_body_and_then_the_callers_again() -> None:
    me = asyncio.current_task()
    found: list[asyncio.Task[None] | None] = []

    async def body() -> None:
        found.append(asyncio.current_task())
        await asyncio.sleep(0)
        found.append(asyncio.current_task())

    task = eager_task(asyncio.get_running_loop(), body(), "mine")
    assert asyncio.current_task() is me
    await task
    assert found == [task, task]
    assert asyncio.current_task() is me


@pytest.mark.anyio
async def test_what_a_body_raises_is_the_tasks_and_the_caller_is_current_again() -> None:
    me = asyncio.current_task()

    async def body() -> None:
        raise ValueError("mine")

    task = eager_task(asyncio.get_running_loop(), body(), "wrong")
    assert asyncio.current_task() is me
    assert str(task.exception()) == "mine"


@pytest.mark.anyio
async def test_what_a_body_sets_in_its_first_step_stays_with_it() -> None:
    later: list[str] = []

    async def body() -> None:
        seen.set("body")
        await asyncio.sleep(0)
        later.append(seen.get())

    task = eager_task(asyncio.get_running_loop(), body(), "setter")
    assert seen.get() == "nothing"
    await task
    assert later == ["body"]


@pytest.mark.anyio
async def test_a_body_that_suspends_can_be_cancelled_timed_and_scoped() -> None:
    ended: list[str] = []

    async def cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def timed() -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append("timed")

    async def scoped() -> None:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        ended.append("scoped")

    loop = asyncio.get_running_loop()
    tasks = [eager_task(loop, body(), "waiting") for body in (cancelled, timed, scoped)]
    assert tasks[0] in asyncio.all_tasks()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert sorted(ended) == ["cancelled", "scoped", "timed"]


@pytest.mark.anyio
async def test_what_the_loop_is_about_to_call_keeps_its_order() -> None:
    loop, calls = asyncio.get_running_loop(), list[str]()

    async def body() -> None:
        loop.call_soon(calls.append, "from the body")

    loop.call_soon(calls.append, "before")
    task = eager_task(loop, body(), "between")
    loop.call_soon(calls.append, "after")
    assert task.done()
    await asyncio.sleep(0)
    assert calls == ["before", "from the body", "after"]


class Busy(asyncio.SelectorEventLoop):
    """A loop to which something else is always added just after what was asked for."""

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        super().call_soon(len, ())
        return handle


class Wrapping(asyncio.SelectorEventLoop):
    """A loop that calls in another way than asyncio's own."""

    def call_soon(self, callback, *args, context=None):
        return super().call_soon(functools.partial(callback), *args, context=context)


@pytest.mark.parametrize("loop_class", [Busy, Wrapping])
def test_where_the_first_step_is_not_found_it_comes_in_its_turn(loop_class: type) -> None:
    steps: list[str] = []

    async def body() -> None:
        steps.append("body")

    async def main() -> None:
        task = eager_task(asyncio.get_running_loop(), body(), "late")
        steps.append("caller")
        await task

    with asyncio.Runner(loop_factory=loop_class) as runner:
        runner.run(main())
    assert steps == ["caller", "body"]


def test_a_loop_without_that_queue_is_known() -> None:
    with asyncio.Runner() as runner:
        assert can_start_eagerly(runner.get_loop())
    assert not can_start_eagerly(asyncio.AbstractEventLoop())


class Count(RunnableTask):
    async def run(self, context: TaskContext) -> int:
        return len(context.results)


@pytest.mark.parametrize("loop_class", [Busy, Wrapping, asyncio.SelectorEventLoop])
def test_a_job_runs_on_loops_that_call_in_other_ways(loop_class: type) -> None:
    builder = JobDefinition.build("chain").task("t0", "Count")
    for number in range(1, 600):
        builder = builder.task(f"t{number}", "Count", depends_on=[f"t{number - 1}"] if number % 2 else [])

    async def main() -> None:
        async with Server() as server:
            server.register_tasks("host", [Count])
            server.define(builder.done())
            run = await (await server.start("chain")).wait()
            assert run.succeeded, run.explain()
            assert sum(run.results.values()) == 300

    with asyncio.Runner(loop_factory=loop_class) as runner:
        runner.run(main())


class Meet(RunnableTask):
    here: ClassVar[int] = 0
    most: ClassVar[int] = 0

    async def run(self, context: TaskContext) -> None:
        cls = type(self)
        cls.here += 1
        cls.most = max(cls.most, cls.here)
        await asyncio.sleep(0)
        cls.here -= 1


@pytest.mark.anyio
async def test_of_bodies_that_suspend_a_few_are_started_before_the_loop_has_a_turn() -> None:
    builder = JobDefinition.build("wide")
    for number in range(1_000):
        builder = builder.task(f"t{number}", "Meet")
    async with Server() as server:
        server.register_tasks("host", [Meet])
        server.define(builder.done())
        assert (await (await server.start("wide")).wait()).succeeded
    assert 1 < Meet.most <= 64  # a batch that is begun is started as a whole


@pytest.mark.anyio
async def test_nothing_of_an_ended_task_is_kept() -> None:
    class Body:
        async def run(self) -> None:
            return None

    loop = asyncio.get_running_loop()
    for _ in range(20):
        eager_task(loop, Body().run(), "short")
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Body]

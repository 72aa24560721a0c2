"""Virtual time on both loops: waits cost nothing, work in threads takes the time that it takes."""

import asyncio
import itertools
import threading
import time

import anyio
import anyio.to_thread
import pytest
from rehearsedproject import make_project
from virtualtime import both_loops, jumping

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState
from scattersphere.testing import Rehearsal, VirtualTimeLoop


class Sleep(RunnableTask):
    """Sleep on the loop."""

    seconds: float

    async def run(self, context):
        await anyio.sleep(self.seconds)


class Work(RunnableTask):
    """Work in a thread, in real time."""

    seconds: float

    def run(self, context):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            context.check()
            time.sleep(0.001)
        return "worked"


@both_loops
def test_a_day_passes_at_once(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Sleep])
            begun = anyio.current_time()
            run = await rehearsal.run_task("Sleep", {"seconds": 86_400})
            assert run.succeeded
            assert anyio.current_time() - begun == pytest.approx(86_400, abs=0.5)
            assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(86_400, abs=0.001)

    begun = time.monotonic()
    anyio.run(main, **jumping(backend))
    assert time.monotonic() - begun < 60


@both_loops
def test_retries_and_timeouts_come_when_they_are_due(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Sleep])
            rehearsal.delay("s", 600, attempt=1)
            retry = {"max_attempts": 2, "delay": 250, "jitter": False}
            builder = JobDefinition.build("j").task(
                "s", "Sleep", args={"seconds": 5}, retry=retry, timeout=60
            )
            run = await rehearsal.run(builder)
            assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(60 + 250 + 5, abs=0.001)

    anyio.run(main, **jumping(backend))


@both_loops
def test_time_does_not_jump_over_a_thread_that_works(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Work, Sleep])
            builder = JobDefinition.build("j").task("w", "Work", args={"seconds": 0.05}, timeout=30)
            run = await rehearsal.run(builder.task("s", "Sleep", args={"seconds": 3600}, depends_on=["w"]))
            assert run.succeeded, run.explain()

    anyio.run(main, **jumping(backend))


@both_loops
def test_a_thread_that_works_too_long_is_timed_out_all_the_same(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Work])
            builder = JobDefinition.build("j").task("w", "Work", args={"seconds": 600}, timeout=0.05)
            run = await (await rehearsal.start(builder))
            assert run.state is RunState.FAILED
            assert "took longer than 0.05 s" in run.explain()

    anyio.run(main, **jumping(backend))


@both_loops
def test_an_injected_delay_before_a_thread_takes_no_time(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Work])
            rehearsal.delay("w", 3600)
            builder = JobDefinition.build("j").task("w", "Work", args={"seconds": 0})
            run = await rehearsal.run(builder)
            assert run.results["w"] == "worked"

    anyio.run(main, **jumping(backend))


@both_loops
def test_a_call_that_is_cancelled_in_its_delay_never_begins(backend):
    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Work])
            rehearsal.delay("w", 3600)
            builder = JobDefinition.build("j").task("w", "Work", args={"seconds": 0})
            run = await rehearsal.start(builder)
            await anyio.sleep(60)
            begun = []
            thread = rehearsal.server._executor.backends["thread"]
            thread._start, start = lambda *args: begun.append(args) or start(*args), thread._start
            run.cancel()
            await run.wait()
            await anyio.sleep(7200)
            assert not begun

    anyio.run(main, **jumping(backend))


@both_loops
def test_bundles_are_loaded_in_their_own_time(backend, tmp_path):
    async def main():
        async with Rehearsal(make_project(tmp_path)) as rehearsal:
            rehearsal.configure(load_timeout=60)
            rehearsal.fake("etl.LoadDay", lambda **_: [1])
            rehearsal.fail("load")
            run = await rehearsal.run("jobs/nightly.json")
            assert run.results["mail"] == 1
            assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(60, abs=5)

    anyio.run(main, **jumping(backend))


def test_a_mock_clock_that_is_moved_by_hand_is_left_alone():
    testing = pytest.importorskip("trio.testing")
    clock = testing.MockClock()

    async def main():
        async with Rehearsal() as rehearsal:
            rehearsal.register_tasks("app", [Work])
            assert (await rehearsal.run_task("Work", {"seconds": 0.01})).succeeded
            assert anyio.current_time() == begun

    begun = clock.current_time()
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def on_virtual_loop(main):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def test_timers_fire_in_order_and_at_their_time():
    async def main():
        loop, seen = asyncio.get_running_loop(), []
        for delay in (3, 1, 2, 0.1):
            loop.call_later(delay, lambda delay=delay: seen.append((delay, loop.time())))
        await asyncio.sleep(10)
        return seen, loop.time()

    seen, end = on_virtual_loop(main)
    assert seen == [(when, pytest.approx(when, abs=1e-9)) for when in (0.1, 1, 2, 3)]
    assert end == 10


def test_what_runs_in_an_executor_is_waited_for():
    async def main():
        async with asyncio.timeout(30):
            return await asyncio.to_thread(time.sleep, 0.02) or asyncio.get_running_loop().time()

    assert 0.02 <= on_virtual_loop(main) < 30


def test_a_thread_can_wake_a_loop_that_has_no_timer():
    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: (time.sleep(0.02), loop.call_soon_threadsafe(event.set)))
        thread.start()
        await event.wait()
        thread.join()
        return loop.time()

    assert on_virtual_loop(main) == 0


def test_holds_are_counted():
    async def main():
        loop = asyncio.get_running_loop()
        loop.hold()
        loop.hold()
        loop.release()
        begun = time.monotonic()
        await asyncio.sleep(0.05)
        assert time.monotonic() - begun >= 0.049
        loop.release()
        await asyncio.sleep(5000)
        return loop.time()

    assert 5000.05 <= on_virtual_loop(main) < 5030


def test_no_timer_of_a_jumping_clock_is_called_before_its_time():
    """Else who looks at the clock asks again, and again: with something ready, the clock does not move."""

    async def main(steps, deadline):
        loop, early = asyncio.get_running_loop(), []
        due = asyncio.Event()

        def look():
            if loop.time() < deadline:
                early.append(loop.time())
                if len(early) < 10:
                    loop.call_at(deadline, look)
                    return
            due.set()

        loop.call_at(deadline, look)
        for step in steps:
            await asyncio.sleep(step)
        await due.wait()
        assert not early

    tenths = [number / 10 for number in range(1, 24)]
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        for first, second, deadline in itertools.product(tenths, tenths, tenths):
            if deadline > first + second and first + second + (deadline - first - second) < deadline:
                runner.run(main((first, second), runner.get_loop().time() + deadline))
        for far in (1e5 + 0.1, 1e6 + 0.7, 1e7 + 0.3, 4e8 + 0.1):
            runner.run(main((0.1, far / 3, far / 7), runner.get_loop().time() + far))


class LongStep(RunnableTask):
    """Sleep so long, one after the other."""

    seconds: list[float]

    async def run(self, context):
        for each in self.seconds:
            await anyio.sleep(each)


@both_loops
@pytest.mark.parametrize(("first", "second", "limit"), [(0.1, 0.1, 0.9), (0.1, 0.2, 2.4), (0.1, 0.2, 3.1)])
def test_a_timeout_that_is_a_bit_off_the_clock_comes_all_the_same(backend, first, second, limit):
    async def main():
        async with Server() as server:
            server.register_tasks("app", [LongStep])
            job = JobDefinition.build("j").task("slow", "LongStep", args={"seconds": [100.0]}, timeout=limit)
            server.define(job.task("step", "LongStep", args={"seconds": [first, second, 50.0]}).done())
            run = await (await server.start("j")).wait()
            assert run.tasks["slow"].state is TaskState.FAILED
            assert run.tasks["slow"].seconds >= limit - 1e-6

    anyio.run(main, **jumping(backend))


def test_no_days_pass_while_a_thread_works_beside_a_task_that_sleeps_for_ever():
    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await anyio.to_thread.run_sync(threading.Event().wait, 0.05)
            passed = anyio.current_time()
            await anyio.sleep(1.5)
            tasks.cancel_scope.cancel()
            return passed, anyio.current_time()

    passed, after = anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})
    assert passed < 1
    assert after >= 1.5

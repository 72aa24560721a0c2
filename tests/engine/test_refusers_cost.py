"""A body that swallows cancellation is given up without burning the processor, on asyncio and on trio."""

import contextlib
import itertools

import anyio
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import JobDefinition, RunnableTask, RunState, Server

counts: dict[str, int] = {}


class Swallow(RunnableTask):
    """Refuse to be cancelled, and count how often one tries, until the gate is opened."""

    gate: str

    async def run(self, context):
        counts[self.gate] = 0
        while self.gate in counts:
            try:
                await anyio.sleep(0.02)
            except anyio.get_cancelled_exc_class():
                counts[self.gate] += 1


class SwallowInChild(RunnableTask):
    """The same, in a child task of the body."""

    gate: str

    async def run(self, context):
        async with anyio.create_task_group() as group:
            group.start_soon(Swallow(gate=self.gate).run, context)


class TidySlowly(RunnableTask):
    """End as asked, but with a shielded tidying of many steps, and a last word that may be cancelled."""

    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(200):
                    await anyio.lowlevel.checkpoint()
            context.log.info("tidied")


class SwallowLater(RunnableTask):
    """Swallow cancellation, after some time behind a shield in which none is seen; note when."""

    shield: float

    async def run(self, context):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(self.shield)
        while "later" in counts:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                TIMES.append(anyio.current_time())


TIMES: list[float] = []


@pytest.fixture(autouse=True)
def _gates():
    yield
    counts.clear()


# On asyncio it is the body's own task group that cancels its children again and again: anyio's way, not ours.
@pytest.mark.parametrize(
    ("name", "backend"), [("Swallow", "asyncio"), ("Swallow", "trio"), ("SwallowInChild", "trio")]
)
def test_a_refuser_is_cancelled_a_few_times_and_not_in_a_loop(backend, name):
    async def main():
        async with Server(grace=0.3) as server:
            server.register_tasks("app", [Swallow, SwallowInChild])
            run = await server.start_task(name, {"gate": name})
            await anyio.sleep(0.1)
            run.cancel("enough")
            await run.wait()
            cancelled = counts[name]
            await anyio.sleep(1.2)  # one more time after a second
            again, stuck = counts.pop(name), run.stuck
        assert run.state is RunState.CANCELLED
        assert list(stuck) == [f"{name}#1/{name}"]
        assert "in run" in stuck[f"{name}#1/{name}"]
        assert 1 <= cancelled < 200  # trio by itself would do it 50,000 times a second
        assert cancelled < again < cancelled + 200

    run_virtually(backend, main)


class RefuseUntilClosed(RunnableTask):
    """Swallow each cancel; note when that was, and when the coroutine was closed."""

    seconds: float = 100.0

    async def run(self, context):
        began = anyio.current_time()
        try:
            while anyio.current_time() < began + self.seconds:
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(began + self.seconds - anyio.current_time())
        except GeneratorExit:
            CLOSED.append(anyio.current_time() - began)
            raise


CLOSED: list[float] = []


class Wait(RunnableTask):
    async def run(self, context):
        await anyio.sleep(50)


async def see_closed(server, backend, *, after):
    """On asyncio a coroutine that was killed is closed after its kill grace; on trio it is only named."""
    await anyio.sleep(1)
    if backend == "asyncio":
        assert [round(when) for when in CLOSED] == [after]
    assert bool(server.stuck) is (backend == "trio")


@both_loops
def test_a_refuser_of_a_run_that_crashes_is_closed(backend):
    async def main():
        CLOSED.clear()
        async with Server(grace=5) as server:
            server.register_tasks("app", [RefuseUntilClosed])
            run = await server.start_task("RefuseUntilClosed")
            await anyio.sleep(1)
            executor = server._executor
            executor.crash_run(run._execution, RuntimeError("a defect"))
            await run.wait()
            assert run.state is RunState.CRASHED
            assert run.stuck
            await see_closed(server, backend, after=1)

    run_virtually(backend, main)


@both_loops
def test_a_refuser_that_was_given_up_is_closed_when_its_run_is_killed_later(backend):
    async def main():
        CLOSED.clear()
        async with Server(grace=5) as server:
            server.register_tasks("app", [RefuseUntilClosed, Wait])
            job = JobDefinition.build("j").task("r", "RefuseUntilClosed", timeout=3)
            server.define(job.task("w", "Wait").done())
            run = await server.start("j")
            await anyio.sleep(20)
            assert run.stuck
            assert not CLOSED
            run.kill()
            await run.wait()
            await see_closed(server, backend, after=20)

    run_virtually(backend, main)


@pytest.mark.parametrize(("second", "ends_at"), [(2, 8), (0, 6), (60, 51), (None, 51)])
@both_loops
def test_of_two_graces_the_one_that_ends_earlier_counts(backend, second, ends_at):
    async def main():
        async with Server(grace=1) as server:
            server.register_tasks("app", [RefuseUntilClosed])
            run = await server.start_task("RefuseUntilClosed")
            await anyio.sleep(1)
            run.cancel(grace=50)
            await anyio.sleep(5)
            run.cancel(grace=second)
            await run.wait()
            assert run.state is RunState.CANCELLED
            assert (run.ended_at - run.started_at).total_seconds() == pytest.approx(ends_at, abs=0.1)

    run_virtually(backend, main)


@both_loops
def test_a_second_cancel_does_not_soften_a_kill(backend):
    async def main():
        async with Server(grace=1) as server:
            server.register_tasks("app", [RefuseUntilClosed])
            run = await server.start_task("RefuseUntilClosed")
            await anyio.sleep(1)
            run.kill()
            run.cancel(grace=50)
            await run.wait()
            assert (run.ended_at - run.started_at).total_seconds() < 5

    run_virtually(backend, main)


@both_loops
def test_a_body_that_tidies_in_many_steps_ends_as_cancelled(backend):
    async def main():
        async with Server(grace=5.0) as server:
            server.register_tasks("app", [TidySlowly])
            run = await server.start_task("TidySlowly")
            await anyio.sleep(0.1)
            run.cancel()
            await run.wait()
            assert run.state is RunState.CANCELLED
            assert [line.message for line in run.logs()] == ["tidied"]
            assert not run.stuck

    run_virtually(backend, main)


@pytest.mark.parametrize("shield", [0.2, 0.6, 5.0])
def test_a_refuser_that_was_behind_a_shield_is_cancelled_again_with_growing_gaps(shield):
    pytest.importorskip("trio")

    async def main():
        TIMES.clear()
        counts["later"] = 0
        async with Server(grace=1_000) as server:  # after which it would be cancelled by others
            server.register_tasks("app", [SwallowLater])
            run = await server.start_task("SwallowLater", {"shield": shield})
            await anyio.sleep(0.1)
            run.cancel()
            await anyio.sleep(40)
            counts.clear()
            await run.wait()
            assert run.state is RunState.CANCELLED or run.succeeded

    run_virtually("trio", main)
    when = sorted({round(time, 3) for time in TIMES})
    gaps = [later - earlier for earlier, later in itertools.pairwise(when)]
    assert len(TIMES) < 100 * len(when)
    assert [round(gap) for gap in gaps] == [1, 2, 4, 8, 16][: len(gaps)], gaps
    assert len(gaps) >= 4

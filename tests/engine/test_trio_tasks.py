"""What bodies and hosts see of how attempts are cancelled on trio."""

import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager

import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server
from scattersphere.engine.loops import trio as trio_loop

pytestmark = pytest.mark.needs("trio")
trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


@pytest.fixture
def anyio_backend():
    return "trio"


SEEN = []


class Deadlines(RunnableTask):
    async def run(self, context):
        SEEN.append(trio.current_effective_deadline())
        with trio.fail_after(1_000):
            SEEN.append(trio.current_effective_deadline() < float("inf"))
            try:
                await trio.sleep_forever()
            finally:
                SEEN.append(trio.current_effective_deadline())


@pytest.mark.anyio
async def test_a_body_is_under_no_deadline_but_its_own_until_it_is_cancelled():
    SEEN.clear()
    async with Server() as server:
        server.register_tasks("app", [Deadlines])
        server.define(JobDefinition.build("j").task("t", "Deadlines").done())
        run = await server.start("j")
        await trio.testing.wait_all_tasks_blocked()
        run.cancel()
        await run.wait()
        assert run.state is RunState.CANCELLED
    assert [float("inf"), True, float("-inf")] == SEEN


class LeavesScopeOpen(RunnableTask):
    async def run(self, context):
        trio.CancelScope().__enter__()  # never left


class Fine(RunnableTask):
    async def run(self, context):
        await trio.lowlevel.checkpoint()
        return "fine"


@pytest.mark.anyio
async def test_a_body_that_leaves_a_scope_open_harms_no_other():
    async with Server() as server:
        server.register_tasks("app", [LeavesScopeOpen, Fine])
        job = JobDefinition.build("j").task("bad", "LeavesScopeOpen")
        server.define(job.task("good", "Fine", depends_on=["bad"]).done())
        for _ in range(3):
            run = await (await server.start("j")).wait()
            assert run.results["good"] == "fine"


@asynccontextmanager
async def cancelled(body, **parameters):
    """Cancel a body that does not end for that before DONE, and let it get there."""
    async with Server(grace=10_000) as server:  # after which it would be cancelled again
        server.register_tasks("app", [body])
        run = await server.start_task(body.__name__, parameters)
        await trio.testing.wait_all_tasks_blocked()
        run.cancel()
        await pass_turns(200)  # more than a body may take to unwind
        yield
        DONE.set()
        await run.wait()


async def pass_turns(number):
    for _ in range(number):
        await trio.lowlevel.checkpoint()


class Swallows(RunnableTask):
    """Refuse to be cancelled: behind a shield first, then openly, as often as the loop turns."""

    shielded: bool

    async def run(self, context):
        if self.shielded:
            with trio.CancelScope(shield=True):
                await LEAVE_SHIELD.wait()
        while not DONE.is_set():
            try:
                await DONE.wait()
            except trio.Cancelled:
                SEEN.append("cancelled")


@pytest.mark.parametrize("shielded", [True, False])
def test_a_body_that_swallows_its_cancel_is_shown_it_with_growing_gaps_also_after_a_shield(shielded):
    global LEAVE_SHIELD, DONE
    turns = 20_000

    async def main():
        SEEN.clear()
        async with cancelled(Swallows, shielded=shielded):
            LEAVE_SHIELD.set()
            await pass_turns(turns)
        # Once a turn is what trio does. Here time passes a hundred times as fast, so that gaps are few turns.
        assert 0 < SEEN.count("cancelled") < turns / 2

    LEAVE_SHIELD, DONE = trio.Event(), trio.Event()
    trio.run(main, clock=trio.testing.MockClock(rate=100))


def test_a_program_that_ends_without_closing_its_server_does_end(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import trio
            from scattersphere import JobDefinition, RunnableTask, Server

            class Waits(RunnableTask):
                async def run(self, context):
                    try:
                        await trio.sleep_forever()
                    finally:
                        print("cancelled")

            async def main():
                server = Server()
                await server.__aenter__()
                server.register_tasks("app", [Waits])
                server.define(JobDefinition.build("j").task("t", "Waits").done())
                await server.start("j")
                await trio.testing.wait_all_tasks_blocked()

            import trio.testing
            trio.run(main)
            print("over")
        """)
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout.split() == ["cancelled", "over"], done.stderr


class TidiesMany(RunnableTask):
    """Have many tasks behind a shield, when it is asked to end."""

    async def run(self, context):
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for _ in range(1_000):
                    nursery.start_soon(DONE.wait)


def test_of_a_cancelled_body_that_tidies_up_each_task_is_looked_at_seldom(monkeypatch):
    global DONE  # noqa: PLW0603 - the body finds it there
    looks, seen, turns = [], [], 2_000
    look = trio_loop.tasks_below

    def counted(task):
        for one in look(task):
            looks.append(1)
            yield one

    async def main():
        async with cancelled(TidiesMany):
            looks.clear()
            await pass_turns(turns)
            seen.extend(looks)

    monkeypatch.setattr(trio_loop, "tasks_below", counted)
    DONE = trio.Event()
    trio.run(main, clock=trio.testing.MockClock(rate=100))
    assert len(seen) < 20 * turns  # a thousand a turn, if all are looked at in each

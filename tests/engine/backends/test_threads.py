"""What threads promise beyond the contract."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import anyio
import pytest
from patience import PATIENCE

from scattersphere.abc.backend import Backend, OutcomeKind
from scattersphere.engine.backends import threads
from scattersphere.engine.backends.threads import THREAD_LIMIT, ThreadBackend
from scattersphere.runnable import RunnableTask
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Echo, Refuse

pytestmark = pytest.mark.anyio


def lane_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scattersphere-thread-")]


def test_it_is_a_backend_with_the_documented_limit():
    assert isinstance(ThreadBackend(), Backend)
    assert ThreadBackend().limit == THREAD_LIMIT == 40


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match="at least one thread is needed"):
        ThreadBackend(limit)


async def test_threads_are_made_when_needed_and_shared_by_later_calls():
    async with Stage(partial(ThreadBackend, 3)) as stage:
        assert lane_threads() == []
        for _ in range(20):
            await stage.run(Echo)
        assert len(lane_threads()) == 1


async def test_there_are_never_more_threads_than_the_limit(tmp_path):
    go = tmp_path / "go"
    async with Stage(partial(ThreadBackend, 3)) as stage:
        calls = [stage.start(Refuse, until=str(go)) for _ in range(9)]
        for call in calls[:3]:
            await call.begun()
        assert len(lane_threads()) == 3
        assert not any(call.context.begun.is_set() for call in calls[3:])
        go.touch()
        for call in calls:
            await call.outcome()
        assert len(lane_threads()) == 3
    assert lane_threads() == []


async def test_a_thread_that_is_idle_for_long_ends_and_a_new_one_serves_later_calls():
    async with Stage(partial(ThreadBackend, 3, idle_seconds=0.01)) as stage:
        await stage.run(Echo)
        deadline = time.monotonic() + PATIENCE
        while lane_threads():
            assert time.monotonic() < deadline
            await anyio.sleep(0.005)
        assert (await stage.run(Echo, value=7)).value == 7


async def test_calls_survive_threads_that_end_in_just_that_moment():
    async with Stage(partial(ThreadBackend, 3, idle_seconds=0)) as stage:
        for number in range(300):
            assert (await stage.run(Echo, value=number)).value == number


async def test_without_a_further_thread_of_the_system_the_others_do_the_work(monkeypatch, tmp_path):
    go = tmp_path / "go"
    async with Stage(partial(ThreadBackend, 3)) as stage:
        first = stage.start(Refuse, until=str(go))
        await first.begun()
        monkeypatch.setattr(threads._Lane, "start", no_thread)
        second = stage.start(Echo, value=2)
        go.touch()
        assert (await second.outcome()).value == 2


async def test_without_any_thread_a_call_fails_and_says_why(monkeypatch):
    async with Stage(ThreadBackend) as stage:
        monkeypatch.setattr(threads._Lane, "start", no_thread)
        outcome = await stage.run(Echo)
    assert outcome.kind is OutcomeKind.EXCEPTION
    assert str(outcome.error) == "can't start new thread"


def no_thread(self):
    raise RuntimeError("can't start new thread")


async def test_a_defect_in_invoke_is_an_outcome_and_not_a_dead_thread():
    class Broken(RunnableTask):
        def run(self, context):
            """Not reached: the context is entered already."""

    async with Stage(partial(ThreadBackend, 1)) as stage:
        import contextvars

        from scattersphere.abc.backend import Call
        from scattersphere.testing.backends import Started, task_class_of

        context = stage.make_context(Broken, {})
        started = Started(context)

        def raises():
            raise SystemExit("defect")

        call = Call(
            invoke=raises, context=contextvars.copy_context(), task_class=task_class_of(Broken),
            arguments={}, task_context=context, name="x",
        )  # fmt: skip
        started.handle = stage.backend.start(call, started.done)
        outcome = await started.outcome()
        assert outcome.kind is OutcomeKind.EXCEPTION
        assert isinstance(outcome.error, SystemExit)
        assert (await stage.run(Echo, value=1)).value == 1


async def test_an_idle_thread_keeps_nothing_of_its_last_call_alive():
    class Thing:
        pass

    async with Stage(partial(ThreadBackend, 1)) as stage:
        thing = Thing()
        gone = weakref.ref(thing)
        outcome = await stage.run(Echo, value=thing)
        del thing, outcome
        # The thread reports before it lets go: it may still be on its way back to its queue.
        with anyio.fail_after(PATIENCE):
            while gone() is not None:
                await anyio.lowlevel.checkpoint()
                gc.collect()


async def test_many_outcomes_give_the_loop_a_turn_in_between(monkeypatch):
    monkeypatch.setattr(threads, "_TURN", 0.0)  # after each single outcome
    async with Stage(partial(ThreadBackend, 1)) as stage:
        calls = [stage.start(Echo, value=number) for number in range(50)]
        for number, call in enumerate(calls):
            assert (await call.outcome()).value == number


def test_a_thread_that_never_ends_does_not_delay_the_exit_of_the_process():
    program = """
import anyio, time
from scattersphere.engine.backends.threads import ThreadBackend
from scattersphere.testing.backends import Stage
from scattersphere.testing.bodies import Refuse

async def main():
    async with Stage(ThreadBackend) as stage:
        call = stage.start(Refuse, until="/nonexistent")
        await call.begun()
        print(call.handle.where().rpartition("/")[2])

anyio.run(main)
print("end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=Path.cwd(),
    )
    place, end = ended.stdout.splitlines()
    assert place.startswith("bodies.py:")
    assert end == "end"
    assert ended.stderr == ""

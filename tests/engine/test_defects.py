"""A defect of the engine's own ends the run that was served, and nothing else: the places that most runs come to.

`test_every_place.py`, which is dear, has every place.
"""

import contextlib
import logging
import math

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    EngineError,
    JobDefinition,
    RetryPolicy,
    RunnableTask,
    RunState,
    Server,
    TaskDefinition,
)
from scattersphere.engine.admission import Admission
from scattersphere.engine.attempts import AttemptRunner, back_off
from scattersphere.engine.cancellation import Canceller
from scattersphere.engine.commands import CommandQueue
from scattersphere.engine.execution import Execution
from scattersphere.engine.executor import JobExecutor
from scattersphere.engine.machine.ready import ReadyTasks
from scattersphere.engine.machine.run import RunMachine
from scattersphere.engine.reports import Reports
from scattersphere.engine.timers import FAREST, Timers


class Work(RunnableTask):
    """Suspend, log, report, and fail at the first attempt."""

    async def run(self, context):
        await anyio.lowlevel.checkpoint()
        context.log.info("here")
        context.progress(1, 2)
        if context.attempt == 1:
            raise OSError("first")
        return [1, 2, 3]


class InThread(RunnableTask):
    """Return in a thread."""

    def run(self, context):
        context.log.info("here")
        return 1


class Long(RunnableTask):
    """Take longer than its timeout."""

    async def run(self, context):
        await anyio.sleep_forever()


def job(name):
    """Return a job whose run comes to each place: limits, a map, retries, a thread, a timeout, a finally-task."""
    tries = RetryPolicy(max_attempts=2, delay=0.001, jitter=False)
    return JobDefinition(
        name=name,
        max_parallel=2,
        tasks={
            "a": TaskDefinition(task="Work", retry=tries, pool="db"),
            "m": TaskDefinition(task="Work", retry=tries, depends_on=("a",)),
            "t": TaskDefinition(task="InThread", depends_on=("a",), pool="db"),
            "l": TaskDefinition(task="Long", timeout=0.01, allow_failure=True),
            "f": TaskDefinition(task="Work", retry=tries, finally_=True),
        },
    )


PLACES = [
    (RunMachine, "slot"),
    (ReadyTasks, "take"),
    (RunMachine, "begin"),
    (RunMachine, "ok"),
    (RunMachine, "ended"),
    (RunMachine, "_conclude"),
    (RunMachine, "_read_ending"),
    (RunMachine, "_has_attempts_left"),
    (RunMachine, "retry_due"),
    (RunMachine, "attempt_timeout"),
    (RunMachine, "compacting"),
    (Execution, "mark"),
    (Execution, "note_failure"),
    (Execution, "note_lines"),
    (Execution, "compact"),
    (Execution, "tell"),
    (Execution, "tell_end"),
    (JobExecutor, "run_moved"),
    (CommandQueue, "apply"),
    (AttemptRunner, "schedule_retry"),
    (AttemptRunner, "fail"),
    (AttemptRunner, "finished"),
    (Canceller, "interrupt"),
    (AttemptRunner, "_launch"),
    (AttemptRunner, "_suspended"),
    (AttemptRunner, "_start_elsewhere"),
    (AttemptRunner, "_take_outcome"),
    (ReadyTasks, "free"),
    (Admission, "pass_by"),
    (Admission, "go_on"),
    (Admission, "leave"),
    (Reports, "progress"),
    (Reports, "make_log"),
    (Reports, "_line_written"),
    (Execution, "take_log"),
    (JobExecutor, "_run_ended"),
]

AFTERWARDS = {"leave", "compact", "compacting", "tell_end", "_run_ended", "note_lines"}

LOGGING = {"make_log", "take_log"}
"""Without these a run has no log to write in: the Server's own logger has the traceback."""


def belongs_to(thing, run_id):
    """Whether an argument of ours is of that run."""
    execution, thing = getattr(thing, "execution", thing), getattr(thing, "record", thing)
    return run_id in (getattr(thing, "run_id", None), getattr(execution, "id", None))


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "always"])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.anyio
async def test_a_defect_ends_the_run_that_was_served_and_nothing_else(
    owner, name, times, monkeypatch, caplog
):
    caplog.set_level(logging.CRITICAL, "scattersphere.engine")
    # Where nothing can be interrupted, nothing can be killed either.
    real, left = getattr(owner, name), [1 if name == "interrupt" else times]

    def broken(*args, **kwargs):
        if left[0] and any(belongs_to(thing, 2) for thing in args):
            left[0] -= 1
            raise ZeroDivisionError(f"a defect in {name}")
        return real(*args, **kwargs)

    async with Server(max_parallel=8, max_runs=4, pools={"db": 1}, grace=0.1) as server:
        server.register_tasks("app", [Work, InThread, Long])
        for each in ("one", "victim", "two"):
            server.define(job(each))
        before = await server.start("one")
        monkeypatch.setattr(owner, name, broken)
        victim = await server.start("victim")
        after = await server.start("two")
        async with anyio.create_task_group() as readers:
            readers.start_soon(read, victim)
            for run in (victim, before, after):
                await run.wait(PATIENCE)
            assert before.succeeded, before.explain()
            assert after.succeeded, after.explain()
            # What comes after the end changes it no more, and the end may come before a place is come to.
            assert victim.state is RunState.CRASHED or name in AFTERWARDS or left[0]
            if victim.state is RunState.CRASHED and name not in LOGGING:
                assert "ZeroDivisionError: a defect in" in "\n".join(line.message for line in victim.logs())
            readers.cancel_scope.cancel()
        monkeypatch.undo()
        assert (await (await server.start("one")).wait(PATIENCE)).succeeded
        with anyio.fail_after(PATIENCE):
            while server.stuck:  # what executed is killed: it ends, and is named until then
                await anyio.lowlevel.checkpoint()
        assert server._executor.dispatcher.free == 8
        assert server._executor.dispatcher.pools["db"].free == 1


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "always"])
@pytest.mark.anyio
async def test_who_waits_for_the_end_hears_of_it_though_telling_fails(times, monkeypatch):
    left = [times]
    real = Execution.tell_end

    def broken(execution):
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError("a defect in tell_end")
        real(execution)

    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Long])
        run = await server.start_task("Long")
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(run.wait)
                while not run._execution.waiters:
                    await anyio.lowlevel.checkpoint()
                monkeypatch.setattr(Execution, "tell_end", broken)
                run.kill()
        assert run.state.ended


async def read(run):
    """Read the events, so that there is somebody to be woken."""
    with contextlib.suppress(ZeroDivisionError):  # a defect in what a reader calls is told to the reader
        async for _ in run.events():
            pass


@pytest.mark.anyio
async def test_a_defect_in_a_request_crashes_the_run_and_is_told_to_who_asks(monkeypatch):
    async with Server() as server:
        server.register_tasks("app", [Long])
        run, other = await server.start_task("Long"), await server.start_task("Long")
        monkeypatch.setattr(RunMachine, "pause", lambda self: 1 / 0 if self.record.run_id == run.id else ())
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            run.pause()
        assert run.state is RunState.CRASHED
        assert other.state is RunState.RUNNING
        other.cancel()
        await other.wait(PATIENCE)


class Fails(RunnableTask):
    """Fail."""

    async def run(self, context):
        raise OSError("no")


@pytest.mark.anyio
async def test_the_wait_between_a_thousand_attempts_does_not_overflow():
    async with Server() as server:
        server.register_tasks("app", [Fails])
        policy = RetryPolicy(backoff=2.0, delay=1e-9, max_delay=0.0001, max_attempts=1_100, jitter=False)
        server.define(JobDefinition(name="j", tasks={"t": TaskDefinition(task="Fails", retry=policy)}))
        run = await (await server.start("j")).wait(PATIENCE)
        assert run.state is RunState.FAILED
        assert run.tasks["t"].attempts == 1_100


@pytest.mark.parametrize("number", [0, 1e-320, 1, 1e200, 1e308, 10**400, math.inf, math.nan])
def test_whatever_the_numbers_of_a_retry_are_it_waits_at_most_max_delay(number):
    """The reader bounds them; what is made in code may have any."""
    for failures in (1, 2, 1_100):
        assert back_off(RetryPolicy(backoff=number, delay=0.5, max_delay=2.0), failures) <= 2
        assert back_off(RetryPolicy(backoff=2.0, delay=number, max_delay=2.0), failures) <= 2
        assert 0 <= back_off(RetryPolicy(backoff=2.0, delay=0.5, max_delay=number), failures) <= FAREST


@pytest.mark.parametrize("seconds", [1e308, 10**400, math.inf, math.nan])
def test_times_that_no_clock_can_hold_are_as_far_as_can_be(seconds):
    timers = Timers()
    timers.expire("attempt", 5.0, seconds)
    assert timers.next == 5.0 + FAREST
    assert timers.forget("attempt", seconds) == 5.0 + FAREST

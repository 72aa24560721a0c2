"""What happens the second time: held twice, resumed and then tried again, cancelled and then killed.

Each single step is tested beside its own subject; here are the sequences, in virtual time, with the texts and
the times that go with the states.
"""

import asyncio
import contextlib

import anyio
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import EventKind, JobDefinition, RetryPolicy, RunnableTask, RunState, Server, TaskState
from scattersphere.abc import Outcome, OutcomeKind
from scattersphere.testing import MemoryJournal

ASKED = []
"""When a body was asked to end: in whole seconds since its start, each second once."""


class TwoTries(RunnableTask):
    """Reach two checkpoints and fail; the second try takes 9.5 seconds."""

    async def run(self, context):
        if context.attempt == 1:
            for _ in range(2):
                await anyio.sleep(1.5)
                await context.checkpoint()
            raise OSError("the first try")
        await anyio.sleep(9.5)


class TwoCheckpoints(RunnableTask):
    """Execute for 3 seconds with a checkpoint after each half, and then for `rest` more."""

    rest: float

    async def run(self, context):
        for _ in range(2):
            await anyio.sleep(1.5)
            await context.checkpoint()
        await anyio.sleep(self.rest)


class Refuse(RunnableTask):
    """Swallow cancellation until 300 seconds are over, note when it came, and end as it is told to."""

    fails: bool = False

    async def run(self, context):
        begun = anyio.current_time()
        ASKED.clear()
        while (now := anyio.current_time()) < begun + 300:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep(begun + 300 - now)
                break
            second = round(anyio.current_time() - begun)
            if second not in ASKED:
                ASKED.append(second)
        if self.fails:
            raise OSError("late")
        return "late"


class Plain(RunnableTask):
    """A body that is never executed here."""

    def run(self):
        raise AssertionError


class FailOnceThenWait(RunnableTask):
    """Fail; the second try goes on until it is cancelled."""

    async def run(self, context):
        if context.attempt == 1:
            raise OSError("the first try")
        await anyio.sleep_forever()


class TidySlowly(RunnableTask):
    """Take ten seconds to tidy up when cancelled."""

    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)
            context.log.info("tidied")


CLASSES = [TwoTries, TwoCheckpoints, Refuse, FailOnceThenWait, TidySlowly]


def play(backend, task, *acts, args=None, **policies):
    """Run a job of one task `t`, do each act (seconds, verb, keywords) at its time, and return the run."""

    async def main():
        async with Server() as server:
            server.register_tasks("app", CLASSES)
            server.define(JobDefinition.build("j").task("t", task, args=args or {}, **policies).done())
            run = await server.start("j")
            begun = anyio.current_time()
            for at, verb, keywords in acts:
                await anyio.sleep(begun + at - anyio.current_time())
                getattr(run, verb)(**keywords)
            await run.wait()
            while server.stuck:  # noqa: ASYNC110 - virtual seconds; refusers say nothing when they end
                await anyio.sleep(1)
            return run

    return run_virtually(backend, main)


def seconds(begun, ended):
    return round((ended.ended_at - begun.started_at).total_seconds(), 2)


HELD_TWICE = [(1, "pause", {}), (51, "resume", {}), (52, "pause", {}), (102, "resume", {})]
"""The first checkpoint is reached at 1.5 and left at 51; the second reached at 52.5 and left at 102."""


@both_loops
def test_a_timeout_stands_still_each_time_that_an_attempt_is_held(backend):
    run = play(backend, "TwoCheckpoints", *HELD_TWICE, args={"rest": 6.9}, timeout=10)
    assert run.succeeded, run.explain()
    assert seconds(run, run) == 102 + 6.9


@both_loops
def test_a_timeout_goes_on_where_it_stood_each_time_that_an_attempt_was_held(backend):
    run = play(backend, "TwoCheckpoints", *HELD_TWICE, args={"rest": 7.1}, timeout=10)
    failure = run.tasks["t"].failure
    assert (failure.type, failure.message) == ("TimeoutError", "took longer than 10 s")
    assert seconds(run, run) == 102 + 7


@both_loops
@pytest.mark.parametrize("acts", [HELD_TWICE[:2], HELD_TWICE], ids=["once", "twice"])
def test_the_timer_of_an_attempt_that_was_held_does_not_end_the_next_attempt(backend, acts):
    run = play(backend, "TwoTries", *acts, timeout=10, retry=RetryPolicy(max_attempts=2, delay=0))
    assert run.succeeded, run.explain()
    assert run.tasks["t"].attempts == 2
    assert seconds(run, run) == (102 if len(acts) > 2 else 52.5) + 9.5


class Elsewhere:
    """A backend whose call begins at once, is held as soon as it is asked to be, and ends when it is cancelled."""

    limit = None

    async def open(self, host):
        self.host = host

    def start(self, call, done):
        self.host.soon(call.begins)
        host = self.host
        asked = self.asked = []

        class Handle:
            def cancel(self):
                asked.append(anyio.current_time())
                host.soon(done, Outcome(OutcomeKind.CANCELLED))

            kill = cancel

            def where(self):
                return ""

            def pause(self):
                call.held()

            def resume(self):
                pass

        return Handle()

    async def aclose(self):
        pass


@both_loops
def test_a_timeout_goes_on_where_it_stood_when_a_call_elsewhere_was_held(backend):
    async def main():
        place = Elsewhere()
        async with Server(backends={"own": place}) as server:
            server.register_tasks("app", [Plain])
            server.define(JobDefinition.build("j").task("t", "Plain", backend="own", timeout=10).done())
            begun = anyio.current_time()
            run = await server.start("j")
            await anyio.sleep(begun + 6 - anyio.current_time())
            run.pause()
            await anyio.sleep(50)
            assert run.state is RunState.PAUSED
            run.resume()
            await run.wait()
            (asked,) = place.asked
            return round(asked - begun, 2)

    assert run_virtually(backend, main) == 50 + 10


@both_loops
def test_a_try_that_is_cancelled_shows_no_failure_of_the_one_before_it(backend):
    policy = RetryPolicy(max_attempts=2, delay=0)
    run = play(backend, "FailOnceThenWait", (5, "cancel", {}), retry=policy)
    task = run.tasks["t"]
    assert (task.state, task.attempts, task.failure) == (TaskState.CANCELLED, 2, None)


@pytest.mark.parametrize(
    ("backend", "first"),
    [
        ("asyncio", [1, 3 + 1]),  # when it was given up, and then again and again
        ("trio", [1, 1 + 1]),  # there a cancelled scope raises at each checkpoint: it is shielded from that
    ],
)
def test_a_refuser_is_cancelled_again_after_gaps_that_double_up_to_a_minute(backend, first):
    play(backend, "Refuse", (1, "cancel", {"grace": 2}))
    wanted = [*first]
    for gap in (2, 4, 8, 16, 32, 60, 60, 60):
        wanted.append(wanted[-1] + gap)
    assert wanted[: len(ASKED)] == ASKED
    assert len(ASKED) >= len(wanted) - 1


@both_loops
@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_an_attempt_is_when_it_was_given_up_however_it_ends_later(backend, fails):
    run = play(backend, "Refuse", (1, "cancel", {"grace": 2}), args={"fails": fails})
    assert (run.state, run.tasks["t"].state) == (RunState.CANCELLED, TaskState.CANCELLED)
    assert run.tasks["t"].failure is None
    assert seconds(run, run.tasks["t"]) == seconds(run, run) == 3
    assert [line.message.partition(".")[0] for line in run.logs()] == ["does not end; given up"]


@both_loops
def test_a_refuser_that_ran_out_of_time_keeps_that_text_however_it_ends_later(backend):
    run = play(backend, "Refuse", args={"fails": True}, timeout=5)
    failure = run.tasks["t"].failure
    assert failure.type == "TimeoutError"
    assert failure.message == "took longer than 5 s, and does not end; so it is not tried again"
    assert seconds(run, run.tasks["t"]) == seconds(run, run) == 5 + 10


@both_loops
def test_a_kill_after_a_cancel_does_not_wait_for_the_grace_of_the_cancel(backend):
    run = play(backend, "Refuse", (1, "cancel", {"grace": 100}), (3, "kill", {}))
    assert run.state is RunState.CANCELLED
    assert seconds(run, run) == 3.05


@both_loops
@pytest.mark.parametrize("verb", ["cancel", "kill", "stop"])
def test_nothing_that_comes_after_a_kill_softens_it(backend, verb):
    keywords = {"grace": 100} if verb == "cancel" else {}
    run = play(backend, "Refuse", (1, "kill", {}), (1.01, verb, keywords))
    assert run.state is RunState.CANCELLED
    assert seconds(run, run) == 1.05


@both_loops
def test_a_second_cancel_does_not_reach_an_attempt_that_is_cleaning_up(backend):
    run = play(backend, "TidySlowly", (1, "cancel", {"grace": 500}), (2, "cancel", {"grace": 500}))
    assert run.state is RunState.CANCELLED
    assert seconds(run, run) == 11
    assert [line.message for line in run.logs()] == ["tidied"]


class Brief(RunnableTask):
    """Take a second."""

    async def run(self, context):
        await anyio.sleep(1)
        return "done"


@both_loops
def test_a_cancel_finds_no_refuser_in_an_attempt_that_has_ended_and_waits_for_the_disk(backend):
    async def main():
        journal = MemoryJournal()
        async with Server(journal=journal, watch=False) as server:
            server.register_tasks("app", [Brief])
            server.define(JobDefinition.build("j", durability="strict").task("t", "Brief").done())
            run = await server.start("j")
            await anyio.sleep(0.5)
            journal.auto = False
            await anyio.sleep(1)
            assert len(journal.waiting) == 1  # how the attempt has ended
            run.cancel(grace=2)
            await anyio.sleep(10)
            journal.auto = True
            journal.commit_all()
            await run.wait()
            assert (run.state, run.tasks["t"].state) == (RunState.CANCELLED, TaskState.SUCCEEDED)
            assert run.results["t"] == "done"
            assert [line.message for line in run.logs()] == []

    run_virtually(backend, main)


def test_what_refuses_to_end_with_its_time_is_killed_when_its_server_closes_with_a_journal():
    async def main():
        async with Server(journal=MemoryJournal(), watch=False) as server:
            server.register_tasks("app", [Refuse])
            server.define(JobDefinition.build("j").task("t", "Refuse", timeout=1).done())
            await server.start("j")
            await anyio.sleep(2)
            begun = anyio.current_time()
        return anyio.current_time() - begun

    # The time for what may end by itself and that for clean-up: in that after a kill nothing is left to wait for.
    assert run_virtually("asyncio", main) == pytest.approx(20, abs=0.1)


class CancelSelf(RunnableTask):
    """Raise what cancels, although nobody asked."""

    async def run(self, context):
        raise asyncio.CancelledError("my own")


class CancelSelfInThread(RunnableTask):
    """The same in a thread."""

    def run(self, context):
        raise asyncio.CancelledError("my own")


@pytest.mark.anyio
@pytest.mark.parametrize("task_class", [CancelSelf, CancelSelfInThread])
async def test_a_body_that_raises_cancelled_by_itself_has_failed_and_says_so(task_class):
    async with Server() as server:
        server.register_tasks("app", [task_class])
        run = await (await server.start_task(task_class.__name__)).wait()
        (task,) = run.tasks.values()
        assert task.state is TaskState.FAILED
        assert str(task.failure) == "CancelledError: my own"
        assert "CancelledError: my own" in task.failure.traceback
        (line,) = run.logs()
        assert "CancelledError: my own" in line.message
        events = [event async for event in run.events()]
        assert [event.state for event in events if event.kind is EventKind.TASK_ENDED] == ["failed"]

"""What a person may do with a run, and what a definition asks of it: in virtual time, to the second."""

import contextlib
import threading
import time
from types import SimpleNamespace

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    JobDefinition,
    NonRetryableError,
    RunnableTask,
    RunState,
    Server,
    TaskState,
    param,
    result,
)

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


class Sleep(RunnableTask):
    """Take so many seconds."""

    seconds: float = 1.0

    async def run(self, context):
        await anyio.sleep(self.seconds)
        return self.seconds


class Steps(RunnableTask):
    """Take five seconds, with a checkpoint after each."""

    async def run(self, context):
        for _ in range(5):
            await anyio.sleep(1)
            await context.checkpoint()


class Fail(RunnableTask):
    """Fail until the given attempt."""

    until: int = 100
    final: bool = False

    async def run(self, context):
        if context.attempt < self.until:
            raise (NonRetryableError if self.final else OSError)(f"attempt {context.attempt}")
        return context.attempt


class Refuse(RunnableTask):
    """Swallow cancellation for so many seconds."""

    seconds: float = 30.0

    async def run(self, context):
        end = anyio.current_time() + self.seconds
        while anyio.current_time() < end:
            # The shield holds trio's cancellation off; asyncio's goes through it, and is swallowed.
            with anyio.CancelScope(shield=True), contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep(1)


class Numbers(RunnableTask):
    """Return a list."""

    count: int = 5

    async def run(self, context):
        return list(range(self.count))


class Square(RunnableTask):
    """Return the square, the later the smaller."""

    n: int

    async def run(self, context):
        await anyio.sleep(max(0, 10 - self.n))
        if self.n == 99:
            raise ValueError("99")
        return self.n * self.n


class CleansUp(RunnableTask):
    """Note in a list of the test's that it was cleaned up."""

    seen: object

    async def run(self, context):
        await anyio.sleep_forever()

    async def clean_up(self):
        await anyio.sleep(1)
        self.seen.append("clean")


CLASSES = [Sleep, Steps, Fail, Refuse, Numbers, Square, CleansUp]


def virtually(main, **options):
    """Run `main(server)` under trio's MockClock; time only passes when all wait."""

    async def run():
        async with Server(**options) as server:
            server.register_tasks("app", CLASSES)
            return await main(server)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def settle():
    await trio.testing.wait_all_tasks_blocked()


def seconds(run):
    return round((run.ended_at - run.started_at).total_seconds(), 3)


def test_pause_lets_executing_tasks_finish_and_starts_no_other():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("b", "Sleep", depends_on=["a"]).done()
        server.define(job)
        run = await server.start("j")
        await trio.sleep(0.5)
        run.pause()
        assert run.state is RunState.PAUSING
        await trio.sleep(100)
        assert run.state is RunState.PAUSED
        assert run.tasks["b"].state is TaskState.PENDING
        run.resume()
        await run.wait()
        assert seconds(run) == 101.5

    virtually(main)


def test_pause_holds_an_attempt_at_its_next_checkpoint():
    async def main(server):
        run = await server.start_task("Steps")
        await trio.sleep(1.5)
        run.pause()
        await trio.sleep(50)
        assert run.state is RunState.PAUSED
        run.resume()
        await run.wait()
        assert run.succeeded
        assert seconds(run) == 54.5

    virtually(main)


def test_the_timeouts_of_run_and_attempt_stand_still_while_held():
    async def main(server):
        job = JobDefinition.build("j", timeout=7).task("s", "Steps", timeout=6).done()
        server.define(job)
        run = await server.start("j")
        await trio.sleep(1.5)
        run.pause()
        await trio.sleep(50)
        run.resume()
        await run.wait()
        assert run.succeeded, run.explain()

    virtually(main)


def test_stop_lets_executing_tasks_finish_and_withholds_the_others():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep").task("b", "Sleep", depends_on=["a"]).done()
        server.define(job)
        run = await server.start("j")
        await trio.sleep(0.5)
        run.stop("enough")
        assert run.state is RunState.STOPPING
        await run.wait()
        assert run.state is RunState.STOPPED
        assert run.tasks["a"].state is TaskState.SUCCEEDED
        assert run.tasks["b"].state is TaskState.CANCELLED

    virtually(main)


def test_finally_tasks_run_after_a_cancel_and_not_after_a_kill():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep", args={"seconds": 100.0})
        server.define(job.task("tidy", "Sleep", finally_=True).done())
        cancelled, killed = await server.start("j"), await server.start("j")
        await trio.sleep(1)
        cancelled.cancel()
        killed.kill()
        await cancelled.wait()
        await killed.wait()
        assert cancelled.state is killed.state is RunState.CANCELLED
        assert cancelled.tasks["tidy"].state is TaskState.SUCCEEDED
        assert killed.tasks["tidy"].state is TaskState.CANCELLED

    virtually(main)


def test_a_finally_task_is_cut_off_after_its_time_when_the_run_was_cancelled():
    async def main(server):
        job = JobDefinition.build("j").task("a", "Sleep", args={"seconds": 100.0})
        server.define(job.task("tidy", "Sleep", args={"seconds": 1e6}, finally_=True).done())
        run = await server.start("j")
        await trio.sleep(1)
        run.cancel()
        await run.wait()
        assert run.state is RunState.CANCELLED
        assert seconds(run) == 61

    virtually(main)


def test_clean_up_runs_after_a_cancel_and_may_take_its_time():
    async def main(server):
        seen = []
        server.define(JobDefinition.build("j").task("n", "Numbers").done())

        class Local(CleansUp):
            async def run(self, context):
                self.seen = seen
                await anyio.sleep_forever()

            seen: object = None

        server.register_tasks("local", [Local])
        run = await server.start_task(next(path for path in server.registry.tasks if "Local" in path))
        await trio.sleep(1)
        run.cancel()
        await run.wait()
        assert seen == ["clean"]
        assert seconds(run) == 2

    virtually(main)


def test_a_failed_attempt_is_tried_again_after_its_back_off():
    async def main(server):
        retry = {"max_attempts": 4, "delay": 1, "backoff": 2, "max_delay": 3, "jitter": False}
        server.define(JobDefinition.build("j").task("f", "Fail", args={"until": 4}, retry=retry).done())
        run = await (await server.start("j")).wait()
        assert run.succeeded
        assert run.results["f"] == 4
        assert seconds(run) == 1 + 2 + 3

    virtually(main)


def test_attempts_are_never_more_than_allowed():
    async def main(server):
        server.define(JobDefinition.build("j").task("f", "Fail", retry={"max_attempts": 3}).done())
        run = await (await server.start("j")).wait()
        assert run.state is RunState.FAILED
        assert run.tasks["f"].attempts == 3

    virtually(main)


@pytest.mark.parametrize(("retry_on", "attempts"), [((), 2), (("OSError",), 2), (("ValueError",), 1)])
def test_retry_on_names_the_exceptions_that_are_tried_again(retry_on, attempts):
    async def main(server):
        retry = {"max_attempts": 2, "retry_on": retry_on}
        server.define(JobDefinition.build("j").task("f", "Fail", retry=retry).done())
        run = await (await server.start("j")).wait()
        assert run.tasks["f"].attempts == attempts

    virtually(main)


def test_a_non_retryable_error_fails_at_once():
    async def main(server):
        job = JobDefinition.build("j").task("f", "Fail", args={"final": True}, retry={"max_attempts": 5})
        server.define(job.done())
        run = await (await server.start("j")).wait()
        assert run.tasks["f"].attempts == 1

    virtually(main)


def test_cancel_beats_a_waiting_retry():
    async def main(server):
        retry = {"max_attempts": 5, "delay": 1000, "max_delay": 1000, "jitter": False}
        server.define(JobDefinition.build("j").task("f", "Fail", retry=retry).done())
        run = await server.start("j")
        await trio.sleep(1)
        assert run.tasks["f"].state is TaskState.UP_FOR_RETRY
        run.cancel()
        await run.wait()
        assert run.tasks["f"].state is TaskState.CANCELLED
        assert seconds(run) == 1

    virtually(main)


def test_an_attempt_that_takes_too_long_fails_with_a_timeout():
    async def main(server):
        job = JobDefinition.build("j").task("s", "Sleep", args={"seconds": 100.0}, timeout=5).done()
        server.define(job)
        run = await (await server.start("j")).wait()
        assert run.tasks["s"].state is TaskState.FAILED
        assert run.tasks["s"].failure.type == "TimeoutError"
        assert seconds(run) == 5

    virtually(main)


def test_a_run_that_takes_too_long_fails():
    async def main(server):
        server.define(JobDefinition.build("j", timeout=5).task("s", "Sleep", args={"seconds": 100.0}).done())
        run = await (await server.start("j")).wait()
        assert run.state is RunState.FAILED
        assert run.reason == "timeout"
        assert seconds(run) == 5

    virtually(main)


def test_a_refuser_is_given_up_after_the_grace_and_named_until_it_ends():
    async def main(server):
        run = await server.start_task("Refuse")
        await trio.sleep(1)
        run.cancel(grace=2)
        await run.wait()
        assert seconds(run) == 3
        assert run.state is RunState.CANCELLED
        assert run.tasks["Refuse"].stuck
        (label, where) = next(iter(run.stuck.items()))
        assert label == f"Refuse#{run.id}/Refuse"
        assert "in run" in where or "in sleep" in where
        assert server.stuck == run.stuck
        await trio.sleep(60)
        assert not server.stuck
        assert run.state is RunState.CANCELLED

    virtually(main)


def test_a_map_runs_once_for_each_element_and_keeps_the_order():
    async def main(server):
        job = JobDefinition.build("j").task("n", "Numbers")
        server.define(job.task("sq", "Square", map={"n": result("n")}).done())
        run = await (await server.start("j")).wait()
        assert run.results["sq"] == [0, 1, 4, 9, 16]
        assert [status.index for status in run.tasks.instances("sq")] == [0, 1, 2, 3, 4]
        assert seconds(run) == 10

    virtually(main)


def test_max_parallel_of_a_map_bounds_its_instances():
    async def main(server):
        job = JobDefinition.build("j", params={"secs": [1.0] * 6}, max_parallel=None)
        server.define(job.task("s", "Sleep", map={"seconds": param("secs")}, max_parallel=2).done())
        run = await (await server.start("j")).wait()
        assert run.succeeded, run.explain()
        assert seconds(run) == 3

    virtually(main)


def test_a_pool_is_shared_by_all_runs():
    async def main(server):
        server.define(JobDefinition.build("j").task("s", "Sleep", pool="db").done())
        runs = [await server.start("j") for _ in range(6)]
        begin = trio.current_time()
        for run in runs:
            await run.wait()
        assert trio.current_time() - begin == 3

    virtually(main, pools={"db": 2})


def test_an_instance_that_fails_lets_its_siblings_finish():
    async def main(server):
        job = JobDefinition.build("j", params={"ns": [1, 99, 3]})
        server.define(job.task("sq", "Square", map={"n": param("ns")}).done())
        run = await (await server.start("j")).wait()
        assert run.state is RunState.FAILED
        states = [status.state for status in run.tasks.instances("sq")]
        assert states == [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SUCCEEDED]
        assert "sq[1] failed: ValueError: 99" in run.explain()

    virtually(main)


def test_a_map_over_no_list_fails_the_task_and_says_so():
    async def main(server):
        job = JobDefinition.build("j").task("s", "Sleep")
        server.define(job.task("sq", "Square", map={"n": result("s")}).done())
        run = await (await server.start("j")).wait()
        assert run.tasks["sq"].state is TaskState.FAILED
        assert "map.n needs a list, not float" in run.explain()

    virtually(main)


def test_run_if_false_skips_the_task():
    async def main(server):
        job = JobDefinition.build("j", params={"wanted": False}).task("s", "Sleep", run_if=param("wanted"))
        server.define(job.done())
        run = await (await server.start("j")).wait()
        assert run.succeeded
        assert run.tasks["s"].state is TaskState.SKIPPED

    virtually(main)


def test_higher_priority_starts_first_across_runs():
    async def main(server):
        for name, priority in (("low", 0), ("high", 5)):
            server.define(JobDefinition.build(name).task("s", "Sleep", priority=priority).done())
        first = await server.start("low")
        await settle()
        low, high = await server.start("low"), await server.start("high")
        for run in (first, low, high):
            await run.wait()
        assert high.started_at >= low.started_at
        assert high.ended_at < low.ended_at

    virtually(main, max_parallel=1)


def test_overlap_replace_cancels_the_older_run():
    async def main(server):
        job = JobDefinition.build("j", max_runs=1, overlap="replace").task("s", "Sleep").done()
        server.define(job)
        first = await server.start("j")
        await trio.sleep(0.5)
        second = await server.start("j")
        await first.wait()
        await second.wait()
        assert first.state is RunState.CANCELLED
        assert f"replaced by run {second.id}" in first.reason
        assert second.succeeded

    virtually(main)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_killed_coroutine_that_swallows_cancellation_is_closed_on_asyncio(anyio_backend):
    async with Server(grace=0.1) as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Refuse", {"seconds": 1e9})
        await anyio.wait_all_tasks_blocked()
        run.kill()
        await run.wait(PATIENCE)
        assert run.state is RunState.CANCELLED
        assert not server.stuck


def test_the_time_of_a_run_goes_on_where_it_stood_when_the_pause_ends():
    async def main(server):
        job = JobDefinition.build("j", timeout=3.5)
        server.define(job.task("s", "Steps").done())
        run = await server.start("j")
        await trio.sleep(1.5)
        run.pause()  # held at 2
        await trio.sleep(50)
        run.resume()  # at 51.5
        await run.wait()
        assert run.state is RunState.FAILED
        assert seconds(run) == 3.5 + (51.5 - 2)

    virtually(main)


def test_an_attempt_that_is_held_twice_has_all_of_its_time_and_no_more():
    async def main(server):
        server.define(JobDefinition.build("j").task("s", "Steps", timeout=4.5).done())
        run = await server.start("j")
        for _ in range(2):
            await trio.sleep(1.5)
            run.pause()  # held half a second later
            await trio.sleep(10.5)
            run.resume()
        await run.wait()
        assert run.tasks["s"].failure.type == "TimeoutError"
        assert seconds(run) == 4.5 + 2 * 10

    virtually(main)


class Parent(RunnableTask):
    """Start the job "child" and wait for it."""

    async def run(self, context):
        child = await context.start("child")
        await child.wait()
        return child.id


def test_pause_and_resume_reach_the_runs_that_a_task_has_started():
    async def main(server):
        server.register_tasks("parents", [Parent])
        server.define(JobDefinition.build("child").task("s", "Steps").done())
        parent = await server.start_task("Parent")
        await trio.sleep(1.5)
        child = server.runs[parent.id + 1]
        parent.pause()
        await trio.sleep(50)
        assert child.state is RunState.PAUSED
        parent.resume()
        await parent.wait()
        assert child.succeeded
        assert parent.succeeded
        assert seconds(child) == 5 + 51.5 - 2

    virtually(main)


def test_a_pause_reaches_no_child_that_has_ended_or_is_being_cancelled():
    async def main(server):
        server.register_tasks("parents", [Parent])
        server.define(JobDefinition.build("child").task("r", "Refuse").done())
        parent = await server.start_task("Parent")
        await trio.sleep(1)
        child = server.runs[parent.id + 1]
        child.cancel(grace=5)
        parent.pause()
        assert child.state is RunState.CANCELLING
        parent.resume()
        await parent.wait()
        assert child.state is RunState.CANCELLED
        assert parent.succeeded

    virtually(main)


def test_what_a_refuser_says_after_it_was_given_up_changes_nothing():
    async def main(server):
        class RefuseAndFail(Refuse):
            async def run(self, context):
                await super().run(context)
                raise ValueError("too late")

        server.register_tasks("late", [RefuseAndFail])
        path = next(path for path in server.registry.tasks if "RefuseAndFail" in path)
        run = await server.start_task(path)
        await trio.sleep(1)
        run.cancel(grace=1)
        await run.wait()
        before = run.explain()
        lines = len(run.logs())
        await trio.sleep(100)
        assert not server.stuck
        assert "too late" not in run.explain()
        assert run.state is RunState.CANCELLED
        assert before.splitlines()[0] == run.explain().splitlines()[0]
        assert len(run.logs()) == lines

    virtually(main)


class MakeGate(RunnableTask):
    """Return something to wait for, which a result passes by reference."""

    async def run(self, context):
        return anyio.Event()


REFUSER = """import contextlib
import anyio
from scattersphere import RunnableTask

class Work(RunnableTask):
    gate: object

    async def run(self, context):
        while not self.gate.is_set():
            with anyio.CancelScope(shield=True), contextlib.suppress(anyio.get_cancelled_exc_class()):
                await self.gate.wait()
"""


@pytest.mark.anyio
async def test_a_version_stays_until_its_last_refuser_has_ended(tmp_path):
    source = tmp_path / "work.py"
    source.write_text(REFUSER)
    async with Server() as server:
        bundle = await server.register(source)
        server.register_tasks("app", [MakeGate])
        job = JobDefinition.build("j").task("gate", "MakeGate")
        server.define(job.task("work", "work.Work", args={"gate": result("gate")}).done())
        run = await server.start("j")
        while run.tasks["work"].state is not TaskState.RUNNING:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        run.cancel(grace=0.001)
        await run.wait(PATIENCE)
        assert f"j#{run.id}/work" in server.stuck
        source.write_text(REFUSER + "# edited\n")
        await server.reload("work")
        assert [set(runs) for runs in bundle.versions.values()] == [{run.id}]
        run.results["gate"].set()
        while server.stuck:
            await anyio.lowlevel.checkpoint()
        assert not bundle.versions


class Culprit(RunnableTask):
    """Cancel the own run in the first step, then wait."""

    async def run(self, context):
        context.log.info("begun")
        SERVERS[context.run_id].runs[context.run_id].cancel("from inside")
        await anyio.sleep_forever()


SERVERS: dict = {}


@pytest.mark.anyio
async def test_a_body_that_cancels_its_own_run_ends_it_and_all_that_was_about_to_start():
    async with Server(grace=5) as server:
        server.register_tasks("app", [Culprit])
        tasks = JobDefinition.build("j")
        for number in range(10):
            tasks = tasks.task(f"t{number}", "Culprit")
        server.define(tasks.done())
        SERVERS[1] = server
        run = await (await server.start("j")).wait(PATIENCE)
        del SERVERS[1]
        assert run.state is RunState.CANCELLED
        assert {status.state for status in run.tasks.values()} == {TaskState.CANCELLED}
        assert not server.stuck


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_leaving_closes_a_coroutine_that_was_given_up_before(anyio_backend):
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Refuse", {"seconds": 1e9})
        await anyio.wait_all_tasks_blocked()
        run.cancel(grace=0.001)
        await run.wait(PATIENCE)
        assert server.stuck
    assert not server.stuck
    assert run.state is RunState.CANCELLED


class CancelsItself(RunnableTask):
    """Cancel the own run in the first step, and return in it all the same."""

    async def run(self, context):
        SERVERS[context.run_id].runs[context.run_id].cancel("from inside", grace=0.001)
        return "done"


@pytest.mark.anyio
async def test_a_body_that_is_asked_to_end_and_ends_in_its_first_step_is_never_called_stuck():
    async with Server() as server:
        server.register_tasks("app", [CancelsItself])
        SERVERS[1] = server
        run = await (await server.start_task("CancelsItself")).wait(PATIENCE)
        del SERVERS[1]
        await anyio.sleep(0.01)  # ten times its grace
        assert not server.stuck
        assert run.tasks["CancelsItself"].state is TaskState.SUCCEEDED
        assert run.state is RunState.CANCELLED
        assert not run.logs()


class Begins(RunnableTask):
    """Note that it began."""

    seen: object

    async def run(self, context):
        self.seen.append(context.task)
        SERVERS[context.run_id].runs[context.run_id].kill("from inside")
        await anyio.sleep_forever()


class MakeList(RunnableTask):
    """Return an empty list, which a result passes by reference."""

    async def run(self, context):
        return []


@pytest.mark.anyio
async def test_no_body_begins_after_its_attempt_was_asked_to_end():
    async with Server() as server:
        server.register_tasks("app", [Begins, MakeList])
        job = JobDefinition.build("j").task("seen", "MakeList")
        for number in range(5):
            job = job.task(f"t{number}", "Begins", args={"seen": result("seen")})
        server.define(job.done())
        SERVERS[1] = server
        run = await (await server.start("j")).wait(PATIENCE)
        del SERVERS[1]
        assert len(run.results["seen"]) == 1
        assert not server.stuck


@pytest.mark.parametrize("limit", ["of the server", "of the job"])
def test_a_queued_run_that_was_paused_while_a_place_became_free_starts_when_resumed(limit):
    async def main(server):
        server.define(
            JobDefinition.build("j", max_runs=1 if limit == "of the job" else None).task("a", "Sleep").done()
        )
        first, second = await server.start("j"), await server.start("j")
        second.pause()
        await first.wait()
        assert second.state is RunState.PAUSED
        second.resume()
        assert second.state is RunState.RUNNING
        await second.wait(5)
        assert second.succeeded

    virtually(main, max_runs=1 if limit == "of the server" else None)


class ChecksOnTheLoop(RunnableTask):
    """Call what is for threads, from an async body."""

    async def run(self, context):
        await anyio.lowlevel.checkpoint()
        context.check()


@pytest.mark.anyio
async def test_check_on_the_thread_of_the_loop_is_an_error_that_names_checkpoint():
    async with Server() as server:
        server.register_tasks("app", [ChecksOnTheLoop, Sleep])
        run = await (await server.start_task("ChecksOnTheLoop")).wait(PATIENCE)
        failure = run.tasks["ChecksOnTheLoop"].failure
        assert failure.type == "RuntimeError"
        assert "await context.checkpoint()" in failure.message


@pytest.mark.anyio
async def test_check_on_the_loop_of_a_worker_process_is_an_error_too():
    async with Server() as server:
        server.register_tasks("app", [ChecksOnTheLoop])
        job = JobDefinition.build("j").task("t", "ChecksOnTheLoop", backend="process")
        server.define(job.done())
        run = await (await server.start("j")).wait(PATIENCE)
        assert "await context.checkpoint()" in run.tasks["t"].failure.message


class BeginsSlowly(RunnableTask):
    """Take a first step of some milliseconds, so that a slice is over long before all have begun.

    The third to begin makes the request: a test that looks on may get its turn when all have begun.
    """

    async def run(self, context):
        BEGUN.append(context.task)
        if len(BEGUN) == 3:
            self.request(context)
        time.sleep(0.003)  # noqa: ASYNC251 - that is the point
        await anyio.lowlevel.checkpoint()


BEGUN: list[str] = []


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["pause", "stop", "cancel", "kill"])
async def test_nothing_begins_after_a_request_has_returned_and_what_has_not_begun_is_not_running(
    verb, monkeypatch
):
    async with Server() as server:
        server.register_tasks("app", [BeginsSlowly])
        job = JobDefinition.build("j")
        for number in range(40):
            job = job.task(f"t{number}", "BeginsSlowly")
        server.define(job.done())
        BEGUN.clear()
        when_asked = []

        def request(self, context):
            run = server.runs[context.run_id]
            getattr(run, verb)()
            tasks = run.tasks.items()
            when_asked.append(set(BEGUN))
            when_asked.append({name for name, task in tasks if task.attempts})
            when_asked.append({name for name, task in tasks if task.started_at})

        monkeypatch.setattr(BeginsSlowly, "request", request, raising=False)
        run = await server.start("j")
        with anyio.fail_after(PATIENCE):
            while len(when_asked) < 3:
                await anyio.lowlevel.checkpoint()
        begun = when_asked[0]
        assert when_asked == [begun] * 3
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert set(BEGUN) == begun
        if verb == "pause":
            run.resume()
            await run.wait(PATIENCE)
            assert run.succeeded
            assert sorted(BEGUN) == sorted(run.tasks)
        else:
            await run.wait(PATIENCE)
            withheld = {name for name, task in run.tasks.items() if task.state is TaskState.CANCELLED}
            assert withheld >= set(run.tasks) - begun


class LateBackend:
    """Begin each call ten seconds after it was given, in a thread, and report it three seconds later."""

    limit = None

    def __init__(self, *, holds_clock=False):
        self._holds_clock = holds_clock

    async def open(self, host):
        self._host = host

    async def aclose(self):
        pass

    def start(self, call, done):
        trio.lowlevel.spawn_system_task(self._carry_out, call, done)
        return SimpleNamespace(cancel=lambda: None, kill=lambda: None, where=lambda: "nowhere")

    async def _carry_out(self, call, done):
        await trio.sleep(10)
        begun, outcomes = trio.Event(), []

        def work():
            outcomes.append(call.context.run(call.invoke))
            self._host.soon(begun.set)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while self._holds_clock and thread.is_alive():  # virtual time goes on only where all tasks wait
            await trio.lowlevel.checkpoint()
        await begun.wait()
        thread.join()
        await trio.sleep(3)
        done(outcomes[0])


class BeginsInAThread(RunnableTask):
    """Note that it began."""

    def run(self, context):
        BEGUN.append(context.task)


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel", "kill"])
def test_a_backend_begins_nothing_after_a_request(verb):
    async def main(server):
        server.register_tasks("late", [BeginsInAThread])
        server.define(JobDefinition.build("j").task("t", "BeginsInAThread", backend="late").done())
        BEGUN.clear()
        run = await server.start("j")
        await trio.sleep(5)
        getattr(run, verb)()
        await trio.sleep(20)
        assert not BEGUN
        if verb == "pause":
            while run.state is RunState.PAUSING:  # until a real thread has come to where it waits
                await trio.lowlevel.checkpoint()
            run.resume()
            await run.wait()
            assert BEGUN == ["t"]
            assert run.succeeded
        else:
            await run.wait()
            assert run.tasks["t"].state is TaskState.CANCELLED
            assert run.state is (RunState.STOPPED if verb == "stop" else RunState.CANCELLED)

    virtually(main, backends={"late": LateBackend()}, grace=30)


def test_start_and_timeout_of_a_body_elsewhere_count_from_its_beginning():
    async def main(server):
        server.register_tasks("late", [BeginsInAThread])
        server.define(JobDefinition.build("j").task("t", "BeginsInAThread", backend="late", timeout=5).done())
        run = await (await server.start("j")).wait()
        assert run.succeeded, run.explain()
        assert (run.tasks["t"].started_at - run.started_at).total_seconds() == pytest.approx(10)

    virtually(main, backends={"late": LateBackend(holds_clock=True)})

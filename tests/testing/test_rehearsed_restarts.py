"""A rehearsal whose Server dies, or is restarted: users see whether their own tasks survive that."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import anyio
import pytest
from virtualtime import both_loops, run_virtually

from scattersphere import ConflictError, JobDefinition, RunnableTask, RunState, SuspendedError, TaskContext
from scattersphere.testing import MemoryJournal, Rehearsal, RehearsalError

if TYPE_CHECKING:
    from pathlib import Path

BEGUN: list[str] = []
KEYS: set[str] = set()


class Step(RunnableTask):
    """Takes a while, and notes what it does."""

    seconds: float = 0.0
    given: object = None

    async def run(self, context: TaskContext) -> str:
        BEGUN.append(context.task)
        KEYS.add(context.idempotency_key)
        await anyio.sleep(self.seconds)
        return context.task


class Threaded(RunnableTask):
    """Works in a thread."""

    def run(self, context: TaskContext) -> str:
        BEGUN.append(context.task)
        return context.task


def job(**seconds: float) -> JobDefinition:
    """Make a chain of steps."""
    builder = JobDefinition.build("etl")
    step = None
    for name, spent in seconds.items():
        step = builder.options(name=name, retry={"max_attempts": 2, "delay": 100, "jitter": False}).task(
            Step, seconds=spent, given=step
        )
    return builder.done()


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    BEGUN.clear()
    KEYS.clear()


def rehearsal_with_journal(**options: object) -> Rehearsal:
    rehearsal = Rehearsal()
    rehearsal.configure(journal=MemoryJournal(), **options)
    rehearsal.register_tasks("app", [Step, Threaded])
    return rehearsal


@both_loops
def test_after_a_crash_what_was_committed_stays_and_what_executed_is_done_again(backend: str) -> None:
    async def main() -> None:
        async with rehearsal_with_journal() as rehearsal:
            first = await rehearsal.start(job(a=10, b=1000, c=0))
            await anyio.sleep(500)
            server = await rehearsal.crash()
            assert server is rehearsal.server
            run = await server.runs[first.id].wait()
            assert (run.state, run.recovered) == (RunState.SUCCEEDED, 1)
            assert BEGUN == ["a", "b", "b", "c"]
            assert len(KEYS) == 3
            assert run.results["b"] == "b"
            assert anyio.current_time() >= 1500
            with pytest.raises(SuspendedError):
                await first.wait()

    run_virtually(backend, main)


@both_loops
def test_a_back_off_goes_on_where_it_was(backend: str) -> None:
    async def main() -> None:
        async with rehearsal_with_journal() as rehearsal:
            rehearsal.fail("b", attempt=1)
            run = await rehearsal.start(job(a=0, b=0))
            await anyio.sleep(60)
            server = await rehearsal.crash()
            began = anyio.current_time()
            run = await server.runs[run.id].wait()
            assert run.tasks["b"].attempts == 2
            assert 39 <= anyio.current_time() - began <= 41
            assert BEGUN == ["a", "b"]

    run_virtually(backend, main)


@both_loops
def test_bundles_definitions_fakes_and_injections_are_there_again(backend: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from scattersphere import RunnableTask\n"
        "class Load(RunnableTask):\n    def run(self, context):\n        return 1\n"
        "class Send(RunnableTask):\n    def run(self, context):\n        raise OSError('no network here')\n"
    )
    text = """{"name": "send", "bundles": {"app": "app.py"}, "tasks": {
        "load": {"task": "app.Load", "retry": {"max_attempts": 3, "delay": 0}},
        "send": {"task": "app.Send", "depends_on": ["load"]}}}"""

    async def main() -> None:
        rehearsal = Rehearsal(tmp_path, scratch=tmp_path / "scratch")
        rehearsal.configure(journal=MemoryJournal())
        async with rehearsal:
            rehearsal.fake("app.Send", lambda: "sent")
            rehearsal.delay("load", 50)
            rehearsal.fail("load", attempt=1)
            first = await rehearsal.start(JobDefinition.loads(text))
            await anyio.sleep(10)
            await rehearsal.crash()
            run = await rehearsal.server.runs[first.id].wait()
            assert run.results["send"] == "sent"
            again = await rehearsal.run("send")
            assert again.id != first.id
            assert again.results["send"] == "sent"

    run_virtually(backend, main)


@both_loops
def test_a_schedule_goes_on_by_the_clock_that_was_set(backend: str) -> None:
    async def main() -> None:
        async with rehearsal_with_journal() as rehearsal:
            hourly = {"format": 2, "schedules": {"hourly": {"every": 3600}}}
            nightly = JobDefinition.loads(json.dumps({**json.loads(job(a=0).dumps()), **hourly}))
            await rehearsal.load(nightly)
            await rehearsal.set_time("2030-01-01T00:30:00Z")
            first = await (await rehearsal.next_firing()).wait()
            await rehearsal.crash()
            second = await (await rehearsal.next_firing()).wait()
            assert [first.key, second.key] == [f"etl/hourly/2030-01-01T0{hour}:00:00Z" for hour in (1, 2)]

    run_virtually(backend, main)


@both_loops
def test_a_restart_in_order_suspends(backend: str) -> None:
    async def main() -> None:
        async with rehearsal_with_journal() as rehearsal:
            first = await rehearsal.start(job(a=10, b=1000))
            await anyio.sleep(500)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rehearsal.restart)
                with pytest.raises(SuspendedError):
                    await first.wait()
            run = await rehearsal.server.runs[first.id].wait()
            assert run.succeeded
            assert BEGUN == ["a", "b", "b"]

    run_virtually(backend, main)


@both_loops
def test_whatever_commit_was_the_last_one_a_job_comes_to_its_end(backend: str) -> None:
    """What the documentation shows: a crash after each commit."""

    async def main() -> int:
        for commits in itertools.count(2):
            BEGUN.clear()
            journal = MemoryJournal()
            journal.crash_after = commits
            async with Rehearsal() as rehearsal:
                rehearsal.configure(journal=journal)
                rehearsal.register_tasks("app", [Step])
                await rehearsal.load(job(a=1, b=1))
                with anyio.move_on_after(1000):
                    run = await (await rehearsal.server.start("etl", key="today")).wait()
                    assert run.succeeded
                    return commits
                server = await rehearsal.crash()
                run = await (await server.start("etl", key="today")).wait()
                assert run.succeeded
                assert len(server.runs) == 1
                assert BEGUN.count("a") <= 2
        raise AssertionError

    assert run_virtually(backend, main) > 4


@both_loops
def test_a_crash_needs_a_journal_of_the_test(backend: str) -> None:
    async def main() -> None:
        async with Rehearsal() as rehearsal:
            await rehearsal.open()
            with pytest.raises(ConflictError, match=r"configure\(journal=MemoryJournal\(\)\)"):
                await rehearsal.crash()
            with pytest.raises(ConflictError, match="nothing outlives a restart"):
                await rehearsal.restart()

    run_virtually(backend, main)


@both_loops
def test_what_is_left_behind_by_the_life_after_is_complained_of_and_the_story_has_all_lives(
    backend: str,
) -> None:
    async def main() -> None:
        rehearsal = await rehearsal_with_journal().__aenter__()
        await rehearsal.run(job(a=0).evolve(name="first"))
        await rehearsal.start(job(a=1e6).evolve(name="second"))
        await anyio.sleep(1)
        await rehearsal.crash()
        story = rehearsal.story()
        assert "of first: succeeded" in story
        assert "of second: running" in story
        with pytest.raises(RehearsalError, match="is still running"):
            await rehearsal.__aexit__(None, None, None)

    run_virtually(backend, main)


@both_loops
def test_a_body_in_a_thread_goes_on_in_the_next_life(backend: str) -> None:
    async def main() -> None:
        async with rehearsal_with_journal() as rehearsal:
            builder = JobDefinition.build("mixed")
            a = builder.options(name="a").task(Threaded)
            builder.options(name="b", depends_on=[a]).task(Step, seconds=100)
            first = await rehearsal.start(builder)
            await anyio.sleep(50)  # the clock stands while the thread works
            assert BEGUN == ["a", "b"]
            await rehearsal.crash()
            assert (await rehearsal.server.runs[first.id].wait()).succeeded
            assert BEGUN == ["a", "b", "b"]

    run_virtually(backend, main)

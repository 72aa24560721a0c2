"""The stream of a run: one order, one numbering, for readers that come early, late, or too slowly."""

import itertools
import threading
from array import array
from typing import ClassVar

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    EventKind,
    JobDefinition,
    RunnableTask,
    Server,
    TaskState,
    result,
)
from scattersphere.engine import execution
from scattersphere.engine.events import pages
from scattersphere.engine.events.pages import PAGE
from scattersphere.engine.execution import Execution
from scattersphere.engine.machine import record
from scattersphere.engine.machine.record import RunRecord

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

pytestmark = pytest.mark.anyio


class Talk(RunnableTask):
    """Log and report progress, so many times."""

    times: int = 1

    async def run(self, context):
        for number in range(self.times):
            context.log.info("line %d", number)
            context.progress(number, self.times)
        return self.times


class TalkInThread(RunnableTask):
    """The same in a thread."""

    times: int = 1

    def run(self, context):
        for number in range(self.times):
            context.log.info("line %d", number)
            context.progress(number, self.times)


class FailTwice(RunnableTask):
    """Succeed at the third attempt."""

    async def run(self, context):
        if context.attempt < 3:
            raise OSError(f"attempt {context.attempt}")


class Pulse(RunnableTask):
    """Report progress every hundredth of a second for a second."""

    async def run(self, context):
        for number in range(100):
            context.progress(number, 100, f"step {number}")
            await anyio.sleep(0.01)


class Wait(RunnableTask):
    """Log a line, then wait for the gate."""

    gate: object

    async def run(self, context):
        context.log.info("here")
        await self.gate.wait()


class Numbers(RunnableTask):
    """Return a list."""

    async def run(self, context):
        return [1, 2, 3]


class Wrong(RunnableTask):
    """Report what is no number."""

    done: object

    async def run(self, context):
        context.progress(self.done)


class Silent(RunnableTask):
    """Do nothing, for ever."""

    async def run(self, context):
        await anyio.sleep_forever()


CLASSES = [Talk, TalkInThread, FailTwice, Pulse, Wait, Numbers, Wrong, Silent]


@pytest.fixture
async def server():
    async with Server(grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def read(run, since=0):
    return [event async for event in run.events(since)]


def kinds(events):
    return [str(event.kind) for event in events]


async def test_a_reader_hears_that_a_task_has_started_though_nothing_happens_after_that(server):
    async def hear():
        run = await server.start_task("Silent")
        async for event in run.events():
            if event.kind is EventKind.TASK_STARTED:
                run.kill()

    for _ in range(20):  # on trio a body begins a turn later, before or after its readers have looked
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as readers:
                for _ in range(3):
                    readers.start_soon(hear)


@pytest.mark.parametrize("task", ["Talk", "TalkInThread"])
async def test_log_lines_are_events_between_the_start_and_the_end_of_their_task(server, task):
    run = await server.start_task(task, {"times": 3})
    events = await read(run)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert kinds(events)[:2] == ["run-started", "task-started"]
    assert kinds(events)[-2:] == ["task-ended", "run-ended"]
    lines = [event for event in events if event.kind is EventKind.LOG]
    assert [event.message for event in lines] == ["line 0", "line 1", "line 2"]
    assert {(event.task, event.attempt, event.level) for event in lines} == {(task, 1, 20)}


@pytest.mark.parametrize("task", ["Talk", "TalkInThread"])
async def test_who_comes_after_the_end_reads_what_those_read_who_were_there(server, task):
    run = await server.start_task(task, {"times": 5})
    live = await read(run)
    assert await read(run) == live
    for since in range(len(live) + 2):
        assert await read(run, since) == live[since:]


async def test_lines_of_a_thread_come_before_its_end_even_if_nobody_listened(server):
    run = await (await server.start_task("TalkInThread", {"times": 3})).wait(PATIENCE)
    found = kinds(await read(run))
    assert found.index("task-ended") > max(at for at, kind in enumerate(found) if kind == "log")


async def test_a_reader_is_woken_by_a_line_of_its_run(server):
    gate = anyio.Event()
    server.define(JobDefinition.build("j").task("numbers", "Numbers").done())
    run = await server.start_task("Wait", {"gate": gate})
    async for event in run.events():
        if event.kind is EventKind.LOG:
            gate.set()
    assert (await run.wait(PATIENCE)).succeeded


async def test_readers_share_the_events_that_were_made_for_one_of_them(server):
    run = await server.start_task("Talk", {"times": 3})
    found = []

    async def reader(stream):
        found.append([event async for event in stream])

    # All are there from the beginning: on 3.12 and later the run may have ended before the first reads.
    streams = [run.events() for _ in range(10)]
    async with anyio.create_task_group() as group:
        for stream in streams:
            group.start_soon(reader, stream)
    for events in found[1:]:
        assert all(one is other for one, other in zip(events, found[0], strict=True))


async def test_no_event_is_made_while_nobody_reads_and_none_is_kept_afterwards(server):
    run = await (await server.start_task("Talk", {"times": 3})).wait(PATIENCE)
    assert run._execution not in pages._pages
    await read(run)
    assert pages._pages[run._execution]() is None


async def test_a_reader_that_is_too_slow_is_told_how_many_it_missed_and_loses_no_move():
    async with Server(keep_events=10) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Talk", {"times": 2000})).wait(PATIENCE)
        events = await read(run)
        assert kinds(events)[:3] == ["run-started", "task-started", "lagged"]
        assert kinds(events)[-2:] == ["task-ended", "run-ended"]
        lagged = events[2]
        assert lagged.dropped == events[3].seq - events[1].seq - 1 == lagged.seq - 2
        assert str(lagged.dropped) in lagged.message
        assert kinds(events).count("lagged") == 1
        assert run.last_event == events[-1].seq


async def test_a_reader_that_stopped_for_a_while_is_told_what_is_gone():
    async with Server(keep_events=10) as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Talk", {"times": 2000})
        stream = run.events()
        first = await anext(stream)
        await run.wait(PATIENCE)
        rest = [event async for event in stream]
        assert first.seq == 1
        told = 1 + len(rest) + sum(event.dropped for event in rest) - kinds(rest).count("lagged")
        assert told == run.last_event


async def test_a_reader_gets_past_pages_of_which_the_log_has_dropped_every_line():
    """It once looked at the same empty page for ever, and the loop stood still."""
    async with Server(log_limit=2_000, keep_events=100_000) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Talk", {"times": 4 * PAGE})).wait(PATIENCE)
        events = await read(run)
        assert kinds(events)[-1] == "run-ended"
        told = len(events) + sum(event.dropped for event in events) - kinds(events).count("lagged")
        assert told == run.last_event


async def test_lines_that_the_log_has_dropped_are_missing_events():
    async with Server(log_limit=2_000) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("Talk", {"times": 100})).wait(PATIENCE)
        events = await read(run)
        assert "lagged" in kinds(events)
        lines = [event.message for event in events if event.kind is EventKind.LOG]
        assert lines == [line.message for line in run.logs()][1:]


async def test_each_failed_attempt_has_its_own_words(server):
    job = JobDefinition.build("j").task("t", "FailTwice", retry={"max_attempts": 3}).done()
    server.define(job)
    run = await (await server.start("j")).wait(PATIENCE)
    told = [(event.attempt, event.state, event.message) for event in await read(run) if event.task == "t"]
    told = [entry for entry in told if entry[1] is not None]
    assert told == [
        (1, "running", ""),
        (1, "up_for_retry", "OSError: attempt 1"),
        (2, "running", ""),
        (2, "up_for_retry", "OSError: attempt 2"),
        (3, "running", ""),
        (3, "succeeded", ""),
    ]


def _job(name):
    """Return a job whose run is even, or is not for one reason."""
    job = JobDefinition.build("j").task("n", "Numbers").task("a", "Numbers", depends_on=["n"])
    match name:
        case "a retry":
            job = job.task("b", "FailTwice", retry={"max_attempts": 3})
        case "a map":
            job = job.task("b", "Talk", map={"times": result("n")})
        case "a skip":
            job = job.task("b", "Numbers", run_if=False)
        case "a failure":
            job = job.task("b", "FailTwice").task("c", "Numbers", depends_on=["b"])
    return job.task("last", "Numbers", depends_on=["a"]).done()


@pytest.mark.parametrize("why", ["even", "a retry", "a map", "a skip", "a failure", "reused"])
async def test_the_quick_way_of_making_events_makes_the_same_as_the_general_one(server, monkeypatch, why):
    server.define(_job("a failure" if why == "reused" else why))
    run = await (await server.start("j")).wait(PATIENCE)
    if why == "reused":
        run = await (await server.rerun(run.id)).wait(PATIENCE)
    assert run._execution.machine.record.is_even is (why == "even")
    quick = await read(run)
    monkeypatch.setattr(RunRecord, "is_even", False)
    assert await read(run) == quick
    assert ("last", "succeeded") in [(event.task, event.state) for event in quick]


async def test_events_can_be_read_while_a_large_run_is_settled_piece_by_piece(server, monkeypatch):
    for module in (record, execution):
        monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(Execution, "compact", lambda _: None)
    server.define(_job("a map"))
    run = await (await server.start("j")).wait(PATIENCE)
    told = await read(run)
    pieces = 0
    for _ in run._execution.compacting():
        pieces += 1
        assert await read(run) == told
    assert pieces > 1
    assert isinstance(run._execution.journal.moves, array)
    assert await read(run) == told


async def test_instances_of_maps_are_told_with_their_index(server):
    job = JobDefinition.build("j").task("n", "Numbers")
    server.define(job.task("m", "Talk", map={"times": result("n")}).done())
    run = await (await server.start("j")).wait(PATIENCE)
    ended = [e for e in await read(run) if e.kind is EventKind.TASK_ENDED and e.task == "m"]
    told = [(event.index, event.attempt) for event in ended]
    assert sorted(told[:-1]) == [(0, 1), (1, 1), (2, 1)]
    assert told[-1] == (None, None)


async def test_a_long_story_leaves_the_loop_to_others(server):
    size = 3000
    job = JobDefinition.build("j")
    for number in range(size):
        job = job.task(f"t{number}", "Talk", args={"times": 0})
    server.define(job.done())
    run = await (await server.start("j")).wait(PATIENCE)
    turns, ended = 0, False

    async def others():
        nonlocal turns
        while not ended:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        assert len(await read(run)) == 2 * size + 2 > 20 * PAGE
        ended = True
    assert turns >= 3


def test_progress_is_told_ten_times_a_second_at_most_and_the_last_report_always():
    async def main():
        async with Server() as server:
            server.register_tasks("app", CLASSES)
            run = await server.start_task("Pulse")
            events = await read(run)
            told = [event for event in events if event.kind is EventKind.TASK_PROGRESS]
            assert len(told) <= 12
            assert (told[0].done, told[-1].done, told[-1].message) == (0, 99, "step 99")
            gaps = [b.time - a.time for a, b in itertools.pairwise(told)]
            assert all(gap.total_seconds() > 0.09 for gap in gaps[:-1])
            assert kinds(events)[-3:] == ["task-progress", "task-ended", "run-ended"]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_thread_that_reports_all_the_time_does_not_flood_the_loop(server):
    run = await server.start_task("TalkInThread", {"times": 5_000})
    told = [event.done for event in await read(run) if event.kind is EventKind.TASK_PROGRESS]
    assert told[-1] == 4_999
    assert told == sorted(set(told))
    assert len(told) < 1_000


@pytest.mark.parametrize(
    ("done", "words"), [("half", "TypeError: progress: done is a number, not str"), (float("nan"), "is nan")]
)
async def test_progress_that_is_no_number_is_an_error_where_it_is_made(server, done, words):
    run = await (await server.start_task("Wrong", {"done": done})).wait(PATIENCE)
    assert words in run.explain()


class ReportsLater(RunnableTask):
    """Leave its context to somebody who reports when it has ended; report before, or not."""

    before: bool = False
    contexts: ClassVar[list] = []

    async def run(self, context):
        self.contexts.append(context)
        if self.before:
            context.progress(1, 3)
        if context.attempt == 1:
            raise OSError("again")


@pytest.mark.parametrize("before", [False, True])
async def test_what_is_reported_by_an_attempt_that_has_ended_is_not_told(server, before):
    ReportsLater.contexts.clear()
    server.register_tasks("late", [ReportsLater])
    job = JobDefinition.build("j").task(
        "late", "ReportsLater", args={"before": before}, retry={"max_attempts": 2}
    )
    server.define(job.task("other", "Silent").done())
    run = await server.start("j")
    while len(ReportsLater.contexts) < 2 or run.tasks["late"].state is not TaskState.SUCCEEDED:
        await anyio.lowlevel.checkpoint()
    for context in ReportsLater.contexts:
        await anyio.to_thread.run_sync(context.progress, 2, 3)
    run.cancel()
    told = [event.done for event in await read(run) if event.kind is EventKind.TASK_PROGRESS]
    assert told == ([1, 1] if before else [])


@pytest.mark.parametrize("since", [0, PAGE - 10, 2 * PAGE])
async def test_events_that_are_there_together_are_read_together(server, since):
    run = await server.run_task("Talk", {"times": PAGE})
    batches = [events async for events in run.events(since).batches()]
    assert [event for events in batches for event in events] == await read(run, since)
    assert len(batches) <= run.last_event // PAGE + 1


async def test_an_event_that_comes_alone_is_a_batch_by_itself(server):
    gate, seen = anyio.Event(), []
    run = await server.start_task("Wait", {"gate": gate})
    with anyio.fail_after(PATIENCE):
        async for events in run.events().batches():
            seen += kinds(events)
            if seen[-1] == "log":
                assert not gate.is_set()  # the line was not kept back until more came
                gate.set()
    assert seen == kinds(await read(run))
    assert gate.is_set()


async def test_an_event_is_shown_in_one_line(server):
    run = await server.start_task("Talk")
    events = await read(run)
    assert str(events[1]).endswith(" task-started Talk#1 Talk running")
    assert repr(events[1]) == "<Event 2 task-started Talk#1 Talk running>"
    assert repr(events[2]) == "<Event 3 log Talk#1 Talk INFO line 0>"
    with pytest.raises(AttributeError):
        events[0].seq = 5


async def test_a_slow_reader_of_the_servers_stream_is_told_what_it_missed():
    async with Server(keep_events=4) as server:
        server.register_tasks("app", CLASSES)
        stream = server.events()
        assert (await anext(stream)).seq == 1
        for _ in range(5):
            await (await server.start_task("Numbers")).wait(PATIENCE)
        found = []
        async for event in stream:
            found.append(event)
            if event.seq == server.last_event:
                break
        assert found[0].kind is EventKind.LAGGED
        assert [event.seq for event in found[1:]] == list(range(found[0].seq + 1, server.last_event + 1))
        assert found[0].dropped == found[0].seq - 1


async def test_stop_reading_in_the_middle_leaves_nothing(server):
    before = threading.active_count()
    run = await server.start_task("Talk", {"times": 10})
    async for _ in run.events():
        break
    assert (await run.wait(PATIENCE)).succeeded
    assert threading.active_count() <= before + 1

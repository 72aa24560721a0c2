"""What a host sees: define, start, watch, end. On asyncio and on trio."""

import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    BusyError,
    ClosedError,
    ConflictError,
    DefinitionError,
    EventKind,
    ExistsError,
    JobDefinition,
    NoSuchBundleError,
    NoSuchJobError,
    NoSuchRunError,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    TaskState,
    UnresolvedError,
    param,
    result,
)

pytestmark = pytest.mark.anyio


class Add(RunnableTask):
    """Add two numbers."""

    a: int
    b: int = 0

    async def run(self, context):
        return self.a + self.b


class AddInThread(RunnableTask):
    """The same, in a worker thread."""

    a: int
    b: int = 0

    def run(self, context):
        assert threading.current_thread() is not threading.main_thread()
        return self.a + self.b


class Boom(RunnableTask):
    """Fail."""

    words: str = "boom"

    async def run(self, context):
        raise ValueError(self.words)


class Forever(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


class Say(RunnableTask):
    """Log a line."""

    text: str = "hi"

    async def run(self, context):
        context.log.info("said %s", self.text)
        context.progress(1, 2, "half")
        return self.text


CLASSES = [Add, AddInThread, Boom, Forever, Say]


def chain(name="chain"):
    return (
        JobDefinition.build(name, params={"start": 1})
        .task("first", "Add", args={"a": param("start"), "b": 1})
        .task("second", "AddInThread", args={"a": result("first"), "b": 1})
        .task("third", "Add", args={"a": result("second"), "b": result("first")})
        .done()
    )


@pytest.fixture
async def server():
    async with Server(grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def test_results_flow_from_task_to_task_over_loop_and_threads(server):
    server.define(chain())
    run = await (await server.start("chain")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert dict(run.results) == {"first": 2, "second": 3, "third": 5}


async def test_ids_count_up_and_runs_of_one_job_go_side_by_side(server):
    server.define(chain())
    runs = [await server.start("chain", {"start": n}) for n in range(20)]
    for run in runs:
        await run.wait(PATIENCE)
    assert [run.id for run in runs] == list(range(1, 21))
    assert [run.results["third"] for run in runs] == [2 * n + 3 for n in range(20)]


async def test_a_failure_fails_the_run_and_its_dependants_become_upstream_failed(server):
    job = JobDefinition.build("bad").task("boom", "Boom").task("after", "Say", depends_on=["boom"])
    server.define(job.task("beside", "Say").done())
    run = await (await server.start("bad")).wait(PATIENCE)
    assert run.state is RunState.FAILED
    assert run.tasks["boom"].state is TaskState.FAILED
    assert run.tasks["after"].state is TaskState.UPSTREAM_FAILED
    assert run.tasks["beside"].state is TaskState.SUCCEEDED


async def test_the_traceback_is_in_the_log_of_the_task_and_in_explain(server):
    run = await (await server.start_task("Boom", {"words": "kaputt"})).wait(PATIENCE)
    text = "\n".join(str(line) for line in run.logs(task="Boom"))
    for shown in (text, run.explain()):
        assert "ValueError: kaputt" in shown
        assert "raise ValueError(self.words)" in shown
        assert "attempts.py" not in shown


async def test_log_lines_carry_run_task_and_attempt(server):
    run = await (await server.start_task("Say", {"text": "ho"})).wait(PATIENCE)
    (line,) = run.logs()
    assert (line.run, line.task, line.attempt, line.message) == (run.id, "Say", 1, "said ho")


async def test_events_are_numbered_without_gaps_and_end_with_the_run(server):
    server.define(chain())
    run = await server.start("chain")
    events = [event async for event in run.events()]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind is EventKind.RUN_ENDED
    kinds = [event.kind for event in events]
    assert kinds.count(EventKind.TASK_STARTED) == kinds.count(EventKind.TASK_ENDED) == 3


async def test_late_readers_replay_from_a_number(server):
    run = await (await server.start_task("Say")).wait(PATIENCE)
    await anyio.wait_all_tasks_blocked()
    every = [event async for event in run.events()]
    assert [event async for event in run.events(since=2)] == every[2:]
    assert EventKind.TASK_PROGRESS in {event.kind for event in every}


async def test_cancel_ends_what_executes_and_says_why(server):
    run = await server.start_task("Forever")
    await anyio.wait_all_tasks_blocked()
    run.cancel("not needed")
    await run.wait(PATIENCE)
    assert run.state is RunState.CANCELLED
    assert run.reason == "not needed"
    assert run.tasks["Forever"].state is TaskState.CANCELLED


async def test_requests_on_an_ended_run_name_its_state(server):
    run = await (await server.start_task("Say")).wait(PATIENCE)
    for request in (run.pause, run.resume, run.stop, run.cancel, run.kill):
        with pytest.raises(RunStateError, match="succeeded"):
            request()


async def test_a_paused_run_starts_nothing_until_it_is_resumed(server):
    server.define(chain())
    run = await server.start("chain")
    run.pause()
    await anyio.wait_all_tasks_blocked()
    assert run.state is RunState.PAUSED
    assert run.tasks["third"].state is TaskState.PENDING
    run.resume()
    await run.wait(PATIENCE)
    assert run.succeeded


async def test_wait_has_a_time_limit(server):
    run = await server.start_task("Forever")
    with pytest.raises(TimeoutError, match="still running"):
        await run.wait(0.01)
    run.cancel()
    await run.wait(PATIENCE)


async def test_arguments_are_checked_against_the_class(server):
    server.define(JobDefinition.build("j").task("t", "Add", args={"a": "1", "bb": 2}).done())
    with pytest.raises(UnresolvedError) as caught:
        await server.start("j")
    text = str(caught.value)
    assert "tasks.t.args.a" in text
    assert 'did you mean "b"?' in text


async def test_parameters_of_the_run_are_checked_against_the_class(server):
    job = JobDefinition.build("j", params={"x": "text"}).task("t", "Add", args={"a": param("x")}).done()
    server.define(job)
    with pytest.raises(DefinitionError, match=r"tasks\.t\.args\.a"):
        await server.start("j")


async def test_unknown_jobs_and_runs_are_named_with_a_suggestion(server):
    server.define(chain())
    with pytest.raises(NoSuchJobError, match='did you mean "chain"'):
        await server.start("chian")
    with pytest.raises(NoSuchRunError):
        server.runs[99]


async def test_a_job_is_defined_once_unless_replaced(server):
    server.define(chain())
    with pytest.raises(ExistsError):
        server.define(chain())
    server.define(chain(), replace=True)


async def test_the_same_key_gives_the_same_run(server):
    server.define(chain())
    first = await server.start("chain", key="k")
    assert await server.start("chain", key="k") is first
    with pytest.raises(ConflictError):
        await server.start("chain", {"start": 5}, key="k")
    await first.wait(PATIENCE)


async def test_a_full_queue_refuses():
    async with Server(max_runs=1, queue_limit=1, grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        await server.start_task("Forever")
        second = await server.start_task("Say")
        assert second.state is RunState.QUEUED
        with pytest.raises(BusyError, match="queue_limit"):
            await server.start_task("Say")


async def test_leaving_cancels_what_runs_and_refuses_what_is_new():
    async with Server(grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Forever")
    assert run.state is RunState.CANCELLED
    await server.aclose()
    with pytest.raises(ClosedError):
        await server.start_task("Say")


async def test_drain_waits_for_the_runs():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        run = await server.start_task("Say")
        await server.drain()
        assert run.succeeded
        with pytest.raises(ClosedError):
            await server.start_task("Say")


async def test_ended_runs_are_evicted_oldest_first():
    async with Server(history=(2, 3600)) as server:
        server.register_tasks("app", CLASSES)
        for _ in range(4):
            await (await server.start_task("Say")).wait(PATIENCE)
        assert list(server.runs) == [3, 4]


async def test_host_cancellation_closes_the_server():
    with anyio.CancelScope() as scope:
        async with Server(grace=0.1) as server:
            server.register_tasks("app", CLASSES)
            run = await server.start_task("Forever")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.state is RunState.CANCELLED


async def test_the_servers_own_stream_tells_of_jobs_and_runs(server):
    server.define(chain())
    await (await server.start("chain")).wait(PATIENCE)
    seen = []
    async for event in server.events():
        seen.append(event.kind)
        if event.kind is EventKind.RUN_ENDED:
            break
    assert seen[-4:] == [
        EventKind.JOB_DEFINED,
        EventKind.RUN_QUEUED,
        EventKind.RUN_STARTED,
        EventKind.RUN_ENDED,
    ]


class Evil(BaseException):
    """An error whose every part misbehaves."""

    def __str__(self):
        raise SystemExit(9)

    @property
    def __class__(self):
        raise RuntimeError("class")


class Raise(RunnableTask):
    """Raise what is worst."""

    what: str

    async def run(self, context):
        raise {
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "generator": GeneratorExit(),
            "evil": Evil(),
            "group": BaseExceptionGroup("g", [SystemExit(1), ValueError("v")]),
        }[self.what]


class RaiseInThread(Raise):
    """The same, in a thread."""

    def run(self, context):
        Raise.run(self, context).send(None)


@pytest.mark.parametrize("what", ["exit", "interrupt", "generator", "evil", "group"])
@pytest.mark.parametrize("path", ["Raise", "RaiseInThread"])
async def test_whatever_a_task_raises_harms_only_its_own_run(server, path, what):
    server.register_tasks("bad", [Raise, RaiseInThread])
    run = await (await server.start_task(path, {"what": what})).wait(PATIENCE)
    assert run.state is RunState.FAILED, run.explain()
    assert run.explain()
    assert (await (await server.start_task("Say")).wait(PATIENCE)).succeeded


async def test_deregistering_an_unknown_bundle_suggests_the_nearest(server):
    with pytest.raises(NoSuchBundleError, match='did you mean "app"'):
        await server.deregister("aap")

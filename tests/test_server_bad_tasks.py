"""Whatever a task raises, or does to its process, harms only its own run (promise 7)."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from patience import PATIENCE

from scattersphere import EventKind, JobDefinition, RunState, Server, TaskState, UnresolvedError, literal

pytestmark = pytest.mark.anyio

BUNDLE = Path(__file__).parent / "data" / "bad_tasks.py"

# The type that is shown; where Python itself makes another of it, one name for coroutines.
KINDS = {
    "SystemExit": ("SystemExit", "3"),
    "KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "GeneratorExit": ("GeneratorExit", ""),
    "StopIteration": ("StopIteration", "1"),
    "StopAsyncIteration": ("StopAsyncIteration", ""),
    "Own": ("Own", "own"),
    "group": ("ExceptionGroup", "g (2 sub-exceptions)"),
    "base group": ("BaseExceptionGroup", "g (3 sub-exceptions)"),
    "deep group": ("ExceptionGroup", "g (1 sub-exception)"),
    "RecursionError": ("RecursionError", "maximum recursion depth exceeded"),
    "MemoryError": ("MemoryError", ""),
    "Unprintable": ("Unprintable", ""),
    "Evil": ("Evil", ""),
    "huge": ("ValueError", "xxx"),
    "surrogate": ("ValueError", ""),
    "ring": ("ValueError", "first"),
    "chain": ("RuntimeError", "no such day"),
    "argument": ("ValueError", "invalid literal"),
}

PLACES = [
    ("RaiseAsync", "loop"),
    ("RaiseAfterStep", "loop"),
    ("Raise", "thread"),
    ("Raise", "process"),
    ("RaiseAsync", "process"),
]


@asynccontextmanager
async def opened():
    async with Server(grace=0.5, processes=2) as server:
        await server.register(BUNDLE, name="bad")
        yield server


@pytest.fixture
async def server():
    async with opened() as server:
        yield server


async def start(server, name, backend, **args):
    job = JobDefinition.build("job").task("t", f"bad_tasks.{name}", backend=backend, args=args).done()
    server.define(job, replace=True)
    return await server.start("job")


@pytest.mark.parametrize(("name", "backend"), PLACES)
async def test_whatever_a_task_raises_fails_its_own_run_and_no_other(name, backend):
    async with opened() as server:
        neighbour = await server.start_task("bad_tasks.Tick")
        for kind, (shown, message) in KINDS.items():
            run = await (await start(server, name, backend, kind=kind)).wait(PATIENCE)
            assert run.state is RunState.FAILED, (kind, run.explain())
            failure = run.tasks["t"].failure
            if name == "RaiseAfterStep":  # a task group wraps most errors
                assert failure.type
            elif (kind, name) in {("StopIteration", "RaiseAsync"), ("StopAsyncIteration", "RaiseAsync")}:
                assert failure.type in {"RuntimeError", "StopAsyncIteration"}, kind
            else:
                assert failure.type == shown, kind
                assert failure.message.startswith(message), kind
            # Its type and the line that raised are in its log, as far as they can be shown.
            (line,) = run.logs(task="t")
            assert len(line.message) <= 16 * 1024
            assert "bad_tasks.py" in line.message or kind in {"Evil", "deep group"}, (kind, line.message)
            str(line)
            run.explain()
        assert neighbour.state is RunState.RUNNING
        before = neighbour.last_event
        async for event in neighbour.events(since=before):
            if event.kind is EventKind.TASK_PROGRESS:
                break  # it still executes
        neighbour.cancel()
        assert (await neighbour.wait(PATIENCE)).state is RunState.CANCELLED


@pytest.mark.parametrize(("name", "backend"), PLACES)
async def test_the_chain_of_causes_is_in_the_log(server, name, backend):
    run = await (await start(server, name, backend, kind="chain")).wait(PATIENCE)
    text = run.logs(task="t")[0].message
    assert "KeyError: 'day'" in text
    assert "The above exception was the direct cause of the following exception" in text
    assert 'raise RuntimeError("no such day") from exc' in text


@pytest.mark.parametrize(
    ("suffix", "backend"), [("Async", "loop"), ("", "thread"), ("", "process"), ("Async", "process")]
)
async def test_hooks_and_constructors_that_raise_anything_harm_nobody_either(server, suffix, backend):
    run = await (await start(server, f"BadHooks{suffix}", backend, fail=False)).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert "error in on_finished" in "".join(line.message for line in run.logs())
    run = await (await start(server, f"BadHooks{suffix}", backend, fail=True)).wait(PATIENCE)
    assert run.tasks["t"].failure.message == "as was asked"
    run = await (await start(server, f"BadTidying{suffix}", backend)).wait(PATIENCE)
    assert run.tasks["t"].failure.type == "SystemExit"  # it fails a successful attempt
    run = await (await start(server, f"BadInit{suffix}", backend)).wait(PATIENCE)
    assert run.tasks["t"].failure.type == "SystemExit"


async def test_an_argument_whose_class_raises_anything_is_a_problem_of_its_own_job(server):
    words = r"tasks\.t\.args\.value.*no BadValue can be made of it: SystemExit: 6"
    with pytest.raises(UnresolvedError, match=words):
        await start(server, "TakeBadValue", "thread", value={"number": 1})
    # An element of a map is made when the map is spread out.
    job = JobDefinition.build("job").task(
        "t", "bad_tasks.TakeBadValue", map={"value": literal([{"number": 1}])}
    )
    server.define(job.done(), replace=True)
    run = await (await server.start("job")).wait(PATIENCE)
    assert run.tasks["t"].failure.type == "SystemExit"


DEATHS = {
    "exit": "exit code 3",
    "segfault": "killed by SIGSEGV",
    "abort": "killed by SIGABRT",
    "SIGKILL": "killed by SIGKILL (out of memory?)",
    "SIGTERM": "killed by SIGTERM",
}


@pytest.mark.parametrize(
    ("name", "deaths"), [("Die", tuple(DEATHS)), ("DieAsync", ("exit", "segfault"))], ids=["plain", "async"]
)
async def test_a_process_that_dies_crashes_its_own_task_and_no_other(server, name, deaths):
    neighbour = await start(server, "Tick", "process")
    await _progress(neighbour)
    for how in deaths:
        run = await (await start(server, name, "process", how=how)).wait(PATIENCE)
        assert run.state is RunState.FAILED
        assert run.tasks["t"].state is TaskState.CRASHED, (how, run.explain())
        assert run.tasks["t"].failure.message == DEATHS[how]
        assert DEATHS[how] in run.logs(task="t")[-1].message
    await _progress(neighbour)  # in its own process it still executes
    neighbour.cancel()
    assert (await neighbour.wait(PATIENCE)).state is RunState.CANCELLED


async def _progress(run):
    async for event in run.events(since=run.last_event):
        if event.kind is EventKind.TASK_PROGRESS:
            return


@pytest.mark.skipif(sys.platform != "linux", reason="the task looks into /proc for what it may still take")
async def test_memory_that_runs_out_ends_the_attempt_and_the_next_one_gets_a_fresh_process(server):
    run = await (await start(server, "Die", "process", how="memory")).wait(PATIENCE)
    status = run.tasks["t"]
    # Python can often say so itself; where it cannot even do that, the process is gone.
    assert status.state is TaskState.CRASHED or status.failure.type == "MemoryError", run.explain()
    for _ in range(3):
        run = await (await start(server, "Raise", "process", kind="argument")).wait(PATIENCE)
        assert run.tasks["t"].failure.type == "ValueError"


async def test_a_crash_may_be_tried_again(server):
    retry = {"max_attempts": 3, "delay": 0}
    args = {"how": "exit"}
    job = (
        JobDefinition.build("j").task("t", "bad_tasks.Die", backend="process", retry=retry, args=args).done()
    )
    server.define(job)
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.tasks["t"].attempts == 3
    assert run.tasks["t"].state is TaskState.CRASHED
    assert [line.attempt for line in run.logs(task="t")] == [1, 2, 3]

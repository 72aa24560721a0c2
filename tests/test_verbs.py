"""The verbs: `start` returns the run at once, `run` waits and raises unless it succeeded; `result` is what it came to."""

import asyncio
import gc
import inspect
import pickle
import traceback
import weakref

import anyio
import click
import pytest
from patience import PATIENCE

from scattersphere import (
    ConflictError,
    DefinitionError,
    JobDefinition,
    NoSuchJobError,
    Run,
    RunFailedError,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    SyncRun,
    SyncServer,
    TaskCrashedError,
    UnresolvedError,
    result,
)
from scattersphere._blocking import Value
from scattersphere.cli.commands import cli
from scattersphere.commands.table import COMMANDS
from scattersphere.remote.client import RemoteClient
from scattersphere.testing import Rehearsal

pytestmark = pytest.mark.anyio


class Add(RunnableTask):
    """Add two numbers."""

    a: int = 1
    b: int = 1

    async def run(self, context):
        return self.a + self.b


class OddError(Exception):
    """Something that a host has made."""


class Fail(RunnableTask):
    """Raise."""

    words: str = "no"

    async def run(self, context):
        large = bytearray(100)
        deeper(self.words, large)


def deeper(words, large):
    raise OddError(words)


class FailInThread(RunnableTask):
    """Raise in a thread."""

    def run(self, context):
        raise OddError("in a thread")


class NoNumber:
    """To be awaited; raises in C code, which has no frame."""

    def __await__(self):
        return map(int, ["no number"])


class FailWithoutFrame(RunnableTask):
    """Return what raises when the engine awaits it."""

    def run(self, context):
        return NoNumber()


class Wait(RunnableTask):
    """Wait until cancelled."""

    async def run(self, context):
        await anyio.sleep_forever()


CLASSES = [Add, Fail, FailInThread, FailWithoutFrame, Wait]


def build(*tasks, **more):
    builder = JobDefinition.build("job", **more)
    for name, path, fields in tasks:
        builder.task(name, path, **fields)
    return builder


@pytest.fixture
async def server():
    async with Server(grace=1) as server:
        server.register_tasks("app", CLASSES)
        yield server


async def test_start_returns_the_run_at_once_and_awaiting_it_waits(server):
    run = await server.start_task("Add")
    assert await run is run
    assert run.state is RunState.SUCCEEDED


async def test_run_waits_and_gives_the_run(server):
    server.define(build(("sum", "Add", {"args": {"a": 41}})))
    run = await server.run("job")
    assert (run.state, run.result) == (RunState.SUCCEEDED, 42)
    assert (await server.run_task("Add", {"a": 2})).result == 3


async def test_the_result_is_that_of_the_task_that_nobody_waits_for(server):
    one = build(
        ("first", "Add", {}),
        ("second", "Add", {"args": {"a": result("first")}}),
        ("tidy", "Add", {"finally_": True}),
    )
    assert (await server.run(one)).result == 3
    several = build(("x", "Add", {}), ("y", "Add", {"args": {"a": 2}}))
    assert (await server.run(several)).result == {"x": 2, "y": 3}


async def test_where_only_finally_tasks_are_theirs_is_the_result(server):
    assert (await server.run(build(("tidy", "Add", {"finally_": True})))).result == 2


async def test_a_mapping_leaves_out_what_was_skipped_and_a_single_one_says_so(server):
    skipped = ("no", "Add", {"run_if": False})
    assert (await server.run(build(("yes", "Add", {}), skipped))).result == {"yes": 2}
    with pytest.raises(KeyError, match="skipped"):
        _ = (await server.run(build(skipped))).result


async def test_before_the_end_there_is_no_result_and_the_error_says_what_to_do(server):
    run = await server.start_task("Wait")
    with pytest.raises(RunStateError, match="await run"):
        _ = run.result
    assert run.raise_if_failed() is run
    run.cancel("enough")
    await run
    with pytest.raises(RunFailedError, match="was cancelled; because: enough") as raised:
        _ = run.result
    assert raised.value.run is run
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("task", ["Fail", "FailInThread"])
async def test_a_run_that_failed_is_raised_with_what_its_task_has_raised(server, task):
    with pytest.raises(RunFailedError, match=f"failed: {task}: OddError") as raised:
        await server.run_task(task)
    error = raised.value
    assert type(error.__cause__) is OddError
    assert error.run.failures[task] is error.__cause__
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}, "only the user's own frames"
    with pytest.raises(RunFailedError):
        error.run.raise_if_failed()


async def test_what_the_interpreter_raises_at_our_call_of_a_body_shows_no_line_of_ours(server):
    with pytest.raises(RunFailedError) as raised:
        await server.run_task("FailWithoutFrame")
    run = raised.value.run
    assert run.failures["FailWithoutFrame"].__traceback__ is None
    (line,) = run.logs()
    assert line.message == "ValueError: invalid literal for int() with base 10: 'no number'"
    assert "attempts.py" not in run.explain()


async def test_the_first_failure_is_the_cause_and_the_others_are_counted(server):
    job = build(
        ("a", "Add", {}), ("b", "Fail", {"args": {"words": "first"}}), ("c", "Fail", {"depends_on": ["a"]})
    )
    with pytest.raises(RunFailedError, match=r"b: OddError: first \(and 1 more\)") as raised:
        await server.run(job)
    assert str(raised.value.__cause__) == "first"
    assert list(raised.value.run.failures) == ["b", "c"]


async def test_what_the_locals_of_a_failed_body_hold_is_not_kept_with_the_run(server):
    run = await (await server.start_task("Fail"))
    last = run.failures["Fail"].__traceback__
    while last.tb_next:
        last = last.tb_next
    assert last.tb_frame.f_locals == {}


async def test_a_timeout_and_a_crash_have_exceptions_too(server):
    class Crash(RunnableTask):
        async def run(self, context):
            raise TaskCrashedError("its machine is gone")

    bundle = server.register_tasks("more", [Crash])
    run = await (await server.start(build(("t", "Wait", {"timeout": 0.01}))))
    assert type(run.failures["t"]) is TimeoutError
    run = await (await server.start_task(next(iter(bundle.tasks))))
    assert [type(error) for error in run.failures.values()] == [TaskCrashedError]


async def test_of_a_map_one_failure_stands_for_all(server):
    job = build(("m", "Fail", {"map": {"words": ["x", "y"]}}))
    run = await (await server.start(job))
    assert [(name, type(error)) for name, error in run.failures.items()] == [("m", OddError)]


async def test_an_allowed_failure_and_a_retried_one_are_no_failure_of_the_run(server):
    job = build(("f", "Fail", {"allow_failure": True}), ("a", "Add", {}))
    run = await server.run(job)
    assert list(run.failures) == ["f"]
    assert run.raise_if_failed() is run


BUNDLE = """
from scattersphere import RunnableTask

class BadDay(ValueError):
    pass

class Load(RunnableTask):
    async def run(self, context):
        raise BadDay("no such day")
"""


async def test_the_failure_of_a_bundle_keeps_no_version_alive_and_still_is_told(server, tmp_path):
    path = tmp_path / "etl.py"
    path.write_text(BUNDLE)
    await server.register(path, watch=False)
    version = weakref.ref(server.registry.find("etl.Load").cls)
    with pytest.raises(RunFailedError) as raised:
        await server.run_task("etl.Load")
    cause = raised.value.__cause__
    assert isinstance(cause, ValueError)
    assert type(cause).__name__ == "BadDay"
    told = "".join(traceback.format_exception(raised.value))
    assert 'raise BadDay("no such day")' in told, "the source that ran"
    del cause
    run = raised.value.run
    del raised
    path.write_text(BUNDLE + "\n# another\n")
    await server.reload("etl")
    with anyio.fail_after(PATIENCE):
        while version() is not None:
            gc.collect()
            await anyio.sleep(0.01)
    assert isinstance(run.failures["etl.Load"], ValueError)


async def test_a_definition_is_run_without_being_taken_up(server):
    definition = build(("sum", "Add", {"args": {"a": 1}})).done()
    run = await server.run(definition)
    assert (run.result, dict(server.definitions)) == (2, {})
    # Neither does it touch a job of that name that is defined otherwise.
    server.define(build(("other", "Add", {})))
    assert (await server.run(definition)).result == 2
    assert list(server.definitions["job"].tasks) == ["other"]
    again = await server.rerun(run.id, from_failed=False)
    assert (await again).result == 2


async def test_a_definition_that_is_wrong_or_lacks_its_code_is_refused_in_the_usual_words(server):
    with pytest.raises(DefinitionError, match="no pool"):
        await server.start(build(("a", "Add", {"pool": "db"})))
    with pytest.raises(UnresolvedError, match="Nothing"):
        await server.start(build(("a", "Nothing", {})))
    with pytest.raises(NoSuchJobError):
        await server.start("job")
    with pytest.raises(TypeError, match="the name of a job"):
        await server.start(3)


async def test_a_key_stands_for_a_definition_by_its_content(server):
    one, other = build(("a", "Add", {})).done(), build(("b", "Add", {})).done()
    run = await server.start(one, key="k")
    assert await server.start(JobDefinition.loads(one.dumps()), key="k") is run
    with pytest.raises(ConflictError):
        await server.start(other, key="k")
    server.define(one)
    with pytest.raises(ConflictError):
        await server.start("job", key="k")


async def test_run_gives_up_waiting_after_its_timeout_and_the_run_goes_on(server):
    with pytest.raises(TimeoutError):
        await server.run_task("Wait", timeout=0.01)
    (run,) = server.runs.values()
    assert run.state is RunState.RUNNING
    run.cancel()
    await run


async def test_a_body_may_start_a_definition_as_its_child(server):
    class Parent(RunnableTask):
        async def run(self, context):
            child = await context.start(build(("a", "Add", {})).done())
            return (await child).result

    bundle = server.register_tasks("more", [Parent])
    assert (await server.run_task(next(iter(bundle.tasks)))).result == 2


def test_the_verbs_of_a_blocking_server_are_the_same():
    with SyncServer(grace=1) as server:
        server.register_tasks("app", CLASSES)
        assert server.run(build(("a", "Add", {}))).result == 2
        assert server.run_task("Add", {"a": 4}).result == 5
        with pytest.raises(RunFailedError) as raised:
            server.run_task("Fail")
        run = raised.value.run
        assert run is not None
        assert type(run).__name__ == "SyncRun"
        assert type(raised.value.__cause__) is OddError
        with pytest.raises(RunFailedError):
            run.raise_if_failed()
        with pytest.raises(TypeError, match=r"run\.wait\(\)"):
            run.__await__()
    with pytest.raises(RunFailedError) as raised:
        _ = run.result
    assert raised.value.run is run
    assert list(run.failures) == ["Fail"]


async def test_the_verbs_of_a_rehearsal_are_the_same():
    async with Rehearsal() as rehearsal:
        rehearsal.register_tasks("app", CLASSES)
        assert (await rehearsal.run(build(("a", "Add", {})))).result == 2
        assert (await rehearsal.run_task("Add")).result == 2
        with pytest.raises(RunFailedError):
            await rehearsal.run(build(("f", "Fail", {})))
        with pytest.raises(RunFailedError):
            await rehearsal.run_task("Fail")
        assert (await (await rehearsal.start_task("Fail"))).state is RunState.FAILED


VERBS = ("start", "run", "start_task", "run_task")
"""What starts runs: the same words everywhere. Without `run` it returns at once; with it, it waits and raises."""
OF_A_RUN = ("wait", "pause", "resume", "stop", "cancel", "kill", "explain")
PARAMETERS = {
    "start": ("job", "params"),
    "run": ("job", "params"),
    "start_task": (1, "args"),
    "run_task": (1, "args"),
}
"""What all of them take, in this order; a number stands for one whose name says what is taken: a path, a class."""


@pytest.mark.parametrize("front", [Server, SyncServer, Rehearsal, RemoteClient, "http"])
def test_the_verbs_are_the_same_in_code_and_over_the_network(front):
    if front == "http":
        front = pytest.importorskip("scattersphere.web.client").HttpClient
    for verb in VERBS:
        names = [name for name in inspect.signature(getattr(front, verb)).parameters if name != "self"]
        assert all(name in {1, names[at]} for at, name in enumerate(PARAMETERS[verb])), (verb, names)
        if (
            front is not Rehearsal
        ):  # each of its lives is new: nothing that was started in it is started again
            assert "key" in names


@pytest.mark.parametrize("verb", [*VERBS, *OF_A_RUN])
def test_each_verb_is_a_command_of_the_wire_of_http_and_of_the_command_line(verb):
    row = COMMANDS[verb.replace("_", "-")]
    assert row.path is not None, "HTTP has it"
    command = click.Context(cli).command.get_command(click.Context(cli), row.name)
    assert command is not None
    assert "--at" in [option for parameter in command.params for option in parameter.opts]


def test_what_is_done_to_a_run_has_the_same_words_where_there_is_a_run():
    for kind in (Run, SyncRun):
        assert all(callable(getattr(kind, verb)) for verb in (*OF_A_RUN, "raise_if_failed"))
        assert isinstance(inspect.getattr_static(kind, "result"), property | Value)
    for kind in (
        RemoteClient,
        "http",
    ):  # they have numbers: `call(verb, run=number)` does what is no method of theirs
        assert callable(
            (pytest.importorskip("scattersphere.web.client").HttpClient if kind == "http" else kind).wait
        )


def test_the_error_can_be_pickled_without_its_run():
    error = RunFailedError("run 1 of job failed")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_gathered_run_is_waited_for_with_the_others():
    async def main():
        async with Server() as server:
            server.register_tasks("app", CLASSES)
            runs = [await server.start_task("Add", {"a": n}) for n in range(3)]
            return [run.result for run in await asyncio.gather(*runs)]

    assert asyncio.run(main()) == [1, 2, 3]

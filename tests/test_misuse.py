"""What a host gets wrong is said in words about its own call: no AttributeError from inside."""

import math

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    ArgumentError,
    ConflictError,
    DefinitionError,
    JobDefinition,
    NoSuchBundleError,
    NoSuchJobError,
    NoSuchRunError,
    NoSuchTaskError,
    RunnableTask,
    RunState,
    ScattersphereError,
    Server,
    SyncServer,
    TaskDeclarationError,
    UnresolvedError,
)

WRONG_SETTINGS = [
    ({"grace": -1}, ArgumentError, "grace is a number of seconds, at least 0, not -1"),
    ({"grace": "10"}, TypeError, "grace is a number of seconds, not str"),
    ({"grace": math.nan}, ArgumentError, "not nan"),
    ({"grace": math.inf}, ArgumentError, "not inf"),
    ({"max_parallel": 0}, ArgumentError, "max_parallel is at least 1, not 0; None means no limit"),
    ({"max_parallel": True}, TypeError, "max_parallel is an int or None, not bool"),
    ({"max_runs": 0}, ArgumentError, "max_runs is at least 1"),
    ({"queue_limit": -1}, ArgumentError, "queue_limit is at least 0"),
    ({"queue_limit": None}, TypeError, "queue_limit is an int, not None"),
    ({"pools": {"db": 0}}, ArgumentError, "the size of 'db' is at least 1, not 0"),
    ({"pools": {"db": None}}, TypeError, "the size of 'db' is an int, not None"),
    ({"pools": {1: 2}}, TypeError, "the name of a pool is a str"),
    ({"pools": ["db"]}, TypeError, "pools is a mapping"),
    ({"history": 5}, TypeError, r"history is \(count, seconds\), like \(1000, 86400\), not int \(5\)"),
    ({"history": (1,)}, TypeError, r"history is \(count, seconds\)"),
    ({"history": (-1, 5)}, ArgumentError, "history: the count"),
    ({"history": (5, -1)}, ArgumentError, "history: their age"),
    ({"log_limit": 0}, ArgumentError, "log_limit is at least 1"),
    ({"keep_events": -1}, ArgumentError, "keep_events is at least 0"),
    ({"threads": 0}, ArgumentError, "threads is at least 1"),
    ({"processes": "all"}, TypeError, "processes is an int or None"),
    ({"bundle_roots": "bundles"}, TypeError, r"bundle_roots is a list, not str \('bundles'\)"),
    ({"bundle_roots": 5}, TypeError, "bundle_roots is a list"),
    ({"watch": 0.2}, TypeError, r"watch is True, False or WatchDelays\(\.\.\.\), not float \(0\.2\)"),
    ({"backends": {"loop": object()}}, ArgumentError, '"loop" is the event loop itself'),
    ({"backends": {"gpu": 1}}, TypeError, "'gpu' is no Backend but int"),
    ({"nonsense": 1}, TypeError, "nonsense"),
]


@pytest.mark.parametrize(("settings", "error", "words"), WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_where_the_server_is_made(settings, error, words):
    with pytest.raises(error, match=words):
        Server(**settings)


class Work(RunnableTask):
    """Wait for the end."""

    value: object = None

    async def run(self, context):
        await anyio.sleep_forever()


def plain(a: int) -> int:
    return a


JOB = JobDefinition.build("job").task("work", "Work").done()

WRONG_CALLS = [
    (lambda s, _: s.start(5), TypeError, r"the name of a job is a str, not int \(5\)"),
    (lambda s, _: s.start("jub"), NoSuchJobError, 'did you mean "job"'),
    (lambda s, _: s.start("job", params=["x"]), TypeError, "params is a mapping from names to values"),
    (lambda s, _: s.start("job", {1: 2}), DefinitionError, "no such parameter"),
    (lambda s, _: s.start("job", key=5), TypeError, "key is a str"),
    (lambda s, _: s.start_task(5), TypeError, "the path of a task is a str"),
    (lambda s, _: s.start_task(plain), TypeError, "plain is a plain function: write @task above its `def`"),
    (lambda s, _: s.register_tasks("b", [plain]), TaskDeclarationError, "write @task above its `def`"),
    (
        lambda s, _: s.register_tasks("b", plain),
        TaskDeclarationError,
        "write @task above its `def`, and put it in",
    ),
    (lambda *_: JobDefinition.build("j").task(plain, a=1), TypeError, "write @task above its `def`"),
    (lambda *_: JobDefinition.build("j").task("a", plain), TypeError, "write @task above its `def`"),
    (lambda s, _: s.start_task("Work", ["x"]), TypeError, "args is a mapping"),
    (lambda s, _: s.start_task("Work", {"wrong": 1}), UnresolvedError, "takes no 'wrong'"),
    (lambda s, _: s.define({}), TypeError, r"a JobDefinition is wanted, .* JobDefinition\.loads"),
    (lambda s, _: s.validate(None), TypeError, "a JobDefinition is wanted, not None"),
    (lambda s, _: s.undefine(5), TypeError, "the name of a job is a str"),
    (lambda s, _: s.undefine("jub"), NoSuchJobError, "did you mean"),
    (lambda s, _: s.save("jub"), NoSuchJobError, "did you mean"),
    (lambda s, _: s.definitions[5], NoSuchJobError, "no job 5"),
    (lambda s, _: s.runs["1"], NoSuchRunError, "no run '1'"),
    (lambda s, _: s.reload(5), TypeError, "the name of a bundle is a str"),
    (lambda s, _: s.events(since=1.5), TypeError, "since is an int"),
    (lambda s, _: s.events(since="one"), ArgumentError, "the number of an event, or its id"),
    (lambda s, _: s.logs(tail="1"), TypeError, "tail is an int or None"),
    (lambda s, _: s.deregister(5), NoSuchBundleError, "no bundle 5"),
    (lambda _, run: run.cancel(5), TypeError, "reason is a str, not int"),
    (lambda _, run: run.cancel(grace=-1), ArgumentError, "grace is a number of seconds, at least 0"),
    (lambda _, run: run.cancel(grace="1"), TypeError, "grace is a number of seconds or None"),
    (lambda _, run: run.stop(5), TypeError, "reason is a str"),
    (lambda _, run: run.kill(5), TypeError, "reason is a str"),
    (lambda _, run: run.wait(-1), ArgumentError, "timeout is a number of seconds, at least 0, not -1"),
    (lambda _, run: run.wait("1"), TypeError, "timeout is a number of seconds or None"),
    (lambda _, run: run.events(since=-1), ArgumentError, "since is at least 0"),
    (lambda _, run: run.events(since=1.5), TypeError, "since is an int"),
    (lambda _, run: run.events(since="1."), ArgumentError, "the number of an event, or its id"),
    (lambda _, run: run.logs("wrok"), NoSuchTaskError, 'did you mean "work"'),
    (lambda _, run: run.logs(tail=-1), ArgumentError, "tail is at least 0"),
    (lambda _, run: run.tasks["wrok"], NoSuchTaskError, 'did you mean "work"'),
    (lambda _, run: run.tasks.instances("wrok"), NoSuchTaskError, "no task 'wrok'"),
    (lambda _, run: run.results["wrok"], NoSuchTaskError, "no task 'wrok' in job 'job'"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "error", "words"), WRONG_CALLS)
async def test_a_wrong_call_changes_nothing_and_says_what_is_wanted(call, error, words):
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Work])
        server.define(JOB)
        run = await server.start("job")
        with pytest.raises(error, match=words):
            await call(server, run)
        assert list(server.runs) == [run.id]
        assert run.state is RunState.RUNNING
        assert list(server.definitions) == ["job"]


def test_wrong_values_are_errors_of_ours_and_of_python():
    assert issubclass(ArgumentError, ScattersphereError)
    assert issubclass(ArgumentError, ValueError)


@pytest.mark.anyio
async def test_the_arguments_of_a_single_task_are_literal():
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Work])
        run = await server.start_task("Work", {"value": {"$param": "x"}})
        await anyio.wait_all_tasks_blocked()
        assert run.state is RunState.RUNNING, run.explain()


@pytest.mark.anyio
async def test_a_key_stands_for_the_arguments_of_a_single_task_too():
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Work])
        run = await server.start_task("Work", {"value": 1}, key="k")
        assert await server.start_task("Work", {"value": 1}, key="k") is run
        with pytest.raises(ConflictError, match="other parameters"):
            await server.start_task("Work", {"value": 2}, key="k")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_deregistering_by_force_leaves_runs_alone_that_have_ended_and_are_stuck(anyio_backend):
    gate = anyio.Event()

    class Refuse(RunnableTask):
        async def run(self, context):
            with anyio.CancelScope(shield=True):
                await gate.wait()

    async with Server(grace=0.1) as server:
        bundle = server.register_tasks("app", [Refuse])
        run = await server.start_task(next(iter(bundle.tasks)))
        await anyio.wait_all_tasks_blocked()
        run.cancel(grace=0.001)
        await run.wait(PATIENCE)
        assert server.stuck
        await server.deregister("app", force=True)
        gate.set()


def test_a_server_that_is_entered_in_the_wrong_way_says_how():
    with pytest.raises(TypeError, match=r"async with Server\(\.\.\.\)`; .*`with SyncServer"), Server():
        pass

    async def enter():
        async with SyncServer():
            pass

    with pytest.raises(TypeError, match=r"write `with SyncServer\(\.\.\.\)`; .*`async with Server\("):
        anyio.run(enter)


@pytest.mark.anyio
async def test_what_is_made_on_the_way_says_what_it_is():
    builder = JobDefinition.build("nightly").task("work", "Work")
    assert repr(builder) == "<JobBuilder of nightly: work>"
    assert repr(JobDefinition.build("nightly")) == "<JobBuilder of nightly: no task yet>"
    async with Server() as server:
        server.register_tasks("app", [Work])
        run = await server.start_task("Work")
        server.define(JOB)
        shown = [repr(each) for each in (server.definitions, server.runs, server.schedules)]
        assert not [each for each in shown if " object at " in each]
        shown = [repr(server.events()), repr(run.events()), repr(run.follow_logs())]
        assert all("read it with `async for`" in each for each in shown)


def test_what_a_blocking_server_holds_says_what_it_is_also_when_it_is_closed():
    with SyncServer() as server:
        server.register_tasks("app", [Work])
        held = [server.runs, server.schedules, server.history, server.definitions]
        shown = [repr(each) for each in held]
    assert shown == [repr(each) for each in held]
    assert not [each for each in shown if " object at " in each]

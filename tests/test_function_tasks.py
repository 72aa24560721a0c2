"""`@task` makes a task class of a function; `run` without a context; classes where a path is; the DAG written by use."""

import pickle
import sys
import traceback

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    JobDefinition,
    RunFailedError,
    RunnableTask,
    Server,
    SyncServer,
    TaskContext,
    TaskDeclarationError,
    param,
    result,
    task,
)

pytestmark = pytest.mark.anyio


@task
async def greet(name: str, excited: bool = False) -> str:  # noqa: FBT001, FBT002 - a user's
    """Say hello."""
    await anyio.lowlevel.checkpoint()
    return f"hello {name}{'!' if excited else ''}"


@task
def shout(context: TaskContext, text: str) -> str:
    context.log.info("shouting")
    return text.upper()


@task(backend="process", retry={"max_attempts": 2, "delay": 0}, timeout=PATIENCE)
def square(n: int) -> int:
    return n * n


@task
def join(parts: list[str], sep: str = " ") -> str:
    return sep.join(parts)


@task
def fail(words: str = "no") -> None:
    raise ValueError(words)


class Plain(RunnableTask):
    """Take no context."""

    n: int = 1

    async def run(self) -> int:
        return self.n + 1


class PlainInThread(RunnableTask):
    """Take none either, in a thread."""

    def run(self) -> str:
        return "there"


TASKS = [greet, shout, square, join, fail, Plain, PlainInThread]


@pytest.fixture
async def server():
    async with Server(grace=1) as server:
        server.register_tasks("app", TASKS)
        yield server


async def test_a_function_is_a_task_with_its_parameters_and_defaults(server):
    assert (await server.run_task("greet", {"name": "Ada"})).result == "hello Ada"
    assert (await server.run_task(greet, {"name": "Ada", "excited": True})).result == "hello Ada!"
    found = server.registry.find("greet")
    assert (found.summary, found.is_async) == ("Say hello.", True)
    assert {name: (p.type_name, p.required) for name, p in found.parameters.items()} == {
        "name": ("string", True),
        "excited": ("boolean", False),
    } or set(found.parameters) == {"name", "excited"}


async def test_the_context_is_handed_in_and_is_no_parameter(server):
    run = await server.run_task(shout, {"text": "ho"})
    assert (run.result, [line.message for line in run.logs()]) == ("HO", ["shouting"])
    assert list(server.registry.find("shout").parameters) == ["text"]


async def test_the_function_itself_is_still_there(server):
    assert await greet.func("Ada") == "hello Ada"
    assert square.func(3) == 9
    assert isinstance(square(n=2), RunnableTask)


async def test_options_are_defaults_that_a_definition_may_override(server):
    run = await server.run_task(square, {"n": 3})
    assert run.result == 9
    planned = run.plan.tasks[0]
    assert (planned.backend, planned.definition.retry.max_attempts, planned.definition.timeout) == (
        "process",
        2,
        PATIENCE,
    )
    job = JobDefinition.build("j").task(
        "s", square, args={"n": 2}, backend="thread", retry={"max_attempts": 5}
    )
    planned = (await server.run(job)).plan.tasks[0]
    assert (planned.backend, planned.definition.retry.max_attempts) == ("thread", 5)


async def test_a_failure_shows_the_users_frames_only(server):
    with pytest.raises(RunFailedError) as raised:
        await server.run_task(fail)
    frames = traceback.extract_tb(raised.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["fail"]


async def test_run_without_a_context_is_accepted(server):
    assert (await server.run_task(Plain, {"n": 4})).result == 5
    assert (await server.run_task(PlainInThread)).result == "there"
    assert await Plain(n=1).run() == 2
    assert PlainInThread().run() == "there"


async def test_the_dag_is_written_by_use(server):
    job = JobDefinition.build("letters", params={"who": "Ada"})
    one = job.task(greet, name=param("who"))
    two = job.options(name="second", timeout=PATIENCE).task(greet, name="Bob", excited=True)
    both = job.task(join, parts=[one, two], sep=" and ")
    job.task(shout, text=both)
    definition = job.done()
    assert list(definition.tasks) == ["greet", "second", "join", "shout"]
    assert definition.tasks["join"].args["parts"] == [result("greet"), result("second")]
    assert definition.tasks["second"].timeout == PATIENCE
    assert (await server.run(definition)).result == "HELLO ADA AND HELLO BOB!"
    assert JobDefinition.loads(definition.dumps()) == definition


async def test_a_task_that_is_used_again_gets_a_number_and_a_given_name_twice_is_an_error():
    job = JobDefinition.build("j")
    for _ in range(3):
        job.task(greet, name="x")
    assert list(job.done().tasks) == ["greet", "greet_2", "greet_3"]
    with pytest.raises(ValueError, match="there already"):
        job.options(name="greet").task(greet, name="x")


async def test_results_order_tasks_where_they_stand_in_depends_on_or_a_map(server):
    job = JobDefinition.build("j")
    first = job.task(join, parts=["a", "b"], sep=",")
    listed = job.task(Plain)
    job.options(depends_on=[first, listed], name="last", map={"n": [1, 2]}).task(Plain)
    run = await server.run(job)
    assert run.results["last"] == [2, 3]
    assert run.definition.tasks["last"].depends_on == ("join", "Plain")


async def test_a_class_is_accepted_wherever_a_path_is(server):
    job = JobDefinition.build("j").task("p", Plain, args={"n": 2})
    assert (await server.run(job)).result == 3
    assert (await server.run_task(Plain)).result == 2


async def test_a_bundle_may_hold_functions(server, tmp_path):
    (tmp_path / "etl.py").write_text(
        "from __future__ import annotations\n"
        "from scattersphere import task\n\n"
        "@task\nasync def load(day: int = 3) -> int:\n    return day + 1\n"
    )
    await server.register(tmp_path / "etl.py", watch=False)
    assert list(server.registry.bundles["etl"].tasks) == ["etl.load"]
    assert (await server.run_task("etl.load", {"day": 5})).result == 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: task(lambda x: x), "annotate the parameter 'x'"),
        (lambda: task(Plain), "derive the class Plain"),
        (lambda: task(3), "is for functions"),
        (lambda: task(lambda *args: 0), "cannot be given by name"),
        (lambda: task(iterate), "return a list"),
    ],
)
async def test_what_cannot_be_a_task_is_refused_where_it_stands(make, words):
    with pytest.raises(TaskDeclarationError, match=words):
        make()


def iterate():
    yield 1


async def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="no option 'retries'"):
        task(retries=3)


async def test_parameters_given_by_place_are_refused_with_the_right_way():
    with pytest.raises(TypeError, match="by name"):
        JobDefinition.build("j").task(greet, "Ada")


def test_a_missing_parameter_is_told_as_missing():
    with SyncServer() as server:
        server.register_tasks("app", TASKS)
        with pytest.raises(Exception, match="name"):
            server.run_task(greet)


def test_instances_and_classes_can_be_pickled_by_name():
    assert pickle.loads(pickle.dumps(square)) is square
    assert sys.modules[__name__].square is square

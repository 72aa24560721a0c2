"""The cases that the original engine was tested with, in their new form.

There a job was a tree of task statistics on a pool of threads; what its tests asked for holds here too:
chains of plain functions, a split and a join that is called once, exceptions that stay with their task,
names that are taken or unknown, pause and resume in mid-run, a cancel that says why.
"""

import threading

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

from scattersphere import (
    DefinitionError,
    ExistsError,
    JobDefinition,
    RunnableTask,
    RunState,
    Server,
    TaskDefinition,
    TaskState,
    result,
)

pytestmark = pytest.mark.anyio


class Append(RunnableTask):
    """Append a word to a list that all tasks of a test share, from a thread."""

    shared: object
    word: str

    def run(self, context):
        self.shared.append(self.word)
        return self.word


class Shared(RunnableTask):
    """Make the list."""

    async def run(self, context):
        return []


class Gate(RunnableTask):
    """Wait, in a thread, until the host lets go; then return."""

    shared: object

    def run(self, context):
        self.shared.append("waiting")
        assert GATE.wait(PATIENCE)


class Raise(RunnableTask):
    """Raise, from a thread."""

    def run(self, context):
        raise ValueError("as planned")


GATE = threading.Event()
CLASSES = [Append, Shared, Gate, Raise]


@pytest.fixture
async def server():
    GATE.clear()
    async with Server(grace=0.2) as server:
        server.register_tasks("app", CLASSES)
        yield server
        GATE.set()


def append(job, name, *after):
    args = {"shared": result("list"), "word": name}
    return job.task(name, "Append", args=args, depends_on=list(after))


async def test_a_chain_of_plain_functions_runs_in_order(server):
    job = JobDefinition.build("chain").task("list", "Shared")
    for name, after in (("one", ()), ("two", ("one",)), ("three", ("two",))):
        job = append(job, name, *after)
    server.define(job.done())
    run = await (await server.start("chain")).wait(PATIENCE)
    assert run.results["list"] == ["one", "two", "three"]


async def test_a_job_runs_any_number_of_times(server):
    server.define(append(JobDefinition.build("again").task("list", "Shared"), "one").done())
    for number in range(1, 4):
        run = await (await server.start("again")).wait(PATIENCE)
        assert (run.id, run.succeeded, run.results["list"]) == (number, True, ["one"])


async def test_after_a_split_the_join_is_called_once_and_after_all_branches(server):
    job = append(JobDefinition.build("split").task("list", "Shared"), "split")
    branches = [f"branch{n}" for n in range(5)]
    for branch in branches:
        job = append(job, branch, "split")
    server.define(append(job, "join", *branches).done())
    run = await (await server.start("split")).wait(PATIENCE)
    words = run.results["list"]
    assert words[0] == "split"
    assert sorted(words[1:-1]) == branches
    assert words[-1] == "join"
    assert words.count("join") == 1
    assert run.tasks["join"].attempts == 1


async def test_an_exception_stays_with_its_task_and_ends_what_depends_on_it(server):
    job = JobDefinition.build("bad").task("list", "Shared").task("bad", "Raise")
    job = append(append(job, "after", "bad"), "beside")
    server.define(job.done())
    run = await (await server.start("bad")).wait(PATIENCE)
    assert run.state is RunState.FAILED
    assert run.tasks["bad"].state is TaskState.FAILED
    assert run.tasks["bad"].failure.type == "ValueError"
    assert run.tasks["bad"].failure.message == "as planned"
    assert run.tasks["after"].state is TaskState.UPSTREAM_FAILED
    assert run.results["list"] == ["beside"]
    assert "as planned" in "\n".join(str(line) for line in run.logs(task="bad"))


async def test_a_task_that_depends_on_itself_through_others_is_refused(server):
    tasks = {
        "a": TaskDefinition(task="Shared", depends_on=("c",)),
        "b": TaskDefinition(task="Shared", depends_on=("a",)),
        "c": TaskDefinition(task="Shared", depends_on=("b",)),
    }
    with pytest.raises(DefinitionError, match="a -> b -> c -> a"):
        server.define(JobDefinition(name="cycle", tasks=tasks))


async def test_names_that_are_taken_are_refused(server):
    job = JobDefinition.build("job").task("a", "Shared")
    with pytest.raises(ValueError, match="a"):
        job.task("a", "Shared")
    server.define(job.done())
    with pytest.raises(ExistsError, match="job"):
        server.define(JobDefinition.build("job").task("b", "Shared").done())
    text = '{"format": 1, "name": "x", "tasks": {"a": {"task": "Shared"}, "a": {"task": "Shared"}}}'
    with pytest.raises(DefinitionError, match="a"):
        JobDefinition.loads(text)


async def test_dependencies_that_are_unknown_or_named_twice_are_refused(server):
    unknown = {
        "clean": TaskDefinition(task="Shared"),
        "b": TaskDefinition(task="Shared", depends_on=("claen",)),
    }
    with pytest.raises(DefinitionError, match='no task "claen" in this job; did you mean "clean"'):
        server.define(JobDefinition(name="x", tasks=unknown))
    twice = {"a": TaskDefinition(task="Shared"), "b": TaskDefinition(task="Shared", depends_on=("a", "a"))}
    with pytest.raises(DefinitionError, match="a"):
        server.define(JobDefinition(name="x", tasks=twice))


async def test_a_job_without_tasks_succeeds_at_once(server):
    server.define(JobDefinition(name="empty", tasks={}))
    assert (await server.start("empty")).succeeded


async def test_a_pause_in_mid_run_holds_what_has_not_begun_and_a_resume_lets_it_go_on(server):
    job = (
        JobDefinition.build("held")
        .task("list", "Shared")
        .task("gate", "Gate", args={"shared": result("list")})
    )
    server.define(append(job, "after", "gate").done())
    run = await server.start("held")
    while not (run.tasks["list"].state.ended and run.results["list"]):
        await anyio.lowlevel.checkpoint()
    run.pause()
    assert run.state is RunState.PAUSING
    GATE.set()
    while run.state is not RunState.PAUSED:
        await anyio.lowlevel.checkpoint()
    assert run.tasks["after"].state is TaskState.PENDING
    assert run.results["list"] == ["waiting"]
    run.resume()
    await run.wait(PATIENCE)
    assert run.results["list"] == ["waiting", "after"]


async def test_a_cancel_says_why_and_nothing_begins_any_more(server):
    job = (
        JobDefinition.build("held")
        .task("list", "Shared")
        .task("gate", "Gate", args={"shared": result("list")})
    )
    server.define(append(job, "after", "gate").done())
    run = await server.start("held")
    while not (run.tasks["list"].state.ended and run.results["list"]):
        await anyio.lowlevel.checkpoint()
    run.cancel("the disk is full")
    assert run.state is RunState.CANCELLING
    GATE.set()
    await run.wait(PATIENCE)
    assert run.state is RunState.CANCELLED
    assert run.reason == "the disk is full"
    assert "the disk is full" in run.explain()
    assert run.tasks["after"].state is TaskState.CANCELLED
    assert run.results["list"] == ["waiting"]

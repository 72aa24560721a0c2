"""`rerun`: a new run of the same plan, what it takes over, and with which code."""

import anyio
import pytest
from patience import PATIENCE

from scattersphere import (
    ArgumentError,
    JobDefinition,
    NoSuchBundleError,
    NoSuchRunError,
    Parameter,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    TaskState,
    UnresolvedError,
    param,
    result,
)
from scattersphere.sync import SyncServer

pytestmark = pytest.mark.anyio


class Book:
    """What was executed, and what is broken."""

    def __init__(self, *broken):
        self.broken = set(broken)
        self.done = []

    def take(self):
        """Return what was executed since the last time."""
        done, self.done = sorted(self.done), []
        return done


def classes(book):
    """Return task classes that write in `book`."""

    class Count(RunnableTask):
        """Say who made it; fail while broken."""

        reads: object = None

        async def run(self, context):
            name = context.task if context.index is None else f"{context.task}[{context.index}]"
            book.done.append(name)
            if name in book.broken:
                raise ValueError(name)
            return f"{name} of run {context.run_id}"

    class Numbers(RunnableTask):
        """Return a list."""

        count: int = 4

        async def run(self, context):
            book.done.append(context.task)
            return list(range(self.count))

    class Forever(RunnableTask):
        """Never end."""

        async def run(self, context):
            await anyio.sleep_forever()

    for cls in (Count, Numbers, Forever):
        cls.__qualname__ = cls.__name__
    return [Count, Numbers, Forever]


@pytest.fixture
def book():
    return Book()


@pytest.fixture
async def server(book):
    async with Server(grace=0.2) as server:
        server.register_tasks("app", classes(book))
        yield server


def diamond():
    return (
        JobDefinition.build("j")
        .task("a", "Count")
        .task("b", "Count", args={"reads": result("a")})
        .task("c", "Count", args={"reads": result("a")})
        .task("d", "Count", args={"reads": result("c")}, depends_on=["b"])
        .task("tidy", "Count", finally_=True)
        .done()
    )


async def failed(server, book, definition, *broken):
    """Return a run that has failed because some are broken, which are whole again."""
    server.define(definition, replace=True)
    book.broken = set(broken)
    run = await (await server.start(definition.name)).wait(PATIENCE)
    assert run.state is RunState.FAILED
    book.broken = set()
    book.take()
    return run


# ---- what is done again


async def test_only_what_failed_and_what_depends_on_it_is_done_again(server, book):
    first = await failed(server, book, diamond(), "c")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert second.succeeded, second.explain()
    assert book.take() == ["c", "d", "tidy"]
    assert dict(second.results) == {
        "a": "a of run 1", "b": "b of run 1", "c": "c of run 2", "d": "d of run 2", "tidy": "tidy of run 2",
    }  # fmt: skip


async def test_the_new_run_has_a_new_id_and_names_its_parent(server, book):
    first = await failed(server, book, diamond(), "c")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert (second.id, second.parent, second.job) == (first.id + 1, first.id, "j")
    assert server.runs[second.id] is second
    assert first.state is RunState.FAILED


async def test_without_from_failed_all_is_done_again(server, book):
    first = await failed(server, book, diamond(), "c")
    second = await (await server.rerun(first.id, from_failed=False)).wait(PATIENCE)
    assert book.take() == ["a", "b", "c", "d", "tidy"]
    assert second.reused == {}
    assert second.parent == first.id


async def test_it_says_which_results_come_from_where_also_over_several_reruns(server, book):
    first = await failed(server, book, diamond(), "c")
    book.broken = {"d"}
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    book.broken = set()
    third = await (await server.rerun(second.id)).wait(PATIENCE)
    assert {name: note.run for name, note in second.reused.items()} == {"a": 1, "b": 1}
    assert {name: note.run for name, note in third.reused.items()} == {"a": 1, "b": 1, "c": 2}
    assert not any(note.older for note in third.reused.values())
    assert third.results["d"] == "d of run 3"
    assert any("runs run 2 again; 3 results are reused" in line.message for line in third.logs())


async def test_a_run_that_succeeded_is_taken_over_whole_but_for_its_finally_tasks(server, book):
    server.define(diamond())
    first = await (await server.start("j")).wait(PATIENCE)
    book.take()
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert book.take() == ["tidy"]
    assert second.succeeded


async def test_a_run_of_which_nothing_is_left_to_do_succeeds_at_once(server, book):
    first = await (await server.start_task("Count")).wait(PATIENCE)
    second = await server.rerun(first.id)
    assert second.succeeded
    assert book.take() == ["Count"]
    assert second.results["Count"] == "Count of run 1"
    kinds = [str(event.kind) async for event in second.events()]
    assert kinds == ["task-ended", "log", "run-started", "run-ended"]


async def test_what_ran_because_of_a_failure_is_decided_anew(server, book):
    job = JobDefinition.build("j").task("a", "Count")
    job = job.task("alarm", "Count", depends_on=["a"], trigger_rule="one_failed")
    first = await failed(server, book, job.done(), "a")
    assert first.tasks["alarm"].state is TaskState.SUCCEEDED
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert book.take() == ["a"]
    assert second.tasks["alarm"].state is TaskState.SKIPPED


async def test_a_cancelled_run_goes_on_where_it_was(server, book):
    job = JobDefinition.build("j").task("a", "Count").task("b", "Forever", depends_on=["a"])
    server.define(job.done())
    run = await server.start("j")
    async for event in run.events():
        if event.task == "b" and event.state == "running":
            run.cancel("enough")
    second = await server.rerun(run.id)
    assert second.reused.keys() == {"a"}
    second.kill()
    await second.wait(PATIENCE)
    assert book.take() == ["a"]


# ---- maps, and results that were dropped


def mapped(**fields):
    return (
        JobDefinition.build("m")
        .task("numbers", "Numbers")
        .task("each", "Count", map={"reads": result("numbers")}, **fields)
        .task("end", "Count", args={"reads": result("each")})
        .done()
    )


async def test_of_a_map_only_the_instances_that_failed_are_done_again(server, book):
    first = await failed(server, book, mapped(), "each[1]")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert second.succeeded, second.explain()
    assert book.take() == ["each[1]", "end"]
    assert second.results["each"] == [
        "each[0] of run 1", "each[1] of run 2", "each[2] of run 1", "each[3] of run 1",
    ]  # fmt: skip
    assert second.reused["each"].instances == 3
    assert second.reused["numbers"].instances is None


async def test_a_map_whose_list_is_made_again_is_done_again_as_a_whole(server, book):
    job = (
        JobDefinition.build("m")
        .task("gate", "Count")
        .task("numbers", "Numbers", depends_on=["gate"], trigger_rule="all_done")
        .task("each", "Count", map={"reads": result("numbers")})
        .done()
    )
    first = await failed(server, book, job, "gate", "each[2]")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert second.succeeded
    assert book.take() == ["each[0]", "each[1]", "each[2]", "each[3]", "gate", "numbers"]


async def test_reused_instances_keep_to_the_limits_of_their_map(server, book):
    first = await failed(server, book, mapped(max_parallel=1), "each[0]", "each[3]")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert book.take() == ["each[0]", "each[3]", "end"]
    assert second.tasks["each"].state is TaskState.SUCCEEDED


async def test_a_result_that_was_dropped_is_made_again_only_where_it_is_read(server, book):
    job = (
        JobDefinition.build("k")
        .task("a", "Count", keep_results=False)
        .task("b", "Count", args={"reads": result("a")}, keep_results=False)
        .task("x", "Count", keep_results=False)
        .task("y", "Count", args={"reads": result("x")})
        .task("c", "Count", args={"reads": result("b")})
        .done()
    )
    first = await failed(server, book, job, "c")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert second.succeeded, second.explain()
    assert book.take() == ["a", "b", "c"]
    assert second.tasks["x"].state is TaskState.SUCCEEDED
    assert second.results["y"] == "y of run 1"


async def test_what_is_made_again_for_its_readers_does_not_start_those_that_were_taken_over(server, book):
    job = (
        JobDefinition.build("k")
        .task("a", "Count", keep_results=False)
        .task("kept", "Count", args={"reads": result("a")})
        .task("broken", "Count", args={"reads": result("a")})
        .done()
    )
    first = await failed(server, book, job, "broken")
    second = await (await server.rerun(first.id)).wait(PATIENCE)
    assert book.take() == ["a", "broken"]
    assert second.results["kept"] == "kept of run 1"
    assert second.tasks["kept"].attempts == 0


# ---- parameters


async def test_parameters_and_secrets_are_those_of_the_earlier_run(server, book):
    params = {"n": 1, "token": Parameter(type="string", required=True, secret=True)}
    job = JobDefinition.build("p", params=params).task("n", "Numbers", args={"count": param("n")})
    server.define(job.task("c", "Count", args={"reads": param("token")}).done())
    book.broken = {"c"}
    first = await (await server.start("p", {"n": 7, "token": "s3cret"})).wait(PATIENCE)
    server.define(JobDefinition.build("p", params={"n": 99}).task("n", "Numbers").done(), replace=True)
    second = await (await server.rerun(first.id, from_failed=False)).wait(PATIENCE)
    assert dict(second.params) == {"n": 7, "token": "***"}
    assert len(second.results["n"]) == 7
    assert "s3cret" not in repr(second) + second.explain()


# ---- what cannot be run again


async def test_a_live_run_an_unknown_one_and_unknown_code_are_refused(server):
    run = await server.start_task("Forever")
    with pytest.raises(RunStateError, match="run 1 is running; it can be run again when it has ended"):
        await server.rerun(run.id)
    with pytest.raises(NoSuchRunError, match="no run 5"):
        await server.rerun(5)
    run.kill()
    await run.wait(PATIENCE)
    with pytest.raises(ArgumentError, match='code is "pinned" or "latest", not \'newest\''):
        await server.rerun(run.id, code="newest")


# ---- code

OLD = """
from scattersphere import RunnableTask

class Load(RunnableTask):
    async def run(self, context):
        return "old"

class Report(RunnableTask):
    load: str

    async def run(self, context):
        raise ValueError("the old report is broken")
"""
NEW = OLD.replace('"old"', '"new"').replace(
    'raise ValueError("the old report is broken")', "return self.load"
)


@pytest.fixture
async def etl(tmp_path):
    """A Server with a bundle of which one version has failed, and the file of the bundle."""
    file = tmp_path / "etl.py"
    file.write_text(OLD)
    async with Server(grace=0.2) as server:
        await server.register(file)
        job = JobDefinition.build("etl").task("load", "etl.Load")
        server.define(job.task("report", "etl.Report", args={"load": result("load")}).done())
        run = await (await server.start("etl")).wait(PATIENCE)
        assert not run.succeeded
        yield server, file


async def test_latest_code_is_used_on_demand_and_says_what_older_code_has_made(etl):
    server, file = etl
    file.write_text(NEW)
    await server.reload("etl")
    second = await (await server.rerun(1, code="latest")).wait(PATIENCE)
    assert second.results["report"] == "old"
    assert second.reused["load"].older
    assert str(second.reused["load"]).endswith("which is older code)")
    (line,) = [line for line in second.logs() if line.level == 30]
    assert line.message == f"made by older code, {second.reused['load'].code} in run 1: load"
    assert "older code" in second.explain()


async def test_pinned_code_is_that_of_the_earlier_run_even_after_its_release(etl):
    server, file = etl
    file.write_text(NEW)
    await server.reload("etl")
    assert list(server.registry.bundles["etl"].versions) == []  # the old one was released
    second = await (await server.rerun(1)).wait(PATIENCE)
    assert second.state is RunState.FAILED
    assert "the old report is broken" in second.explain()
    assert not second.reused["load"].older
    third = await (await server.rerun(1, from_failed=False)).wait(PATIENCE)
    assert third.results["load"] == "old"
    assert list(server.registry.bundles["etl"].versions) == []


async def test_pinned_code_comes_back_after_its_bundle_was_deregistered(etl):
    server, _ = etl
    await server.deregister("etl")
    second = await (await server.rerun(1, from_failed=False)).wait(PATIENCE)
    assert second.results["load"] == "old"
    with pytest.raises(UnresolvedError, match="etl"):
        await server.rerun(1, code="latest")


async def test_classes_of_the_host_that_are_gone_are_named(server, book):
    run = await (await server.start_task("Count")).wait(PATIENCE)
    await server.deregister("app")
    with pytest.raises(NoSuchBundleError, match="'app' was made of classes of the host"):
        await server.rerun(run.id, from_failed=False)


# ---- elsewhere


def test_a_blocking_program_can_do_a_run_again(book):
    book.broken = {"Count"}
    with SyncServer() as server:
        server.register_tasks("app", classes(book))
        first = server.start_task("Count").wait(PATIENCE)
        book.broken = set()
        second = server.rerun(first.id).wait(PATIENCE)
        assert (second.id, second.succeeded, second.parent) == (2, True, 1)

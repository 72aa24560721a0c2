"""Results: passed by reference, kept as long as the run or as long as somebody reads them, shown cut."""

import gc
import weakref

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, TaskState, param, result

pytestmark = pytest.mark.anyio


class Box:
    """Something large that weak references can watch."""

    def __init__(self, value=0):
        self.value = value


class Make(RunnableTask):
    """Return a box."""

    value: int = 0

    async def run(self, context):
        return Box(self.value)


class MakeMany(RunnableTask):
    """Return a list of boxes."""

    async def run(self, context):
        return [Box(n) for n in range(3)]


class Look(RunnableTask):
    """Return the identity of what it was given, by the argument and by the context."""

    box: object
    fail_first: bool = False

    async def run(self, context):
        if self.fail_first and context.attempt == 1:
            raise ValueError("once")
        assert context.results[next(iter(context.results))] is self.box
        return id(self.box)


class LookInside(RunnableTask):
    """Return the number in a box."""

    box: object

    async def run(self, context):
        return self.box.value


class Hold(RunnableTask):
    """Be held until the host sets the event."""

    box: object
    gate: object

    async def run(self, context):
        await self.gate.wait()


class MakeGate(RunnableTask):
    """Return an event."""

    async def run(self, context):
        return anyio.Event()


CLASSES = [Make, MakeMany, Look, LookInside, Hold, MakeGate]


@pytest.fixture
async def server():
    async with Server() as server:
        server.register_tasks("app", CLASSES)
        yield server


async def test_a_result_is_passed_by_reference_and_kept_with_the_run(server):
    job = JobDefinition.build("j").task("make", "Make").task("look", "Look", args={"box": result("make")})
    server.define(job.done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.results["look"] == id(run.results["make"])


async def test_a_result_that_is_not_kept_is_there_until_its_last_reader_has_ended(server):
    job = (
        JobDefinition.build("j")
        .task("gate", "MakeGate")
        .task("make", "Make", keep_results=False)
        .task("look", "Look", args={"box": result("make")})
        .task("hold", "Hold", args={"box": result("make"), "gate": result("gate")})
    )
    server.define(job.done())
    run = await server.start("j")
    while run.tasks["look"].state is not TaskState.SUCCEEDED:
        await anyio.lowlevel.checkpoint()
    box = weakref.ref(run.results["make"])
    run.results["gate"].set()
    await run.wait(PATIENCE)
    gc.collect()
    assert box() is None
    assert "make" not in run.results
    assert set(run.results) == {"gate", "look", "hold"}
    with pytest.raises(
        KeyError, match=r"'make' has succeeded; its result was dropped \(keep_results is false\)"
    ):
        run.results["make"]
    (make,) = (line for line in run.explain().splitlines() if line.startswith("make "))
    assert "succeeded" in make
    assert make.endswith("result dropped")
    assert run.explain().count("dropped") == 1


async def test_a_retry_of_a_reader_still_finds_what_it_reads(server):
    retry = {"max_attempts": 2, "delay": 0}
    args = {"box": result("make"), "fail_first": True}
    job = JobDefinition.build("j").task("make", "Make", keep_results=False)
    server.define(job.task("look", "Look", args=args, retry=retry).done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert run.tasks["look"].attempts == 2


async def test_a_map_over_a_result_that_is_not_kept_lets_go_of_its_elements(server):
    job = JobDefinition.build("j").task("many", "MakeMany", keep_results=False)
    job = job.task("each", "LookInside", map={"box": result("many")})
    server.define(job.done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.results["each"] == [0, 1, 2]
    assert "many" not in run.results
    gc.collect()
    assert not any(type(found) is Box for found in gc.get_objects())
    assert "3 instances" in run.explain()


async def test_the_results_of_a_map_that_are_not_kept_go_one_and_all(server):
    job = JobDefinition.build("j", params={"ns": [1, 2]})
    job = job.task("make", "Make", map={"value": param("ns")}, keep_results=False)
    server.define(job.task("look", "Look", args={"box": result("make")}).done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    gc.collect()
    assert not any(type(found) is Box for found in gc.get_objects())


async def test_a_result_that_nobody_reads_and_that_is_not_kept_is_gone_at_once(server):
    server.define(JobDefinition.build("j").task("make", "Make", keep_results=False).done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.succeeded
    assert dict(run.results) == {}


async def test_what_others_see_of_results_is_json_or_a_repr_cut_at_a_limit(server):
    job = JobDefinition.build("j").task("make", "Make").task("box", "MakeMany")
    server.define(job.task("look", "Look", args={"box": result("make")}).done())
    run = await (await server.start("j")).wait(PATIENCE)
    assert run.results.shown_of("look") == run.results["look"]
    assert "Box object" in run.results.shown_of("make")["repr"]
    assert run.results.shown_of("box", 10)["cut"] is True
    assert set(run.results.shown()) == {"make", "look", "box"}
    assert set(run.results.shown(limit=10)) == {"make"}
    with pytest.raises(KeyError, match="nothing"):
        run.results.shown_of("nothing")

"""Whatever code is current by then: runs go on, are looked at and are run again with the code that they had."""

import math

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, World

from scattersphere import JobDefinition, RunState, TaskDefinition
from scattersphere.registry.registry import TaskRegistry
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio

CODE = """
import anyio
from dataclasses import dataclass
from recoveryworld import WORLD
from scattersphere import RunnableTask

VERSION = {version}

@dataclass
class Report:
    version: int
    {field}: str = "x"

class Make(RunnableTask):
    async def run(self, context):
        return Report(VERSION)

class Wait(RunnableTask):
    async def run(self, context):
        WORLD["now"].begun["wait"] += 1
        await WORLD["now"].gate(f"{{WORLD['now'].begun['wait']}}").wait()
        return VERSION

class Fail(RunnableTask):
    async def run(self, context):
        WORLD["now"].begun["fail"] += 1
        if WORLD["now"].begun["fail"] == 1:
            raise ValueError("once")
        return VERSION
"""
JOBS = [
    JobDefinition(
        name="long",
        tasks={
            "make": TaskDefinition(task="etl.Make", bundle="etl"),
            "wait": TaskDefinition(task="etl.Wait", bundle="etl", depends_on=("make",)),
            "last": TaskDefinition(task="etl.Make", bundle="etl", depends_on=("wait",)),
        },
    ),
    JobDefinition(
        name="bad",
        tasks={
            "make": TaskDefinition(task="etl.Make", bundle="etl"),
            "fail": TaskDefinition(task="etl.Fail", bundle="etl", depends_on=("make",)),
        },
    ),
]


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


@pytest.fixture
def etl(tmp_path):
    file = tmp_path / "etl.py"

    def write(version, field):
        file.write_text(CODE.format(version=version, field=field))
        return file

    return write


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what a loader's thread brings about
            await anyio.sleep(0.005)


async def ended(run):
    with anyio.fail_after(PATIENCE):
        await run.wait()
    return run


async def test_a_run_goes_on_with_the_bytes_that_it_had_beside_new_ones(world, etl):
    life = await Life(MemoryJournal(), classes=()).__aenter__()
    await life.server.register(etl(1, "note"))
    for job in JOBS:
        life.server.define(job)
    run = await life.server.start("long")
    await until(lambda: world.begun["wait"] == 1)
    after = await life.crash()
    async with Life(after, classes=()) as life:
        await life.server.register(etl(2, "other"))
        for job in JOBS:
            life.server.define(job)
        await until(lambda: world.begun["wait"] == 2)
        new = await life.server.start("long")
        await until(lambda: world.begun["wait"] == 3)
        world.gate("2").set()
        world.gate("3").set()
        old = await ended(life.server.runs[run.id])
        await ended(new)
        assert (old.state, old.results["wait"], new.results["wait"]) == (RunState.SUCCEEDED, 1, 2)
        assert (old.results["make"].version, old.results["make"].note) == (1, "x")
        assert type(old.results["last"]) is type(old.results["make"])
        assert new.results["make"].other == "x"


async def test_runs_go_on_with_what_they_had_when_their_bundle_was_rolled_back_meanwhile(world, etl):
    """The older content comes back on the disk: what was begun with the newer one goes on with that, in all lives."""
    life = await Life(MemoryJournal(), classes=()).__aenter__()
    runs = []
    for version, field in ((1, "note"), (2, "other")):
        if version == 1:
            await life.server.register(etl(version, field))
            life.server.define(JOBS[0])
        else:
            etl(version, field)
            await life.server.reload("etl")
        runs.append(await life.server.start("long"))
        await until(lambda version=version: world.begun["wait"] == version)
    for life_number in (2, 3):  # rolled back while the program was down, ...
        life = await Life(await life.crash(), classes=()).__aenter__()
        await life.server.register(etl(1, "note"))
        life.server.define(JOBS[0])
        await until(lambda number=life_number: world.begun["wait"] == 2 * number)
    for version, field in ((2, "other"), (1, "note")):  # ... and while it ran
        etl(version, field)
        await life.server.reload("etl")
    new = await life.server.start("long")
    await until(lambda: world.begun["wait"] == 7)
    for gate in ("5", "6", "7"):
        world.gate(gate).set()
    first, second = [await ended(life.server.runs[run.id]) for run in runs]
    await ended(new)
    assert [run.results["wait"] for run in (first, second, new)] == [1, 2, 1]
    assert (first.results["last"].note, second.results["last"].other, new.results["last"].note) == (
        "x",
        "x",
        "x",
    )
    stored = life.journal.read_runs([first.id, second.id, new.id])
    assert len({digest for row in stored for _, digest in row.run.bundles}) == 2
    await life.__aexit__(None, None, None)


async def test_results_of_an_ended_run_are_read_with_its_code_and_it_is_run_again_with_it(world, etl):
    life = await Life(MemoryJournal(), classes=()).__aenter__()
    await life.server.register(etl(1, "note"))
    for job in JOBS:
        life.server.define(job)
    run = await ended(await life.server.start("bad"))
    assert run.state is RunState.FAILED
    async with Life(await life.crash(), classes=(), history=(0, math.inf)) as life:
        await life.server.register(etl(2, "other"))
        seen = await life.server.history.get(run.id, results=False)
        assert seen.tasks["fail"].failure.message == "once"
        with pytest.raises(KeyError, match="was not read"):
            seen.results["make"]
        assert (await life.server.history.get(run.id)).results["make"].note == "x"
        pinned = await ended(await life.server.rerun(run.id))
        assert (pinned.results["fail"], pinned.results["make"].note) == (1, "x")
        latest = await ended(await life.server.rerun(run.id, code="latest", from_failed=False))
        assert (latest.results["fail"], latest.results["make"].other) == (2, "x")


async def test_code_that_takes_its_time_does_not_keep_the_server_from_being_entered(world, etl, monkeypatch):
    life = await Life(MemoryJournal(), classes=()).__aenter__()
    await life.server.register(etl(1, "note"))
    life.server.define(JOBS[0])
    run = await life.server.start("long")
    await until(lambda: world.begun["wait"] == 1)
    real, go_on = TaskRegistry.adopt, anyio.Event()

    async def adopt(*args):
        await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(TaskRegistry, "adopt", adopt)
    async with Life(await life.crash(), classes=(), load_timeout=0.02) as life:
        run = life.server.runs[run.id]
        assert run.waits_for.startswith("its code")
        assert world.begun["wait"] == 1
        go_on.set()
        await until(lambda: world.begun["wait"] == 2)
        world.gate("2").set()
        assert (await ended(run)).succeeded

"""The log of a run that went on after a restart: what earlier lives wrote stays in the journal, and is shown first."""

import logging

import anyio
import pytest
from patience import PATIENCE
from recoveryworld import WORLD, Life, World

from scattersphere import JobDefinition, RunnableTask, TaskDefinition
from scattersphere.logs import runlog
from scattersphere.model.logs import unpack_lines
from scattersphere.testing import MemoryJournal

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def world():
    WORLD["now"] = World()
    return WORLD["now"]


class Talk(RunnableTask):
    """Says in which life it executes, and waits for its gate."""

    lines: int = 1

    async def run(self, context):
        world = WORLD["now"]
        world.begun["talk"] += 1
        for number in range(self.lines):
            context.log.info("life %d, line %d", world.begun["talk"], number)
        await world.gate(f"life {world.begun['talk']}").wait()


def jobs(lines=1, **tasks):
    return [JobDefinition(name="talk", tasks={"talk": TaskDefinition(task="Talk", args={"lines": lines})})]


async def settle():
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


def written(journal, run=1):
    """Return what the journal has, by the numbers of lines."""
    found = {}
    for row in journal.read_log(run):
        for number, line in enumerate(unpack_lines(row.data), row.first):
            assert number not in found
            found[number] = line["message"]
    return found


def said(lines):
    return [line.message for line in lines if line.message.startswith("life")]


async def begun(lines=1):
    life = await Life(MemoryJournal(), classes=[Talk], jobs=jobs(lines)).__aenter__()
    await life.server.start("talk")
    await settle()
    life.server.runs[1].pause()  # what is written takes its lines along
    life.server.runs[1].resume()
    await settle()
    return life


async def test_each_life_adds_its_lines_and_takes_none_away(world):
    life = await begun()
    for number in (2, 3):
        after = await life.crash()
        life = await Life(after, classes=[Talk]).__aenter__()
        await settle()
        run = life.server.runs[1]
        assert said(run.logs()) == [f"life {each}, line 0" for each in range(1, number + 1)]
        times = [line.time for line in run.logs()]
        assert times == sorted(times)
        run.pause()
        run.resume()
        await settle()
    world.gate("life 3").set()
    with anyio.fail_after(PATIENCE):
        await run.wait()
    assert said(run.logs(tail=1)) == ["life 3, line 0"]
    assert said(run.logs("talk", tail=2)) == ["life 2, line 0", "life 3, line 0"]
    await life.__aexit__()
    lines = written(life.journal.again())
    assert [lines[number] for number in sorted(lines) if lines[number].startswith("life")] == [
        f"life {each}, line 0" for each in (1, 2, 3)
    ]
    assert sorted(lines) == list(range(1, len(lines) + 1))


async def test_who_follows_gets_the_lines_of_earlier_lives_first_and_events_count_only_those_of_this_one(
    world,
):
    life = await begun()
    async with Life(await life.crash(), classes=[Talk]) as life:
        run = life.server.runs[1]
        await settle()
        lines = []
        async with anyio.create_task_group() as tasks:

            async def follow():
                lines.extend([line async for line in run.follow_logs("talk")])

            tasks.start_soon(follow)
            await settle()
            world.gate("life 2").set()
            with anyio.fail_after(PATIENCE):
                await run.wait()
        assert said(lines) == ["life 1, line 0", "life 2, line 0"]
        events = [event async for event in run.events()]
        assert said([event for event in events if event.kind == "log"]) == ["life 2, line 0"]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert said([line async for line in run.follow_logs(tail=1)]) == ["life 2, line 0"]


async def test_of_a_long_log_the_newest_lines_are_shown_and_how_many_are_only_in_the_journal(
    world, monkeypatch
):
    monkeypatch.setattr(runlog, "EARLIER_LINES", 10)
    life = await begun(lines=50)
    async with Life(await life.crash(), classes=[Talk]) as life:
        await settle()
        lines = life.server.runs[1].logs()
        assert said(lines)[:10] == [f"life 1, line {number}" for number in range(40, 50)]
        assert lines[0].level == logging.WARNING
        assert "older lines are in the journal" in lines[0].message
        assert said(life.server.runs[1].logs(tail=52))[:2] == ["life 1, line 48", "life 1, line 49"]
        world.gate("life 2").set()


async def test_who_follows_the_log_of_a_run_that_is_suspended_comes_to_an_end(world):
    journal = MemoryJournal()
    async with anyio.create_task_group() as tasks:
        async with Life(journal, classes=[Talk], jobs=jobs()) as life:
            run = await life.server.start("talk")
            lines = []

            async def follow():
                lines.extend([line async for line in run.follow_logs("talk")])

            tasks.start_soon(follow)
            await settle()
        with anyio.fail_after(PATIENCE):
            while not lines:
                await anyio.lowlevel.checkpoint()
    assert said(lines) == ["life 1, line 0"]

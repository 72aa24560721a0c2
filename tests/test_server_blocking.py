"""A task that blocks the event loop is named with its line (promise 11)."""

import logging
import threading
import time
from pathlib import Path

import anyio
import pytest

from scattersphere import EventKind, RunnableTask, Server

pytestmark = [pytest.mark.anyio, pytest.mark.blocks_loop]

LIMIT = 0.1


class Block(RunnableTask):
    """Block the loop until that is in the log of the run, or for ten seconds."""

    async def run(self, context):
        self.block(context)

    def block(self, context):
        end = time.monotonic() + 10
        while time.monotonic() < end and not context.run_log.lines():
            time.sleep(0.01)  # here


class BlockLate(Block):
    """The same, after a suspension."""

    async def run(self, context):
        await anyio.lowlevel.checkpoint()
        self.block(context)


class BlockInChild(Block):
    """The same, in a task of its own."""

    async def run(self, context):
        async def child():
            self.block(context)

        async with anyio.create_task_group() as group:
            group.start_soon(child)


class Wait(RunnableTask):
    """Take long, but let the loop turn."""

    async def run(self, context):
        await anyio.sleep(LIMIT * 4)


class WaitInThread(RunnableTask):
    """Take long in a thread."""

    def run(self, context):
        time.sleep(LIMIT * 4)


CLASSES = [Block, BlockLate, BlockInChild, Wait, WaitInThread]


def line_of(mark):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(mark))


@pytest.mark.parametrize("name", ["Block", "BlockLate", "BlockInChild"])
async def test_a_task_that_blocks_the_loop_is_named_with_its_line_in_its_log_and_by_an_event(name):
    async with Server(blocked_after=LIMIT) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task(name)).wait(20)
        (line,) = run.logs()
        assert (line.task, line.attempt, line.level) == (name, 1, logging.WARNING)
        assert "blocks the event loop for" in line.message
        assert f"{__file__}:{line_of('# here')} in block" in line.message
        assert 'backend "thread"' in line.message
        events = [event async for event in run.events()]
        (blocked,) = [event for event in events if event.kind is EventKind.TASK_BLOCKED]
        assert (blocked.task, blocked.attempt, blocked.message) == (name, 1, line.message)
        assert events[-1].kind is EventKind.RUN_ENDED
        async for event in server.events():
            if event.kind is EventKind.TASK_BLOCKED:
                assert (event.run, event.task, event.message) == (run.id, name, line.message)
                break


@pytest.mark.parametrize("name", ["Wait", "WaitInThread"])
async def test_a_task_that_only_takes_long_is_not_accused(name):
    async with Server(blocked_after=LIMIT) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task(name)).wait(20)
        assert run.logs() == []


async def test_without_a_limit_nobody_watches_and_by_default_there_is_one():
    def watchdogs():
        return [thread for thread in threading.enumerate() if thread.name == "scattersphere-watchdog"]

    async with Server(blocked_after=None):
        assert watchdogs() == []
    async with Server():
        (dog,) = watchdogs()
        assert dog.daemon
    assert watchdogs() == []

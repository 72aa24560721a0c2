"""A task that blocks the event loop is named with its line (promise 11)."""

import logging
import threading
import time
from pathlib import Path

import anyio
import pytest
from patience import PATIENCE

from scattersphere import EventKind, RunnableTask, Server

pytestmark = [pytest.mark.anyio, pytest.mark.blocks_loop]

LIMIT = 0.1


class Block(RunnableTask):
    """Block the loop until that is in the log of the run."""

    async def run(self, context):
        self.block(context)

    def block(self, context):
        end = time.monotonic() + PATIENCE
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


class BlockAndFail(Block):
    """The same, and then fail."""

    async def run(self, context):
        self.block(context)
        raise OSError("after the block")


class Wait(RunnableTask):
    """Take long, but let the loop turn."""

    async def run(self, context):
        await anyio.sleep(LIMIT * 4)


class WaitInThread(RunnableTask):
    """Take long in a thread."""

    def run(self, context):
        time.sleep(LIMIT * 4)


CLASSES = [Block, BlockLate, BlockInChild, BlockAndFail, Wait, WaitInThread]


def line_of(mark):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(mark))


@pytest.mark.parametrize("name", ["Block", "BlockLate", "BlockInChild"])
async def test_a_task_that_blocks_the_loop_is_named_with_its_line_in_its_log_and_by_an_event(name):
    async with Server(blocked_after=LIMIT) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task(name)).wait()
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


async def test_the_event_of_a_block_comes_before_the_end_of_an_attempt_that_fails():
    async with Server(blocked_after=LIMIT) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task("BlockAndFail")).wait()
        kinds = [event.kind async for event in run.events() if event.kind is not EventKind.LOG]
        ends = [EventKind.TASK_BLOCKED, EventKind.TASK_ENDED, EventKind.RUN_ENDED]
        assert kinds == [EventKind.RUN_STARTED, EventKind.TASK_STARTED, *ends]


@pytest.mark.parametrize("name", ["Wait", "WaitInThread"])
async def test_a_task_that_only_takes_long_is_not_accused(name):
    async with Server(blocked_after=LIMIT) as server:
        server.register_tasks("app", CLASSES)
        run = await (await server.start_task(name)).wait()
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

# ruff: noqa: ASYNC110, ASYNC251 - to block the loop, and to watch it from inside, is what is tested
"""A task that blocks the loop is named with its line; nobody else is."""

from __future__ import annotations

import threading
import time

import anyio
import pytest
from patience import PATIENCE

from scattersphere.engine.loops import current_loop
from scattersphere.engine.watchdog import Blocked, LoopWatchdog, warn
from scattersphere.logs.runlog import RunLog

LIMIT = 0.1


class Attempt:
    def __init__(self) -> None:
        self.run_log = RunLog(1)
        self.run_id, self.task, self.index, self.attempt = 1, "load", 3, 1


class Watched:
    """A watchdog over the loop that runs now, and what it has said."""

    def __init__(self, *, busy: bool = True) -> None:
        self.busy = busy
        self.said: list[Blocked] = []
        self.told = threading.Event()
        self.asked = 0
        self._loop = current_loop()
        self.dog = LoopWatchdog(self, lambda: self.busy, self._take, limit=LIMIT)

    def soon(self, callback, *args):
        self.asked += 1
        self._loop.soon(callback, *args)

    def _take(self, blocked):
        self.said.append(blocked)
        self.told.set()

    def __enter__(self):
        self.dog.start()
        return self

    def __exit__(self, *args):
        self.dog.close()


def block_until(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


@pytest.mark.anyio
@pytest.mark.blocks_loop
async def test_a_body_that_blocks_is_named_with_its_line():
    with Watched() as watched:
        block_until(watched.told)
    (blocked,) = watched.said
    assert blocked.seconds >= LIMIT
    assert f"{__file__}:" in blocked.place
    assert "in block_until" in blocked.place
    assert blocked.attempt is None
    assert "in block_until" in str(blocked)


@pytest.mark.anyio
@pytest.mark.blocks_loop
async def test_the_attempt_is_found_on_the_stack(monkeypatch):
    import scattersphere.engine.watchdog as module

    monkeypatch.setattr(module, "is_engine_file", lambda name: name == __file__)
    attempt = Attempt()

    def engine_calls(attempt, body):
        body()

    with Watched() as watched:
        engine_calls(attempt, lambda: block_until(watched.told))
    assert watched.said[0].attempt is attempt


@pytest.mark.anyio
@pytest.mark.blocks_loop
async def test_it_is_said_once_for_each_time():
    with Watched() as watched:
        for count in (1, 2):
            block_until(watched.told)
            time.sleep(LIMIT * 3)
            assert len(watched.said) == count
            watched.told.clear()
            asked = watched.asked
            while watched.asked < asked + 2:  # the loop has answered, and is asked again
                await anyio.sleep(LIMIT / 10)


@pytest.mark.anyio
async def test_a_loop_that_answers_is_never_accused():
    with Watched() as watched:
        while watched.asked < 5:
            await anyio.sleep(LIMIT / 10)
    assert watched.said == []


@pytest.mark.anyio
@pytest.mark.blocks_loop
async def test_an_idle_loop_is_not_even_asked():
    with Watched(busy=False) as watched:
        time.sleep(LIMIT * 3)
    assert watched.asked == 0
    assert watched.said == []


@pytest.mark.anyio
async def test_closing_ends_the_thread_and_may_be_repeated():
    watched = Watched()
    watched.dog.close()  # never started
    with Watched() as watched:
        thread = watched.dog._thread
    watched.dog.close()
    assert not thread.is_alive()


def test_the_warning_stands_in_the_log_of_the_run():
    attempt = Attempt()
    warn(Blocked(1.5, "etl/load.py:12 in run", attempt))
    warn(Blocked(1.5, "host.py:1 in main", None))  # the host's own code: not ours to report
    (line,) = attempt.run_log.lines()
    assert line.message.startswith("blocks the event loop for 1.5 s so far, at etl/load.py:12 in run")
    assert (line.task, line.index, line.level) == ("load", 3, 30)

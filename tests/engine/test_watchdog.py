"""A task that blocks the loop is named with its line; nobody else is."""

from __future__ import annotations

import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere.engine.loops import current_loop
from scattersphere.engine.watchdog import Blocked, LoopWatchdog, warn
from scattersphere.logs.runlog import RunLog

LIMIT = 0.125


class Attempt:
    def __init__(self) -> None:
        self.run_log = RunLog(1)
        self.run_id, self.task, self.index, self.attempt = 1, "load", 3, 1


class Ticks:
    """Time for a watchdog, which passes when the test says so: `tick` ends when the thread has looked once more."""

    def __init__(self) -> None:
        self.now = 0.0
        self._allowed, self._passes = threading.Semaphore(0), 0.0
        self._looked = threading.Semaphore(0)
        self._ended = False

    def wait(self, pause: float) -> bool:
        """Stand for the event by which the watchdog's thread ends, and on which it waits between two looks."""
        self._looked.release()
        assert self._allowed.acquire(timeout=PATIENCE)
        self.now += self._passes or pause
        return self._ended

    def set(self) -> None:
        self._ended = True
        self._allowed.release()

    def tick(self, seconds: float = 0.0) -> None:
        """Let the thread look after its pause, or after `seconds`."""
        assert self._looked.acquire(timeout=PATIENCE)  # it waits
        self._passes = seconds
        self._allowed.release()
        assert self._looked.acquire(timeout=PATIENCE)  # it has looked, and waits again
        self._looked.release()


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


@pytest.fixture
def ticks(monkeypatch):
    import scattersphere.engine.watchdog as module

    ticks = Ticks()
    monkeypatch.setattr(module, "monotonic", lambda: ticks.now)
    return ticks


def watched_in(ticks: Ticks, *, busy: bool = True) -> Watched:
    watched = Watched(busy=busy)
    watched.dog._ended = ticks
    return watched


async def answer(watched: Watched) -> None:
    """Let the loop get on until it has given its sign of life."""
    while not watched.dog._answered:
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.blocks_loop
async def test_it_is_said_once_for_each_time(ticks):
    with watched_in(ticks) as watched:
        for count in (1, 2):
            for _ in range(10):  # the loop's thread is here: it gives no sign
                ticks.tick()
            assert len(watched.said) == count
            assert watched.said[-1].seconds == LIMIT
            await answer(watched)
            ticks.tick()
            await answer(watched)
    assert len(watched.said) == 2


@pytest.mark.anyio
async def test_a_loop_that_answers_is_never_accused(ticks):
    with watched_in(ticks) as watched:
        for _ in range(10):
            ticks.tick()
            ticks.tick()  # as late as it may be
            await answer(watched)
    assert watched.asked == 10
    assert watched.said == []


@pytest.mark.anyio
async def test_nobody_is_accused_of_the_time_in_which_the_whole_process_stood_still(ticks):
    with watched_in(ticks) as watched:
        ticks.tick()
        ticks.tick(1000 * LIMIT)
        ticks.tick()
        assert watched.said == []
        ticks.tick()
        assert len(watched.said) == 1, "after that the loop itself did not get on"


@pytest.mark.anyio
async def test_an_idle_loop_is_not_even_asked(ticks):
    with watched_in(ticks, busy=False) as watched:
        for _ in range(10):
            ticks.tick()
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

"""The watch over the loops of tests: what holds a loop is found, and what the machine does is not blamed on a test."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time

import attrs
import loopwatch
import pytest
from loopwatch import FRESH, SLEEP, WORK, Clocks, LoopWatch, Reading, reference

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread was not run")


START = Reading(0.0, 0.0, 0.0, 0, 0.0)


@attrs.define
class FakeClocks:
    """Clocks that stand where a test puts them. `unit` is what the reference work takes."""

    unit: float = 0.02
    now: Reading = START
    looks: int = 0

    def wall(self):
        return self.now.wall

    def read(self):
        return self.now

    def reference(self):
        self.looks += 1
        return self.unit

    def close(self):
        pass

    def go_on(self, wall, *, computed=0.0, queued=0.0, switches=0, others=0.0, disk=0):
        steps = (wall, computed, queued, switches, computed + others, disk)
        self.now = Reading(*(before + step for before, step in zip(self.now, steps, strict=True)))


def judged(unit=0.02, **turn):
    clocks = FakeClocks(unit)
    watch = LoopWatch(clocks)
    watch.begin()
    clocks.go_on(**turn)
    watch.end("turn")
    return watch


def test_a_turn_that_sleeps_is_judged_in_seconds():
    watch = judged(wall=1.5)
    assert watch.worst == pytest.approx(1.5 / SLEEP)
    assert watch.verdict == "slept for 1.5 s: 'turn'"


def test_a_turn_that_computes_is_judged_by_what_the_same_machine_needs_for_the_reference_work():
    fast = judged(unit=0.005, wall=0.4, computed=0.4)
    slow = judged(unit=0.05, wall=4.0, computed=4.0)
    assert fast.worst == slow.worst == pytest.approx(80 / WORK)
    assert slow.verdict == "computed 80 times the reference work (4.0 s): 'turn'"
    assert judged(unit=0.5, wall=4.0, computed=4.0).worst < 1


@pytest.mark.parametrize(
    "turn",
    [
        {"wall": 30.0, "computed": 0.5, "queued": 29.0},
        {"wall": 30.0, "computed": 0.2, "queued": 2.0, "switches": 6000, "others": 9.0},
        {"wall": 0.2},
        {"wall": 15.0, "disk": 1},
    ],
    ids=[
        "the machine was busy elsewhere",
        "another thread had the interpreter's lock",
        "it was short",
        "others kept the disk busy",
    ],
)
def test_what_the_turn_had_to_wait_for_is_not_its_own(turn):
    assert judged(**turn).worst < 0.6


def test_waiting_for_a_thread_that_computes_is_sleeping():
    assert judged(wall=2.0, switches=3, others=2.0).worst == pytest.approx(2.0, abs=0.1)


def test_many_short_sleeps_in_one_turn_are_a_long_one():
    assert judged(wall=2.0, switches=2000).worst == pytest.approx(2.0)


def test_where_the_system_does_not_tell_who_was_run_only_what_was_computed_is_judged():
    clocks = FakeClocks(now=Reading(0.0, 0.0, float("nan"), 0, 0.0))
    watch = LoopWatch(clocks)
    for computed in (0.0, 2.0):
        watch.begin()
        clocks.go_on(10.0, computed=computed)
        watch.end("turn")
        assert watch.worst == pytest.approx(computed / 0.02 / WORK)


def test_the_worst_of_all_turns_is_told_and_short_turns_cost_no_reference_work():
    clocks = FakeClocks()
    watch = LoopWatch(clocks)
    for number, seconds in enumerate((0.1, 1.2, 1.6, 1.4, 0.1)):
        watch.begin()
        clocks.go_on(seconds, computed=seconds)
        watch.end(number)
    assert watch.verdict == "computed 80 times the reference work (1.6 s): 2"
    assert clocks.looks == 3


def test_a_reading_from_before_the_turn_makes_no_turn_longer_than_it_was():
    clocks = FakeClocks()
    watch = LoopWatch(clocks)
    watch.begin()
    clocks.go_on(FRESH * 0.9, computed=FRESH * 0.9)
    watch.begin()  # the first reading still stands for the beginning of this turn
    clocks.go_on(WORK * clocks.unit, computed=WORK * clocks.unit)
    watch.end("turn")
    assert watch.worst == pytest.approx(1.0)


def test_the_reference_work_takes_some_time():
    assert 0 < reference() < 5


# ---- with real clocks


def held(block):
    """Judge a turn that does this; return the watch and the seconds that it took on the wall."""
    watch = LoopWatch(Clocks())
    begun = time.perf_counter()
    watch.begin()
    block()
    watch.end("turn")
    watch._clocks.close()
    return watch, time.perf_counter() - begun


def compute(times):
    end = time.thread_time() + times * reference()
    while time.thread_time() < end:
        pass


@linux
def test_a_turn_that_really_sleeps_is_found_while_a_thread_works():
    done = threading.Event()

    def work():
        while not done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        watch, _ = held(functools.partial(time.sleep, 1.3 * SLEEP))
    finally:
        done.set()
        thread.join()
    assert watch.worst > 1
    assert watch.verdict.startswith("slept")


@linux
def test_a_thread_that_ends_in_a_turn_does_not_make_it_longer():
    """Its time, and what it had waited, vanish from the sums over all threads."""
    ready, go = threading.Event(), threading.Event()

    def work():
        compute(20)
        ready.set()
        go.wait()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()

    def turn():
        go.set()
        thread.join()
        time.sleep(0.3)

    watch, seconds = held(turn)
    assert 0 < watch.worst <= seconds / SLEEP


def test_a_turn_that_really_computes_is_found(monkeypatch):
    monkeypatch.setattr(loopwatch, "WORK", 15)
    monkeypatch.setattr(loopwatch, "WORTH_A_LOOK", 0.0)
    watch, _ = held(lambda: [reference() for _ in range(12)])  # each is five times the work
    assert watch.worst > 1
    assert watch.verdict.startswith("computed")


def test_the_turns_of_a_loop_in_another_thread_are_not_those_of_the_test():
    clocks = FakeClocks()

    async def sleep_there():
        clocks.go_on(wall=5.0)

    async def watched():
        with LoopWatch(clocks) as watch:
            thread = threading.Thread(target=lambda: asyncio.run(sleep_there()))
            watch.end("so far")
            thread.start()
            thread.join()
            watch.begin()
        return watch

    assert asyncio.run(watched()).worst == 0.0

"""Mass moves: a hundred thousand tasks, in slices, without recursion, and what a run keeps."""

import gc
import sys
import tracemalloc

import pytest
from machine_stage import Stage, begun
from machine_world import Machine

from scattersphere.engine.machine import CompiledGraph, Dispatcher, StartDecision, TaskSpec
from scattersphere.engine.machine.codes import CANCELLED, FAILED, SUCCEEDED

MANY = 100_000
SLICE = 1_000


def steps_of(machine):
    """Work in slices; return how many were needed, having checked that none moves too much."""
    slices = 0
    while machine.busy:
        before = len(machine.record.journal)
        machine.work(SLICE)
        assert len(machine.record.journal) - before <= 2 * SLICE
        slices += 1
    return slices


@pytest.fixture(scope="module")
def fan():
    return CompiledGraph([TaskSpec(), *[TaskSpec(upstreams=(0,))] * MANY])


@pytest.fixture(scope="module")
def line():
    return CompiledGraph([TaskSpec(upstreams=(index - 1,) if index else ()) for index in range(MANY)])


def started(graph):
    dispatcher = Dispatcher()
    machine = Machine(graph, 1, dispatcher, lambda _: StartDecision.GO)
    machine.slot()
    return machine, begun(dispatcher)[1]


@pytest.mark.parametrize("kind", [FAILED, SUCCEEDED])
def test_an_ending_with_a_hundred_thousand_successors_is_told_in_slices(fan, kind):
    machine, _ = started(fan)
    machine.ended(0, kind)
    assert ("work", 0) in machine.out
    assert steps_of(machine) >= MANY // SLICE - 1


def test_the_failure_of_a_long_chain_does_not_recurse(line):
    machine, _ = started(line)
    machine.ended(0, FAILED)
    limit = sys.getrecursionlimit()
    assert limit < MANY
    steps_of(machine)
    assert machine.record.is_over
    assert machine.record.task_states.count(machine.record.task_states[1]) == MANY - 1


def test_a_cancel_of_a_hundred_thousand_tasks_is_swept_in_slices_and_nothing_starts_meanwhile(fan):
    machine, _ = started(fan)
    machine.ok(0, None)
    machine.work(SLICE)
    machine.cancel()
    assert begun(machine.dispatcher) is None
    assert steps_of(machine) > MANY // SLICE
    assert machine.record.is_over
    assert machine.record.task_states.count(CANCELLED) == MANY


def test_requests_in_the_middle_of_a_sweep_are_obeyed(fan):
    machine, _ = started(fan)
    machine.stop()
    machine.work(SLICE)
    machine.kill()
    assert machine.out[-1] == ("kill", 0) or machine.busy
    steps_of(machine)
    assert ("kill", 0) in machine.out
    machine.ended(0, CANCELLED)
    steps_of(machine)
    assert machine.record.is_over


def test_a_sliced_sweep_repeats_nothing_that_becomes_due_meanwhile():
    stage = Stage(*[TaskSpec()] * 3, TaskSpec(max_attempts=2), at_once=1)
    while stage.machine.busy:
        stage.machine.work(1)
    stage.start()
    stage.end(3, FAILED)
    stage.machine.cancel()
    assert stage.machine.busy
    stage.machine.retry_due(3)
    assert 3 not in stage.start()
    while stage.machine.work(1):
        pass
    assert stage.states[3] == "cancelled"


def test_an_attempt_that_times_out_before_the_sweep_of_a_kill_reaches_it_is_killed_once():
    stage = Stage(*[TaskSpec()] * 4, at_once=1)
    while stage.machine.busy:
        stage.machine.work(1)
    stage.start()
    stage.machine.kill()
    stage.machine.attempt_timeout(3)
    while stage.machine.work(1):
        pass
    assert stage.machine.out.count(("kill", 3)) == 1


def test_a_result_that_a_sliced_start_and_the_hot_path_both_see_is_queued_once():
    graphs = [TaskSpec(), *[TaskSpec(upstreams=(0,))] * 5, TaskSpec(upstreams=(1, 2))]
    stage = Stage(*graphs, slot=False, at_once=1)
    stage.machine.reuse(0, None)
    stage.machine.slot()
    seen = []
    while not stage.machine.record.is_over:
        stage.machine.work(1)
        for unit in stage.start():
            seen.append(unit)
            stage.end(unit, SUCCEEDED)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


def test_an_ended_run_keeps_less_than_400_bytes_for_each_task(line):
    gc.collect()
    tracemalloc.start()
    machine, units = started(line)
    while units:
        machine.ok(units[0], None)
        taken = begun(machine.dispatcher)
        units = taken[1] if taken else []
    before = list(machine.record.journal)
    full = tracemalloc.get_traced_memory()[0] - sys.getsizeof(before)
    machine.compact()
    del taken
    gc.collect()
    compact = tracemalloc.get_traced_memory()[0] - sys.getsizeof(before)
    tracemalloc.stop()
    assert full / MANY < 400
    assert compact < full
    assert list(machine.record.journal) == before


def test_a_run_that_is_not_over_is_not_compacted():
    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,)))
    stage.machine.compact()
    stage.do(SUCCEEDED)
    stage.do(SUCCEEDED)
    assert stage.run_state == "succeeded"

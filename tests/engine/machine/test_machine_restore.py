"""Attempts whose place is lost, runs that are suspended, and runs that are taken up again from their facts."""

import pytest
from machine_stage import Stage
from machine_world import Machine

from scattersphere.engine.machine import Dispatcher, TaskSpec, facts_of, take_up
from scattersphere.engine.machine.codes import CANCELLED, FAILED, SUCCEEDED, TASK_STATES


def restored(stage):
    """Take the facts of a stage's run, and make a machine of them and a dispatcher of its own."""
    machine = stage.machine
    again = Machine(machine.record.graph, 7, Dispatcher(), lambda _: 3)
    again.out.extend(take_up(again, facts_of(machine)))
    return again


def begun(machine):
    units = []
    while (taken := machine.dispatcher.take(8)) is not None:
        units += [unit for unit in taken[1] if machine.begin(unit)]
    return sorted(units)


def states(machine):
    return [TASK_STATES[code].value for code in machine.record.task_states]


def test_an_attempt_that_was_interrupted_does_not_count_and_is_tried_again_at_once():
    stage = Stage(TaskSpec(max_attempts=2))
    assert stage.start() == [0]
    stage.machine.interrupted(0)
    assert stage.states == ["up_for_retry"]
    assert ("retry", 0) not in stage.machine.out  # it is due at once
    assert stage.start() == [0]
    assert (stage.machine.record.attempts[0], stage.machine.record.counted(0)) == (2, 1)
    stage.end(0, FAILED)
    assert stage.states == ["up_for_retry"]
    stage.machine.retry_due(0)
    assert stage.start() == [0]
    stage.end(0, FAILED)
    assert stage.states == ["failed"]


def test_the_third_loss_in_a_row_is_a_crash_and_an_outcome_in_between_begins_anew():
    stage = Stage(TaskSpec(max_attempts=2))
    for _ in range(2):
        stage.start()
        stage.machine.interrupted(0)
    stage.start()
    stage.end(0, FAILED)
    stage.machine.retry_due(0)
    for _ in range(2):
        stage.start()
        stage.machine.interrupted(0)
        assert stage.states == ["up_for_retry"]
    stage.start()
    stage.machine.interrupted(0)
    assert stage.states == ["crashed"]


@pytest.mark.parametrize("verb", ["stop", "cancel", "kill"])
def test_what_is_interrupted_after_a_request_is_withheld(verb):
    stage = Stage(TaskSpec(max_attempts=3))
    stage.start()
    getattr(stage.machine, verb)()
    stage.machine.interrupted(0)
    assert stage.states == ["cancelled"]
    assert stage.run_state == ("stopped" if verb == "stop" else "cancelled")


def test_nothing_begins_after_a_suspend_and_no_state_changes():
    stage = Stage(TaskSpec(), TaskSpec(), TaskSpec(upstreams=(0,)), max_parallel=1)
    stage.start()
    stage.machine.suspend()
    assert stage.run_state == "running"
    stage.machine.ok(0, "kept")
    assert stage.machine.dispatcher.take(8) is None
    again = restored(stage)
    assert states(again) == ["succeeded", "pending", "pending"]
    assert again.record.results[0] == "kept"
    assert begun(again) == [1]
    again.ok(1, None)
    assert begun(again) == [2]
    again.ok(2, None)
    assert again.record.is_over


def test_a_pausing_run_is_paused_when_it_is_taken_up_and_goes_on_when_resumed():
    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,)))
    stage.start()
    stage.machine.pause()
    again = restored(stage)
    assert again.out == [("run", 3)]  # paused: nothing executes any more
    assert begun(again) == []
    again.resume()
    assert begun(again) == [0]


@pytest.mark.parametrize(("attempts", "state"), [(1, "failed"), (2, "up_for_retry")])
def test_what_was_being_cancelled_for_its_timeout_has_failed(attempts, state):
    stage = Stage(TaskSpec(max_attempts=attempts))
    stage.start()
    stage.machine.attempt_timeout(0)
    assert states(restored(stage)) == [state]


def test_what_was_being_cancelled_by_request_is_cancelled_and_finally_tasks_run_again():
    stage = Stage(TaskSpec(), TaskSpec(finally_=True))
    stage.start()
    stage.machine.cancel()
    again = restored(stage)
    assert states(again) == ["cancelled", "pending"]
    assert begun(again) == [1]
    stage.end(0, CANCELLED)
    assert stage.start() == [1]
    again = restored(stage)
    assert states(again) == ["cancelled", "up_for_retry"]
    assert begun(again) == [1]


def test_instances_that_ended_stay_and_those_that_executed_are_tried_again():
    stage = Stage(TaskSpec(mapped=True), TaskSpec(upstreams=(0,)), answers={0: 3}, max_parallel=2)
    assert stage.start() == [2, 3]
    stage.end(2, SUCCEEDED, value="first")
    again = restored(stage)
    assert states(again) == ["running", "pending", "succeeded", "up_for_retry"]
    assert begun(again) == [3, 4]
    again.ok(3, "second")
    again.ok(4, "third")
    assert again.record.results[0] == ["first", "second", "third"]
    assert begun(again) == [1]


def test_a_back_off_that_was_not_over_is_asked_for_again():
    stage = Stage(TaskSpec(max_attempts=2))
    stage.start()
    stage.end(0, FAILED)
    again = restored(stage)
    assert again.out == [("retry", 0)]
    again.retry_due(0)
    assert begun(again) == [0]


def test_the_facts_of_a_crashed_run_are_those_that_it_has_when_it_is_taken_up():
    stage = Stage(TaskSpec())
    stage.start()
    stage.machine.attempt_timeout(0)  # it is being cancelled when the run crashes
    stage.machine.crash()
    assert facts_of(restored(stage)) == facts_of(stage.machine)

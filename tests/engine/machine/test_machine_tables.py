"""Each row of the run table and of the task table, made to happen once, by name."""

import pytest
from machine_stage import Stage

from scattersphere.engine.machine import StartDecision, TaskSpec
from scattersphere.engine.machine.codes import CANCELLED, CRASHED, FAILED, SUCCEEDED
from scattersphere.model.states import RUN_MOVES, TASK_MOVES, RunState, TaskState, TriggerRule

ONE = TaskSpec()
AGAIN = TaskSpec(max_attempts=2)
AFTER = TaskSpec(upstreams=(0,))
MAPPED = TaskSpec(mapped=True)
THREE = {0: 3}


def executing(*tasks, **job):
    stage = Stage(*tasks, **job)
    stage.start()
    return stage


def pausing(*tasks):
    stage = executing(*tasks)
    stage.machine.pause()
    return stage


def paused(*tasks):
    stage = pausing(*tasks)
    assert stage.machine.checkpoint(0)
    return stage


def stopping(*tasks):
    stage = executing(*tasks)
    stage.machine.stop()
    return stage


def cancelling(*tasks, ask="cancel"):
    stage = executing(*tasks)
    getattr(stage.machine, ask)()
    return stage


def then(stage, act, *args):
    getattr(stage.machine, act)(*args)
    return stage


def ending(stage, kind=SUCCEEDED):
    stage.end(0, kind)
    return stage


def waiting():
    """Return a stage whose only task waits for its second attempt."""
    return ending(executing(AGAIN), FAILED)


def tried_again():
    stage = then(waiting(), "retry_due", 0)
    stage.start()
    return stage


def cut_map(ask="stop"):
    stage = executing(TaskSpec(mapped=True, max_parallel=1), answers=THREE)
    getattr(stage.machine, ask)()
    stage.end(1, SUCCEEDED)
    return stage


def unstarted(*acts):
    stage = Stage(ONE, slot=False)
    for act in acts:
        then(stage, act)
    return stage


R, T = RunState, TaskState

RUN_ROWS = {
    (R.QUEUED, R.RUNNING, "slot"): lambda: Stage(ONE),
    (R.QUEUED, R.PAUSED, "pause"): lambda: unstarted("pause"),
    (R.QUEUED, R.STOPPED, "stop"): lambda: unstarted("stop"),
    (R.QUEUED, R.CANCELLED, "cancel"): lambda: unstarted("cancel"),
    (R.QUEUED, R.CANCELLED, "kill"): lambda: unstarted("kill"),
    (R.RUNNING, R.PAUSING, "pause"): lambda: pausing(ONE),
    (R.RUNNING, R.STOPPING, "stop"): lambda: stopping(ONE),
    (R.RUNNING, R.CANCELLING, "cancel"): lambda: cancelling(ONE),
    (R.RUNNING, R.CANCELLING, "kill"): lambda: cancelling(ONE, ask="kill"),
    (R.RUNNING, R.CANCELLING, "timeout"): lambda: cancelling(ONE, ask="timeout"),
    (R.RUNNING, R.SUCCEEDED, "all ended"): lambda: ending(executing(ONE)),
    (R.RUNNING, R.FAILED, "all ended"): lambda: ending(executing(ONE), FAILED),
    (R.PAUSING, R.PAUSED, "all that executes is held"): lambda: paused(ONE),
    (R.PAUSING, R.PAUSED, "nothing executes"): lambda: then(Stage(ONE), "pause"),
    (R.PAUSING, R.PAUSED, "the last that was not held has ended"): lambda: ending(pausing(ONE, AFTER)),
    (R.PAUSING, R.RUNNING, "resume"): lambda: then(pausing(ONE), "resume"),
    (R.PAUSING, R.STOPPING, "stop"): lambda: then(pausing(ONE), "stop"),
    (R.PAUSING, R.CANCELLING, "cancel"): lambda: then(pausing(ONE), "cancel"),
    (R.PAUSING, R.CANCELLING, "kill"): lambda: then(pausing(ONE), "kill"),
    (R.PAUSING, R.CANCELLING, "timeout"): lambda: then(pausing(ONE), "timeout"),
    (R.PAUSING, R.SUCCEEDED, "all ended"): lambda: ending(pausing(ONE)),
    (R.PAUSING, R.FAILED, "all ended"): lambda: ending(pausing(ONE), FAILED),
    (R.PAUSED, R.RUNNING, "resume"): lambda: then(paused(ONE), "resume"),
    (R.PAUSED, R.QUEUED, "resume, never started"): lambda: unstarted("pause", "resume"),
    (R.PAUSED, R.STOPPED, "stop, never started"): lambda: unstarted("pause", "stop"),
    (R.PAUSED, R.CANCELLED, "cancel, never started"): lambda: unstarted("pause", "cancel"),
    (R.PAUSED, R.CANCELLED, "kill, never started"): lambda: unstarted("pause", "kill"),
    (R.PAUSED, R.STOPPING, "stop"): lambda: then(paused(ONE), "stop"),
    (R.PAUSED, R.CANCELLING, "cancel"): lambda: then(paused(ONE), "cancel"),
    (R.PAUSED, R.CANCELLING, "kill"): lambda: then(paused(ONE), "kill"),
    (R.PAUSED, R.CANCELLING, "timeout"): lambda: then(paused(ONE), "timeout"),
    (R.PAUSED, R.SUCCEEDED, "a held attempt has ended"): lambda: ending(paused(ONE)),
    (R.PAUSED, R.FAILED, "a held attempt has ended"): lambda: ending(paused(ONE), FAILED),
    (R.STOPPING, R.STOPPED, "something was withheld"): lambda: ending(stopping(ONE, AFTER)),
    (R.STOPPING, R.STOPPED, "a retry was withheld"): lambda: ending(stopping(AGAIN), FAILED),
    (R.STOPPING, R.SUCCEEDED, "all ended, nothing withheld"): lambda: ending(stopping(ONE)),
    (R.STOPPING, R.FAILED, "all ended, nothing withheld"): lambda: ending(stopping(ONE), FAILED),
    (R.STOPPING, R.CANCELLING, "cancel"): lambda: then(stopping(ONE), "cancel"),
    (R.STOPPING, R.CANCELLING, "kill"): lambda: then(stopping(ONE), "kill"),
    (R.STOPPING, R.CANCELLING, "timeout"): lambda: then(stopping(ONE), "timeout"),
    (R.CANCELLING, R.CANCELLED, "all ended"): lambda: ending(cancelling(ONE), CANCELLED),
    (R.CANCELLING, R.CANCELLED, "all ended, with values"): lambda: ending(cancelling(ONE)),
    (R.CANCELLING, R.CANCELLED, "given up"): lambda: then(cancelling(ONE), "grace_over", 0),
    (R.CANCELLING, R.FAILED, "timeout"): lambda: ending(cancelling(ONE, ask="timeout"), CANCELLED),
    (R.CANCELLING, R.FAILED, "timeout, then cancel"): lambda: ending(
        then(cancelling(ONE, ask="timeout"), "cancel"), CANCELLED
    ),
    (R.CANCELLING, R.CANCELLED, "cancel, then timeout"): lambda: ending(
        then(cancelling(ONE), "timeout"), CANCELLED
    ),
    (R.QUEUED, R.CRASHED, "engine failed"): lambda: unstarted("crash"),
    (R.RUNNING, R.CRASHED, "engine failed"): lambda: then(executing(ONE), "crash"),
    (R.PAUSING, R.CRASHED, "engine failed"): lambda: then(pausing(ONE), "crash"),
    (R.PAUSED, R.CRASHED, "engine failed"): lambda: then(paused(ONE), "crash"),
    (R.STOPPING, R.CRASHED, "engine failed"): lambda: then(stopping(ONE), "crash"),
    (R.CANCELLING, R.CRASHED, "engine failed"): lambda: then(cancelling(ONE), "crash"),
}

TASK_ROWS = {
    (T.PENDING, T.RUNNING, "start"): lambda: executing(ONE),
    (T.PENDING, T.SKIPPED, "rule unmet"): lambda: ending(
        executing(ONE, TaskSpec(upstreams=(0,), rule=TriggerRule.ONE_FAILED))
    ),
    (T.PENDING, T.SKIPPED, "run_if false"): lambda: Stage(
        TaskSpec(conditional=True), answers={0: StartDecision.SKIP}
    ),
    (T.PENDING, T.UPSTREAM_FAILED, "rule unmet"): lambda: ending(executing(ONE, AFTER), FAILED),
    (T.PENDING, T.CANCELLED, "withheld"): lambda: stopping(ONE, AFTER),
    (T.PENDING, T.SUCCEEDED, "map over an empty list"): lambda: Stage(MAPPED, answers={0: 0}),
    (T.PENDING, T.SUCCEEDED, "result reused"): lambda: then(Stage(ONE, slot=False), "reuse", 0, "old"),
    (T.PENDING, T.FAILED, "map over no list"): lambda: Stage(MAPPED, answers={0: StartDecision.FAIL}),
    (T.PENDING, T.FAILED, "run_if is no bool"): lambda: Stage(
        TaskSpec(conditional=True), answers={0: StartDecision.FAIL}
    ),
    (T.RUNNING, T.SUCCEEDED, "value"): lambda: ending(executing(ONE)),
    (T.RUNNING, T.FAILED, "exception"): lambda: ending(executing(ONE), FAILED),
    (T.RUNNING, T.FAILED, "own CancelledError"): lambda: ending(executing(ONE), CANCELLED),
    (T.RUNNING, T.CRASHED, "process died"): lambda: ending(executing(ONE), CRASHED),
    (T.RUNNING, T.UP_FOR_RETRY, "failed with attempts left"): waiting,
    (T.RUNNING, T.UP_FOR_RETRY, "crashed with attempts left"): lambda: ending(executing(AGAIN), CRASHED),
    (T.RUNNING, T.CANCELLING, "cancel"): lambda: cancelling(ONE),
    (T.RUNNING, T.CANCELLING, "timeout"): lambda: then(executing(ONE), "attempt_timeout", 0),
    (T.RUNNING, T.CANCELLED, "a map cut short"): cut_map,
    (T.CANCELLING, T.CANCELLED, "a map cut short by a cancel"): lambda: cut_map("cancel"),
    (T.CANCELLING, T.SUCCEEDED, "value"): lambda: ending(cancelling(ONE)),
    (T.CANCELLING, T.CANCELLED, "CancelledError, cause cancel"): lambda: ending(cancelling(ONE), CANCELLED),
    (T.CANCELLING, T.FAILED, "CancelledError, cause timeout"): lambda: ending(
        then(executing(ONE), "attempt_timeout", 0), CANCELLED
    ),
    (T.CANCELLING, T.UP_FOR_RETRY, "CancelledError, cause timeout, attempts left"): lambda: ending(
        then(executing(AGAIN), "attempt_timeout", 0), CANCELLED
    ),
    (T.CANCELLING, T.FAILED, "other exception"): lambda: ending(cancelling(AGAIN), FAILED),
    (T.CANCELLING, T.CRASHED, "process died"): lambda: ending(cancelling(AGAIN), CRASHED),
    (T.CANCELLING, T.CANCELLED, "its process died because we killed it"): lambda: ending(
        cancelling(ONE, ask="kill"), CRASHED
    ),
    (T.CANCELLING, T.CANCELLED, "grace over, cause cancel"): lambda: then(cancelling(ONE), "grace_over", 0),
    (T.CANCELLING, T.FAILED, "grace over, cause timeout"): lambda: then(
        then(executing(AGAIN), "attempt_timeout", 0), "grace_over", 0
    ),
    (T.UP_FOR_RETRY, T.RUNNING, "due and a place"): tried_again,
    (T.UP_FOR_RETRY, T.CANCELLED, "withheld"): lambda: then(waiting(), "stop"),
    (T.PENDING, T.CRASHED, "run crashed"): lambda: then(Stage(ONE), "crash"),
    (T.RUNNING, T.CRASHED, "run crashed"): lambda: then(executing(ONE), "crash"),
    (T.CANCELLING, T.CRASHED, "run crashed"): lambda: then(cancelling(ONE), "crash"),
    (T.UP_FOR_RETRY, T.CRASHED, "run crashed"): lambda: then(waiting(), "crash"),
}


def label(row):
    return f"{row[0]} to {row[1]}: {row[2]}"


@pytest.mark.parametrize("row", RUN_ROWS, ids=label)
def test_run_row(row):
    stage = RUN_ROWS[row]()
    assert stage.moves[0][-1] == row[:2]
    assert stage.run_state == row[1]


@pytest.mark.parametrize("row", TASK_ROWS, ids=label)
def test_task_row(row):
    stage = TASK_ROWS[row]()
    assert row[:2] in stage.moves[1]


def test_every_row_of_the_run_table_has_a_test():
    assert {row[:2] for row in RUN_ROWS} == {(move.source, move.target) for move in RUN_MOVES}


def test_every_row_of_the_task_table_has_a_test():
    assert {row[:2] for row in TASK_ROWS} == {(move.source, move.target) for move in TASK_MOVES}


def test_a_row_says_which_task_made_the_move_in_the_last_scenarios():
    assert cut_map().states == ["cancelled", "succeeded"]
    assert cut_map("cancel").states == ["cancelled", "succeeded"]
    assert ending(cancelling(ONE, ask="kill"), CRASHED).states == ["cancelled"]

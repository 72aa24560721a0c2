"""What a person may do with a run: pause, resume, stop, cancel, kill; and attempts that refuse."""

import pytest
from machine_stage import Stage

from scattersphere.engine.machine import StartDecision, TaskSpec
from scattersphere.engine.machine.codes import CANCELLED, CRASHED, FAILED, SUCCEEDED
from scattersphere.errors import RunStateError

ONE = TaskSpec()
AFTER = TaskSpec(upstreams=(0,))


def executing(*tasks, **job):
    stage = Stage(*tasks, **job)
    stage.start()
    stage.machine.out.clear()
    return stage


# ---- pause


def test_nothing_starts_between_pause_and_resume():
    stage = Stage(ONE, ONE, limit=1)
    stage.start()
    stage.machine.pause()
    stage.end(0, SUCCEEDED)
    assert stage.run_state == "paused"
    assert stage.start() == []
    stage.machine.resume()
    assert stage.start() == [1]


def test_a_back_off_runs_on_while_paused_but_the_attempt_waits():
    stage = executing(TaskSpec(max_attempts=2))
    stage.machine.pause()
    stage.end(0, FAILED)
    stage.machine.retry_due(0)
    assert stage.start() == []
    stage.machine.resume()
    assert stage.start() == [0]


def test_held_attempts_keep_their_places_and_resume_releases_them():
    stage = executing(ONE, limit=1)
    stage.machine.pause()
    assert stage.machine.checkpoint(0)
    assert stage.dispatcher.free == 0
    stage.machine.out.clear()
    stage.machine.resume()
    assert stage.machine.out == [("run", 1), ("release", 0)]


def test_a_checkpoint_holds_nothing_unless_the_run_is_paused():
    assert not executing(ONE).machine.checkpoint(0)


def test_a_cancelled_attempt_is_not_held():
    stage = executing(ONE)
    stage.machine.attempt_timeout(0)
    stage.machine.pause()
    assert not stage.machine.checkpoint(0)
    assert stage.run_state == "pausing"


def test_the_time_of_a_held_attempt_stands_still():
    stage = executing(ONE)
    stage.machine.pause()
    stage.machine.checkpoint(0)
    stage.machine.attempt_timeout(0)
    assert stage.states == ["running"]


@pytest.mark.parametrize("ask", ["stop", "cancel", "kill"])
def test_held_attempts_are_released_by(ask):
    stage = executing(ONE)
    stage.machine.pause()
    stage.machine.checkpoint(0)
    stage.machine.out.clear()
    getattr(stage.machine, ask)()
    assert ("release", 0) in stage.machine.out


# ---- stop, cancel, kill


def test_stop_lets_executing_attempts_finish_without_retries():
    stage = executing(TaskSpec(max_attempts=3), AFTER)
    stage.machine.stop()
    assert stage.states == ["running", "cancelled"]
    assert [command for command in stage.machine.out if command[0] != "run"] == []
    stage.end(0, FAILED)
    assert stage.run_state == "stopped"


def test_cancel_asks_each_attempt_once():
    stage = executing(ONE, ONE)
    stage.machine.attempt_timeout(0)
    stage.machine.out.clear()
    stage.machine.cancel()
    stage.machine.cancel()
    assert stage.machine.out == [("run", 5), ("cancel", 1)]


def test_cancel_beats_retry():
    stage = executing(TaskSpec(max_attempts=3))
    stage.machine.cancel()
    stage.end(0, FAILED)
    assert stage.states == ["failed"]


def test_a_finished_outcome_beats_cancel():
    stage = executing(ONE)
    stage.machine.cancel()
    stage.end(0, SUCCEEDED, value=5)
    assert stage.states == ["succeeded"]
    assert stage.machine.record.results == [5]


def test_kill_reaches_attempts_that_are_cancelling():
    stage = executing(ONE)
    stage.machine.cancel()
    stage.machine.out.clear()
    stage.machine.kill()
    stage.machine.kill()
    assert stage.machine.out == [("kill", 0)]


def test_an_attempt_is_killed_once_though_its_time_is_over_before_the_sweep_comes_to_it():
    stage = executing(*[ONE] * 5, at_once=1)
    stage.machine.kill()
    stage.machine.attempt_timeout(4)
    while stage.machine.work(1):
        pass
    kills = [command for command in stage.machine.out if command[0] == "kill"]
    assert sorted(kills) == [("kill", unit) for unit in range(5)]


def test_escalation_only_goes_up():
    stage = executing(ONE)
    stage.machine.kill("enough")
    stage.machine.cancel("too late")
    stage.machine.stop("much too late")
    assert stage.run_state == "cancelling"
    assert stage.machine.record.causes == ["enough"]


def test_all_causes_are_kept_in_their_order_each_once():
    stage = executing(ONE)
    for _ in range(2):
        stage.machine.stop("lunch")
    stage.machine.timeout()
    for _ in range(2):
        stage.machine.cancel("now")
    for _ in range(2):
        stage.machine.kill()
    assert stage.machine.record.causes == ["lunch", "timeout", "now", "kill"]


@pytest.mark.parametrize("ask", ["pause", "resume"])
@pytest.mark.parametrize(("before", "state"), [("stop", "stopping"), ("cancel", "cancelling")])
def test_pause_and_resume_are_refused_while(before, state, ask):
    stage = executing(ONE)
    getattr(stage.machine, before)()
    with pytest.raises(RunStateError, match=f"run 0 is {state}; it cannot be {ask.rstrip('e')}ed"):
        getattr(stage.machine, ask)()


@pytest.mark.parametrize("ask", ["pause", "resume", "stop", "cancel", "kill", "slot"])
def test_any_request_on_an_ended_run_is_refused(ask):
    stage = executing(ONE)
    stage.end(0, SUCCEEDED)
    with pytest.raises(RunStateError, match="run 0 is succeeded"):
        getattr(stage.machine, ask)()


@pytest.mark.parametrize("signal", ["timeout", "crash", "finally_timeout"])
def test_late_signals_of_our_own_change_nothing_on_an_ended_run(signal):
    stage = executing(ONE)
    stage.end(0, SUCCEEDED)
    getattr(stage.machine, signal)()
    assert stage.run_state == "succeeded"


def test_repeats_of_what_is_under_way_do_nothing():
    stage = executing(ONE)
    stage.machine.resume()
    stage.machine.pause()
    stage.machine.pause()
    stage.machine.resume()
    stage.machine.stop()
    stage.machine.stop()
    assert [command[1] for command in stage.machine.out] == [2, 1, 4]


def test_a_timer_of_a_run_that_never_started_does_nothing():
    stage = Stage(ONE, slot=False)
    stage.machine.timeout()
    assert stage.run_state == "queued"
    assert stage.machine.record.causes == []


def test_a_stopped_run_that_never_started_runs_no_finally_task():
    stage = Stage(ONE, TaskSpec(finally_=True), slot=False)
    stage.machine.stop()
    assert stage.states == ["cancelled", "cancelled"]
    assert stage.run_state == "stopped"


def test_a_result_cannot_be_reused_once_the_run_has_started():
    with pytest.raises(RunStateError, match="task 0 has begun"):
        executing(ONE).machine.reuse(0, 1)


# ---- refusers


def test_a_refuser_is_stuck_keeps_pool_and_server_and_frees_run_and_task():
    stage = executing(
        TaskSpec(pools=("db",)), TaskSpec(finally_=True), pools={"db": 1}, limit=2, max_parallel=1
    )
    stage.machine.cancel()
    stage.machine.grace_over(0)
    assert stage.states == ["cancelled", "pending"]
    assert stage.machine.record.stuck == {0}
    assert stage.dispatcher.pools["db"].free == 0
    assert stage.dispatcher.free == 1
    assert stage.start() == [0, 1]
    stage.end(1, SUCCEEDED)
    assert stage.run_state == "cancelled"
    stage.end(0, SUCCEEDED, value="late")
    assert stage.dispatcher.pools["db"].free == 1
    assert stage.dispatcher.free == 2
    assert stage.machine.record.stuck == set()
    assert stage.machine.record.results[0] is None
    assert stage.states[0] == "cancelled"


def test_no_retry_while_a_refuser_lives():
    stage = executing(TaskSpec(max_attempts=3))
    stage.machine.attempt_timeout(0)
    stage.machine.grace_over(0)
    assert stage.states == ["failed"]


def test_the_grace_of_an_attempt_that_was_not_asked_to_end_means_nothing():
    stage = executing(ONE)
    stage.machine.grace_over(0)
    assert stage.states == ["running"]


def test_a_stuck_attempt_does_not_keep_a_pausing_run_from_being_paused():
    stage = executing(TaskSpec(allow_failure=True), ONE)
    stage.machine.attempt_timeout(0)
    stage.machine.grace_over(0)
    stage.machine.pause()
    assert stage.machine.checkpoint(1)
    assert stage.run_state == "paused"


def test_after_a_compaction_a_refuser_still_gives_its_places_back():
    stage = executing(TaskSpec(pools=("db",)), pools={"db": 1})
    stage.machine.kill()
    stage.machine.grace_over(0)
    journal = list(stage.machine.record.journal)
    stage.machine.compact()
    stage.end(0, CRASHED)
    assert stage.dispatcher.pools["db"].free == 1
    assert list(stage.machine.record.journal) == journal


def test_an_ending_that_is_reported_twice_counts_once():
    stage = executing(ONE, ONE, limit=2)
    stage.end(0, SUCCEEDED)
    stage.end(0, FAILED)
    assert stage.dispatcher.free == 1
    assert stage.states == ["succeeded", "running"]


# ---- crash


def test_a_crash_ends_everything_names_what_executes_and_frees_its_places_in_the_end():
    stage = executing(ONE, AFTER, TaskSpec(mapped=True), limit=3, answers={2: 1})
    stage.machine.crash()
    assert stage.states == ["crashed"] * 4
    assert stage.run_state == "crashed"
    assert stage.machine.out == [("kill", 0), ("kill", 3), ("run", 10)]
    assert stage.machine.record.stuck == {0, 3}
    stage.end(0, SUCCEEDED)
    stage.end(3, CANCELLED)
    assert stage.dispatcher.free == 3


def test_a_crash_kills_nothing_twice():
    stage = executing(ONE)
    stage.machine.kill()
    stage.machine.crash()
    assert [command for command in stage.machine.out if command[0] == "kill"] == [("kill", 0)]


@pytest.mark.parametrize("ask", ["stop", "cancel", "crash"])
def test_a_request_made_while_values_are_read_is_carried_out(ask):
    class Answers(dict):
        def __getitem__(self, task):
            getattr(stage.machine, ask)()
            return StartDecision.GO

    stage = Stage(ONE, TaskSpec(upstreams=(0,), conditional=True), ONE, answers=Answers(), limit=2)
    stage.start()
    stage.end(0, SUCCEEDED)
    assert stage.start() == [2]
    assert stage.states[1] == ("crashed" if ask == "crash" else "cancelled")
    stage.end(2, SUCCEEDED)
    assert stage.run_state == {"stop": "stopped", "cancel": "cancelled", "crash": "crashed"}[ask]

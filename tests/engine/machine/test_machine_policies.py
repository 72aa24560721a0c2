"""What a definition may ask of a run: finally, maps, retries, allow_failure, fail_fast."""

import pytest
from machine_stage import Stage

from scattersphere.engine.machine import StartDecision, TaskSpec
from scattersphere.engine.machine.codes import CANCELLED, CRASHED, FAILED, SUCCEEDED
from scattersphere.engine.machine.graph import DROPPED
from scattersphere.model.states import TaskState, TriggerRule

# ---- finally


def test_a_finally_task_starts_after_all_normal_tasks_whatever_became_of_them():
    stage = Stage(TaskSpec(finally_=True), TaskSpec(), TaskSpec())
    assert stage.start() == [1, 2]
    stage.end(1, FAILED)
    assert stage.start() == [2]
    stage.end(2, SUCCEEDED)
    assert stage.start() == [0]
    stage.end(0, SUCCEEDED)
    assert stage.run_state == "failed"


def test_a_finally_task_that_fails_makes_the_run_failed():
    stage = Stage(TaskSpec(), TaskSpec(finally_=True))
    stage.do(SUCCEEDED)
    stage.do(FAILED)
    assert stage.run_state == "failed"


def test_finally_tasks_may_depend_on_each_other_and_obey_their_rules():
    stage = Stage(
        TaskSpec(),
        TaskSpec(upstreams=(0,), finally_=True, rule=TriggerRule.ONE_FAILED),
        TaskSpec(upstreams=(1,), finally_=True, rule=TriggerRule.ALL_DONE),
    )
    stage.do(SUCCEEDED)
    assert stage.states[1] == "skipped"
    assert stage.start() == [2]


def test_a_job_of_finally_tasks_only_runs_them():
    assert Stage(TaskSpec(finally_=True)).start() == [0]


def test_a_job_without_tasks_succeeds_at_once():
    assert Stage().run_state == "succeeded"


@pytest.mark.parametrize("ask", ["stop", "cancel", "timeout"])
def test_finally_tasks_run_with_their_retries_after(ask):
    stage = Stage(TaskSpec(), TaskSpec(finally_=True, max_attempts=2))
    stage.start()
    getattr(stage.machine, ask)()
    stage.end(0, CANCELLED)
    assert ("retry", 1) in stage.do(FAILED)
    stage.machine.retry_due(1)
    assert stage.start() == [1]


def test_no_finally_task_runs_after_a_kill():
    stage = Stage(TaskSpec(), TaskSpec(finally_=True))
    stage.start()
    stage.machine.kill()
    stage.end(0, CRASHED)
    assert stage.states == ["cancelled", "cancelled"]
    assert stage.run_state == "cancelled"


def test_a_finally_task_that_waits_for_a_place_does_not_start_after_a_kill():
    stage = Stage(TaskSpec(finally_=True), TaskSpec(finally_=True), limit=1)
    stage.start()
    stage.machine.kill()
    stage.end(0, FAILED)
    assert stage.start() == []
    assert stage.states == ["failed", "cancelled"]


def test_a_finally_task_that_executes_goes_on_through_a_cancel_but_not_through_a_kill():
    stage = Stage(TaskSpec(finally_=True))
    stage.start()
    stage.machine.cancel()
    assert stage.states == ["running"]
    stage.machine.kill()
    assert ("kill", 0) in stage.machine.out


def test_the_time_of_finally_tasks_ends_those_that_execute_and_withholds_the_others():
    stage = Stage(
        TaskSpec(),
        TaskSpec(finally_=True, max_attempts=2),
        TaskSpec(upstreams=(1,), finally_=True, rule=TriggerRule.ALL_DONE),
    )
    stage.start()
    stage.machine.finally_timeout()  # without effect: nothing was cancelled
    stage.machine.cancel()
    stage.end(0, CANCELLED)
    assert stage.start() == [1]
    stage.machine.finally_timeout()
    assert stage.machine.out == [("cancel", 1)]
    assert stage.states[1:] == ["cancelling", "cancelled"]
    stage.end(1, CANCELLED)
    assert stage.states[1] == "failed"
    assert stage.run_state == "cancelled"


# ---- map


def test_instances_begin_lazily_in_order_and_the_result_is_the_list_in_order():
    stage = Stage(TaskSpec(mapped=True, max_parallel=2), answers={0: 3})
    assert stage.start() == [1, 2]
    stage.end(2, SUCCEEDED, value="b")
    assert stage.start() == [1, 3]
    stage.end(3, SUCCEEDED, value="c")
    stage.end(1, SUCCEEDED, value="a")
    assert stage.machine.record.results[0] == ["a", "b", "c"]
    assert [stage.machine.record.task_of(unit) for unit in range(4)] == [0, 0, 0, 0]
    assert [stage.machine.record.index_of(unit) for unit in range(4)] == [None, 0, 1, 2]
    assert stage.machine.record.width_of(0) == 3


def test_a_failed_instance_lets_its_siblings_finish_and_fails_the_task():
    stage = Stage(TaskSpec(mapped=True), TaskSpec(upstreams=(0,)), answers={0: 2})
    stage.start()
    stage.end(2, FAILED)
    assert stage.states[0] == "running"
    stage.end(3, SUCCEEDED)
    assert stage.states[:2] == ["failed", "upstream_failed"]


def test_an_instance_is_retried_by_itself():
    stage = Stage(TaskSpec(mapped=True, max_attempts=2), answers={0: 2})
    stage.start()
    stage.end(1, FAILED)
    stage.machine.retry_due(1)
    assert stage.start() == [1, 2]
    assert stage.machine.record.attempts == [0, 2, 1]


def test_a_map_over_nothing_succeeds_with_an_empty_list():
    stage = Stage(TaskSpec(mapped=True), answers={0: 0})
    assert stage.run_state == "succeeded"
    assert stage.machine.record.results == [[]]


def test_a_mapped_task_does_not_run_before_its_first_instance_does():
    stage = Stage(TaskSpec(mapped=True), answers={0: 2}, slot=False)
    stage.machine.slot()
    assert stage.states == ["pending"]
    stage.machine.pause()
    assert stage.start() == []
    assert stage.states == ["pending"]


def test_after_a_stop_no_further_instance_begins():
    stage = Stage(TaskSpec(mapped=True, max_parallel=1), answers={0: 3})
    stage.start()
    stage.machine.stop()
    stage.end(1, SUCCEEDED)
    assert stage.states == ["cancelled", "succeeded"]
    assert stage.run_state == "stopped"


def test_a_map_whose_instances_all_had_begun_is_not_cut_short_by_a_stop():
    stage = Stage(TaskSpec(mapped=True), answers={0: 2})
    stage.start()
    stage.machine.stop()
    stage.do(SUCCEEDED, SUCCEEDED)
    assert stage.states[0] == "succeeded"
    assert stage.run_state == "succeeded"


def test_a_cancelled_instance_makes_its_task_cancelled_though_all_had_begun():
    stage = Stage(TaskSpec(mapped=True), answers={0: 2})
    stage.start()
    stage.machine.cancel()
    assert stage.states == ["cancelling"] * 3
    stage.end(1, SUCCEEDED)
    stage.end(2, CANCELLED)
    assert stage.states == ["cancelled", "succeeded", "cancelled"]


@pytest.mark.parametrize("ask", ["stop", "cancel"])
def test_a_map_that_waits_for_a_place_is_cut_short_at_once_by(ask):
    stage = Stage(
        TaskSpec(mapped=True, pools=("db",)), TaskSpec(pools=("db",)),
        answers={0: 2}, pools={"db": 1},
    )  # fmt: skip
    stage.start()
    stage.end(2, SUCCEEDED)
    assert stage.start() == [1]
    getattr(stage.machine, ask)()
    assert stage.states[0] == "cancelled"
    assert (TaskState.RUNNING, TaskState.CANCELLING) not in stage.moves[1][:5]


# ---- run_if


def test_run_if_is_asked_when_the_rule_is_met_and_not_before():
    asked = []

    class Answers(dict):
        def __getitem__(self, task):
            asked.append(task)
            return StartDecision.GO

    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,), conditional=True), answers=Answers())
    assert asked == []
    stage.do(SUCCEEDED)
    assert asked == [1]
    assert stage.start() == [1]


def test_what_depends_on_a_skipped_task_is_skipped():
    stage = Stage(TaskSpec(conditional=True), TaskSpec(upstreams=(0,)), answers={0: StartDecision.SKIP})
    assert stage.states == ["skipped", "skipped"]
    assert stage.run_state == "succeeded"


# ---- retry


def test_attempts_never_exceed_max_attempts():
    stage = Stage(TaskSpec(max_attempts=2))
    stage.do(FAILED)
    stage.machine.retry_due(0)
    stage.do(FAILED)
    assert stage.states == ["failed"]
    assert stage.machine.record.attempts == [2]


def test_what_is_not_retryable_fails_at_once():
    stage = Stage(TaskSpec(max_attempts=5))
    stage.start()
    stage.end(0, FAILED, retryable=False)
    assert stage.states == ["failed"]


def test_a_second_due_of_the_same_back_off_changes_nothing():
    stage = Stage(TaskSpec(max_attempts=3))
    stage.do(FAILED)
    stage.machine.retry_due(0)
    stage.machine.retry_due(0)
    assert stage.start() == [0]
    stage.end(0, SUCCEEDED)
    stage.machine.retry_due(0)
    assert stage.run_state == "succeeded"


def test_a_retry_gives_its_places_back_while_it_waits():
    stage = Stage(TaskSpec(max_attempts=2), TaskSpec(), limit=1)
    assert stage.start() == [0]
    stage.end(0, FAILED)
    assert stage.start() == [1]


# ---- fail_fast


def test_fail_fast_starts_nothing_new_lets_what_executes_finish_and_fails():
    stage = Stage(
        TaskSpec(), TaskSpec(), TaskSpec(upstreams=(1,)), TaskSpec(upstreams=(0,)),
        TaskSpec(finally_=True), fail_fast=True,
    )  # fmt: skip
    stage.start()
    stage.end(0, FAILED)
    assert stage.states == ["failed", "running", "cancelled", "upstream_failed", "pending"]
    assert stage.run_state == "running"
    assert stage.machine.record.causes == ["fail_fast"]
    stage.end(1, SUCCEEDED)
    assert stage.start() == [4]
    stage.end(4, SUCCEEDED)
    assert stage.run_state == "failed"


def test_an_allowed_failure_does_not_trip_fail_fast():
    stage = Stage(TaskSpec(allow_failure=True), TaskSpec(), fail_fast=True, limit=1)
    stage.do(FAILED)
    assert stage.start() == [1]


def test_fail_fast_is_named_once_and_only_for_normal_tasks():
    stage = Stage(TaskSpec(), TaskSpec(), TaskSpec(finally_=True), fail_fast=True)
    stage.do(FAILED, FAILED)
    stage.do(FAILED)
    assert stage.machine.record.causes == ["fail_fast"]
    stage = Stage(TaskSpec(), TaskSpec(finally_=True), fail_fast=True)
    stage.do(SUCCEEDED)
    stage.do(FAILED)
    assert stage.machine.record.causes == []


# ---- reuse


def test_reused_results_let_a_rerun_go_on_where_it_failed():
    stage = Stage(
        TaskSpec(), TaskSpec(upstreams=(0,)), TaskSpec(upstreams=(1,)),
        TaskSpec(upstreams=(0,), rule=TriggerRule.ONE_SUCCESS), slot=False,
    )  # fmt: skip
    stage.machine.reuse(0, "old")
    stage.machine.slot()
    assert stage.start() == [1, 3]
    assert stage.machine.record.results[0] == "old"


def test_a_reused_task_is_not_begun_when_what_it_waits_for_is_executed_again():
    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,)), TaskSpec(upstreams=(1,)), slot=False)
    stage.machine.reuse(1, "old")
    stage.machine.slot()
    assert stage.start() == [0, 2]
    stage.end(0, SUCCEEDED, value="new")
    assert stage.start() == [2]
    stage.end(2, SUCCEEDED)
    assert stage.run_state == "succeeded"
    assert list(stage.machine.record.attempts) == [1, 0, 1]


def test_a_run_whose_results_were_all_reused_succeeds_at_once():
    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,)), slot=False)
    stage.machine.reuse(0, 1)
    stage.machine.reuse(1, 2)
    stage.machine.slot()
    assert stage.run_state == "succeeded"


def test_values_are_never_looked_at():
    class Hostile:
        def _refuse(self, *args):
            raise AssertionError("the machine looked at a value")

        __bool__ = __len__ = __eq__ = __hash__ = __iter__ = _refuse

    stage = Stage(
        TaskSpec(mapped=True), TaskSpec(upstreams=(0,)), TaskSpec(finally_=True),
        answers={0: 1},
    )  # fmt: skip
    for _ in range(3):
        (unit,) = stage.start()
        stage.end(unit, SUCCEEDED, value=Hostile())
    assert stage.run_state == "succeeded"


@pytest.mark.parametrize("kinds", [(SUCCEEDED, SUCCEEDED), (SUCCEEDED, FAILED), (FAILED, SUCCEEDED)])
def test_a_result_that_is_not_kept_is_dropped_when_its_last_reader_has_ended(kinds):
    stage = Stage(TaskSpec(keeps_result=False), TaskSpec(upstreams=(0,)), TaskSpec(upstreams=(0,)))
    stage.start()
    stage.end(0, SUCCEEDED, value="big")
    stage.start()
    stage.end(2, kinds[0])
    assert stage.machine.record.results[0] == "big"
    stage.end(1, kinds[1])
    assert stage.machine.record.results[0] is DROPPED


def test_a_reader_that_may_be_tried_again_still_finds_the_result():
    stage = Stage(TaskSpec(keeps_result=False), TaskSpec(upstreams=(0,), max_attempts=2))
    stage.start()
    stage.end(0, SUCCEEDED, value="big")
    stage.start()
    stage.end(1, FAILED)
    assert stage.machine.record.results[0] == "big"
    stage.machine.retry_due(1)
    stage.start()
    stage.end(1, FAILED)
    assert stage.machine.record.results[0] is DROPPED


def test_the_results_of_the_instances_go_with_the_list():
    graphs = [TaskSpec(mapped=True, keeps_result=False), TaskSpec(upstreams=(0,))]
    stage = Stage(*graphs, answers={0: 2})
    for unit in stage.start():
        stage.end(unit, SUCCEEDED, value=unit)
    assert stage.machine.record.results == [[2, 3], None, 2, 3]
    stage.do(SUCCEEDED)
    assert stage.machine.record.results == [DROPPED, None, DROPPED, DROPPED]


def test_a_crash_drops_what_nobody_reads_any_more():
    stage = Stage(TaskSpec(keeps_result=False), TaskSpec(upstreams=(0,)))
    stage.start()
    stage.end(0, SUCCEEDED, value="big")
    stage.machine.crash()
    assert stage.machine.record.results[0] is DROPPED


def test_a_reused_result_that_is_not_kept_is_dropped_after_its_readers_too():
    stage = Stage(TaskSpec(keeps_result=False), TaskSpec(upstreams=(0,)), slot=False)
    stage.machine.reuse(0, "big")
    stage.machine.slot()
    assert stage.machine.record.results[0] == "big"
    stage.do(SUCCEEDED)
    assert stage.machine.record.results[0] is DROPPED

"""Trigger rules: the whole table, over all endings of two upstream tasks, in both orders."""

import itertools

import pytest
from machine_stage import Stage

from scattersphere.engine.machine import StartDecision, TaskSpec
from scattersphere.engine.machine.codes import CRASHED, FAILED, SUCCEEDED
from scattersphere.model.states import TriggerRule

S, F, K = "succeeded", "failed", "skipped"

# Both upstream tasks have ended, in this order; what the task below does at each ending.
RULES = {
    (TriggerRule.ALL_SUCCESS, S, S): ("pending", "running"),
    (TriggerRule.ALL_SUCCESS, S, F): ("pending", "upstream_failed"),
    (TriggerRule.ALL_SUCCESS, F, S): ("upstream_failed", "upstream_failed"),
    (TriggerRule.ALL_SUCCESS, F, F): ("upstream_failed", "upstream_failed"),
    (TriggerRule.ALL_SUCCESS, S, K): ("pending", "skipped"),
    (TriggerRule.ALL_SUCCESS, K, S): ("pending", "skipped"),
    (TriggerRule.ALL_SUCCESS, K, F): ("pending", "upstream_failed"),
    (TriggerRule.ALL_SUCCESS, F, K): ("upstream_failed", "upstream_failed"),
    (TriggerRule.ALL_SUCCESS, K, K): ("pending", "skipped"),
    (TriggerRule.NONE_FAILED, S, S): ("pending", "running"),
    (TriggerRule.NONE_FAILED, S, F): ("pending", "upstream_failed"),
    (TriggerRule.NONE_FAILED, F, S): ("upstream_failed", "upstream_failed"),
    (TriggerRule.NONE_FAILED, F, F): ("upstream_failed", "upstream_failed"),
    (TriggerRule.NONE_FAILED, S, K): ("pending", "running"),
    (TriggerRule.NONE_FAILED, K, S): ("pending", "running"),
    (TriggerRule.NONE_FAILED, K, F): ("pending", "upstream_failed"),
    (TriggerRule.NONE_FAILED, F, K): ("upstream_failed", "upstream_failed"),
    (TriggerRule.NONE_FAILED, K, K): ("pending", "running"),
    **{
        (TriggerRule.ALL_DONE, *two): ("pending", "running") for two in itertools.product((S, F, K), repeat=2)
    },
    (TriggerRule.ALL_FAILED, S, S): ("skipped", "skipped"),
    (TriggerRule.ALL_FAILED, S, F): ("skipped", "skipped"),
    (TriggerRule.ALL_FAILED, F, S): ("pending", "skipped"),
    (TriggerRule.ALL_FAILED, F, F): ("pending", "running"),
    (TriggerRule.ALL_FAILED, S, K): ("skipped", "skipped"),
    (TriggerRule.ALL_FAILED, K, S): ("skipped", "skipped"),
    (TriggerRule.ALL_FAILED, K, F): ("skipped", "skipped"),
    (TriggerRule.ALL_FAILED, F, K): ("pending", "skipped"),
    (TriggerRule.ALL_FAILED, K, K): ("skipped", "skipped"),
    (TriggerRule.ONE_FAILED, S, S): ("pending", "skipped"),
    (TriggerRule.ONE_FAILED, S, F): ("pending", "running"),
    (TriggerRule.ONE_FAILED, F, S): ("running", "running"),
    (TriggerRule.ONE_FAILED, F, F): ("running", "running"),
    (TriggerRule.ONE_FAILED, S, K): ("pending", "skipped"),
    (TriggerRule.ONE_FAILED, K, S): ("pending", "skipped"),
    (TriggerRule.ONE_FAILED, K, F): ("pending", "running"),
    (TriggerRule.ONE_FAILED, F, K): ("running", "running"),
    (TriggerRule.ONE_FAILED, K, K): ("pending", "skipped"),
    (TriggerRule.ONE_SUCCESS, S, S): ("running", "running"),
    (TriggerRule.ONE_SUCCESS, S, F): ("running", "running"),
    (TriggerRule.ONE_SUCCESS, F, S): ("pending", "running"),
    (TriggerRule.ONE_SUCCESS, F, F): ("pending", "upstream_failed"),
    (TriggerRule.ONE_SUCCESS, S, K): ("running", "running"),
    (TriggerRule.ONE_SUCCESS, K, S): ("pending", "running"),
    (TriggerRule.ONE_SUCCESS, K, F): ("pending", "upstream_failed"),
    (TriggerRule.ONE_SUCCESS, F, K): ("pending", "upstream_failed"),
    (TriggerRule.ONE_SUCCESS, K, K): ("pending", "skipped"),
}


class Gated:
    """Tasks 0 and 1 open tasks 2 and 3, which end as asked, in the order asked; task 4 has the rule."""

    def __init__(self, rule, kinds):
        opened = [TaskSpec(upstreams=(index,), conditional=kind == K) for index, kind in enumerate(kinds)]
        self.stage = Stage(
            TaskSpec(),
            TaskSpec(),
            *opened,
            TaskSpec(upstreams=(2, 3), rule=rule),
            answers={2: StartDecision.SKIP, 3: StartDecision.SKIP},
        )
        self.kinds = kinds

    def play(self):
        for index, kind in enumerate(self.kinds):
            self.stage.start()
            self.stage.end(index, SUCCEEDED)
            self.stage.start()
            if kind != K:
                self.stage.end(2 + index, {S: SUCCEEDED, F: FAILED}[kind])
            self.stage.start()
            yield self.stage.states[4]


@pytest.mark.parametrize("case", RULES, ids=" ".join)
def test_trigger_rule(case):
    rule, *kinds = case
    assert tuple(Gated(rule, kinds).play()) == RULES[case]


def test_a_crash_and_upstream_failed_count_as_failures():
    stage = Stage(
        TaskSpec(),
        TaskSpec(upstreams=(0,)),
        TaskSpec(upstreams=(0, 1), rule=TriggerRule.ALL_FAILED),
    )
    stage.do(CRASHED)
    assert stage.states[1] == "upstream_failed"
    assert stage.start() == [2]


def test_a_failure_that_another_task_answers_to_still_fails_the_run():
    stage = Stage(TaskSpec(), TaskSpec(upstreams=(0,), rule=TriggerRule.ONE_FAILED))
    stage.do(FAILED)
    stage.do(SUCCEEDED)
    assert stage.run_state == "failed"


def test_allow_failure_spares_the_run_but_rules_still_see_the_failure():
    stage = Stage(TaskSpec(allow_failure=True), TaskSpec(upstreams=(0,)))
    stage.do(FAILED)
    assert stage.states == ["failed", "upstream_failed"]
    assert stage.run_state == "succeeded"

"""Trigger rules: whether a task starts, given how many of its upstream tasks ended how.

The answer depends on counts only, never on the order of endings, except that a rule may be decided
before all upstream tasks have ended (table of the design, section 5).
"""

from __future__ import annotations

from collections.abc import Callable

from scattersphere.engine.machine.codes import PENDING, RUNNING, SKIPPED, UPSTREAM_FAILED
from scattersphere.model.states import TriggerRule

Decide = Callable[[int, int, int, int], int]
"""(still waited for, succeeded, failed, ended otherwise) -> RUNNING to start, PENDING to wait, or
the terminal state of a task that never starts."""


def _all_success(waited: int, succeeded: int, failed: int, other: int) -> int:
    del succeeded
    if failed:
        return UPSTREAM_FAILED
    if waited:
        return PENDING
    return SKIPPED if other else RUNNING


def _none_failed(waited: int, succeeded: int, failed: int, other: int) -> int:
    del succeeded, other
    if failed:
        return UPSTREAM_FAILED
    return PENDING if waited else RUNNING


def _all_done(waited: int, succeeded: int, failed: int, other: int) -> int:
    del succeeded, failed, other
    return PENDING if waited else RUNNING


def _all_failed(waited: int, succeeded: int, failed: int, other: int) -> int:
    del failed
    if succeeded or other:
        return SKIPPED
    return PENDING if waited else RUNNING


def _one_failed(waited: int, succeeded: int, failed: int, other: int) -> int:
    del succeeded, other
    if failed:
        return RUNNING
    return PENDING if waited else SKIPPED


def _one_success(waited: int, succeeded: int, failed: int, other: int) -> int:
    del other
    if succeeded:
        return RUNNING
    if waited:
        return PENDING
    return UPSTREAM_FAILED if failed else SKIPPED


DECIDE: dict[TriggerRule, Decide] = {
    TriggerRule.ALL_SUCCESS: _all_success,
    TriggerRule.NONE_FAILED: _none_failed,
    TriggerRule.ALL_DONE: _all_done,
    TriggerRule.ALL_FAILED: _all_failed,
    TriggerRule.ONE_FAILED: _one_failed,
    TriggerRule.ONE_SUCCESS: _one_success,
}
"""The table of trigger rules."""

"""A command of the machine that has waited for its slice may have nothing to end any more."""

from types import SimpleNamespace

import pytest

from scattersphere.execution.interruptions import Interruptions
from scattersphere.execution.machine.codes import CANCELLED, CANCELLING, SUCCEEDED, UP_FOR_RETRY


@pytest.mark.parametrize(("state", "withdrawn"), [
    (CANCELLING, {0}), (SUCCEEDED, set()), (CANCELLED, set()), (UP_FOR_RETRY, set()),
])  # fmt: skip
def test_an_attempt_that_has_ended_meanwhile_is_not_withdrawn_so_that_the_next_one_runs(state, withdrawn):
    machine = SimpleNamespace(task_states=bytearray([state]))
    execution = SimpleNamespace(machine=machine, live={}, withdrawn=set())
    Interruptions.end_attempt(SimpleNamespace(_starting=None), execution, 0, kill=False)
    assert execution.withdrawn == withdrawn

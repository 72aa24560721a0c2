"""A command of the machine that has waited for its slice may have nothing to end any more."""

from types import SimpleNamespace

import pytest

from scattersphere.engine.cancellation import Canceller
from scattersphere.engine.machine.codes import CANCELLED, SUCCEEDED, UP_FOR_RETRY


@pytest.mark.parametrize("state", [SUCCEEDED, CANCELLED, UP_FOR_RETRY])
def test_an_attempt_that_has_ended_meanwhile_is_not_asked_to_end_nor_is_the_next_one(state):
    machine = SimpleNamespace(record=SimpleNamespace(task_states=bytearray([state])))
    attempt = SimpleNamespace(cancel_reason=None)
    execution = SimpleNamespace(machine=machine, live={0: attempt})
    canceller = Canceller(SimpleNamespace(), SimpleNamespace(starting=None), SimpleNamespace())
    canceller.end_attempt(execution, 0, kill=False)
    assert attempt.cancel_reason is None

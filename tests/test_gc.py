"""Reading pauses the collector for a while, and leaves it as the host had it."""

from __future__ import annotations

import contextlib
import gc

import pytest

from scattersphere import DefinitionError, JobDefinition
from scattersphere._json import gc_paused


@pytest.mark.parametrize("text", ["[" * 200_000, '{"name": "x", "tasks": {}}' + " " * 200_000])
def test_the_collector_is_on_again_after_a_large_reading_right_or_wrong(text):
    assert gc.isenabled()
    with contextlib.suppress(DefinitionError):
        JobDefinition.loads(text)
    assert gc.isenabled()


def test_a_collector_that_the_host_has_turned_off_stays_off():
    gc.disable()
    try:
        with gc_paused(tasks=10**6):
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with gc_paused(tasks=10**6):
        assert not gc.isenabled()
    assert gc.isenabled()

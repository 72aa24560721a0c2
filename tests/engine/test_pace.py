"""The number of starts in a turn follows what they cost, and not what others cost."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.engine import timers
from scattersphere.engine.timers import (
    LEAST,
    MOST_IN_A_SLOW_LOOP,
    SHARE,
    TOO_LONG,
    AdaptiveBatchSize,
)


@pytest.fixture
def turns(monkeypatch):
    """Simulate turns of a loop: the host takes `host` seconds of each, and every start a step of `step` seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timers, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def turns(pace, count, *, host=0.0, step=0.0):
        seen = []
        for _ in range(count):
            pace.adapt()
            starts = pace.size
            seen.append(starts)
            pace.left_at = clock.now
            clock.now += host + starts * step
        return seen

    turns.clock = clock
    return turns


def test_as_many_as_may_be_are_started_while_the_loop_comes_back_soon(turns):
    assert set(turns(AdaptiveBatchSize(32), 20, step=50e-6)) == {32}


def test_fewer_are_started_when_their_steps_hold_the_loop_and_more_when_they_do_not(turns):
    pace = AdaptiveBatchSize(256)
    assert turns(pace, 5, step=1e-3) == [256, 128, 64, 32, 16]
    assert max(turns(pace, 50, step=1e-3)) == 2 * LEAST  # it is tried again whether it is us
    assert turns(pace, 8, step=1e-6)[-1] == 256


def test_ten_thousand_starts_do_not_wait_for_a_host_whose_own_turns_are_long(turns):
    seen = turns(AdaptiveBatchSize(32), 60, host=0.02, step=20e-6)
    assert sum(seen) > 10_000


def test_more_than_usual_are_started_only_as_long_as_the_host_is_slow(turns):
    pace = AdaptiveBatchSize(32)
    assert max(turns(pace, 60, host=0.05, step=20e-6)) == MOST_IN_A_SLOW_LOOP
    assert turns(pace, 20, step=20e-6)[-1] == 32


def test_where_fewer_are_allowed_than_the_fewest_they_are_not_made_more(turns):
    assert set(turns(AdaptiveBatchSize(10), 20, step=1e-4)) == {10}
    assert min(turns(AdaptiveBatchSize(10), 20, step=1e-2)) == 10


def test_a_loop_that_had_nothing_to_do_says_nothing_about_the_cost_of_starts(turns):
    pace = AdaptiveBatchSize(256)
    turns.clock.now += 60
    pace.adapt()
    assert pace.size == 256


@given(host=st.floats(0, 0.5), step=st.floats(1e-6, 2e-3))
def test_what_is_started_never_holds_the_loop_for_long_beside_what_the_host_does(host, step):
    clock = SimpleNamespace(now=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        pace = AdaptiveBatchSize(32)
        for turn in range(200):
            pace.adapt()
            starts = pace.size
            if turn > 10:
                # Twice what is allowed, for one turn, is how it is found out what is.
                fewest = host + LEAST * step
                assert starts * step <= max(TOO_LONG * 2, 2 * LEAST * step, 2 * (SHARE * fewest - host))
            pace.left_at = clock.now
            clock.now += host + starts * step

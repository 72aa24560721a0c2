"""Deadlines: nothing early, nothing forgotten, nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from scattersphere.execution.timers import Timers


def test_next_is_the_earliest_of_both_kinds():
    timers = Timers()
    assert timers.next is None
    timers.at(5.0, lambda: None)
    timers.expire("a", 0.0, 3.0)
    assert timers.next == 3.0
    timers.forget("a", 3.0)
    assert timers.next == 5.0


def test_a_cancelled_timer_is_not_called():
    timers = Timers()
    timers.at(1.0, lambda: None).cancel()
    assert timers.next is None
    assert timers.due(2.0) == ([], [])


def test_forgetting_tells_the_deadline_and_a_second_time_nothing():
    timers = Timers()
    timers.expire("a", 1.0, 2.0)
    assert timers.forget("a", 2.0) == 3.0
    assert timers.forget("a", 2.0) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from([1.0, 2.5, 7.0]), st.booleans()), max_size=40))
def test_what_is_due_comes_exactly_once(entries):
    timers, expected = Timers(), {}
    for key, (at, duration, dropped) in enumerate(sorted(entries)):
        timers.expire(key, at, duration)
        if dropped:
            timers.forget(key, duration)
        else:
            expected[key] = at + duration
    seen = {}
    for now in range(20):
        for key in timers.due(float(now))[1]:
            assert key not in seen
            seen[key] = now
    assert seen.keys() == expected.keys()
    assert all(seen[key] - 1 < when <= seen[key] for key, when in expected.items())

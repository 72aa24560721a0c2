"""Failures cost time, more each time, and memory that does not grow."""

from scattersphere.commands.limits import FORGET_AFTER, LONGEST_WAIT, SOURCES, AuthBackoff


def test_three_failures_are_free_then_each_doubles_the_wait():
    penalties, now, waits = AuthBackoff(), 0.0, []
    for _ in range(16):
        penalties.failed("a", now)
        waits.append(penalties.blocked("a", now))
        now += waits[-1]
        assert penalties.blocked("a", now) == 0.0
    assert waits[:7] == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == LONGEST_WAIT
    assert penalties.blocked("b", now) == 0.0


def test_a_success_and_a_long_time_clear_a_source():
    penalties = AuthBackoff()
    for _ in range(5):
        penalties.failed("a", 0.0)
    penalties.succeeded("a")
    assert penalties.blocked("a", 0.0) == 0.0
    for _ in range(5):
        penalties.failed("a", 0.0)
    penalties.failed("a", FORGET_AFTER + 1)
    assert penalties.blocked("a", FORGET_AFTER + 1) == 0.0


def test_many_sources_cost_no_memory():
    penalties = AuthBackoff()
    for number in range(SOURCES + 100):
        for _ in range(4):
            penalties.failed(f"s{number}", 0.0)
    assert len(penalties) == SOURCES
    # Those that failed longest ago are forgotten, so that nobody frees himself by failing under other names.
    kept = [penalties.blocked(f"s{number}", 0.0) > 0 for number in range(SOURCES + 100)]
    assert kept == [False] * 100 + [True] * SOURCES

"""When a change is acted on: the pure core of watching, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.errors import ArgumentError
from scattersphere.watching.debounce import Debounce, Step, WatchDelays

DELAYS = WatchDelays(settle=0.2, vanish=1.0, poll=2.0)


def test_what_was_taken_up_is_no_news():
    debounce = Debounce(DELAYS, "a")
    assert debounce.look("a", 0) is Step.NOTHING
    assert debounce.due is None
    assert debounce.due is None


def test_a_change_is_taken_up_once_it_has_held_still():
    debounce = Debounce(DELAYS, "a")
    assert debounce.look("b", 10.0) is Step.NOTHING
    assert debounce.due == pytest.approx(10.2)
    assert debounce.look("b", 10.1) is Step.NOTHING
    assert debounce.look("b", 10.2) is Step.CHANGED
    assert debounce.look("b", 20.0) is Step.NOTHING


def test_each_further_change_begins_the_wait_anew():
    debounce = Debounce(DELAYS, "a")
    for number in range(50):
        assert debounce.look(f"b{number}", number * 0.19) is Step.NOTHING
    assert debounce.look("b49", 49 * 0.19 + 0.2) is Step.CHANGED


def test_a_change_that_is_taken_back_before_it_has_settled_is_none():
    debounce = Debounce(DELAYS, "a")
    debounce.look("b", 0)
    assert debounce.look("a", 0.1) is Step.NOTHING
    assert debounce.due is None
    assert debounce.look("b", 0.2) is Step.NOTHING  # the wait is a new one
    assert debounce.due == pytest.approx(0.4)


def test_what_was_deleted_and_created_anew_within_the_time_was_never_gone():
    debounce = Debounce(DELAYS, "a")
    assert debounce.look(None, 0) is Step.NOTHING
    assert debounce.due == DELAYS.vanish
    assert debounce.look("b", 0.03) is Step.NOTHING
    assert debounce.look("b", 0.23) is Step.CHANGED


def test_what_stays_away_is_let_go_once_and_taken_up_again_when_it_is_back():
    debounce = Debounce(DELAYS, "a")
    debounce.look(None, 0)
    assert debounce.look(None, 1.0) is Step.REMOVED
    assert debounce.look(None, 2.0) is Step.NOTHING
    assert debounce.due is None
    debounce.look("a", 3.0)
    assert debounce.look("a", 3.2) is Step.CHANGED


def test_what_was_taken_up_by_hand_is_not_taken_up_again():
    debounce = Debounce(DELAYS, "a")
    debounce.look("b", 0)
    debounce.mark_seen("b")
    assert debounce.due is None
    assert debounce.look("b", 1) is Step.NOTHING


def test_without_a_settle_time_the_first_look_counts():
    assert Debounce(WatchDelays(settle=0), "a").look("b", 0) is Step.CHANGED


def restless():
    """Return a debounce of (code, data) pairs whose data changes at each look."""
    return Debounce(WatchDelays(settle=0.2, restless=2.0), ("code 1", 0), core=lambda seen: seen[0])


def test_what_never_holds_still_is_restless_and_its_data_alone_is_not_taken_up():
    debounce = restless()
    for tick in range(1, 50):
        assert debounce.look(("code 1", tick), tick / 10) is Step.NOTHING
        assert debounce.restless == (tick / 10 >= 0.1 + 2.0)
    assert debounce.look(("code 1", 49), 5.2) is Step.CHANGED
    assert not debounce.restless


def test_an_edit_of_code_is_taken_up_though_the_data_never_holds_still():
    debounce, steps = restless(), []
    for tick in range(1, 80):
        code = "code 1" if tick < 10 else "code 2" if tick < 50 else "code 3" if tick < 52 else "code 4"
        if debounce.look((code, tick), tick / 10) is Step.CHANGED:
            steps.append((tick, code))
    assert steps == [(24, "code 2"), (54, "code 4")]


@pytest.mark.parametrize("field", ["settle", "vanish", "poll"])
@pytest.mark.parametrize("wrong", [-0.1, math.nan])
def test_delays_below_zero_are_refused_by_name(field, wrong):
    with pytest.raises(ArgumentError, match=field):
        WatchDelays(**{field: wrong})


contents = st.one_of(st.none(), st.integers(0, 3))
histories = st.lists(st.tuples(st.floats(0.001, 1.5), contents), max_size=30)


def looks(history, first):
    """Yield (time, content) of each look: at each change, as a hint would have it, and whenever one is due."""
    debounce = Debounce(DELAYS, first)
    now, content = 0.0, first
    for pause, following in [*history, (10.0, None)]:
        end = now + pause
        while True:
            before = debounce.tried
            yield debounce, now, content, before, debounce.look(content, now)
            if debounce.due is None or debounce.due > end:
                break
            now = debounce.due
        now, content = end, following


@given(histories, contents)
def test_nothing_is_taken_up_that_moved_within_the_settle_time(history, first):
    changed_at, last = -math.inf, first
    for _, now, content, before, step in looks(history, first):
        if content != last:
            changed_at, last = now, content
        waited = now - changed_at
        if step is Step.CHANGED:
            assert content is not None
            assert content != before
            assert waited >= DELAYS.settle - 1e-9
        if step is Step.REMOVED:
            assert content is None
            assert before is not None
            assert waited >= DELAYS.vanish - 1e-9


@given(histories, contents)
def test_the_last_content_wins_and_then_there_is_rest(history, first):
    *_, (debounce, _, content, _, _) = looks(history, first)
    # After ten seconds without a change everything that was to be done was done.
    assert debounce.tried == content
    assert debounce.due is None


@given(histories, contents)
def test_a_look_is_due_exactly_while_something_moves_and_never_later_than_the_longest_wait(history, first):
    for debounce, now, content, _, _ in looks(history, first):
        assert (debounce.due is None) == (content == debounce.tried)
        assert (debounce.due is not None) == (content != debounce.tried)
        if debounce.due is not None:
            assert now < debounce.due <= now + max(DELAYS.settle, DELAYS.vanish)

"""Dear work is shared out over the turns of the loop."""

from types import SimpleNamespace

import pytest

from scattersphere.engine import timers
from scattersphere.engine.timers import WorkBudget


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(timers, "time", fake)
    return clock


def taking(clock, seconds, done, what):
    def act():
        clock.now += seconds
        done.append(what)

    return act


def test_what_fits_into_a_turn_is_done_at_once_and_the_rest_in_order_in_later_turns(clock):
    backlog, done = WorkBudget(2.0), []
    answers = [backlog.do(taking(clock, 1.5, done, n)) for n in range(6)]
    assert answers == [True, True, False, False, False, False]
    assert done == [0, 1]
    assert backlog.new_turn()
    assert done == [0, 1, 2, 3]
    assert not backlog.do(taking(clock, 0.0, done, "last"))  # others wait: it does not overtake them
    assert backlog.new_turn()
    assert not backlog.new_turn()
    assert done == [0, 1, 2, 3, 4, 5, "last"]
    assert not backlog.waiting


def test_what_is_left_for_later_waits_for_a_turn(clock):
    backlog, done = WorkBudget(2.0), []
    backlog.later(taking(clock, 0.0, done, 1))
    assert done == []
    assert backlog.waiting
    backlog.new_turn()
    assert done == [1]


def test_what_was_forgotten_is_not_done(clock):
    backlog, done = WorkBudget(2.0), []
    backlog.later(taking(clock, 0.0, done, 1))
    backlog.clear()
    assert not backlog.new_turn()
    assert done == []


def test_what_comes_in_pieces_takes_several_turns_and_lets_others_come_in_between(clock):
    backlog, done = WorkBudget(2.0), []

    def pieces():
        for n in range(4):
            taking(clock, 1.5, done, n)()
            yield

    backlog.in_pieces(pieces())
    backlog.later(taking(clock, 0.0, done, "other"))
    assert done == []
    turns = 0
    while backlog.new_turn():
        turns += 1
    assert done == [0, "other", 1, 2, 3]
    assert turns == 2

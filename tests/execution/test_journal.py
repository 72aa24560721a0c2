"""Numbers of events: contiguous, whatever mixture of moves and extras comes."""

from hypothesis import given
from hypothesis import strategies as st

from scattersphere.execution.journal import Journal, JournalReader

STEPS = st.lists(st.one_of(st.just("move"), st.just("extra"), st.just("stamp")), max_size=60)


def play(steps, keep):
    """Return a journal, and every event as (number, what) by the plainest of all models."""
    moves: list[int] = []
    journal, model = Journal(moves, keep), []
    for at, step in enumerate(steps):
        if step == "move":
            moves.append(at)
            model.append((len(model) + 1, at))
        elif step == "extra":
            number = journal.add(f"extra {at}", float(at))
            model.append((len(model) + 1, f"extra {at}"))
            assert number == len(model)
        else:
            journal.stamp(float(at))
    return journal, model


def everything(journal, since, limit):
    reader, found = JournalReader(journal, since), []
    while piece := reader.read(limit):
        assert len(piece) <= limit
        found += [(number, what) for number, _, what in piece]
    return found


@given(STEPS, st.integers(0, 70), st.integers(1, 9))
def test_reading_gives_all_events_in_order_when_none_was_dropped(steps, since, limit):
    journal, model = play(steps, keep=100)
    assert everything(journal, since, limit) == model[since:]
    assert journal.last == len(model)


@given(STEPS, st.integers(0, 70), st.integers(0, 5))
def test_only_the_oldest_extras_are_dropped_and_numbers_stay(steps, since, keep):
    journal, model = play(steps, keep)
    extras = [entry for entry in model if isinstance(entry[1], str)]
    kept = set(extras[-keep:] if keep else [])
    expected = [e for e in model if e[0] > since and (isinstance(e[1], int) or e in kept)]
    assert everything(journal, since, 5) == expected


def test_moves_have_the_time_of_the_stamp_that_follows_them():
    moves = [1, 2]
    journal = Journal(moves, 10)
    journal.stamp(5.0)
    moves.append(3)
    journal.stamp(7.0)
    assert [journal.time_of(position) for position in range(3)] == [5.0, 5.0, 7.0]


def test_many_extras_in_a_row_cost_one_break():
    journal = Journal([], 10)
    for _ in range(1000):
        journal.add("x", 0.0)
    assert len(journal._breaks) == 1

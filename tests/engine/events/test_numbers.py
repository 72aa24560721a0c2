"""Numbers of events: contiguous, whatever mixture of moves and extras comes."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from scattersphere.engine.events.numbers import EventNumbers, Moves

STEPS = st.lists(st.one_of(st.just("move"), st.just("extra"), st.just("stamp")), max_size=60)


def play(steps, keep):
    """Return a journal, and every event as (number, what) by the plainest of all models."""
    moves: list[int] = []
    journal, model = EventNumbers(moves, keep), []
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


def flat(journal, after, upto):
    found = []
    for piece in journal.read(after, upto):
        if isinstance(piece, Moves):
            found += enumerate(journal.moves[piece.start : piece.stop], piece.number)
        else:
            found.append((piece[0], piece[2]))
    return found


@given(STEPS, st.integers(0, 70), st.integers(1, 9))
def test_reading_gives_all_events_in_order_when_none_was_dropped(steps, since, limit):
    journal, model = play(steps, keep=100)
    found = []
    for after in range(since, len(model), limit):  # in pieces, as pages are read
        found += flat(journal, after, min(after + limit, len(model)))
    assert found == model[since:]
    assert journal.last == len(model)


@given(STEPS, st.integers(0, 70), st.integers(0, 70), st.integers(0, 5))
def test_only_the_oldest_extras_are_dropped_and_numbers_stay(steps, after, upto, keep):
    journal, model = play(steps, keep)
    extras = [entry for entry in model if isinstance(entry[1], str)]
    kept = set(extras[-keep:] if keep else [])
    left = [entry for entry in model if isinstance(entry[1], int) or entry in kept]
    assert flat(journal, after, upto) == [entry for entry in left if after < entry[0] <= upto]
    following = [number for number, _ in left if number > after]
    assert journal.next_kept(after) == (following[0] if following else len(model) + 1)


@given(STEPS)
def test_moves_have_the_time_of_the_stamp_or_extra_that_follows_them(steps):
    journal, _ = play(steps, keep=3)
    expected, waiting = [], 0
    for at, step in enumerate(steps):
        if step == "move":
            waiting += 1
        else:  # an extra comes after the moves before it, so that they have a time by then
            expected += [float(at)] * waiting
            waiting = 0
    pieces = [piece for piece in journal.read(0, journal.last) if isinstance(piece, Moves)]
    times = [piece.clock for piece in pieces for _ in range(piece.start, piece.stop)]
    assert times[: len(expected)] == expected
    assert [journal.time_of(place) for place in range(len(expected))] == expected


def test_stamps_within_a_millisecond_are_one():
    moves = [1]
    journal = EventNumbers(moves, 10)
    for turn in range(2000):
        journal.stamp(turn * 0.0001)
        moves.append(1)
    assert len(journal._mark_starts) <= 201
    assert all(0 <= place * 0.0001 - journal.time_of(place) <= 0.0011 for place in range(2000))


def test_moves_of_one_time_without_extras_between_them_are_one_piece():
    journal = EventNumbers([1, 2, 3], 10)
    journal.stamp(5.0)
    assert list(journal.read(0, 3)) == [Moves(1, 5.0, 0, 3)]


def test_many_extras_in_a_row_cost_one_break():
    journal = EventNumbers([], 10)
    for _ in range(1000):
        journal.add("x", 0.0)
    assert len(journal._break_places) == 1


def test_a_compacted_journal_reads_the_same():
    moves = [4, 5, 6]
    journal = EventNumbers(moves, 10)
    journal.add("x", 1.0)
    journal.moves = array("q", moves)
    assert flat(journal, 0, 4) == [(1, 4), (2, 5), (3, 6), (4, "x")]


def test_each_move_of_a_run_of_earlier_lives_has_its_own_time_though_the_clock_was_put_back_between_them():
    journal = EventNumbers([], 9)
    journal.replay([(100.0, array("q", [1, 2])), (50.0, array("q", [3])), (50.001, array("q", [4]))])
    assert [journal.time_of(place) for place in range(4)] == [100.0, 100.0, 50.0, 50.001]
    assert journal.last == 4

"""Fair shares: the largest group gives up its oldest, whatever is added and taken out before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scattersphere._shares import FairShares

MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40)


@given(MOVES)
def test_the_largest_group_and_its_oldest_key_are_known_after_any_moves(moves) -> None:
    shares, model, number = FairShares[int](), {}, 0
    for group, taken in moves:
        if taken == 0 and model.get(group):
            key = model[group].pop(len(model[group]) // 2)
            shares.remove(group, key)
        else:
            number += 1
            model.setdefault(group, []).append(number)
            shares.add(group, number)
        if any(model.values()):
            found, key = shares.largest()
            assert len(model[found]) == max(map(len, model.values()))
            assert key == model[found][0]

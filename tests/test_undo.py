"""What several versions replace in one place is undone in any order, and only what is still their own."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import replace_attribute, replace_item
from scattersphere import undo as undo_module


def owners():
    """Yield pairs: how to replace something, and how to read it."""
    space = SimpleNamespace(x="host")
    table = {"x": "host"}
    yield (lambda value: replace_attribute(space, "x", value)), (lambda: getattr(space, "x", None))
    yield (lambda value: replace_item(table, "x", value)), (lambda: table.get("x"))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_in_any_order_the_newest_that_is_left_is_in_force_and_at_last_what_was_there(order):
    for replace, read in owners():
        made = [replace(f"v{number}") for number in range(3)]
        left = {0, 1, 2}
        for number in order:
            made[number]()
            made[number]()  # once more does nothing
            left.discard(number)
            assert read() == (f"v{max(left)}" if left else "host")
            for other in left:
                lower = [n for n in left if n < other]
                assert made[other].below == (f"v{max(lower)}" if lower else "host")
    assert not undo_module._stacks


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20))
def test_any_history_leaves_what_a_simple_list_says(history):
    space = SimpleNamespace(x="host")
    made, alive = [], []
    for puts, which in history:
        if puts:
            made.append(replace_attribute(space, "x", f"v{len(made)}"))
            alive.append(made[-1])
        elif made:
            undo = made[which % len(made)]
            undo()
            alive = [other for other in alive if other is not undo]
        assert space.x == (alive[-1].value if alive else "host")
    for undo in made:
        undo()
    assert space.x == "host"


def test_what_somebody_else_put_over_it_is_left_alone():
    space = SimpleNamespace(x="host")
    undo = replace_attribute(space, "x", "ours")
    space.x = "theirs"
    undo()
    assert space.x == "theirs"


def test_what_somebody_else_put_between_two_lies_below_the_second():
    space = SimpleNamespace(x="host")
    first = replace_attribute(space, "x", "first")
    space.x = "theirs"
    second = replace_attribute(space, "x", "second")
    assert (second.below, first.below) == ("theirs", "host")
    first()
    assert space.x == "second"
    second()
    assert space.x == "theirs"


def test_what_was_not_there_is_taken_away_again():
    space, table = SimpleNamespace(), {}
    for undo in (replace_attribute(space, "x", 1), replace_item(table, "x", 1)):
        with pytest.raises(LookupError, match="'x'"):
            _ = undo.below
        undo()
    assert not vars(space)
    assert not table

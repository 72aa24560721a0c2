"""A user's value for other eyes: JSON or a short repr, whatever the value is and does."""

import enum
import json
import math
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.definitions.shown import DEPTH, TEXT_LIMIT, shown

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_and_fits_is_shown_as_it_is(value):
    assert shown(value, 1 << 20) == value


@given(JSON, st.integers(0, 200))
def test_what_is_shown_is_never_much_longer_than_the_limit(value, limit):
    text = json.dumps(shown(value, limit), ensure_ascii=False, separators=(",", ":"))
    assert len(text) <= max(2 * limit, TEXT_LIMIT * 2) + 100


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ((1, 2), [1, 2]),
        (Colour.RED, 1),
        (OrderedDict(a=1), {"a": 1}),
        ({1: 2}, {"repr": "{1: 2}"}),
        ([{1}], [{"repr": "{1}"}]),
        (math.inf, {"repr": "inf"}),
        (2**70, {"repr": str(2**70)}),
        (b"x", {"repr": "b'x'"}),
    ],
)
def test_what_has_no_json_form_is_shown_as_its_repr_in_its_place(value, seen):
    assert shown(value) == seen
    json.dumps(shown(value), allow_nan=False)


def test_what_is_too_large_shows_its_beginning_and_says_so():
    assert shown(list(range(100_000))) == {"repr": shown(list(range(100_000)))["repr"], "cut": True}
    assert shown(list(range(100_000)))["repr"].startswith("[0, 1, 2, 3")
    assert len(shown("x" * 10**7)["repr"]) <= TEXT_LIMIT + 3
    assert shown({"a": ["y" * 100] * 1000})["cut"] is True


def test_a_list_that_holds_itself_twice_is_not_followed_for_ever():
    value = []
    value += [value, value]
    assert shown(value)["cut"] is True


class Liar(dict):
    """A dict whose every method misbehaves."""

    def __iter__(self):
        raise SystemExit

    items = keys = __len__ = __repr__ = __iter__

    @property
    def __class__(self):
        raise RuntimeError("class")


class Unprintable:
    def __repr__(self):
        raise KeyboardInterrupt


class Endless(list):
    def __iter__(self):
        while True:
            yield 1


def test_methods_of_the_user_are_not_asked_and_may_do_anything():
    assert shown(Liar(a=1)) == {"a": 1}
    assert shown(Endless([1])) == [1]
    assert shown([Unprintable()]) == [{"repr": "<Unprintable: its repr failed>"}]
    assert shown({Unprintable(): 1})["repr"].startswith("{<Unprintable")


def test_a_long_repr_is_cut():
    class Long:
        def __repr__(self):
            return "z" * 10**6

    assert len(shown(Long())["repr"]) <= TEXT_LIMIT + 3


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_of_containers_inside_one_another_so_many_are_shown(wrap):
    value = None
    for _ in range(DEPTH + 1):
        value = wrap(value)
    found, depth = shown(value), 0
    while isinstance(found, list) or "a" in found:
        (found,) = found.values() if isinstance(found, dict) else found
        depth += 1
    assert (depth, found) == (DEPTH, {"repr": repr(wrap(None))})


def test_many_short_entries_are_as_large_as_their_json():
    entries = {str(number): None for number in range(1_000)}
    size = len(json.dumps(entries, separators=(",", ":")))
    assert shown(entries, size + size // 5) == entries
    assert shown(entries, size - size // 5)["cut"] is True


def test_the_braces_of_an_object_count_too():
    assert shown({"a": None}, 12) == {"a": None}
    assert shown({"a": None}, 11) == {"repr": "{'a': None}", "cut": True}

"""What the quick reading of a text asks itself: is a key twice, an integer or a string too long?"""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scattersphere import DefinitionError, JobDefinition
from scattersphere.codec import text as text_module
from scattersphere.codec.limits import DEPTH, INTEGER_DIGITS
from scattersphere.codec.structure import structure_counting
from scattersphere.codec.text import count_keys

VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(["a:b", "x", '":']),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["k", "l", "$param"]), inner, max_size=2)
    ),
    max_leaves=6,
)
TASK = st.fixed_dictionaries(
    {"task": st.just("a.B")},
    optional={
        "args": st.dictionaries(st.sampled_from(["k", "l", "//", "$x"]), VALUES, max_size=2) | VALUES,
        "retry": st.dictionaries(st.sampled_from(["delay", "jitter", "odd"]), VALUES, max_size=2) | VALUES,
        "depends_on": st.lists(st.sampled_from(["t", "u"]), max_size=2) | VALUES,
        "run_if": VALUES,
        "odd": VALUES,
    },
)
JOBS = st.fixed_dictionaries(
    {"name": st.just("x")},
    optional={
        "tasks": st.dictionaries(st.sampled_from(["t", "u", "a b", "//"]), TASK | VALUES, max_size=3)
        | VALUES,
        "params": VALUES,
        "format": VALUES,
        "odd": VALUES,
    },
)


@given(JOBS | VALUES)
def test_the_keys_counted_on_the_way_are_all_keys(value):
    keys = count_keys(value)
    assert structure_counting(value)[2] == keys


@pytest.mark.parametrize("where", ["args", "run_if", "odd"])
@pytest.mark.parametrize("over", [0, 1])
def test_what_is_too_deep_is_found_on_the_way_too(where, over):
    deep = "[" * (DEPTH - 4 + over) + "]" * (DEPTH - 4 + over)
    inside = f'{{"k": {deep}}}' if where == "args" else f"[{deep}]"
    text = f'{{"name": "x", "tasks": {{"t": {{"task": "a.B", "{where}": {inside}}}}}}}'
    too_deep = f"more than {DEPTH} lists and objects inside one another"
    try:
        JobDefinition.loads(text)
        told = []
    except DefinitionError as error:
        told = [problem.message for problem in error.problems]
    assert (too_deep in told) == bool(over)


@given(st.data())
def test_a_key_that_stands_twice_is_told_wherever_it_stands(data):
    value = {
        "name": "x",
        "params": {"p": "12:30"},
        "tasks": {
            "t": {"task": "a.B", "args": {"k": {"$param": "p"}, "l": [{"m": 1}]}, "retry": {"delay": 1}},
            "u": {"task": "a.B", "depends_on": ["t"], "run_if": {"$param": "p"}},
        },
    }
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 2])))
    starts = [at for at in range(len(text)) if text[at] == "{"]
    at = data.draw(st.sampled_from(starts))
    key = json.JSONDecoder().raw_decode(text, text.index('"', at))[0]
    with pytest.raises(DefinitionError) as caught:
        JobDefinition.loads(f'{text[: at + 1]}"{key}": 1, {text[at + 1 :]}')
    assert any(f'the key "{key}" stands here twice' in problem.message for problem in caught.value.problems)


@given(st.integers(0, 2 * INTEGER_DIGITS), st.sampled_from([1, 0, -1]), st.sampled_from(["", "-"]))
@example(0, 1, "")
@example(INTEGER_DIGITS, 1, "")
def test_an_integer_too_long_is_found_wherever_it_stands(before, over, sign):
    text = "[" + " " * before + sign + "1" * (INTEGER_DIGITS + over) + ', "x"]'
    if over == 1:
        assert text_module._may_hold_long_digits(text)
        with pytest.raises(DefinitionError, match="digits"):
            text_module.parse(text)
    else:
        assert text_module.parse(text)[1] == "x"


@given(
    st.lists(st.sampled_from(["\n", '"x"', "," * 7, '"xxxxxxxxx"', '"xxxxxxxx"']), max_size=12).map("".join)
)
def test_room_for_a_string_too_long_is_never_overlooked(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "STRING_CHARACTERS", 8)
        room = text_module._may_hold_long_string(text)
    assert room or '"xxxxxxxxx"' not in text


def test_a_long_text_with_line_breaks_is_not_searched_for_a_long_string(monkeypatch):
    monkeypatch.setattr(text_module, "STRING_CHARACTERS", 1_000)
    monkeypatch.setattr(text_module, "_has_long_string", lambda value: pytest.fail("searched"))
    text_module.parse(json.dumps(["x" * 50] * 100, indent=1))

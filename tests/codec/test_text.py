from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.codec.scan import scan
from scattersphere.codec.text import parse
from scattersphere.errors import DefinitionError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_json_writes_is_read_back_and_passes_the_second_reading(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse(text) == parse(text.encode()) == value
    assert scan(text).faults == []


@given(st.text('[]{}",:01-.eE \\u d8tnrue', max_size=12))
def test_both_readings_agree_on_what_is_json(text):
    faults = scan(text).faults
    if not faults:
        parse(text)
        return
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert [problem.message for problem in caught.value.problems] == [fault.message for fault in faults]
    assert all(problem.line is not None for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{"a": 1,\n "a": 2}', (2, 2), 'the key "a" stands here twice, first at 1:2'),
        ("[1, 1e400]", (1, 5), "the number 1e400 is too large"),
        ("[NaN]", (1, 2), "NaN is no JSON number"),
        ('"\\ud800"', (1, 1), "half of a surrogate pair is no character"),
        ("[" + "1" * 641 + "]", (1, 2), "an integer has more than 640 digits"),
        ("[" * 100_000, (1, 65), "more than 64 lists and objects inside one another"),
        ("[1,]", (1, 4), 'no comma may stand before "]"'),
        (b'["\xff"]', (1, 3), "the text must be UTF-8; the byte 0xff here is not"),
    ],
)
def test_a_fault_is_located_and_said_plainly(text, place, words):
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place
    assert problem.message == words


def test_all_faults_that_leave_the_text_readable_are_reported_at_once():
    with pytest.raises(DefinitionError) as caught:
        parse('{"a": NaN, "a": 1e999}')
    assert len(caught.value.problems) == 3


def test_a_byte_order_mark_is_ignored():
    assert parse(b"\xef\xbb\xbf[1]") == parse("\ufeff[1]") == [1]

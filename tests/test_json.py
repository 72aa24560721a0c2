from __future__ import annotations

import json
from contextvars import copy_context

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scattersphere import DefinitionError, JobDefinition, _json, _json_scan, _json_strings, _turns
from scattersphere._json import JsonTextError, loads
from scattersphere._json_scan import scan
from scattersphere._json_words import DEPTH, INTEGER_DIGITS, LineIndex

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_json_writes_is_read_back_and_passes_the_second_reading(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert loads(text) == loads(text.encode()) == value
    assert scan(text).problems == []


@given(st.text('[]{}",:01-.eE \\u d8tnrue', max_size=12))
def test_both_readings_agree_on_what_is_json(text):
    problems = scan(text).problems
    if not problems:
        loads(text)
        return
    with pytest.raises(JsonTextError) as caught:
        loads(text)
    assert [problem.message for problem in caught.value.problems] == [problem.message for problem in problems]


@given(JSON.map(json.dumps) | st.text('[]{}",:01-.eE \\u d8tnrue\u0662', max_size=12))
@example("[1, 2")
@example("\u0661")
@example("[" * 100_000)
@example(' {"a": [1.5, -0, "x"], "a": {}} ')
def test_what_is_read_in_steps_beside_other_threads_is_what_is_read_at_once(text):
    def outcome(read):
        try:
            return repr(read(text))
        except (ValueError, RecursionError):
            return "no JSON"

    assert outcome(_json._decode_in_steps) == outcome(_json._decode)


TEXTS = st.lists(
    st.sampled_from(
        [
            "x",
            "\u00e9",
            "\U0001f600",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\ude00",
            "\\n",
            '\\"',
            "\\\\",
            "\\x",
            "\n",
        ]
    )
).map("".join)


@given(TEXTS, st.integers(1, 9), st.sampled_from(['"', '", 1', ""]))
@example("\\ud83d\\ude00" * 3, 6, '"')
@example("\\\\" * 5, 3, '"')
def test_a_string_that_is_read_in_pieces_is_what_the_standard_library_reads_at_once(inside, step, end):
    def outcome(read):
        try:
            return read(f'["{inside}{end}', 2)
        except json.JSONDecodeError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_json_strings, "STEP", step)
        assert outcome(_json_strings.read_string) == outcome(json.decoder.scanstring)


@given(st.text() | st.binary(), st.integers(1, 9))
@example(b"ab\xff", 2)
@example("\U0001f600".encode()[:3], 2)
def test_bytes_that_are_decoded_in_pieces_give_the_same_text_and_the_same_error(content, step):
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content

    def outcome(decode):
        try:
            return decode(bytearray(content))
        except UnicodeDecodeError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_turns, "STEP", step)
        patched.setattr(_json_strings, "STEP", step)
        assert outcome(_json_strings.decode_utf8) == outcome(lambda data: data.decode("utf-8"))


@pytest.mark.parametrize("read", [_json._decode_in_steps, scan])
def test_no_step_reads_megabytes_of_a_string_and_none_makes_a_large_object_at_once(monkeypatch, read):
    asked, turns = [], []
    real = _json_strings._scan_string
    monkeypatch.setattr(
        _json_strings, "_scan_string", lambda text, at: asked.append(len(text)) or real(text, at)
    )
    monkeypatch.setattr(_json_strings, "STEP", 1 << 10)
    giving = copy_context()
    giving.run(_turns.let_others_wait, lambda: turns.append(1))
    giving.run(read, json.dumps("x\n" * 50_000))
    assert max(asked) <= (1 << 10) + 10
    assert len(turns) > 50
    if read is not scan:
        turns.clear()
        pairs = [(str(number), number) for number in range(5 * _json.MEMBERS)]
        assert giving.run(_json._gather, list(pairs)) == dict(pairs)
        assert len(turns) == 5


def test_long_texts_are_read_in_steps_where_somebody_waits_for_turns(monkeypatch):
    read, turns = [], []
    monkeypatch.setattr(_json, "_decode_in_steps", lambda text: read.append(text) or json.loads(text))
    text = json.dumps(["x" * 100] * 3_000)
    assert len(text) > _turns.STEP
    _json.parse(text)
    giving = copy_context()
    giving.run(_turns.let_others_wait, lambda: turns.append(1))
    giving.run(_json.parse, "[]")
    assert read == []
    giving.run(_json.parse, text)
    assert read == [text]
    assert turns


@given(st.text("a:, \n", max_size=40), st.sampled_from([",", "a:", " :"]), st.integers(1, 5))
def test_what_is_counted_piece_by_piece_is_what_is_counted_at_once(text, mark, step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_turns, "STEP", step)
        assert _turns.count(text, mark) == text.count(mark)
        assert _turns.holds(text, mark) == (mark in text)
        lines = LineIndex(text)
        for offset in range(len(text)):
            before = text[:offset]
            assert lines.place(offset) == (before.count("\n") + 1, offset - before.rfind("\n"))


@pytest.mark.parametrize("shift", range(6))
def test_half_of_a_surrogate_pair_is_found_wherever_the_pieces_end(monkeypatch, shift):
    monkeypatch.setattr(_turns, "STEP", 8)
    with pytest.raises(JsonTextError, match="half of a surrogate pair"):
        loads('["' + "x" * shift + "\\udc00" + '"]')


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
def test_a_problem_is_located_and_said_plainly(text, place, words):
    with pytest.raises(JsonTextError) as caught:
        loads(text)
    ((problem, line, column),) = caught.value.located()
    assert (line, column) == place
    assert problem.message == words


def test_all_problems_that_leave_the_text_readable_are_reported_at_once():
    with pytest.raises(JsonTextError) as caught:
        loads('{"a": NaN, "a": 1e999}')
    assert len(caught.value.problems) == 3


def test_a_byte_order_mark_is_ignored():
    assert loads(b"\xef\xbb\xbf[1]") == loads("\ufeff[1]") == [1]


@pytest.mark.parametrize("where", ["args", "run_if", "odd"])
@pytest.mark.parametrize("over", [0, 1])
def test_what_is_too_deep_is_found_wherever_it_stands(where, over):
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
        with pytest.raises(JsonTextError, match="digits"):
            loads(text)
    else:
        assert loads(text)[1] == "x"


def test_a_string_too_long_is_found(monkeypatch):
    monkeypatch.setattr(_json, "STRING_CHARACTERS", 8)
    monkeypatch.setattr(_json_scan, "STRING_CHARACTERS", 8)
    assert loads('["12345678", "1"]') == ["12345678", "1"]
    for text in ('["123456789", 1]', '{"123456789": 1}'):
        with pytest.raises(JsonTextError, match="a string is longer than 8 characters"):
            loads(text)

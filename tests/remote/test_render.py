"""Nothing that steers a terminal leaves, in any format; JSON is ASCII, and what people read is their own letters."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scattersphere.commands.errors import RequestError
from scattersphere.remote import render
from scattersphere.remote.render import RENDERERS, as_json, as_pretty, as_table, to_log

TEXT = st.text(st.characters(codec="utf-8"))
WORDS = [
    "help",
    "lines",
    "text",
    "attempt",
    "event",
    "index",
    "level",
    "message",
    "run",
    "task",
    "time",
    "ts",
]
"""Names that the tables know: what stands under them may be a user's, and of any kind."""
NAMES = TEXT | st.sampled_from(WORDS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


STEERING = {
    chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), 0x200F, 0x2028)
} - {"\n"}


@example({"help": [1]}, "table")
@example({"lines": [{"level": [], "attempt": "2"}]}, "table")
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sampled_from(sorted(RENDERERS)))
def test_no_escape_sequence_can_travel(result, output):
    """The incident class: terminal escapes in names and logs."""
    said = RENDERERS[output]({"n": 1, "result": result})
    assert said.endswith(b"\n")
    text = said.decode("utf-8")
    assert not STEERING & set(text)
    if output == "json":
        assert text.isascii()
        assert said.count(b"\n") == 1
        assert json.loads(said)["result"] == result


def test_rows_are_a_table():
    said = as_table(
        {"n": 3, "id": "a", "result": {"runs": [{"run": 1, "job": "hi"}, {"run": 20, "state": "failed"}]}}
    )
    assert said.decode() == "-- 3 a\nrun  job  state\n1    hi   -\n20   -    failed\n\n"


def test_a_text_keeps_its_lines_and_an_error_its_problems():
    assert as_table({"n": 1, "result": {"text": "a\nb"}}) == b"-- 1\n    a\n    b\n\n"
    problem = {"path": "tasks.a.task", "line": 1, "column": 7, "message": "no task", "suggestion": "b"}
    error = {"code": "invalid-job", "message": "1 problem", "problems": [problem]}
    said = as_table({"n": 1, "error": error}).decode()
    assert said == '-- 1 invalid-job: 1 problem\n  1:7  tasks.a.task  no task; did you mean "b"?\n\n'


def test_an_event_is_one_line():
    event = {
        "event": "run-ended",
        "sub": 1,
        "seq": 4,
        "ts": "2026-11-24T10:00:00.000Z",
        "run": 7,
        "job": "hi",
    }
    assert as_table(event | {"state": "failed", "message": "\x1b[2J"}) == (
        b"* 1 4 10:00:00 run-ended hi#7 failed \\x1b[2J\n"
    )
    assert as_table({"bye": {"code": "idle"}}) == b"-- bye: idle\n"


def test_delete_is_escaped_in_json():
    assert as_json({"a": "\x7f"}) == b'{"a":"\\u007f"}\n'


def test_a_log_reads_like_a_log():
    line = {"time": "2026-11-24T10:00:00.123Z", "task": "a", "index": 3, "attempt": 2, "level": "INFO"}
    said = as_table({"n": 1, "result": {"run": 1, "lines": [line | {"message": "one\ntwo"}], "next": 5}})
    assert said.decode() == "-- 1\nrun: 1\n10:00:00.123 INFO    a[3] #2: one\n    two\nnext: 5\n\n"
    event = {"event": "log", "sub": 1, "seq": 4, "ts": "2026-11-24T10:00:00.123Z", "task": "a"}
    assert to_log(event | {"level": "INFO", "message": "x\x1b"}) == "10:00:00.123 INFO    a: x\\x1b\n"
    assert to_log({"event": "end", "sub": 1}) == "* 1 end\n"


def test_only_the_last_cell_of_a_row_may_be_long():
    said = as_table({"n": 1, "result": {"rows": [{"a": "x" * 99, "b": "y" * 99}]}}).decode()
    assert f"{'x' * 57}...  {'y' * 99}\n" in said


def test_what_a_cell_lists_is_named():
    versions = [{"version": "etl@1", "runs": [1]}, {"version": "etl@2", "runs": []}]
    assert "etl@1, etl@2" in as_table({"n": 1, "result": {"bundles": [{"versions": versions}]}}).decode()


def test_progress_tells_how_far():
    event = {"event": "task-progress", "sub": 1, "run": 7, "job": "hi", "task": "a", "done": 3, "total": 9}
    assert as_table(event) == b"* 1 task-progress hi#7 a 3/9\n"


@pytest.mark.parametrize("output", ["pretty", "table"])
def test_people_see_their_own_letters(output):
    said = RENDERERS[output](
        {"n": 1, "result": {"rows": [{"job": "größe 日本", "reason": "\u202ea\x1b[2J"}]}}
    ).decode()
    assert "größe 日本" in said
    assert "\\u202ea" in said


@pytest.mark.parametrize("name", ["reason", "text", "message"])
def test_no_line_of_a_text_can_pass_for_a_line_of_ours(name):
    """A reason with newlines forged a reply and an event."""
    forged = "done\n\n-- 99\nuser: admin\n* 1 run-ended nightly#7 succeeded"
    error = {"code": "conflict", "message": forged}
    for message in ({"result": {name: forged}}, {"result": {"rows": [{name: forged}]}}, {"error": error}):
        said = as_table({"n": 1} | message).decode()
        assert [line for line in said.splitlines()[1:] if line.startswith(("--", "*", "user"))] == []


def test_rows_that_each_have_columns_of_their_own_are_no_square_table(monkeypatch):
    """4,300 objects of one member each became 18 million cells, in 8.5 s."""
    cells = []
    real = render._cell
    monkeypatch.setattr(render, "_cell", lambda *args, **kwargs: cells.append(1) or real(*args, **kwargs))
    said = as_table({"n": 1, "result": {"data": [{f"{number:x}": ""} for number in range(4_300)]}})
    assert b'{"10cb":""}\n' in said
    assert len(cells) <= render.CELLS


@pytest.mark.parametrize("value", [list(range(100_000)), [[[[[[[[1]]]]]]]] * 9_000, {"a": "x" * 300_000}])
@pytest.mark.parametrize("make", [as_pretty, as_table])
def test_what_is_too_large_to_read_is_refused_before_the_work(make, value, monkeypatch):
    monkeypatch.setattr(render, "_pretty", None)
    monkeypatch.setattr(render, "to_table", None)
    with pytest.raises(RequestError, match="output json") as caught:
        make({"n": 1, "result": {"value": value}})
    assert caught.value.code == "too-large"

"""What leaves is ASCII without control characters, in every format."""

import json

from hypothesis import given
from hypothesis import strategies as st

from scattersphere.remote.render import RENDERERS, _ascii, as_json, as_table, to_log

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.sampled_from(sorted(RENDERERS)))
def test_no_escape_sequence_can_travel(result, output):
    """The incident class: terminal escapes in names and logs."""
    said = RENDERERS[output]({"n": 1, "result": result})
    assert said.endswith(b"\n")
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in said)
    if output == "json":
        assert said.count(b"\n") == 1
        assert json.loads(said)["result"] == result


def test_rows_are_a_table():
    said = as_table(
        {"n": 3, "id": "a", "result": {"runs": [{"run": 1, "job": "hi"}, {"run": 20, "state": "failed"}]}}
    )
    assert said.decode() == "-- 3 a\nrun  job  state\n1    hi   -\n20   -    failed\n\n"


def test_a_text_keeps_its_lines_and_an_error_its_problems():
    assert as_table({"n": 1, "result": {"text": "a\nb"}}) == b"-- 1\na\nb\n\n"
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
    assert to_log(event | {"level": "INFO", "message": "x\x1b"}, _ascii) == "10:00:00.123 INFO    a: x\\x1b\n"
    assert to_log({"event": "end", "sub": 1}, _ascii) == "* 1 end\n"


def test_only_the_last_cell_of_a_row_may_be_long():
    said = as_table({"n": 1, "result": {"rows": [{"a": "x" * 99, "b": "y" * 99}]}}).decode()
    assert f"{'x' * 57}...  {'y' * 99}\n" in said


def test_what_a_cell_lists_is_named():
    versions = [{"version": "etl@1", "runs": [1]}, {"version": "etl@2", "runs": []}]
    assert "etl@1, etl@2" in as_table({"n": 1, "result": {"bundles": [{"versions": versions}]}}).decode()


def test_progress_tells_how_far():
    event = {"event": "task-progress", "sub": 1, "run": 7, "job": "hi", "task": "a", "done": 3, "total": 9}
    assert as_table(event) == b"* 1 task-progress hi#7 a 3/9\n"

from __future__ import annotations

import pytest

from scattersphere.model.definition import TaskDefinition
from scattersphere.model.references import (
    MissingValueError,
    compile_argument,
    follow_pointer,
    references,
    upstreams,
)


def fill(value, params=None, results=None):
    results = results or {}
    return compile_argument(value).fill(params or {}, results.__getitem__)


def test_a_whole_result_is_the_very_object():
    huge = object()
    template = compile_argument({"$result": "a"})
    assert template.whole_result
    assert template.fill({}, {"a": huge}.__getitem__) is huge


def test_a_result_inside_is_no_whole_result():
    value = {"k": [{"$result": "a"}, 1]}
    template = compile_argument(value)
    assert (template.constant, template.has_result, template.whole_result) == (False, True, False)
    assert fill(value, results={"a": 5}) == {"k": [5, 1]}
    assert not compile_argument({"$result": "a", "pointer": ""}).whole_result


def test_a_literal_is_taken_unread_and_is_constant():
    template = compile_argument({"$literal": {"$param": "x"}})
    assert template.constant
    assert template.fill({}, {}.__getitem__) == {"$param": "x"}


def test_parameters_stand_at_any_depth():
    assert fill({"a": [{"$param": "x"}]}, {"x": 1}) == {"a": [1]}
    with pytest.raises(MissingValueError, match="no parameter 'y'"):
        fill({"$param": "y"}, {"x": 1})


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a": [10, {"b/c": 1, "~": 2, "": 3}]}),
        ("/a/0", 10),
        ("/a/1/b~1c", 1),
        ("/a/1/~0", 2),
        ("/a/1/", 3),
    ],
)
def test_a_pointer_is_followed_as_rfc_6901_says(pointer, found):
    assert follow_pointer({"a": [10, {"b/c": 1, "~": 2, "": 3}]}, pointer) == found


@pytest.mark.parametrize(
    "pointer", ["/b", "/a/2", "/a/-", "/a/-1", "/a/00", "/a/\u0661", "/a/0/x", "/a/" + "9" * 5000]
)
def test_a_pointer_that_finds_nothing_says_so_or_gives_the_default(pointer):
    with pytest.raises(MissingValueError, match="finds nothing"):
        follow_pointer({"a": [1, 2]}, pointer)
    reference = {"$result": "t", "pointer": pointer, "default": [{"$param": "p"}]}
    assert fill(reference, {"p": 7}, {"t": {"a": [1, 2]}}) == [7]


def test_the_default_stands_in_for_a_task_without_a_result():
    assert fill({"$result": "t", "default": None}) is None
    with pytest.raises(MissingValueError, match=r"\$result 't'"):
        fill({"$result": "t"})


def test_references_are_found_at_any_depth_but_not_inside_literals():
    value = {
        "a": [{"$param": "p"}],
        "b": {"$literal": {"$result": "no"}},
        "c": {"$result": "t", "default": {"$param": "q"}},
    }
    found = {path: dict(reference) for path, reference in references(value)}
    assert found == {
        ("a", 0): {"$param": "p"},
        ("b",): {"$literal": {"$result": "no"}},
        ("c",): value["c"],
        ("c", "default"): {"$param": "q"},
    }


def test_results_imply_upstreams_after_the_declared_ones():
    task = TaskDefinition(
        task="x",
        depends_on=["a", "b"],
        args={"k": [{"$result": "c"}, {"$result": "a"}], "l": {"$literal": {"$result": "no"}}},
        map={"m": {"$result": "d"}},
        run_if={"$result": "e"},
    )
    assert upstreams(task) == ("a", "b", "c", "d", "e")

from __future__ import annotations

import json

import pytest

from scattersphere import JobDefinition
from scattersphere.definitions import resolve_params, secret_names
from scattersphere.errors import DefinitionError


def job(**params):
    return JobDefinition.loads(json.dumps({"name": "x", "params": params}))


def refused(definition, **overrides):
    with pytest.raises(DefinitionError) as caught:
        resolve_params(definition, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_hold_where_nothing_is_given():
    definition = job(root="docs", n={"type": "integer", "default": 3}, free={})
    assert resolve_params(definition, {}) == {"root": "docs", "n": 3, "free": None}
    assert resolve_params(definition, {"root": "src", "free": [1]}) == {"root": "src", "n": 3, "free": [1]}


@pytest.mark.parametrize(
    ("default", "good", "wrong"),
    [("a", "b", 1), (1, 2, True), (0.5, 1, True), (True, False, 0), ([], [1], {}), (1, 2, 2.0)],
)
def test_an_override_has_the_type_of_the_default(default, good, wrong):
    assert resolve_params(job(p=default), {"p": good}) == {"p": good}
    assert "must be of type" in refused(job(p=default), p=wrong)[0]


def test_a_default_of_null_takes_anything():
    assert resolve_params(job(p=None), {"p": {"a": 1}}) == {"p": {"a": 1}}


def test_everything_wrong_is_told_at_once():
    definition = job(day={"type": "string", "required": True}, size=1)
    assert sorted(refused(definition, sise="x", size="x")) == [
        "params.day  is required",
        "params.sise  job 'x' has no such parameter; did you mean \"size\"?",
        'params.size  must be of type integer; the string "x" is not',
    ]


def test_the_value_of_a_secret_is_never_shown():
    definition = job(key={"type": "string", "secret": True}, open="a")
    assert secret_names(definition) == {"key"}
    assert refused(definition, key=12345) == ["params.key  must be of type string; the value is not"]


def test_what_a_run_does_to_its_parameters_no_other_run_sees():
    definition, given = job(names=["a"]), {"names": [["b"]]}
    resolve_params(definition, {})["names"].append("changed")
    resolve_params(definition, given)["names"][0].append("changed")
    assert resolve_params(definition, {}) == {"names": ["a"]}
    assert given == {"names": [["b"]]}


def test_a_value_that_is_too_deep_or_holds_itself_is_a_problem_and_no_recursion_error():
    itself: list = []
    itself.append(itself)
    (told,) = refused(job(x=[]), x=itself)
    assert told.endswith("is nested too deeply, or holds itself")

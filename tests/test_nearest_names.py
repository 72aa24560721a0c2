"""Suggestions: near names are found, and no number of names makes that dear."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import DefinitionError, JobDefinition, RunnableTask, Server, _text
from scattersphere._text import LONGEST, STEPS, Suggester, did_you_mean, nearest, suggestion_budget


class Later(RunnableTask):
    async def run(self):
        """Its name is near to those that are not there."""


class Counted(list):
    """Names that count the letters which were looked at."""

    letters = 0

    def __iter__(self):
        for name in super().__iter__():
            self.letters += len(name)
            yield name


LOOK_ALIKES = [("ab" * 60)[:110] + f"{number:04d}" for number in range(5_000)]


@pytest.mark.parametrize(
    ("word", "names", "near"),
    [
        ("wrok", ["walk", "work"], "work"),
        ("afetr", ["args", "after"], "after"),
        ("nightly", ["nightly2", "daily"], "nightly2"),
        ("FIND", ["mind", "Find"], "Find"),
        ("x", ["y"], None),
        ("", ["y"], None),
        ("a" * (LONGEST + 1), ["a" * LONGEST], None),
        ("\ud800a", ["\ud800b", "a"], "a"),
    ],
)
def test_the_nearest_name_is_found(word, names, near):
    assert nearest(word, names) == near


def test_words_suggest_the_name_or_say_nothing():
    assert did_you_mean("jub", {"job": 1}) == '; did you mean "job"?'
    assert did_you_mean("jub", ["job"], quote="'") == "; did you mean 'job'?"
    assert did_you_mean("x", ["job"]) == ""


def test_one_question_costs_its_budget_and_no_more_whatever_the_names_hold():
    names = Counted(LOOK_ALIKES)
    nearest(("ba" * 60)[:114], names)
    assert names.letters <= STEPS + len(LOOK_ALIKES[0])


def test_all_questions_inside_one_operation_share_its_budget():
    names = Counted(LOOK_ALIKES)
    with suggestion_budget():
        for number in range(200):
            nearest(("ba" * 60)[:110] + str(number), names)
            Suggester(names).nearest(("ba" * 60)[:110] + str(number))
            with suggestion_budget():
                nearest(("ba" * 60)[:110] + str(number), names)
    # Each question that finds the budget spent looks at none.
    assert names.letters <= STEPS + len(LOOK_ALIKES[0])


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=6))
def test_what_is_suggested_is_one_of_the_names(word, names):
    assert nearest(word, names) in {None, *names}


@given(st.text(min_size=1, max_size=30, alphabet="abcxyz_0"))
def test_the_same_name_is_the_nearest(word):
    assert nearest(word, ["other", word + "0", word]) == word


BAD = {
    "format": 1,
    "name": "v",
    "tasks": {name: {"task": f"app.{name}", "depends_on": [name[1:]]} for name in LOOK_ALIKES[:40]},
}


@pytest.mark.anyio
async def test_a_definition_full_of_wrong_names_has_one_budget_for_all_of_them(monkeypatch):
    """A viewer's `validate` of 21 KB held the loop for 13 s."""
    budgets = []
    real = _text.Budget
    monkeypatch.setattr(_text, "Budget", lambda: budgets.append(real()) or budgets[-1])
    async with Server() as server:
        problems = server.validate(json.dumps(BAD))
        assert len(problems) == 80
        assert len(budgets) == 1
        assert sum(problem.suggestion is not None for problem in problems) < 80


@pytest.mark.anyio
async def test_a_definition_full_of_wrong_pools_has_one_budget_for_all_of_them_too(monkeypatch):
    budgets = []
    real = _text.Budget
    monkeypatch.setattr(_text, "Budget", lambda: budgets.append(real()) or budgets[-1])
    tasks = {f"t{number}": {"task": "Later", "pool": "databse"} for number in range(40)}
    definition = JobDefinition.loads(json.dumps({"name": "p", "tasks": tasks}))
    budgets.clear()
    async with Server(pools={"database": 2}) as server:
        with pytest.raises(DefinitionError) as caught:
            server.define(definition)
        assert {problem.suggestion for problem in caught.value.problems} == {"database"}
        assert len(budgets) == 1


@pytest.mark.anyio
async def test_nothing_is_suggested_to_nobody_code_that_may_come_later_is_no_mistake(monkeypatch):
    budgets = []
    real = _text.Budget
    monkeypatch.setattr(_text, "Budget", lambda: budgets.append(real()) or budgets[-1])
    tasks = {f"t{number}": {"task": f"Later{number}"} for number in range(40)}
    async with Server() as server:
        server.register_tasks("app", [Later])
        definition = JobDefinition.loads(json.dumps({"name": "p", "tasks": tasks}))
        budgets.clear()
        server.define(definition)
        assert budgets == []

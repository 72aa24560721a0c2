"""The picture of the states in the docs is drawn from the tables, all of them."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

from scattersphere.model.states import RUN_MOVES, TASK_MOVES, RunState, TaskState

pytestmark = pytest.mark.needs("docutils")


@pytest.fixture
def lifecycle(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    extensions = Path(__file__).parents[1] / "docs" / "_ext"
    monkeypatch.syspath_prepend(extensions)  # as docs/conf.py does
    return SimpleNamespace(**runpy.run_path(str(extensions / "lifecycle.py")))


@pytest.mark.parametrize(
    ("kind", "states", "moves"), [("run", RunState, RUN_MOVES), ("task", TaskState, TASK_MOVES)]
)
def test_every_state_and_every_move_is_on_the_picture(lifecycle, kind, states, moves) -> None:
    picture = ET.fromstring(lifecycle.draw(kind))
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    titles = [element.text for element in picture.iter() if element.tag.endswith("title")]
    assert sorted(texts) == sorted(states)
    assert titles == [f"{move.source} to {move.target}: {move.cause}" for move in moves]


@pytest.mark.parametrize("kind", ["run", "task"])
def test_no_two_states_stand_in_one_place(lifecycle, kind) -> None:
    places = list(lifecycle.PLACES[kind].values())
    assert len(places) == len(set(places))

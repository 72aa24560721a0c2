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
    texts = [one.text for one in picture.iter() if one.tag.endswith("text") and one.get("class") != "note"]
    titles = [line for one in picture.iter() if one.tag.endswith("title") for line in one.text.split("\n")]
    assert sorted(texts) == sorted(states)
    assert sorted(titles) == sorted(f"{move.source} to {move.target}: {move.cause}" for move in moves)


def test_what_several_states_do_alike_is_one_line(lifecycle) -> None:
    """Thirty-five lines between eleven boxes could not be read."""
    lines = [one for one in ET.fromstring(lifecycle.draw("run")).iter() if one.get("marker-end")]
    assert len(lines) <= 20


@pytest.mark.parametrize("kind", ["run", "task"])
def test_no_two_states_stand_in_one_place(lifecycle, kind) -> None:
    places = list(lifecycle.PLACES[kind].values())
    assert len(places) == len(set(places))

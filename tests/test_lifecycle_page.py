"""The picture of the states in the docs is drawn from the tables, all of them."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scattersphere.model.states import RUN_MOVES, TASK_MOVES, RunState, TaskState

if TYPE_CHECKING:
    from types import ModuleType

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def lifecycle() -> ModuleType:
    path = Path(__file__).parents[1] / "docs" / "_ext" / "lifecycle.py"
    spec = importlib.util.spec_from_file_location("lifecycle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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

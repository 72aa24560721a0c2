"""The pictures of the two nights in the docs show what the text beside them says."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.needs("cronsim"), pytest.mark.needs("docutils")]


@pytest.fixture(scope="module")
def dst() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_ext" / "dst.py"))


@pytest.mark.parametrize(
    ("night", "named", "within", "rhythm", "every"),
    [("forward", ["03:00"], ["03:00"], 9, 4), ("back", ["02:30"], ["02:00", "02:20", "02:40"] * 2, 9, 4)],
)
def test_the_picture_shows_each_firing(
    dst: dict[str, Any], night: str, named: list[str], within: list[str], rhythm: int, every: int
) -> None:
    titles = [e.text or "" for e in ET.fromstring(dst["draw"](night)).iter() if e.tag.endswith("title")]
    times = {
        name: [t.rsplit(": ", 1)[1][:5] for t in titles if t.startswith(f"{name}:")]
        for name in dst["SCHEDULES"]
    }
    assert times["30 2 * * *"] == named
    assert times["*/20 2 * * *"] == within
    assert times["0 3 * * *"] == ["03:00"]
    assert len(times["*/30 * * * *"]) == rhythm
    assert len(times['"every": 3600']) == every

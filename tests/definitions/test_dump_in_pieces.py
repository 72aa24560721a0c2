"""The text of a definition is the same however many words are joined in one go."""

from __future__ import annotations

import json

import pytest

from scattersphere import JobDefinition
from scattersphere.definitions import dump


@pytest.mark.parametrize("at_once", [1, 7, 1 << 12])
def test_a_text_that_is_joined_in_pieces_is_that_of_the_standard_library(monkeypatch, at_once):
    monkeypatch.setattr(dump, "AT_ONCE", at_once)
    args = {"empty": "", "no": [], "none": {}, "deep": [[1, {"a": "é\n"}], 2.5, None, True]}
    job = JobDefinition.build("one").task("a", "A", args=args).done()
    whole = json.dumps(dump.to_value(job), indent=2, ensure_ascii=False, allow_nan=False)
    assert job.dumps() == whole + "\n"

"""Bundles that are replaced 50 times a second while runs go on. `python -m benchmarks watching` does it for a minute."""

from __future__ import annotations

import pytest

from benchmarks.watching import storm


@pytest.mark.anyio
async def test_in_a_storm_each_run_sees_one_version_the_last_content_wins_and_nothing_is_left(tmp_path):
    report = await storm(tmp_path, 1.5)
    assert report.runs
    assert report.replacements
    assert not report.mixed
    assert report.last == report.wanted
    assert not report.left

"""Whatever commit is the last one of a program: the journal is sound, nothing is done under two numbers, no time twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killprogram.py")


def killed(folder, world, *numbers):
    """Return what `killprogram.py` has found, and what was written to its standard error."""
    folder.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, PROGRAM, folder, world, *map(str, numbers)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(("world", "commit"), [("pay", 6), ("schedule", 3)])
def test_a_server_that_is_killed_at_a_commit_goes_on(tmp_path, world, commit):
    result, errors = killed(tmp_path, world, commit, commit, 1)
    assert result == {"cases": 2, "kills": 4, "ends": 2, "wrong": []}, errors


@pytest.mark.parametrize(("world", "last", "second"), [("pay", 28, 3), ("schedule", 24, 2)])
def test_a_server_that_is_killed_at_every_commit_and_again_within_the_recovery_goes_on(
    tmp_path, world, last, second
):
    result, errors = killed(tmp_path, world, 1, last, second)
    assert result["wrong"] == [], errors
    assert result["kills"] > result["cases"], "one in each recovery, and at its own commits before"
    assert "errors" not in result, errors


@pytest.mark.parametrize(("first", "last", "deaths"), [(1, 1, 1), (2, 12, 2)], ids=["once", "many"])
def test_a_server_with_all_there_is_that_is_killed_at_any_moment_goes_on(tmp_path, first, last, deaths):
    result, errors = killed(tmp_path, "everything", first, last, deaths)
    assert result["wrong"] == [], errors
    assert "errors" not in result, errors


def test_the_kills_find_an_engine_that_does_not_wait_for_its_commits(tmp_path):
    result, _ = killed(tmp_path, "careless", 1, 8, 1)
    assert any("charged under" in words for words in result["wrong"])

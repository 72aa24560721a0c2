"""Whatever commit is the last one of a program, the journal is sound, and nothing is done under two numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROWS, SERVER = (Path(__file__).with_name(f"{name}.py") for name in ("killprogram", "serverkills"))


def killed(program, folder, *words):
    folder.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, program, folder, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_kill_at_a_commit(tmp_path):
    result, errors = killed(ROWS, tmp_path, 3, 4, 1)
    assert result == {"cases": 4, "kills": 8, "ends": 4, "wrong": []}, errors


def test_a_kill_at_every_commit_and_again_within_the_recovery(tmp_path):
    result, errors = killed(ROWS, tmp_path, 1, 24, 3)
    assert result["wrong"] == [], errors
    assert result["cases"] == 144
    assert result["kills"] > 250
    assert "errors" not in result, errors


def test_the_kills_find_an_engine_that_does_not_wait_for_its_commits(tmp_path):
    result, _ = killed(ROWS, tmp_path, 1, 6, 1, "careless")
    assert any("charged under" in words for words in result["wrong"])


def test_a_server_that_is_killed_at_a_commit_goes_on(tmp_path):
    result, errors = killed(SERVER, tmp_path, 6, 6, 1)
    assert result == {"cases": 2, "kills": 4, "ends": 2, "wrong": []}, errors


def test_a_server_that_is_killed_at_every_commit_and_again_within_the_recovery_goes_on(tmp_path):
    result, errors = killed(SERVER, tmp_path, 1, 26, 2)
    assert result["wrong"] == [], errors
    assert result["kills"] > 100
    assert "errors" not in result, errors

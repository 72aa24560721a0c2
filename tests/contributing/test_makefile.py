"""What the words of the Makefile install: the demo is a newcomer's first minute, and needs no tools of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def installed(word: str, venv: Path) -> list[str]:
    """Return the lines with which `make WORD` would install something into an environment that is not there yet."""
    made = subprocess.run(
        ["make", "--dry-run", word, f"VENV={venv}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return [line for line in made.stdout.splitlines() if " install " in line]


def test_the_demo_installs_the_library_with_its_command_line_and_nothing_else(tmp_path: Path) -> None:
    (line,) = installed("demo", tmp_path / "venv")
    assert line.endswith("install --editable '.[cli]'")


def test_the_tests_add_what_they_need_to_the_same_environment(tmp_path: Path) -> None:
    demo = installed("demo", tmp_path / "venv")
    test = installed("test", tmp_path / "venv")
    assert test[:1] == demo
    assert any("--group dev" in line for line in test[1:])

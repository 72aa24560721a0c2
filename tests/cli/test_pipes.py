"""Whoever reads the output of a command may stop reading; nothing of ours complains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

WAIT = """
from scattersphere import RunnableTask
import anyio


class Wait(RunnableTask):
    async def run(self, context):
        for second in range(60):
            context.log.info("second %d", second)
            await anyio.sleep(0.05 if second < 5 else 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w.py").write_text(WAIT)
    job = {"name": "slow", "bundles": {"w": "w.py"}, "tasks": {"a": {"task": "w.Wait"}}}
    (tmp_path / "slow.json").write_text(json.dumps(job))
    return tmp_path


@pytest.mark.parametrize(
    "words", [("run", "slow.json"), ("run", "slow.json", "--json"), ("dev", ".", "--run", "slow"),
              ("dev", ".", "--run", "slow", "--json")], ids=" ".join
)  # fmt: skip
def test_a_command_ends_quietly_when_nobody_reads_it_any_more(folder: Path, words: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "scattersphere", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(PATIENCE) == (0 if words[0] == "dev" else 1)
    assert "Traceback" not in errors
    assert ("nobody reads the output any more" in errors) == (words == ("run", "slow.json"))
    if "--json" in words:
        assert json.loads(first)

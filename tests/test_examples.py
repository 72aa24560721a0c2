"""Every example does what its page says, through the same door that a reader uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from programs import run_program

ROOT = Path(__file__).parents[1]
DEFINITIONS = sorted((ROOT / "examples").glob("*/*.json"))
WORDCOUNT = ROOT / "examples" / "wordcount" / "wordcount.json"


def run_example(definition: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scattersphere", "run", str(definition), *options]
    return run_program(
        command, patience=3 * PATIENCE, cwd=ROOT
    )  # the word count reads all of Python's library


@pytest.mark.needs("click")
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.parent.name)
def test_an_example_succeeds_as_it_stands(definition: Path) -> None:
    done = run_example(definition)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert " succeeded in " in done.stdout.splitlines()[-1]


@pytest.mark.needs("click")
def test_the_word_count_counts(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    (texts / "deep").mkdir(parents=True)
    (texts / "a.txt").write_text("apple pear apple https://example.org/b", encoding="utf-8")
    (texts / "deep" / "b.txt").write_text("pear apple (https://example.org/a)", encoding="utf-8")
    (texts / "c.md").write_text("apple", encoding="utf-8")
    done = run_example(
        WORDCOUNT, "-p", f"root={texts}", "-p", "suffix=.txt", "-p", "top:=2", "-p", f"out={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8").splitlines()
    assert report[0].endswith("words in 2 files")
    assert report[2].split() == ["3", "apple"]
    assert report[-3:] == ["2 URLs", "https://example.org/a", "https://example.org/b"]


@pytest.mark.needs("click")
def test_the_word_count_says_what_to_pass_when_the_folder_is_not_there() -> None:
    done = run_example(WORDCOUNT, "-p", "root=/nowhere/at/all")
    assert done.returncode == 1
    assert "pass another one: -p root=FOLDER" in done.stderr


def test_the_live_edit_shows_two_versions_and_one_that_is_freed() -> None:
    example = ROOT / "examples" / "live_edit" / "edit_while_running.py"
    done = run_program([sys.executable, str(example)], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "SyntaxError" in lines[0]
    assert lines[2] == "{'version 1': [1]}"
    assert lines[4:7] == ["Tuesday's edition", "...", "end of Tuesday's edition"]
    assert lines[8:11] == ["Monday's edition", "...", "end of Monday's edition"]
    assert lines[-1] == "older versions now: {}"


@pytest.mark.needs("distributed")
def test_the_weather_is_drawn_by_a_cluster(tmp_path: Path) -> None:
    example = ROOT / "examples" / "dask" / "on_a_cluster.py"
    done = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "months  + succeeded" in done.stdout
    assert "12 instances" in done.stdout
    picture = (tmp_path / "weather-data" / "year.svg").read_text(encoding="utf-8")
    assert picture.count("<rect") == 12

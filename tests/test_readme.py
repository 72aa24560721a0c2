"""What the README shows is what one sees: its transcripts, its program, and the places and words that it names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from programs import run_program

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
DEMO = "scattersphere run examples/wordcount/wordcount.json"
SUMMARY = re.compile(r"(\d+) passed, \d+ skipped in \d+\.\d\ds \(\d:\d\d:\d\d\)")


def transcript(command: str) -> list[str]:
    """Return the lines that the README shows below a command."""
    (text,) = [text for kind, text in BLOCKS if kind == "console" and text.startswith(f"$ {command}\n")]
    return text.splitlines()[1:]


def masked(line: str) -> str:
    """Return a line without what differs from machine to machine: numbers, and which words are the most frequent."""
    return re.sub(r"\d+", "N", re.sub(r"^( +)\d+  \w+$", r"\1N  word", line))


@pytest.mark.needs("click")
def test_the_demo_shows_what_the_readme_shows() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
    assert f"$(BIN)/{DEMO}\n" in made
    setting_up, *shown = transcript("make demo")
    assert f'echo "{setting_up}"' in made
    done = run_program(
        [sys.executable, "-m", *DEMO.split()], patience=3 * PATIENCE, cwd=ROOT
    )  # it reads all of Python's library
    assert done.returncode == 0, done.stderr
    seen = [masked(line) for line in done.stdout.splitlines()]
    first, middle, last = (part.splitlines() for part in "\n".join(map(masked, shown)).split("\n...\n"))
    assert seen[: len(first)] == first
    assert seen[-len(last) :] == last
    assert any(seen[at : at + len(middle)] == middle for at in range(len(seen)))


def test_the_tests_end_as_the_readme_shows() -> None:
    _, line = transcript("make test")
    assert SUMMARY.fullmatch(line), "as the last line of `make test`"
    assert "$(PYTEST) --numprocesses" in (ROOT / "Makefile").read_text(encoding="utf-8"), (
        "which pytest writes"
    )


def test_the_first_program_prints_what_it_says(tmp_path: Path) -> None:
    (program,) = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = run_program([sys.executable, "program.py"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    promised = re.findall(r"print\(.*\)  # (.*)", program)
    assert promised
    assert done.stdout.splitlines()[: len(promised)] == promised


def test_without_make_the_same_is_installed_and_run_as_with_it() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "\n".join(transcript("python3 -m venv .venv"))
    wanted = re.compile(r"--editable '[^']*'|--group dev|(?<=bin/)scattersphere .*")
    assert set(wanted.findall(text)) == set(wanted.findall(made.replace("$(BIN)", "bin")))


def test_what_the_readme_names_is_there() -> None:
    for path in re.findall(r"(?:docs|examples)/[\w./-]+|[A-Z]+\.md", TEXT):
        assert (ROOT / path.rstrip(".")).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in re.findall(r"(?:`|\$ )make ([a-z-]+)", TEXT):
        assert word in targets
    commands = pytest.importorskip("scattersphere.cli.commands").cli.commands
    for words in re.findall(r"`scattersphere ((?:\w+`, `)*\w+)`", TEXT):
        assert set(words.split("`, `")) <= commands.keys()

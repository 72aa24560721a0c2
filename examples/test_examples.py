"""Every example is run as a user would run it."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def scattersphere(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "scattersphere", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=HERE.parent)


def test_wordcount_counts_a_small_tree_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the quick fox, see https://example.org/a\n")
    (tmp_path / "b.txt").write_text("the lazy dog\n")
    out = tmp_path / "out"
    done = scattersphere(
        "run",
        "examples/wordcount/wordcount.json",
        "-p",
        f"root={tmp_path}",
        "-p",
        "suffix=.txt",
        "-p",
        f"out={out}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "6 succeeded" in done.stdout
    report = (out / "report.txt").read_text()
    assert "        2  the" in report
    assert "https://example.org/a" in report


def test_wordcount_says_what_is_wrong_and_exits_with_1() -> None:
    done = scattersphere("run", "examples/wordcount/wordcount.json", "-p", "root=/nowhere")
    assert done.returncode == 1
    assert "FileNotFoundError: /nowhere is no folder; pass another one: -p root=FOLDER" in done.stderr
    assert "Traceback" in done.stderr
    assert "attempts.py" not in done.stderr


def test_a_bad_file_exits_with_3_and_names_line_and_column(tmp_path: Path) -> None:
    job = json.loads((HERE / "wordcount" / "wordcount.json").read_text())
    job["tasks"]["merge"]["afetr"] = ["count"]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(job, indent=2))
    done = scattersphere("run", str(bad))
    assert done.returncode == 3
    assert 'tasks.merge.afetr  unknown key; did you mean "depends_on"?' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_parameter_is_a_wrong_command_line() -> None:
    assert scattersphere("run", "examples/wordcount/wordcount.json", "-p", "top=ten").returncode == 2
    assert scattersphere("run", "examples/wordcount/wordcount.json", "-p", "top").returncode == 2

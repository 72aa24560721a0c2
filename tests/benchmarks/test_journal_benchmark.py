"""The benchmark of the journal runs, in small: each figure stands beside its own baseline."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ["--commits", "20", "--size", "200", "--runs", "200", "--shapes", "wide", "--repetitions", "1"]


def test_the_benchmark_of_the_journal_has_all_its_parts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.journal", *SMALL, "--folder", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "a commit of the journal, write to callback",
        "a row of a step, sqlite3, a hundred a commit",
        "open 200 runs",
        "wide, 200 no-op tasks, relaxed ",
        "wide, 200 no-op tasks, strict ",
        "runs of one task, strict, 100 at once",
        "a write and a sync of a commit's bytes",
        "a link of a chain, strict",
        "each of many strict tasks at once",
    ):
        assert words in done.stdout, words
    assert not list(tmp_path.iterdir())

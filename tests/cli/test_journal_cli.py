"""What the command line says of a journal: beside its server, and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("click")

from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "journal"))

from journalrows import SUCCEEDED, Loop, begin, moves_row, state_row, step_row
from patience import PATIENCE

from scattersphere.abc.journal import AttemptRow, DefinitionRow, LifeRow, LogRow, MetaRow
from scattersphere.cli import journaling
from scattersphere.cli.commands import cli
from scattersphere.journal import SqliteJournal
from scattersphere.model.logs import LogLine, pack_lines

TEXT = '{"name": "pay", "tasks": {"draw": {"task": "Draw"}, "charge": {"task": "Charge", "map": {"n": {"$result": "draw"}}, "retry": {"max_attempts": 2}}}}'


@pytest.fixture
def file(tmp_path):
    """The journal of a server that lives."""
    tmp_path.chmod(0o700)
    path = tmp_path / "runs.db"
    loop, journal = Loop(), SqliteJournal(path)
    journal.open(loop)
    second = 1_000_000
    line = LogLine(
        time=datetime(2026, 11, 30, 12, tzinfo=UTC),
        run=1,
        task="draw",
        level=20,
        logger="task",
        message="a\x1b[2Jb",
    )
    other = LogLine(time=line.time, run=1, task="", level=30, logger="scattersphere", message="by the engine")
    loop.commit(journal, MetaRow(1001, 1), LifeRow(1, 1, 1, "0.2", None), DefinitionRow("d1", "pay", TEXT))
    loop.commit(
        journal,
        *begin(1, key="k", created=0)[2:],
        state_row(1, SUCCEEDED, started=second, ended=3 * second, widths='{"1": 1}'),
    )
    steps = [
        step_row(1, 0, b"[1]", started=second, ended=2 * second),
        step_row(1, 1, None, task=1),
        step_row(1, 2, b"{}", task=1, place=0, attempts=2, form=3),
        AttemptRow(1, 2, 1, 5, '{"type": "E"}', second),
    ]
    ends = [~1, 1, 4, 1 << 4 | 1, 2 << 4 | 1, 2 << 4 | 3, 2 << 4 | 1, 2 << 4 | 4, 1 << 4 | 4, ~6]
    lines = LogRow(1, 1, 2, pack_lines([line.as_dict(), other.as_dict()]))
    loop.commit(journal, *steps, moves_row(1, 0, *ends), lines)
    loop.commit(journal, *begin(2)[2:])
    yield str(path)
    journal.close()


def said(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def printed(function, *args, **options):
    import click

    command = click.Command("it", callback=lambda: function(*args, **options))
    return CliRunner().invoke(command, [], catch_exceptions=False).output


def test_runs_are_listed_newest_first(file):
    table = printed(journaling.runs, file)
    assert [line.split()[:3] for line in table.splitlines()[1:] if line] == [
        ["2", "pay", "running"],
        ["1", "pay", "succeeded"],
    ]
    (row,) = map(json.loads, printed(journaling.runs, file, state="succeeded", as_json=True).splitlines())
    assert row == {
        "run": 1,
        "job": "pay",
        "state": "succeeded",
        "created": "1970-01-01T00:00:00+00:00",
        "seconds": 2.0,
        "key": "k",
    }
    assert "no state of runs" in printed(journaling.runs, file, state="done")
    assert printed(journaling.runs, file, job="other", as_json=True) == ""


def test_a_run_is_shown_with_its_tasks_and_results(file):
    shown = json.loads(said("show", 1, "--journal", file, "--json"))
    draw, charge, instance = shown["tasks"]
    assert (draw["task"], draw["result"], draw["seconds"]) == ("draw", [1], 1.0)
    assert charge["task"] == instance["task"] == "charge"
    assert (instance["index"], instance["attempts"], instance["result"]) == (0, 2, {"pickle": 2})
    assert "succeeded" in said("show", 1, "--journal", file)
    assert "no run 7" in said("show", 7, "--journal", file, code=3)


def test_a_run_in_a_table_says_failures_and_results_that_are_not_shown_in_words(file, tmp_path):
    import sqlite3
    from contextlib import closing

    said("journal", "backup", file, tmp_path / "backup.db")
    with closing(sqlite3.connect(tmp_path / "backup.db", isolation_level=None)) as connection:
        text = '{"type": "ValueError", "message": "too large", "traceback": "Traceback"}'
        connection.execute("UPDATE step SET failure = ? WHERE unit = 0", (text,))
    table = said("show", 1, "--journal", tmp_path / "backup.db")
    assert "ValueError: too large" in table
    assert "(pickled, 2 bytes)" in table
    assert "Traceback" not in table
    data = json.loads(said("show", 1, "--journal", tmp_path / "backup.db", "--json"))
    assert data["tasks"][0]["failure"]["traceback"] == "Traceback"
    assert data["tasks"][2]["result"] == {"pickle": 2}


def test_the_log_is_shown_and_steers_no_terminal(file):
    text = printed(journaling.logs, file, run=1)
    assert "draw" in text
    assert "\\x1b[2J" in text
    assert "\x1b" not in text
    (line,) = map(json.loads, printed(journaling.logs, file, run=1, task="draw", as_json=True).splitlines())
    assert line["level"] == "INFO"
    (line,) = map(json.loads, printed(journaling.logs, file, run=1, tail=1, as_json=True).splitlines())
    assert line["message"] == "by the engine"


def test_a_journal_is_checked_backed_up_and_exported_beside_its_server(file, tmp_path):
    assert "is sound" in said("journal", "check", file)
    said("journal", "backup", file, tmp_path / "backup.db")
    assert "is there already" in said("journal", "backup", file, tmp_path / "backup.db", code=3)
    assert "is sound" in said("journal", "check", tmp_path / "backup.db")
    first, second = map(json.loads, said("journal", "export", file).splitlines())
    assert (first["run"], second["run"]) == (1, 2)
    assert first["attempts"] == [
        {
            "task": "charge",
            "index": 0,
            "number": 1,
            "how": "failed",
            "ended": "1970-01-01T00:00:01+00:00",
            "failure": {"type": "E"},
        }
    ]
    assert [move["state"] for move in first["moves"][:3]] == ["running", "running", "succeeded"]
    assert first["log"][1]["message"] == "by the engine"
    assert said("journal", "export", file, 9) == ""
    for words in (("restore", tmp_path / "backup.db", file), ("prune", file, "--keep", 0)):
        assert "is held by" in said("journal", *words, code=3)


def test_a_journal_that_no_server_holds_is_pruned_and_restored(file, tmp_path):
    said("journal", "backup", file, tmp_path / "backup.db")
    other = tmp_path / "other.db"
    assert "is as" in said("journal", "restore", tmp_path / "backup.db", other)
    assert "1 runs are given up" in said("journal", "prune", other, "--keep", 0)
    assert "what was there is" in said("journal", "restore", tmp_path / "backup.db", other)
    assert [json.loads(line)["run"] for line in said("journal", "export", other).splitlines()] == [1, 2]


def test_what_is_wrong_is_said_and_ends_with_one(file, tmp_path):
    said("journal", "backup", file, tmp_path / "backup.db")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "backup.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM moves WHERE run = 1")
        connection.execute("UPDATE step SET form = 0, value = NULL WHERE unit = 0")
    assert "run 1: task draw has succeeded, and has no value" in said(
        "journal", "check", tmp_path / "backup.db", code=1
    )
    finding, *_ = map(
        json.loads, said("journal", "check", tmp_path / "backup.db", "--json", code=1).splitlines()
    )
    assert finding["run"] == 1
    assert "there is no journal" in said("journal", "check", tmp_path / "none.db", code=3)


def test_a_look_that_takes_too_long_is_ended(file, monkeypatch):
    monkeypatch.setattr(journaling, "READ_SECONDS", -1.0)
    from scattersphere.journal import schema

    monkeypatch.setattr(schema, "_LOOKS", 1)
    assert "took too long" in printed(journaling.runs, file)


@pytest.mark.parametrize(
    "words",
    ["journal export {}", "journal check {}", "runs --journal {}", "runs --json --journal {}", "show 1 --journal {}",
     "logs 1 --journal {}"],
)  # fmt: skip
def test_nothing_is_said_where_nobody_reads_any_more(file, words):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "scattersphere", *words.format(file).split()]
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    finally:
        os.close(writing)
    assert (done.stderr, done.returncode) == ("", 1)

"""What `run` shows while a run goes on: the board as events tell it, lines in a pipe, and nothing but JSON."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE
from rich.console import Console

from scattersphere.cli.jsonlines import JsonLines
from scattersphere.cli.progress import Board, PlainLines, Screen
from scattersphere.model.events import Event, EventKind
from scattersphere.model.states import RunState, TaskState

if TYPE_CHECKING:
    from pathlib import Path

NOON = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


def event(kind, task=None, state=None, **more):
    return Event(1, NOON, kind, 7, "night", task, state=state, **more)


def started(task, **more):
    return event(EventKind.TASK_STARTED, task, "running", attempt=1, **more)


def ended(task, state="succeeded", **more):
    return event(EventKind.TASK_ENDED, task, state, attempt=1, **more)


def board(*events, total=5, widths=None):
    found = Board(total, (widths or {}).get)
    for second, item in enumerate(events):
        found.note(item, float(second))
    return found


def test_what_executes_comes_first_then_what_failed_and_what_went_well_is_a_count():
    found = board(started("a"), started("b"), started("c"), ended("a", "failed"), ended("b"))
    rows, more = found.rows(10)
    assert [(row.name, row.state) for row in rows] == [("c", "running"), ("a", "failed")]
    assert (more, found.counts) == (0, {TaskState.FAILED: 1, TaskState.SUCCEEDED: 1})


@given(st.integers(-3, 8))
def test_what_has_no_room_is_counted(room):
    found = board(*(started(f"t{at}") for at in range(5)))
    rows, more = found.rows(room)
    assert len(rows) == min(max(room, 0), 5)
    assert len(rows) + more == 5


def test_a_bar_that_was_cancelled_stays_where_it_was():
    progress = event(EventKind.TASK_PROGRESS, "a", done=3.0, total=10.0)
    (entry,) = board(started("a"), progress, ended("a", "cancelled")).rows(9)[0]
    assert (entry.done, entry.total, entry.until, entry.live) == (3.0, 10.0, 2.0, False)


def test_the_bar_of_a_run_that_was_cancelled_stays_where_it_was_too_and_is_red_where_something_failed():
    """A cancelled run once ended with a full green bar."""
    went_well = board(started("a"), ended("a"))
    cancelled = board(
        started("a"), ended("a"), started("b"), ended("b", "cancelled"), ended("c", "cancelled"), total=3
    )
    failed = board(
        started("a"), ended("a", "failed"), ended("b", "cancelled"), ended("c", "upstream_failed"), total=3
    )
    assert [found.done for found in (went_well, cancelled, failed)] == [1, 1, 2]
    assert went_well.colour is None
    assert cancelled.colour not in {None, "green", "blue", "red"}
    assert failed.colour == "red"


def test_a_map_counts_its_instances_and_those_that_failed():
    events = [
        started("m"),
        started("m", index=0),
        started("m", index=1),
        ended("m", index=0),
        ended("m", "failed", index=1),
    ]
    (entry,) = board(*events, widths={"m": 4}).rows(9)[0]
    assert (entry.done, entry.total, entry.failed) == (2, 4, 1)


def test_the_state_of_the_run_is_that_of_its_last_event():
    found = board(
        event(EventKind.RUN_STARTED, state="running"), event(EventKind.RUN_PAUSING, state="pausing")
    )
    assert found.state is RunState.PAUSING


class SlowFile(io.StringIO):
    """A terminal that takes nothing until it is allowed to."""

    def __init__(self):
        super().__init__()
        self.open = threading.Event()
        self.tried = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        self.tried.set()
        self.open.wait(60)
        return super().write(text)


class FakeRun:
    """What a display asks of a run."""

    id = 7
    job = "night"

    class Tasks(dict):
        """Its tasks."""

        def width(self, name):
            return None

    tasks = Tasks({f"t{at}": None for at in range(300)})


def screen(out):
    return Screen(FakeRun(), Console(file=out, force_terminal=True, width=100, height=20, highlight=False))


def test_a_terminal_that_takes_nothing_holds_up_no_event():
    out = SlowFile()
    out.open.set()
    with screen(out) as display:
        out.open.clear()
        display.show([started("t0")])
        out.tried.clear()
        assert out.tried.wait(60)  # the display is drawing, and stuck
        for at in range(1, 300):
            display.show([started(f"t{at}"), event(EventKind.LOG, f"t{at}", message=f"line {at}", level=20)])
        out.open.set()
    assert "line 299" in out.getvalue()


def test_lines_of_the_log_stand_above_the_bars_with_nothing_that_steers_a_terminal():
    out = SlowFile()
    out.open.set()
    with screen(out) as display:
        display.show([started("t0")])
        display.show([event(EventKind.LOG, "t0", message="evil \x1b[2J \u202e\nnext", level=40)])
        display.say("a notice")
    text = out.getvalue()
    assert "ERROR: evil" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert text.index("a notice") < text.rindex("run 7 of night")


def test_in_a_pipe_each_event_is_a_plain_line_but_progress_and_instances():
    out, err = io.StringIO(), io.StringIO()
    with PlainLines(out, err) as display:
        display.show(
            [
                started("a"),
                started("m", index=3),
                event(EventKind.TASK_PROGRESS, "a", done=1.0, total=2.0),
                event(EventKind.LOG, "m", index=3, message="hello", level=20),
            ]
        )
        display.say("a notice")
    assert out.getvalue().splitlines() == [
        "12:00:00.000 task-started night#7 a running",
        "12:00:00.000 log night#7 m[3] INFO hello",
    ]
    assert err.getvalue() == "a notice\n"


class CountingFile(io.TextIOWrapper):
    """A file that counts what it is asked to do, and shows what a reader has of it."""

    def __init__(self):
        self.raw_file = io.BytesIO()
        super().__init__(self.raw_file, encoding="utf-8")
        self.writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)

    @property
    def read(self):
        return self.raw_file.getvalue().decode().splitlines()


@pytest.mark.parametrize("display_of", [PlainLines, JsonLines])
def test_in_a_pipe_what_comes_together_is_written_in_one_and_a_single_line_of_a_log_at_once(display_of):
    """A line a minute once stood in a buffer until a task ended."""
    out, lines = (
        CountingFile(),
        [event(EventKind.LOG, "a", message=f"line {at}", level=20) for at in range(200)],
    )
    with display_of(out, io.StringIO()) as display:
        display.show(lines)
        assert (out.writes, len(out.read)) == (1, 200)
        display.show([event(EventKind.LOG, "a", message="the next one", level=20)])
        assert (out.writes, len(out.read)) == (2, 201)
        assert "the next one" in out.read[-1]


# ---- as a shell sees it

BUNDLE = """
import os, subprocess, sys
import anyio
from scattersphere import RunnableTask

class Noise(RunnableTask):
    async def run(self, context):
        print("printed")
        os.write(1, b"written to the descriptor\\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"])
        return 1

class Wait(RunnableTask):
    async def run(self, context):
        await anyio.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w.py").write_text(BUNDLE)
    for task in ("Noise", "Wait"):
        job = {"name": "job", "bundles": {"w": "w.py"}, "tasks": {"one": {"task": f"w.{task}"}}}
        (tmp_path / f"{task}.json").write_text(json.dumps(job))
    (tmp_path / "bad.json").write_text('{"name": "job", "tasks": {"one": {"tsk": 1}}}')
    return tmp_path


def call(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "scattersphere", "run", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_with_json_the_output_is_json_whatever_tasks_and_their_children_write(folder: Path) -> None:
    done = call(folder, "Noise.json", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert lines[-1]["results"] == {"one": 1}
    assert "written to the descriptor" in done.stderr
    assert "from a child" in done.stderr


def test_with_json_an_error_is_json_too_with_each_problem_at_its_place(folder: Path) -> None:
    done = call(folder, "bad.json", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 3
    assert [(problem["path"], problem["line"]) for problem in error["problems"]] == [
        ("tasks.one.task", 1),
        ("tasks.one.tsk", 1),
    ]


@pytest.mark.parametrize("name", ["run.pdf", "run"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_runs(folder: Path, name: str) -> None:
    done = call(folder, "Noise.json", "--picture", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert ".svg, .png" in done.stderr


def test_a_picture_is_drawn_as_its_name_ends(folder: Path) -> None:
    assert call(folder, "Noise.json", "--picture", "run.svg").returncode == 0
    assert (folder / "run.svg").read_text().startswith("<svg ")


def test_on_a_terminal_ctrl_c_says_what_happens_and_the_bar_stays(folder: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scattersphere", "run", "Wait.json"],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(follower)
    text = ""
    try:
        while True:
            try:
                text += os.read(leader, 4096).decode(errors="replace")
            except OSError:  # Linux says so when the last writer has gone
                break
            if "1 running" in text and "Cancelling" not in text:
                process.send_signal(signal.SIGINT)
    finally:
        os.close(leader)
        process.wait(60)
    assert process.returncode == 130
    assert "Ctrl-C again kills it" in text
    assert "1 cancelled" in text
    assert "Traceback" not in text

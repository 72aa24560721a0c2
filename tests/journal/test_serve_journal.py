"""`serve` with a journal: what runs when the server is told to end goes on when it is started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from patience import PATIENCE

pytest.importorskip("click")

JOB = {"name": "sleepy", "tasks": {"wait": {"task": "Delay", "args": {"seconds": 100_000}}}}


def shell(folder, *words, code=0, **options):
    command = [sys.executable, "-m", "scattersphere", *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert done.returncode == code, done.stderr
    return done.stdout


class Said(list):
    """What the server said on stderr, when it has ended, and on stdout before."""

    def __init__(self, process):
        super().__init__()
        self.process = process
        self.start = []


@contextmanager
def served(folder, *words):
    """A server in `folder`, which is told to end at the end; gives its lines on stderr as they come."""
    environment = {name: value for name, value in os.environ.items() if name != "SCATTERSPHERE_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-m", "scattersphere", "serve", "--stock-tasks", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            said = Said(process)
            while not (line := process.stdout.readline()).startswith("ask it"):
                assert process.poll() is None, process.stderr.read()
                said.start.append(line)
            yield said
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE)
            said.append(errors)
            assert process.returncode == 0, errors
        finally:
            process.kill()


def states(folder):
    lines = shell(folder, "runs", "--journal", ".scattersphere/journal.db", "--json").splitlines()
    return [json.loads(line)["state"] for line in lines]


def test_a_run_goes_on_after_the_server_was_ended_and_started_again(tmp_path):
    (tmp_path / "sleepy.json").write_text(json.dumps(JOB))
    with served(tmp_path) as said:
        shell(tmp_path, "define", "sleepy.json")
        shell(tmp_path, "start", "sleepy")
        assert states(tmp_path) == ["running"]  # beside the server
    assert "suspending 1 run" in said[0]
    assert states(tmp_path) == ["running"]
    assert "is sound" in shell(tmp_path, "journal", "check", ".scattersphere/journal.db")
    with served(tmp_path):
        listed = shell(tmp_path, "runs")
        assert "sleepy" in listed
        assert "running" in listed
        shell(tmp_path, "cancel", "1")
        shell(tmp_path, "wait", "1", code=1)
    assert states(tmp_path) == ["cancelled"]


def test_a_journal_elsewhere_is_named_by_a_flag(tmp_path):
    with served(tmp_path, "--journal", "here.db"):
        assert (tmp_path / "here.db").exists()
        refused = shell(tmp_path, "journal", "prune", "here.db", "--keep", "1", code=3)
        assert refused == ""
    assert not (tmp_path / ".scattersphere" / "journal.db").exists()


BLOCKS = """
import time
from scattersphere import RunnableTask

class Block(RunnableTask):
    def run(self, context):
        time.sleep(100_000)
"""


def test_a_second_signal_does_not_wait_for_what_cannot_be_ended_and_the_run_goes_on(tmp_path):
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "blocks.py").write_text(BLOCKS)
    with served(tmp_path, "--bundles", "bundles") as said:
        shell(tmp_path, "start-task", "blocks.Block")
        said.process.send_signal(signal.SIGTERM)
        assert "suspending 1 run, which goes on" in said.process.stderr.readline()
    assert "SIGTERM again: killing 1 run, which goes on at the next start" in said[0]
    assert states(tmp_path) == ["running"]
    with served(tmp_path, "--bundles", "bundles") as said:
        assert said.start[-1] == "going on with 1 run (blocks.Block#1)\n"
        said.process.send_signal(signal.SIGTERM)

"""`scattersphere dev`: what a person sees while a bundle is edited, with real files and real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from patience import PATIENCE

from scattersphere.cli.scaffold import make_folder

if TYPE_CHECKING:
    from pathlib import Path


class Dev:
    """A running `scattersphere dev`."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "scattersphere", "dev", str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )

    def until(self, words: str) -> list[str]:
        """Read on to the line that holds `words`."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if words in line:
                return lines
        pytest.fail(f"{words!r} did not come; there was " + "\n".join(lines))

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, out
        assert "Traceback" not in out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder("hello", tmp_path)
    return tmp_path / "hello"


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "hello.py"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_save_is_shown_and_runs_the_job_again(folder: Path) -> None:
    dev = Dev(folder, "--run", "hello", "-p", "name=Ada")
    first = dev.until("run 1 of hello succeeded")
    assert any("greet: greeting Ada" in line for line in first)
    edit(folder, "greeting %s", "welcome, %s")
    second = dev.until("run 2 of hello succeeded")
    assert any("reloaded hello@" in line for line in second)
    assert any("greet: welcome, Ada" in line for line in second)
    assert [line.strip() for line in dev.until("HELLO ADA!")] == [
        "greet:",
        "hello Ada",
        "shout:",
        "HELLO ADA!",
    ]
    dev.end()


def test_an_edited_definition_runs_again_too(folder: Path) -> None:
    dev = Dev(folder, "--run", "hello")
    dev.until("run 1 of hello succeeded")
    file = folder / "hello.json"
    file.write_text(file.read_text(encoding="utf-8").replace("world", "Grace"), encoding="utf-8")
    assert any("greeting Grace" in line for line in dev.until("run 2 of hello succeeded"))
    dev.end()


def test_a_broken_save_is_told_with_its_line_and_the_last_good_version_stays(folder: Path) -> None:
    dev = Dev(folder, "--run", "hello")
    dev.until("run 1 of hello succeeded")
    edit(folder, "class Shout(", "(class Shout(")
    told = "\n".join(dev.until("SyntaxError: "))
    assert "bundle hello is broken; runs go on with the last good version" in told
    assert "hello.py" in told
    edit(folder, "(class Shout(", "class Shout(")
    dev.end()


def test_why_a_run_failed_is_told_as_it_happens(folder: Path) -> None:
    edit(folder, "return self.text.upper()", 'raise ValueError("too loud")')
    dev = Dev(folder, "--run", "hello")
    told = "\n".join([*dev.until("run 1 of hello failed"), *dev.until("! failed")])
    dev.end()
    assert 'raise ValueError("too loud")' in told
    assert told.count("Traceback") == 1
    assert "scattersphere/engine" not in told


def test_a_job_that_is_not_there_is_said_and_awaited(folder: Path) -> None:
    dev = Dev(folder, "--run", "helo")
    assert 'did you mean "hello"' in dev.until("no job")[-1]
    dev.end()


def test_in_json_every_line_is_an_object(folder: Path) -> None:
    dev = Dev(folder, "--run", "hello", "--json")
    lines = dev.until('"event":"run-ended"')
    first, *events = map(json.loads, lines)
    assert first["listening"].startswith("unix://")
    assert {"bundle-loaded", "job-defined", "run-started", "run-ended"} <= {
        event["event"] for event in events
    }
    dev.end()


def test_pages_are_opened_in_a_browser_which_is_logged_in_and_does_not_hold_the_server(
    folder: Path, tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    told = tmp_path / "told"
    os.mkfifo(told)  # this browser comes back when somebody has read which page it shows, and no sooner
    browser.write_text(f'#!/bin/sh\necho "$1" > {told}\n', encoding="utf-8")
    browser.chmod(0o700)
    dev = Dev(folder, "--open", BROWSER=f"{browser} %s")
    try:
        dev.until("pages at ")
        link = told.read_text(encoding="utf-8").strip()
        with httpx.Client(timeout=PATIENCE, follow_redirects=True, trust_env=False) as client:
            assert "Overview" in client.get(link).text
            jobs = client.get(link.partition("/login")[0] + "/jobs")
            assert jobs.status_code == 200
            assert "hello" in jobs.text
    finally:
        dev.end()

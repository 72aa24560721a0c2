"""The tutorial is typed, page after page, as it stands."""

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import PATIENCE
from talking import Talk

pytest.importorskip("click")
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
PAGES = ("first-job", "change-it", "from-afar", "testing-a-job")
PART = re.compile(
    r"^```(console|text|netcat)\n(.*?)^```$|^% edit (\S+): (.*?) -> (.*?)$", re.DOTALL | re.MULTILINE
)
ENDLESS = ("scattersphere dev", "scattersphere serve")


def fits(wanted, line):
    return re.fullmatch(".*".join(re.escape(part) for part in wanted.split("...")), line) is not None


class Program:
    """One that goes on: what it prints is read as it comes."""

    def __init__(self, command, folder, env):
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.skipping = False
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def expect(self, wanted):
        """Take lines until all of `wanted` came, in this order; `...` alone stands for any number of lines."""
        seen = []
        for line in wanted:
            if line == "...":
                self.skipping = True
                continue
            while True:
                try:
                    seen.append(self.lines.get(timeout=PATIENCE))
                except queue.Empty:
                    pytest.fail(f"waited for {line!r}, saw {seen}")
                if fits(line, seen[-1]):
                    break
                assert self.skipping, f"wanted {line!r}, saw {seen}"
            self.skipping = False
        return seen

    def end(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0
        self.reader.join(PATIENCE)
        self.process.stdout.close()


class Reader:
    """Who follows the tutorial: a folder, what runs in the other terminal, and the addresses that it told."""

    def __init__(self, folder):
        self.folder = folder
        self.program = None
        self.status = 0
        self.unix = self.port = "not told yet"
        scripts = str(Path(sys.executable).parent)
        self.env = os.environ | {
            "PATH": scripts + os.pathsep + os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "PYTEST_DEBUG_TEMPROOT": str(folder),
            "PYTHONIOENCODING": "utf-8",
        }
        self.env.pop("SCATTERSPHERE_TOKEN", None)

    def edit(self, file, old, new):
        path = self.folder / file
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    def console(self, block):
        commands = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for command in commands:
            typed, *wanted = command.splitlines()
            if typed.startswith(ENDLESS):
                self.start(typed, wanted)
            else:
                self.call(self.filled(typed), wanted)

    def filled(self, typed):
        return typed.replace("unix:.../s", f"unix:{self.unix}").replace("127.0.0.1:...", self.port)

    def start(self, command, wanted):
        self.end()
        self.program = Program(command, self.folder, self.env)
        first = "\n".join(self.program.expect(wanted))
        if found := re.search(r"unix://(\S+)", first):
            self.unix = found[1]
        if found := re.search(r"tcp://(\S+)", first):
            self.port = found[1]

    def end(self):
        if self.program is not None:
            self.program.end()
            self.program = None

    def call(self, command, wanted):
        done = subprocess.run(
            ["bash", "-c", f"(exit {self.status}); {command}"],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE * 3,
            check=False,
        )
        self.status = done.returncode
        pattern = "".join(
            "(.*\n)*?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + "\n"
            for line in wanted
        )
        assert re.fullmatch(pattern, done.stdout), f"{command}\n{done.stdout}"

    def netcat(self, block):
        first, *lines = block.splitlines()
        if shutil.which("nc") is None:
            pytest.skip("the program nc is not installed: apt-get install netcat-openbsd")
        talk = Talk(first.removeprefix("$ ").replace(".../s", self.unix).split())
        try:
            for line in lines:
                if line.startswith("> "):
                    talk.type(line[2:])
                elif line != "...":
                    talk.expect(line)
        finally:
            talk.close()


@pytest.mark.skipif(
    shutil.which("scattersphere", path=Path(sys.executable).parent) is None, reason="not installed"
)
def test_the_tutorial_can_be_typed_from_the_first_page_to_the_last(tmp_path):
    reader = Reader(tmp_path)
    try:
        for page in PAGES:
            for kind, block, file, old, new in PART.findall((TUTORIAL / f"{page}.md").read_text()):
                if kind == "console":
                    reader.console(block)
                elif kind == "netcat":
                    reader.netcat(block)
                elif file:
                    reader.edit(file, old, new)
                elif page == "change-it":  # what comes in the other terminal
                    reader.program.expect(block.splitlines())
    finally:
        reader.end()


def test_the_files_that_the_tutorial_shows_are_those_that_new_makes(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "scattersphere", "new", "letters"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert made.stderr == b""
    for shown in (TUTORIAL / "made").iterdir():
        assert shown.read_text() == (tmp_path / "letters" / shown.name).read_text()

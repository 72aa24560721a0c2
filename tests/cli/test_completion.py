"""Completion in real shells: commands, options and their values, as a person who presses Tab gets them."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from scattersphere.cli.commands import cli

CASES = [
    ("run", {"run", "runs", "run-task", "run-schedule"}),
    ("graph --format ", {"tree", "svg", "mermaid", "dot"}),
    ("logs --ta", {"--task", "--tail"}),
    ("runs --in-state succ", {"succeeded"}),
    ("token create ann --role o", {"operator"}),
    ("journal p", {"prune"}),
]
BASH = """
eval "$(scattersphere completion bash)"
while read -r -a words; do
    COMP_WORDS=(scattersphere "${words[@]/_/}"); COMP_CWORD=${#words[@]}; COMPREPLY=()
    _scattersphere_completion scattersphere
    echo "${COMPREPLY[*]}"
done
"""


def asked(shell, script, given=""):
    """Run a script in a shell that finds our command where this interpreter is."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [shell, "-c", dedent(script)],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_bash_completes_commands_options_and_values():
    lines = "".join(f"{words}_\n" if words.endswith(" ") else f"{words}\n" for words, _ in CASES)
    assert asked("bash", BASH, lines) == [found for _, found in CASES]


@pytest.mark.parametrize(("words", "found"), CASES, ids=[words for words, _ in CASES])
def test_fish_completes_commands_options_and_values(words, found):
    script = f"scattersphere completion fish | source; complete -C 'scattersphere {words}' | cut -f 1"
    assert set().union(*asked("fish", script)) == found


INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(scattersphere completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -D -u; eval "$(scattersphere completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "scattersphere completion fish | source"),
}


# A shell that is to complete has its terminal to itself, as a window gives it one.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class TypedShell:
    """A shell on a terminal of its own, which completes as somebody types."""

    def __init__(self, shell: str, folder: Path) -> None:
        words, setup = INTERACTIVE[shell]
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell}")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {
            **os.environ,
            "PATH": path,
            "TERM": "xterm",
            "COLUMNS": "120",
            "LINES": "40",
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
        }
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *words],
            cwd=folder,
            env=env,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self._limit = threading.Timer(PATIENCE, self._process.kill)
        self._limit.start()
        self.text = ""
        self.type(f"{setup}\necho set''up done\n")
        try:
            self.read_to("setup done")
        except BaseException:
            self.close()
            raise

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def read_to(self, words: str) -> None:
        """Read on until the words stand there."""
        seen = len(self.text)
        while words not in self.text[seen:]:
            try:
                self.text += os.read(self._terminal, 4096).decode(errors="replace")
            except OSError:  # Linux says so when the shell has gone
                pytest.fail(f"{words!r} did not come: {self.text!r}")

    def close(self) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.mark.parametrize("shell", sorted(INTERACTIVE))
def test_a_command_a_file_an_option_and_its_value_are_completed_by_tab(shell, tmp_path):
    job = {
        "name": "wide",
        "tasks": {"first": {"task": "b.A"}, "second_one": {"task": "b.A", "depends_on": ["first"]}},
    }
    (tmp_path / "wide.json").write_text(json.dumps(job))
    typed = TypedShell(shell, tmp_path)
    try:
        typed.type("scattersphere gra\twi\t--fo\ttr\t\n")
        typed.read_to("second_one")  # the command was carried out: what was typed were halves of words
    finally:
        typed.close()


def test_each_shell_is_told_how_to_take_it():
    told = CliRunner().invoke(cli, ["completion", "--help"]).output
    for shell in ("bash", "zsh", "fish"):
        assert f"scattersphere completion {shell}" in told
        made = CliRunner().invoke(cli, ["completion", shell])
        assert made.exit_code == 0
        assert f"_SCATTERSPHERE_COMPLETE={shell}_complete" in made.output


def test_the_names_of_commands_are_completed_without_loading_a_verb():
    program = "import sys; from scattersphere.cli.commands import cli; import click\n"
    program += "ctx = click.Context(cli); found = cli.shell_complete(ctx, 'r')\n"
    program += "print(sorted(item.value for item in found), 'scattersphere.cli.remote_verbs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split("]")[1].strip() == "False"
    assert "'rerun'" in done.stdout

"""Completion in real shells: commands, options and their values, as a person who presses Tab gets them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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

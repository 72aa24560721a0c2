"""`scattersphere run` as a shell sees it: what it prints where, and with which code it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from scattersphere.cli.commands import cli

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = dedent("""
    import anyio
    from scattersphere import RunnableTask, TaskContext

    class Echo(RunnableTask):
        value: int
        async def run(self, context: TaskContext) -> int:
            return self.value

    class Fail(RunnableTask):
        def run(self, context: TaskContext) -> None:
            raise ValueError("no [bold]luck[/bold]")

    class Wait(RunnableTask):
        async def run(self, context: TaskContext) -> None:
            await anyio.sleep(60)

    class Refuse(RunnableTask):
        async def run(self, context: TaskContext) -> None:
            while True:
                try:
                    await anyio.sleep(60)
                except anyio.get_cancelled_exc_class():
                    pass
""")


def scattersphere(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "scattersphere", *map(str, arguments)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        scattersphere(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(BUNDLE, encoding="utf-8")
    return tmp_path


def write(folder: Path, task: str, **more: Any) -> Path:
    path = folder / "job.json"
    entry = {"task": f"work.{task}", **more.pop("entry", {})}
    path.write_text(
        json.dumps({"name": "job", "bundles": {"work": "work.py"}, "tasks": {"one": entry}, **more}),
        encoding="utf-8",
    )
    return path


def echo(folder: Path) -> Path:
    return write(folder, "Echo", params={"n": 1}, entry={"args": {"value": {"$param": "n"}}})


def test_a_run_that_succeeds_shows_its_result_and_ends_with_0(folder: Path) -> None:
    done = call("run", echo(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "one:\n  1\n" in done.stdout
    assert "1 succeeded" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("words", [("-p", "n:=42"), ("n:=42",)])
def test_a_parameter_in_json_replaces_the_default(folder: Path, words: tuple[str, ...]) -> None:
    assert "one:\n  42\n" in call("run", echo(folder), *words).stdout


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("n", "write key=text"),
        ("n:={", "is no JSON"),
        ("n=text", "must be of type integer"),
        ("m:=1", "no such parameter"),
    ],
)
def test_a_wrong_parameter_is_a_wrong_command_line_2(folder: Path, option: str, complaint: str) -> None:
    done = call("run", echo(folder), "-p", option)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    "words", [("n:=1", "-p", "n:=42"), ("n:=1", "n=42"), ("-p", "n=1", "-p", "n:=1"), ("n:=1", "-p", "n:=1")]
)
def test_a_parameter_that_is_given_twice_is_a_wrong_command_line_2(
    folder: Path, words: tuple[str, ...]
) -> None:
    done = call("run", echo(folder), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "n is given twice" in done.stderr


def test_a_run_that_fails_ends_with_1_and_shows_the_traceback_of_the_task_alone(folder: Path) -> None:
    done = call("run", write(folder, "Fail"))
    assert done.returncode == 1
    assert "ValueError: no [bold]luck[/bold]" in done.stderr
    assert 'raise ValueError("no [bold]luck[/bold]")' in done.stderr
    assert "scattersphere/engine" not in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"name": "x", "tasks": {"a": {"tsk": "m.A"}}}', 'did you mean "'),
        ('{"name": "x", "bundles": {"b": "gone.py"}, "tasks": {}}', "gone.py"),
        (
            '{"name": "x", "bundles": {"w": "work.py"}, "tasks": {"a": {"task": "work.Ecko"}}}',
            'did you mean "work.Echo"',
        ),
        ('{"name": "x", "bundles": {"b": "broken.py"}, "tasks": {}}', "SyntaxError"),
        ('{"name": "x", "bundles": {"b": "../work.py"}, "tasks": {}}', "outside"),
        ("\xff", ":"),
    ],
)
def test_a_bad_file_ends_with_3_and_a_message_without_a_traceback(
    folder: Path, text: str, complaint: str
) -> None:
    (folder / "broken.py").write_text("def (", encoding="utf-8")
    (folder / "bad.json").write_bytes(text.encode("latin-1"))
    done = call("run", folder / "bad.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "bad.json" in done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_ends_with_3(folder: Path) -> None:
    done = call("run", folder / "none.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "none.json: No such file" in done.stderr


def test_for_a_folder_it_is_said_which_file_of_it_may_be_meant(folder: Path) -> None:
    (folder / "letters").mkdir()
    for name in ("letters.json", "job-definition.schema.json"):
        (folder / "letters" / name).write_text("{}", encoding="utf-8")
    for command in ("run", "next"):
        done = CliRunner().invoke(cli, [command, str(folder / "letters")])
        assert (done.exit_code, done.stdout) == (3, "")
        assert done.stderr.endswith(
            f"letters: Is a directory; write the file in it: {folder / 'letters' / 'letters.json'}\n"
        )


def start(definition: Path) -> subprocess.Popen[str]:
    """Start a run and return once its task executes."""
    process = subprocess.Popen(
        scattersphere("run", definition), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "task-started" in line:
            break
    return process


def test_ctrl_c_cancels_the_run_and_ends_with_130(folder: Path) -> None:
    with start(write(folder, "Wait")) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "job cancelled" in out
    assert "Traceback" not in err


def test_a_second_ctrl_c_kills_what_refuses(folder: Path) -> None:
    with start(write(folder, "Refuse")) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        for line in process.stdout:
            if "task-cancelling" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert "Killed: what executes is not waited for." in err
    assert "given up" not in out + err  # as it would be after the grace of a cancel
    assert process.returncode == 130
    assert "Traceback" not in err


def test_help_and_version_need_no_file() -> None:
    assert "Exit codes" in call("run", "--help").stdout
    assert call("version").stdout.startswith("scattersphere ")
    assert call("unheard-of").returncode == 2


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str, folder: Path) -> None:
    # None in sys.modules makes an import fail as if the package were not there.
    program = f"import sys; sys.modules[{missing!r}] = None; from scattersphere.cli import main; main()"
    command = [sys.executable, "-c", program, "run", str(echo(folder))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install click rich (the extra cli)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_loads_the_bundles_of_its_file_and_nothing_else_in_the_folder(folder: Path) -> None:
    (folder / "script.py").write_text(f"open({str(folder / 'was_run')!r}, 'w').close()", encoding="utf-8")
    assert call("run", echo(folder)).returncode == 0
    assert not (folder / "was_run").exists()

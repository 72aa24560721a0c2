"""The verbs of a server as commands: made from the one table, with the exit codes of the local ones."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from patience import PATIENCE

pytest.importorskip("click")
pytest.importorskip("rich")

import click
from click.testing import CliRunner

from scattersphere import JobDefinition
from scattersphere.cli import journaling, reaching, verbs
from scattersphere.cli.asking import Asked, refused_with
from scattersphere.cli.commands import cli
from scattersphere.cli.remote_run import event_of
from scattersphere.commands.help import TITLES
from scattersphere.commands.table import COMMANDS, GROUPS
from scattersphere.model.events import EventKind
from scattersphere.remote.client import RemoteError
from scattersphere.remote.render import to_table

GREETINGS = """
from scattersphere import RunnableTask


class Greet(RunnableTask):
    \"\"\"Say hello.\"\"\"

    name: str = "x"

    async def run(self, context):
        context.log.info("greeting %s", self.name)
        return f"hello {self.name}"


class Trip(RunnableTask):
    async def run(self, context):
        raise ValueError("a stone")


class Sleep(RunnableTask):
    async def run(self, context):
        import anyio

        context.log.info("asleep")
        await anyio.sleep_forever()
"""


def job(name, task="Greet", **more):
    return json.dumps({"name": name, "tasks": {"only": {"task": f"greetings.{task}", **more}}})


def test_each_command_of_the_table_is_a_command_here_or_about_a_session() -> None:
    table = {
        TITLES[group]: {
            row.name: f"{row.help}."
            for row in COMMANDS.values()
            if row.group == group and row.name not in verbs.OF_A_SESSION
        }
        for group in GROUPS
    }
    assert table == verbs.VERBS, "enter it in scattersphere/cli/verbs.py, too"
    assert set(COMMANDS) >= verbs.OF_A_SESSION
    shown = {name for names in verbs.groups(cli.commands).values() for name in names}
    for name in shown:
        made = cli.get_command(click.Context(cli), name)
        assert made.help.startswith(COMMANDS[name].help)
        flags = [flag for parameter in made.params for flag in parameter.opts]
        assert len(flags) == len(set(flags)), name
        given = {parameter.name for parameter in made.params}
        assert given >= COMMANDS[name].arguments.keys() - {COMMANDS[name].whole}, name
        assert given >= set(reaching.NAMES)


def test_help_shows_them_by_groups_and_each_has_its_own() -> None:
    told = CliRunner().invoke(cli, ["--help"]).output
    for title in TITLES.values():
        assert f"Of a server, by --at ADDRESS: {title}:" in told
    assert "  runs  " in told
    told = CliRunner().invoke(cli, ["logs", "--help"]).output
    assert "--tail N" in told
    assert "-f, --follow" in told
    assert "Example: scattersphere logs 17 count tail=20" in told


def test_a_wrong_command_line_is_2_and_says_what_is_meant(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(reaching.ADDRESS_VARIABLE, raising=False)
    for words, told in [
        (["rnus"], "no command 'rnus'; did you mean \"runs\"?"),
        (
            ["runs"],
            "no server has its socket in .scattersphere: start one with `scattersphere serve`, or give --at HOST",
        ),
        (["status", "--at", "x:1"], "run is missing: the number of a run"),
        (["status", "--at", "x:1", "7", "--run", "8"], "run is given twice"),
        (["status", "--at", "x:1", "--run", "seven"], "run must be an integer"),
        (["runs", "--at", "x:1", "limit=many"], "limit must be an integer"),
        (["runs", "--at", "x:1", "--in-state", "dead"], "'dead' is not one of"),
        (["define", "--at", "x:1"], "define takes one FILE, or - for standard input"),
    ]:
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 2, (words, done.output)
        assert told in done.output


def test_runs_and_logs_are_read_from_a_journal_where_one_is_named(tmp_path, monkeypatch) -> None:
    read = []
    monkeypatch.setattr(journaling, "runs", lambda file, **args: read.append(("runs", file, args)))
    monkeypatch.setattr(journaling, "logs", lambda file, **args: read.append(("logs", file, args)))
    file = tmp_path / "journal.db"
    file.touch()
    for words in (["runs", "hi", "--limit", "5"], ["logs", "7", "--tail", "3", "--json"]):
        done = CliRunner().invoke(cli, [*words, "--journal", str(file)])
        assert done.exit_code == 0, done.output
    assert read == [
        ("runs", str(file), {"job": "hi", "limit": 5, "as_json": False}),
        ("logs", str(file), {"run": 7, "tail": 3, "as_json": True}),
    ]
    assert CliRunner().invoke(cli, ["logs", "7", "-f", "--journal", str(file)]).exit_code == 2


def test_a_file_that_is_no_definition_is_3(tmp_path) -> None:
    done = CliRunner().invoke(cli, ["define", "--at", "x:1", str(tmp_path / "lost.json")])
    assert (done.exit_code, done.output) == (
        3,
        f"scattersphere: {tmp_path / 'lost.json'}: No such file or directory\n",
    )
    done = CliRunner().invoke(cli, ["define", "--at", "x:1", "-"], input="{'a': 1}")
    assert done.exit_code == 3
    assert done.output.startswith(
        "scattersphere: -: bad-request: no JSON"
        if "bad-request" in done.output
        else "scattersphere: -: no JSON"
    )


@pytest.mark.parametrize(
    ("code", "args", "status"),
    [
        ("no-such-run", {"run": 9}, 1),
        ("forbidden", {}, 1),
        ("bad-args", {}, 2),
        ("invalid-job", {"job": "x"}, 3),
    ],
)
def test_a_refusal_has_the_exit_code_that_the_same_mistake_has_with_a_file(code, args, status) -> None:
    error = RemoteError({"code": code, "message": "no"})
    assert refused_with(error, Asked("x", args, follow=False, as_lines=False)) == status
    if code == "invalid-job":
        assert refused_with(error, Asked("start", args | {"params": {}}, follow=False, as_lines=False)) == 2


def test_a_table_is_as_wide_as_the_terminal_and_no_wider() -> None:
    rows = [
        {"name": "n" * 50, "state": "succeeded", "reason": "r" * 200},
        {"name": "b", "state": "failed", "reason": ""},
    ]
    wide = to_table({"n": 1, "result": {"rows": rows}})
    assert "r" * 200 in wide
    for width in (100, 60, 40):
        lines = to_table({"n": 1, "result": {"rows": rows}}, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "..." in lines[2]
        assert "succeeded" in lines[2]
    assert to_table({"n": 1, "result": {"rows": rows[1:]}}, 60) == to_table(
        {"n": 1, "result": {"rows": rows[1:]}}
    )


def test_columns_that_have_no_room_are_named() -> None:
    """The twelve columns of `schedules` were ninety wide on a terminal of eighty."""
    row = {f"column{number}": "x" * 20 for number in range(12)}
    for width in (80, 40, 10):
        head, line, more = to_table({"n": 1, "result": {"rows": [row]}}, width).splitlines()[1:4]
        assert max(map(len, (head, line, more))) <= width
        assert line.startswith("xx")
        assert more.startswith(("no room", "no r..."))
    assert "no room for: column6, column7, " in to_table({"n": 1, "result": {"rows": [row]}}, 80)
    assert "no room" not in to_table({"n": 1, "result": {"rows": [row]}}, 150)


def test_an_event_of_a_newer_server_is_shown_as_a_line_and_others_as_they_were() -> None:
    row = {
        "event": "task-ended",
        "sub": 1,
        "seq": 4,
        "ts": "2026-11-30T13:37:12.817Z",
        "run": 3,
        "job": "hi",
        "task": "a",
        "attempt": 2,
        "state": "failed",
        "message": "no",
    }
    event = event_of(row)
    assert (event.kind, event.run, event.attempt, event.state) == (EventKind.TASK_ENDED, 3, 2, "failed")
    assert str(event) == "13:37:12.817 task-ended hi#3 a/2 failed no"
    assert event_of(row | {"event": "log", "level": "ERROR"}).level == 40
    assert event_of({"event": "run-teleported"}).message == "run-teleported"


# ---- for real


@pytest.fixture
def served(tmp_path):
    """A folder in which `scattersphere serve` was started without an address, and what it has said."""
    (tmp_path / "bundles").mkdir(mode=0o755)
    source = tmp_path / "bundles" / "greetings.py"
    source.write_text(GREETINGS)
    source.chmod(0o644)
    command = [sys.executable, "-m", "scattersphere", "serve", "--bundles", "bundles"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            yield tmp_path, [server.stdout.readline().rstrip("\n") for _ in range(3)]
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=PATIENCE)


def shell(folder, *words, status=0, given=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCATTERSPHERE_")}
    done = subprocess.run(
        [sys.executable, "-m", "scattersphere", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=folder,
        env=environment,
        input=given,
    )
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return done


def test_serve_without_an_address_is_asked_from_the_same_folder(served):
    folder, said = served
    assert said == [
        f"listening on unix://{folder}/.scattersphere/socket",
        "serving 1 bundle (greetings) and 0 jobs",
        "ask it from another shell: scattersphere runs",
    ]
    state = folder / ".scattersphere"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert shell(folder, "define", "-", given=job("hi")).stdout == "job: hi\nstate: ready\nproblems: -\n"
    (folder / "sleepy.json").write_text(job("sleepy", "Sleep"))
    shell(folder, "define", "sleepy.json")
    assert "no definition" not in shell(folder, "define", "sleepy.json", status=1).stderr  # it exists
    shell(folder, "define", "sleepy.json", "--replace")
    shell(folder, "define", "-", status=3, given='{"name": "hi", "tasks": {"a": {"tsak": "x"}}}')
    assert shell(folder, "validate", "--state", state, "sleepy.json").stdout == "problems: -\n"
    wrong = shell(folder, "validate", "--state", state, "-", status=3, given=job("hi", "Gret")).stdout
    assert "did you mean" in wrong

    (folder / "hi").mkdir()  # a job may be called like a folder here
    told = shell(folder, "run", "--state", state, "hi").stdout
    assert "log hi#1 only INFO greeting x" in told
    assert told.endswith("run: 1\nstate: succeeded\nresults.only: hello x\n")
    shell(folder, "define", "-", given=job("bad", "Trip"))
    told = shell(folder, "run", "--at", f"unix:{state}/socket", "bad", status=1).stdout
    assert "only failed: ValueError: a stone" in told
    lines = shell(folder, "run", "--state", state, "bad", "--json", status=1).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [rows[0]["event"], rows[-1]["run"]["state"]] == ["run-started", "failed"]
    lines = shell(folder, "run", "--state", state, "hi", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["results"] == {"only": "hello x"}
    assert shell(folder, "runs", "--in-state", "succeeded", "--limit", 5).stdout.split()[5:8] == [
        "4",
        "hi",
        "succeeded",
    ]
    refused = shell(folder, "start", "hi", "-p", "m=1", status=2).stderr
    assert "job 'hi' has no such parameter" in refused.splitlines()[1]
    assert (state / "audit.jsonl").read_text().count('"define"')
    assert any((state / "logs").rglob("*"))


def test_next_and_schema_ask_a_server_where_one_is_named(served):
    folder, _ = served
    timed = json.loads(job("timed")) | {
        "schedules": {
            "early": {"cron": "30 2 * * *", "zone": "Europe/Berlin"},
            "off": {"every": 60, "enabled": False},
        }
    }
    for one in (timed, json.loads(job("idle"))):
        shell(folder, "define", "-", given=json.dumps(one))
    there = ("--state", ".scattersphere")
    (folder / "timed").mkdir()
    told = shell(folder, "next", "timed", *there, "-n", 2).stdout.splitlines()
    assert [line for line in told if not line.startswith(" ")] == [
        "early: at 02:30 every day (Europe/Berlin)",
        "off: every minute; it is not enabled",
    ]
    assert len(told) == 6
    assert "02:30:00 +0" in told[1]
    (row,) = shell(folder, "next", "timed", *there, "--schedule", "early", "--json").stdout.splitlines()
    local = json.loads(
        shell(folder, "next", "-", "--schedule", "early", "--json", given=json.dumps(timed)).stdout
    )
    assert json.loads(row).keys() == local.keys()
    assert {name: json.loads(row)[name] for name in ("schedule", "words", "zone", "enabled")} == {
        name: local[name] for name in ("schedule", "words", "zone", "enabled")
    }
    assert shell(folder, "next", "idle", *there).stdout == "idle has no schedules\n"
    assert (
        "it has early, off" in shell(folder, "next", "timed", *there, "--schedule", "erly", status=1).stderr
    )
    assert (
        "from now on"
        in shell(folder, "next", "timed", *there, "--since", "2026-01-01T00:00:00Z", status=2).stderr
    )
    found = json.loads(shell(folder, "schema", *there).stdout)
    assert found == JobDefinition.schema()
    shell(folder, "schema", *there, "job.schema.json")
    assert json.loads((folder / "job.schema.json").read_text()) == found
    assert "made here" in shell(folder, "schema", *there, "--bundle", "bundles/greetings.py", status=2).stderr


def test_ctrl_c_cancels_a_run_elsewhere_and_says_so(served):
    folder, _ = served
    shell(folder, "define", "-", given=job("sleepy", "Sleep"))
    command = [sys.executable, "-m", "scattersphere", "run", "--state", ".scattersphere", "sleepy"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    ) as running:
        while "asleep" not in running.stdout.readline():
            pass
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert "Cancelling: nothing new starts" in err
    assert "run-ended sleepy#1 cancelled" in out


def test_tokens_lie_in_the_state_folder_and_what_is_printed_into_a_file_is_private(tmp_path):
    state = tmp_path / "state"
    shell(tmp_path, "token", "create", "ann", "--role", "viewer", "--state", state, "--out", "tok")
    assert stat.S_IMODE((tmp_path / "tok").stat().st_mode) == 0o600
    assert (tmp_path / "tok").read_text().startswith("ss1_")
    assert (
        "File exists"
        in shell(
            tmp_path, "token", "create", "bob", "--role", "viewer", "--state", state, "--out", "tok", status=3
        ).stderr
    )
    head, row = shell(tmp_path, "token", "list", "--state", state).stdout.splitlines()
    assert head.split() == ["id", "name", "role", "patterns", "created", "expires", "live"]
    assert row.split()[1:3] == ["ann", "viewer"]
    assert "say once who it is for" in shell(tmp_path, "token", "create", "--role", "viewer", status=2).stderr
    shell(tmp_path, "token", "revoke", "ann", "--state", state)
    assert shell(tmp_path, "token", "list", "--state", state).stdout == ""


def test_more_times_than_a_server_tells_are_refused_before_it_is_asked() -> None:
    done = CliRunner().invoke(cli, ["next", "job", "-n", "101", "--at", "127.0.0.1:1"])
    assert done.exit_code == 2
    assert "write -n 100" in done.output

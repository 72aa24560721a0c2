"""`scattersphere new`, `--json` and `serve --config`: what a shell sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, ServerOptions, SourceLimits, WatchDelays
from scattersphere.cli import serving
from scattersphere.remote import Limits

if TYPE_CHECKING:
    from pathlib import Path


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scattersphere", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def test_what_new_makes_runs_as_it_says(tmp_path: Path) -> None:
    made = call(tmp_path, "new", "hello")
    assert (made.returncode, made.stderr) == (0, "")
    command, test = made.stdout.splitlines()[-2:]
    done = call(tmp_path, *command.removeprefix("try: scattersphere ").split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "HELLO ADA!" in done.stdout
    tested = subprocess.run(
        [sys.executable, *test.removeprefix("test: python ").split(), "-p", "no:asyncio", "-p", "no:trio"],
        env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert "2 passed" in tested.stdout


def test_what_new_makes_is_what_the_loader_would_save(tmp_path: Path) -> None:
    call(tmp_path, "new", "hello")
    job = tmp_path / "hello" / "hello.json"
    assert JobDefinition.load(job).dumps() == job.read_text(encoding="utf-8")
    schema = json.loads((job.parent / "job-definition.schema.json").read_text(encoding="utf-8"))
    assert schema == JobDefinition.schema()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("my-job", "try 'my_job'"),
        ("class", "cannot be the name"),
        ("json", "module of Python's own library"),
        ("scattersphere", "take another name"),
        ("", "cannot be the name"),
        ("../up", "try 'up'"),
    ],
)
def test_new_refuses_a_name_that_no_bundle_can_have(tmp_path: Path, name: str, complaint: str) -> None:
    done = call(tmp_path, "new", name)
    assert (done.returncode, done.stdout) == (3, "")
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_new_never_touches_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    mine = tmp_path / "hello" / "hello.py"
    mine.write_text("mine", encoding="utf-8")
    done = call(tmp_path, "new", "hello")
    assert done.returncode == 3
    assert "hello.py: there already" in done.stderr
    assert mine.read_text(encoding="utf-8") == "mine"
    assert list(mine.parent.iterdir()) == [mine]


def test_a_run_in_json_is_its_events_and_then_the_run_with_its_results(tmp_path: Path) -> None:
    call(tmp_path, "new", "hello")
    done = call(tmp_path, "run", "hello/hello.json", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *events, last = map(json.loads, done.stdout.splitlines())
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["event"], events[-1]["event"]) == ("run-started", "run-ended")
    assert last["run"]["state"] == "succeeded"
    assert last["results"] == {"greet": "hello world", "shout": "HELLO WORLD!"}


def test_version_tells_json_what_it_tells_people(tmp_path: Path) -> None:
    told = json.loads(call(tmp_path, "version", "--json").stdout)
    assert (
        call(tmp_path, "version").stdout
        == f"scattersphere {told['scattersphere']}, Python {told['python']}\n"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tcpp = ['127.0.0.1:0']", 'unknown key "tcpp"; did you mean "tcp"?'),
        ("tls_cert = 'x'", 'did you mean "tls-cert"?'),
        ("tcp = '127.0.0.1:0'", '"tcp" is a list of strings'),
        ("stock-tasks = 1", '"stock-tasks" is true or false'),
        ("unix = 5", '"unix" is a string'),
        ("tcp = [", "Invalid value"),
        ("zzz = 1\nunix = 5", '"unix" is a string'),
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("limits = 5", '"limits" is a table'),
        ("server = 5", '"server" is a table'),
        (
            "[server]\nthraeds = 5\nthreads = 0",
            'unknown option "thraeds"; did you mean "threads"?; threads is at least 1',
        ),
        ("[server]\njob_folder = 'x'", '"job_folder" is the option jobs'),
        ("[server]\nwatch = { settle = -1 }", "settle is a number of seconds, at least 0, not -1"),
        ("[server]\nbundle_limits = { kept = 'x' }", "kept is an int, not str"),
        ("[limits]\nidel = 5", 'unknown limit "idel"; did you mean "idle"?'),
        ("[limits]\nidle = 'x'\nrate = -1\nsessions = 1.5", 'limit "sessions" is a whole number'),
        ("[limits]\nidle = true", 'limit "idle" is a number above 0'),
        ("[limits]\nrate = nan", 'limit "rate" is a number above 0'),
    ],
)
def test_a_wrong_configuration_is_refused_with_all_that_is_wrong(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "serve.toml").write_text(text, encoding="utf-8")
    done = call(tmp_path, "serve", "--config", "serve.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "serve.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_says_what_flags_say_and_flags_override_it(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "serve.toml").write_text("jobs = 'gone'\ntcp = ['127.0.0.1:0']\n", encoding="utf-8")
    done = call(tmp_path, "serve", "--config", "conf/serve.toml")
    assert done.returncode == 2
    assert "conf/gone' does not exist" in done.stderr
    done = call(tmp_path, "serve", "--config", "conf/serve.toml", "--jobs", ".", "--tcp", "nonsense")
    assert done.returncode != 0
    assert "nonsense" in done.stderr


def test_every_limit_can_be_set_in_the_file_of_serve(tmp_path: Path) -> None:
    """Those of sessions, of bundles, of watching; and whatever else of the Server is a number or a switch."""
    file = tmp_path / "serve.toml"
    limits = {name: 2 * value for name, value in attrs.asdict(Limits()).items()}
    options = ServerOptions()
    nested = {"watch": WatchDelays(), "bundle_limits": SourceLimits()}
    tables: dict[str, dict[str, Any]] = {
        f"server.{name}": {inner: 2 * value for inner, value in attrs.asdict(of).items()}
        for name, of in nested.items()
    }
    plain = {
        field.name: value
        for field in attrs.fields(ServerOptions)
        if isinstance(value := getattr(options, field.name), int | float)
        and field.name not in {"watch", "watch_jobs"}
    }
    tables = {"limits": limits, "server": plain, **tables}
    file.write_text(
        "\n".join(
            f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
            for name, table in tables.items()
        )
    )
    assert attrs.asdict(serving.reread_limits(file)) == limits
    assert attrs.asdict(serving.limits_of(file, limits)) == limits
    found = serving.server_of(file, tomllib.loads(file.read_text())["server"])
    assert {name: found[name] for name in plain} == plain
    assert {f"server.{name}": attrs.asdict(found[name]) for name in nested} == {
        name: tables[name] for name in tables if name.startswith("server.")
    }

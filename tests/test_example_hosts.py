"""The examples of hosts run as their pages say, each as a program of its own."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
HOSTS = ROOT / "examples" / "hosts"
NIGHTLY = ROOT / "examples" / "nightly"


def output_of(*command: str, cwd: Path = HOSTS) -> str:
    """Run a program to its end, and return what it printed; it may complain of nothing."""
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_synchronous_script() -> None:
    lines = output_of("script.py").splitlines()
    assert "run 1: 3 of 3" in lines  # quick progress is thinned out, the last one comes
    assert "run 1: succeeded, 3" in lines
    assert lines[-1] == "run 2: succeeded, 4"


def test_the_trio_program() -> None:
    pytest.importorskip("trio")
    lines = output_of("trio_program.py").splitlines()
    assert "task-ended count succeeded" in lines
    assert "result: 2" in lines


def test_two_servers_in_one_process() -> None:
    assert output_of("two_servers.py") == "[(1, 'succeeded'), (1, 'succeeded')]\n"


def test_the_live_view() -> None:
    pytest.importorskip("rich")
    shown = output_of("live.py")
    assert len(re.findall("succeeded", shown)) >= 3
    assert "counted to 20" in shown


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program that goes on until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=HOSTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read on until a line holds `words`."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError("".join(seen))


def test_the_asyncio_service_runs_its_job_until_it_is_told_to_end() -> None:
    with running("service.py", "0.01") as service:
        line_with(service, "run 2 succeeded")
        service.send_signal(signal.SIGTERM)
        line_with(service, "bye")
        assert service.wait(PATIENCE) == 0


def test_the_web_application_starts_a_job_and_streams_its_events() -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    with running("-m", "uvicorn", "web:app", "--port", "0", "--timeout-graceful-shutdown", "5") as host:
        address = re.search(r"http://\S+", line_with(host, "Uvicorn running on"))
        assert address
        with httpx.Client(base_url=address[0], timeout=60) as client:
            answer = client.post("/jobs/count", json={"n": 3})
            assert (answer.status_code, answer.json()) == (202, {"run": 1, "events": "/runs/1/events"})
            events = client.get("/runs/1/events").text.split("\n\n")  # the stream ends with the run
            kinds = [event.split("event: ")[1].split("\n")[0] for event in events if event]
            assert kinds[0] == "run-started"
            assert kinds.count("task-progress") >= 1
            assert kinds[-1] == "run-ended"
            again = client.get("/runs/1/events", headers={"Last-Event-ID": str(len(kinds) - 1)}).text
            assert again.split("event: ")[1].startswith("run-ended")
            assert client.post("/jobs/count", json={"n": "many"}).status_code == 422
            assert client.get("/runs/99/events").status_code == 404
            client.post("/jobs/count", json={"n": 1_000_000})  # it still runs when the host is told to end
        host.send_signal(signal.SIGINT)
        line_with(host, "Application shutdown complete")
        host.wait(PATIENCE)


def test_the_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run its cells one after the other on a loop that runs already, with `await` at the top, as IPython does."""
    notebook = json.loads((HOSTS / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.syspath_prepend(HOSTS)
    space: dict[str, object] = {"__name__": "__main__"}

    async def kernel() -> list[object]:
        shown = []
        for cell in cells:
            tree = ast.parse(cell)
            if isinstance(tree.body[-1], ast.Expr):  # the value of a last expression is what a cell shows
                tree.body[-1] = ast.parse("_ = 0").body[0]
                tree.body[-1].value = ast.parse(cell).body[-1].value  # type: ignore[attr-defined]
            code = compile(ast.fix_missing_locations(tree), "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, space)
            if inspect.isawaitable(result):
                await result
            shown.append(space.pop("_", None))
        return shown

    shown = asyncio.run(kernel())
    monkeypatch.delitem(sys.modules, "jobs", raising=False)
    assert shown[-2] == 3
    assert "run 1 of count: succeeded" in capsys.readouterr().out


def test_the_tutorial_of_rehearsals(tmp_path: Path) -> None:
    told = output_of(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:asyncio",
        "-p",
        "no:trio",
        f"--basetemp={tmp_path / 'base'}",
        cwd=NIGHTLY,
    )
    assert "5 passed" in told


def test_what_the_tutorial_shows_is_in_the_file() -> None:
    page = (ROOT / "docs" / "tutorial" / "testing-a-job.md").read_text(encoding="utf-8")
    tests = (NIGHTLY / "test_nightly.py").read_text(encoding="utf-8")
    named = re.findall(r":start-after: \"(.*)\"\n:end-before: \"(.*)\"", page)
    assert named
    for begin, end in named:
        assert begin in tests
        assert end in tests

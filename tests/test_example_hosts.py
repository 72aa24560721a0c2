"""The examples of hosts run as their pages say, each as a program of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE
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


@contextlib.contextmanager
def served(application: str) -> Iterator[Any]:
    """Serve an ASGI application with uvicorn, as a program of its own; give a client of it."""
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("uvicorn")
    with running("-m", "uvicorn", application, "--port", "0", "--timeout-graceful-shutdown", "5") as host:
        address = re.search(r"http://\S+", line_with(host, "Uvicorn running on"))
        assert address
        with httpx.Client(base_url=address[0], timeout=PATIENCE) as client:
            yield client
        host.send_signal(signal.SIGINT)
        line_with(host, "Application shutdown complete")
        host.wait(PATIENCE)


def test_the_web_application_starts_a_job_and_streams_its_events() -> None:
    pytest.importorskip("starlette")
    with served("web:app") as client:
        answer = client.post("/jobs/count", json={"n": 3}, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()) == (202, {"run": 1, "events": "/runs/1/events"})
        again = client.post("/jobs/count", json={"n": 3}, headers={"Idempotency-Key": "k"})
        assert again.json()["run"] == 1
        events = client.get("/runs/1/events").text.split("\n\n")  # the stream ends with the run
        kinds = [event.split("event: ")[1].split("\n")[0] for event in events if event]
        assert kinds[0] == "run-started"
        assert kinds.count("task-progress") >= 1
        assert kinds[-1] == "run-ended"
        again = client.get("/runs/1/events", headers={"Last-Event-ID": str(len(kinds) - 1)}).text
        assert again.split("event: ")[1].startswith("run-ended")
        assert refusal(client.post("/jobs/count", json={"n": "many", "m": 1})) == (
            422,
            "invalid-job",
            ["params.m", "params.n"],
        )
        assert refusal(client.post("/jobs/cuont", json={})) == (404, "no-such-job", [])
        assert refusal(client.get("/runs/99/events")) == (404, "no-such-run", [])
        assert refusal(client.post("/runs/1/cancel")) == (409, "conflict", [])
        client.post("/jobs/count", json={"n": 1_000_000})  # it still runs when the host is told to end


def refusal(answer: Any) -> tuple[int, str, list[str]]:
    """Return what a problem document says: its status, its code, where its problems are."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["detail"]
    return answer.status_code, document["code"], [problem["path"] for problem in document.get("problems", [])]


def test_the_fastapi_application() -> None:
    pytest.importorskip("fastapi")
    with served("fastapi_app:app") as client:
        assert client.post("/counts", json={"n": 3}).status_code == 202
        assert client.get("/counts/1", params={"wait": 60}).json() == {
            "run": 1,
            "state": "succeeded",
            "result": 3,
        }
        assert client.post("/counts", json={"n": 0}).status_code == 422  # pydantic's own
        assert refusal(client.get("/counts/9")) == (404, "no-such-run", [])
        assert refusal(client.delete("/counts/1")) == (409, "conflict", [])


def test_the_django_site_by_its_views_and_by_its_command() -> None:
    pytest.importorskip("django")
    with served("django_site.asgi:application") as client:
        assert client.post("/counts", json={"n": 3}).json() == {"run": 1, "state": "running"}
        assert client.get("/counts/1").json() == {"run": 1, "state": "succeeded", "result": 3}
        assert refusal(client.post("/counts", json={"n": "x"})) == (422, "invalid-job", ["params.n"])
        assert refusal(client.get("/counts/9")) == (404, "no-such-run", [])
    command = "import sys; from django.core.management import execute_from_command_line as run; run(sys.argv)"
    shown = output_of("-c", command, "count", "3", "--settings", "django_site.settings")
    assert shown.splitlines()[-1].endswith("counted to 3")


def test_the_flask_application_from_several_threads() -> None:
    pytest.importorskip("flask")
    program = """
import concurrent.futures, flask_app
client = flask_app.app.test_client
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    begun = [answer.json["run"] for answer in pool.map(lambda n: client().post("/counts", json={"n": n}), range(1, 9))]
    ended = [client().get(f"/counts/{run}").json["result"] for run in begun]
wrong = client().post("/counts", json={"n": "x"})
print(ended, client().get("/counts/99").status_code, wrong.status_code, wrong.mimetype)
"""
    assert output_of("-c", program) == f"{list(range(1, 9))} 404 422 application/problem+json\n"


def test_the_terminal_program_made_with_textual() -> None:
    pytest.importorskip("textual")
    program = """
import asyncio
from textual_app import Counter
async def press():
    app = Counter()
    async with app.run_test() as pilot:
        await pilot.click("#start")
        while not app.server.runs:
            await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.press("s")
        while len(app.server.runs) < 2:
            await pilot.pause()
        await pilot.press("c")
        await app.workers.wait_for_complete()
        print([str(run.state) for run in app.server.runs.values()], app.query_one("ProgressBar").progress)
asyncio.run(press())
"""
    shown = output_of("-c", program)
    assert shown.startswith("['succeeded', 'cancelled']")


def test_the_notebook_in_a_real_kernel() -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    program = f"""
import nbclient, nbformat, warnings
warnings.simplefilter("ignore")  # of zmq and jupyter
notebook = nbformat.read("notebook.ipynb", 4)
nbclient.NotebookClient(notebook, timeout={PATIENCE}, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(cell.id, output.get("text", ""), sorted(output.get("data", ())))
        print(output.get("data", {{}}).get("text/html", "")[:30])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HOSTS,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )  # the kernel complains of its own transport, so its errors are not looked at
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    # The job, the run as it begins, the run as it ended, the Server.
    assert shown.count('<div class="scattersphere">') == 4
    assert "run 1 of count: succeeded" in shown


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

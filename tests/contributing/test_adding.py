"""What `docs/contributing/adding.md` shows is put into a copy of the package, and found wherever it has to be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

import scattersphere

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "adding.md"
HOW_TO = PAGE.parents[1] / "how-to"
BLOCK = re.compile(
    r"""^```\{code-block\} \w+\n:caption: (?P<path>\S+?)(?:, (?P<side>before|after) "(?P<anchor>[^\n]*)")?\n\n(?P<text>.*?)^```$""",
    re.DOTALL | re.MULTILINE,
)
MOST_FILES = 3


class Addition(NamedTuple):
    """One block of the page."""

    section: str
    path: str
    side: str
    anchor: str
    text: str


def additions() -> list[Addition]:
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title = section.partition("\n")[0]
        found += [
            Addition(title, *(group or "" for group in block.groups())) for block in BLOCK.finditer(section)
        ]
    return found


def add(root: Path, addition: Addition) -> None:
    """Put a block in its place: before the line that holds the anchor, after it, or into a file of its own."""
    path = root / addition.path
    if not addition.anchor:
        path.write_text(addition.text, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if addition.anchor in line]
    assert places, (
        f"{addition.path} has no line with {addition.anchor!r}: docs/contributing/adding.md is out of date"
    )
    place = places[0]
    if addition.side == "after":
        place += 1
    else:
        while lines[place - 1].startswith("@"):  # before the decorators too
            place -= 1
    gap = ["\n", "\n"] if re.match(r"(@|def |class )", addition.text) else []
    lines[place:place] = [addition.text, *gap]
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which everything that the page shows was added."""
    root = tmp_path_factory.mktemp("package")
    source = Path(scattersphere.__file__).parent
    shutil.copytree(source, root / "scattersphere", ignore=shutil.ignore_patterns("__pycache__"))
    for addition in additions():
        add(root, addition)
    for name in ("own-backend", "own-journal"):
        (root / f"{name.replace('-', '_')}.py").write_text(shown_first(name), encoding="utf-8")
    return root


def shown_first(name: str) -> str:
    """Return the first program of a how-to: the thing itself, before it is used."""
    return (HOW_TO / f"{name}.md").read_text(encoding="utf-8").split("```python\n")[1].partition("```")[0]


def run(root: Path, program: str) -> object:
    """Run a program with the copy; it prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_that_is_added_touches_more_than_three_files() -> None:
    by_section = groupby(additions(), lambda addition: addition.section)
    files = {section: {addition.path for addition in blocks} for section, blocks in by_section}
    assert len(files) >= 5
    assert {section: paths for section, paths in files.items() if len(paths) > MOST_FILES} == {}


RULE = """
import anyio, json
from scattersphere import JobDefinition, RunnableTask, Server

class Wait(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()

class End(RunnableTask):
    async def run(self, context):
        return context.task

async def main():
    job = JobDefinition.loads(json.dumps({"format": 1, "name": "j", "tasks": {
        "fast": {"task": "End"}, "slow": {"task": "Wait"},
        "first": {"task": "End", "depends_on": ["fast", "slow"], "trigger_rule": "one_done"},
    }}))
    async with Server(grace=0.1) as server:
        server.register_tasks("app", [Wait, End])
        run = await server.start(job)
        async for event in run.events():
            if event.task == "first" and event.state == "succeeded":
                run.kill()
        states = {name: str(task.state) for name, task in run.tasks.items()}
    rules = JobDefinition.schema()["properties"]["tasks"]["additionalProperties"]["properties"]["trigger_rule"]
    print(json.dumps([states, "one_done" in json.dumps(rules)]))

anyio.run(main)
"""


def test_a_trigger_rule_that_was_added_decides_and_is_in_the_schema(root: Path) -> None:
    assert run(root, RULE) == [{"fast": "succeeded", "slow": "cancelled", "first": "succeeded"}, True]


COMMAND = """
import anyio, json
from scattersphere import Server
from scattersphere.commands import handlers
from scattersphere.commands.table import COMMANDS
from scattersphere.remote.client import connect
from scattersphere.web.openapi import openapi

async def main():
    async with Server() as server, server.listen(unix="socket"), connect("unix:socket") as client:
        said = await client.call("echo", text="Grüße")
        try:
            await client.call("echo")
        except Exception as error:
            wrong = str(error)
    print(json.dumps([said, wrong, COMMANDS["echo"].help, "get" in openapi("")["paths"]["/api/v1/echo"]]))

_ = handlers
anyio.run(main)
"""


def test_a_command_that_was_added_is_on_the_wire_in_help_and_in_http(root: Path) -> None:
    pytest.importorskip("starlette")
    said, wrong, help_, in_openapi = run(root, COMMAND)
    assert said["text"] == "Grüße"
    assert "text" in wrong
    assert help_ == "Say a text again"
    assert in_openapi


FIELD = """
import json
from scattersphere import JobDefinition
job = JobDefinition.build("j").task("a", "A", owner="Ada").done()
saved = json.loads(job.dumps())
schema = JobDefinition.schema()["properties"]["tasks"]["additionalProperties"]["properties"]
print(json.dumps([saved["tasks"]["a"], JobDefinition.loads(job.dumps()) == job, schema["owner"]["description"]]))
"""


def test_a_field_that_was_added_is_built_saved_read_and_in_the_schema(root: Path) -> None:
    assert run(root, FIELD) == [{"task": "A", "owner": "Ada"}, True, "Whom to ask about it."]


TRIGGER = """
import datetime as dt, json
from scattersphere import DefinitionError, JobDefinition
from scattersphere.schedules.occurrences import timetable_of, timing_of
text = '{"format": 2, "name": "j", "tasks": {"a": {"task": "A"}}, "schedules": {"s": {"yearly": "12-24"%s}}}'
schedule = JobDefinition.loads(text % "").schedules["s"]
table = timetable_of("j", "s", schedule)
now = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
try:
    JobDefinition.loads(text % ', "every": 5')
except DefinitionError as error:
    both = str(error)
print(json.dumps([str(table.next(now)), str(table.previous(now)), table.words(), timing_of(schedule), both]))
"""


def test_a_trigger_that_was_added_fires_and_is_checked(root: Path) -> None:
    following, previous, words, timing, both = run(root, TRIGGER)
    assert (following[:10], previous[:10], words) == ("2026-12-24", "2025-12-24", "each year on 12-24")
    assert "12-24" in timing
    assert "only one of them says when" in both


PAGE_PROGRAM = """
import anyio, httpx, json
from scattersphere import Server
from scattersphere.commands.access import Principal, Role
from scattersphere.web import app

async def main():
    async with Server() as server:
        transport = httpx.ASGITransport(app(server, authorize=authorize))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/about")
    print(json.dumps([answer.status_code, "0 jobs are known here" in answer.text, "<nav" in answer.text]))

async def authorize(scope):
    return Principal(user="ada", role=Role.ADMIN)

anyio.run(main)
"""


def test_a_page_that_was_added_is_shown_in_the_frame_of_all(root: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    assert run(root, PAGE_PROGRAM) == [200, True, True]


BACKEND = """
import anyio, json, threading
from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.testing.backends import CHECKS
from own_backend import DeviceBackend, device

class Train(RunnableTask):
    def run(self, context):
        return [device.get(), threading.current_thread().name]

async def main():
    job = JobDefinition.build("j").task("t", "Train", backend="gpu").done()
    async with Server(backends={"gpu": DeviceBackend(["cuda:0"])}) as server:
        server.register_tasks("app", [Train])
        server.define(job)
        ran = (await (await server.start("j")).wait()).results["t"]
        problems = [str(found) for found in server.validate(job)]
    for check in CHECKS:
        await check(lambda: DeviceBackend(["a", "b"]))
    print(json.dumps([ran, problems, len(CHECKS)]))

anyio.run(main)
"""


def test_a_backend_that_was_added_runs_tasks_and_keeps_the_contract(root: Path) -> None:
    ran, problems, checks = run(root, BACKEND)
    assert ran == ["cuda:0", "cuda:0"]
    assert problems == []
    assert checks >= 10


JOURNAL = """
import anyio, json, tempfile
from pathlib import Path
from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.testing.journals import CHECKS
from own_journal import PickledJournal

class Waits(RunnableTask):
    def run(self, context):
        return 1

async def main(folder):
    job = JobDefinition.build("j").task("t", "Waits").done()
    async with Server(journal=PickledJournal(folder / "runs")) as server:
        server.register_tasks("app", [Waits])
        server.define(job)
        ended = await (await server.start("j")).wait()
    async with Server(journal=PickledJournal(folder / "runs")) as server:
        told = (await server.history.get(ended.id)).results["t"]
        life = server.life
    for number, check in enumerate(CHECKS):
        await check(lambda: PickledJournal(folder / str(number)))
    print(json.dumps([told, life, len(CHECKS)]))

with tempfile.TemporaryDirectory() as folder:
    anyio.run(main, Path(folder))
"""


def test_a_journal_that_was_added_keeps_runs_and_the_contract(root: Path) -> None:
    told, life, checks = run(root, JOURNAL)
    assert (told, life) == (1, 2)
    assert checks >= 10


@pytest.mark.parametrize("name", ["own-backend", "own-journal"])
def test_what_plugs_in_needs_the_ports_alone(name: str) -> None:
    ours = set(re.findall(r"^from (scattersphere[\w.]*) import", shown_first(name), re.MULTILINE))
    assert ours <= {"scattersphere", "scattersphere.abc", "scattersphere.abc.journal", "scattersphere.errors"}

"""`scattersphere new`: a folder with a bundle, a job and the schema for editors, ready to run."""

from __future__ import annotations

import json
import keyword
import sys
from string import Template
from typing import TYPE_CHECKING

from scattersphere.errors import ConflictError, ExistsError
from scattersphere.files import atomic_write
from scattersphere.model.builder import JobBuilder, param, result
from scattersphere.model.definition import JobDefinition, Parameter

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_FILE = "job-definition.schema.json"

_BUNDLE = Template('''"""The tasks of the job `$name`.

While `scattersphere dev` runs, a save of this file is a new version: the next run takes it, and a run that
goes on keeps the one that it started with.
"""

from scattersphere import RunnableTask, TaskContext


class Greet(RunnableTask):
    """Greet somebody."""

    name: str  # a parameter: type-checked, required

    async def run(self, context: TaskContext) -> str:
        context.log.info("greeting %s", self.name)
        return f"hello {self.name}"


class Shout(RunnableTask):
    """Say it louder."""

    text: str
    marks: int = 1  # with a default

    def run(self, context: TaskContext) -> str:  # no `async`: it runs in a worker thread
        return self.text.upper() + "!" * self.marks
''')


def make_job(name: str) -> JobDefinition:
    """Return the job of a new folder: two tasks, the second of which takes the result of the first."""
    who = Parameter(type="string", default="world", description="Who is greeted.")
    job = JobBuilder(
        name,
        {"description": "Greet somebody loudly.", "params": {"name": who}, "bundles": {name: f"{name}.py"}},
    )
    job = job.task("greet", f"{name}.Greet", args={"name": param("name")})
    return job.task("shout", f"{name}.Shout", args={"text": result("greet")}).done()


_TEST = Template('''"""The test of the job `$name`. It needs `pip install pytest`."""

from pathlib import Path

import pytest

from scattersphere.testing import Rehearsal, VirtualTimeLoop

JOB = Path(__file__).with_name("$name.json")
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualTimeLoop}  # an hour's delay takes no time


async def test_somebody_is_greeted_loudly(scattersphere: Rehearsal) -> None:
    run = await scattersphere.run(JOB, {"name": "Ada"})
    assert run.succeeded, run.explain()
    assert run.results["shout"] == "HELLO ADA!"


async def test_the_greeting_may_be_a_fake(scattersphere: Rehearsal) -> None:
    scattersphere.fake("$name.Greet", lambda name: f"good day {name}")
    run = await scattersphere.run(JOB, {"name": "Bo"})
    assert run.results["shout"] == "GOOD DAY BO!"
''')


def make_folder(name: str, parent: Path) -> list[Path]:
    """Write the files and return their paths. Nothing that is there already is touched.

    Raises `ConflictError` for a name that no module can have, `ExistsError` where files are in the way.
    """
    _check_name(name)
    folder = parent / name
    texts = {
        folder / f"{name}.py": _BUNDLE.substitute(name=name),
        folder / f"{name}.json": make_job(name).dumps(),
        folder / f"test_{name}.py": _TEST.substitute(name=name),
        folder / SCHEMA_FILE: json.dumps(JobDefinition.schema(), indent=2) + "\n",
    }
    if there := [path for path in texts if path.exists()]:
        raise ExistsError(f"{', '.join(map(str, there))}: there already; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        atomic_write(path, text.encode())
    return list(texts)


def _check_name(name: str) -> None:
    """A bundle is imported under its name, so the name is that of a module, and of one that is free."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        usable = "".join(char if char.isascii() and char.isalnum() else "_" for char in name).strip("_")
        hint = f"; try {usable!r}" if usable.isidentifier() and not keyword.iskeyword(usable) else ""
        raise ConflictError(f"{name!r} cannot be the name of a Python module: letters, digits and _{hint}")
    if name in sys.stdlib_module_names or name == "scattersphere":
        raise ConflictError(
            f"{name!r} is a module of Python's own library; take another name, say '{name}_job'"
        )

"""What is promised of the package as a whole: its names, its weight, and what the wheel holds."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import scattersphere
import scattersphere.errors

ROOT = Path(__file__).parents[1]
FOREIGN = (
    "click",
    "rich",
    "trio",
    "cyclopts",
    "ssl",
    "asyncio.subprocess",
    "concurrent.futures.process",
    "sqlite3",
)
"""What an import of the library alone may not bring along."""


def loaded_by(statement: str) -> set[str]:
    """Return the modules of a fresh interpreter after `statement`."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_importing_the_library_imports_no_extra_and_nothing_that_is_rarely_needed() -> None:
    ours = loaded_by("import scattersphere") - loaded_by("import anyio, asyncio, attrs, cattrs, watchfiles")
    assert not ours.intersection(FOREIGN)
    assert {name.partition(".")[0] for name in ours} & {"click", "rich", "trio"} == set()


def test_all_is_sorted_complete_and_true() -> None:
    assert list(scattersphere.__all__) == sorted(scattersphere.__all__)
    public = {
        name
        for name, value in vars(scattersphere).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(scattersphere.__all__)


@pytest.mark.parametrize("name", scattersphere.__all__)
def test_each_public_name_has_a_docstring_and_a_place_in_the_reference(name: str) -> None:
    assert inspect.getdoc(getattr(scattersphere, name))
    reference = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    whole_module = getattr(scattersphere, name) in vars(scattersphere.errors).values()
    assert whole_module or re.search(rf"scattersphere\.{name}\b", reference), (
        f"docs/reference/api.md lacks {name}"
    )


def test_the_wheel_holds_the_package_with_its_type_marker_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "scattersphere").rglob("*.py")}
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert inside == tracked | {"scattersphere/py.typed", "pytest_scattersphere.py"}


def seconds_of(program: str, cache: Path) -> float:
    """Return the least processor time of a fresh interpreter, its bytecode being there already."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    program = f"import atexit, time; atexit.register(lambda: print(time.process_time()))\n{program}"
    taken = []
    for _ in range(6):  # the first one writes the bytecode
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment,
        )
        taken.append(float(done.stdout.splitlines()[-1]))
    return min(taken)


def test_importing_costs_at_most_150_ms_more_than_the_four_dependencies(tmp_path: Path) -> None:
    dependencies = seconds_of("import anyio, attrs, cattrs, watchfiles", tmp_path)
    assert seconds_of("import scattersphere", tmp_path) - dependencies < 0.150


def test_help_is_there_within_a_quarter_of_a_second(tmp_path: Path) -> None:
    program = "import sys; sys.argv = ['scattersphere', '--help']; from scattersphere.cli import main; main()"
    assert seconds_of(program, tmp_path) < 0.25

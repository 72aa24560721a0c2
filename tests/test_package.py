"""What is promised of the package as a whole: its names, its weight, and what the wheel holds."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from patience import PATIENCE

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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return set(json.loads(done.stdout))


def test_importing_the_library_imports_no_extra_and_nothing_that_is_rarely_needed() -> None:
    ours = loaded_by("from scattersphere import *") - loaded_by(
        "import anyio, asyncio, attrs, cattrs, watchfiles"
    )
    assert not ours.intersection(FOREIGN)
    assert {name.partition(".")[0] for name in ours} & {"click", "rich", "trio"} == set()


def test_a_public_name_is_imported_when_it_is_asked_for() -> None:
    assert {name for name in loaded_by("import scattersphere") if name.startswith("scattersphere")} == {
        "scattersphere"
    }
    assert "scattersphere.server" not in loaded_by("from scattersphere import JobDefinition, Problem")
    assert "scattersphere.server" in loaded_by("from scattersphere import *")


def test_a_worker_process_imports_nothing_that_plain_bodies_do_not_need() -> None:
    """Each worker does it anew: asyncio and a client of HTTP alone would be a third of its start."""
    seldom = {
        "asyncio",
        "ssl",
        "urllib.request",
        "email",
        "importlib.metadata",
        "cattrs",
        "sqlite3",
        "watchfiles",
    }
    ours = {
        "scattersphere.abc.journal",
        "scattersphere.engine",
        "scattersphere.pictures",
        "scattersphere.definitions",
    }
    assert (seldom | ours) & (loaded_by("import scattersphere.worker.main") - loaded_by("pass")) == set()


def test_a_type_checker_and_the_interpreter_are_told_the_same_names() -> None:
    tree = ast.parse(Path(scattersphere.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        node.module: sorted(alias.name for alias in node.names)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
    }
    assert told == {module: sorted(names) for module, names in scattersphere._HOMES.items()}
    assert list(scattersphere.__all__) == sorted(name for names in told.values() for name in names)
    assert set(scattersphere.__all__) <= set(dir(scattersphere))
    with pytest.raises(AttributeError, match="'scattersphere' has no attribute 'Sever'"):
        scattersphere.Sever  # noqa: B018 - the look-up is the test


@pytest.mark.parametrize("name", scattersphere.__all__)
def test_each_public_name_has_a_docstring_and_a_place_in_the_reference(name: str) -> None:
    assert inspect.getdoc(getattr(scattersphere, name))
    reference = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    whole_module = name in vars(scattersphere.errors)
    assert whole_module or re.search(rf"scattersphere\.{name}\b", reference), (
        f"docs/reference/api.md lacks {name}"
    )


def test_the_wheel_holds_the_package_with_its_type_marker_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "scattersphere"
    shown = [path for folder in ("templates", "static") for path in (package / "web" / folder).iterdir()]
    shown.append(package / "journal" / "schema.sql")
    tracked = {path.relative_to(ROOT).as_posix() for path in (*package.rglob("*.py"), *shown)}
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert inside == tracked | {"scattersphere/py.typed", "pytest_scattersphere.py"}


@pytest.mark.needs("click")
def test_help_imports_click_and_not_the_library() -> None:
    """So it is there in well under a quarter of a second; `python -m benchmarks startup` measures it."""
    help_text = "import sys, contextlib, io\nsys.argv = ['scattersphere', '--help']\nfrom scattersphere.cli import main\n"
    quietly = "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()"
    loaded = loaded_by(help_text + quietly)
    assert "click" in loaded
    assert not loaded & {"anyio", "asyncio", "cattrs", "watchfiles", "rich", "scattersphere.server"}

"""The pages for contributors name what is there: a file or a method that was renamed is told."""

from __future__ import annotations

import ast
import re
import runpy
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
PATHS = re.compile(r"`((?:scattersphere|tests|docs|execution|remote|commands|watching|registry)/[\w./]*)`")
METHODS = re.compile(r"`([A-Z][a-z]\w+)\.(\w+)`")


@pytest.fixture(scope="module")
def members() -> dict[str, set[str]]:
    """Methods and attributes of the classes of the library, by the name of the class, with those of its bases."""
    own: defaultdict[str, set[str]] = defaultdict(set)
    bases: defaultdict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "scattersphere").rglob("*.py"):
        nodes: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
        for node in nodes:
            if isinstance(node, ast.If):
                nodes += node.body
            elif isinstance(node, ast.ClassDef):
                bases[node.name] |= {base.id for base in node.bases if isinstance(base, ast.Name)}
                for inner in ast.walk(node):
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        own[node.name].add(inner.name)
                    elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                        own[node.name].add(inner.attr)
    found = {name: set(names) for name, names in own.items()}
    for name in found:
        todo = [*bases[name]]
        while todo:
            base = todo.pop()
            found[name] |= own[base]
            todo += bases[base]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_and_methods_that_are_named_exist(page: Path, members: dict[str, set[str]]) -> None:
    text = page.read_text(encoding="utf-8")
    files = [
        name
        for name in PATHS.findall(text)
        if not any((base / name).exists() for base in (ROOT, ROOT / "scattersphere"))
    ]
    methods = [f"{cls}.{name}" for cls, name in METHODS.findall(text) if name not in members.get(cls, ())]
    assert (files, methods) == ([], [])


def test_the_map_shows_each_package_and_no_package_imports_what_imports_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("docutils")
    pytest.importorskip("grimp")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")  # as docs/conf.py does
    drawn = runpy.run_path(str(ROOT / "docs" / "_ext" / "rooms.py"))
    counts, imports = drawn["rooms"]()
    folders = {path.parent.name for path in (ROOT / "scattersphere").glob("*/__init__.py")}
    lonely = {"bundles", "ext"}  # one module each: a namespace, and what is optional
    assert folders - lonely <= set(counts)
    circles = {
        (name, other) for name, others in imports.items() for other in others if name in imports[other]
    }
    assert circles == set()
    picture = drawn["draw"]()
    assert all(f">{name}<" in picture for name in counts)

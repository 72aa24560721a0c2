"""Draw which package imports which, from the imports themselves.

The directive `rooms` gives a picture with a box for each package of the library; what is reached through another is not
drawn twice. The picture is one of the library's own: a package waits for what it imports.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import grimp
from docutils import nodes
from docutils.parsers.rst import Directive

from scattersphere.pictures.nodes import Node
from scattersphere.pictures.svg import document, graph

PACKAGE = "scattersphere"
FACADES = {"server", "sync", "runnable", "functions"}
"""Modules that are shown beside the packages."""


def rooms() -> tuple[Counter[str], dict[str, set[str]]]:
    """Return how many modules each package has, and what it imports."""
    found = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    for importer, imported in _doors():
        if imported in found.modules:
            found.remove_import(importer=importer, imported=imported)
        for module in found.find_descendants(imported):
            found.remove_import(importer=importer, imported=module)
    counts = Counter(name for module in found.modules if (name := _room(module)))
    shown = {name for name, count in counts.items() if count > 1 or name in FACADES}
    imports: dict[str, set[str]] = {name: set() for name in shown}
    for module in found.modules:
        name = _room(module)
        if name in shown:
            others = set(map(_room, found.find_modules_directly_imported_by(module)))
            imports[name] |= others & shown - {name}
    return Counter({name: counts[name] for name in sorted(shown)}), imports


def _doors() -> list[tuple[str, str]]:
    """Return the imports upwards that pyproject.toml allows: they are made when a function is called."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]
    return [tuple(line.split(" -> ", 1)) for line in layers["ignore_imports"]]


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def draw() -> str:
    """Return the picture as SVG."""
    counts, imports = rooms()
    shown = [Node(name, (f"{count} modules" if count > 1 else "a module",)) for name, count in counts.items()]
    upstreams = {name: tuple(sorted(others)) for name, others in imports.items()}
    return document(graph(shown, upstreams, fit=900), [None], "which package imports which")


class Rooms(Directive):
    """`{rooms}`."""

    def run(self) -> list[nodes.Node]:
        """Return the picture."""
        return [nodes.raw("", f'<div class="picture">{draw()}</div>', format="html")]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("rooms", Rooms)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Circles of imports, those for type checkers counted: none in the engine, and elsewhere only where a door needs one."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import scattersphere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

PACKAGE = Path(scattersphere.__file__).parent
DOORS = {
    frozenset(
        {"model", "definitions", "schedules"}
    ): "`JobDefinition.load` and its kin open the reader when called",
    frozenset({"server", "_parts", "commands", "remote"}): "`Server.listen` opens the front-end when called",
    frozenset({"ext"}): "the Dask backend makes handles, which ask it",
}
"""The packages that a circle may go through, and why it does."""


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imported_by(module: str) -> frozenset[str]:
    """Return what a module imports of the package, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = (f"{node.module}.{name.name}" for name in node.names)
            found |= {name if name in modules() else node.module for name in names}
    return frozenset((found & set(modules())) - {module})


def circle_of(module: str, imports: Callable[[str], Collection[str]]) -> list[str]:
    """Return the shortest way from a module over what it imports back to itself; nothing where there is none."""
    ways = [[module]]
    seen = set()
    for way in ways:
        for other in sorted(imports(way[-1])):
            if other == module:
                return [*way, module]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def test_no_module_of_the_engine_stands_in_a_circle_of_imports():
    engine = [module for module in modules() if module.startswith("scattersphere.engine")]
    assert len(engine) > 40
    assert list(filter(None, (circle_of(module, imported_by) for module in engine))) == []


def circles() -> list[frozenset[str]]:
    """Return each largest set of modules of which every one leads to every other."""
    reached = {}
    for module in modules():
        ways = [module]
        seen: set[str] = set()
        for way in ways:
            new = imported_by(way) - seen
            seen |= new
            ways += new
        reached[module] = seen
    return list(
        {
            frozenset(other for other in reached[module] if module in reached[other])
            for module in modules()
            if module in reached[module]
        }
    )


def test_a_circle_anywhere_else_goes_through_a_door_that_is_opened_when_called():
    for circle in circles():
        rooms = frozenset(module.split(".")[1] for module in circle)
        assert any(rooms <= door for door in DOORS), sorted(circle)
    assert len(circles()) <= len(DOORS)


def test_a_circle_is_found_and_what_is_imported_for_type_checkers_alone_counts():
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert circle_of("b", imports.__getitem__) == ["b", "c", "a", "b"]
    assert circle_of("d", imports.__getitem__) == []
    assert "scattersphere.engine.timers" in imported_by("scattersphere.engine.execution")

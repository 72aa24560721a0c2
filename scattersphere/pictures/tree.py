"""Trees of jobs and runs for a terminal. No recursion: a job may be a chain of a hundred thousand tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.pictures.nodes import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.pictures.nodes import Node

SHOWN = 4
"""Tasks that a line names as waited for."""
INDENT = 12
"""Levels that are indented; what stands deeper goes on below, from the margin."""


def tree(title: str, nodes: Sequence[Node], upstreams: Mapping[str, tuple[str, ...]]) -> str:
    """Return a tree for a terminal: each task once, below the first task that it waits for.

    The others that it waits for are named after it. A chain is one column, since a task with a single
    task below it, that waits for nothing else, needs no indentation.
    """
    by_name = {node.name: node for node in nodes}
    below: dict[str, list[str]] = {}
    roots: list[str] = []
    for node in nodes:
        waits = [other for other in upstreams.get(node.name, ()) if other in by_name]
        if waits:
            below.setdefault(waits[0], []).append(node.name)
        else:
            roots.append(node.name)
    lines = [plain(title)]
    later = [*reversed(roots)]
    while later:
        _branch(later.pop(), by_name, below, upstreams, lines, later)
    return "\n".join(lines) + "\n"


def _branch(
    root: str,
    by_name: Mapping[str, Node],
    below: Mapping[str, list[str]],
    upstreams: Mapping[str, tuple[str, ...]],
    lines: list[str],
    later: list[str],
) -> None:
    """Write what stands below `root`; what is too deep to be indented is put off to `later`."""
    stack: list[tuple[str, str, str, int]] = [(root, "", "", 0)]
    while stack:
        name, lead, rest, depth = stack.pop()
        children = below.get(name, [])
        cut = depth >= INDENT and bool(children)
        lines.append(f"{lead}{_tree_line(by_name[name], upstreams.get(name, ()))}{' ...' if cut else ''}")
        if cut:
            later += reversed(children)
        elif len(children) == 1:
            stack.append((children[0], f"{rest}↓ ", rest, depth))
        else:
            for place, child in enumerate(reversed(children)):
                last = place == 0
                turn, on = ("└─ ", "   ") if last else ("├─ ", "│  ")
                stack.append((child, rest + turn, rest + on, depth + 1))


def _tree_line(node: Node, waits: Sequence[str]) -> str:
    words = [node.name, *node.text]
    if node.finally_:
        words.append("finally")
    if len(waits) > 1:
        others = ", ".join(waits[1:SHOWN]) + (", ..." if len(waits) > SHOWN else "")
        words.append(f"also after {others}")
    return "  ".join(map(plain, words))

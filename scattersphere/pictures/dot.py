"""Graphviz digraphs of jobs and runs (https://graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.pictures.looks import ground_of
from scattersphere.pictures.nodes import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.pictures.nodes import Node


def dot(title: str, nodes: Sequence[Node], upstreams: Mapping[str, tuple[str, ...]]) -> str:
    """Return a digraph in the language of Graphviz."""
    known = {node.name for node in nodes}
    lines = [
        f"digraph {_dot_quote(title)} {{",
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"];',
    ]
    lines += [f"    {_dot_quote(node.name)} [{_dot_attributes(node)}];" for node in nodes]
    for node in nodes:
        for other in upstreams.get(node.name, ()):
            if other in known:
                lines.append(f"    {_dot_quote(other)} -> {_dot_quote(node.name)};")
    return "\n".join([*lines, "}", ""])


def _dot_attributes(node: Node) -> str:
    found = [f"label={_dot_quote(node.name, *node.text)}"]
    if node.mapped:
        found.append("peripheries=2")
    if node.finally_:
        found.append('style="rounded,filled,dashed"')
    if node.state is not None:
        found.append(f'fillcolor="{ground_of(node.state)}"')
    return ", ".join(found)


def _dot_quote(*lines: str) -> str:
    r"""Quote a string of one or more lines. Graphviz reads a backslash and a quote, and its labels `\n`."""
    escaped = (plain(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'

"""Mermaid flowcharts of jobs and runs (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scattersphere.pictures.looks import ground_of
from scattersphere.pictures.nodes import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.pictures.nodes import Node


def mermaid(title: str, nodes: Sequence[Node], upstreams: Mapping[str, tuple[str, ...]]) -> str:
    """Return a flowchart. Nodes have ids of our own, so that no name can be a keyword of Mermaid."""
    ids = {node.name: f"t{number}" for number, node in enumerate(nodes)}
    lines = ["---", f"title: {_yaml(title)}", "---", "flowchart TD"]
    lines += [f"    {_mermaid_node(ids[node.name], node)}" for node in nodes if not node.finally_]
    late = [node for node in nodes if node.finally_]
    if late:
        lines.append("    subgraph finally")
        lines += [f"        {_mermaid_node(ids[node.name], node)}" for node in late]
        lines.append("    end")
    for node in nodes:
        for other in upstreams.get(node.name, ()):
            if other in ids:
                lines.append(f"    {ids[other]} --> {ids[node.name]}")
    return "\n".join([*lines, *_mermaid_classes(ids, nodes), ""])


def _mermaid_node(id_: str, node: Node) -> str:
    label = "<br/>".join(map(_entities, (node.name, *node.text)))
    # A map is drawn as a subroutine: with double sides.
    return f'{id_}[["{label}"]]' if node.mapped else f'{id_}["{label}"]'


def _mermaid_classes(ids: Mapping[str, str], nodes: Sequence[Node]) -> list[str]:
    members: dict[str, list[str]] = {}
    for node in nodes:
        if node.state is not None:
            members.setdefault(node.state, []).append(ids[node.name])
    lines = []
    for state, found in members.items():
        lines.append(f"    classDef {state} fill:{ground_of(state)},color:#000000")
        lines.append(f"    class {','.join(found)} {state}")
    return lines


def _entities(text: str) -> str:
    """Escape all that Mermaid, Markdown or HTML could read, as numbered entities of Mermaid."""
    return "".join(
        char if char.isalnum() or char in " _.-:/,()[]=+" else f"#{ord(char)};" for char in plain(text)
    )


def _yaml(text: str) -> str:
    """Quote for YAML: a JSON string is one."""
    return json.dumps(plain(text))

"""Pictures of a job as text: Mermaid, Graphviz and a tree for a terminal.

No recursion anywhere, and time and memory in proportion to tasks and dependencies. Names may hold
anything (of a definition that was never checked they do): they stand in quotes, escaped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.model.definition import JobDefinition, TaskDefinition

LINE = 120
"""Characters of a line in a picture; what is longer is cut."""
SHOWN = 4
"""Tasks that a line of a tree names as waited for."""
INDENT = 12
"""Levels of a tree that are indented; what stands deeper goes on below, from the margin."""

COLOURS = {
    "pending": "#eeeeee",
    "running": "#bbdefb",
    "cancelling": "#ffe0b2",
    "up_for_retry": "#fff9c4",
    "succeeded": "#c8e6c9",
    "failed": "#ffcdd2",
    "crashed": "#ef9a9a",
    "skipped": "#f5f5f5",
    "upstream_failed": "#f8bbd0",
    "cancelled": "#d7ccc8",
}
"""Fill of a task in each state; the state is written too, for those who cannot tell colours apart."""


@attrs.frozen
class Node:
    """A task in a picture: `lines` stand below its name; `state` only in the picture of a run."""

    name: str
    lines: tuple[str, ...] = ()
    mapped: bool = False
    finally_: bool = False
    state: str | None = None


def node_of(name: str, task: TaskDefinition) -> Node:
    """Return the node of a task: what runs, over what, when."""
    lines = [task.task]
    if task.map:
        lines.append(f"for each {', '.join(map(str, task.map))}")
    if task.run_if is not True:
        lines.append(f"if {_condition(task.run_if)}")
    if task.trigger_rule is not None:
        lines.append(str(task.trigger_rule))
    return Node(name, tuple(map(_cut, lines)), mapped=bool(task.map), finally_=bool(task.finally_))


def _condition(value: object) -> str:
    if isinstance(value, dict):
        for key in ("$param", "$result", "$literal"):
            if key in value:
                return f"{value[key]}{value.get('pointer', '')}"
    return json.dumps(value, default=repr)


def _cut(text: str) -> str:
    text = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."


def picture_nodes(definition: JobDefinition) -> list[Node]:
    """Return the nodes of a definition in its order."""
    return [node_of(name, task) for name, task in definition.tasks.items()]


# ---- Mermaid: https://mermaid.js.org/syntax/flowchart.html


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
    label = "<br/>".join(map(_entities, (node.name, *node.lines)))
    # A map is drawn as a subroutine: with double sides.
    return f'{id_}[["{label}"]]' if node.mapped else f'{id_}["{label}"]'


def _mermaid_classes(ids: Mapping[str, str], nodes: Sequence[Node]) -> list[str]:
    members: dict[str, list[str]] = {}
    for node in nodes:
        if node.state is not None:
            members.setdefault(node.state, []).append(ids[node.name])
    lines = []
    for state, found in members.items():
        lines.append(f"    classDef {state} fill:{COLOURS.get(state, '#ffffff')},color:#000000")
        lines.append(f"    class {','.join(found)} {state}")
    return lines


def _entities(text: str) -> str:
    """Escape all that Mermaid, Markdown or HTML could read, as numbered entities of Mermaid."""
    return "".join(
        char if char.isalnum() or char in " _.-:/,()[]=+" else f"#{ord(char)};" for char in _cut(text)
    )


def _yaml(text: str) -> str:
    """Quote for YAML: a JSON string is one."""
    return json.dumps(_cut(text))


# ---- Graphviz: https://graphviz.org/doc/info/lang.html


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
    found = [f"label={_dot_quote(node.name, *node.lines)}"]
    if node.mapped:
        found.append("peripheries=2")
    if node.finally_:
        found.append('style="rounded,filled,dashed"')
    if node.state is not None:
        found.append(f'fillcolor="{COLOURS.get(node.state, "#ffffff")}"')
    return ", ".join(found)


def _dot_quote(*lines: str) -> str:
    r"""Quote a string of one or more lines. Graphviz reads a backslash and a quote, and its labels `\n`."""
    escaped = (_cut(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


# ---- a tree


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
    lines = [_cut(title)]
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
    words = [node.name, *node.lines]
    if node.finally_:
        words.append("finally")
    if len(waits) > 1:
        others = ", ".join(waits[1:SHOWN]) + (", ..." if len(waits) > SHOWN else "")
        words.append(f"also after {others}")
    return "  ".join(map(_cut, words))

"""JobPictures: the DAG of a job, or of a run with its states, as SVG, Mermaid, Graphviz, a tree for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from scattersphere.pictures.dot import dot
from scattersphere.pictures.mermaid import mermaid
from scattersphere.pictures.nodes import Node
from scattersphere.pictures.notebook import job_html
from scattersphere.pictures.svg import document, graph
from scattersphere.pictures.tree import tree


@attrs.frozen
class JobPictures:
    """A DAG below a title."""

    title: str
    nodes: Sequence[Node]
    upstreams: Mapping[str, tuple[str, ...]]

    def mermaid(self) -> str:
        """Return it as a Mermaid flowchart."""
        return mermaid(self.title, self.nodes, self.upstreams)

    def dot(self) -> str:
        """Return it in the language of Graphviz."""
        return dot(self.title, self.nodes, self.upstreams)

    def tree(self) -> str:
        """Return it as a tree for a terminal."""
        return tree(self.title, self.nodes, self.upstreams)

    def svg(self) -> str:
        """Return it as an SVG document."""
        return document(
            graph(self.nodes, self.upstreams), {node.state or "none" for node in self.nodes}, self.title
        )

    def html(self) -> str:
        """Return it as a notebook shows a job."""
        return job_html(self.title, self.nodes, self.upstreams)

"""A table of text, as docutils builds one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(
    widths: Sequence[int],
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    code: frozenset[int] = frozenset({0}),
) -> nodes.table:
    """Return a table. `widths` are shares of the page; the columns in `code` are set as code."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row(nodes.Text(cell) for cell in head))
    group += nodes.tbody(
        "",
        *(
            _row(
                nodes.literal(text=cell) if column in code else nodes.Text(cell)
                for column, cell in enumerate(row)
            )
            for row in rows
        ),
    )
    return nodes.table("", group)


def _row(cells: Iterable[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

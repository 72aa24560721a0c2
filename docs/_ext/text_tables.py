"""A table of text, as docutils builds one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MANY = 4
"""Columns that do not fit on a phone."""


def table(
    widths: Sequence[int],
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    code: frozenset[int] = frozenset({0}),
) -> nodes.table:
    """Return a table. `widths` are shares of the page; the columns in `code` are set as code.

    One of many columns is a list on a phone: `pictures.css` looks for the classes.
    """
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row(head, ([nodes.Text(cell)] for cell in head)))
    group += nodes.tbody(
        "",
        *(
            _row(
                head,
                (
                    [nodes.literal(text=cell)] if column in code else list(_inline(cell))
                    for column, cell in enumerate(row)
                ),
            )
            for row in rows
        ),
    )
    return nodes.table("", group, classes=["stacked"] if len(head) >= MANY else [])


_CODE = re.compile(r'(`[^`]+`|\{.*\}|"[^"]*")')


def _inline(cell: str) -> Iterator[nodes.Node]:
    """Set as code what stands in backticks, and JSON as it is: else its quotes become curly, and cannot be copied."""
    for place, part in enumerate(_CODE.split(cell)):
        if place % 2:
            yield nodes.literal(text=part.strip("`"))
        elif part:
            yield nodes.Text(part)


def _row(head: Sequence[str], cells: Iterable[Sequence[nodes.Node]]) -> nodes.row:
    return nodes.row(
        "",
        *(
            nodes.entry("", nodes.paragraph("", "", *cell), classes=[f"of-{name.lower()}"] if name else [])
            for name, cell in zip(head, cells, strict=True)
        ),
    )

"""Jobs, runs and servers as HTML in Jupyter notebooks (`_repr_html_`): the pictures of the page, without a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from scattersphere.pictures.labels import words
from scattersphere.pictures.looks import LOOKS, stylesheet, symbols
from scattersphere.pictures.svg import graph, summary
from scattersphere.pictures.timeline import HEAD, ROW, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scattersphere.pictures.nodes import Node
    from scattersphere.pictures.timeline import Band, Lasted, Span

FIT = 960
"""Pixels of width that an output cell of a notebook has, about."""
ROWS = 100
"""Rows of a timeline or a table; what is beyond is counted."""

_FRAME = (
    ".scattersphere{max-width:100%;overflow-x:auto;padding:8px;border-radius:8px;font:13px/1.5 system-ui,sans-serif}"
    ".scattersphere .defs{position:absolute}"
    ".scattersphere .state{font-weight:600;background:none}"
    ".scattersphere svg.mark{width:14px;height:14px;vertical-align:-2px}"
    ".scattersphere .gantt{display:grid;grid-template-columns:max-content minmax(12rem,1fr)}"
    f".scattersphere .names{{margin:0;padding:{HEAD}px 10px 0 0;list-style:none}}"
    f".scattersphere .names li{{height:{ROW}px;line-height:{ROW}px;white-space:nowrap}}"
    ".scattersphere pre{white-space:pre-wrap;margin:6px 0;padding:6px 8px;border-left:3px solid #c22a17}"
    ".scattersphere table{border-collapse:collapse}"
    ".scattersphere td,.scattersphere th{text-align:left;padding:2px 14px 2px 0}"
)


def job_html(name: str, nodes: Sequence[Node], upstreams: Mapping[str, tuple[str, ...]]) -> str:
    """Return a definition: its name and its graph."""
    return _page(
        {"none"},
        f"<div><b>{escape(name)}</b> · {_count(len(nodes), 'task')}</div>",
        graph(nodes, upstreams, fit=FIT),
    )


def run_html(
    title: str,
    state: str,
    nodes: Sequence[Node],
    upstreams: Mapping[str, tuple[str, ...]],
    *,
    rows: Sequence[Band],
    lasted: Lasted,
    pauses: Sequence[Span],
    failures: Mapping[str, str],
) -> str:
    """Return a run: its state, the last line of each failure, its graph and its timeline."""
    shown = {row.state for row in rows} | {node.state or "none" for node in nodes} | {state}
    head = f"<div><b>{escape(title)}</b> {_mark(state)} · {summary(nodes)}</div>"
    told = "".join(
        f"<pre><b>{escape(task)}</b>  {escape(text.strip().splitlines()[-1] if text.strip() else '')}</pre>"
        for task, text in failures.items()
    )
    begun = [row for row in rows if row.attempts]
    names = "".join(f"<li>{_icon(row.state)} {escape(row.name)}</li>" for row in begun[:ROWS])
    plot = timeline(begun[:ROWS], lasted, pauses=pauses)
    chart = f'<div class="gantt"><ul class="names">{names}</ul>{plot}</div>' if begun else ""
    more = f"<div>and {len(begun) - ROWS:,} more</div>" if len(begun) > ROWS else ""
    return _page(shown, head, told, graph(nodes, upstreams, fit=FIT), chart, more)


def table_html(title: str, head: Sequence[str], rows: Iterable[tuple[str | None, Sequence[str]]]) -> str:
    """Return a table, with the state of each row (or None) before it."""
    rows = list(rows)
    columns = "".join(f"<th>{escape(column)}</th>" for column in ("", *head))
    body = "".join(
        f"<tr><td>{'' if state is None else _mark(state)}</td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for state, cells in rows[:ROWS]
    )
    more = f"<div>and {len(rows) - ROWS:,} more</div>" if len(rows) > ROWS else ""
    table = f"<table><tr>{columns}</tr>{body}</table>" if rows else "<div>nothing yet</div>"
    return _page({state for state, _ in rows if state}, f"<div><b>{escape(title)}</b></div>", table, more)


def _page(states: Iterable[str], *parts: str) -> str:
    known = {state if state in LOOKS else "none" for state in states}
    return (
        f'<div class="scattersphere"><style>{_FRAME}{stylesheet()}</style>'
        f'<svg class="defs" width="0" height="0" aria-hidden="true">{symbols(known)}</svg>{"".join(parts)}</div>'
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _icon(state: str) -> str:
    known = state if state in LOOKS else "none"
    return (
        f'<svg class="mark is-{known}" viewBox="0 0 16 16" aria-hidden="true"><use href="#ss-{known}"/></svg>'
    )


def _mark(state: str) -> str:
    known = state if state in LOOKS else "none"
    return f'<span class="state is-{known}">{_icon(state)} {escape(words(state))}</span>'

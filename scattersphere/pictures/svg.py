"""The graph of a job or a run as SVG: cards, chips or squares, as many tasks as it has.

Attributes and classes only, no inline styles, so that a page with a strict Content-Security-Policy may hold it; every
text goes through `escape` here, once. `document` makes a file of it that a viewer opens by itself.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

import attrs

from scattersphere._turns import EACH
from scattersphere.pictures.labels import (
    LETTER,
    SMALL_LETTER,
    duration,
    shorten_end,
    shorten_middle,
    width_of,
    words,
)
from scattersphere.pictures.layout import (
    Layout,
    Spacing,
    cells,
    implied_edges,
    layered,
    twins,
    without_cycles,
)
from scattersphere.pictures.looks import LOOKS, WORST_FIRST, look_of, stylesheet, symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scattersphere.pictures.layout import Edges
    from scattersphere.pictures.nodes import Node

    Link = Callable[[str], str]

CARDS, CHIPS, EDGES = 80, 400, 2000
"""So many tasks at most: cards with two lines; chips with one; squares with edges. Above, squares alone."""
SHRINK = 0.84
"""A graph is made smaller by so much at most, so that 13 px stay readable; then its page scrolls."""
STRETCH = 1.25
"""A graph that is wider by so little may be made smaller by the page that shows it, as the class `fits` says."""
ALIKE = 12
"""So many tasks with the same neighbours become one box: sixty shops are two edges, not 120."""


def graph(
    nodes: Sequence[Node],
    upstreams: Mapping[str, tuple[str, ...]],
    *,
    fit: int = 1180,
    chosen: str | None = None,
    link: Link | None = None,
) -> str:
    """Return an `<svg>` of tasks and what they wait for, at most `fit` pixels wide where that can be.

    `link` gives the address behind a task; without it nothing is a link. Icons and colours come from
    `looks.symbols` and `looks.stylesheet`, once a page.
    """
    edges = _edges_of(nodes, upstreams)
    if len(nodes) > CHIPS:
        return _squares(nodes, edges, fit, link)
    return _cards(nodes, edges, _CardSize.of(nodes), fit, chosen, link)


def _edges_of(nodes: Sequence[Node], upstreams: Mapping[str, tuple[str, ...]]) -> list[tuple[int, int]]:
    """Return what waits for what, by number. A finally-task stands behind the last of the others."""
    each = EACH.get()
    number = {node.name: at for at, node in each(enumerate(nodes))}
    edges = {
        (number[other], at): None
        for at, node in each(enumerate(nodes))
        for other in upstreams.get(node.name, ())
        if other in number
    }
    waited = {source for source, target in each(edges) if not nodes[target].finally_}
    last = [at for at, node in each(enumerate(nodes)) if not node.finally_ and at not in waited]
    begun = {target for _, target in each(edges)}
    for at, node in each(enumerate(nodes)):
        if node.finally_ and at not in begun:
            edges.update(dict.fromkeys((source, at) for source in last))
    return without_cycles(len(nodes), list(edges))


def document(svg: str, states: Iterable[str | None], title: str) -> str:
    """Return a picture as a file of its own, with the colours and icons of those states."""
    shown = {state if state in LOOKS else "none" for state in map(str, states)}
    head = svg.index(">") + 1
    opening = svg[:head].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    # One class more on the root: the rules of the stylesheet are below it.
    opening = opening.replace('class="', 'class="scattersphere-file ', 1)
    return (
        f"{opening}<title>{escape(title)}</title><style>{stylesheet('.scattersphere-file')}</style>{symbols(shown)}"
        f'<rect class="back" x="-12" y="-12" width="100%" height="100%"/>{svg[head:]}\n'
    )


def summary(nodes: Iterable[Node]) -> str:
    """Return how many tasks are in which state, the worst first."""
    counts = Counter(node.state for node in EACH.get()(nodes))
    return ", ".join(f"{counts[state]:,} {words(state)}" for state in WORST_FIRST if counts[state])


def _spoken(node: Node) -> str:
    """Return all that is known of a task as one line: what a pointer and a screen reader are told."""
    if node.progress is None:
        return f"{node.name}: {', '.join(node.lines)}"
    return f"{node.name}: {', '.join(node.progress.phrases())}"


# ---- cards and chips


@attrs.frozen
class _CardSize:
    """The measures of all cards of a picture, in pixels: `tall` ones have a second line."""

    wide: int
    high: int
    gap: int
    tall: bool

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> _CardSize:
        tall = len(nodes) <= CARDS
        longest = max((width_of(node.name) for node in nodes), default=0)
        wide = int(min(212, max(148, LETTER * longest + 42)))
        return cls(wide, *((46, 12) if tall else (24, 6)), tall)


@attrs.define
class _Folded:
    """Nodes by themselves, and boxes of nodes alike, as one graph for the layout."""

    alone: list[int]
    boxes: list[list[int]]
    sizes: list[tuple[float, float]]
    spots: dict[int, tuple[float, float]]
    """Where a member stands in its box."""
    kinds: dict[tuple[int, int], str]
    """How the edge between two places of the layout looks."""


def _cards(
    nodes: Sequence[Node], edges: Edges, size: _CardSize, fit: int, chosen: str | None, link: Link | None
) -> str:
    implied = implied_edges(len(nodes), edges)
    folded = _fold(nodes, [edge for edge in edges if edge not in implied], size, fit)
    placed = _narrower(folded, size, fit)
    out = list(_edges(folded, placed))
    for box, members in enumerate(folded.boxes, len(folded.alone)):
        (x, y), (wide, high) = placed.corners[box], folded.sizes[box]
        said = summary(nodes[at] for at in members)
        out.append(
            f'<rect class="box" x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high:.0f}" rx="10"/>'
            f'<text class="meta" x="{x + 12:.0f}" y="{y + 20:.0f}">{len(members)} alike{": " * bool(said)}{said}</text>'
        )
        out += [
            _card(nodes[at], x + folded.spots[at][0], y + folded.spots[at][1], size, chosen, link)
            for at in members
        ]
    for place, at in enumerate(folded.alone):
        out.append(_card(nodes[at], *placed.corners[place], size, chosen, link))
    wide, high = placed.width + 24, placed.height + 28
    scale = max(SHRINK, min(1.0, fit / wide))
    fits = " fits" if wide * scale <= fit * STRETCH else ""
    return (
        f'<svg class="graph{fits}" width="{wide * scale:.0f}" height="{high * scale:.0f}" '
        f'viewBox="-12 -12 {wide:.0f} {high:.0f}" role="group" aria-label="Graph of {len(nodes)} tasks">'
        f"{''.join(out)}</svg>"
    )


def _fold(nodes: Sequence[Node], edges: Edges, size: _CardSize, fit: int) -> _Folded:
    boxes = twins(len(nodes), edges, ALIKE)
    boxed = {node for members in boxes for node in members}
    alone = [node for node in range(len(nodes)) if node not in boxed]
    place = {node: at for at, node in enumerate(alone)}
    place |= {node: at for at, members in enumerate(boxes, len(alone)) for node in members}
    kinds: dict[tuple[int, int], str] = {}
    for source, target in edges:
        edge = place[source], place[target]
        kinds[edge] = kinds.get(edge) or _kind(nodes[source], nodes[target])
    sizes: list[tuple[float, float]] = [(size.wide, size.high + 6 * nodes[node].mapped) for node in alone]
    spots = {}
    for members in boxes:
        columns = max(1, min((fit - 2 * size.wide - 160) // (size.wide + 8), -(-len(members) // 4), 5))
        rows = -(-len(members) // columns)
        for at, node in enumerate(members):
            spots[node] = (10.0 + at // rows * (size.wide + 8), 30.0 + at % rows * (size.high + 6))
        sizes.append((columns * (size.wide + 8) + 12, rows * (size.high + 6) + 34))
    return _Folded(alone, boxes, sizes, spots, kinds)


def _kind(above: Node, below: Node) -> str:
    """Return how the line between two tasks looks: to a finally-task, of a failure, of what executes, or plain."""
    if below.finally_ and not above.finally_:
        return "last"
    if below.state == "upstream_failed" and above.state in {"failed", "upstream_failed", "crashed"}:
        return "dead"
    return "live" if below.state in {"running", "up_for_retry"} else ""


def _narrower(folded: _Folded, size: _CardSize, fit: int) -> Layout:
    """Lay out to the right if that fits, else in the direction that is less wide: cards are wide and low."""
    spacing = Spacing(node_gap=size.gap)
    right, down = (
        layered(folded.sizes, list(folded.kinds), down=down, spacing=spacing) for down in (False, True)
    )
    return right if right.width <= fit / SHRINK or right.width <= down.width else down


def _edges(folded: _Folded, placed: Layout) -> Iterable[str]:
    paths: dict[str, list[str]] = {}
    for kind, path in zip(folded.kinds.values(), placed.paths, strict=True):
        paths.setdefault(kind, []).append(path)
    return (
        f'<path class="edge{" " * bool(kind)}{kind}" d="{"".join(found)}"/>'
        for kind, found in sorted(paths.items())
    )


def _card(node: Node, x: float, y: float, size: _CardSize, chosen: str | None, link: Link | None) -> str:
    wide, high, tall, progress = size.wide, size.high, size.tall, node.progress
    state = node.state if node.state in LOOKS else "none"
    again = 0 if progress is None else progress.retried or max(progress.attempts - 1, 0)
    out = [f"<title>{escape(_spoken(node))}</title>"]
    if node.mapped:  # a pile of cards
        out += [
            f'<rect class="under" x="{by}" y="{by}" width="{wide - by}" height="{high}" rx="8"/>'
            for by in (6, 3)
        ]
    out += [
        f'<rect class="card" width="{wide}" height="{high}" rx="{8 if tall else 6}"/>',
        f'<use href="#ss-{state}" x="{10 if tall else 6}" y="{8 if tall else 4}" width="16" height="16"/>',
        _text(
            "name",
            33 if tall else 27,
            20 if tall else 16,
            shorten_middle(node.name, int((wide - 40) / LETTER)),
        ),
    ]
    if tall:
        room = int((wide - 40 - 30 * bool(again)) / SMALL_LETTER)
        out.append(_text("meta", 33, 36, shorten_end(_second_line(node), room)))
    if again:
        left, top = wide - 24 - 7 * len(str(again)), 25 if tall else 6
        out.append(
            f'<g class="again"><use href="#ss-again" x="{left}" y="{top}" width="12" height="12"/>'
            f'<text class="count" x="{wide - 8}" y="{top + 10}" font-size="11" text-anchor="end">{again}</text></g>'
        )
    if state == "running" and progress is not None and progress.share is not None:
        done = (wide - 16) * min(max(progress.share, 0.0), 1.0)
        out.append(
            f'<rect class="track" x="8" y="{high - 4}" width="{wide - 16}" height="2" rx="1"/>'
            f'<rect x="8" y="{high - 4}" width="{done:.0f}" height="2" rx="1"/>'
        )
    here = " chosen" if node.name == chosen else ""
    return _linked(
        node.name, f'class="node is-{state}{here}" transform="translate({x:.0f} {y:.0f})"', "".join(out), link
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _linked(name: str, attributes: str, inside: str, link: Link | None) -> str:
    if link is None:
        return f"<g {attributes}>{inside}</g>"
    return f'<a href="{escape(link(name))}" {attributes}>{inside}</a>'


def _second_line(node: Node) -> str:
    progress = node.progress
    if progress is None:
        return " · ".join(node.lines)
    parts = []
    if progress.instances is not None:
        done = progress.counts.get("succeeded", 0)
        running = progress.state == "running"
        parts.append(f"{done:,}/{progress.instances:,}" if running else f"x {progress.instances:,}")
    elif progress.state == "running" and progress.share is not None:
        parts.append(f"{progress.share:.0%}")
    parts.append(words(progress.state) if progress.seconds is None else duration(progress.seconds))
    return " · ".join(parts)


# ---- squares


def _squares(nodes: Sequence[Node], edges: Edges, fit: int, link: Link | None) -> str:
    """One square a task, by rank. A rank is one path a state: ten thousand squares are a few hundred elements.

    What failed or executes is an element of its own: that is what one clicks.
    """
    crowded = len(nodes) > EDGES
    scale = 0.8 if crowded else 1.0
    placed = cells(len(nodes), edges, cell=10, fit=int(fit / scale))
    out = []
    if not crowded:
        lines = (
            f"M{placed.corners[source][0] + 7:.0f} {placed.corners[source][1] + 3.5:.0f}"
            f"L{placed.corners[target][0]:.0f} {placed.corners[target][1] + 3.5:.0f}"
            for source, target in edges
        )
        out.append(f'<path class="edge faint" d="{"".join(lines)}"/>')
    for rank, members in EACH.get()(enumerate(placed.ranks)):
        out.append(_rank(rank, [(nodes[at], placed.corners[at]) for at in EACH.get()(members)], link))
    wide, high = placed.width + 16, placed.height + 16
    return (
        f'<svg class="squares" width="{wide * scale:.0f}" height="{high * scale:.0f}" '
        f'viewBox="-8 -8 {wide:.0f} {high:.0f}" role="group" '
        f'aria-label="{len(nodes):,} tasks, one square each, in {len(placed.ranks)} ranks">{"".join(out)}</svg>'
    )


_CLICKED = frozenset({"failed", "crashed", "running", "up_for_retry"})


def _rank(rank: int, members: list[tuple[Node, tuple[float, float]]], link: Link | None) -> str:
    paths: dict[str, list[str]] = {}
    alone = []
    for node, (x, y) in EACH.get()(members):
        state = node.state if node.state in LOOKS else "none"
        path = f"M{x:.0f} {y:.0f}{look_of(state).square}"
        if state in _CLICKED:
            inside = f'<title>{escape(_spoken(node))}</title><path d="{path}"/>'
            alone.append(_linked(node.name, f'class="is-{state}"', inside, link))
        else:
            paths.setdefault(state, []).append(path)
    said = summary(node for node, _ in members)
    return (
        f'<g id="rank-{rank}"><title>Rank {rank + 1}, {len(members)} tasks{": " * bool(said)}{said}</title>'
        + "".join(f'<path class="is-{state}" d="{"".join(found)}"/>' for state, found in paths.items())
        + "".join(alone)
        + "</g>"
    )

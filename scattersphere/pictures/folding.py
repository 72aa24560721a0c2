"""What makes a large graph small enough to be drawn: implied edges, twins, and one cell a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from scattersphere.pictures.layout import neighbours, ranks_of

if TYPE_CHECKING:
    from scattersphere.pictures.layout import Edges


def implied_edges(count: int, edges: Edges) -> set[tuple[int, int]]:
    """Return the edges that a longer path says already: what a transitive reduction leaves out.

    Reachable sets are the bits of integers, so memory is quadratic in `count`, with a small factor.
    """
    after, before = neighbours(count, edges)
    ranks = ranks_of(after, before)
    reach = [0] * count
    implied: set[tuple[int, int]] = set()
    for node in sorted(range(count), key=ranks.__getitem__, reverse=True):
        beyond = 0
        for target in after[node]:
            beyond |= reach[target]
        implied.update((node, target) for target in after[node] if beyond >> target & 1)
        for target in after[node]:
            beyond |= 1 << target
        reach[node] = beyond
    return implied


def twins(count: int, edges: Edges, least: int) -> list[list[int]]:
    """Return the groups of at least `least` nodes that have the same neighbours, and some."""
    after, before = neighbours(count, edges)
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for node in range(count):
        groups.setdefault((tuple(sorted(before[node])), tuple(sorted(after[node]))), []).append(node)
    return [members for near, members in groups.items() if len(members) >= least and any(near)]


@attrs.frozen
class Cells:
    """A cell for each node, by rank: upper left corners, the nodes of each rank, and the size in pixels."""

    corners: tuple[tuple[float, float], ...]
    ranks: tuple[tuple[int, ...], ...]
    width: float
    height: float


def cells(count: int, edges: Edges, *, cell: int = 10, fit: int = 1140) -> Cells:
    """Place one cell a node, for graphs too large for cards: one barycentre sweep, each rank a block of columns.

    Ranks are folded into more rows until the picture is at most `fit` pixels wide, where that can be.
    """
    after, before = neighbours(count, edges)
    ranks = ranks_of(after, before)
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for node, rank in enumerate(ranks):
        layers[rank].append(node)
    share = [0.0] * count
    for layer in layers:
        layer.sort(
            key=lambda node: (
                sum(map(share.__getitem__, before[node])) / len(before[node]) if before[node] else 0.0
            )
        )
        for place, node in enumerate(layer):
            share[node] = place / len(layer)
    rows = _rows(layers, fit / cell)
    corners: list[tuple[float, float]] = [(0.0, 0.0)] * count
    left = 0.0
    for layer in layers:
        columns = -(-len(layer) // rows)
        used = -(-len(layer) // columns)
        for place, node in enumerate(layer):
            corners[node] = (left + place // used * cell, place % used * cell)
        left += columns * cell + cell / 2
    height = min(rows, max(map(len, layers), default=0)) * cell
    return Cells(tuple(corners), tuple(map(tuple, layers)), left, height)


def _rows(layers: list[list[int]], fit: float) -> int:
    """Return the fewest rows (8 at least) with which all columns and the gaps between ranks fit."""
    widest = max(map(len, layers), default=0)
    rows = 8
    while rows < widest and sum(-(-len(layer) // rows) + 0.5 for layer in layers) > fit:
        rows += max(1, rows // 8)
    return rows

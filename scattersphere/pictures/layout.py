"""Layered layout of a directed acyclic graph: where each node stands, and the path of each edge.

The steps are those of Sugiyama, Tagawa and Toda (1981), as in Graphviz' dot (Gansner, Koutsofios, North, Vo 1993):
*rank* (longest path), *order* within a rank (barycentres, then swaps of neighbours while that saves crossings) and
*place* (each rank as near to its neighbours as its order allows: isotonic regression, which for a fixed order is the
optimum). Edges over several ranks run through bends; all long edges of a node share them, so that a fan is one trunk.

Nodes are the numbers 0 to n - 1; the caller keeps names. What makes a graph smaller first is at the end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import pairwise

import attrs

from scattersphere._turns import EACH, WAY

Edges = Sequence[tuple[int, int]]
Neighbours = list[list[int]]

SWEEPS = 6
"""Sweeps over the ranks; more changed nothing in the workflows that were drawn."""
SMALL = 400
"""Nodes and bends up to which crossings are counted and neighbours swapped; above, barycentres alone."""


@attrs.frozen
class Spacing:
    """Room to leave, in pixels: between nodes of a rank, between ranks (at least), and for a bend in its rank."""

    node_gap: float = 12
    rank_gap: float = 36
    bend: float = 12


@attrs.frozen
class Layout:
    """Where things are, in pixels: upper left corners of nodes, and for each edge the `d` of an SVG path."""

    corners: tuple[tuple[float, float], ...]
    paths: tuple[str, ...]
    width: float
    height: float


def neighbours(count: int, edges: Edges) -> tuple[Neighbours, Neighbours]:
    """Return the successors and the predecessors of each node."""
    each = EACH.get()
    after: Neighbours = [[] for _ in each(range(count))]
    before: Neighbours = [[] for _ in each(range(count))]
    for source, target in each(edges):
        after[source].append(target)
        before[target].append(source)
    return after, before


def without_cycles(count: int, edges: Edges) -> list[tuple[int, int]]:
    """Return the edges but those that close a circle, as a depth-first walk meets them.

    A definition that was never checked may wait for itself; its picture shows it all the same.
    """
    after, _ = neighbours(count, edges)
    closing: set[tuple[int, int]] = set()
    way = WAY.get()
    state = bytearray(count)  # 0 not met, 1 on the path from the root, 2 done
    for root in EACH.get()(range(count)):
        stack = [] if state[root] else [(root, iter(after[root]))]
        state[root] = state[root] or 1
        while stack:
            if way is not None:
                way()
            node, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                state[node] = 2
                stack.pop()
            elif state[target] == 1:
                closing.add((node, target))
            elif not state[target]:
                state[target] = 1
                stack.append((target, iter(after[target])))
    return [edge for edge in EACH.get()(edges) if edge not in closing]


def ranks_of(after: Neighbours, before: Neighbours) -> list[int]:
    """Return the rank of each node: the longest path to it, then sources move towards what reads them.

    Raises ValueError for a graph with a cycle.
    """
    each = EACH.get()
    waits = [len(sources) for sources in each(before)]
    order = [node for node, waiting in each(enumerate(waits)) if not waiting]
    ranks = [0] * len(after)
    for node in each(order):  # grows while it is read
        for target in after[node]:
            ranks[target] = max(ranks[target], ranks[node] + 1)
            waits[target] -= 1
            if not waits[target]:
                order.append(target)
    if len(order) < len(after):
        msg = "a graph with a cycle has no ranks"
        raise ValueError(msg)
    for node in each(reversed(order)):
        # A node with more readers than sources makes fewer long edges beside its readers.
        if len(after[node]) > len(before[node]):
            ranks[node] = min(ranks[target] for target in after[node]) - 1
    return ranks


def layered(
    sizes: Sequence[tuple[float, float]], edges: Edges, *, down: bool, spacing: Spacing | None = None
) -> Layout:
    """Lay out nodes of these sizes (width, height in pixels); ranks follow each other downwards or to the right.

    `edges` are pairs (source, target), each once. Raises ValueError for a graph with a cycle.
    """
    if not sizes:
        return Layout((), (), 0.0, 0.0)
    spacing = spacing or Spacing()
    # From here on `along` goes from rank to rank and `across` within a rank: the direction matters at the end only.
    along, across = (tuple(size[axis] for size in sizes) for axis in ((1, 0) if down else (0, 1)))
    graph = _Layers(len(sizes), edges)
    _order(graph)
    middles = _middles(graph, across, spacing)
    spans = _spans(graph, along, spacing)
    corners = [
        (spans[graph.rank_of[node]][0], middles[node] - across[node] / 2) for node in range(len(sizes))
    ]
    router = _Router(graph, along, middles, spans, _downwards if down else _rightwards)
    width, height = spans[-1][1], _extent(graph, across, middles)
    return Layout(
        tuple((y, x) if down else (x, y) for x, y in corners),
        tuple(router.path(graph.routes[edge]) for edge in edges),
        *((height, width) if down else (width, height)),
    )


class _Layers:
    """Nodes and bends by rank. A bend has a number from `count` on; links join neighbouring ranks only."""

    def __init__(self, count: int, edges: Edges) -> None:
        ranks = ranks_of(*neighbours(count, edges))
        self.count = count
        self.rank_of = ranks
        self.routes: dict[tuple[int, int], list[int]] = {}
        links: dict[tuple[int, int], None] = {}
        trunk: dict[tuple[int, int], int] = {}  # (node, rank) -> the bend there of all its long edges
        for source, target in edges:
            route = [source]
            for rank in range(ranks[source] + 1, ranks[target]):
                if (source, rank) not in trunk:
                    trunk[source, rank] = len(ranks)
                    ranks.append(rank)
                route.append(trunk[source, rank])
            route.append(target)
            self.routes[source, target] = route
            links.update(dict.fromkeys(pairwise(route)))
        self.after, self.before = neighbours(len(ranks), list(links))
        self.layers = self._depth_first()

    def _depth_first(self) -> list[list[int]]:
        """Return a first order in which what belongs together stands together."""
        layers: list[list[int]] = [[] for _ in range(max(self.rank_of, default=0) + 1)]
        seen = bytearray(len(self.rank_of))
        stack = [node for node in reversed(range(len(seen))) if not self.before[node]]
        while stack:
            node = stack.pop()
            if not seen[node]:
                seen[node] = True
                layers[self.rank_of[node]].append(node)
                stack.extend(reversed(self.after[node]))
        return layers


# ---- order within the ranks


def _order(graph: _Layers) -> None:
    """Sort each rank by the barycentres of its neighbours, to and fro; of a small graph keep the best order."""
    small = len(graph.rank_of) <= SMALL
    best, fewest = graph.layers, _crossings(graph) if small else 0
    share = [0.0] * len(graph.rank_of)
    for layer in graph.layers:
        _note_shares(layer, share)
    for sweep in range(SWEEPS if small else SWEEPS // 2):
        forth = sweep % 2 == 0
        near = graph.before if forth else graph.after
        graph.layers = [list(layer) for layer in graph.layers]
        for layer in graph.layers if forth else reversed(graph.layers):
            centres = {node: _mean(share, near[node], share[node]) for node in layer}
            layer.sort(key=centres.__getitem__)
            _note_shares(layer, share)
        if small:
            _swap(graph)
            if (count := _crossings(graph)) < fewest:
                best, fewest = graph.layers, count
    if small:
        graph.layers = best


def _note_shares(layer: list[int], share: list[float]) -> None:
    for place, node in enumerate(layer):
        share[node] = place / len(layer)


def _mean(values: list[float], members: list[int], otherwise: float) -> float:
    return sum(map(values.__getitem__, members)) / len(members) if members else otherwise


def _crossings(graph: _Layers) -> int:
    """Count the links that cross: inversions of the ends, rank by rank (Barth, Juenger, Mutzel 2002)."""
    total = 0
    for layer, next_layer in pairwise(graph.layers):
        place = {node: at for at, node in enumerate(next_layer)}
        seen: list[int] = []
        for node in layer:
            ends = sorted(place[target] for target in graph.after[node])
            total += sum(len(seen) - bisect_left(seen, end + 1) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _swap(graph: _Layers) -> None:
    """Swap neighbours in a rank wherever that saves crossings on both sides together."""
    for rank, layer in enumerate(graph.layers):
        sides = []
        for near, other in ((graph.before, rank - 1), (graph.after, rank + 1)):
            if 0 <= other < len(graph.layers):
                place = {node: at for at, node in enumerate(graph.layers[other])}
                sides.append({node: sorted(map(place.__getitem__, near[node])) for node in layer})
        for at in range(len(layer) - 1):
            first, second = layer[at], layer[at + 1]
            saved = sum(
                _inversions(side[first], side[second]) - _inversions(side[second], side[first])
                for side in sides
            )
            if saved > 0:
                layer[at], layer[at + 1] = second, first


def _inversions(upper: list[int], lower: list[int]) -> int:
    return sum(len(upper) - bisect_left(upper, end + 1) for end in lower)


# ---- places


def spread(wanted: Sequence[float], weights: Sequence[float], rooms: Sequence[float]) -> list[float]:
    """Return the places nearest to the wanted ones (weighted least squares) that keep order and distances.

    `rooms[i]` is the least distance of the places i and i + 1. This is isotonic regression by pooling of
    adjacent violators, after the distances are taken off.
    """
    offsets = [0.0]
    for room in rooms:
        offsets.append(offsets[-1] + room)
    blocks: list[tuple[float, float, int]] = []  # (sum of weight * place, sum of weights, members)
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        total, heft, members = (want - offset) * weight, weight, 1
        while blocks and blocks[-1][0] * heft > total * blocks[-1][1]:
            more, other, others = blocks.pop()
            total, heft, members = total + more, heft + other, members + others
        blocks.append((total, heft, members))
    means = [total / heft for total, heft, members in blocks for _ in range(members)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _middles(graph: _Layers, across: Sequence[float], spacing: Spacing) -> list[float]:
    """Return the middle of each node and bend within its rank."""
    count = graph.count
    half = [(size + spacing.node_gap) / 2 for size in across]
    half += [spacing.bend / 2] * (len(graph.rank_of) - count)
    turns = [
        (layer, [half[first] + half[second] for first, second in pairwise(layer)]) for layer in graph.layers
    ]
    middles = [0.0] * len(half)

    def place(layer: list[int], rooms: list[float], near: Neighbours | None) -> None:
        wanted, weights = [0.0] * len(layer), [1.0] * len(layer)
        if near is not None:
            wanted = [_mean(middles, near[node], middles[node]) for node in layer]
            # Bends weigh most: a long edge should be straight.
            weights = [
                8.0 if node >= count else 1.0 + len(near[node]) if near[node] else 0.1 for node in layer
            ]
        for node, middle in zip(layer, spread(wanted, weights, rooms), strict=True):
            middles[node] = middle

    for layer, rooms in turns:
        place(layer, rooms, None)
    for sweep in range(2 * SWEEPS):
        forth = sweep % 2 == 0
        for layer, rooms in turns if forth else reversed(turns):
            place(layer, rooms, graph.before if forth else graph.after)
    first = min(*(middles[node] - across[node] / 2 for node in range(count)), *middles[count:], middles[0])
    return [middle - first for middle in middles]


def _extent(graph: _Layers, across: Sequence[float], middles: list[float]) -> float:
    ends = [middles[node] + size / 2 for node, size in enumerate(across)]
    return max(*ends, *middles[graph.count :], 0.0)


def _spans(graph: _Layers, along: Sequence[float], spacing: Spacing) -> list[tuple[float, float]]:
    """Return where each rank begins and ends; busy ranks get more room behind them for their edges."""
    spans, begin = [], 0.0
    for layer in graph.layers:
        end = begin + max((along[node] for node in layer if node < graph.count), default=0.0)
        spans.append((begin, end))
        links = sum(len(graph.after[node]) for node in layer)
        begin = end + spacing.rank_gap + min(24, 2 * max(len(layer), links))
    return spans


# ---- edges


def _rightwards(along: float, across: float) -> str:
    return f"{along:.0f} {across:.0f}"


def _downwards(along: float, across: float) -> str:
    return f"{across:.0f} {along:.0f}"


@attrs.frozen
class _Router:
    graph: _Layers
    along: Sequence[float]
    middles: list[float]
    spans: list[tuple[float, float]]
    at: Callable[[float, float], str]

    def path(self, route: list[int]) -> str:
        """Return a curve from node to node through its bends: straight over ranks, bent between them."""
        source, rank_of = route[0], self.graph.rank_of
        here, side = self.spans[rank_of[source]][0] + self.along[source], self.middles[source]
        parts = ["M", self.at(here, side)]
        for node in route[1:]:
            rank, aside = rank_of[node], self.middles[node]
            start, stop = self.spans[rank - 1][1], self.spans[rank][0]
            if start > here:  # a short node in a long rank: straight on to the border
                parts += ["L", self.at(start, side)]
            if abs(side - aside) < 1:
                parts += ["L", self.at(stop, aside)]
            else:
                half = (start + stop) / 2
                parts += ["C", " ".join((self.at(half, side), self.at(half, aside), self.at(stop, aside)))]
            here, side = stop, aside
            if node >= self.graph.count:
                here = self.spans[rank][1]
                parts += ["L", self.at(here, side)]
        return "".join(parts)


# ---- what makes a large graph small enough to be drawn: implied edges, twins, and one cell a node


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
    ranks, each = ranks_of(after, before), EACH.get()
    layers: list[list[int]] = [[] for _ in each(range(max(ranks, default=-1) + 1))]
    for node, rank in each(enumerate(ranks)):
        layers[rank].append(node)
    share = [0.0] * count
    for layer in layers:
        middle = {
            node: sum(map(share.__getitem__, before[node])) / len(before[node]) if before[node] else 0.0
            for node in each(layer)
        }
        layer.sort(key=middle.__getitem__)
        for place, node in each(enumerate(layer)):
            share[node] = place / len(layer)
    rows = _rows(layers, fit / cell)
    corners: list[tuple[float, float]] = [(0.0, 0.0)] * count
    left = 0.0
    for layer in layers:
        columns = -(-len(layer) // rows)
        used = -(-len(layer) // columns)
        for place, node in each(enumerate(layer)):
            corners[node] = (left + place // used * cell, place % used * cell)
        left += columns * cell + cell / 2
    height = min(rows, max(map(len, layers), default=0)) * cell
    return Cells(tuple(corners), tuple(map(tuple, layers)), left, height)


def _rows(layers: list[list[int]], fit: float) -> int:
    """Return the fewest rows (8 at least) with which all columns and the gaps between ranks fit."""
    widest = max(map(len, layers), default=0)
    rows = 8
    while rows < widest and sum(-(-len(layer) // rows) + 0.5 for layer in EACH.get()(layers)) > fit:
        rows += max(1, rows // 8)
    return rows

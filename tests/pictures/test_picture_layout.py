"""The layout of graphs: ranks, order, places, and what makes large graphs small."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.pictures.layout import (
    Spacing,
    cells,
    implied_edges,
    layered,
    neighbours,
    ranks_of,
    spread,
    twins,
    without_cycles,
)

NUMBER = re.compile(r"-?\d+")


@st.composite
def graphs(draw, most=14):
    """A number of nodes, and edges that only go from smaller numbers to larger ones."""
    count = draw(st.integers(1, most))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []
    names = draw(st.permutations(range(count)))
    return count, [(names[a], names[b]) for a, b in edges]


def reachable(count, edges):
    after, _ = neighbours(count, edges)
    found = set()
    for node in range(count):
        stack = list(after[node])
        while stack:
            other = stack.pop()
            if (node, other) not in found:
                found.add((node, other))
                stack += after[other]
    return found


@given(graphs())
def test_an_edge_goes_from_a_rank_to_a_later_one(graph):
    count, edges = graph
    ranks = ranks_of(*neighbours(count, edges))
    assert all(ranks[source] < ranks[target] for source, target in edges)


def test_a_cycle_has_no_ranks_and_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        ranks_of(*neighbours(3, [(0, 1), (1, 2), (2, 0)]))


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), unique=True)
        )
    )
)
def test_only_what_closes_a_circle_is_left_out(graph):
    count, edges = graph
    kept = without_cycles(count, edges)
    ranks_of(*neighbours(count, kept))
    circles = [edge for edge in edges if (edge[1], edge[0]) in reachable(count, edges) or edge[0] == edge[1]]
    assert [edge for edge in edges if edge not in circles] == [edge for edge in kept if edge not in circles]


@given(graphs(), st.booleans(), st.data())
def test_cards_never_overlap_and_stand_within_the_picture(graph, down, data):
    count, edges = graph
    size = st.tuples(st.integers(10, 200), st.integers(10, 80))
    sizes = data.draw(st.lists(size, min_size=count, max_size=count))
    placed = layered(sizes, edges, down=down, spacing=Spacing(node_gap=4))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(placed.corners, sizes, strict=True)]
    for at, (left, top, right, bottom) in enumerate(boxes):
        assert left >= -0.01
        assert top >= -0.01
        assert right <= placed.width + 0.01
        assert bottom <= placed.height + 0.01
        for other in boxes[:at]:
            apart = left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
            assert apart, (boxes[at], other)


@given(graphs(), st.booleans())
def test_an_edge_begins_at_its_source_ends_at_its_target_and_never_turns_back(graph, down):
    count, edges = graph
    placed = layered([(40, 20)] * count, edges, down=down)
    for (source, target), path in zip(edges, placed.paths, strict=True):
        numbers = list(map(int, NUMBER.findall(path)))
        along = numbers[1::2] if down else numbers[::2]
        begin, end = (corner[down] for corner in (placed.corners[source], placed.corners[target]))
        assert abs(along[0] - (begin + (20 if down else 40))) <= 1
        assert abs(along[-1] - end) <= 1
        assert all(first <= second for first, second in pairwise(along))


def test_a_tree_is_drawn_without_crossings():
    edges = [(0, 1), (0, 2), (1, 5), (1, 3), (2, 4), (2, 6)]
    placed = layered([(40, 20)] * 7, edges, down=False)
    order = sorted((3, 4, 5, 6), key=lambda node: placed.corners[node][1])
    assert {tuple(order[:2]), tuple(order[2:])} <= {(3, 5), (5, 3), (4, 6), (6, 4)}


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10), st.floats(0, 20)), min_size=1, max_size=12)
)
def test_places_keep_their_order_and_distances_and_no_shift_of_all_is_better(entries):
    wanted, weights, rooms = (list(column) for column in zip(*entries, strict=True))
    places = spread(wanted, weights, rooms[1:])
    for (first, second), room in zip(pairwise(places), rooms[1:], strict=True):
        assert second - first >= room - 1e-6
    pull = sum(weight * (place - want) for place, want, weight in zip(places, wanted, weights, strict=True))
    assert abs(pull) < 1e-6 * max(1, sum(weights)) * 100  # the optimum is in balance


@given(graphs())
def test_what_is_left_after_implied_edges_reaches_the_same(graph):
    count, edges = graph
    implied = implied_edges(count, edges)
    rest = [edge for edge in edges if edge not in implied]
    assert reachable(count, rest) == reachable(count, edges)
    for edge in rest:
        assert reachable(count, [other for other in rest if other != edge]) != reachable(count, rest)


def test_twins_have_the_same_neighbours_and_lonely_nodes_are_none():
    edges = [(0, at) for at in range(1, 5)] + [(at, 5) for at in range(1, 5)]
    assert twins(9, edges, 4) == [[1, 2, 3, 4]]
    assert twins(9, edges, 5) == []


@given(graphs(most=40))
def test_each_node_has_a_cell_of_its_own(graph):
    count, edges = graph
    placed = cells(count, edges, cell=10, fit=200)
    assert len(set(placed.corners)) == count
    assert sorted(node for rank in placed.ranks for node in rank) == list(range(count))
    assert all(0 <= x <= placed.width - 10 and 0 <= y <= placed.height - 10 for x, y in placed.corners)


def test_ranks_of_thousands_are_folded_until_they_fit():
    edges = [(0, at) for at in range(1, 5000)] + [(at, 5000) for at in range(1, 5000)]
    placed = cells(5001, edges, cell=10, fit=1000)
    assert placed.width <= 1000
    assert placed.height >= 400


def test_nothing_is_a_picture_too():
    assert layered([], [], down=True).width == 0
    assert cells(0, []).width == 0

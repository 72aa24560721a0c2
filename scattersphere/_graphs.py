"""Topological order of a directed graph over the numbers 0, 1, 2, ..., or a cycle that forbids one.

Kahn, "Topological sorting of large networks", CACM 5/11, 1962.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere._turns import EACH

if TYPE_CHECKING:
    from collections.abc import Sequence


def successors_of(waits: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return for each node those that wait for it."""
    each = EACH.get()
    below: list[list[int]] = [[] for _ in each(waits)]
    for index, upstreams in enumerate(each(waits)):
        for upstream in upstreams:
            below[upstream].append(index)
    return below


def is_ordered(waits: Sequence[Sequence[int]]) -> bool:
    """Whether each node waits only for nodes before it: then there is no cycle, and no need to look for one."""
    return all(max(upstreams) < index for index, upstreams in enumerate(EACH.get()(waits)) if upstreams)


def in_order(waits: Sequence[Sequence[int]], below: Sequence[Sequence[int]] | None = None) -> list[int]:
    """Return the nodes, each after those that it waits for; those in or behind a cycle are left out.

    `below` are the successors, where they are known already.
    """
    if below is None:
        below = successors_of(waits)
    left = list(map(len, waits))
    ready = [index for index, count in enumerate(left) if not count]
    for index in EACH.get()(ready):  # grows while it is read
        for successor in below[index]:
            left[successor] -= 1
            if not left[successor]:
                ready.append(successor)
    return ready


def find_cycle(waits: Sequence[Sequence[int]]) -> list[int]:
    """Return one cycle among nodes that each wait for others, or []. That one waits for itself is no cycle here."""
    if is_ordered(waits):
        return []
    waits = [
        [other for other in found if other != index] if index in found else found
        for index, found in enumerate(EACH.get()(waits))
    ]
    order = in_order(waits)
    if len(order) == len(waits):
        return []
    stuck = set(range(len(waits))).difference(order)
    # Whoever waits waits for somebody who waits: following that comes around.
    place: dict[int, int] = {}
    at = min(stuck)
    while at not in place:
        place[at] = len(place)
        at = next(other for other in waits[at] if other in stuck)
    walk = list(place)[place[at] :]
    return walk[::-1]

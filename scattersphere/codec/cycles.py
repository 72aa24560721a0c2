"""Tasks that wait for each other: one cycle of them, found and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CYCLE_SHOWN = 10
"""Names of a cycle that are shown (design, section 4)."""


def find_cycle(waits: Sequence[tuple[int, ...]]) -> list[int]:
    """Return one cycle among tasks that each wait for others, by their numbers, or [].

    Kahn's algorithm on what is left (CACM 5/11, 1962). That a task waits for itself is no cycle here.
    """
    waits = [
        tuple(other for other in found if other != index) if index in found else found
        for index, found in enumerate(waits)
    ]
    left = [len(upstream) for upstream in waits]
    below: list[list[int]] = [[] for _ in waits]
    for index, upstream in enumerate(waits):
        for other in upstream:
            below[other].append(index)
    ready = [index for index, count in enumerate(left) if not count]
    for index in ready:  # grows while it is read
        for successor in below[index]:
            left[successor] -= 1
            if not left[successor]:
                ready.append(successor)
    if len(ready) == len(waits):
        return []
    stuck = next(index for index, count in enumerate(left) if count)
    # Whoever waits waits for somebody who waits: following that comes around.
    order: dict[int, int] = {}
    at = stuck
    while at not in order:
        order[at] = len(order)
        at = next(other for other in waits[at] if left[other])
    walk = list(order)[order[at] :]
    return walk[::-1]


def show_cycle(cycle: list[str]) -> str:
    """Write a cycle from its least name on, at most `CYCLE_SHOWN` names: `clean -> mail -> clean`."""
    first = min(cycle)
    start = cycle.index(first)
    turned = [*cycle[start:], *cycle[:start], first]
    if len(turned) > CYCLE_SHOWN:
        turned = [*turned[: CYCLE_SHOWN - 2], "...", first]
    return " -> ".join(turned)

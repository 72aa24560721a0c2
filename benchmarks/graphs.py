"""The graphs that the benchmarks run: for each task, the numbers of those that it waits for."""

from __future__ import annotations

import random

Graph = list[tuple[int, ...]]

LAYER = 100
"""Tasks of one layer."""


def chain(size: int) -> Graph:
    """Each task waits for the one before."""
    return [(index - 1,) if index else () for index in range(size)]


def wide(size: int) -> Graph:
    """No task waits for another."""
    return [()] * size


def layered(size: int) -> Graph:
    """Layers of a hundred tasks, each of which waits for three of the layer above."""
    rng = random.Random(1)
    return [
        tuple(rng.sample(range(start - LAYER, start), 3)) if start else ()
        for start in range(0, size, LAYER)
        for _ in range(min(LAYER, size - start))
    ]


SHAPES = {"chain": chain, "wide": wide, "layered": layered}

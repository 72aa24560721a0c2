"""Live read-only mappings that may change during an iteration: the runs of a Server, its jobs, bundles, tasks."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, ValuesView
from typing import TypeVar

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)


class LiveMapping(Mapping[K, V_co]):
    """A mapping of which each walk is over what was there when it began: a loop that waits meets no change.

    A subclass's `__iter__` goes over a copy of its keys.
    """

    def items(self) -> ItemsView[K, V_co]:
        """Return the keys and values of this moment."""
        return {key: self[key] for key in self}.items()

    def values(self) -> ValuesView[V_co]:
        """Return the values of this moment."""
        return {key: self[key] for key in self}.values()

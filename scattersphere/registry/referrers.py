"""Searching the heap for what holds a released version: from its code upwards to what is not its own.

`gc.get_referrers` looks at every object, so it is asked once for a whole layer of the search.
"""

from __future__ import annotations

import gc
import sys
import types
from typing import TYPE_CHECKING, Any

from scattersphere.registry.imports import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.registry.probes import Suspect

LAYERS = 8
"""Steps away from the version's own objects; what holds it is seldom more than three away."""

WIDEST = 2_000
"""Objects that one layer may have; more means that the search has left the neighbourhood."""

FOUND = 10
"""Holders after which the search ends."""


def holders(suspect: Suspect) -> list[tuple[str, str]]:
    """Return (kind, where) of the nearest objects outside the version that lead to it."""
    return list(_Search(suspect).run())


class _Search:
    """One breadth-first search. Its own objects are kept out of what it finds."""

    def __init__(self, suspect: Suspect) -> None:
        self.suspect = suspect
        self.globals = {
            id(vars(module)): name
            for name, module in list(sys.modules.items())
            if isinstance(module, types.ModuleType)
        }
        self.seen: dict[int, str] = {}
        """The objects found so far, by id, each with the way from it to the version."""

    def run(self) -> Iterator[tuple[str, str]]:
        layer = self._own_objects()
        self.seen = {id(thing): self._told(thing) for thing in layer}
        found = 0
        for _ in range(LAYERS):
            above: list[Any] = []
            for holder, inner in self._above(layer):
                root = self._root(holder, inner)
                if root is not None:
                    yield root
                    found += 1
                    if found == FOUND:
                        return
                    continue
                self.seen[id(holder)] = f"{type(holder).__name__} -> {self.seen[id(inner)]}"
                above.append(holder)
            if not above or len(above) > WIDEST:
                return
            layer = above

    def _own_objects(self) -> list[Any]:
        """Return the version's functions, classes, instances, modules, and the dicts of these."""
        own: list[Any] = []
        for thing in gc.get_objects():
            if type(thing) is dict:
                if TOKEN in thing or self.suspect.named(thing.get("__name__")):
                    own.append(thing)
            elif isinstance(thing, types.FunctionType | type | types.ModuleType):
                if self.suspect.owns(thing):
                    own.append(thing)
            elif self.suspect.named(type(thing).__module__):
                own.append(thing)
        return own

    def _above(self, layer: list[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (holder, what it holds) for the objects that refer to `layer` and are new."""
        for holder in gc.get_referrers(*layer):
            if holder is layer or holder is self.seen or id(holder) in self.seen:
                continue
            if isinstance(holder, types.FrameType) and _is_ours(holder):
                continue
            inner = next((thing for thing in gc.get_referents(holder) if id(thing) in self.seen), None)
            if inner is not None:
                yield holder, inner

    def _root(self, holder: Any, inner: Any) -> tuple[str, str] | None:
        """Return what to tell of a holder at which the search can end."""
        way = self.seen[id(inner)]
        name = self.globals.get(id(holder))
        if name is not None:
            key = next((key for key, value in list(holder.items()) if value is inner), "?")
            return "global", f"{name}.{key} -> {way}"
        if isinstance(holder, types.FrameType):
            return "frame", f"{self.suspect.line(holder)} -> {way}"
        return None

    def _told(self, thing: Any) -> str:
        if isinstance(thing, types.ModuleType):
            return f"module {self.suspect.logical(thing.__name__)}"
        if isinstance(thing, dict):
            return "its globals"
        if isinstance(thing, types.FunctionType | type):
            return self.suspect.name(thing)
        return f"an instance of {self.suspect.name(thing)}"


def _is_ours(frame: types.FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return isinstance(module, str) and module.startswith("scattersphere.registry.")

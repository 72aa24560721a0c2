"""Leak detection: which released versions are still alive, and what holds them. Reported, never repaired."""

from __future__ import annotations

import datetime as dt
import decimal
import gc
import re
import struct
import sys
import threading
import types
from operator import is_
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.registry.modules.leak_checks import probe
from scattersphere.registry.modules.namespace import logical
from scattersphere.registry.modules.registrations import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.registry.modules.registrations import Suspect
    from scattersphere.registry.modules.release import ReleasedVersion


LAYERS = 8
"""Steps away from the version's own objects; what holds it is seldom more than three away."""

WIDEST = 2_000
"""Objects that one layer may have; more means that the search has left the neighbourhood."""

FOUND = 10
"""Holders after which the search ends."""

HAS_GC = 1 << 14
"""Py_TPFLAGS_HAVE_GC of a type: the collector sees what its instances hold."""

SIMPLE: frozenset[type] = frozenset(
    {
        object,
        str,
        bytes,
        bytearray,
        int,
        float,
        complex,
        bool,
        type(None),
        type(...),
        type(NotImplemented),
        range,
    }
    | {types.CodeType, re.Pattern, struct.Struct, decimal.Decimal}
    | {
        dt.date,
        dt.time,
        dt.timedelta,
        dt.timezone,
        type(threading.Lock()),
        type(vars(dt).get("datetime_CAPI")),
    }
)
"""Types without that flag whose instances hold nothing of a bundle's."""

OPAQUE_SHOWN = 3

SEARCHED = 5
"""Released versions of a bundle whose holders are searched for; older ones are taken to be held by the same."""

_UNSEARCHED = ("unknown holder", "not searched for: those of newer versions differ")


def holders(suspect: Suspect) -> list[tuple[str, str]]:
    """Search the heap from the version's code upwards; return (kind, where) of what holds it and is not its own.

    `gc.get_referrers` looks at every object, so it is asked once for a whole layer of the search.
    """
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
            above: list[object] = []
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
            if len(above) > WIDEST:
                return
            if not above:
                yield from self._tops(layer, found)
                return
            layer = above

    def _tops(self, layer: list[object], found: int) -> Iterator[tuple[str, str]]:
        """Tell where a search has ended that found no root: something in C holds these, gc cannot see what."""
        if found:
            return
        opaque = set(self._opaque())
        if opaque:
            # Sorted: versions of the same code are to say the same.
            kinds, places = ({pair[at] for pair in opaque if pair[at]} for at in (0, 1))
            shown, where = (", ".join(sorted(names)[:OPAQUE_SHOWN]) for names in (kinds, places))
            yield "holder in C code", f"{shown} in {where or 'it'}; the garbage collector cannot see into it"
            return
        for way in dict.fromkeys(self.seen[id(thing)] for thing in layer[: FOUND - 1]):
            yield "holder in C code", way

    def _opaque(self) -> Iterator[tuple[str, str]]:
        """Yield (class, top-level module) of what the version holds and gc does not see into.

        A circle through such an object is never freed.
        """
        for holder in self._own_objects():
            module = holder.get("__name__") if isinstance(holder, dict) else type(holder).__module__
            place = self.suspect.logical(str(module)).partition(".")[0] if self.suspect.named(module) else ""
            for thing in gc.get_referents(holder):
                cls = type(thing)
                if cls.__flags__ & HAS_GC or cls in SIMPLE or isinstance(thing, type):
                    continue
                if getattr(thing, "tzinfo", self) is not None:  # a plain date and time holds nothing
                    yield f"{cls.__module__}.{cls.__qualname__}", place

    def _own_objects(self) -> list[object]:
        """Return the version's functions, classes, instances, modules, and the dicts of these."""
        own: list[object] = []
        for thing in gc.get_objects():
            if type(thing) is dict:
                # The builtins of this version, not those of all others: each has a canary of its own.
                if self.suspect.marked(thing.get(CANARY)) or self.suspect.named(thing.get("__name__")):
                    own.append(thing)
            elif isinstance(thing, types.FunctionType | type | types.ModuleType):
                if self.suspect.owns(thing):
                    own.append(thing)
            elif self.suspect.named(type(thing).__module__):
                own.append(thing)
        return own

    def _above(self, layer: list[object]) -> Iterator[tuple[object, object]]:
        """Yield (holder, what it holds) for the objects that refer to `layer` and are new."""
        for holder in gc.get_referrers(*layer):
            if holder is layer or holder is self.seen or id(holder) in self.seen:
                continue
            if isinstance(holder, types.FrameType) and _is_ours(holder):
                continue
            if type(holder) is tuple and len(holder) == len(layer) and all(map(is_, holder, layer)):
                continue  # the arguments of the call two lines above, since Python 3.13
            inner = next((thing for thing in gc.get_referents(holder) if id(thing) in self.seen), None)
            if inner is not None:
                yield holder, inner

    def _root(self, holder: Any, inner: object) -> tuple[str, str] | None:
        """Return what to tell of a holder at which the search can end."""
        way = self.seen[id(inner)]
        name = self.globals.get(id(holder))
        if name is not None:
            key = next((key for key, value in list(holder.items()) if value is inner), "?")
            return "global", f"{logical(name)}.{key} -> {way}"
        if isinstance(holder, types.FrameType):
            return "frame", f"{self.suspect.line(holder)} -> {way}"
        return None

    def _told(self, thing: object) -> str:
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


CURES = {
    "thread": "end it in on_release",
    "frame": "it goes when that function returns",
    "coroutine": "close it, or cancel its task, in on_release",
    "asynchronous generator": "close it in on_release",
    "generator": "close it in on_release",
    "logging handler": "remove it in on_release",
    "logging filter": "remove it in on_release",
    "atexit function": "atexit.unregister it in on_release",
    "codec": "codecs.unregister it in on_release",
    "finalizer": "detach it in on_release",
    "hook": "take it out in on_release, or use scattersphere.replace_attribute",
    "patched method": "undo it in on_release: scattersphere.replace_attribute",
    "global": "take it out in on_release: scattersphere.replace_attribute, replace_item",
    "holder in C code": "no code of the bundle can undo it: take the library that keeps it from the host, by shared=",
    "module entry": "name it below the bundle's own package",
}


@attrs.frozen
class Leak:
    """One thing that keeps a released version in memory."""

    label: str
    """The version: `etl@91be07`."""
    kind: str
    """`thread`, `coroutine`, `logging handler`, `global`..."""
    holder: str
    """What it is and where, in logical names."""

    def __str__(self) -> str:
        article = "an" if self.kind[0] in "aeiou" else "a"
        return f"{self.label} is held by {article} {self.kind}: {self.holder} ({self.cure})"

    @property
    def cure(self) -> str:
        """What the author of the bundle can do about it."""
        return CURES.get(self.kind, "undo it in on_release")


def find_leaks(alive: Callable[[], list[ReleasedVersion]]) -> list[Leak]:
    """Collect garbage and name what holds the released versions that are left.

    The last few are looked at: each look goes over the whole heap, and the same code leaves the same behind each time.
    A heap that the host froze (`gc.freeze`) is thawed: gc shows nothing of what is frozen, the holder neither.
    """
    if gc.get_freeze_count():
        gc.unfreeze()
    gc.collect()
    released = alive()
    older, searched = released[:-SEARCHED], released[-SEARCHED:]
    found = [_diagnose(version) for version in searched]
    said = [{(leak.kind, leak.holder): None for leak in leaks} for leaks in found]
    alike = said[0] if said and all(one.keys() == said[0].keys() for one in said) else {_UNSEARCHED: None}
    guessed = [Leak(version.label, kind, holder) for version in older for kind, holder in alike]
    return [*guessed, *(leak for leaks in found for leak in leaks)]


def _diagnose(released: ReleasedVersion) -> list[Leak]:
    """Look at the usual places first: they give exact words. Search the heap only if that finds nothing."""
    found = [Leak(released.label, kind, holder) for kind, holder in probe(released.suspect)]
    if not found:
        found = [Leak(released.label, kind, holder) for kind, holder in holders(released.suspect)]
    unique = list(dict.fromkeys(found))
    return unique or [Leak(released.label, "unknown holder", "C code, or an object that gc cannot see")]

"""Garbage collection paused while many long-lived objects are made: definitions and plans; and the end of large ones.

A collection looks at every object of its generation in one go, in whatever turn of the loop it falls due, or in a
thread that keeps the interpreter's lock meanwhile. Of what is being read nothing is garbage.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from sys import getrefcount
from typing import TYPE_CHECKING

from scattersphere._turns import WAY

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 200
"""Tasks, and _LARGE characters, above which garbage collection is paused: it would look at each new
object again and again, and find nothing."""
_LARGE = 50_000
_WIDE = 1_000
"""Parts of one object above which they are freed one by one, though they have none themselves."""
_MINE = 2
"""References to an object that nobody else has: that of a local variable, and that of the question."""
PROMOTIONS = 1_000
"""How often in a row young objects are taken for old ones, until a full collection has come: put off it is, but not
for ever, since the host's garbage waits for it too."""

_promoted = [0, 0]
"""The full collections so far, and the promotions since the last one."""


@contextmanager
def gc_paused(*, characters: int = 0, tasks: int = 0) -> Iterator[None]:
    """Make many objects without the collector's looking at them meanwhile, or at once afterwards, if there are many."""
    paused = (characters > _LARGE or tasks > MANY) and gc.isenabled()
    if paused:
        gc.disable()
    try:
        yield
    finally:
        if paused:
            promote_young()
            gc.enable()


def promote_young() -> None:
    """Take all young objects for old ones without looking at them, in no time: the next full collection does.

    Nothing happens where the host has frozen objects of its own: they would be thawed.
    """
    full = gc.get_stats()[-1]["collections"]
    if full != _promoted[0]:
        _promoted[:] = full, 0
    if _promoted[1] >= PROMOTIONS:
        return
    if gc.get_freeze_count():  # it counts them one by one, so it is not asked each time
        _promoted[1] = PROMOTIONS
        return
    _promoted[1] += 1
    gc.freeze()
    gc.unfreeze()


def free(things: list[object]) -> None:
    """Free what only a list holds, object by object, and give way; what others hold as well is left as it is.

    Python frees a tree in one go, in which no loop has a turn.
    """
    way = WAY.get()
    while things:
        if way is None:
            things.clear()
            return
        thing = things.pop()
        if getrefcount(thing) <= _MINE:
            parts = gc.get_referents(thing)
            things += parts if len(parts) > _WIDE else filter(gc.is_tracked, parts)
            del parts
        way()

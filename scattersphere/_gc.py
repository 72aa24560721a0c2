"""Garbage collection paused while many long-lived objects are made: definitions and plans.

A collection looks at every object of its generation in one go, in whatever turn of the loop it falls due, or in a
thread that keeps the interpreter's lock meanwhile. Of what is being read nothing is garbage.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 200
"""Tasks, and _LARGE characters, above which garbage collection is paused: it would look at each new
object again and again, and find nothing."""
_LARGE = 50_000
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

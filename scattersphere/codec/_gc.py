"""Making many objects at once without the collector's looking at them."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANY = 200
"""Tasks, and _LARGE characters, above which garbage collection is paused: it would look at each new
object again and again, and find nothing."""
_LARGE = 50_000


@contextmanager
def gc_paused(*, characters: int = 0, tasks: int = 0) -> Iterator[None]:
    """Make many objects without the collector's looking at them meanwhile, if there are many."""
    paused = (characters > _LARGE or tasks > _MANY) and gc.isenabled()
    if paused:
        gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()

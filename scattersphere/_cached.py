"""Properties computed once for each object, without a lock: work that gives way to the loop may stand inside one.

`functools.cached_property` of Python 3.11 has one lock for all objects of a class, held while a value is computed. A
thread that waits there for a turn of the loop would wait for ever if the loop asked for the same property of another
object in that turn.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    cached_property = functools.cached_property  # noqa: TID251 - to type checkers it is just that
else:

    class cached_property(functools.cached_property[T]):  # noqa: N801, TID251 - named as what it stands for
        """What `functools.cached_property` is from Python 3.12 on: of threads that compute at once, each does so."""

        def __init__(self, func: Callable[[object], T]) -> None:
            super().__init__(func)
            self.lock = nullcontext()

"""The nearest name to a mistyped one ("did you mean"), within a budget of work.

Names come from strangers, in any number and of any length, and are compared on the event loop. `difflib` takes
milliseconds for one pair of names that are built for it; the longest common subsequence, computed with one bit for
each character (Hyyro, "Bit-parallel LCS-length computation revisited", 2004), costs one step for each letter of the
other name, whatever it holds. The steps are what a `Budget` counts.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

STEPS = 40_000
"""Letters that are compared for one operation, however many names it holds: about 10 ms."""
LONGEST = 200
"""Letters of a name above which nothing is suggested for it."""
NEAR = 0.6
"""The part of both names that must be common, from 0 to 1: that of `difflib.get_close_matches`."""


@attrs.define
class Budget:
    """How many letters may still be compared."""

    left: int = STEPS


_BUDGET: ContextVar[Budget | None] = ContextVar("scattersphere_suggestions", default=None)


@contextmanager
def suggestion_budget() -> Iterator[None]:
    """Let all suggestions made inside share one budget: for an operation that may meet many wrong names.

    Where it is entered inside another one, the outer budget holds.
    """
    if _BUDGET.get() is not None:
        yield
        return
    token = _BUDGET.set(Budget())
    try:
        yield
    finally:
        _BUDGET.reset(token)


class Suggester:
    """Finds the one of `names` that was probably meant; all its questions share one budget."""

    __slots__ = ("_budget", "_names")

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._budget = _BUDGET.get() or Budget()

    def nearest(self, word: str) -> str | None:
        """Return the nearest name, the case of letters aside, or None where none is near or the budget is spent."""
        budget = self._budget
        if not word or len(word) > LONGEST or budget.left <= 0:
            return None
        meant = word.lower()
        size = len(meant)
        places: dict[str, int] = {}
        for place, letter in enumerate(meant):
            places[letter] = places.get(letter, 0) | 1 << place
        everywhere = (1 << size) - 1
        shortest, longest = size * NEAR / (2 - NEAR), size * (2 - NEAR) / NEAR
        best, found = NEAR, None
        for name in self._names:
            budget.left -= 1
            if budget.left <= 0:
                break
            if not shortest <= len(name) <= longest:
                continue
            budget.left -= len(name)
            free = everywhere  # a bit that is zero: a letter of the word that has a partner
            for letter in name.lower():
                partners = free & places.get(letter, 0)
                free = (free + partners) | (free - partners)
            score = 2 * (size - (free & everywhere).bit_count()) / (size + len(name))
            if score > best or (found is None and score == best):
                best, found = score, name
        return found


def nearest(word: object, names: Iterable[str]) -> str | None:
    """Return the one of `names` that was probably meant by `word`, or None; also where that is no text at all."""
    if not isinstance(word, str):
        return None
    return Suggester(tuple(names) if not hasattr(names, "__len__") else names).nearest(word)  # type: ignore[arg-type]


def did_you_mean(word: object, names: Iterable[str], *, quote: str = '"') -> str:
    """Return `; did you mean "..."?` with the nearest of `names`, or nothing."""
    near = nearest(word, names)
    return f"; did you mean {quote}{near}{quote}?" if near is not None else ""

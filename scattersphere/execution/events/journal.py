"""The numbered events of one run, kept as little as possible.

State moves are in the machine's journal: one int each. Progress and log lines ("extras") are in a
bounded ring. Both share one sequence of numbers. The number of a move is its place in the journal
plus the extras that came before it; where that offset changes is noted, so that numbering costs
nothing when a run makes no extras, and at most sixteen bytes for each move when it does.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SAME = 0.001
"""Seconds within which moves have the same time."""

Entry = tuple[int, float, Any]
"""(number, clock, extra)."""


NO_EXTRAS: deque[Entry] = deque(maxlen=0)
NO_BREAKS: array[int] = array("q", [0])
"""Of a journal that has no extras yet; never written to."""


class Moves(NamedTuple):
    """Moves that follow each other without an extra between them, and have one time."""

    number: int
    """That of the first of them."""
    clock: float
    start: int
    """Its place in the journal."""
    stop: int


class Journal:
    """Numbers moves and extras together, and reads them back from any number on."""

    __slots__ = (
        "_break_extras", "_break_places", "_extras", "_keep", "_mark_clocks", "_mark_places", "_same_until",
        "extras_seen", "moves",
    )  # fmt: skip

    def __init__(self, moves: list[int] | array[int], keep: int) -> None:
        self.moves: list[int] | array[int] = moves
        self.extras_seen: int = 0
        self._keep = keep
        # Most runs have no extras: what is kept of them is made when the first one comes.
        self._extras: deque[Entry] = NO_EXTRAS
        # From which place on how many extras came before; arrays, because there may be one for each move.
        self._break_places: array[int] = NO_BREAKS
        self._break_extras: array[int] = NO_BREAKS
        # Up to which place the moves have which time.
        self._mark_places: array[int] = array("q")
        self._mark_clocks: array[float] = array("d")
        self._same_until = float("-inf")
        """Up to which clock a stamp is the same as the last one."""

    @property
    def last(self) -> int:
        """The number of the newest event; 0 where there is none."""
        return len(self.moves) + self.extras_seen

    def stamp(self, now: float) -> None:
        """Give the moves since the last stamp the time `now`; once for each batch is enough.

        Stamps that follow each other within a millisecond are one: in a chain of small tasks each move
        would have its own.
        """
        places = self._mark_places
        if now < self._same_until:
            places[-1] = len(self.moves)
        elif not places or places[-1] != len(self.moves):
            places.append(len(self.moves))
            self._mark_clocks.append(now)
            self._same_until = now + SAME

    def add(self, extra: Any, now: float) -> int:
        """Keep a progress or log event; the oldest is dropped when the ring is full."""
        if not self.extras_seen:
            self._extras = deque(maxlen=self._keep)
            self._break_places, self._break_extras = array("q", [0]), array("q", [0])
        self.extras_seen += 1
        count = len(self.moves)
        number = count + self.extras_seen
        self._extras.append((number, now, extra))
        if self._break_places[-1] == count:
            self._break_extras[-1] = self.extras_seen
        else:
            self._break_places.append(count)
            self._break_extras.append(self.extras_seen)
        return number

    def compact(self, moves: list[int] | array[int]) -> None:
        """Take `moves` instead: the same ones, kept in fewer bytes, of a run that has ended."""
        self.moves = moves

    # ---- reading

    def time_of(self, place: int) -> float:
        """Return the clock of the move at `place` in the journal."""
        return self._mark(place)[0]

    def _mark(self, place: int) -> tuple[float, int]:
        """Return the clock of the move at `place`, and up to which place the same holds."""
        found = bisect.bisect_right(self._mark_places, place)
        if found < len(self._mark_places):
            return self._mark_clocks[found], self._mark_places[found]
        return (self._mark_clocks[-1] if self._mark_clocks else 0.0), len(self.moves)

    def _offset(self, place: int) -> tuple[int, int]:
        """Return how many extras came before the move at `place`, and up to which place that holds."""
        found = bisect.bisect_right(self._break_places, place)
        until = self._break_places[found] if found < len(self._break_places) else len(self.moves)
        return self._break_extras[found - 1], until

    def place_after(self, number: int) -> int:
        """Return the place of the first move with a number above `number`."""
        if not self.extras_seen:
            return min(number, len(self.moves))
        # Numbers grow with places, and are ahead of them by at most the extras: a bisection.
        low, high = max(0, number - self.extras_seen), min(number, len(self.moves))
        while low < high:
            middle = (low + high) // 2
            if middle + 1 + self._offset(middle)[0] <= number:
                low = middle + 1
            else:
                high = middle
        return low

    def next_kept(self, number: int) -> int:
        """Return the first number above `number` whose event can still be read, or the one after the last."""
        place = self.place_after(number)
        move = place + 1 + self._offset(place)[0] if place < len(self.moves) else self.last + 1
        at = bisect.bisect_right(self._extras, number, key=_number)
        return min(move, self._extras[at][0]) if at < len(self._extras) else move

    def read(self, after: int, upto: int) -> Iterator[Moves | Entry]:
        """Yield what has numbers above `after` up to `upto`, in order; extras that were dropped are missing."""
        place, total = self.place_after(after), len(self.moves)
        for extra in (*self._extras_between(after, upto), (upto + 1, 0.0, None)):
            while place < total:
                offset, stop = self._offset(place)
                number = place + 1 + offset
                if number >= extra[0]:
                    break
                clock, until = self._mark(place)
                stop = min(stop, until, place + extra[0] - number)
                yield Moves(number, clock, place, stop)
                place = stop
            if extra[0] <= upto:
                yield extra

    def _extras_between(self, after: int, upto: int) -> list[Entry]:
        extras = self._extras
        if not extras or extras[-1][0] <= after:
            return []
        first = bisect.bisect_right(extras, after, key=_number)
        last = bisect.bisect_right(extras, upto, lo=first, key=_number)
        return list(itertools.islice(extras, first, last))


def _number(entry: Entry) -> int:
    return entry[0]

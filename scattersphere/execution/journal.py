"""The numbered events of one run, kept as little as possible.

State moves are in the machine's journal: one int each. Progress and log lines ("extras") are in a
bounded ring. Both share one sequence of numbers. The number of a move is its place in the journal
plus the extras that came before it; `breaks` holds that offset where it changes, so that numbering
costs nothing when a run makes no extras, and at most one pair for each move when it does.
"""

from __future__ import annotations

import bisect
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from array import array

Entry = tuple[int, float, Any]
"""(number, clock, what): `what` is a journal int or an extra."""


class Journal:
    """Numbers moves and extras together, and reads them back from any number on."""

    __slots__ = ("_breaks", "_extras", "_marks", "extras_seen", "moves")

    def __init__(self, moves: list[int] | array[int], keep: int) -> None:
        self.moves: list[int] | array[int] = moves
        self.extras_seen: int = 0
        self._extras: deque[Entry] = deque(maxlen=keep)
        self._breaks: list[tuple[int, int]] = [(0, 0)]
        self._marks: list[tuple[int, float]] = []

    @property
    def last(self) -> int:
        """The number of the newest event; 0 where there is none."""
        return len(self.moves) + self.extras_seen

    def stamp(self, now: float) -> None:
        """Give the moves since the last stamp the time `now`; once for each batch is enough."""
        count = len(self.moves)
        if not self._marks or self._marks[-1][0] != count:
            self._marks.append((count, now))

    def add(self, extra: Any, now: float) -> int:
        """Keep a progress or log event; the oldest is dropped when the ring is full."""
        self.extras_seen += 1
        number = len(self.moves) + self.extras_seen
        self._extras.append((number, now, extra))
        if self._breaks[-1][0] == len(self.moves):
            self._breaks[-1] = (len(self.moves), self.extras_seen)
        else:
            self._breaks.append((len(self.moves), self.extras_seen))
        return number

    def time_of(self, position: int) -> float:
        """Return the clock of the move at `position` in the journal."""
        found = bisect.bisect_right(self._marks, position, key=lambda mark: mark[0])
        if found < len(self._marks):
            return self._marks[found][1]
        return self._marks[-1][1] if self._marks else 0.0

    def number_of(self, position: int) -> int:
        """Return the number of the move at `position` in the journal."""
        found = bisect.bisect_right(self._breaks, position, key=lambda pair: pair[0]) - 1
        return position + 1 + self._breaks[found][1]

    def position_after(self, number: int) -> int:
        """Return the position of the first move with a number above `number`."""
        # Numbers grow with positions, and are ahead of them by at most the extras: a bisection.
        low, high = max(0, number - self.extras_seen), min(number, len(self.moves))
        while low < high:
            middle = (low + high) // 2
            if self.number_of(middle) <= number:
                low = middle + 1
            else:
                high = middle
        return low

    def extras_after(self, number: int) -> list[Entry]:
        """Return the kept extras above `number`, in order; looks at no more than those."""
        found: list[Entry] = []
        for entry in reversed(self._extras):
            if entry[0] <= number:
                break
            found.append(entry)
        found.reverse()
        return found


class JournalReader:
    """Reads a journal from a number on, in pieces, while it grows."""

    __slots__ = ("_journal", "last", "position")

    def __init__(self, journal: Journal, since: int = 0) -> None:
        self._journal = journal
        self.last: int = since
        self.position: int = journal.position_after(since)

    def read(self, limit: int) -> list[Entry]:
        """Return at most `limit` further events; none where there are none yet."""
        journal = self._journal
        extras = journal.extras_after(self.last)
        found: list[Entry] = []
        at, total = 0, len(journal.moves)
        while len(found) < limit:
            number = journal.number_of(self.position) if self.position < total else None
            if at < len(extras) and (number is None or extras[at][0] < number):
                found.append(extras[at])
                at += 1
            elif number is not None:
                found.append((number, journal.time_of(self.position), journal.moves[self.position]))
                self.position += 1
            else:
                break
        if found:
            self.last = found[-1][0]
        return found

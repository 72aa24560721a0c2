"""The numbered events of one run, kept as little as possible.

State moves are in the machine's list: one int each. Progress and log lines ("extras") are in a
bounded ring. Both share one sequence of numbers, in the order of their times. The number of a move is its place in the
list plus the extras that came before it; where that offset changes is noted, so that numbering costs
nothing when a run makes no extras, and at most sixteen bytes for each move when it does.

Lines come from any thread, and are numbered when somebody looks: each goes to the place that its time has among the
moves, as far as their numbers were not told to anybody.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAME = 0.001
"""Seconds within which moves have the same time."""

Entry = tuple[int, float, object]
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


class LineTimes(Protocol):
    """What is asked of the log of the run."""

    last_number: int
    """The number of the newest line."""

    def times_after(self, number: int, most: int) -> list[float]:
        """Return the clocks of the lines after line `number`, but of the last `most` ones only."""
        ...


class EventNumbers:
    """Numbers moves and extras together, and reads them back from any number on."""

    __slots__ = (
        "_break_extras", "_break_places", "_extras", "_keep", "_lines", "_mark_clocks", "_mark_starts",
        "_told", "extras_seen", "lines_noted", "moves", "same_until", "stamped",
    )  # fmt: skip

    def __init__(self, moves: list[int] | array[int], keep: int) -> None:
        self.moves: list[int] | array[int] = moves
        """Those of the machine; of a run that has ended the same ones, kept in fewer bytes."""
        self.extras_seen: int = 0
        self._keep = keep
        # Most runs have no extras: what is kept of them is made when the first one comes.
        self._extras: deque[Entry] = NO_EXTRAS
        # From which place on how many extras came before; arrays, because there may be one for each move.
        self._break_places: array[int] = NO_BREAKS
        self._break_extras: array[int] = NO_BREAKS
        # From which place on the moves have which time.
        self._mark_starts: array[int] = array("q")
        self._mark_clocks: array[float] = array("d")
        self.stamped: int = 0
        """Up to which place the moves have a time."""
        self.same_until: float = float("-inf")
        """Up to which clock a stamp is the same as the last one: then it only counts the moves as stamped."""
        self._told: int = 0
        """How many moves have numbers that somebody knows."""
        self._lines: LineTimes | None = None
        self.lines_noted: int = 0
        """Up to which number the lines of the log have become events."""

    @property
    def last(self) -> int:
        """The number of the newest event; 0 where there is none."""
        self.take_lines()
        self._told = len(self.moves)
        return len(self.moves) + self.extras_seen

    def stamp(self, now: float) -> None:
        """Give the moves since the last stamp the time `now`; once for each batch is enough.

        Stamps that follow each other within a millisecond are one: in a chain of small tasks each move
        would have its own.
        """
        if now >= self.same_until and (self.stamped != len(self.moves) or not self._mark_starts):
            self._mark_starts.append(self.stamped)
            self._mark_clocks.append(now)
            self.same_until = now + SAME
        self.stamped = len(self.moves)

    def add(self, extra: object, now: float) -> int:
        """Keep a progress event; the oldest extra is dropped when the ring is full."""
        self.take_lines()
        self._told = len(self.moves)
        self._stamp_before(now)
        return self._add(extra, now, len(self.moves))

    def _add(self, extra: object, clock: float, place: int, *, passed_over: int = 0) -> int:
        """Number an extra before the move at `place`; `passed_over` others before it are dropped at once."""
        if not self.extras_seen:
            self._extras = deque(maxlen=self._keep)
            self._break_places, self._break_extras = array("q", [0]), array("q", [0])
        self.extras_seen += 1 + passed_over
        number = place + self.extras_seen
        self._extras.append((number, clock, extra))
        if self._break_places[-1] == place:
            self._break_extras[-1] = self.extras_seen
        else:
            self._break_places.append(place)
            self._break_extras.append(self.extras_seen)
        return number

    def _stamp_before(self, clock: float) -> None:
        """Before an extra is added: moves without a time were made by then, and later ones have another."""
        if self.stamped != len(self.moves):
            self.stamp(clock)
        self.same_until = float("-inf")

    # ---- lines of the log

    def follow(self, lines: LineTimes) -> None:
        """Make events of the lines of this log, from the first one on."""
        self._lines = lines

    @property
    def has_new_lines(self) -> bool:
        """Whether there are lines that are no events yet; those that come after the end of the run become none."""
        return self._lines is not None and self._lines.last_number != self.lines_noted

    def line_came(self, clock: float) -> None:
        """Number the newest line of the log, of this time, after those that are no events yet. On the loop's thread."""
        lines = self._lines
        if lines is not None and lines.last_number == self.lines_noted + 1:
            self._number_lines([clock], 0)
        else:
            self.take_lines()

    def take_lines(self, *, all_moves_are_told: bool = True) -> None:
        """Number the lines that are no events yet. On the loop's thread."""
        lines = self._lines
        if lines is None or lines.last_number == self.lines_noted:
            return
        times = lines.times_after(self.lines_noted, max(1, self._keep))
        passed_over = lines.last_number - self.lines_noted - len(times)
        self._number_lines(times, passed_over, all_moves_are_told=all_moves_are_told)

    def _number_lines(self, times: list[float], passed_over: int, *, all_moves_are_told: bool = True) -> None:
        if all_moves_are_told and self.stamped != len(self.moves):
            self._stamp_before(times[0])
        number = self.lines_noted + passed_over
        for clock in times:
            number += 1
            place = max(self._told, self._break_places[-1], min(self._place_of(clock), self.stamped))
            self._add(number, clock, place, passed_over=passed_over)
            passed_over = 0
        self.lines_noted = number
        self.same_until = float("-inf")

    def close(self) -> None:
        """The run has ended, which is the last move: number the lines that came before it, and no later one."""
        self.take_lines(all_moves_are_told=False)
        self._lines = None

    def _place_of(self, clock: float) -> int:
        """Return the place of the first move that was made after `clock`."""
        mark = bisect.bisect_right(self._mark_clocks, clock)
        return self._mark_starts[mark] if mark < len(self._mark_starts) else self.stamped

    def replay(self, slices: Iterable[tuple[float, array[int]]]) -> None:
        """Have the moves of a run that has ended in an earlier life: (clock, moves) as they were written.

        The clock may have been put back between two lives, so each time stands for itself.
        """
        self.moves = moves = array("q")
        for clock, slice_ in slices:
            self._mark_starts.append(len(moves))
            self._mark_clocks.append(clock)
            moves.extend(slice_)
        self.stamped = len(moves)

    # ---- reading

    def time_of(self, place: int) -> float:
        """Return the clock of the move at `place` in the journal."""
        return self.mark(place)[0]

    def mark(self, place: int) -> tuple[float, int]:
        """Return the clock of the move at `place`, and up to which place the same holds."""
        found = bisect.bisect_right(self._mark_starts, place)
        until = self._mark_starts[found] if found < len(self._mark_starts) else len(self.moves)
        return (self._mark_clocks[found - 1] if found else 0.0), until

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
                clock, until = self.mark(place)
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
        if first <= len(extras) // 2:
            return list(itertools.islice(extras, first, last))
        # Readers are mostly near the end, to which a deque is walked as quickly as from its beginning.
        newest = itertools.islice(reversed(extras), len(extras) - last, len(extras) - first)
        return list(newest)[::-1]


def _number(entry: Entry) -> int:
    return entry[0]

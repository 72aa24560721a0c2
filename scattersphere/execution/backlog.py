"""Work that comes in bursts and is dear: some of it is done at once, the rest in later turns of the loop.

To put a failure into words costs a hundred times what a success costs. If a thousand bodies fail in one
turn, because the connection that they share is lost, the loop is not held for all of them.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Backlog:
    """Does what it is given until a turn's share of time is spent; keeps the rest in order."""

    def __init__(self, share: float) -> None:
        self._share = share
        """Seconds of each turn."""
        self._spent = 0.0
        self.waiting: deque[Callable[[], None]] = deque()
        """What is to be done in later turns."""

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def do(self, action: Callable[[], None]) -> bool:
        """Do it now, or keep it where others wait or the share is spent. Return whether it was done."""
        if self.waiting or self._spent > self._share:
            self.waiting.append(action)
            return False
        self._take(action)
        return True

    def later(self, action: Callable[[], None]) -> None:
        """Do it in a later turn."""
        self.waiting.append(action)

    def in_pieces(self, pieces: Iterator[None]) -> None:
        """Take one piece after the other, as the turns to come have time for them."""

        def take_one() -> None:
            for _ in pieces:
                self.later(take_one)
                return

        self.later(take_one)

    def new_turn(self) -> bool:
        """Another turn has come: go on with what waits. Return whether there is more."""
        self._spent = 0.0
        while self.waiting and self._spent <= self._share:
            self._take(self.waiting.popleft())
        return bool(self.waiting)

    def clear(self) -> None:
        """Forget what waits."""
        self.waiting.clear()

    def _take(self, action: Callable[[], None]) -> None:
        before = time.perf_counter()
        action()
        self._spent += time.perf_counter() - before

"""Fairness among requests: only a few begin in one turn of the loop, so that a crowd delays nobody else."""

from __future__ import annotations

import anyio
import anyio.lowlevel

BEGIN = 4
"""Requests that begin in one turn of the loop. Most are carried out in the turn in which they begin."""


class Turns:
    """Lets a few through in each turn of the loop, in the order in which they came."""

    def __init__(self) -> None:
        self._room = anyio.Semaphore(BEGIN, fast_acquire=True)

    async def take(self) -> None:
        """Wait for one's turn."""
        async with (
            self._room
        ):  # a place is free again in the next turn, and who waits for it goes on in the one after
            await anyio.lowlevel.checkpoint()

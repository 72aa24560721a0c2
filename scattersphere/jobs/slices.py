"""Slices: work on many small things that lets the event loop have its turns."""

from __future__ import annotations

import time

import anyio.lowlevel

SLICE = 0.005
"""Seconds of one turn of the loop."""


class Slices:
    """Lets the loop have its turns during work on many small things."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + SLICE

    async def next(self) -> None:
        """Let others have their turn if this one has lasted long enough."""
        if time.perf_counter() > self._end:
            await anyio.lowlevel.checkpoint()
            self._end = time.perf_counter() + SLICE

"""Event loops: the one place that knows asyncio and trio apart. Start, cancel, abandon, wake, alarm."""

from __future__ import annotations

import sys

from scattersphere.engine.loops.asyncio import AsyncioLoop
from scattersphere.engine.loops.protocol import Loop
from scattersphere.engine.loops.trio import TrioLoop

__all__ = ["AsyncioLoop", "Loop", "TrioLoop", "current_loop"]


def current_loop() -> Loop:
    """Return a `Loop` for the event loop that runs now. Raises `RuntimeError` outside of one."""
    return TrioLoop() if _in_trio() else AsyncioLoop()


def _in_trio() -> bool:
    # A program that never imported trio cannot be inside it; asking sys.modules keeps it unimported.
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()

"""ProcessGroup: ends a program and all that it started, politely first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import Process

STEP = 0.02
"""Seconds between looks at a group that was told to end: the kernel tells nobody when the last one has gone."""
SHARE_OF_GRACE = 0.7
"""The part of an attempt's grace that the group may use: the rest is for SIGKILL, and for reading what is left."""
LEAST_GRACE = 0.1
"""Seconds of grace below which there is no time to be polite: a kill gives a coroutine 0.05 s."""


class ProcessGroup:
    """The group that `process` leads (it was started in a session of its own).

    `patience` is the seconds between SIGTERM and SIGKILL, or most of what `grace_left()` says if that is less.
    """

    def __init__(self, process: Process, patience: float, grace_left: Callable[[], float | None]) -> None:
        self._process = process
        self._patience = patience
        self._grace_left = grace_left

    async def aclose(self) -> None:
        """End the group, whatever cancels the caller meanwhile, and close the program's streams."""
        with anyio.CancelScope(shield=True):
            try:
                await self.end()
            except GeneratorExit:  # the body is closed by force and cannot wait; the loop reaps the program
                self._signal("KILL")
                raise
            except BaseException:  # a second cancel of asyncio's goes through the shield: no more patience
                self._signal("KILL")
                await self._process.aclose()
                raise
            await self._process.aclose()

    async def end(self) -> None:
        """End what is there of the group; return when it has gone, or has got SIGKILL."""
        begun = anyio.current_time()
        if not self._signal("TERM"):
            return
        while anyio.current_time() - begun < self._limit(begun):
            with anyio.move_on_after(STEP):
                await self._process.wait()
            if self._process.returncode is not None and not self._anybody_left():
                return
            await anyio.sleep(STEP)
        self._signal("KILL")
        await self._process.wait()

    def _limit(self, begun: float) -> float:
        left = self._grace_left()
        if left is None:
            return self._patience
        whole = left + anyio.current_time() - begun
        return 0 if whole < LEAST_GRACE else min(self._patience, whole * SHARE_OF_GRACE)

    def _signal(self, name: str) -> bool:
        """Send SIGTERM or SIGKILL to the whole group. Return whether anybody was there."""
        if sys.platform == "win32":  # no groups there: the program alone
            if self._process.returncode is not None:
                return False
            self._process.kill()
            return True
        try:
            os.killpg(self._process.pid, signal.Signals[f"SIG{name}"])
        except (ProcessLookupError, PermissionError):
            return False  # nobody is left, or only a zombie of somebody else
        return True

    def _anybody_left(self) -> bool:
        """Whether a member of the group still runs, now that the program itself has ended."""
        group = str(self._process.pid).encode()
        if not Path("/proc/self/stat").exists():
            return self._signal("TERM")
        # A container's first process often reaps no orphans: `killpg` finds their zombies for ever.
        return any(_is_alive_in(group, folder) for folder in Path("/proc").glob("[0-9]*"))


def _is_alive_in(group: bytes, folder: Path) -> bool:
    try:
        state, _parent, of_group = (folder / "stat").read_bytes().rpartition(b")")[2].split(maxsplit=3)[:3]
    except (OSError, ValueError):
        return False  # it ended meanwhile
    return of_group == group and state not in {b"Z", b"X"}

"""Work in a thread beside an event loop, which keeps its turns: the thread gives the interpreter's lock back.

Whenever the loop has made a system call it wants the interpreter's lock back, and a thread that computes lets it have
it only after 5 ms: a turn with a hundred sockets would take half a second. So work that calls `_turns.give_way` waits
by itself, after each few milliseconds, until the loop has had a turn, however long that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from scattersphere._owntask import in_trio
from scattersphere._turns import let_others_wait

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
SLICE = 0.002
"""Seconds of work between two turns of the loop."""
LOOK = 1.0
"""Seconds after which work that waits for a turn looks whether the loop is still there to have one."""


async def in_thread(work: Callable[[], T], limiter: anyio.CapacityLimiter | None = None) -> T:
    """Return `work()`, done in a thread: one of `limiter`'s, by default one that takes no place of the host's 40."""
    # An error holds the frames through which it came, and those that called them. If one of these held the error, they
    # would stay, with all that the work has made, until Python collects garbage. So it is handed over in a list.
    ended: list[tuple[T | None, BaseException | None]] = []
    slices = _Slices(None if in_trio() else asyncio.get_running_loop())
    await anyio.to_thread.run_sync(
        _carry_out, work, slices, ended, limiter=limiter or anyio.CapacityLimiter(1)
    )
    result, error = ended.pop()
    if error is None:
        return result  # type: ignore[return-value] # there is one
    try:
        raise error
    finally:
        del error


def _carry_out(
    work: Callable[[], T], slices: _Slices, ended: list[tuple[T | None, BaseException | None]]
) -> None:
    let_others_wait(slices.give_way)  # in this call's own context
    try:
        ended.append((work(), None))
    except BaseException as error:  # noqa: BLE001 - it is raised where the work is awaited
        ended.append((None, error))


class _Slices:
    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._end = time.perf_counter() + SLICE

    def give_way(self) -> None:
        if time.perf_counter() > self._end:
            self._have_turn()
            self._end = time.perf_counter() + SLICE

    def _have_turn(self) -> None:
        if self._loop is None:  # trio does not end while it waits for a thread
            anyio.from_thread.run_sync(_nothing)
            return
        # asyncio does, where the task that waits is cancelled with the program (`asyncio.run`) or is just left, and
        # what was to be called then is dropped. A thread that waited for that would keep the process from ending.
        had = threading.Event()
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(had.set)
        while self._loop.is_running() and not had.wait(LOOK):
            pass


def _nothing() -> None:
    """Take a turn of the loop."""

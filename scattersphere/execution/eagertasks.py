"""Eager tasks for Python 3.11: the first step of a task is taken at once and not in the loop's next turn.

From 3.12 on `asyncio.Task(..., eager_start=True)` does this. Here the first step is taken out of the loop's queue
just after the constructor has put it there; around it another task stops being the current one, by the functions
that asyncio documents for those who implement tasks. `BaseEventLoop._ready` is private, but 3.11 gets security fixes
only, so that it stays; a loop that has none (uvloop), or calls back in another way, starts tasks as it always did.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # "Extending", in asyncio's documentation
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def can_start_eagerly(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop keeps what it is about to call where `eager_task` looks for it."""
    return isinstance(getattr(loop, "_ready", None), deque)


def eager_task(loop: Any, body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Make a task and take its first step; it has ended if that was its last one."""
    task = asyncio.Task(body, loop=loop, name=name)
    ready = loop._ready  # noqa: SLF001 - see above
    try:
        # No other thread can add to the queue between this look and `pop`: there is no call in between, and
        # only at calls and at loops does 3.11 hand on the interpreter.
        handle = ready[-1]
        is_ours: bool = handle._callback.__self__ is task  # noqa: SLF001 - see above
        if not is_ours:  # somebody was quicker to add another call: the first step comes in its turn
            return task
    except (AttributeError, IndexError):
        return task
    ready.pop()
    current = asyncio.current_task(loop)
    if current is None:
        handle._run()  # noqa: SLF001 - see above
        return task
    _leave_task(loop, current)
    try:
        handle._run()  # noqa: SLF001 - see above
    finally:
        _enter_task(loop, current)
    return task

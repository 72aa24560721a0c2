"""Log lines that come out of a worker process when their call is over, or that never had one."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scattersphere.runnable import TaskContext

LateLine = Callable[[int, str, str, float], None]
"""Takes level, message and logger of a line that no run takes, and how many seconds ago it was written."""

REMEMBERED = 8
"""Earlier calls of a worker whose late lines still find their run."""


class LateLines:
    """Finds the run of a line by the number of its call, as long as that run is kept; for one thread."""

    def __init__(self, elsewhere: LateLine | None) -> None:
        self._elsewhere = elsewhere
        self._calls: deque[tuple[int, weakref.ref[Any], dict[str, Any]]] = deque(maxlen=REMEMBERED)

    def remember(self, number: int, context: TaskContext) -> None:
        """Note where lines of a call belong that comes to its end. Keeps no run alive."""
        log = getattr(context, "run_log", None)
        if log is not None:
            place = {"task": context.task, "index": context.index, "attempt": context.attempt}
            self._calls.append((number, weakref.ref(log), place))

    def take(self, number: int, level: int, message: str, logger: str, ago: float) -> None:
        """File a line: with its own run if that is still there, else where the host wants such lines."""
        for called, reference, place in self._calls:
            log = reference()
            if called == number and log is not None:
                log.append(level, message, logger=logger, ago=ago, **place)
                return
        if self._elsewhere is not None:
            self._elsewhere(level, message, logger, ago)

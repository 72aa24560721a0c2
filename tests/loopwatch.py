"""Measures the longest time for which a loop got no turn, whatever else the machine was doing.

The clock on the wall would blame a test for a machine that is busy elsewhere. So the time that our threads
were ready to run but had no processor is taken off (Linux tells it in `schedstat`, in nanoseconds); where the
system does not tell, the processor time of the loop's thread is counted instead.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

LIMIT = 1.0
"""Seconds without a turn after which the engine itself would warn (promise 11 of the design)."""

FRESH = 0.1
"""Seconds for which a reading of the waiting time is good enough."""


def _waited() -> float | None:
    """Seconds that threads of this process were ready to run but waited for a processor."""
    total = 0
    try:
        for path in Path("/proc/self/task").glob("*/schedstat"):
            total += int(path.read_text().split()[1])
    except (OSError, IndexError):  # a thread that ended meanwhile, or no Linux
        return None
    return total / 1e9 if total else None


class LoopWatch:
    """A context manager, entered in the test's own task: `longest` is in seconds, `culprit` says what ran."""

    limit = LIMIT

    def __init__(self) -> None:
        self.longest = 0.0
        self.culprit = ""
        self._wall = self._processor = self._read_at = 0.0
        self._waited: float | None = None
        self._instrument: Any = None

    def __enter__(self) -> Self:
        if _on_trio():
            self._watch_trio()
        else:
            self._watch_asyncio()
        self.begin()  # the step that enters has begun already, and may be the only one
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("the last step of the test")
        self._unwatch()

    def begin(self) -> None:
        """A turn begins."""
        self._wall = time.perf_counter()
        self._processor = time.thread_time()
        if self._wall - self._read_at > FRESH:
            self._read_at, self._waited = self._wall, _waited()

    def end(self, culprit: object) -> None:
        """A turn ends."""
        held = time.perf_counter() - self._wall
        if held <= LIMIT:
            return
        waited = _waited()
        if waited is None or self._waited is None:
            held = time.thread_time() - self._processor
        else:
            held -= waited - self._waited
        if held > self.longest:
            self.longest, self.culprit = held, repr(culprit)

    def _watch_asyncio(self) -> None:
        # Each callback and each step of a task goes through this one method of asyncio's.
        original = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            self.begin()
            original(handle)
            self.end(handle)

        def unwatch() -> None:
            asyncio.Handle._run = original  # type: ignore[method-assign]

        asyncio.Handle._run = run  # type: ignore[assignment, method-assign]
        self._unwatch = unwatch

    def _watch_trio(self) -> None:
        import trio

        watch = self

        class Instrument(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                del task
                watch.begin()

            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                watch.end(task)

        instrument = Instrument()
        trio.lowlevel.add_instrument(instrument)
        self._unwatch = lambda: trio.lowlevel.remove_instrument(instrument)

    def _unwatch(self) -> None:
        """Put things back; replaced on entering."""


def _on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())

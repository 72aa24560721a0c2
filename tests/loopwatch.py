"""Measures the longest time for which a loop got no turn, whatever else the machine was doing.

The clock on the wall would blame a test for a machine that is busy elsewhere. So the time that our threads
were ready to run but had no processor is taken off (Linux tells it in `schedstat`, in nanoseconds); where the
system does not tell, the processor time of the loop's thread is counted instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

LIMIT = 1.0
"""Seconds without a turn after which the engine itself would warn (promise 11 of the design)."""

NOMINAL = 0.02
"""Seconds of processor that `_work` takes on the machine for which `LIMIT` was written."""


def _work() -> None:
    total = 0
    for number in range(400_000):
        total += number & 7


def slowness() -> float:
    """Return how many times slower this machine is just now; at least 1."""
    best = 1e9
    for _ in range(3):
        begun = time.thread_time()
        _work()
        best = min(best, time.thread_time() - begun)
    return max(1.0, best / NOMINAL)


class LoopWatch:
    """A context manager, entered in the test's own task: `longest` is in seconds, `culprit` says what ran."""

    limit = LIMIT

    def __init__(self) -> None:
        self.longest = 0.0
        self.culprit = ""
        self._wall = self._processor = self._process = self._waited = 0.0
        self._schedstat: int | None = None
        self._instrument: Any = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
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
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def _queued(self) -> float:
        """Seconds that the loop's own thread was ready to run but had no processor: never fewer than before."""
        if self._schedstat is None:
            return 0.0
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9

    def begin(self) -> None:
        """A turn begins."""
        self._wall = time.perf_counter()
        self._processor, self._process = time.thread_time(), time.process_time()
        self._waited = self._queued()

    def end(self, culprit: object) -> None:
        """A turn ends."""
        held = time.perf_counter() - self._wall
        if held <= LIMIT:
            return
        spun = time.thread_time() - self._processor
        others = max(
            0.0, time.process_time() - self._process - spun
        )  # they may have had the interpreter's lock
        slept = held - spun - others - (self._queued() - self._waited)
        if spun > LIMIT:
            spun /= slowness()
        held = max(spun, slept)
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

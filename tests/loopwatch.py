"""Finds turns for which a test held its loop, whatever else the machine was doing.

A turn is judged by two numbers, and neither is the speed of one machine:

* for how long it *slept*, in seconds: the wall's time less what it computed, what it waited for a processor, and what
  it may have waited for the interpreter's lock; longer, where it waited for a disk. The engine itself would warn after a second (promise 11 of the design).
* how much it *computed*: the processor time of the loop's own thread, divided by that of a piece of reference work
  which is done then and there.

All that is read belongs to the loop's own thread and can only grow, so that its difference is what the turn took,
whatever other threads begin and end meanwhile; and no turn is judged longer than it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

SLEEP = 1.0
"""Seconds that a turn may sleep."""

AT_DISK = 30.0
"""Seconds that a turn may sleep in which a disk was waited for: others may keep it busy, and nobody tells how long."""

WORK = 80
"""How many times the reference work a turn may do: that is a second or more of processor on machines of 2026."""

WORTH_A_LOOK = 0.25
"""Seconds after which a turn is looked at closely, which costs several times the reference work."""

FRESH = 0.05
"""Seconds for which a reading may stand for the beginning of a turn: the clocks are too dear for each turn."""


def reference() -> float:
    """Return the seconds of processor that a fixed piece of work takes here and now, on the average of five."""
    begun = time.thread_time()
    for _ in range(5):
        total = 0
        for number in range(400_000):
            total += number & 7
    return (time.thread_time() - begun) / 5


class Reading(NamedTuple):
    """What this thread has used up so far, in seconds."""

    wall: float
    computed: float
    queued: float
    """Ready to run, but without a processor; NaN where the system does not tell."""
    switches: int
    """How often it has waited for anything."""
    process: float
    """What all threads of the process have computed together."""
    disk: int = 0
    """How often it has read from a disk, or written to one."""


class Clocks:
    """Reads the clocks of the thread in which it was made."""

    def __init__(self) -> None:
        self._schedstat: int | None = None
        with contextlib.suppress(OSError):
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def wall(self) -> float:
        return time.perf_counter()

    def read(self) -> Reading:
        queued, switches, disk = float("nan"), 0, 0
        if self._schedstat is not None:
            queued = int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9
            used = resource.getrusage(resource.RUSAGE_THREAD)
            switches, disk = used.ru_nvcsw, used.ru_majflt + used.ru_inblock + used.ru_oublock
        return Reading(self.wall(), time.thread_time(), queued, switches, time.process_time(), disk)

    def reference(self) -> float:
        return reference()


class LoopWatch:
    """A context manager, entered in the test's own task: `worst` is 1 at the limit, `verdict` says what held the loop."""

    def __init__(self, clocks: Any = None) -> None:
        self.worst = 0.0
        self.verdict = ""
        self._clocks: Any = clocks
        self._begun = 0.0
        self._since: Reading | None = None

    def __enter__(self) -> Self:
        self._clocks = self._clocks or Clocks()
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
        self._clocks.close()

    def begin(self) -> None:
        """A turn begins."""
        self._begun = self._clocks.wall()
        if self._since is None or self._begun - self._since.wall > FRESH:
            self._since = self._clocks.read()

    def end(self, culprit: object) -> None:
        """A turn ends."""
        held = self._clocks.wall() - self._begun
        if held <= WORTH_A_LOOK or self._since is None:
            return
        now, since = self._clocks.read(), self._since
        computed = min(held, now.computed - since.computed)
        slept = held - computed - (now.queued - since.queued) - _locked(since, now)
        work = computed / self._clocks.reference() if computed > WORTH_A_LOOK else 0.0
        most = SLEEP if now.disk == since.disk else AT_DISK
        if slept / most > self.worst:
            self.worst, self.verdict = slept / most, f"slept for {slept:.1f} s: {culprit!r}"
        if work / WORK > self.worst:
            self.worst = work / WORK
            self.verdict = f"computed {work:.0f} times the reference work ({computed:.1f} s): {culprit!r}"
        self._since = None  # it is old, and what was measured just now belongs to nobody's turn

    def _watch_asyncio(self) -> None:
        # Each callback and each step of a task goes through this one method of asyncio's.
        original, thread = asyncio.Handle._run, threading.get_ident()

        def run(handle: asyncio.Handle) -> None:
            if threading.get_ident() != thread:  # of a loop in another thread, which nobody watches
                original(handle)
                return
            self.begin()
            original(handle)
            self.end(handle)
            del handle  # as asyncio does: frames of an exception that is kept hold this one

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


def _locked(since: Reading, now: Reading) -> float:
    """Return for how long this thread may have waited for the interpreter's lock, which other threads had.

    Who waits for it wakes up after each switch interval and asks again; who waits for anything else sleeps through.
    """
    others = (now.process - since.process) - (now.computed - since.computed)
    if others < (now.wall - since.wall) / 20:
        return 0.0
    return (now.switches - since.switches) * sys.getswitchinterval()


def _on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())

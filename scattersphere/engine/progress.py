"""Progress of attempts: a body may report a million times a second, watchers are told ten times.

The newest report always wins, and the last one of an attempt is told before its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.timers import Deadlines, Timer
    from scattersphere.worker.messages import Report

GAP = 0.1
"""Seconds between two progress events of one attempt: a person sees no more than ten in a second."""


class ProgressHost(Protocol):
    """What progress needs of the executor."""

    clock: Callable[[], float]
    deadlines: Deadlines

    def guard(self, execution: Any, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def on_loop(self) -> bool:
        """Whether this is the loop's own thread."""
        ...

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; for any thread."""


class Gauge:
    """What one attempt has reported last, and what of it was told: `tell` is called with a report and a time."""

    __slots__ = ("_due", "_host", "_run", "_tell", "_timer", "_told", "_told_at", "latest")

    def __init__(self, host: ProgressHost, run: object, tell: Callable[[Report, float], None]) -> None:
        self._host = host
        self._run = run
        self._tell: Callable[[Report, float], None] | None = tell
        self.latest: Report | None = None
        self._told: Report | None = None
        self._told_at = -GAP
        self._due = False
        """Whether the loop will look at it, so that further reports need not ask for that."""
        self._timer: Timer | None = None

    def report(self, latest: Report) -> None:
        """Take a report; from any thread."""
        self.latest = latest
        if self._due:
            return
        self._due = True
        if self._host.on_loop():
            try:
                self._look()
            except BaseException:
                self._due = False  # a body that catches it may report again
                raise
        else:
            self._host.soon(self._host.guard, self._run, self._look)

    def close(self) -> None:
        """The attempt has ended: tell its last report, if watchers have not had it."""
        if self._timer is not None:
            self._timer.cancel()
        self._tell_latest()
        # A thread that was given up may go on reporting. What tells knows the attempt, which knows this.
        self.latest = self._told = self._tell = None

    def _look(self) -> None:
        self._timer = None
        wait = self._told_at + GAP - self._host.clock()
        if wait <= 0:
            self._due = False  # before the report is read: one that comes in between asks again
            self._tell_latest()
        else:
            self._timer = self._host.deadlines.call_later(self._run, wait, self._look)

    def _tell_latest(self) -> None:
        latest = self.latest
        if latest is None or latest is self._told or self._tell is None:
            return
        self._told, self._told_at = latest, self._host.clock()
        self._tell(latest, self._told_at)

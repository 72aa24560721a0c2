"""Progress of attempts: a body may report a million times a second, watchers are told ten times.

The newest report always wins, and the last one of an attempt is told before its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from scattersphere.model.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.attempt import Attempt
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.timers import Deadlines, Timer
    from scattersphere.worker.messages import Report

GAP = 0.1
"""Seconds between two progress events of one attempt: a person sees no more than ten in a second."""


class ProgressHost(Protocol):
    """What progress needs of the executor."""

    clock: Callable[[], float]
    deadlines: Deadlines

    def guard(self, execution: Execution, action: Callable[..., object], *args: Any) -> None:
        """Do something on behalf of a run."""

    def on_loop(self) -> bool:
        """Whether this is the loop's own thread."""
        ...

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back on the loop's thread; for any thread."""


class Gauge:
    """What one attempt has reported last, and what of it was told."""

    __slots__ = ("attempt", "due", "latest", "timer", "told", "told_at")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt: Attempt = attempt
        self.latest: Report | None = None
        self.told: Report | None = None
        self.told_at: float = -GAP
        self.due: bool = False
        """Whether the loop will look at it, so that further reports need not ask for that."""
        self.timer: Timer | None = None


def report(host: ProgressHost, attempt: Attempt, latest: Report) -> None:
    """Take a report; from any thread."""
    gauges, unit = attempt.execution.gauges, attempt.unit
    gauge = gauges.get(unit)
    if gauge is None or gauge.attempt is not attempt:
        gauge = gauges[unit] = Gauge(attempt)
    gauge.latest = latest
    if gauge.due:
        return
    gauge.due = True
    if host.on_loop():
        host.guard(attempt.execution, _look, host, gauge)
    else:
        host.soon(host.guard, attempt.execution, _look, host, gauge)


def close(host: ProgressHost, attempt: Attempt) -> None:
    """The attempt has ended: tell its last report, if watchers have not had it."""
    gauge = attempt.execution.gauges.get(attempt.unit)
    if gauge is None or gauge.attempt is not attempt:
        return
    del attempt.execution.gauges[attempt.unit]
    if gauge.timer is not None:
        gauge.timer.cancel()
    _tell(host, gauge)
    gauge.latest = gauge.told = None  # a thread that was given up may go on reporting


def _look(host: ProgressHost, gauge: Gauge) -> None:
    gauge.timer = None
    when = gauge.told_at + GAP
    if host.clock() >= when:
        gauge.due = False  # before the report is read: one that comes in between asks again
        _tell(host, gauge)
    else:
        wait = when - host.clock()
        gauge.timer = host.deadlines.call_later(gauge.attempt.execution, wait, lambda: _look(host, gauge))


def _tell(host: ProgressHost, gauge: Gauge) -> None:
    attempt, latest = gauge.attempt, gauge.latest
    execution = attempt.execution
    if latest is None or latest is gauge.told or execution.state.ended:
        return
    gauge.told, gauge.told_at = latest, host.clock()
    extra = (EventKind.TASK_PROGRESS, attempt.unit, attempt.attempt, *latest)
    execution.journal.add(extra, gauge.told_at)
    execution.tell()

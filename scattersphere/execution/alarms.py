"""Alarms: what is due is carried out, a slice at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scattersphere.execution.requests import Requests

if TYPE_CHECKING:
    from scattersphere.execution.loops import Loop

SLICE = 0.002
"""Seconds of the engine's own work after which the loop gets a turn (docs/explanation/performance.md). Real
time, also where the loop's clock is virtual: it is the processor that is shared."""
DUE_AT_ONCE = 64
"""Deadlines that are met between two looks at the clock."""


class Alarms(Requests):
    """Has the loop call back at the next deadline, and meets those that have come."""

    _loop: Loop | None
    _alarm: float | None

    def set_alarm(self) -> None:
        """Have the loop call back at the next deadline."""
        self.timers.changed = False
        due = self.timers.next
        if due != self._alarm and self._loop is not None:
            self._alarm = due
            self._loop.set_alarm(due)

    def on_alarm(self) -> None:
        """Meet the deadlines that have come. What is left after a slice is due at once: in the next turn."""
        self._alarm = None
        end = time.perf_counter() + SLICE
        try:
            now = self.clock()
            while self._meet_some(now) and time.perf_counter() < end:
                pass
        except BaseException as exc:  # noqa: BLE001 - a defect of ours must not end the host's loop
            self.crash(exc)
        self.set_alarm()
        self.wake()

    def _meet_some(self, now: float) -> bool:
        callbacks, expired = self.timers.due(now, DUE_AT_ONCE)
        for callback in callbacks:
            callback()
        for attempt in expired:
            self.guard(attempt.execution, self.attempt_timed_out, attempt)
        return bool(callbacks or expired)

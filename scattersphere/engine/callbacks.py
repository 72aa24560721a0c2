"""What bodies and backends do at a pause and a cancel beside the body: `on_cancel`, `on_pause`, `Handle.pause`."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Protocol

from scattersphere.worker.callbacks import Callbacks, LoopCalls, Steps, call_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.engine.holds import Timeouts

_log = logging.getLogger("scattersphere.engine")
PATIENCE = 1.0
"""Seconds that closing waits for callbacks that it has cancelled."""


class CallbacksHost(Protocol):
    """What it needs of the executor."""

    @property
    def canceller(self) -> Timeouts:
        """Looks after the timeouts of what is held."""
        ...

    def on_loop(self) -> bool:
        """Whether this is the loop's own thread."""
        ...

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread."""

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""


class BodyCallbacks:
    """The callbacks of the attempts of one executor."""

    def __init__(self, host: CallbacksHost) -> None:
        self._host = host
        self._calls = LoopCalls()

    # ---- in any thread of the body

    def of(self, attempt: Attempt) -> Callbacks:
        """Return what an attempt has registered, up to date with what was asked of it."""
        made = attempt.callbacks
        if made is None:
            attempt.execution.talks = True
            made = vars(attempt).setdefault("callbacks", self._make(attempt))
        # What is asked now finds it; what was asked before is made up for here.
        if attempt.cancel_reason is not None:
            made.cancel()
        if attempt.execution.pausing:
            made.pause()
            if not attempt.execution.pausing:  # resumed in between, perhaps before the line above
                made.resume()
        return made

    def _make(self, attempt: Attempt) -> Callbacks:
        context = contextvars.copy_context()
        name = f"scattersphere-callbacks {attempt.label}"

        def start(steps: Steps) -> None:
            if not attempt.planned.task_class.is_async:
                call_in_thread(steps, context, attempt.log, name)
            elif self._host.on_loop():
                self._calls.call(steps, context, attempt.log, name)
            else:
                self._host.soon(self._calls.call, steps, context, attempt.log, name)

        return Callbacks(start, lambda: self.held(attempt))

    def held(self, attempt: Attempt) -> None:
        """Take note that all of an attempt is held, without a checkpoint; for any thread."""
        self._host.soon(self._host.guard, attempt.execution, self._hold, attempt)

    def _hold(self, attempt: Attempt) -> None:
        execution = attempt.execution
        if execution.live.get(attempt.unit) is not attempt or attempt.unit in execution.machine.record.held:
            return
        if attempt.callbacks is not None and not attempt.callbacks.is_held:
            return  # the run has gone on since
        commands = execution.machine.checkpoint(attempt.unit)
        if commands is not None:
            self._host.canceller.stand_still(attempt, commands)

    # ---- on the loop

    def pause(self, execution: Execution) -> None:
        """A run is being paused: tell bodies and backends that want to know."""
        for attempt in list(execution.live.values()):
            if attempt.callbacks is not None:
                attempt.callbacks.pause()
            if not attempt.planned.on_loop:
                self._tell(attempt, "pause")

    def resume(self, execution: Execution) -> None:
        """It goes on."""
        for attempt in list(execution.live.values()):
            if attempt.callbacks is not None:
                attempt.callbacks.resume()
            if not attempt.planned.on_loop:
                self._tell(attempt, "resume")

    def _tell(self, attempt: Attempt, verb: str) -> None:
        method = getattr(attempt.handle, verb, None)  # a handle may leave them out
        if method is not None:
            try:
                method()
            except Exception:  # noqa: BLE001 - a backend of the host's
                _log.exception("%s: %s of its backend has failed", attempt.label, verb)

    async def aclose(self) -> None:
        """Cancel the callbacks that execute on the loop."""
        await self._calls.aclose(PATIENCE)

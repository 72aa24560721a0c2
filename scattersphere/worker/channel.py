"""The channel of a call in a worker: what it says to the engine and is told, whatever carries that.

A transport has two ends. In the worker it is a `Channel` that sends; on the engine's side it hands what it receives to
a `CallChannel`, which is a `Channel` too and answers out of the call. What the engine asks of a call that executes
goes the other way, to its `CallControl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from scattersphere.errors import TaskCancelled
from scattersphere.logs.failures import text_of
from scattersphere.logs.hostlog import pass_on_line
from scattersphere.logs.runlog import TASK_LOGGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scattersphere.abc.backend import Call
    from scattersphere.logs.runlog import LoggedAttempt


class CallControl(Protocol):
    """What the engine asks of a call that executes. For any thread; after its end nothing happens."""

    def cancel(self) -> None:
        """Ask its body to end; may be repeated."""

    def pause(self) -> None:
        """Its run is being paused; may be repeated."""

    def resume(self) -> None:
        """Its run goes on; may be repeated."""

    def where(self) -> str:
        """Say which line it is executing."""
        ...


class Channel(Protocol):
    """How one call speaks with the engine. For any thread of the call; those that it leaves behind speak too."""

    def begun(self, control: CallControl) -> None:
        """Be given what the engine asks through; called before any code of the task is executed."""

    def log(self, level: int, message: str, logger: str, ago: float) -> None:
        """Hand on a line of the log that was written `ago` seconds before now."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Hand on a report of progress."""

    def check(self) -> str | None:
        """Ask whether the body may go on, and wait while its run is paused. Return why it must end, or None."""
        ...

    def held(self) -> None:
        """Tell that all of the body is held, by what it has registered with `on_pause`."""

    def results(self) -> Mapping[str, Any]:
        """Fetch the results of the upstream tasks. Raises TypeError if they cannot be sent."""
        ...


class CallChannel:
    """The engine's end: answers out of a call. For any thread; `check` waits while the run is paused."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def begun(self, control: CallControl) -> None:
        """Do nothing: a transport keeps the control where it can reach it."""

    def log(self, level: int, message: str, logger: str, ago: float) -> None:
        """Put a line into the log of the run, and what the body itself has logged into the host's logging."""
        context = self._call.task_context
        log = getattr(context, "run_log", None)
        if log is None:  # a context of somebody else's executor
            context.log.log(level, "%s", message)
            return
        log.append(
            level, message, task=context.task, index=context.index, attempt=context.attempt,
            logger=logger, ago=ago,
        )  # fmt: skip
        if logger == TASK_LOGGER:
            pass_on_line(cast("LoggedAttempt", context), level, message)

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Report progress."""
        self._call.task_context.progress(done, total, message)

    def check(self) -> str | None:
        """Ask the attempt's own context: this blocks while the run is paused."""
        try:
            self._call.task_context.check()
        except TaskCancelled as exc:
            return text_of(exc) or "cancel"
        return None

    def held(self) -> None:
        """Have the attempt counted as held."""
        self._call.held()

    def results(self) -> Mapping[str, Any]:
        """Return the results of the upstream tasks."""
        return self._call.task_context.results

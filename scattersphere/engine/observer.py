"""RunObserver: who is told of what happens to runs: the Server, with its history, its feed and the host's logging."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.engine.execution import Attempt, Execution
    from scattersphere.model.events import EventKind


def _nobody(*_: object) -> None:
    """Nobody is told."""


class RunObserver:
    """Who is told of what has happened to runs: the Server, with its history, its feed and the host's logging."""

    def __init__(
        self,
        *,
        run_moved: Callable[[Execution, EventKind], None] = _nobody,
        run_left: Callable[[Execution], None] = _nobody,
        task_failed: Callable[[Attempt], None] = _nobody,
        task_blocked: Callable[[Attempt, str], None] = _nobody,
    ) -> None:
        self.run_moved: Callable[[Execution, EventKind], None] = run_moved
        self.run_left: Callable[[Execution], None] = run_left
        """The last attempt that refused to end has ended, after its run: only now nothing executes the run's code."""
        self.task_failed: Callable[[Attempt], None] = task_failed
        """A task, or an instance of a map, has failed for good."""
        self.task_blocked: Callable[[Attempt, str], None] = task_blocked
        """A task blocks the loop."""

"""Defects of the engine's own code: one that comes up while a run is served ends that run, and nothing else."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from scattersphere.engine.machine.codes import RUN_CRASHED
from scattersphere.logs.failures import format_failure
from scattersphere.logs.masking import hide
from scattersphere.model.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.engine.admission import Admission
    from scattersphere.engine.execution import Attempt, Execution

_log = logging.getLogger("scattersphere.engine")


class WaitingCommands(Protocol):
    """What has commands that did not fit into a slice."""

    @property
    def waiting(self) -> dict[Execution, None]:
        """The runs that have some left."""
        ...


class ChildRequests(Protocol):
    """What looks after child runs."""

    def reach_children(self, execution: Execution, verb: str) -> None:
        """Ask of the children of a run what is asked of it."""


class AttemptInterrupter(Protocol):
    """What cancels attempts."""

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel or kill an attempt."""


class DefectsHost(Protocol):
    """What ending a run needs of the executor."""

    running: dict[int, Execution]
    stuck: dict[Attempt, Execution]
    admission: Admission
    clock: Callable[[], float]

    @property
    def commands(self) -> WaitingCommands:
        """Carries out what machines ask for."""
        ...

    @property
    def requests(self) -> ChildRequests:
        """Looks after runs and their families."""
        ...

    @property
    def canceller(self) -> AttemptInterrupter:
        """Cancels attempts."""
        ...

    def run_moved(self, execution: Execution, state: RunState) -> None:
        """Take note that the run itself has moved."""

    def forget_timers(self, execution: Execution) -> None:
        """Forget what a run was to be called back for."""

    def admit(self) -> None:
        """Give free slots to queued runs."""


class Defects:
    """Ends the runs of an executor that a defect of ours has come up in."""

    def __init__(self, host: DefectsHost) -> None:
        self._host = host
        self._crashing: set[Execution] = set()

    def crash_run(self, execution: Execution, exc: BaseException) -> None:
        """End a run as crashed, whatever becomes of each step: what has failed once may fail again."""
        with contextlib.suppress(BaseException):  # a handler of the host's
            _log.error(
                "a defect of the engine ends run %s of %s", execution.id, execution.plan.job, exc_info=exc
            )
        if execution in self._crashing:
            return
        self._crashing.add(execution)
        try:
            self._crash(execution, exc)
        finally:
            self._crashing.discard(execution)

    def _crash(self, execution: Execution, exc: BaseException) -> None:
        host = self._host
        if (
            execution.id not in host.running
        ):  # it had ended, and what follows from that may not have been done
            self._leave(execution)
            return
        machine = execution.machine
        self._try_all(
            (
                machine.crash,  # what it asks for is done here, as far as it can be
                machine.ready.drop,
                lambda: self._let_ended_go(execution),
                # The machine has given them up, and may not be asked any more; they are named until they end.
                lambda: host.stuck.update(dict.fromkeys(execution.live.values(), execution)),
                lambda: self._kill_all(execution),
                lambda: execution.log.append(
                    logging.ERROR, f"the engine failed: {format_failure(exc, hidden=execution.hidden)}"
                ),
                lambda: setattr(
                    execution, "crash_words", hide(f"the engine failed: {exc!r}", execution.hidden)
                ),
                execution.commands.clear,
                lambda: host.requests.reach_children(execution, "cancel"),
                lambda: host.commands.waiting.pop(execution, None),
                lambda: host.run_moved(execution, RunState.CRASHED),
            )
        )
        if execution.id in host.running:  # what tells of the end has failed
            machine.record.state, execution.state = RUN_CRASHED, RunState.CRASHED
            execution.ended_at = host.clock()
            del host.running[execution.id]
        self._leave(execution)

    def _leave(self, execution: Execution) -> None:
        """Do what follows from the end of a run, whatever of it was done before."""
        host, recording = self._host, execution.recording
        if recording is not None:  # it could not be closed
            execution.recording, execution.is_end_held = None, False
            self._try_all((recording.give_up_row,))
        self._try_all(
            (
                lambda: host.forget_timers(execution),
                lambda: host.admission.leave(execution),
                execution.tell_end,
                execution.wake_waiters,
                host.admit,
            )
        )

    def _try_all(self, steps: Sequence[Callable[[], object]]) -> None:
        for step in steps:
            try:
                step()
            except BaseException:  # noqa: BLE001 - see above
                with contextlib.suppress(BaseException):
                    _log.exception("another one, while the run was ended")

    def _let_ended_go(self, execution: Execution) -> None:
        """Take back the places of attempts that have ended, and whose outcomes were to become durable first."""
        recording = execution.recording
        if recording is None:
            return
        for unit, attempt in list(execution.live.items()):
            if recording.has_ended(attempt):
                del execution.live[unit]
                if unit in execution.machine.record.stuck:
                    execution.machine.end_of_stuck(unit)

    def _kill_all(self, execution: Execution) -> None:
        for attempt in list(execution.live.values()):
            attempt.cancel_reason, attempt.killed = "cancel", True
            with contextlib.suppress(Exception):  # the engine is broken: what can be killed is killed
                self._host.canceller.interrupt(attempt)

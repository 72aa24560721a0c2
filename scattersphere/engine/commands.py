"""CommandQueue: what the machine asks for is carried out in order, in slices, and never by recursion.

A cancel of a hundred thousand attempts is as many commands. What does not fit into a slice waits in
`Execution.commands`, and the pump goes on with it; moves of the run itself do not wait.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, assert_never

from scattersphere.engine.machine.codes import CANCEL, RUN_STATES, CommandKind
from scattersphere.engine.machine.record import NO_COMMANDS
from scattersphere.engine.timers import SLICE
from scattersphere.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scattersphere.engine.attempts import AttemptRunner
    from scattersphere.engine.cancellation import Canceller
    from scattersphere.engine.execution import Execution
    from scattersphere.engine.machine.codes import Command
    from scattersphere.model.states import RunState

WORK_STEPS = 256
"""Steps of a mass move between two looks at the clock; about a tenth of a millisecond."""
COMMANDS_AT_ONCE = 64
"""Commands between two looks at the clock."""
COMMANDS_A_TURN = 128
"""Commands before the loop has a turn: each attempt that is cancelled has a step in that turn, which costs several
times what it costs to cancel it."""


class RunDeadlines(Protocol):
    """What looks after the times of runs."""

    def limit_finals(self, execution: Execution) -> None:
        """Bound the finally-tasks of a cancelled run."""


class CommandHost(Protocol):
    """What carrying out commands needs of the executor."""

    clock: Callable[[], float]
    news: dict[Execution, None]
    pumping: bool
    """Whether the pump is at work: it looks again by itself."""

    @property
    def requests(self) -> RunDeadlines:
        """Looks after runs and their families."""
        ...

    def guard(self, execution: Execution, action: Callable[..., object], *args: object) -> None:
        """Do something on behalf of a run."""

    def run_moved(self, execution: Execution, state: RunState) -> None:
        """Take note that the run itself has moved."""

    def wake(self) -> None:
        """Have the pump called soon."""


class CommandQueue:
    """Carries out the commands of machines, and mass moves."""

    def __init__(self, host: CommandHost, attempts: AttemptRunner, canceller: Canceller) -> None:
        self._host = host
        self._attempts = attempts
        self._canceller = canceller
        self.waiting: OrderedDict[Execution, None] = OrderedDict()
        """The runs that have commands or a mass move left, in the order of their turns."""

    def apply(self, execution: Execution, commands: Sequence[Command], now: float | None = None) -> None:
        """A signal has changed a run: note when, and carry out what its machine asks for, or what fits into a slice."""
        record = execution.machine.record
        if record.level == CANCEL and record.finals_phase and execution.finals_timer is None:
            self._host.requests.limit_finals(execution)
        execution.journal.stamp(self._host.clock() if now is None else now)
        if execution.watchers is not None:
            self._host.news[execution] = None
        if execution.recording is not None:
            execution.recording.touch()
        if commands:
            self._take(execution, commands)
            # Where a command has led to this signal, who carries that one out comes to these too.
            if execution.commands and not execution.obeying:
                self._carry_on(execution, time.perf_counter() + SLICE)
        if not self._host.pumping:
            self._host.wake()

    def _take(self, execution: Execution, commands: Sequence[Command]) -> None:
        for command in commands:
            if command.kind is CommandKind.RUN:
                self._move_run(execution, RUN_STATES[command.number])
            elif command.kind is CommandKind.WORK:
                self.waiting[execution] = None
            else:
                execution.commands.append(command)

    def _move_run(self, execution: Execution, state: RunState) -> None:
        """Tell that the run has moved; that it has ended, when it is durable."""
        if state.ended and execution.recording is not None:
            execution.recording.end(lambda: self._host.run_moved(execution, state))
        else:
            self._host.run_moved(execution, state)

    def _carry_on(self, execution: Execution, end: float) -> None:
        """Carry out the run's commands until `end`; put it among those that have work left, if it has."""
        commands, carried = execution.commands, 0
        execution.obeying = True
        try:
            while commands:
                for _ in range(min(COMMANDS_AT_ONCE, len(commands))):
                    self._carry_out(execution, commands.popleft())
                carried += COMMANDS_AT_ONCE
                if commands and (carried >= COMMANDS_A_TURN or time.perf_counter() > end):
                    self.waiting[execution] = None
                    return
        finally:
            execution.obeying = False

    def _carry_out(self, execution: Execution, command: Command) -> None:
        unit, kind = command.number, command.kind
        if kind is CommandKind.CANCEL or kind is CommandKind.KILL:  # of these there may be very many at once
            self._canceller.end_attempt(execution, unit, kill=kind is CommandKind.KILL)
            return
        match kind:
            case CommandKind.RETRY:
                self._attempts.schedule_retry(execution, unit)
            case CommandKind.RELEASE:
                self._canceller.release(execution, unit)
            case CommandKind.MAPPED:
                execution.elements.pop(unit, None)
            case CommandKind.RUN | CommandKind.WORK:
                raise EngineError(f"{command} does not wait")
            case _:
                assert_never(kind)

    def work(self) -> bool:
        """Carry on with what is left of commands and mass moves, for a slice; runs take turns.

        Return whether there is more.
        """
        end = time.perf_counter() + SLICE
        waiting = self.waiting
        while waiting:
            execution, _ = waiting.popitem(last=False)
            self._host.guard(execution, self._work_on, execution, end)
            if execution.commands or time.perf_counter() > end:
                break
        return bool(waiting)

    def _work_on(self, execution: Execution, end: float) -> None:
        self._carry_on(execution, end)
        machine = execution.machine
        commands = NO_COMMANDS if execution.commands else machine.work(WORK_STEPS)
        if machine.busy:
            self.waiting[execution] = None
        self.apply(execution, commands)

"""Obeying the machine: its commands are carried out in order, in slices, and never by recursion.

A cancel of a hundred thousand attempts is as many commands. What does not fit into a slice waits in
`Execution.commands`, and the pump goes on with it; moves of the run itself do not wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scattersphere.execution.alarms import SLICE, Alarms
from scattersphere.execution.machine.codes import RUN_STATES
from scattersphere.execution.machine.consequences import CANCEL

if TYPE_CHECKING:
    from collections import OrderedDict

    from scattersphere.execution.execution import Execution
    from scattersphere.execution.machine.record import Command
    from scattersphere.model.states import RunState

WORK_STEPS = 256
"""Steps of a mass move between two looks at the clock; about a tenth of a millisecond."""
COMMANDS_AT_ONCE = 64
"""Commands between two looks at the clock."""
COMMANDS_A_TURN = 128
"""Commands before the loop has a turn: each attempt that is cancelled has a step in that turn, which costs several
times what it costs to cancel it."""


class Obedience(Alarms):
    """Carries out the commands of machines, and mass moves."""

    _working: OrderedDict[Execution, None]
    """The runs that have commands or a mass move left, in the order of their turns."""

    def run_moved(self, execution: Execution, state: RunState) -> None:
        """The run itself has moved."""
        raise NotImplementedError

    def obey(self, execution: Execution) -> None:
        """Carry out what the machine asks for: all of it, or what fits into a slice."""
        machine = execution.machine
        if machine.level == CANCEL and machine.finals_phase and execution.finals_timer is None:
            self.limit_finals(execution)
        if not machine.out:
            return
        self._take_commands(execution)
        if execution.obeying:  # a command has led to a signal: the loop below comes to its commands
            return
        self._carry_on(execution, time.perf_counter() + SLICE)
        self.written(execution, self.clock())
        self.wake()

    def _take_commands(self, execution: Execution) -> None:
        out = execution.machine.out
        execution.journal.stamp(self.clock())
        commands = out[:]
        out.clear()
        for command in commands:
            if command[0] == "run":
                self.run_moved(execution, RUN_STATES[command[1]])  # type: ignore[misc]
            elif command[0] == "work":
                self._working[execution] = None
            else:
                execution.commands.append(command)

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
                    self._working[execution] = None
                    return
        finally:
            execution.obeying = False

    def _carry_out(self, execution: Execution, command: Command) -> None:
        match command:
            case ("retry", unit):
                self.schedule_retry(execution, unit)
            case ("release", unit):
                self.release(execution, unit)
            case ("mapped", task):
                execution.elements.pop(task, None)
            case (word, unit):
                self.end_attempt(execution, unit, kill=word == "kill")

    def work(self) -> bool:
        """Carry on with what is left of commands and mass moves, for a slice; runs take turns.

        Return whether there is more.
        """
        end = time.perf_counter() + SLICE
        working = self._working
        while working:
            execution, _ = working.popitem(last=False)
            self.guard(execution, self._work_on, execution, end)
            if execution.commands or time.perf_counter() > end:
                break
        return bool(working)

    def _work_on(self, execution: Execution, end: float) -> None:
        self._carry_on(execution, end)
        if not execution.commands and execution.machine.work(WORK_STEPS):
            self._working[execution] = None
        self.obey(execution)

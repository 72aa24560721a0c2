"""One run on a stage, for explicit tests: short words for what a driver does."""

from __future__ import annotations

from machine_world import Job, World

from scattersphere.engine.machine import RUN_STATES, TASK_STATES, read_journal
from scattersphere.engine.machine.codes import SUCCEEDED
from scattersphere.model.states import RunState, TaskState


def begun(dispatcher, limit=32):
    """Take once, and begin all of it: (machine, units) or None."""
    taken = dispatcher.take(limit)
    if taken is not None:
        machine, units = dispatcher.machines[taken[0]], taken[1]
        return machine, [unit for unit in units if machine.begin(unit)]
    return None


class Stage:
    """One run for an explicit test: short words for what a driver does, states as their names."""

    def __init__(self, *tasks, answers=None, limit=None, pools=None, slot=True, at_once=256, **job):
        self.world = World(
            [
                Job(
                    tasks,
                    {} if answers is None else answers,
                    job.get("max_parallel"),
                    job.get("fail_fast", False),
                )
            ],
            limit=limit,
            pools=pools,
            at_once=at_once,
        )
        self.machine = self.world.machines[0]
        self.dispatcher = self.world.dispatcher
        if slot:
            self.machine.slot()

    def start(self):
        """Begin all that can begin; return the units that execute."""
        self.machine.out.clear()
        while (taken := self.dispatcher.take(8)) is not None:
            self.world.live.update((0, unit) for unit in taken[1] if self.machine.begin(unit))
        return sorted(unit for _, unit in self.world.live)

    def end(self, unit, kind, *, retryable=True, value=None):
        self.world.live.discard((0, unit))
        if kind == SUCCEEDED:
            self.machine.ok(unit, value)
        else:
            self.machine.ended(unit, kind, value, retryable)

    def do(self, *kinds):
        """Begin all; end the executing attempts, in order, as said; return the commands."""
        for unit, kind in zip(self.start(), kinds, strict=True):
            self.end(unit, kind)
        return list(self.machine.out)

    @property
    def run_state(self):
        return RUN_STATES[self.machine.record.state].value

    @property
    def states(self):
        return [TASK_STATES[code].value for code in self.machine.record.task_states]

    @property
    def moves(self):
        """All moves so far, as (source, target) names: of the run, and of all units."""
        run, units = [RunState.QUEUED], {}
        run_moves, task_moves = [], []
        for unit, state in read_journal(self.machine.record.journal):
            if unit is None:
                run_moves.append((run[-1], state))
                run.append(state)
            else:
                task_moves.append((units.get(unit, TaskState.PENDING), state))
                units[unit] = state
        return run_moves, task_moves

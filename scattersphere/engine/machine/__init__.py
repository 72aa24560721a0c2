"""The pure heart of the engine: what a run does next, decided without a clock, a loop or a thread.

- `graph`: a plan compiled to integers, shared by its runs
- `run`: the machine of one run, signals in, commands and journal out; made of
  `record` (its state and its moves), `ready` (what of it may begin, and its places) and
  `propagation` (what follows from an ending)
- `facts`: what a journal keeps of a run, and how another machine goes on from there
- `dispatcher`: which attempt starts next, over all runs of a server
- `codes`: states as integers, the tables of moves compiled for them, commands; `rules`: trigger rules
"""

from scattersphere.engine.machine.codes import (
    RUN_STATES,
    TASK_STATES,
    Command,
    CommandKind,
    read_journal,
)
from scattersphere.engine.machine.dispatcher import Dispatcher
from scattersphere.engine.machine.facts import RunFacts, UnitFacts, facts_of, take_up
from scattersphere.engine.machine.graph import CompiledGraph, TaskSpec
from scattersphere.engine.machine.run import RunMachine, StartDecision

__all__ = [
    "RUN_STATES",
    "TASK_STATES",
    "Command",
    "CommandKind",
    "CompiledGraph",
    "Dispatcher",
    "RunFacts",
    "RunMachine",
    "StartDecision",
    "TaskSpec",
    "UnitFacts",
    "facts_of",
    "read_journal",
    "take_up",
]

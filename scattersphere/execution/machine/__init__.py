"""The pure heart of the engine: what a run does next, decided without a clock, a loop or a thread.

- `shape`: a plan compiled to integers, shared by its runs
- `run`: the machine of one run, signals in, commands and journal out
- `dispatcher`: which attempt starts next, over all runs of a server
- `codes`: states as integers, and the tables of moves compiled for them

Below them stand `rules` (trigger rules), `places` (limits and queues), `record` (the state of a run
and its moves) and `consequences` (what follows from an ending).
"""

from scattersphere.execution.machine.codes import RUN_STATES, TASK_STATES, read_journal
from scattersphere.execution.machine.dispatcher import Dispatcher
from scattersphere.execution.machine.run import Answer, RunMachine, Verdict
from scattersphere.execution.machine.shape import Shape, TaskShape

__all__ = [
    "RUN_STATES",
    "TASK_STATES",
    "Answer",
    "Dispatcher",
    "RunMachine",
    "Shape",
    "TaskShape",
    "Verdict",
    "read_journal",
]

"""States as small integers, the tables of moves compiled for them, and what the machine may ask of its driver.

The fast path keeps one byte for each task and one integer for each move. What the integers mean is
only their place in the enums of `model/states.py`, so there is still one table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from scattersphere.model.states import RUN_MOVES, TASK_FAILURE, TASK_MOVES, RunState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TASK_STATES: tuple[TaskState, ...] = tuple(TaskState)
"""What a byte of `RunMachine.task_states` means."""
RUN_STATES: tuple[RunState, ...] = tuple(RunState)
"""What `RunMachine.state` means."""

(
    PENDING,
    RUNNING,
    CANCELLING,
    UP_FOR_RETRY,
    SUCCEEDED,
    FAILED,
    SKIPPED,
    UPSTREAM_FAILED,
    CANCELLED,
    CRASHED,
) = range(len(TASK_STATES))
TASK_ENDED_FROM = SUCCEEDED
"""Codes from here on are terminal."""

(
    RUN_QUEUED,
    RUN_RUNNING,
    RUN_PAUSING,
    RUN_PAUSED,
    RUN_STOPPING,
    RUN_CANCELLING,
    RUN_SUCCEEDED,
    RUN_FAILED,
    RUN_STOPPED,
    RUN_CANCELLED,
    RUN_CRASHED,
) = range(len(RUN_STATES))
RUN_ENDED_FROM = RUN_SUCCEEDED
"""Codes from here on are terminal."""

FAILURE_CODES = frozenset(TASK_STATES.index(state) for state in TASK_FAILURE)
"""What trigger rules call a failure."""

STATE_BITS = 4
"""A journal entry of a task is `unit << STATE_BITS | state`; ten states fit in four bits."""

TASK_ALLOWED = frozenset(
    TASK_STATES.index(move.source) << STATE_BITS | TASK_STATES.index(move.target) for move in TASK_MOVES
)
"""`source << STATE_BITS | target` of every move that a task may make."""
RUN_ALLOWED = frozenset(
    RUN_STATES.index(move.source) << STATE_BITS | RUN_STATES.index(move.target) for move in RUN_MOVES
)
"""`source << STATE_BITS | target` of every move that a run may make."""


NO_REQUEST, STOP, CANCEL, KILL = range(4)
"""Levels of escalation; they only go up."""

BY_CANCEL, BY_TIMEOUT = range(2)
"""Why an attempt was asked to end. The first cause stays."""


class CommandKind(StrEnum):
    """What the machine may ask of its driver."""

    RUN = "run"
    """The run itself has moved, to the state of this code."""
    CANCEL = "cancel"
    """Cancel the attempt of this unit."""
    KILL = "kill"
    """End the attempt of this unit by force."""
    RELEASE = "release"
    """Let the attempt of this unit go on that is held at a checkpoint."""
    RETRY = "retry"
    """Call `retry_due` for this unit when its back-off is over."""
    MAPPED = "mapped"
    """The elements of this mapped task are read no more."""
    WORK = "work"
    """A mass move is not finished: call `work` in slices."""


class Command(NamedTuple):
    """What the machine asks of its driver, in answer to a signal."""

    kind: CommandKind
    number: int
    """A unit, a task, or a state of the run."""


def read_journal(journal: Iterable[int]) -> Iterator[tuple[int | None, RunState | TaskState]]:
    """Yield (unit, state) for each move of a task or instance, (None, state) for each of the run.

    A run's move is written as `~state`, which is negative.
    """
    mask = (1 << STATE_BITS) - 1
    for entry in journal:
        if entry < 0:
            yield None, RUN_STATES[~entry]
        else:
            yield entry >> STATE_BITS, TASK_STATES[entry & mask]

"""RunRecord: what is known of a run, and the only ways to change it: a move, an instance, a result that is dropped.

Signals, rules, queues and requests stand above this file; it knows the tables of moves and nothing of why.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, cast

from scattersphere.engine.machine.codes import (
    CANCELLING,
    NO_REQUEST,
    PENDING,
    RUN_ALLOWED,
    RUN_ENDED_FROM,
    RUN_PAUSED,
    RUN_PAUSING,
    RUN_QUEUED,
    RUN_RUNNING,
    RUN_STATES,
    RUNNING,
    STATE_BITS,
    SUCCEEDED,
    TASK_ALLOWED,
    TASK_STATES,
    Command,
    CommandKind,
)
from scattersphere.engine.machine.graph import DROPPED, ResultRefs
from scattersphere.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scattersphere.engine.machine.graph import CompiledGraph

PIECE = 1 << 14
"""Entries of a journal that are compacted at a time."""

NO_COMMANDS: Sequence[Command] = ()
"""What most signals ask for: one for all of them."""
NO_UNITS: list[int] = cast("list[int]", ())
NO_CAUSES: list[str] = cast("list[str]", ())
NOTHING_ASKED: list[Command] = cast("list[Command]", ())
EMPTY_SET: set[int] = cast("set[int]", frozenset())
"""Of ended runs, which change no more: they cannot be changed, whatever their types say."""


class MapProgress:
    """How far a mapped task is. Instances become units only when they begin, in their order."""

    __slots__ = ("cut", "failed", "left", "next", "units", "width", "withdrawn")

    def __init__(self, width: int) -> None:
        self.width: int = width
        self.next: int = 0
        """Index of the instance that begins next."""
        self.left: int = width
        """Instances that have not ended, begun or not."""
        self.units: list[int] = []
        self.cut: bool = False
        self.failed: bool = False
        self.withdrawn: bool = False
        """Whether an instance ended cancelled."""


class RunRecord:
    """The state of one run.

    A *unit* is a task (below `graph.size`) or an instance of a mapped task (from there on, in the
    order of beginning).
    """

    __slots__ = (
        "_instance_index",
        "_instance_task",
        "_readers",
        "attempts",
        "back_off",
        "causes",
        "clean",
        "commands",
        "fast_path",
        "finals_left",
        "finals_phase",
        "first_cause_is_timeout",
        "forgiven",
        "graph",
        "held",
        "journal",
        "killed",
        "left",
        "lent",
        "level",
        "live",
        "maps",
        "reasons",
        "results",
        "run_id",
        "started",
        "state",
        "stuck",
        "suspended",
        "task_failed",
        "task_states",
        "uneven",
        "withheld",
    )

    def __init__(self, graph: CompiledGraph, run_id: int) -> None:
        self.graph: CompiledGraph = graph
        self.run_id: int = run_id
        self.state: int = RUN_QUEUED
        self.started: bool = False
        """Whether the run has ever had a slot."""
        self.finals_phase: bool = False
        """Whether all normal tasks have ended, so that finally-tasks may run."""
        self.task_states: bytearray = bytearray(graph.size)
        self.attempts: list[int] = [0] * graph.size
        self.results: list[object] = [None] * graph.size
        self.maps: dict[int, MapProgress] = {}
        """How far mapped tasks are, of those whose list has been looked at."""
        self.journal: list[int] | array[int] = []
        self.live: int = 0
        """Attempts that have begun and not ended; those given up are no longer counted."""
        self.left: int = graph.size - len(graph.finals)
        self.finals_left: int = len(graph.finals)
        # What is asked of it.
        self.level: int = NO_REQUEST
        """How far requests have escalated: none, stop, cancel, kill."""
        self.causes: list[str] = []
        self.first_cause_is_timeout: bool = False
        self.suspended: bool = False
        """Whether nothing begins any more, because the Server is being closed with a journal."""
        # What has come of it.
        self.task_failed: bool = False
        """Whether a task without `allow_failure` ended failed or crashed."""
        self.clean: bool = True
        """Whether every task that ended has succeeded, so that counts of failures are all zero."""
        self.withheld: bool = False
        """Whether a request has kept anything from starting."""
        self.uneven: bool = False
        """Whether a task had a second attempt, or took its result over and had none."""
        self.fast_path: bool = False
        """Whether a first step or a success may take the fast path: running, clean, nothing withheld or held."""
        # Attempts that are unusual, by unit.
        self.held: set[int] = set()
        self.stuck: set[int] = set()
        """Given up, and not ended yet."""
        self.lent: set[int] = set()
        """They have lent their places while they wait for a child run."""
        self.back_off: set[int] = set()
        """Failed, and to be tried again when their back-off is over."""
        self.killed: set[int] = set()
        self.reasons: dict[int, int] = {}
        """Why attempts were asked to end that have not yet."""
        self.forgiven: dict[int, int] = {}
        """How many attempts do not count, where there are any."""
        self.commands: list[Command] = []
        """What the driver is to do in answer to the present signal."""
        self._readers = ResultRefs(graph) if graph.drops_results else None
        self._instance_task: list[int] = []
        self._instance_index: list[int] = []

    @property
    def is_over(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state >= RUN_ENDED_FROM

    @property
    def is_even(self) -> bool:
        """Whether all that has begun are tasks at their first attempt, and all that has ended has succeeded."""
        return self.clean and not self.uneven and len(self.task_states) == self.graph.size

    @property
    def is_holding(self) -> bool:
        """Whether nothing is to begin for now, whatever is ready."""
        return self.state in (RUN_PAUSING, RUN_PAUSED) or self.suspended

    def task_of(self, unit: int) -> int:
        """Return the task that the unit is, or is an instance of."""
        size = self.graph.size
        return unit if unit < size else self._instance_task[unit - size]

    def index_of(self, unit: int) -> int | None:
        """Return the index of an instance in its map; None for a task."""
        size = self.graph.size
        return None if unit < size else self._instance_index[unit - size]

    def width_of(self, task: int) -> int | None:
        """Return how many instances a mapped task has; None before its rule was met."""
        progress = self.maps.get(task)
        return None if progress is None else progress.width

    def counted(self, unit: int) -> int:
        """Return how many attempts of a unit count."""
        return self.attempts[unit] - self.forgiven.get(unit, 0)

    # ---- moves

    def move(self, unit: int, new: int) -> None:
        """Give a unit another state."""
        if __debug__ and self.task_states[unit] << STATE_BITS | new not in TASK_ALLOWED:
            old = TASK_STATES[self.task_states[unit]]
            raise EngineError(f"run {self.run_id}: unit {unit} cannot go from {old} to {TASK_STATES[new]}")
        self.task_states[unit] = new
        self.journal.append(unit << STATE_BITS | new)

    def move_run(self, new: int) -> None:
        """Give the run another state."""
        if __debug__ and self.state << STATE_BITS | new not in RUN_ALLOWED:
            old = RUN_STATES[self.state]
            raise EngineError(f"run {self.run_id} cannot go from {old} to {RUN_STATES[new]}")
        self.state = new
        self.journal.append(~new)
        self.command(CommandKind.RUN, new)
        self.fast_path = new == RUN_RUNNING and self.clean and not self.suspended

    def begin(self, unit: int) -> None:
        """An attempt of a unit begins."""
        task = self.task_of(unit)
        if task != unit and self.task_states[task] == PENDING:
            self.move(task, RUNNING)
        self.move(unit, RUNNING)
        self.attempts[unit] += 1
        self.live += 1

    def ask_to_end(self, unit: int, reason: int) -> None:
        """An attempt that executes is asked to end."""
        self.move(unit, CANCELLING)
        self.reasons[unit] = reason

    def new_instance(self, task: int, index: int) -> int:
        """Make a unit of an instance of a mapped task; return its number."""
        unit = len(self.task_states)
        self._instance_task.append(task)
        self._instance_index.append(index)
        self.maps[task].units.append(unit)
        self.task_states.append(PENDING)
        self.attempts.append(0)
        self.results.append(None)
        return unit

    def drop_results(self, ended: int) -> None:
        """A task has ended: drop the results that it was the last to read, and its own if nobody may."""
        if self._readers is None:
            return
        for task in self._readers.ended(ended):
            if self.task_states[task] == SUCCEEDED:
                self.results[task] = DROPPED
            if task in self.maps:
                for unit in self.maps[task].units:
                    self.results[unit] = DROPPED

    def count_reader(self, ended: int) -> None:
        """Count a task as ended that has dropped what it was the last to read before this record was made."""
        if self._readers is not None:
            self._readers.ended(ended)

    # ---- commands

    def command(self, kind: CommandKind, number: int = 0) -> None:
        """Have the driver do something."""
        self.commands.append(Command(kind, number))

    # ---- after the end

    def compacting(self) -> Iterator[None]:
        """Give back what an ended run no longer needs, in pieces of less than a millisecond.

        States, results and journal stay readable. Thousands of ended runs may be kept, and each container is one
        more object that the garbage collector goes through each time: what is empty for good is one for all.
        """
        compact, journal = array("q"), self.journal
        for start in range(0, len(journal), PIECE):
            if start:
                yield
            compact.extend(journal[start : start + PIECE])
        self.journal = compact
        self.maps = {task: MapProgress(progress.width) for task, progress in self.maps.items()}
        if not self._instance_task:
            self._instance_task = self._instance_index = NO_UNITS
        if not self.causes:
            self.causes = NO_CAUSES
        if not self.live and not self.stuck:  # no attempt can end any more
            self.stuck = self.held = self.lent = self.back_off = self.killed = EMPTY_SET
            self.commands = NOTHING_ASKED

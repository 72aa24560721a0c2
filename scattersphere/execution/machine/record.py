"""What is known of a run, and the only ways to change it: a move, a queue, a place given back.

Signals, rules and requests stand above this file; it knows the tables of moves and nothing of why.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, cast

from scattersphere.errors import EngineError
from scattersphere.execution.machine.codes import (
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
)
from scattersphere.execution.machine.places import Gate, Lane, Needs, Turn
from scattersphere.execution.machine.readers import DROPPED, Readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.execution.machine.dispatcher import Dispatcher
    from scattersphere.execution.machine.run import RunMachine
    from scattersphere.execution.machine.shape import Shape

Command = tuple[str] | tuple[str, int]
"""`("run", state)`, `("cancel", unit)`, `("kill", unit)`, `("release", unit)`, `("retry", unit)`,
`("mapped", task)`: the elements of a mapped task are read no more, and `("work",)`: a mass move is
not finished, call `work` in slices."""


PIECE = 1 << 14
"""Entries of a journal that are compacted at a time."""


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


NO_UNITS: list[int] = cast("list[int]", ())
EMPTY_SET: set[int] = cast("set[int]", frozenset())
"""Of ended runs, which change no more: they cannot be changed, whatever their types say."""


class RunRecord:
    """The state of one run.

    A *unit* is a task (below `shape.size`) or an instance of a mapped task (from there on, in the
    order of beginning).
    """

    __slots__ = (
        "_back_off",
        "_clean",
        "_finals_phase",
        "_hot",
        "_instance_index",
        "_instance_task",
        "_lanes",
        "_maps",
        "_readers",
        "_reclaiming",
        "_run_gate",
        "_smooth",
        "_started",
        "_turns",
        "_uneven",
        "_waited",
        "_withheld",
        "attempts",
        "causes",
        "dispatcher",
        "failed",
        "finals_left",
        "forgiven",
        "held",
        "journal",
        "left",
        "lent",
        "live",
        "out",
        "results",
        "run_id",
        "shape",
        "state",
        "stuck",
        "suspended",
        "task_states",
    )

    def __init__(self, shape: Shape, run_id: int, dispatcher: Dispatcher) -> None:
        self.shape: Shape = shape
        self.run_id: int = run_id
        self.dispatcher: Dispatcher = dispatcher
        self.state: int = RUN_QUEUED
        self.task_states: bytearray = bytearray(shape.size)
        self.attempts: list[int] = [0] * shape.size
        self.results: list[Any] = [None] * shape.size
        self.stuck: set[int] = set()
        self.held: set[int] = set()
        self.forgiven: dict[int, int] = {}
        """How many attempts of a unit do not count, where there are any."""
        self.suspended: bool = False
        """Whether nothing begins any more, because the Server is being closed with a journal."""
        self.lent: set[int] = set()
        """Attempts that have lent their places while they wait for a child run."""
        self._reclaiming: set[int] = set()
        """Those among them that are queued for their places again."""
        self.journal: list[int] | array[int] = []
        self.out: list[Command] = []
        self.causes: list[str] = []
        self.live: int = 0
        """Attempts that have begun and not ended; those given up are no longer counted."""
        self.left: int = shape.size - len(shape.finals)
        self.finals_left: int = len(shape.finals)
        self.failed: bool = False
        """Whether a task without `allow_failure` ended failed or crashed."""
        self._started = False
        self._finals_phase = False
        self._clean = True
        """Whether every task that ended has succeeded, so that counts of failures are all zero."""
        self._withheld = False
        self._uneven = False
        """Whether a task had a second attempt, or took its result over and had none."""
        self._smooth = False
        """Whether a success may take the hot path: running, clean, nothing withheld."""
        self._waited = shape.degrees.copy()
        self._back_off: set[int] = set()
        self._maps: dict[int, MapProgress] = {}
        self._readers = Readers(shape) if shape.drops_results else None
        self._instance_task: list[int] = []
        self._instance_index: list[int] = []
        self._run_gate = (
            None if shape.max_parallel is None else Gate(shape.max_parallel, "its run (max_parallel)")
        )
        self._turns: dict[int, Turn] = {}
        self._lanes: dict[int, Lane] = {}
        self._hot: Lane | None = None
        """The lane that the hot path uses, once there is one."""

    def __repr__(self) -> str:
        left = self.left + self.finals_left
        return (
            f"<{type(self).__name__} {self.run_id}: {RUN_STATES[self.state]}, "
            f"{left} of {self.shape.size} tasks left, {self.live} attempts>"
        )

    @property
    def is_over(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state >= RUN_ENDED_FROM

    @property
    def is_even(self) -> bool:
        """Whether all that has begun are tasks at their first attempt, and all that has ended has succeeded."""
        return self._clean and not self._uneven and len(self.task_states) == self.shape.size

    @property
    def finals_phase(self) -> bool:
        """Whether all normal tasks have ended, so that finally-tasks may run."""
        return self._finals_phase

    @property
    def started(self) -> bool:
        """Whether the run has ever had a slot."""
        return self._started

    # ---- what waits for what

    def full_gate(self, unit: int) -> Gate | None:
        """Return the gate at which a unit waits for a place; None where there are places in all of its gates."""
        lane = self._lane_of(unit)
        return lane.parked_at or next((gate for gate, amount in lane.needs if gate.free < amount), None)

    def amount_of(self, unit: int, gate: Gate) -> int:
        """Return how many places of a gate an attempt of a unit takes."""
        return self._lane_of(unit).amounts.get(gate, 0)

    def task_of(self, unit: int) -> int:
        """Return the task that the unit is, or is an instance of."""
        size = self.shape.size
        return unit if unit < size else self._instance_task[unit - size]

    def index_of(self, unit: int) -> int | None:
        """Return the index of an instance in its map; None for a task."""
        size = self.shape.size
        return None if unit < size else self._instance_index[unit - size]

    def width_of(self, task: int) -> int | None:
        """Return how many instances a mapped task has; None before its rule was met."""
        progress = self._maps.get(task)
        return None if progress is None else progress.width

    def compact(self) -> None:
        """Give back what an ended run no longer needs; states, results and journal stay readable."""
        for _ in self.compacting():
            pass

    def compacting(self) -> Iterator[None]:
        """Do what `compact` does, in pieces of less than a millisecond.

        Thousands of ended runs may be kept, and each container is one more object that the garbage
        collector goes through each time: what is empty for good is one for all.
        """
        if not self.is_over:
            return
        compact, journal = array("q"), self.journal
        for start in range(0, len(journal), PIECE):
            compact.extend(journal[start : start + PIECE])
            yield
        self.journal = compact
        self._waited = NO_UNITS
        self._maps = {task: MapProgress(progress.width) for task, progress in self._maps.items()}
        self._turns, self._lanes, self._hot = {}, {}, None
        if not self._instance_task:
            self._instance_task = self._instance_index = NO_UNITS
        if not self.live and not self.stuck:  # no attempt can end any more
            self.stuck = self.held = self.lent = self._reclaiming = self._back_off = EMPTY_SET

    # ---- moves

    def _move(self, unit: int, new: int) -> None:
        if __debug__ and self.task_states[unit] << STATE_BITS | new not in TASK_ALLOWED:
            old = TASK_STATES[self.task_states[unit]]
            raise EngineError(f"run {self.run_id}: unit {unit} cannot go from {old} to {TASK_STATES[new]}")
        self.task_states[unit] = new
        self.journal.append(unit << STATE_BITS | new)

    def _move_run(self, new: int) -> None:
        if __debug__ and self.state << STATE_BITS | new not in RUN_ALLOWED:
            old = RUN_STATES[self.state]
            raise EngineError(f"run {self.run_id} cannot go from {old} to {RUN_STATES[new]}")
        self.state = new
        self.journal.append(~new)
        self.out.append(("run", new))
        self._smooth = new == RUN_RUNNING and self._clean and not self.suspended

    def _drop_results(self, ended: int) -> None:
        """A task has ended: drop the results that it was the last to read, and its own if nobody may."""
        if self._readers is None:
            return
        for task in self._readers.ended(ended):
            if self.task_states[task] == SUCCEEDED:
                self.results[task] = DROPPED
            if task in self._maps:
                for unit in self._maps[task].units:
                    self.results[unit] = DROPPED

    # ---- queues

    def _lane(self, number: int) -> Lane:
        """Return a lane, made when it is first needed."""
        lane = self._lanes.get(number)
        if lane is None:
            lane_shape = self.shape.lanes[number]
            turn = self._turns.get(lane_shape.priority)
            if turn is None:
                # Records are only ever made as the base of a RunMachine.
                turn = self._turns[lane_shape.priority] = Turn(cast("RunMachine", self), lane_shape.priority)
            own: Needs = () if self._run_gate is None else ((self._run_gate, 1),)
            if lane_shape.max_parallel is not None:
                own = (*own, (Gate(lane_shape.max_parallel, "its task (max_parallel)"), 1))
            shared = tuple((self.dispatcher.pool(name), amount) for name, amount in lane_shape.pools)
            lane = self._lanes[number] = Lane(turn, own, shared, mapped=lane_shape.mapped)
        return lane

    def _lane_of(self, unit: int) -> Lane:
        return self._lane(self.shape.lane_of[self.task_of(unit)])

    def _push(self, unit: int) -> None:
        """Queue a task, or an attempt to be repeated. While the run is paused it is not offered."""
        lane = self._lane_of(unit)
        lane.queue.append(unit)
        if lane.idle and not self._is_holding():
            self.dispatcher.enlist(lane)

    def _is_holding(self) -> bool:
        return self.state in (RUN_PAUSING, RUN_PAUSED) or self.suspended

    def _withdraw(self, *, forget: bool) -> None:
        """Take all lanes from the dispatcher, and with `forget` drop what they hold."""
        if forget:
            for lane in self._lanes.values():
                lane.queue.clear()
        self.dispatcher.withdraw(self._lanes.values())
        if forget and self._reclaiming:  # they execute: what is forgotten has not begun
            for unit in sorted(self._reclaiming):
                self._put_back(unit)

    def _enlist_all(self) -> None:
        if self.suspended:
            return
        for lane in self._lanes.values():
            if lane.queue and lane.idle:
                self.dispatcher.enlist(lane)

    # ---- beginning: the dispatcher takes units with their places, the driver begins each at its first step

    def take(self, lane: Lane, limit: int) -> list[int]:
        """Take up to `limit` units out of a lane; a mapped task in it stands for its next instances."""
        queue = lane.queue
        if not lane.mapped:
            return lane.take(limit)
        units: list[int] = []
        while queue and len(units) < limit:
            entry = queue.popleft()
            progress = self._maps.get(entry)
            if progress is None:
                units.append(entry)
                continue
            units.append(self._new_instance(entry, progress))
            if progress.next < progress.width:
                queue.append(entry)
        return units

    def _new_instance(self, task: int, progress: MapProgress) -> int:
        unit = len(self.task_states)
        self._instance_task.append(task)
        self._instance_index.append(progress.next)
        progress.units.append(unit)
        progress.next += 1
        self.task_states.append(PENDING)
        self.attempts.append(0)
        self.results.append(None)
        return unit

    def _begin(self, unit: int) -> None:
        task = self.task_of(unit)
        if task != unit and self.task_states[task] == PENDING:
            self._move(task, RUNNING)
        self._move(unit, RUNNING)
        self.attempts[unit] += 1
        self.live += 1

    def _put_back(self, unit: int) -> None:
        """Queue a unit again, before all others, that was taken and has not begun."""
        lane = self._lane_of(unit)
        lane.queue.appendleft(unit)
        if lane.idle and not self._is_holding():
            self.dispatcher.enlist(lane)

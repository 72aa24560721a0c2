"""Places (a limit and who waits for it), and the queues of what may start.

A *lane* holds the ready units of one run that need exactly the same places. So it is the lane that
waits for a full gate, never each of its units, and parking 100,000 tasks costs what parking one
does. A *turn* holds the lanes of one run that have the same priority; runs take turns, not lanes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scattersphere.execution.machine.run import RunMachine

UNLIMITED = 1 << 60
"""More places than there can be attempts: no limit, without a second kind of number."""


class Gate:
    """`free` places of `limit`, and the lanes that wait for one, by priority and then in order."""

    __slots__ = ("free", "limit", "waiting", "what")

    def __init__(self, limit: int | None, what: str = "") -> None:
        self.what: str = what
        """Its name, for people."""
        self.limit: int = UNLIMITED if limit is None else limit
        self.free: int = self.limit
        self.waiting: dict[int, OrderedDict[Lane, None]] = {}

    def __repr__(self) -> str:
        lanes = sum(map(len, self.waiting.values()))
        return f"<Gate: {self.free} of {self.limit} free, {lanes} lanes waiting>"

    def resize(self, limit: int | None) -> None:
        """Change the limit; `free` is negative while more places are taken than there are now."""
        new = UNLIMITED if limit is None else limit
        self.free += new - self.limit
        self.limit = new

    def park(self, lane: Lane) -> None:
        """Let the lane wait for a place.

        One that was offered a place which others took keeps its turn, else a stream of newcomers
        could starve it.
        """
        line = self.waiting.setdefault(lane.priority, OrderedDict())
        line[lane] = None
        if lane.offered:
            line.move_to_end(lane, last=False)
        lane.parked_at = self

    def forget(self, lane: Lane) -> None:
        """Take the lane out of those that wait."""
        line = self.waiting[lane.priority]
        del line[lane]
        if not line:
            del self.waiting[lane.priority]
        lane.parked_at = None

    def next_waiting(self) -> Lane | None:
        """Take out the lane that free places are offered to: who waits first, if there are as many as it needs."""
        if self.free <= 0 or not self.waiting:
            return None
        lane = next(iter(self.waiting[max(self.waiting)]))
        if lane.amounts[self] > self.free:
            return None
        self.forget(lane)
        return lane

    def is_before(self, lane: Lane) -> bool:
        """Whether somebody of at least its priority waits for more than is free: smaller ones do not overtake."""
        if not self.waiting or lane.offered or (top := max(self.waiting)) < lane.priority:
            return False
        return next(iter(self.waiting[top])).amounts[self] > self.free


Needs = tuple[tuple[Gate, int], ...]
"""How many places of which gates a unit takes, all at once."""


class Turn:
    """The lanes of one run and one priority that are ready, in the order of their turns."""

    __slots__ = ("lanes", "listed", "machine", "priority")

    def __init__(self, machine: RunMachine, priority: int) -> None:
        self.machine: RunMachine = machine
        self.priority: int = priority
        self.lanes: deque[Lane] = deque()
        self.listed: bool = False
        """Whether the dispatcher has it; it may have lost its lanes since."""


class Lane:
    """Ready units of one run that need the same places.

    `own` gates are of the run and the mapped task: a refusing attempt gives them back when it is
    given up. `shared` gates are pools: it keeps them until it really ends. A lane is idle, listed
    (in its turn) or parked at one full gate.
    """

    __slots__ = (
        "amounts",
        "gates",
        "idle",
        "mapped",
        "needs",
        "offered",
        "own",
        "parked_at",
        "plain",
        "priority",
        "queue",
        "shared",
        "turn",
    )

    def __init__(self, turn: Turn, own: Needs, shared: Needs, *, mapped: bool) -> None:
        self.turn: Turn = turn
        self.priority: int = turn.priority
        self.own: Needs = own
        self.shared: Needs = shared
        self.needs: Needs = own + shared
        self.amounts: dict[Gate, int] = dict(self.needs)
        self.gates: tuple[Gate, ...] = tuple(self.amounts)
        self.mapped: bool = mapped
        self.plain: bool = not (self.gates or mapped)
        self.queue: deque[int] = deque()
        self.idle: bool = True
        self.offered: bool = False
        """Whether a place was offered since it last began a unit."""
        self.parked_at: Gate | None = None

    def take(self, limit: int) -> list[int]:
        """Take up to `limit` units out of the queue (the hot path)."""
        queue = self.queue
        if len(queue) == 1:  # a chain of tasks comes here every time
            return [queue.pop()]
        if len(queue) <= limit:
            units = list(queue)
            queue.clear()
            return units
        return [queue.popleft() for _ in range(limit)]

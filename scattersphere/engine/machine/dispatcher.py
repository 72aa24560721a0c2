"""The dispatcher: which attempt starts next, over all runs of a server; limits, and the queues of what may start.

Higher priority first; runs of equal priority take turns; no limit is ever exceeded; and a place
that becomes free is offered on until somebody takes it or nobody waits. That last promise rests on
one invariant, kept by `offer`: a gate with as many free places as the first of its waiting lanes needs is used by at
least one lane that is listed, and whichever way that lane leaves the list, it passes the offer on.

A *lane* holds the ready units of one run that need exactly the same places. So it is the lane that
waits for a full gate, never each of its units, and parking 100,000 tasks costs what parking one
does. A *turn* holds the lanes of one run that have the same priority; runs take turns, not lanes.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNLIMITED = 1 << 60
"""More places than there can be attempts: no limit, without a second kind of number."""
KEPT_LEVELS = 8
"""Empty queues of a priority are kept up to this number: making one anew for each task of a chain
would cost more than looking at a few empty ones."""
EAGER_REMOVAL = 64
"""A turn without lanes is taken out of a queue at once if that has at most so many turns; else the
next `take` drops it, so that pausing ten thousand runs is not quadratic."""


class Gate:
    """`free` places of `limit`, and the lanes that wait for one, by priority and then in order."""

    __slots__ = ("free", "limit", "promised", "waiting", "what")

    def __init__(self, limit: int | None, what: str = "") -> None:
        self.what: str = what
        """Its name, for people."""
        self.limit: int = UNLIMITED if limit is None else limit
        self.free: int = self.limit
        self.promised: int = 0
        """Free places that were offered to lanes which have not come to take them yet."""
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
        free = self.free - self.promised
        if free <= 0 or not self.waiting:
            return None
        lane = next(iter(self.waiting[max(self.waiting)]))
        if lane.amounts[self] > free:
            return None
        self.forget(lane)
        return lane

    def is_before(self, lane: Lane) -> bool:
        """Whether somebody of at least its priority waits for more than is free: smaller ones do not overtake."""
        if not self.waiting or lane.offered or (top := max(self.waiting)) < lane.priority:
            return False
        return next(iter(self.waiting[top])).amounts[self] > self.free


class Ready(Protocol):
    """The run whose lanes they are."""

    run_id: int

    def take(self, lane: Lane, limit: int) -> list[int]:
        """Take up to `limit` units out of one of its lanes."""
        ...


Needs = tuple[tuple[Gate, int], ...]
"""How many places of which gates a unit takes, all at once."""


class Turn:
    """The lanes of one run and one priority that are ready, in the order of their turns."""

    __slots__ = ("lanes", "listed", "priority", "ready")

    def __init__(self, ready: Ready, priority: int) -> None:
        self.ready: Ready = ready
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
        "promise",
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
        self.promise: Gate | None = None
        """Where places were offered that it has not come to take yet."""
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


class Level(deque[Turn]):
    """The runs that have something ready at one priority, in the order of their turns."""

    __slots__ = ("ahead", "priority")

    def __init__(self, priority: int) -> None:
        super().__init__()
        self.priority: int = priority
        self.ahead: int = 0
        """How many turns at the front were offered a place that they waited for, in the order of offers."""

    def add(self, turn: Turn, *, first: bool) -> None:
        """Append a turn; one that waited for its place goes first, but behind those that waited longer."""
        if first:
            self.insert(self.ahead, turn)
            self.ahead += 1
        else:
            self.append(turn)

    def take_out(self, turn: Turn) -> None:
        """Remove a turn, wherever it stands."""
        place = self.index(turn)
        del self[place]
        if place < self.ahead:
            self.ahead -= 1


class Dispatcher:
    """Gives out what may start. `limit` bounds the attempts of the whole server, `pools` by name.

    A pool that was never given a size has no limit; whether a name is known is for the plan to say.
    """

    def __init__(self, limit: int | None = None, pools: Mapping[str, int] | None = None) -> None:
        self.limited: bool = limit is not None
        self.free: int = UNLIMITED if limit is None else limit
        self.pools: dict[str, Gate] = {name: Gate(size, _what(name)) for name, size in (pools or {}).items()}
        self._levels: dict[int, Level] = {}
        self._order: list[Level] = []
        self._listed = 0
        self._last: Lane | None = None
        """The lane of the last units that were taken."""

    def __repr__(self) -> str:
        free = self.free if self.limited else "unlimited"
        return f"<Dispatcher: {self._listed} runs ready, {free} places free>"

    @property
    def ready(self) -> bool:
        """Whether something may be startable. `take` knows for certain."""
        return self._listed > 0 and self.free > 0

    @property
    def first(self) -> int | None:
        """The number of the run whose turn it is; None where nothing is listed."""
        return next((level[0].ready.run_id for level in self._order if level), None)

    def is_drained(self) -> bool:
        """Whether the lane that was taken from last is the only one listed, and empty.

        `take` would unlist it, for the next unit of its run to list it anew: in a chain of tasks that
        would be done for each.
        """
        lane = self._last
        if lane is None or lane.queue or self._listed != 1:
            return False
        turn = lane.turn
        return turn.listed and len(turn.lanes) == 1 and turn.lanes[0] is lane

    def pool(self, name: str) -> Gate:
        """Return the gate of a pool; a new name has no limit."""
        gate = self.pools.get(name)
        if gate is None:
            gate = self.pools[name] = Gate(None, _what(name))
        return gate

    def set_pool(self, name: str, size: int | None) -> None:
        """Change the size of a pool. What runs goes on, even if it is more than fits from now on."""
        gate = self.pool(name)
        gate.resize(size)
        self._offer(gate)

    def take(self, limit: int) -> tuple[int, list[int]] | None:
        """Take up to `limit` units of one run: its number, and they; None if nothing can start now.

        They have their places when this returns. `RunMachine.begin` is to be called for each at its first step:
        it gives the places back where the unit may not begin any more.
        """
        if self.limited:
            limit = min(limit, self.free)
        while self._listed and limit > 0:
            turns = self._order[0]
            if not turns:
                turns = next(turns for turns in self._order if turns)
            turn = turns[0]
            lanes = turn.lanes
            if not lanes:
                self._drop_first(turns)
                continue
            lane = lanes[0]
            ready = turn.ready
            # Where places are few and others wait for them, a turn is one unit: runs share them equally.
            most = 1 if self.limited and len(turns) > 1 else limit
            units = (
                lane.take(most)
                if lane.plain
                else self._take_limited(ready, lane, 1 if len(turns) > 1 else most)
            )
            if not units:
                self._leave_list(turns, turn, lane)
                continue
            self._last = lane
            if len(lanes) > 1:
                lanes.rotate(-1)
            if turns.ahead:
                turns.ahead -= 1
            if len(turns) > 1:
                turns.rotate(-1)
            if self.limited:
                self.free -= len(units)
            return ready.run_id, units
        return None

    def _take_limited(self, ready: Ready, lane: Lane, limit: int) -> list[int]:
        """Take units of a lane that needs places, as many as there are; park it if there is none."""
        _settle(lane)
        for gate in lane.gates:
            amount = lane.amounts[gate]
            if lane.queue and (gate.free < amount or gate.is_before(lane)):
                gate.park(lane)
                return []
            limit = 1 if gate.waiting else min(limit, gate.free // amount)
        units = ready.take(lane, limit)
        for gate, amount in lane.needs:
            gate.free -= amount * len(units)
        lane.offered = False
        return units

    def _leave_list(self, turns: Level, turn: Turn, lane: Lane) -> None:
        """Take out the first lane of the first turn: it is empty, or parked.

        A lane that was emptied stays in the list until `take` comes to it again: in a chain of tasks
        it has its next unit by then.
        """
        turn.lanes.popleft()
        lane.idle = lane.parked_at is None
        if not turn.lanes:
            self._drop_first(turns)
        self.offer(lane.gates)

    def _drop_first(self, turns: Level) -> None:
        turns.popleft().listed = False
        if turns.ahead:
            turns.ahead -= 1
        self._listed -= 1

    def enlist(self, lane: Lane, *, first: bool = False) -> None:
        """List an idle lane that has units to start.

        One that waited for its place goes first, but behind those that waited longer: of two places that
        become free together the first would else go to whoever waited less.
        """
        turn = lane.turn
        lane.idle = False
        (turn.lanes.appendleft if first else turn.lanes.append)(lane)
        if not turn.listed:
            turn.listed = True
            self._listed += 1
            level = self._levels.get(turn.priority)
            if level is None:
                level = self._new_level(turn.priority)
            level.add(turn, first=first)

    def withdraw(self, lanes: Iterable[Lane]) -> None:
        """Make lanes of one run idle: they are held or emptied, or the run has ended."""
        for lane in lanes:
            if (gate := lane.parked_at) is not None:
                gate.forget(lane)
                self._offer(gate)  # those behind it may need less, and waited for it alone
            elif not lane.idle:
                _settle(lane)
                turn = lane.turn
                turn.lanes.remove(lane)
                turns = self._levels[turn.priority]
                if not turn.lanes and len(turns) <= EAGER_REMOVAL:
                    turns.take_out(turn)
                    turn.listed = False
                    self._listed -= 1
                self.offer(lane.gates)
            lane.idle = True

    def give_back(self, needs: Needs) -> None:
        """Free so many places in each of these gates."""
        for gate, amount in needs:
            gate.free += amount
        for gate, _ in needs:
            self._offer(gate)

    def seize(self, needs: Needs) -> None:
        """Take places of these gates and one of the server, whether there are any or not."""
        if self.limited:
            self.free -= 1
        for gate, amount in needs:
            gate.free -= amount

    def offer(self, gates: tuple[Gate, ...]) -> None:
        """Offer free places of each gate to the lane that waits for them first."""
        for gate in gates:
            self._offer(gate)

    def _offer(self, gate: Gate) -> None:
        """Offer what is free, and not promised, to those that wait first: one may give back places for several.

        Those that it is not offered to are overtaken by whoever comes in the same moment.
        """
        while (lane := gate.next_waiting()) is not None:
            lane.offered, lane.promise = True, gate
            gate.promised += lane.amounts[gate]
            self.enlist(lane, first=True)

    def _new_level(self, priority: int) -> Level:
        if len(self._order) >= KEPT_LEVELS:
            self._order = [level for level in self._order if level]
            self._levels = {level.priority: level for level in self._order}
        level = self._levels[priority] = Level(priority)
        insort(self._order, level, key=lambda level: -level.priority)
        return level


def _settle(lane: Lane) -> None:
    """The lane has come to take what it was offered, or will not come."""
    gate, lane.promise = lane.promise, None
    if gate is not None:
        gate.promised -= lane.amounts[gate]


def _what(pool: str) -> str:
    kind, colon, name = pool.partition(":")
    return f"{kind} {name}" if colon else f"pool {pool}"

"""The dispatcher: which attempt starts next, over all runs of a server; limits, and the queues of what may start.

Higher priority first; runs of equal priority take turns; no limit is ever exceeded; and a place
that becomes free is offered on until somebody takes it or nobody waits. That last promise rests on
one invariant, kept by `offer`: a limit with as many free places as the first of its waiting queues needs is used by at
least one queue that is listed, and whichever way that queue leaves the list, it passes the offer on.

A *ready queue* holds the ready units of one run that need exactly the same places. So it is that which
waits for a full limit, never each of its units, and parking 100,000 tasks costs what parking one
does. A *run queue* holds those of one run that have the same priority; runs take turns, not their queues.
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
"""A run queue without any of its own is taken out of its level at once if that has at most so many; else the
next `take` drops it, so that pausing ten thousand runs is not quadratic."""


class Limit:
    """`free` places of `size`, and the queues that wait for one, by priority and then in order."""

    __slots__ = ("free", "promised", "size", "waiting", "what")

    def __init__(self, size: int | None, what: str = "") -> None:
        self.what: str = what
        """Its name, for people."""
        self.size: int = UNLIMITED if size is None else size
        self.free: int = self.size
        self.promised: int = 0
        """Free places that were offered to queues which have not come to take them yet."""
        self.waiting: dict[int, OrderedDict[ReadyQueue, None]] = {}

    def __repr__(self) -> str:
        queues = sum(map(len, self.waiting.values()))
        return f"<Limit: {self.free} of {self.size} free, {queues} queues waiting>"

    def resize(self, size: int | None) -> None:
        """Change the limit; `free` is negative while more places are taken than there are now."""
        new = UNLIMITED if size is None else size
        self.free += new - self.size
        self.size = new

    def park(self, queue: ReadyQueue) -> None:
        """Let the queue wait for a place.

        One that was offered a place which others took keeps its turn, else a stream of newcomers
        could starve it.
        """
        line = self.waiting.setdefault(queue.priority, OrderedDict())
        line[queue] = None
        if queue.offered:
            line.move_to_end(queue, last=False)
        queue.parked_at = self

    def forget(self, queue: ReadyQueue) -> None:
        """Take the queue out of those that wait."""
        line = self.waiting[queue.priority]
        del line[queue]
        if not line:
            del self.waiting[queue.priority]
        queue.parked_at = None

    def next_waiting(self) -> ReadyQueue | None:
        """Take out the queue that free places are offered to: who waits first, if there are as many as it needs."""
        free = self.free - self.promised
        if free <= 0 or not self.waiting:
            return None
        queue = next(iter(self.waiting[max(self.waiting)]))
        if queue.amounts[self] > free:
            return None
        self.forget(queue)
        return queue

    def is_before(self, queue: ReadyQueue) -> bool:
        """Whether somebody of at least its priority waits for more than is free: smaller ones do not overtake."""
        if not self.waiting or queue.offered or (top := max(self.waiting)) < queue.priority:
            return False
        return next(iter(self.waiting[top])).amounts[self] > self.free


class Ready(Protocol):
    """The run whose queues they are."""

    run_id: int

    def take(self, queue: ReadyQueue, most: int) -> list[int]:
        """Take up to `most` units out of one of its queues."""
        ...


Needs = tuple[tuple[Limit, int], ...]
"""How many places of which limits a unit takes, all at once."""


class RunQueue:
    """The queues of one run and one priority that are ready, in the order of their turns."""

    __slots__ = ("listed", "priority", "queues", "ready")

    def __init__(self, ready: Ready, priority: int) -> None:
        self.ready: Ready = ready
        self.priority: int = priority
        self.queues: deque[ReadyQueue] = deque()
        self.listed: bool = False
        """Whether the dispatcher has it; it may have lost its queues since."""


class ReadyQueue:
    """Ready units of one run that need the same places.

    `own` limits are of the run and the mapped task: a refusing attempt gives them back when it is
    given up. `shared` limits are pools: it keeps them until it really ends. A queue is idle, listed
    (in its turn) or parked at one full limit.
    """

    __slots__ = (
        "amounts",
        "idle",
        "limits",
        "mapped",
        "needs",
        "offered",
        "own",
        "parked_at",
        "priority",
        "promise",
        "run_queue",
        "shared",
        "units",
        "unlimited",
    )

    def __init__(self, run_queue: RunQueue, own: Needs, shared: Needs, *, mapped: bool) -> None:
        self.run_queue: RunQueue = run_queue
        self.priority: int = run_queue.priority
        self.own: Needs = own
        self.shared: Needs = shared
        self.needs: Needs = own + shared
        self.amounts: dict[Limit, int] = dict(self.needs)
        self.limits: tuple[Limit, ...] = tuple(self.amounts)
        self.mapped: bool = mapped
        self.unlimited: bool = not (self.limits or mapped)
        self.units: deque[int] = deque()
        self.idle: bool = True
        self.offered: bool = False
        """Whether a place was offered since it last began a unit."""
        self.promise: Limit | None = None
        """Where places were offered that it has not come to take yet."""
        self.parked_at: Limit | None = None

    def take(self, most: int) -> list[int]:
        """Take up to `most` units (the fast path)."""
        units = self.units
        if len(units) == 1:  # a chain of tasks comes here every time
            return [units.pop()]
        if len(units) <= most:
            taken = list(units)
            units.clear()
            return taken
        return [units.popleft() for _ in range(most)]


class PriorityLevel(deque[RunQueue]):
    """The runs that have something ready at one priority, in the order of their turns."""

    __slots__ = ("ahead", "priority")

    def __init__(self, priority: int) -> None:
        super().__init__()
        self.priority: int = priority
        self.ahead: int = 0
        """How many run queues at the front were offered a place that they waited for, in the order of offers."""

    def add(self, run_queue: RunQueue, *, first: bool) -> None:
        """Append a run queue; one that waited for its place goes first, but behind those that waited longer."""
        if first:
            self.insert(self.ahead, run_queue)
            self.ahead += 1
        else:
            self.append(run_queue)

    def take_out(self, run_queue: RunQueue) -> None:
        """Remove a run queue, wherever it stands."""
        place = self.index(run_queue)
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
        self.pools: dict[str, Limit] = {
            name: Limit(size, _what(name)) for name, size in (pools or {}).items()
        }
        self._levels: dict[int, PriorityLevel] = {}
        self._order: list[PriorityLevel] = []
        self._listed = 0
        self._last: ReadyQueue | None = None
        """The queue of the last units that were taken."""

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
        """Whether the queue that was taken from last is the only one listed, and empty.

        `take` would unlist it, for the next unit of its run to list it anew: in a chain of tasks that
        would be done for each.
        """
        queue = self._last
        if queue is None or queue.units or self._listed != 1:
            return False
        run_queue = queue.run_queue
        return run_queue.listed and len(run_queue.queues) == 1 and run_queue.queues[0] is queue

    def pool(self, name: str) -> Limit:
        """Return the limit of a pool; a new name has no limit."""
        limit = self.pools.get(name)
        if limit is None:
            limit = self.pools[name] = Limit(None, _what(name))
        return limit

    def set_pool(self, name: str, size: int | None) -> None:
        """Change the size of a pool. What runs goes on, even if it is more than fits from now on."""
        limit = self.pool(name)
        limit.resize(size)
        self._offer(limit)

    def take(self, most: int) -> tuple[int, list[int]] | None:
        """Take up to `most` units of one run: its number, and they; None if nothing can start now.

        They have their places when this returns. `RunMachine.begin` is to be called for each at its first step:
        it gives the places back where the unit may not begin any more.
        """
        if self.limited:
            most = min(most, self.free)
        while self._listed and most > 0:
            level = self._order[0]
            if not level:
                level = next(level for level in self._order if level)
            run_queue = level[0]
            queues = run_queue.queues
            if not queues:
                self._drop_first(level)
                continue
            queue = queues[0]
            ready = run_queue.ready
            # Where places are few and others wait for them, a turn is one unit: runs share them equally.
            share = 1 if self.limited and len(level) > 1 else most
            units = (
                queue.take(share)
                if queue.unlimited
                else self._take_limited(ready, queue, 1 if len(level) > 1 else share)
            )
            if not units:
                self._leave_list(level, run_queue, queue)
                continue
            self._last = queue
            if len(queues) > 1:
                queues.rotate(-1)
            if level.ahead:
                level.ahead -= 1
            if len(level) > 1:
                level.rotate(-1)
            if self.limited:
                self.free -= len(units)
            return ready.run_id, units
        return None

    def _take_limited(self, ready: Ready, queue: ReadyQueue, most: int) -> list[int]:
        """Take units of a queue that needs places, as many as there are; park it if there is none."""
        _redeem(queue)
        for limit in queue.limits:
            amount = queue.amounts[limit]
            if queue.units and (limit.free < amount or limit.is_before(queue)):
                limit.park(queue)
                return []
            most = 1 if limit.waiting else min(most, limit.free // amount)
        units = ready.take(queue, most)
        for limit, amount in queue.needs:
            limit.free -= amount * len(units)
        queue.offered = False
        return units

    def _leave_list(self, level: PriorityLevel, run_queue: RunQueue, queue: ReadyQueue) -> None:
        """Take out the first queue of the first run queue: it is empty, or parked.

        A queue that was emptied stays in the list until `take` comes to it again: in a chain of tasks
        it has its next unit by then.
        """
        run_queue.queues.popleft()
        queue.idle = queue.parked_at is None
        if not run_queue.queues:
            self._drop_first(level)
        self.offer(queue.limits)

    def _drop_first(self, level: PriorityLevel) -> None:
        level.popleft().listed = False
        if level.ahead:
            level.ahead -= 1
        self._listed -= 1

    def enlist(self, queue: ReadyQueue, *, first: bool = False) -> None:
        """List an idle queue that has units to start.

        One that waited for its place goes first, but behind those that waited longer: of two places that
        become free together the first would else go to whoever waited less.
        """
        run_queue = queue.run_queue
        queue.idle = False
        (run_queue.queues.appendleft if first else run_queue.queues.append)(queue)
        if not run_queue.listed:
            run_queue.listed = True
            self._listed += 1
            level = self._levels.get(run_queue.priority)
            if level is None:
                level = self._new_level(run_queue.priority)
            level.add(run_queue, first=first)

    def withdraw(self, queues: Iterable[ReadyQueue]) -> None:
        """Make queues of one run idle: they are held or emptied, or the run has ended."""
        for queue in queues:
            if (limit := queue.parked_at) is not None:
                limit.forget(queue)
                self._offer(limit)  # those behind it may need less, and waited for it alone
            elif not queue.idle:
                _redeem(queue)
                run_queue = queue.run_queue
                run_queue.queues.remove(queue)
                level = self._levels[run_queue.priority]
                if not run_queue.queues and len(level) <= EAGER_REMOVAL:
                    level.take_out(run_queue)
                    run_queue.listed = False
                    self._listed -= 1
                self.offer(queue.limits)
            queue.idle = True

    def forget(self, ready: Ready) -> None:
        """Let go of a run that has ended."""
        if self._last is not None and self._last.run_queue.ready is ready:
            self._last = None

    def give_back(self, needs: Needs) -> None:
        """Free so many places in each of these limits."""
        for limit, amount in needs:
            limit.free += amount
        for limit, _ in needs:
            self._offer(limit)

    def seize(self, needs: Needs) -> None:
        """Take places of these limits and one of the server, whether there are any or not."""
        if self.limited:
            self.free -= 1
        for limit, amount in needs:
            limit.free -= amount

    def offer(self, limits: tuple[Limit, ...]) -> None:
        """Offer free places of each limit to the queue that waits for them first."""
        for limit in limits:
            self._offer(limit)

    def _offer(self, limit: Limit) -> None:
        """Offer what is free, and not promised, to those that wait first: one may give back places for several.

        Those that it is not offered to are overtaken by whoever comes in the same moment.
        """
        while (queue := limit.next_waiting()) is not None:
            queue.offered, queue.promise = True, limit
            limit.promised += queue.amounts[limit]
            self.enlist(queue, first=True)

    def _new_level(self, priority: int) -> PriorityLevel:
        if len(self._order) >= KEPT_LEVELS:
            self._order = [level for level in self._order if level]
            self._levels = {level.priority: level for level in self._order}
        level = self._levels[priority] = PriorityLevel(priority)
        insort(self._order, level, key=lambda level: -level.priority)
        return level


def _redeem(queue: ReadyQueue) -> None:
    """The queue has come to take what it was offered, or will not come."""
    limit, queue.promise = queue.promise, None
    if limit is not None:
        limit.promised -= queue.amounts[limit]


def _what(pool: str) -> str:
    kind, colon, name = pool.partition(":")
    return f"{kind} {name}" if colon else f"pool {pool}"

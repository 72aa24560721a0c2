"""ReadyTasks: what of one run is ready to begin, and the places that its attempts take, lend and give back.

Units that need exactly the same places share a lane, which is offered to the dispatcher as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.engine.machine.dispatcher import Gate, Lane, Needs, Turn
from scattersphere.engine.machine.record import EMPTY_SET, RunRecord

if TYPE_CHECKING:
    from scattersphere.engine.machine.dispatcher import Dispatcher


class ReadyTasks:
    """The lanes of one run, and the places of its attempts. For the machine of that run and the dispatcher."""

    __slots__ = ("_dispatcher", "_gate", "_lanes", "_reclaiming", "_record", "_turns", "fast_lane", "run_id")

    def __init__(self, record: RunRecord, dispatcher: Dispatcher) -> None:
        self.run_id: int = record.run_id
        self._record = record
        self._dispatcher = dispatcher
        limit = record.shape.max_parallel
        self._gate = None if limit is None else Gate(limit, "its run (max_parallel)")
        self._turns: dict[int, Turn] = {}
        self._lanes: dict[int, Lane] = {}
        self._reclaiming: set[int] = set()
        """Units among those that have lent their places which are queued for them again."""
        self.fast_lane: Lane | None = None
        """The lane that the fast path uses, once there is one."""

    # ---- queues

    def lane_of(self, unit: int) -> Lane:
        """Return the lane of a unit."""
        record = self._record
        return self._lane(record.shape.lane_of[record.task_of(unit)])

    def _lane(self, number: int) -> Lane:
        """Return a lane, made when it is first needed."""
        lane = self._lanes.get(number)
        if lane is None:
            lane_shape = self._record.shape.lanes[number]
            turn = self._turns.get(lane_shape.priority)
            if turn is None:
                turn = self._turns[lane_shape.priority] = Turn(self, lane_shape.priority)
            own: Needs = () if self._gate is None else ((self._gate, 1),)
            if lane_shape.max_parallel is not None:
                own = (*own, (Gate(lane_shape.max_parallel, "its task (max_parallel)"), 1))
            shared: Needs = ()
            if lane_shape.pools:
                shared = tuple((self._dispatcher.pool(name), amount) for name, amount in lane_shape.pools)
            lane = self._lanes[number] = Lane(turn, own, shared, mapped=lane_shape.mapped)
        return lane

    def make_fast_lane(self) -> Lane:
        """Make the lane that the fast path uses."""
        lane = self.fast_lane = self._lane(self._record.shape.hot_lane)
        return lane

    def push_roots(self) -> None:
        """Queue all that waits for nothing, where it is all of the fast lane."""
        if roots := self._record.shape.roots:
            lane = self.make_fast_lane()
            lane.queue.extend(roots)
            self._dispatcher.enlist(lane)

    def push(self, unit: int) -> None:
        """Queue a task, or an attempt to be repeated. While the run is paused it is not offered."""
        lane = self.lane_of(unit)
        lane.queue.append(unit)
        if lane.idle and not self._record.is_holding:
            self._dispatcher.enlist(lane)

    def put_back(self, unit: int) -> None:
        """Queue a unit again, before all others, that was taken and has not begun."""
        lane = self.lane_of(unit)
        lane.queue.appendleft(unit)
        if lane.idle and not self._record.is_holding:
            self._dispatcher.enlist(lane)

    def withdraw(self, *, forget: bool) -> None:
        """Take all lanes from the dispatcher, and with `forget` drop what they hold."""
        if forget:
            for lane in self._lanes.values():
                lane.queue.clear()
        self._dispatcher.withdraw(self._lanes.values())
        if forget and self._reclaiming:  # they execute: what is forgotten has not begun
            for unit in sorted(self._reclaiming):
                self.put_back(unit)

    def enlist_all(self) -> None:
        """Offer all that is queued to the dispatcher."""
        if self._record.suspended:
            return
        for lane in self._lanes.values():
            if lane.queue and lane.idle:
                self._dispatcher.enlist(lane)

    def take(self, lane: Lane, limit: int) -> list[int]:
        """Take up to `limit` units out of a lane; a mapped task in it stands for its next instances."""
        queue = lane.queue
        if not lane.mapped:
            return lane.take(limit)
        record, units = self._record, list[int]()
        while queue and len(units) < limit:
            entry = queue.popleft()
            progress = record.maps.get(entry)
            if progress is None:
                units.append(entry)
                continue
            units.append(record.new_instance(entry, progress.next))
            progress.next += 1
            if progress.next < progress.width:
                queue.append(entry)
        return units

    # ---- places

    def full_gate(self, unit: int) -> Gate | None:
        """Return the gate at which a unit waits for a place; None where there are places in all of its gates."""
        lane = self.lane_of(unit)
        return lane.parked_at or next((gate for gate, amount in lane.needs if gate.free < amount), None)

    def amount_of(self, unit: int, gate: Gate) -> int:
        """Return how many places of a gate an attempt of a unit takes."""
        return self.lane_of(unit).amounts.get(gate, 0)

    def free(self, unit: int) -> None:
        """Give back all places of a unit."""
        lent = self._record.lent
        if lent and unit in lent:
            self.seize(unit)
        dispatcher = self._dispatcher
        if dispatcher.limited:
            dispatcher.free += 1
        lane = self.lane_of(unit)
        if lane.needs:
            dispatcher.give_back(lane.needs)

    def free_own(self, unit: int) -> None:
        """Give back the places of run and task of an attempt that is given up; it keeps those of pools and server."""
        self.seize(unit)
        self._dispatcher.give_back(self.lane_of(unit).own)

    def free_shared(self, unit: int) -> None:
        """Give back the last places of an attempt that was given up, and has really ended."""
        if self._dispatcher.limited:
            self._dispatcher.free += 1
        self._dispatcher.give_back(self.lane_of(unit).shared)

    def lend(self, unit: int) -> None:
        """Give back the places of an attempt as long as it waits for a child run, which may need them."""
        self.free(unit)
        self._record.lent.add(unit)

    def reclaim(self, unit: int) -> bool:
        """Queue an attempt that has waited for its places, before all that has not begun. False if it has them."""
        if unit not in self._record.lent or unit in self._reclaiming:
            return False
        self._reclaiming.add(unit)
        self.put_back(unit)
        return True

    def take_back(self, unit: int) -> None:
        """Note that an attempt which was handed out has its places again."""
        self._record.lent.discard(unit)
        self._reclaiming.discard(unit)

    def seize(self, unit: int) -> None:
        """Let an attempt have its places at once: it was cancelled, or has waited enough.

        For a moment there may be more of them taken than there are.
        """
        if unit not in self._record.lent:
            return
        lane = self.lane_of(unit)
        if unit in self._reclaiming and unit in lane.queue:
            lane.queue.remove(unit)
        elif unit in self._reclaiming:  # handed out: it has them
            self.take_back(unit)
            return
        self.take_back(unit)
        self._dispatcher.seize(lane.needs)

    def compact(self, *, for_good: bool) -> None:
        """Give back what an ended run no longer needs; `for_good` says that no attempt can end any more."""
        self._turns, self._lanes, self.fast_lane = {}, {}, None
        if for_good:
            self._reclaiming = EMPTY_SET

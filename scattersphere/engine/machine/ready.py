"""ReadyTasks: what of one run is ready to begin, and the places that its attempts take, lend and give back.

Units that need exactly the same places share a queue, which is offered to the dispatcher as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.engine.machine.dispatcher import Limit, Needs, ReadyQueue, RunQueue
from scattersphere.engine.machine.record import EMPTY_SET, RunRecord

if TYPE_CHECKING:
    from scattersphere.engine.machine.dispatcher import Dispatcher


class ReadyTasks:
    """The queues of one run, and the places of its attempts. For the machine of that run and the dispatcher."""

    __slots__ = (
        "_dispatcher",
        "_limit",
        "_queues",
        "_reclaiming",
        "_record",
        "_run_queues",
        "fast_queue",
        "run_id",
    )

    def __init__(self, record: RunRecord, dispatcher: Dispatcher) -> None:
        self.run_id: int = record.run_id
        self._record = record
        self._dispatcher = dispatcher
        limit = record.graph.max_parallel
        self._limit = None if limit is None else Limit(limit, "its run (max_parallel)")
        self._run_queues: dict[int, RunQueue] = {}
        self._queues: dict[int, ReadyQueue] = {}
        self._reclaiming: set[int] = set()
        """Units among those that have lent their places which are queued for them again."""
        self.fast_queue: ReadyQueue | None = None
        """The queue that the fast path uses, once there is one."""

    # ---- queues

    def queue_of(self, unit: int) -> ReadyQueue:
        """Return the queue of a unit."""
        record = self._record
        return self._queue(record.graph.queue_of[record.task_of(unit)])

    def _queue(self, number: int) -> ReadyQueue:
        """Return a queue, made when it is first needed."""
        queue = self._queues.get(number)
        if queue is None:
            spec = self._record.graph.queues[number]
            run_queue = self._run_queues.get(spec.priority)
            if run_queue is None:
                run_queue = self._run_queues[spec.priority] = RunQueue(self, spec.priority)
            own: Needs = () if self._limit is None else ((self._limit, 1),)
            if spec.max_parallel is not None:
                own = (*own, (Limit(spec.max_parallel, "its task (max_parallel)"), 1))
            shared: Needs = ()
            if spec.pools:
                shared = tuple((self._dispatcher.pool(name), amount) for name, amount in spec.pools)
            queue = self._queues[number] = ReadyQueue(run_queue, own, shared, mapped=spec.mapped)
        return queue

    def make_fast_queue(self) -> ReadyQueue:
        """Make the queue that the fast path uses."""
        queue = self.fast_queue = self._queue(self._record.graph.fast_queue)
        return queue

    def push_roots(self) -> None:
        """Queue all that waits for nothing, where it is all of the fast queue."""
        if roots := self._record.graph.roots:
            queue = self.make_fast_queue()
            queue.units.extend(roots)
            self._dispatcher.enlist(queue)

    def push(self, unit: int) -> None:
        """Queue a task, or an attempt to be repeated. While the run is paused it is not offered."""
        queue = self.queue_of(unit)
        queue.units.append(unit)
        if queue.idle and not self._record.is_holding:
            self._dispatcher.enlist(queue)

    def put_back(self, unit: int) -> None:
        """Queue a unit again, before all others, that was taken and has not begun."""
        queue = self.queue_of(unit)
        queue.units.appendleft(unit)
        if queue.idle and not self._record.is_holding:
            self._dispatcher.enlist(queue)

    def withdraw(self, *, forget: bool) -> None:
        """Take all queues from the dispatcher, and with `forget` drop what they hold."""
        if forget:
            for queue in self._queues.values():
                queue.units.clear()
        self._dispatcher.withdraw(self._queues.values())
        if forget and self._reclaiming:  # they execute: what is forgotten has not begun
            for unit in sorted(self._reclaiming):
                self.put_back(unit)

    def drop(self) -> None:
        """Take all queues from the dispatcher with what they hold, whatever it is: the run has crashed."""
        for queue in self._queues.values():
            queue.units.clear()
        self._reclaiming = set()
        self._dispatcher.withdraw(self._queues.values())

    def enlist_all(self) -> None:
        """Offer all that is queued to the dispatcher."""
        if self._record.suspended:
            return
        for queue in self._queues.values():
            if queue.units and queue.idle:
                self._dispatcher.enlist(queue)

    def take(self, queue: ReadyQueue, most: int) -> list[int]:
        """Take up to `most` units out of a queue; a mapped task in it stands for its next instances."""
        if not queue.mapped:
            return queue.take(most)
        record, units, taken = self._record, queue.units, list[int]()
        while units and len(taken) < most:
            entry = units.popleft()
            progress = record.maps.get(entry)
            if progress is None:
                taken.append(entry)
                continue
            taken.append(record.new_instance(entry, progress.next))
            progress.next += 1
            if progress.next < progress.width:
                units.append(entry)
        return taken

    # ---- places

    def full_limit(self, unit: int) -> Limit | None:
        """Return the limit at which a unit waits for a place; None where there are places in all of its limits."""
        queue = self.queue_of(unit)
        return queue.parked_at or next((limit for limit, amount in queue.needs if limit.free < amount), None)

    def amount_of(self, unit: int, limit: Limit) -> int:
        """Return how many places of a limit an attempt of a unit takes."""
        return self.queue_of(unit).amounts.get(limit, 0)

    def free(self, unit: int) -> None:
        """Give back all places of a unit."""
        lent = self._record.lent
        if lent and unit in lent:
            self.seize(unit)
        dispatcher = self._dispatcher
        if dispatcher.limited:
            dispatcher.free += 1
        queue = self.queue_of(unit)
        if queue.needs:
            dispatcher.give_back(queue.needs)

    def free_own(self, unit: int) -> None:
        """Give back the places of run and task of an attempt that is given up; it keeps those of pools and server."""
        self.seize(unit)
        self._dispatcher.give_back(self.queue_of(unit).own)

    def free_shared(self, unit: int) -> None:
        """Give back the last places of an attempt that was given up, and has really ended."""
        if self._dispatcher.limited:
            self._dispatcher.free += 1
        self._dispatcher.give_back(self.queue_of(unit).shared)

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
        queue = self.queue_of(unit)
        if unit in self._reclaiming and unit in queue.units:
            queue.units.remove(unit)
        elif unit in self._reclaiming:  # handed out: it has them
            self.take_back(unit)
            return
        self.take_back(unit)
        self._dispatcher.seize(queue.needs)

    def compact(self, *, for_good: bool) -> None:
        """Give back what an ended run no longer needs; `for_good` says that no attempt can end any more."""
        self._dispatcher.forget(self)
        self._run_queues, self._queues, self.fast_queue = {}, {}, None
        if for_good:
            self._reclaiming = EMPTY_SET

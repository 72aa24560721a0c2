"""trio: attempts live in a nursery of a system task, each in a cancel scope of its own.

A nursery opened in the host's task would be cancelled together with the host's code. A scope costs as much as a task
does, so each attempt has only one. All stand in a scope that was cancelled from the beginning; that of an attempt
shields its body from it, and to cancel the body is to lower the shield.

A cancelled scope of trio raises at every checkpoint inside it, so a body that swallows that and goes on is cancelled a
hundred thousand times a second. So the shield of a body that spins is raised again, and it is shown its
cancellation with growing gaps, as on asyncio.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import math
import signal
import sys
from typing import TYPE_CHECKING, cast

from scattersphere.engine.loops.protocol import joins
from scattersphere.logs.failures import is_from_file
from scattersphere.logs.frames import line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterator, Mapping

    import trio

    from scattersphere.engine.loops.protocol import BodyT

NO_WATCHING = (
    "a trio loop watches no descriptors (`can_watch`): it would need a task for each; threads do as well"
)
TURNS = 50
"""Turns of the loop in which a cancelled body may unwind before it is looked at."""

SPINNING = 40
"""Points passed in that time by a body that does not unwind, but goes round and round: at least one a turn."""

GAP, GAP_MOST = 1.0, 60.0
"""Seconds until a shielded body sees its cancellation again; doubled each time."""

LOOKED_AT = 8
"""Bodies that did not unwind, and are looked at in a turn of the loop: each may have been behind a shield of its own,
and begin to spin when that is over. By turns, and not by time: in virtual time none passes while somebody spins."""


TASKS_A_TURN = 10
"""Tasks of such a body that are asked for each turn that passes: less than a microsecond."""

OBJECTS_OF_A_BODY = 64
"""Objects, seen by the collector, that a started attempt on trio consists of: task, coroutines, scope, context."""


class TrioLoop:
    """trio. Each attempt has a place with a cancel scope, which is its handle."""

    can_abandon = False
    can_watch = False

    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        self._trio = trio
        # Each attempt takes a turn, and is many objects meanwhile. Where the collector comes by then, they count as old
        # before long, and it goes through the host's whole memory.
        self.starts_a_turn: int = max(8, gc.get_threshold()[0] // OBJECTS_OF_A_BODY)
        self._token = trio.lowlevel.current_trio_token()
        # Not `trio.current_time`: backends ask the time in threads too.
        self.clock: Callable[[], float] = trio.lowlevel.current_clock().current_time
        mock = getattr(sys.modules.get("trio.testing"), "MockClock", ())
        self.is_virtual: bool = isinstance(trio.lowlevel.current_clock(), mock)
        self._event = trio.Event()
        self._deadline = float("inf")
        self._nursery: trio.Nursery | None = None
        self._throttle = CancelThrottle()
        self._places: set[TrioTask] = set()
        self._broken: list[trio.lowlevel.Task] = []
        self._lost: BaseException | None = None
        """What ended the turns, or the nursery, before the Server was closed."""
        # While protected code executes, trio keeps a Ctrl-C for the host's main task.
        self._interrupt_host = trio.lowlevel.enable_ki_protection(_raise_interrupt)
        self._closing = False
        self._leaving, self._ended = trio.Event(), trio.Event()
        self._failed: Callable[[BaseException], None] = lambda _: None
        self._pump: Callable[[bool], bool] = bool
        self._context = contextvars.copy_context()

    async def open(
        self, pump: Callable[[bool], bool], alarm: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._failed, self._pump = failed, pump
        ready, spawn = self._trio.Event(), self._trio.lowlevel.spawn_system_task
        context = contextvars.copy_context()
        spawn(self._keep_bodies, ready, name="scattersphere-bodies", context=context.copy())
        with self._trio.CancelScope(shield=True):  # one turn; who would close it if this were cancelled?
            await ready.wait()
        spawn(self._turns, alarm, name="scattersphere", context=context.copy())

    async def _keep_bodies(self, ready: trio.Event) -> None:
        trio = self._trio
        try:
            # Cancelled for good: the places of the bodies are shielded, until they are to be cancelled.
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                async with trio.open_nursery() as self._nursery:
                    ready.set()
                    with trio.CancelScope(shield=True):
                        await self._leaving.wait()
                    for task in self._broken:
                        trio.lowlevel.reschedule(task)
        except BaseException as exc:  # noqa: BLE001 - an error in a system task would end the host's program
            if not self._broken:  # of those that are broken the nursery complains
                self._lost = exc
        finally:
            self._ended.set()
            if self._lost is not None:
                self._failed(self._lost)

    async def _turns(self, alarm: Callable[[], None]) -> None:
        trio = self._trio
        try:
            while not self._closing:
                with trio.move_on_at(self._deadline):
                    await self._event.wait()
                self._event = trio.Event()
                if self.clock() >= self._deadline:
                    self._deadline = float("inf")
                    alarm()
                if self._pump(False):
                    self._event.set()
        except BaseException as exc:  # noqa: BLE001 - trio's run ends, and nobody has closed the Server
            self._lost = exc
            for place in list(self._places):
                place.cancel()
        finally:
            self._leaving.set()

    async def aclose(self) -> None:
        self._closing = True
        self._event.set()
        with self._trio.CancelScope(shield=True):
            await self._ended.wait()

    def wake(self) -> None:
        self._event.set()

    def pump_now(self, within_turn: bool) -> None:  # noqa: FBT001 - what `pump` is called with
        # In our own context: a nursery's child copies that of whoever starts it.
        if self._context.run(self._pump, within_turn):
            self.wake()

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(self._trio.RunFinishedError):  # the protocol drops such calls
            self._token.run_sync_soon(callback, *args)

    def watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        raise RuntimeError(f"{NO_WATCHING}: {descriptor}, {callback}")

    def unwatch(self, descriptor: int) -> None:
        raise RuntimeError(f"{NO_WATCHING}: {descriptor}")

    def set_alarm(self, when: float | None) -> None:
        self._deadline = float("inf") if when is None else when
        self._event.set()  # the main task sleeps until the old deadline

    def start(self, body: Coroutine[object, object, None], name: str) -> TrioTask:
        if self._nursery is None:
            raise RuntimeError("the loop was not opened")
        place = TrioTask(body, self._places, self._failed)
        self._nursery.start_soon(place.run, self._broken, name=name)
        return place

    def cancel(self, handle: TrioTask) -> None:
        handle.cancel()
        if self._nursery is not None:
            self._throttle.watch(handle, self._nursery)

    def abandon(self, handle: TrioTask) -> bool:  # noqa: ARG002 - trio has no such way
        return False

    def where(self, handle: TrioTask) -> str:
        return line_of(handle.body)

    def current(self) -> trio.lowlevel.Task:
        return self._trio.lowlevel.current_task()

    def survey(
        self, held: Mapping[BodyT, Collection[object]]
    ) -> Generator[None, None, Callable[[BodyT], bool]]:
        yield  # nothing to look through: a body knows its tasks

        def is_at_work(attempt: BodyT) -> bool:
            waiting = held[attempt]
            return (
                attempt.on_loop
                and attempt.handle is not None
                and any(
                    task not in waiting and not joins(task.coro) for task in tasks_below(attempt.handle.task)
                )
            )

        return is_at_work

    def pass_on(self, exc: BaseException) -> None:
        if is_from_file(exc, _TRIOS_HANDLER):
            self._interrupt_host()


_TRIOS_HANDLER = "/trio/_core/_ki.py"
"""The end of the path of the file in which trio raises KeyboardInterrupt for a real Ctrl-C."""


def _raise_interrupt() -> None:
    signal.raise_signal(signal.SIGINT)
    for _ in range(2):  # Python calls the handler between two turns of a loop, if it has not done so yet
        pass


class TrioTask:
    """Holds one attempt's body, inside a scope that is cancelled; stands in `places` until the body has ended.

    Import trio before making one.
    """

    __slots__ = ("_ended", "_failed", "_places", "_scope", "body", "is_cancelled", "task")

    def __init__(
        self,
        body: Coroutine[object, object, None],
        places: set[TrioTask],
        failed: Callable[[BaseException], None],
    ) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        self._places, self._failed = places, failed
        places.add(self)
        self.body: Coroutine[object, object, None] | None = body
        self._scope: trio.CancelScope = trio.CancelScope(shield=True)
        self.is_cancelled: bool = False
        self.task: trio.lowlevel.Task | None = None
        self._ended: trio.Event | None = None

    def cancel(self) -> None:
        """Cancel the body; once is enough."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self.unshield()

    def unshield(self) -> None:
        """Let the body see that it is cancelled, at its checkpoints from now on."""
        self._scope.shield = False

    def shield(self) -> None:
        """Let the body go on as if it were not cancelled."""
        self._scope.shield = True

    async def run(self, broken: list[trio.lowlevel.Task]) -> None:
        """Run the body in the current task. Where the holding itself fails, `failed` is told.

        Where a body has left trio's accounts of its scopes in disorder (it raised GeneratorExit inside a nursery, or
        left one open), the end of the task would break the nursery in which all bodies live. So such a task is
        not ended; it waits in `broken` until everything is closed.
        """
        import trio  # noqa: PLC0415 - an optional dependency

        self.task = trio.lowlevel.current_task()
        try:
            with self._scope:
                if self.body is not None:
                    await self.body
        except RuntimeError:  # from the scopes: bodies never raise
            broken.append(self.task)
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        except BaseException as exc:  # noqa: BLE001 - nothing may reach the nursery, which has other bodies in it
            self._failed(exc)
        finally:
            self._places.discard(self)
            self.body = self.task = None
            if self._ended is not None:
                self._ended.set()

    def stir(self) -> None:
        """Wake who waits for the end: there is something to look at."""
        waited_for, self._ended = self._ended, None
        if waited_for is not None:
            waited_for.set()

    async def wait_ended(self, at_most: float) -> bool:
        """Wait so many seconds for the end; return whether it came."""
        import trio  # noqa: PLC0415 - an optional dependency

        if self.body is not None:
            if self._ended is None:
                self._ended = trio.Event()
            with trio.move_on_after(at_most):
                await self._ended.wait()
        return self.body is None


class CancelThrottle:
    """Watches cancelled places, and shields those whose bodies spin."""

    def __init__(self) -> None:
        self._fresh: list[TrioTask] = []
        self._watched: set[TrioTask] = set()
        self._turns = TurnWatch()

    def watch(self, place: TrioTask, nursery: trio.Nursery) -> None:
        """See to it that a cancelled body does not spin; nothing if that is being done."""
        if place.body is not None and place not in self._watched:
            self._watched.add(place)
            self._fresh.append(place)
            if len(self._fresh) == 1:
                nursery.start_soon(self._look, nursery, name="scattersphere-throttle")

    async def _look(self, nursery: trio.Nursery) -> None:
        """One look at all that were cancelled in the same turn."""
        for place, before in await self._pass_turns():
            if place.body is None:
                self._watched.discard(place)
            else:
                spins = _steps(place) - before >= SPINNING
                nursery.start_soon(self._keep, place, spins, name="scattersphere-throttle")

    async def _pass_turns(self) -> list[tuple[TrioTask, int]]:
        import trio  # noqa: PLC0415 - an optional dependency

        places: list[tuple[TrioTask, int]] = []
        with trio.CancelScope(shield=True):  # the nursery is cancelled
            await trio.lowlevel.checkpoint()
            fresh, self._fresh = self._fresh, []
            places = [(place, _steps(place)) for place in fresh]
            for _ in range(TURNS):
                if all(place.body is None for place in fresh):
                    break
                await trio.lowlevel.checkpoint()
        return places

    async def _keep(self, place: TrioTask, spins: bool) -> None:  # noqa: FBT001 - trio starts it
        """Look after a place until its body has ended; calm it from when it spins."""
        import trio  # noqa: PLC0415 - an optional dependency

        with trio.CancelScope(shield=True):
            if spins or await self._turns.spins(place):
                await self._calm(place)
        self._watched.discard(place)

    async def _calm(self, place: TrioTask) -> None:
        gap = GAP
        place.shield()
        while not await place.wait_ended(gap):
            gap = min(gap * 2, GAP_MOST)
            place.unshield()
            await _spins(place)
            place.shield()


class TurnWatch:
    """An instrument of trio as long as there are bodies to look at: it is called in each turn of the loop."""

    def __init__(self) -> None:
        self._turn = 0
        self._looked: dict[TrioTask, tuple[int, int, int]] = {}
        """At which turn a body was last looked at, how many steps it had made, and at which turn it is looked at again:
        one of many tasks more rarely, for each is asked. Who comes next stands first."""

    async def spins(self, place: TrioTask) -> bool:
        """Wait until the body has ended (False), or goes round and round (True); then it is shielded."""
        import trio  # noqa: PLC0415 - an optional dependency

        if not self._looked:
            trio.lowlevel.add_instrument(cast("trio.abc.Instrument", self))
        self._note(place, *_size_and_steps(place))
        try:
            await place.wait_ended(math.inf)
        finally:
            self._looked.pop(place, None)
            if not self._looked:
                with contextlib.suppress(KeyError):
                    trio.lowlevel.remove_instrument(cast("trio.abc.Instrument", self))
        return place.body is not None

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio calls it
        """Look at the next few tasks that were cancelled: an `Instrument` of trio, called once a turn."""
        self._turn += 1
        for place in list(itertools.islice(self._looked, LOOKED_AT)):
            known = turn, before, due = self._looked.pop(place)
            if self._turn < due:
                self._looked[place] = known
                continue
            size, steps = _size_and_steps(place)
            if steps - before < (self._turn - turn) * SPINNING // TURNS:
                self._note(place, size, steps)
            else:
                place.shield()
                place.stir()

    def _note(self, place: TrioTask, size: int, steps: int) -> None:
        self._looked[place] = self._turn, steps, self._turn + max(TURNS, size // TASKS_A_TURN)


async def _spins(place: TrioTask) -> bool:
    """Look whether a body goes round and round while the loop has some turns."""
    import trio  # noqa: PLC0415 - an optional dependency

    before = _steps(place)
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()
    return _steps(place) - before >= SPINNING


def _steps(place: TrioTask) -> int:
    """Count the steps that a body's tasks have made so far."""
    return _size_and_steps(place)[1]


def _size_and_steps(place: TrioTask) -> tuple[int, int]:
    """Count a body's tasks, and the steps that they have made so far."""
    # trio counts them for its own testing functions; there is no public way to know. Without it nothing is calmed.
    points, tasks = ("_schedule_points", "_cancel_points"), list(tasks_below(place.task))
    return len(tasks), sum(getattr(task, point, 0) for task in tasks for point in points)


def tasks_below(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    """Yield a task and all that live in its nurseries, and in theirs."""
    todo = [] if task is None else [task]
    while todo:
        task = todo.pop()
        yield task
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)

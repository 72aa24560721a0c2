"""Where an attempt lives on trio, and how one that swallows cancellation is kept from burning the processor.

A scope costs as much as a task does, so each place has only one. All places stand in a scope that was cancelled from
the beginning; that of a place shields its body from it, and to cancel the body is to lower the shield.

A cancelled scope of trio raises at every checkpoint inside it, so a body that swallows that and goes on is cancelled a
hundred thousand times a second. So the shield of a body that spins is raised again, and it is shown its
cancellation with growing gaps, as on asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    import trio

TURNS = 50
"""Turns of the loop in which a cancelled body may unwind before it is looked at."""

SPINNING = 40
"""Points passed in that time by a body that does not unwind, but goes round and round: at least one a turn."""

GAP, GAP_MOST = 1.0, 60.0
"""Seconds until a shielded body sees its cancellation again; doubled each time."""

LOOK, LOOK_MOST = 0.05, 1.0
"""Seconds after which a body that did not unwind is looked at again: it may have been behind a shield of its own, and
begin to spin when that is over. Doubled each time."""


class TrioPlace:
    """Holds one attempt's body, inside a scope that is cancelled; stands in `places` until the body has ended.

    Import trio before making one.
    """

    __slots__ = ("_ended", "_failed", "_places", "_scope", "body", "is_cancelled", "task")

    def __init__(
        self,
        body: Coroutine[Any, Any, None],
        places: set[TrioPlace],
        failed: Callable[[BaseException], None],
    ) -> None:
        import trio  # noqa: PLC0415 - an optional dependency

        self._places, self._failed = places, failed
        places.add(self)
        self.body: Coroutine[Any, Any, None] | None = body
        self._scope: trio.CancelScope = trio.CancelScope(shield=True)
        self.is_cancelled: bool = False
        self.task: trio.lowlevel.Task | None = None
        self._ended: trio.Event | None = None

    def cancel(self) -> None:
        """Cancel the body; once is enough."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self.show()

    def show(self) -> None:
        """Let the body see that it is cancelled, at its checkpoints from now on."""
        self._scope.shield = False

    def hide(self) -> None:
        """Let the body go on as if it were not cancelled."""
        self._scope.shield = True

    async def hold(self, broken: list[trio.lowlevel.Task]) -> None:
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

    async def wait_ended(self, at_most: float) -> bool:
        """Wait so many seconds for the end; return whether it came."""
        import trio  # noqa: PLC0415 - an optional dependency

        if self.body is not None:
            if self._ended is None:
                self._ended = trio.Event()
            with trio.move_on_after(at_most):
                await self._ended.wait()
        return self.body is None


class TrioCalmer:
    """Watches cancelled places, and shields those whose bodies spin."""

    def __init__(self) -> None:
        self._fresh: list[TrioPlace] = []
        self._watched: set[TrioPlace] = set()

    def watch(self, place: TrioPlace, nursery: trio.Nursery) -> None:
        """See to it that a cancelled body does not spin; nothing if that is being done."""
        if place.body is not None and place not in self._watched:
            self._watched.add(place)
            self._fresh.append(place)
            if len(self._fresh) == 1:
                nursery.start_soon(self._look, nursery, name="scattersphere-calmer")

    async def _look(self, nursery: trio.Nursery) -> None:
        """One look at all that were cancelled in the same turn."""
        for place, before in await self._pass_turns():
            if place.body is None:
                self._watched.discard(place)
            else:
                spins = _steps(place) - before >= SPINNING
                nursery.start_soon(self._keep, place, spins, name="scattersphere-calmer")

    async def _pass_turns(self) -> list[tuple[TrioPlace, int]]:
        import trio  # noqa: PLC0415 - an optional dependency

        places: list[tuple[TrioPlace, int]] = []
        with trio.CancelScope(shield=True):  # the nursery is cancelled
            await trio.lowlevel.checkpoint()
            fresh, self._fresh = self._fresh, []
            places = [(place, _steps(place)) for place in fresh]
            for _ in range(TURNS):
                if all(place.body is None for place in fresh):
                    break
                await trio.lowlevel.checkpoint()
        return places

    async def _keep(self, place: TrioPlace, spins: bool) -> None:  # noqa: FBT001 - trio starts it
        """Look at a place until its body has ended; calm it from when it spins."""
        import trio  # noqa: PLC0415 - an optional dependency

        pause = LOOK
        with trio.CancelScope(shield=True):
            while not spins:
                before = _steps(place)
                if await place.wait_ended(pause):
                    break
                pause = min(pause * 2, LOOK_MOST)
                spins = _steps(place) - before >= SPINNING and await _spins(place)
            else:
                await self._calm(place)
        self._watched.discard(place)

    async def _calm(self, place: TrioPlace) -> None:
        gap = GAP
        place.hide()
        while not await place.wait_ended(gap):
            gap = min(gap * 2, GAP_MOST)
            place.show()
            await _spins(place)
            place.hide()


async def _spins(place: TrioPlace) -> bool:
    """Look whether a body goes round and round while the loop has some turns."""
    import trio  # noqa: PLC0415 - an optional dependency

    before = _steps(place)
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()
    return _steps(place) - before >= SPINNING


def _steps(place: TrioPlace) -> int:
    """Count the steps that a body's tasks have made so far."""
    # trio counts them for its own testing functions; there is no public way to know. Without it nothing is calmed.
    points = ("_schedule_points", "_cancel_points")
    return sum(getattr(task, point, 0) for task in tasks_below(place.task) for point in points)


def tasks_below(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    """Yield a task and all that live in its nurseries, and in theirs."""
    todo = [] if task is None else [task]
    while todo:
        task = todo.pop()
        yield task
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)

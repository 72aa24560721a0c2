"""The Server of a rehearsal: a real one, with fakes and injections at the two places where attempts come from.

Plans are where fakes and injections on the loop are put in (`Jobs.stand_in`); backends are wrapped, so that an
injection meets threads and processes too, and so that a virtual clock is held while they work.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.abc.backend import Handle, Outcome, OutcomeKind
from scattersphere.engine.loops import current_loop
from scattersphere.errors import TaskCrashedError
from scattersphere.logs.failures import format_failure
from scattersphere.server import Server
from scattersphere.testing.injections import injecting_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from scattersphere.abc.backend import Backend, BackendHost, Call
    from scattersphere.engine.executor import JobExecutor
    from scattersphere.engine.plan import PlannedTask
    from scattersphere.engine.timers import Timer
    from scattersphere.schedules.driver import Clocks
    from scattersphere.testing.clocks import HeldClock
    from scattersphere.testing.fakes import Fake
    from scattersphere.testing.injections import Injections


class StageServer(Server):
    """A `Server` whose plans and backends a test can change; everything else is as it is in production."""

    def __init__(
        self,
        fakes: dict[str, Fake],
        injections: Injections,
        clock: HeldClock,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._fakes = fakes
        self._injections = injections
        executor = self._executor
        executor.attempts.random = random.Random(seed).random  # noqa: S311 - jitter is no secret
        executor.backends = {
            name: StageBackend(backend, executor, injections, clock)
            for name, backend in executor.backends.items()
        }
        self._jobs.stand_in = self._stand_in
        self._wall_ahead = dt.timedelta()

    def _clocks(self) -> Clocks:
        clocks = super()._clocks()
        return attrs.evolve(clocks, wall=lambda: clocks.wall() + self._wall_ahead)

    def move_wall(self, when: dt.datetime) -> None:
        """Let the wall clock of schedules show `when`, and go on from there."""
        self._wall_ahead += when - self._scheduler.now()
        self._scheduler.driver.look()

    def go_on_at(self, before: StageServer) -> None:
        """Let the wall clocks go on from those of the Server before, also where the loop's time is virtual."""
        self._wall_ahead = before._wall_ahead
        if current_loop().is_virtual:
            self._executor.wall_epoch = before._executor.wall_clock.epoch()

    def _stand_in(self, planned: PlannedTask) -> PlannedTask:
        for fake in self._fakes.values():
            if fake.stands_for(planned.task_class):
                planned = fake.stand_in(planned)
        if planned.on_loop and self._injections.concern(planned.name):
            cls = injecting_class(planned.cls, self._injections)
            planned = attrs.evolve(planned, cls=cls, plain=False)
        return planned


class StageBackend:
    """Puts injections before the calls of another backend, and holds the clock while they are there."""

    def __init__(
        self, inner: Backend, executor: JobExecutor, injections: Injections, clock: HeldClock
    ) -> None:
        self.limit: int | None = inner.limit
        self._inner = inner
        self._executor = executor
        self._injections = injections
        self._clock = clock

    async def open(self, host: BackendHost) -> None:
        """Open the other backend."""
        await self._inner.open(_StageHost(host, self))

    async def aclose(self) -> None:
        """Close the other backend."""
        await self._inner.aclose()

    def start(self, call: Call, done: Callable[[Outcome], None]) -> Handle:
        """Start the call, at once or after the injected delay; or let it end as injected."""
        delay, error = self._injections.take(call.task_context)
        if not delay and error is None:
            return self._start(call, done)
        call.begins()  # the delay is a part of what the call takes
        return _Delayed(self._executor, delay, done, lambda: self._begin(call, done, error))

    def _begin(
        self, call: Call, done: Callable[[Outcome], None], error: BaseException | None
    ) -> Handle | None:
        if error is None:
            return self._start(call, done)
        crashed = isinstance(error, TaskCrashedError)
        trace = "" if crashed else format_failure(error)
        done(Outcome(OutcomeKind.DIED if crashed else OutcomeKind.EXCEPTION, error=error, traceback=trace))
        return None

    def _start(self, call: Call, done: Callable[[Outcome], None]) -> Handle:
        self._clock.hold()

        def over(outcome: Outcome) -> None:
            self._clock.release()
            done(outcome)

        try:
            return self._inner.start(call, over)
        except BaseException:
            self._clock.release()
            raise


class _StageHost:
    """What is lent to the other backend: the engine knows it by the one that is put before it."""

    def __init__(self, host: BackendHost, known_as: Backend) -> None:
        self._host = host
        self._known_as = known_as
        self.soon = host.soon
        self.note_where = host.note_where
        self.instance = host.instance

    @property
    def journal(self) -> str:
        """The id of the journal, once it is known."""
        return self._host.journal

    def limit_changed(self, backend: Backend, limit: int | None) -> None:  # noqa: ARG002 - it is another to the engine
        """Pass on that it runs more or fewer calls from now on."""
        self._host.limit_changed(self._known_as, limit)


class _Delayed(Handle):
    """The handle of a call that begins later."""

    def __init__(
        self,
        executor: JobExecutor,
        delay: float,
        done: Callable[[Outcome], None],
        begin: Callable[[], Handle | None],
    ) -> None:
        self._executor = executor
        self._done = done
        self._begin = begin
        self._inner: Handle | None = None
        self._timer: Timer | None = executor.call_at(executor.clock() + delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._inner = self._begin()

    def cancel(self) -> None:
        """Ask the call to end; one that has not begun ends at once."""
        self._end("cancel")

    def kill(self) -> None:
        """End the call by force; one that has not begun ends at once."""
        self._end("kill")

    def _end(self, verb: str) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._executor.soon(self._done, Outcome(OutcomeKind.CANCELLED))
        elif self._inner is not None:
            getattr(self._inner, verb)()

    def pause(self) -> None:
        """Pass on that the run is being paused."""
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        """Pass on that it goes on."""
        if self._inner is not None:
            self._inner.resume()

    def where(self) -> str:
        """Say which line it is executing."""
        return "an injected delay" if self._inner is None else self._inner.where()

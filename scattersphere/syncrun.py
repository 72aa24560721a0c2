"""SyncRun: a Run whose methods block, for `SyncServer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from scattersphere._lifecycle import ForkGuard
from scattersphere.errors import ClosedError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from scattersphere.execution.plan import Plan
    from scattersphere.execution.reused import Reused
    from scattersphere.execution.run import Run, TaskStatus
    from scattersphere.execution.views.statistics import RunStatistics
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.events import Event
    from scattersphere.model.logs import LogLine
    from scattersphere.model.states import RunState
    from scattersphere.schedules.occurrences import ScheduledFor

T = TypeVar("T")


class Door(Protocol):
    """The way to the thread of the loop: a `SyncServer`."""

    home: int | None

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call or await `function` there, and wait. Raises `ClosedError`."""

    def follow(self, function: Callable[[], Any]) -> Any:
        """Do as `call`, also while the Server is closing. Raises `ClosedError` when that thread has gone."""

    def read(self, function: Callable[[], T]) -> T:
        """Call `function` there, or here when that thread has gone."""
        ...


def ready(stream: AsyncIterator[T]) -> Iterator[T]:
    """Yield what a stream has by now; end where it would wait for more. Needs no event loop."""
    while True:
        step = stream.__anext__().__await__()
        try:
            next(step)
        except StopIteration as got:
            yield got.value
        except StopAsyncIteration:
            return
        else:
            step.close()
            return


def following(door: Door, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    """Yield what a stream tells, blocking for the next one; the end of the Server ends it."""
    stream = door.read(begin)

    async def following_one() -> T | None:
        return await anext(stream, None)

    while True:
        try:
            told: T | None = door.follow(following_one)
        except ClosedError:  # nothing moves any more; what has happened can still be read
            yield from ready(stream)
            return
        if told is None:
            return
        yield told


class SyncRun(ForkGuard):
    """A `Run` whose methods block. May be used from any thread; what it came to can be read for ever."""

    def __init__(self, run: Run, door: Door) -> None:
        self._run = run
        self._door = door
        self._bind()

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._run))

    @property
    def id(self) -> int:
        """The number."""
        return self._run.id

    @property
    def job(self) -> str:
        """The name of the job."""
        return self._run.job

    @property
    def parent(self) -> int | None:
        """The id of the run that started this one, or that it repeats."""
        return self._run.parent

    @property
    def scheduled(self) -> ScheduledFor | None:
        """See `Run.scheduled`."""
        return self._run.scheduled

    @property
    def definition(self) -> JobDefinition:
        """See `Run.definition`."""
        return self._run.definition

    @property
    def reused(self) -> Mapping[str, Reused]:
        """See `Run.reused`."""
        return self._run.reused

    @property
    def key(self) -> str | None:
        """See `Run.key`."""
        return self._run.key

    @property
    def plan(self) -> Plan:
        """See `Run.plan`."""
        return self._run.plan

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters with their defaults; secret ones show as `***`."""
        return self._run.params

    @property
    def state(self) -> RunState:
        """Where the run is."""
        return self._run.state

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self._run.succeeded

    @property
    def reason(self) -> str:
        """All causes for which it ends or has ended early."""
        return self._door.read(lambda: self._run.reason)

    @property
    def results(self) -> Mapping[str, Any]:
        """The results of the tasks that have succeeded by now."""
        return self._door.read(lambda: dict(self._run.results))

    @property
    def tasks(self) -> Mapping[str, TaskStatus]:
        """Where each task is by now."""
        return self._door.read(lambda: dict(self._run.tasks))

    @property
    def stuck(self) -> dict[str, str]:
        """See `Run.stuck`."""
        return self._door.read(lambda: self._run.stuck)

    @property
    def created_at(self) -> dt.datetime:
        """When `start` was called."""
        return self._run.created_at

    @property
    def started_at(self) -> dt.datetime | None:
        """When it got its slot."""
        return self._run.started_at

    @property
    def ended_at(self) -> dt.datetime | None:
        """When it ended."""
        return self._run.ended_at

    @property
    def last_event(self) -> int:
        """See `Run.last_event`."""
        return self._door.read(lambda: self._run.last_event)

    def pause(self) -> None:
        """See `Run.pause`."""
        self._door.call(self._run.pause)

    def resume(self) -> None:
        """See `Run.resume`."""
        self._door.call(self._run.resume)

    def stop(self, reason: str | None = None) -> None:
        """See `Run.stop`."""
        self._door.call(self._run.stop, reason)

    def cancel(self, reason: str | None = None, *, grace: float | None = None) -> None:
        """See `Run.cancel`."""
        self._door.call(self._run.cancel, reason, grace=grace)

    def kill(self, reason: str | None = None) -> None:
        """See `Run.kill`."""
        self._door.call(self._run.kill, reason)

    def wait(self, timeout: float | None = None) -> SyncRun:
        """Block until the run has ended, and return this run. Raises `TimeoutError`."""
        if not self._run.state.ended:
            self._door.call(self._run.wait, timeout)
        return self

    def events(self, since: int = 0) -> Iterator[Event]:
        """Yield the events, from the first one on, blocking for the next, until the run has ended."""
        return following(self._door, lambda: self._run.events(since))

    def logs(
        self,
        task: str | None = None,
        *,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> list[LogLine]:
        """See `Run.logs`."""
        return self._door.read(lambda: self._run.logs(task, index=index, attempt=attempt, tail=tail))

    def follow_logs(
        self,
        task: str | None = None,
        *,
        index: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> Iterator[LogLine]:
        """See `Run.follow_logs`; blocks for the next line, until the run has ended."""
        run = self._run
        return following(self._door, lambda: run.follow_logs(task, index=index, attempt=attempt, tail=tail))

    @property
    def log_file(self) -> Path | None:
        """See `Run.log_file`."""
        return self._run.log_file

    @property
    def statistics(self) -> RunStatistics:
        """See `Run.statistics`."""
        return self._door.read(lambda: self._run.statistics)

    def to_mermaid(self) -> str:
        """See `Run.to_mermaid`."""
        return self._door.read(self._run.to_mermaid)

    def to_dot(self) -> str:
        """See `Run.to_dot`."""
        return self._door.read(self._run.to_dot)

    def to_tree(self) -> str:
        """See `Run.to_tree`."""
        return self._door.read(self._run.to_tree)

    def to_trace(self) -> str:
        """See `Run.to_trace`."""
        return self._door.read(self._run.to_trace)

    def explain(self) -> str:
        """See `Run.explain`."""
        return self._door.read(self._run.explain)


class SyncRuns(Mapping[int, SyncRun]):
    """The runs of a Server, by id."""

    def __init__(self, door: Door, runs: Mapping[int, Run]) -> None:
        self._door = door
        self._runs = runs

    def __getitem__(self, run_id: int) -> SyncRun:
        return SyncRun(self._door.read(lambda: self._runs[run_id]), self._door)

    def __iter__(self) -> Iterator[int]:
        return iter(self._door.read(lambda: list(self._runs)))

    def __len__(self) -> int:
        return self._door.read(lambda: len(self._runs))

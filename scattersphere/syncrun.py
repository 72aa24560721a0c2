"""SyncRun: a Run whose methods block, for `SyncServer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self, TypeVar

from scattersphere._blocking import Value, blocking, calling, reading, streaming
from scattersphere._lifecycle import ForkGuard
from scattersphere.engine.run import Run
from scattersphere.errors import RunFailedError
from scattersphere.jobs.history import History

if TYPE_CHECKING:
    from scattersphere._blocking import Door

T = TypeVar("T")


def _of_run(get: Callable[[Run], T], *, at_once: bool = False) -> Value[Run, T]:
    return Value(get, at_once=at_once)


class SyncRun(ForkGuard):
    """A `Run` whose methods block. May be used from any thread; what it came to can be read for ever."""

    _original_class: ClassVar[type] = Run

    def __init__(self, run: Run, door: Door) -> None:
        self._original = run
        self._door = door
        self._bind()

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._original))

    id: Final = _of_run(lambda run: run.id, at_once=True)
    job: Final = _of_run(lambda run: run.job, at_once=True)
    scheduled: Final = _of_run(lambda run: run.scheduled, at_once=True)
    parent: Final = _of_run(lambda run: run.parent, at_once=True)
    key: Final = _of_run(lambda run: run.key, at_once=True)
    user: Final = _of_run(lambda run: run.user, at_once=True)
    plan: Final = _of_run(lambda run: run.plan, at_once=True)
    definition: Final = _of_run(lambda run: run.definition, at_once=True)
    params: Final = _of_run(lambda run: run.params, at_once=True)
    reused: Final = _of_run(lambda run: run.reused, at_once=True)
    state: Final = _of_run(lambda run: run.state, at_once=True)
    succeeded: Final = _of_run(lambda run: run.succeeded, at_once=True)
    created_at: Final = _of_run(lambda run: run.created_at, at_once=True)
    started_at: Final = _of_run(lambda run: run.started_at, at_once=True)
    ended_at: Final = _of_run(lambda run: run.ended_at, at_once=True)
    log_file: Final = _of_run(lambda run: run.log_file, at_once=True)
    reason: Final = _of_run(lambda run: run.reason)
    results: Final = _of_run(lambda run: dict(run.results))
    failures: Final = _of_run(lambda run: run.failures)
    tasks: Final = _of_run(lambda run: dict(run.tasks))
    counts: Final = _of_run(lambda run: run.counts)
    waits_for: Final = _of_run(lambda run: run.waits_for)
    recovered: Final = _of_run(lambda run: run.recovered)
    stuck: Final = _of_run(lambda run: run.stuck)
    last_event: Final = _of_run(lambda run: run.last_event)
    statistics: Final = _of_run(lambda run: run.statistics)

    pause: Final = calling(Run.pause)
    resume: Final = calling(Run.resume)
    stop: Final = calling(Run.stop)
    cancel: Final = calling(Run.cancel)
    kill: Final = calling(Run.kill)

    events: Final = streaming(Run.events)
    follow_logs: Final = streaming(Run.follow_logs)
    logs: Final = reading(Run.logs)
    explain: Final = reading(Run.explain)
    as_dict: Final = reading(Run.as_dict)
    to_mermaid: Final = reading(Run.to_mermaid)
    to_dot: Final = reading(Run.to_dot)
    to_svg: Final = reading(Run.to_svg)
    to_tree: Final = reading(Run.to_tree)
    picture: Final = reading(Run.picture)
    to_trace: Final = reading(Run.to_trace)

    @property
    def result(self) -> Any:
        """See `Run.result`."""
        with _naming(self):
            return self._door.read(lambda: self._original.result)

    def raise_if_failed(self) -> Self:
        """See `Run.raise_if_failed`."""
        with _naming(self):
            self._door.read(self._original.raise_if_failed)
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Block until the run has ended, and return this run. Raises `TimeoutError`."""
        if not self.state.ended:
            self._door.call(self._original.wait, timeout)
        return self

    def __await__(self) -> NoReturn:
        raise TypeError(
            "a SyncRun blocks: write `run.wait()`; `await run` is for a Run of `async with Server()`"
        )


@contextmanager
def _naming(run: SyncRun) -> Iterator[None]:
    """Let a RunFailedError name the blocking run."""
    try:
        yield
    except RunFailedError as error:
        error.run = run
        raise


class SyncHistory:
    """The `History` of a Server, whose methods block."""

    _original_class: ClassVar[type] = History

    def __init__(self, history: History, door: Door) -> None:
        self._original = history
        self._door = door

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._original))

    @property
    def has_journal(self) -> bool:
        """Whether a journal keeps runs that memory has let go of."""
        return self._original.has_journal

    list: Final = blocking(History.list)

    def get(self, run_id: int, *, results: bool = True) -> SyncRun:
        """See `History.get`."""
        return SyncRun(self._door.call(self._original.get, run_id, results=results), self._door)


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

    def __repr__(self) -> str:
        return self._door.read(lambda: repr(self._runs))

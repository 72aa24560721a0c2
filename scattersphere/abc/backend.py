"""The contract of a backend: a place where attempts run, and what the engine gives and asks.

A backend runs *calls*. It reports each one exactly once through `done`, on the loop's thread, never
from inside `start`, and only when nothing of it executes any more. It knows nothing of runs, retries or states; the
engine decides those.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import attrs

from scattersphere.abc.around import Carried
from scattersphere.model.definition import RetryPolicy
from scattersphere.model.taskclass import TaskClass
from scattersphere.runnable import TaskContext

NO_RETRY = RetryPolicy()
NO_NEEDS: Mapping[str, int] = MappingProxyType({})


class OutcomeKind(Enum):
    """How a call ended."""

    VALUE = "value"
    EXCEPTION = "exception"
    CANCELLED = "cancelled"
    DIED = "died"
    """The body's own process is gone; `error` says by which signal or exit code. It counts as an attempt."""
    LOST = "lost"
    """The place is gone: a machine, a worker of a cluster, and whatever was there; `error` says which. It does not
    count as an attempt, and the call is started again at once; the third in a row is a crash."""


@attrs.frozen(eq=False)
class Outcome:
    """What a call came to.

    `error` is the live exception, or one rebuilt from another process; `traceback` is its
    formatted text with logical module names, or "".
    """

    kind: OutcomeKind
    value: Any = None
    error: BaseException | None = None
    traceback: str = ""


def _at_once() -> bool:
    return True


def _never() -> bool:
    return False


@attrs.frozen(eq=False, kw_only=True)
class Call:
    """One attempt, ready to run.

    `invoke()` runs the body with its hooks in the current thread, inside `context`, and never
    raises. A backend in another process uses `task_class`, `arguments` and `task_context` instead.
    """

    invoke: Callable[[], Outcome]
    context: contextvars.Context
    task_class: TaskClass
    arguments: Mapping[str, Any]
    task_context: TaskContext
    name: str
    """For people: `wordcount#3/count[7]`."""
    begins: Callable[[], bool] = _at_once
    """Asked just before the body's first step, in a thread that may wait: a pause holds it there. False: it may not
    begin any more, and the call ends `CANCELLED`. `invoke` asks by itself; a backend that runs the body in another
    process asks when that is ready for it."""
    held: Callable[[], object] = _at_once
    """To be called, from any thread, when the backend has held all of the body during a pause (`Handle.pause`):
    then the attempt counts as held, without a checkpoint."""
    retry: RetryPolicy = NO_RETRY
    """What happens after a failure, so that `on_status_change` can be told where the attempt is heading."""
    carries: Callable[[], Carried] = Carried
    """What `around` gives a body in another process; asked on the loop, inside `context`."""
    result_may_stay: Callable[[], bool] = _never
    """Whether its outcome's value may be a `RemoteValue`: all that wait for the task run on the same backend, and take
    its result whole."""
    needs: Mapping[str, int] = NO_NEEDS
    """What the task needs, by the name of the resource, for a backend that `takes_needs`; empty for others."""


class Handle(Protocol):
    """A started call. Derive from it to have what may be left out."""

    __slots__ = ()

    def cancel(self) -> None:
        """Ask it to end: its next `check()` raises. May be called again."""

    def kill(self) -> None:
        """End it by force where that is possible; else do nothing."""

    def where(self) -> str:
        """Say which line it is executing ("file.py:12 in run"), or "" where unknown."""
        ...

    def pause(self) -> None:
        """The run is being paused: let what stands around the body know. `check()` holds the body without it."""
        return

    def resume(self) -> None:
        """The run goes on."""
        return


class BackendHost(Protocol):
    """What the engine lends a backend. For any thread."""

    @property
    def instance(self) -> str:
        """The name of this Server among all that there are and were."""
        ...

    @property
    def journal(self) -> str:
        """The id of the journal that runs are kept in, "" without one; known when the first call is started.

        A backend whose calls outlive the Server makes sure that those of another `instance` with this journal have
        ended, before it starts one: that Server has gone, and what it had begun begins again.
        """
        ...

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the loop's thread; never blocks.

        After the loop has gone the call is dropped in silence.
        """

    def limit_changed(self, backend: Backend, limit: int | None) -> None:
        """Take note that `backend` now runs at most `limit` calls at once, because its cluster has grown or shrunk.

        What executes goes on; below it, nothing is started until there are places again.
        """

    def note_where(self, call: Call, place: str) -> None:
        """Take note of where a call executes, a machine or a worker: `explain` tells it to people."""


@attrs.frozen(kw_only=True)
class BackendTraits:
    """What a backend says of itself beside its `limit`, each by an attribute of that name, which it may leave out.

    Nobody asks what a backend is called: those that a host adds are asked as ours are.
    """

    runs_async: bool = False
    """Whether tasks may name it whose `run` is async. `Call.invoke` has them awaited on the loop meanwhile; a backend
    in another process awaits them there. Else such a task is a problem of its definition."""
    runs_plain: bool = True
    """Whether tasks may name it whose `run` is a plain function."""
    kill_grace: float = 2.0
    """Seconds that a call has to end after a kill; then it is given up."""
    keeps_context: bool = False
    """Whether bodies run in this process, in `Call.context`, so that it costs nothing to ask where they are."""
    takes_needs: bool = False
    """Whether it looks after what a task needs by itself: it gets that in `Call.needs`, and the pools of the Server
    are left alone."""

    @classmethod
    def of(cls, backend: object) -> BackendTraits:
        """Ask a backend."""
        said = {field.name: getattr(backend, field.name, field.default) for field in attrs.fields(cls)}
        return cls(**said)


LOOP_TRAITS = BackendTraits(runs_async=True, runs_plain=False, kill_grace=0.05, keeps_context=True)
"""After a kill a coroutine has as many seconds before it is closed."""


@runtime_checkable
class Backend(Protocol):
    """A place where attempts run. One Server opens it once and closes it once.

    It may say more of itself, see `BackendTraits`. `scattersphere.testing.backends` holds the checks that every
    backend must pass.
    """

    limit: int | None
    """Calls that it runs at once; the dispatcher never starts more. None: no limit."""

    async def open(self, host: BackendHost) -> None:
        """Get ready; called on the loop before the first call."""

    def start(self, call: Call, done: Callable[[Outcome], None]) -> Handle:
        """Run `call`; call `done(outcome)` exactly once, later, on the loop's thread."""
        ...

    async def aclose(self) -> None:
        """Let go of idle workers and kill what can be killed; never waits for a call that refuses."""

"""SyncServer: a Server for programs without an event loop. The same names, blocking.

The Server lives on an event loop in a thread of its own (anyio's blocking portal); each call goes
there and waits. Only what a caller of a blocking program needs is forwarded; `portal` is for the rest.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from scattersphere.errors import ClosedError
from scattersphere.execution.home import StaysHome, check_home
from scattersphere.server import Server

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from scattersphere.execution.reruns import Reused
    from scattersphere.execution.run import Run, TaskStatus
    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.events import Event
    from scattersphere.model.logs import LogLine
    from scattersphere.model.problem import Problem
    from scattersphere.model.states import RunState
    from scattersphere.registry.records import Bundle
    from scattersphere.task import RunnableTask


T = TypeVar("T")


class SyncRun(StaysHome):
    """A `Run` whose methods block. May be used from any thread.

    When its SyncServer has ended it can still be read; whatever needs the Server raises `ClosedError`.
    """

    def __init__(self, run: Run, server: SyncServer) -> None:
        self._run = run
        self._server = server
        self.home: int | None = server.home

    def __repr__(self) -> str:
        return repr(self._run)

    def _read(self, function: Callable[[], T]) -> T:
        """Read in the loop's thread, where nothing changes meanwhile; anywhere when nothing changes any more."""
        return function() if self._server.ended else self._server.call(function)

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
        """The run that started this one, or that it repeats."""
        return self._run.parent

    @property
    def reused(self) -> Mapping[str, Reused]:
        """See `Run.reused`."""
        return self._run.reused

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
        return self._run.reason

    @property
    def results(self) -> Mapping[str, Any]:
        """The results of the tasks that have succeeded by now."""
        return self._read(lambda: dict(self._run.results))

    @property
    def tasks(self) -> Mapping[str, TaskStatus]:
        """Where each task is by now."""
        return self._read(lambda: dict(self._run.tasks))

    def pause(self) -> None:
        """See `Run.pause`."""
        self._server.call(self._run.pause)

    def resume(self) -> None:
        """See `Run.resume`."""
        self._server.call(self._run.resume)

    def stop(self, reason: str | None = None) -> None:
        """See `Run.stop`."""
        self._server.call(self._run.stop, reason)

    def cancel(self, reason: str | None = None, *, grace: float | None = None) -> None:
        """See `Run.cancel`."""
        self._server.call(lambda: self._run.cancel(reason, grace=grace))

    def kill(self, reason: str | None = None) -> None:
        """See `Run.kill`."""
        self._server.call(self._run.kill, reason)

    def wait(self, timeout: float | None = None) -> SyncRun:
        """Block until the run has ended. Raises `TimeoutError`."""
        if not self._run.state.ended:
            self._server.call(self._run.wait, timeout)
        return self

    def events(self, since: int = 0) -> Iterator[Event]:
        """Yield the events, from the first one on, blocking for the next, until the run has ended."""
        stream = self._run.events(since)

        async def following() -> Event | None:
            return await anext(stream, None)

        while (event := self._server.call(following)) is not None:
            yield event

    def logs(self, task: str | None = None, **which: Any) -> list[LogLine]:
        """See `Run.logs`."""
        return self._read(lambda: self._run.logs(task, **which))

    def explain(self) -> str:
        """See `Run.explain`."""
        return self._read(self._run.explain)


class SyncServer(StaysHome):
    """A Server in a thread. Takes the arguments of `Server`; used with `with`."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._stack = ExitStack()
        self._server: Server | None = None
        self._portal: BlockingPortal | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<SyncServer: {'not running' if self._server is None else repr(self._server)}>"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            server = portal.call(self._make)
            stack.enter_context(portal.wrap_async_context_manager(server))
            self._portal, self._server = portal, server
            self._settle()
            self._stack = stack.pop_all()
        return self

    def _make(self) -> Server:
        return Server(**self._options)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        check_home(self.home)
        self._portal = self._server = None
        self._stack.__exit__(kind, exc, traceback)
        self._ended = True

    @property
    def ended(self) -> bool:
        """Whether it was left."""
        return self._ended

    @property
    def portal(self) -> BlockingPortal:
        """The door to the loop's thread, for what is not forwarded: `portal.call(function, *args)`."""
        if self._portal is None:
            raise self._not_running()
        return self._portal

    @property
    def server(self) -> Server:
        """The Server itself; touch it only through `portal`."""
        if self._server is None:
            raise self._not_running()
        return self._server

    def _not_running(self) -> ClosedError:
        if self.home is not None:
            return ClosedError("the SyncServer has ended: this must be done inside its `with` block")
        return ClosedError("the SyncServer is not running: use it inside `with SyncServer() as server`")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function, or await a coroutine function, in the loop's thread. Raises `ClosedError` at the end."""
        try:
            return self.portal.call(function, *args)
        except RuntimeError as exc:
            if self._portal is None and str(exc) == "This portal is not running":
                raise self._not_running() from None  # it has ended between the two
            raise

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.call(lambda: function(*args, **kwargs))

    def register(
        self, path: str | os.PathLike[str], *, name: str | None = None, watch: bool = True
    ) -> Bundle:
        """See `Server.register`."""
        bundle: Bundle = self._call(self.server.register, path, name=name, watch=watch)
        return bundle

    def register_tasks(self, name: str, classes: Iterable[type[RunnableTask]]) -> Bundle:
        """See `Server.register_tasks`."""
        bundle: Bundle = self._call(self.server.register_tasks, name, classes)
        return bundle

    def deregister(self, name: str, *, force: bool = False, require_idle: bool = False) -> None:
        """See `Server.deregister`."""
        self._call(self.server.deregister, name, force=force, require_idle=require_idle)

    def reload(self, name: str) -> Bundle:
        """See `Server.reload`."""
        bundle: Bundle = self._call(self.server.reload, name)
        return bundle

    def define(self, definition: JobDefinition, *, replace: bool = False) -> JobDefinition:
        """See `Server.define`."""
        resolved: JobDefinition = self._call(self.server.define, definition, replace=replace)
        return resolved

    def undefine(self, name: str) -> None:
        """See `Server.undefine`."""
        self._call(self.server.undefine, name)

    def load(self, path: str | os.PathLike[str], *, replace: bool = False) -> JobDefinition:
        """See `Server.load`."""
        definition: JobDefinition = self._call(self.server.load, path, replace=replace)
        return definition

    def load_all(self) -> list[JobDefinition]:
        """See `Server.load_all`."""
        definitions: list[JobDefinition] = self._call(self.server.load_all)
        return definitions

    def save(self, name: str, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """See `Server.save`."""
        self._call(self.server.save, name, path, overwrite=overwrite)

    def validate(self, definition: JobDefinition | str | bytes) -> list[Problem]:
        """See `Server.validate`."""
        problems: list[Problem] = self._call(self.server.validate, definition)
        return problems

    def start(self, job: str, params: Mapping[str, Any] | None = None, *, key: str | None = None) -> SyncRun:
        """See `Server.start`."""
        return SyncRun(self._call(self.server.start, job, params, key=key), self)

    def start_task(
        self, path: str, args: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> SyncRun:
        """See `Server.start_task`."""
        return SyncRun(self._call(self.server.start_task, path, args, key=key), self)

    def rerun(self, run_id: int, *, from_failed: bool = True, code: str = "pinned") -> SyncRun:
        """See `Server.rerun`."""
        return SyncRun(self._call(self.server.rerun, run_id, from_failed=from_failed, code=code), self)

    def run(self, run_id: int) -> SyncRun:
        """Return a live or kept run. Raises `NoSuchRunError`."""
        return SyncRun(self._call(self.server.runs.__getitem__, run_id), self)

    def drain(self) -> None:
        """See `Server.drain`."""
        self._call(self.server.drain)

    def stats(self) -> dict[str, int]:
        """See `Server.stats`."""
        counts: dict[str, int] = self._call(self.server.stats)
        return counts

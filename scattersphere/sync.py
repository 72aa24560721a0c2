"""SyncServer: a Server for programs without an event loop. The same names, blocking.

The Server lives on an event loop in a thread of its own (anyio's blocking portal); each call goes there and waits.
What a run has come to can still be read when the Server is closed.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
import warnings
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from scattersphere._lifecycle import ForkGuard
from scattersphere.errors import ClosedError, ConflictError
from scattersphere.server import Server
from scattersphere.syncrun import SyncRun, SyncRuns, following
from scattersphere.syncschedules import SyncSchedule, SyncSchedules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from anyio.abc import TaskStatus as Started
    from anyio.from_thread import BlockingPortal

    from scattersphere.model.definition import JobDefinition
    from scattersphere.model.events import Event
    from scattersphere.model.logs import LogLine
    from scattersphere.model.problem import Problem
    from scattersphere.registry.records import Bundle
    from scattersphere.registry.registry import TaskRegistry
    from scattersphere.remote.listener import Listening
    from scattersphere.task import RunnableTask

T = TypeVar("T")
_LOOK = 0.5
"""Seconds after which a waiting thread looks for a Ctrl-C that it has slept through."""


def _result(future: Future[T]) -> T:
    """Wait for a future.

    A signal that comes between CPython's last look for one and its going to sleep is not seen before something
    else wakes it (seen once in 200 interrupts of a busy script): so it never sleeps for long.
    """
    while not future.done():
        with suppress(TimeoutError):  # also one that the call itself raises: it is raised again below
            future.result(_LOOK)
    return future.result()


class _Raised:
    """SystemExit or the like, raised by a call: there it would end the loop, so it is carried over."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _carried(function: Callable[[], Any], cancelled: type[BaseException]) -> Any:
    try:
        value = function()
        return await value if inspect.isawaitable(value) else value
    except (Exception, cancelled):
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like: the caller's, who gets it
        return _Raised(error)


_entered: set[SyncServer] = set()
"""Those that were not closed yet."""


def _close_all() -> None:
    """Close what was forgotten, while the interpreter still can: a daemon thread would be gone without a word."""
    for server in list(_entered):
        if server.home == os.getpid():
            warnings.warn(
                f"{server!r} was not closed: use `with SyncServer() as server`, or `close()`; it is closed now",
                ResourceWarning,
                stacklevel=1,
            )
            with suppress(Exception):
                server.close()


try:
    # `atexit` is too late: no thread can be started there any more, and closing needs some.
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001 - as concurrent.futures does
except (AttributeError, RuntimeError):  # not in this Python; imported while the program ends
    atexit.register(_close_all)


class SyncServer(ForkGuard):
    """A Server in a thread. Takes the arguments of `Server`; used with `with`, from any thread but its own.

    Ctrl-C ends the call that waits, and leaves `with`, which cancels the runs; a second one, while they have their
    grace, kills them. One that was forgotten is closed when the program ends.
    """

    def __init__(self, **options: Any) -> None:
        self._server = Server(**options)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._hosting: Future[None] | None = None
        self._leave = anyio.Event()
        self._thread = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<SyncServer of {self.read(lambda: repr(self._server))}>"

    # ---- life

    def __enter__(self) -> Self:
        if self.home is not None:
            raise ClosedError("a SyncServer is entered once; make a new one")
        self._bind()
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="scattersphere"))
            self._hosting, _ = portal.start_task(self._host)
            self._portal = portal
            self._stack = stack.pop_all()
        _entered.add(self)
        return self

    async def _host(self, *, task_status: Started[None]) -> None:
        self._thread = threading.get_ident()
        self._cancelled = anyio.get_cancelled_exc_class()
        async with self._server:
            task_status.started()
            await self._leave.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all runs, give them the grace, kill the rest, let go of everything. May be repeated."""
        portal, hosting = self._portal, self._hosting
        if portal is None or hosting is None or self._closed:
            return
        self._closed = True
        try:
            with self._stack:
                try:
                    self._soon(portal, self._leave.set)
                    _result(hosting)
                except KeyboardInterrupt:
                    self._soon(portal, self._leave.set)
                    self._soon(portal, self._kill_all)
                    _result(hosting)
                    raise
                except CancelledError:
                    pass  # something has ended the loop from inside: the Server was closed with it
        finally:
            self._portal = None
            _entered.discard(self)

    @staticmethod
    def _soon(portal: BlockingPortal, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # its thread has gone
            portal.start_task_soon(function)

    def _kill_all(self) -> None:
        for run in self._server.runs.values():
            if not run.state.ended:
                run.kill("interrupted while the server was closing")

    @property
    def portal(self) -> BlockingPortal:
        """The door to the loop's thread, for what is not here: `portal.call(function, *args)`.

        Raises `ClosedError`.
        """
        if self._portal is None or self._closed:
            raise self._not_running()
        return self._portal

    @property
    def server(self) -> Server:
        """The Server itself; touch it only through `portal`."""
        return self._server

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call or await `function` on the loop's thread, and wait; an interrupt cancels it there.

        What it raises is raised here, SystemExit too, and harms nothing there.
        """
        return self._ask(self.portal, lambda: function(*args, **kwargs))

    def follow(self, function: Callable[[], Any]) -> Any:
        """Do as `call`, also while the Server is closing. Raises `ClosedError` when the thread has gone."""
        portal = self._portal
        if portal is None:
            raise self._not_running()
        return self._ask(portal, function)

    def read(self, function: Callable[[], T]) -> T:
        """Call `function` on the loop's thread, or here when there is none any more: nothing moves then."""
        try:
            value: T = self.follow(function)
        except ClosedError:
            return function()
        return value

    def _not_running(self) -> ClosedError:
        if self.home is not None:
            return ClosedError("the SyncServer has ended: this must be done inside its `with` block")
        return ClosedError("the SyncServer is not running: use it inside `with SyncServer() as server`")

    def _ask(self, portal: BlockingPortal, function: Callable[[], Any]) -> Any:
        if threading.get_ident() == self._thread:
            raise ConflictError("on the SyncServer's own thread nothing may block: use its `server` there")
        try:
            future: Future[Any] = portal.start_task_soon(_carried, function, self._cancelled)
        except RuntimeError as error:
            raise self._not_running() from error
        try:
            value = _result(future)
        except CancelledError as error:
            raise self._not_running() from error
        except BaseException:
            future.cancel()
            raise
        if isinstance(value, _Raised):
            raise value.error
        return value

    # ---- code

    @property
    def registry(self) -> TaskRegistry:
        """See `Server.registry`. Its views may be read from any thread; they may change meanwhile."""
        return self._server.registry

    def register(
        self, path: str | os.PathLike[str], *, name: str | None = None, watch: bool = True
    ) -> Bundle:
        """See `Server.register`."""
        bundle: Bundle = self.call(self._server.register, path, name=name, watch=watch)
        return bundle

    def register_tasks(self, name: str, classes: Iterable[type[RunnableTask]]) -> Bundle:
        """See `Server.register_tasks`."""
        bundle: Bundle = self.call(self._server.register_tasks, name, classes)
        return bundle

    def deregister(self, name: str, *, force: bool = False, require_idle: bool = False) -> None:
        """See `Server.deregister`."""
        self.call(self._server.deregister, name, force=force, require_idle=require_idle)

    def reload(self, name: str) -> Bundle:
        """See `Server.reload`."""
        bundle: Bundle = self.call(self._server.reload, name)
        return bundle

    def bundle_logs(self, tail: int | None = None) -> list[LogLine]:
        """See `Server.bundle_logs`."""
        return self.read(lambda: self._server.bundle_logs(tail))

    # ---- jobs

    @property
    def definitions(self) -> Mapping[str, JobDefinition]:
        """The defined jobs, by name, as they are now."""
        return self.read(lambda: dict(self._server.definitions))

    @property
    def problems(self) -> Mapping[Path, str]:
        """See `Server.problems`, as they are now."""
        return self.read(lambda: dict(self._server.problems))

    @property
    def unresolved(self) -> Mapping[str, tuple[Problem, ...]]:
        """See `Server.unresolved`, as they are now."""
        return self.read(lambda: self._server.unresolved)

    def define(self, definition: JobDefinition, *, replace: bool = False) -> JobDefinition:
        """See `Server.define`."""
        resolved: JobDefinition = self.call(self._server.define, definition, replace=replace)
        return resolved

    def undefine(self, name: str) -> None:
        """See `Server.undefine`."""
        self.call(self._server.undefine, name)

    def load(self, path: str | os.PathLike[str], *, replace: bool = False) -> JobDefinition:
        """See `Server.load`."""
        definition: JobDefinition = self.call(self._server.load, path, replace=replace)
        return definition

    def load_all(self) -> list[JobDefinition]:
        """See `Server.load_all`."""
        definitions: list[JobDefinition] = self.call(self._server.load_all)
        return definitions

    def save(self, name: str, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """See `Server.save`."""
        self.call(self._server.save, name, path, overwrite=overwrite)

    def validate(self, definition: JobDefinition | str | bytes) -> list[Problem]:
        """See `Server.validate`."""
        problems: list[Problem] = self.call(self._server.validate, definition)
        return problems

    # ---- schedules

    @property
    def schedules(self) -> SyncSchedules:
        """See `Server.schedules`."""
        return SyncSchedules(self, self._server.schedules)

    def schedule(self, job: str, name: str, **fields: Any) -> SyncSchedule:
        """See `Server.schedule`."""
        return SyncSchedule(self.call(self._server.schedule, job, name, **fields), self)

    def unschedule(self, job: str, name: str) -> None:
        """See `Server.unschedule`."""
        self.call(self._server.unschedule, job, name)

    # ---- runs

    @property
    def runs(self) -> SyncRuns:
        """The live runs and the kept ended ones, by id. Raises `NoSuchRunError`."""
        return SyncRuns(self, self._server.runs)

    @property
    def stuck(self) -> dict[str, str]:
        """See `Server.stuck`."""
        return self.read(lambda: self._server.stuck)

    def run(self, run_id: int) -> SyncRun:
        """Return a live or kept run. Raises `NoSuchRunError`."""
        return self.runs[run_id]

    def start(self, job: str, params: Mapping[str, Any] | None = None, *, key: str | None = None) -> SyncRun:
        """See `Server.start`."""
        return SyncRun(self.call(self._server.start, job, params, key=key), self)

    def start_task(
        self, path: str, args: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> SyncRun:
        """See `Server.start_task`."""
        return SyncRun(self.call(self._server.start_task, path, args, key=key), self)

    def rerun(self, run_id: int, *, from_failed: bool = True, code: str = "pinned") -> SyncRun:
        """See `Server.rerun`."""
        return SyncRun(self.call(self._server.rerun, run_id, from_failed=from_failed, code=code), self)

    def drain(self) -> None:
        """See `Server.drain`."""
        self.call(self._server.drain)

    # ---- what happens

    def events(self, since: int = 0) -> Iterator[Event]:
        """See `Server.events`: blocks for the next one, and ends when the Server is closed."""
        return following(self, lambda: self._server.events(since))

    @property
    def last_event(self) -> int:
        """See `Server.last_event`."""
        return self.read(lambda: self._server.last_event)

    def logs(
        self,
        *,
        run: int | None = None,
        job: str | Callable[[str], bool] | None = None,
        level: int = 0,
        tail: int | None = None,
    ) -> list[LogLine]:
        """See `Server.logs`."""
        return self.read(lambda: self._server.logs(run=run, job=job, level=level, tail=tail))

    def stats(self) -> dict[str, float]:
        """See `Server.stats`."""
        return self.read(self._server.stats)

    def listen(self, **options: Any) -> Listening:
        """See `Server.listen`: returns when sessions can come in. Closing the Server closes it."""

        async def opened() -> Listening:
            return await self._server.listen(**options)

        listening: Listening = self.call(opened)
        return listening

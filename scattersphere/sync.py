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
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, ParamSpec, Self, TypeVar, Unpack

import anyio
from anyio.from_thread import start_blocking_portal

from scattersphere._blocking import Value, blocking, calling, reading, same_as, streaming
from scattersphere._lifecycle import ForkGuard
from scattersphere.errors import ClosedError, ConflictError, ScattersphereError
from scattersphere.model.arguments import check_seconds
from scattersphere.server import Server
from scattersphere.syncrun import SyncHistory, SyncRun, SyncRuns
from scattersphere.syncschedules import SyncSchedule, SyncSchedules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from anyio.abc import TaskStatus as Started
    from anyio.from_thread import BlockingPortal

    from scattersphere.abc import Trigger
    from scattersphere.engine.run import Run
    from scattersphere.functions import TaskFunction
    from scattersphere.model.builder import JobBuilder
    from scattersphere.model.definition import JobDefinition
    from scattersphere.options import ServerKeywords
    from scattersphere.remote.listener import Listening
    from scattersphere.remote.listening import ListenKeywords
    from scattersphere.runnable import RunnableTask

P = ParamSpec("P")
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


async def _carried(function: Callable[[], object], cancelled: type[BaseException]) -> Any:
    try:
        value = function()
        return await value if inspect.isawaitable(value) else value
    except (Exception, cancelled):
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like: the caller's, who gets it
        return _Raised(error)


def _of_server(get: Callable[[Server], T], *, at_once: bool = False) -> Value[Server, T]:
    return Value(get, at_once=at_once)


def starting(
    method: Callable[Concatenate[Server, P], Awaitable[Run]],
) -> Callable[Concatenate[Any, P], SyncRun]:
    """Return a method that starts a run as `method` of the Server does, and gives its blocking twin."""

    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> SyncRun:
        return SyncRun(self.call(method, self.server, *args, **kwargs), self)

    return same_as(method, twin)


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

    _original_class: ClassVar[type] = Server

    def __init__(self, **options: Unpack[ServerKeywords]) -> None:
        self._original = Server(**options)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._hosting: Future[None] | None = None
        self._leave = anyio.Event()
        self._thread = 0
        self._closed = False
        self._cancel = False
        self._finish: float | None = None

    @property
    def _door(self) -> SyncServer:
        return self

    def __repr__(self) -> str:
        return f"<SyncServer of {self.read(lambda: repr(self._original))}>"

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

    if not TYPE_CHECKING:  # a type checker says so itself

        async def __aenter__(self) -> None:
            raise TypeError(
                "write `with SyncServer(...)`; where there is an event loop `async with Server(...)`"
            )

        async def __aexit__(self, *_: object) -> None:
            """Nothing is left that was not entered; without it Python's own words come first."""

    async def _host(self, *, task_status: Started[None]) -> None:
        self._thread = threading.get_ident()
        self._cancelled = anyio.get_cancelled_exc_class()
        async with self._original:
            task_status.started()
            await self._leave.wait()
            await self._original.aclose(cancel=self._cancel, finish=self._finish)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, *, cancel: bool = False, finish: float | None = None) -> None:
        """Let go of everything, as `Server.aclose` does. May be repeated; what the first call says counts.

        Raises `ArgumentError` where `finish` is no number of seconds.
        """
        check_seconds(finish, "finish", optional=True)
        portal, hosting = self._portal, self._hosting
        if portal is None or hosting is None or self._closed:
            return
        self._closed, self._cancel, self._finish = True, cancel, finish
        try:
            with self._stack:
                try:
                    self._soon(portal, self._leave.set)
                    _result(hosting)
                except KeyboardInterrupt:
                    self._soon(portal, self._leave.set)
                    self._soon(portal, self._original.hurry)
                    _result(hosting)
                    raise
                except CancelledError:
                    pass  # something has ended the loop from inside: the Server was closed with it
        finally:
            self._portal = None
            _entered.discard(self)

    def hurry(self) -> None:
        """See `Server.hurry`: for another thread than the one that waits in `close`. Does nothing when it is closed."""
        with suppress(ClosedError):
            self.follow(self._original.hurry)

    @staticmethod
    def _soon(portal: BlockingPortal, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # its thread has gone
            portal.start_task_soon(function)

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
        return self._original

    def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Call or await `function` on the loop's thread, and wait; an interrupt cancels it there.

        What it raises is raised here, SystemExit too, and harms nothing there.
        """
        return self._ask(self.portal, lambda: function(*args, **kwargs))

    def follow(self, function: Callable[[], object]) -> Any:
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

    def _ask(self, portal: BlockingPortal, function: Callable[[], object]) -> Any:
        if threading.get_ident() == self._thread:
            raise ConflictError("on the SyncServer's own thread nothing may block: use its `server` there")
        try:
            future: Future[object] = portal.start_task_soon(_carried, function, self._cancelled)
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

    # ---- what a Server does

    options: Final = _of_server(lambda server: server.options, at_once=True)
    registry: Final = _of_server(lambda server: server.registry, at_once=True)
    register: Final = blocking(Server.register)
    register_tasks: Final = calling(Server.register_tasks)
    deregister: Final = blocking(Server.deregister)
    reload: Final = blocking(Server.reload)
    bundle_logs: Final = reading(Server.bundle_logs)

    definitions: Final = _of_server(lambda server: dict(server.definitions))

    @property
    def is_open(self) -> bool:
        """Whether it takes work: it was entered, and is neither draining nor closed."""
        try:
            return bool(self.call(lambda: self.server.is_open))
        except ScattersphereError:
            return False

    problems: Final = _of_server(lambda server: dict(server.problems))
    unresolved: Final = _of_server(lambda server: dict(server.unresolved))
    define: Final = blocking(Server.adefine)
    undefine: Final = calling(Server.undefine)
    load: Final = blocking(Server.load)
    load_all: Final = blocking(Server.load_all)
    save: Final = calling(Server.save)
    validate: Final = blocking(Server.avalidate)

    unschedule: Final = calling(Server.unschedule)

    def schedule(
        self, job: str, name: str, *, trigger: Trigger | None = None, **fields: object
    ) -> SyncSchedule:
        """See `Server.schedule`."""
        made = self.call(self._original.schedule, job, name, trigger=trigger, **fields)
        return SyncSchedule(made, self)

    @property
    def schedules(self) -> SyncSchedules:
        """See `Server.schedules`."""
        return SyncSchedules(self, self._original.schedules)

    stuck: Final = _of_server(lambda server: server.stuck)
    start: Final = starting(Server.start)
    start_task: Final = starting(Server.start_task)
    rerun: Final = starting(Server.rerun)
    committed: Final = blocking(Server.committed)
    drain: Final = blocking(Server.drain)

    events: Final = streaming(Server.events)
    life: Final = _of_server(lambda server: server.life)
    journal_id: Final = _of_server(lambda server: server.journal_id)
    last_event: Final = _of_server(lambda server: server.last_event)
    logs: Final = reading(Server.logs)
    stats: Final = reading(Server.stats)

    def run(
        self,
        job: str | JobDefinition | JobBuilder,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user: str = "",
        timeout: float | None = None,
    ) -> SyncRun:
        """See `Server.run`."""
        return self.start(job, params, key=key, user=user).wait(timeout).raise_if_failed()

    def run_task(
        self,
        path: str | type[RunnableTask] | TaskFunction[..., Any],
        args: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        user: str = "",
        timeout: float | None = None,
    ) -> SyncRun:
        """See `Server.run_task`."""
        return self.start_task(path, args, key=key, user=user).wait(timeout).raise_if_failed()

    @property
    def runs(self) -> SyncRuns:
        """The live runs and the kept ended ones, by id. Raises `NoSuchRunError`."""
        return SyncRuns(self, self._original.runs)

    @property
    def history(self) -> SyncHistory:
        """See `Server.history`."""
        return SyncHistory(self._original.history, self)

    def listen(self, **options: Unpack[ListenKeywords]) -> Listening:
        """See `Server.listen`: returns when sessions can come in. Closing the Server closes it."""

        async def opened() -> Listening:
            return await self._original.listen(**options)

        listening: Listening = self.call(opened)
        return listening

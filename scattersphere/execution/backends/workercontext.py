"""An attempt inside a worker process: what its body gets as `TaskContext`, and how it is run."""

from __future__ import annotations

import sys
import threading
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import anyio
import anyio.to_thread

from scattersphere.errors import TaskCancelled
from scattersphere.execution.attempt import CHECK_ON_LOOP
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.backends.threads import failed
from scattersphere.execution.backends.wire import Kind, dumps
from scattersphere.execution.body import run_in_thread, run_on_loop
from scattersphere.execution.logs.capture import end_prints
from scattersphere.execution.logs.failures import shorten
from scattersphere.execution.logs.frames import user_place
from scattersphere.execution.logs.runlog import LINE_LIMIT, task_logger
from scattersphere.execution.loops import current_loop, line_of
from scattersphere.execution.progress import checked
from scattersphere.model.definition import RetryPolicy
from scattersphere.runnable import RunnableTask, TaskContext

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from scattersphere.execution.attempt import Attempt
    from scattersphere.execution.backends.wire import CallMessage
    from scattersphere.execution.backends.worker import Worker
    from scattersphere.execution.loops import Loop


class RemoteLog:
    """Stands for the log of the run, which lives in the engine."""

    def __init__(self, worker: Worker, number: int, level: int, *, takes_prints: bool) -> None:
        self._worker = worker
        self._number = number
        self.level = level
        self.takes_prints = takes_prints

    def append(
        self,
        level: int,
        message: str,
        *,
        task: str = "",
        index: int | None = None,
        attempt: int = 0,
        logger: str = "",
        ago: float = 0.0,
    ) -> None:
        """Send a line. To which attempt it belongs the engine knows by the number of the call."""
        del task, index, attempt
        line = (self._number, level, shorten(message, LINE_LIMIT), logger, monotonic() - ago)
        self._worker.replies.send(Kind.LOG, dumps(line))


class StandInPlan:
    """What `body` asks of a planned task, for an attempt that has no run beside it."""

    __slots__ = (
        "_max_attempts",
        "_retry_on",
        "cls",
        "definition",
        "fixed",
        "hooks",
        "mapped",
        "task_class",
        "varying",
    )

    def __init__(
        self,
        cls: type[RunnableTask],
        arguments: Mapping[str, Any],
        hooks: Collection[str],
        *,
        max_attempts: int = 1,
        retry_on: tuple[str, ...] = (),
    ) -> None:
        self.cls: type[RunnableTask] = cls
        self.fixed: Mapping[str, Any] = arguments
        self.varying: bool = False
        self.mapped: bool = False
        self.task_class: StandInPlan = self
        self.definition: StandInPlan = self
        self.hooks: Collection[str] = hooks
        self._max_attempts = max_attempts
        self._retry_on = retry_on

    @property
    def retry(self) -> RetryPolicy:
        """The policy, made when a hook asks for it."""
        return RetryPolicy(max_attempts=self._max_attempts, retry_on=self._retry_on)


class WorkerAttempt(TaskContext):
    """The `TaskContext` of a body in a worker process, and its cancellation."""

    def __init__(
        self,
        worker: Worker,
        order: CallMessage,
        cls: type[RunnableTask],
        arguments: dict[str, Any],
        params: dict[str, Any],
    ) -> None:
        self.order = order
        self.planned: StandInPlan = StandInPlan(
            cls, arguments, order.hooks, max_attempts=order.max_attempts, retry_on=order.retry_on
        )
        self.asked: str | None = None
        self.run_log: RemoteLog = RemoteLog(
            worker, order.number, order.level, takes_prints=order.captures_print
        )
        self._worker = worker
        self._params = params
        self._results: dict[str, Any] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._thread = threading.get_ident()
        self._loop: Loop | None = None
        self._scope: anyio.CancelScope | None = None
        self._coroutine: Any = None

    # -- what the body sees

    @property
    def run_id(self) -> int:
        return self.order.run_id

    @property
    def job(self) -> str:
        return self.order.job

    @property
    def task(self) -> str:
        return self.order.task

    @property
    def index(self) -> int | None:
        return self.order.instance

    @property
    def attempt(self) -> int:
        return self.order.attempt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:
            self._log = task_logger(self)
        return self._log

    @property
    def params(self) -> Mapping[str, Any]:
        return MappingProxyType(self._params)

    @property
    def results(self) -> Mapping[str, Any]:
        """Fetched when first asked for: they may be large, and not every body wants them."""
        if self._results is None:
            word, content = self._worker.ask(Kind.RESULTS)
            if word == "error":
                raise TypeError(content)
            self._results = content
        return MappingProxyType(self._results or {})

    @property
    def idempotency_key(self) -> str:
        return self.order.idempotency_key

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        report = checked(done, total, message)
        self._worker.replies.send(Kind.PROGRESS, dumps((self.order.number, *report)))

    def check(self) -> None:
        if self.order.is_async and threading.get_ident() == self._thread:
            raise RuntimeError(CHECK_ON_LOOP)
        if self.asked is None:
            self._ask()
        if self.asked is not None:
            raise TaskCancelled(f"{self.order.name}: {self.asked}")

    async def checkpoint(self) -> None:
        await anyio.lowlevel.checkpoint()
        # In a thread: while the run is paused the answer stays out, and the body's other tasks go on.
        await anyio.to_thread.run_sync(self._ask, abandon_on_cancel=False)
        if self.asked is not None and self._scope is not None:
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()

    async def start(self, job: str, params: Mapping[str, Any] | None = None) -> NoReturn:  # noqa: ARG002 - nothing starts
        raise RuntimeError(
            f"{self.order.name}: a body in a worker process cannot start a run of {job!r}; "
            'give the task the backend "loop" for that'
        )

    def _ask(self) -> None:
        word, _ = self._worker.ask(Kind.CHECK)
        if word == "cancelled":
            self.asked = self.asked or "cancel"

    # -- what the worker does with it

    def cancel(self) -> None:
        """Ask the body to end; called from the control thread, perhaps again and again."""
        self.asked = "cancel"
        if self._loop is not None and self._scope is not None:
            self._loop.soon(self._scope.cancel)

    def where(self) -> str:
        """Say which line is executing."""
        place = user_place(sys._current_frames().get(self._thread))  # noqa: SLF001 - documented
        if place.startswith("<string>:1 in <module>"):  # the command that started this process
            place = ""
        return (line_of(self._coroutine) if self._coroutine is not None else "") or place

    def run_body(self) -> Outcome:
        """Carry out the body with its hooks. Never raises."""
        attempt = cast("Attempt", self)  # `body` uses no more of it than there is here
        if not self.order.is_async:
            return run_in_thread(attempt, self._wait_for)
        outcome = self._run_loop(lambda: run_on_loop(attempt))
        end_prints(self)
        return outcome

    def _wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """Await what a body that is no coroutine has returned."""
        outcome = self._run_loop(lambda: awaitable)
        if outcome.ending is Ending.CANCELLED:
            raise TaskCancelled(f"{self.order.name}: {self.asked}")
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def _run_loop(self, start: Callable[[], Awaitable[Any]]) -> Outcome:
        """Await something in an event loop of this process. Never raises."""
        try:
            return anyio.run(self._run_async, start, backend=self.order.library)
        except BaseException as exc:  # noqa: BLE001 - the body may have broken the loop itself
            return failed(exc)
        finally:
            self._loop = self._scope = None

    async def _run_async(self, start: Callable[[], Awaitable[Any]]) -> Outcome:
        with anyio.CancelScope() as self._scope:
            self._loop = current_loop()
            if self.asked is not None:  # it came before there was a scope
                self._scope.cancel()
            self._coroutine = start()
            try:
                return Outcome(Ending.VALUE, await self._coroutine)
            except anyio.get_cancelled_exc_class() as exc:
                if self.asked is None:  # its own, and so a failure
                    return failed(exc)
                raise
            except BaseException as exc:  # noqa: BLE001 - promise 7
                return failed(exc)
            finally:
                self._coroutine = None
        return Outcome(Ending.CANCELLED)

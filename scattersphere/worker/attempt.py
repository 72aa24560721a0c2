"""`run_call`: carries out one call in a worker, whatever transport has brought it there; what its body gets."""

from __future__ import annotations

import contextvars
import functools
import importlib
import os
import pickle
import sys
import threading
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import anyio.lowlevel
import anyio.to_thread

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.errors import TaskCancelled
from scattersphere.logs.capture import capture_print, end_prints
from scattersphere.logs.failures import shorten
from scattersphere.logs.frames import line_of, user_place
from scattersphere.logs.runlog import LINE_LIMIT, current_attempt, task_logger
from scattersphere.model.definition import RetryPolicy
from scattersphere.runnable import TaskContext
from scattersphere.worker.around import Surroundings
from scattersphere.worker.body import CHECK_ON_LOOP, failed, run_in_thread, run_on_loop
from scattersphere.worker.callbacks import Callbacks, LoopCalls, Steps, call_in_thread
from scattersphere.worker.messages import Reply, checked

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from types import FrameType

    from scattersphere.runnable import RunnableTask
    from scattersphere.worker.channel import Channel
    from scattersphere.worker.messages import CallMessage


def run_call(message: CallMessage, channel: Channel) -> Reply:
    """Carry out a call: instance, hooks, body, `clean_up`, in the current thread and a context of its own.

    What the body says goes through `channel` while it executes, and `channel.begun` gets what cancels it before
    anything of it does. Async bodies get an event loop. Never raises: whatever a task's code does is in the reply, a
    class that cannot be imported and a result that cannot be pickled too.
    """
    return contextvars.copy_context().run(_run, message, channel)


def _run(message: CallMessage, channel: Channel) -> Reply:
    if message.environment is not None:
        os.environ.update(message.environment)
    surroundings = Surroundings.of(message.around, message.carrier) if message.around else None
    try:
        attempt = WorkerAttempt(message, channel, *_unpack(message))
    except BaseException as exc:  # noqa: BLE001 - the bundle's import, or an argument's class, may do anything
        return Reply.of_error(exc)
    current_attempt.set(attempt)
    channel.begun(attempt)
    with ExitStack() as stack:
        if message.captures_print:
            stack.enter_context(capture_print())
        return Reply.of(message.name, attempt.run_body(surroundings), message.file)


def _unpack(message: CallMessage) -> tuple[type, dict[str, object], dict[str, object]]:
    module = importlib.import_module(message.module)
    cls: type = functools.reduce(getattr, message.qualname.split("."), module)  # type: ignore[assignment]
    try:
        arguments, params = pickle.loads(message.arguments)  # noqa: S301 - from the engine that this worker serves
    except Exception as exc:
        raise TypeError(
            f"{message.name}: its arguments cannot be read in a worker process: {exc}; "
            'pass plain data, or use backend "thread"'
        ) from exc
    return cls, arguments, params


class RemoteLog:
    """Stands for the log of the run, which lives in the engine."""

    def __init__(self, channel: Channel, level: int, *, takes_prints: bool) -> None:
        self._channel = channel
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
        """Send a line. To which attempt it belongs the engine knows by the call."""
        del task, index, attempt
        self._channel.log(level, shorten(message, LINE_LIMIT), logger, ago)


class WorkerAttempt(TaskContext):
    """The `TaskContext` of a body in a worker process, and its cancellation."""

    def __init__(
        self,
        message: CallMessage,
        channel: Channel,
        cls: type[RunnableTask],
        arguments: Mapping[str, object],
        params: Mapping[str, object],
    ) -> None:
        self._message = message
        self._channel = channel
        self._cls = cls
        self._arguments = arguments
        self._params = params
        self.cancel_reason: str | None = None
        self.hooks: Collection[str] = message.hooks
        self.run_log: RemoteLog = RemoteLog(channel, message.level, takes_prints=message.captures_print)
        self._results: Mapping[str, object] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._thread = threading.get_ident()
        self._door: Callable[[Callable[[], object]], object] | None = None
        """Has a callback called on the loop on which the body is awaited."""
        self._scope: anyio.CancelScope | None = None
        self._coroutine: object = None
        self._calls = LoopCalls()
        self._callbacks = Callbacks(self._start_calls, channel.held)
        self._context = contextvars.copy_context()

    # -- what the body sees

    @property
    def run_id(self) -> int:
        return self._message.run_id

    @property
    def job(self) -> str:
        return self._message.job

    @property
    def task(self) -> str:
        return self._message.task

    @property
    def index(self) -> int | None:
        return self._message.instance

    @property
    def attempt(self) -> int:
        return self._message.attempt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:
            self._log = task_logger(self, self.run_log)
        return self._log

    @property
    def params(self) -> Mapping[str, object]:
        return MappingProxyType(self._params)

    @property
    def results(self) -> Mapping[str, Any]:
        """Fetched when first asked for: they may be large, and not every body wants them."""
        if self._results is None:
            self._results = self._channel.results()
        return MappingProxyType(self._results)

    @property
    def idempotency_key(self) -> str:
        return self._message.idempotency_key

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self._channel.progress(*checked(done, total, message))

    def check(self) -> None:
        if self._message.is_async and threading.get_ident() == self._thread:
            raise RuntimeError(CHECK_ON_LOOP)
        if self.cancel_reason is None:
            self._ask()
        if self.cancel_reason is not None:
            raise TaskCancelled(f"{self._message.name}: {self.cancel_reason}")

    async def checkpoint(self) -> None:
        await anyio.lowlevel.checkpoint()
        # In a thread: while the run is paused the answer stays out, and the body's other tasks go on.
        await anyio.to_thread.run_sync(self._ask, abandon_on_cancel=False)
        if self.cancel_reason is not None and self._scope is not None:
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()

    async def start(self, job: str, params: Mapping[str, object] | None = None) -> NoReturn:  # noqa: ARG002 - nothing starts
        raise RuntimeError(
            f"{self._message.name}: a body in a worker process cannot start a run of {job!r}; "
            'give the task the backend "loop" for that'
        )

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self._callbacks.on_cancel(callback)

    def on_pause(self, hold: Callable[[], object], resume: Callable[[], object]) -> None:
        self._callbacks.on_pause(hold, resume)

    def _start_calls(self, steps: Steps) -> None:
        """Have callbacks called: on the loop of an async body, as long as that is there, else in a thread."""
        name = f"scattersphere-callbacks {self._message.name}"
        if not self._message.is_async:
            call_in_thread(steps, self._context, self.log, name)
        elif (door := self._door) is not None:
            door(lambda: self._calls.call(steps, self._context, self.log, name))

    def _ask(self) -> None:
        if self._channel.check() is not None:
            self.cancel_reason = self.cancel_reason or "cancel"

    # -- what carrying it out asks of it

    @property
    def retry(self) -> RetryPolicy:
        """The policy, made when a hook asks for it."""
        return RetryPolicy(max_attempts=self._message.max_attempts, retry_on=self._message.retry_on)

    def make(self) -> RunnableTask:
        """Make the instance."""
        return self._cls(**self._arguments)

    # -- what the engine asks of it (`CallControl`)

    def cancel(self) -> None:
        """Ask the body to end; called from the control thread, perhaps again and again."""
        self.cancel_reason = "cancel"
        door, scope = self._door, self._scope
        self._callbacks.cancel()
        if door is not None and scope is not None:
            door(scope.cancel)

    def pause(self) -> None:
        """Have what was registered with `on_pause` held."""
        self._callbacks.pause()

    def resume(self) -> None:
        """Have it go on."""
        self._callbacks.resume()

    def where(self) -> str:
        """Say which line is executing."""
        place = user_place(_out_of_channel(sys._current_frames().get(self._thread)))  # noqa: SLF001 - documented
        if place.startswith("<string>:1 in <module>"):  # the command that started this process
            place = ""
        return (line_of(self._coroutine) if self._coroutine is not None else "") or place

    # -- carrying it out

    def run_body(self, surroundings: Surroundings | None = None) -> Outcome:
        """Carry out the body with its hooks. Never raises."""
        self._context = contextvars.copy_context()
        try:
            return self._run_body(surroundings)
        finally:
            self._callbacks.close()

    def _run_body(self, surroundings: Surroundings | None) -> Outcome:
        if not self._message.is_async:
            return run_in_thread(self, self._wait_for, surroundings)
        outcome = self._run_loop(lambda: run_on_loop(self, surroundings))
        end_prints(self)
        return outcome

    def _wait_for(self, awaitable: Awaitable[object]) -> object:
        """Await what a body that is no coroutine has returned."""
        outcome = self._run_loop(lambda: awaitable)
        if outcome.kind is OutcomeKind.CANCELLED:
            raise TaskCancelled(f"{self._message.name}: {self.cancel_reason}")
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def _run_loop(self, start: Callable[[], Awaitable[object]]) -> Outcome:
        """Await something in an event loop of this process. Never raises."""
        try:
            return anyio.run(self._run_async, start, backend=self._message.library)
        except BaseException as exc:  # noqa: BLE001 - the body may have broken the loop itself
            return failed(exc)
        finally:
            self._door = self._scope = None

    async def _run_async(self, start: Callable[[], Awaitable[object]]) -> Outcome:
        outcome = await self._await(start)
        with anyio.CancelScope(shield=True):
            await self._calls.wait()  # their loop ends with the body
        return outcome

    async def _await(self, start: Callable[[], Awaitable[object]]) -> Outcome:
        from scattersphere._owntask import thread_door  # noqa: PLC0415 - asyncio, of which plain bodies need nothing

        with anyio.CancelScope() as self._scope:
            self._door = thread_door()
            if self.cancel_reason is not None:  # it came before there was a scope
                self._scope.cancel()
            self._coroutine = start()
            try:
                return Outcome(OutcomeKind.VALUE, await self._coroutine)
            except anyio.get_cancelled_exc_class() as exc:
                if self.cancel_reason is None:  # its own, and so a failure
                    return failed(exc)
                raise
            except BaseException as exc:  # noqa: BLE001 - promise 7
                return failed(exc)
            finally:
                self._coroutine = None
        return Outcome(OutcomeKind.CANCELLED)


_SPEAKING = frozenset({"progress", "results", "_ask", "append"})
"""The functions of this file that stand between a body and its channel."""


def _out_of_channel(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is the body's: where it is speaking, what is above that is a transport's code."""
    found = each = frame
    while each is not None:
        if each.f_code.co_filename == __file__ and each.f_code.co_name in _SPEAKING:
            found = each.f_back
        each = each.f_back
    return found

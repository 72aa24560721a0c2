"""Running a body in the thread of a backend, while the loop awaits what the body has returned to be awaited."""

from __future__ import annotations

import concurrent.futures
import contextvars
from typing import TYPE_CHECKING, Protocol

import anyio

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.errors import TaskCancelled
from scattersphere.worker.body import BodyContext, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from scattersphere.engine.loops import Loop
    from scattersphere.worker.around import Surroundings


class InvokedAttempt(BodyContext, Protocol):
    """What an invocation asks of an attempt."""

    awaiting: Invocation | None

    @property
    def label(self) -> str:
        """Its name for people."""
        ...

    def begins(self) -> bool:
        """Take the first step: False if it may not be taken any more."""
        ...


class Invocation:
    """Runs a body in the thread of whoever calls it (`Call.invoke`), and has the loop await what is to be awaited."""

    def __init__(self, attempt: InvokedAttempt, loop: Loop, surroundings: Surroundings | None = None) -> None:
        self._attempt = attempt
        self._loop = loop
        self._surroundings = surroundings
        self._handle: object = None
        """What the loop awaits at this moment."""

    def __call__(self) -> Outcome:
        """Run it to its end, unless it may not begin any more."""
        if not self._attempt.begins():
            return Outcome(OutcomeKind.CANCELLED)
        return run_in_thread(self._attempt, self._wait_for, self._surroundings)

    def _wait_for(self, awaitable: Awaitable[object]) -> object:
        """Wait, in a thread, for what the loop awaits, in a copy of this thread's context."""
        answer: concurrent.futures.Future[object] = concurrent.futures.Future()
        context = contextvars.copy_context()
        self._attempt.awaiting = self
        try:
            self._loop.soon(context.run, self._start, awaitable, answer)
            return answer.result()
        finally:
            self._attempt.awaiting = None

    def _start(self, awaitable: Awaitable[object], answer: concurrent.futures.Future[object]) -> None:
        self._handle = self._loop.start(self._await(awaitable, answer), self._attempt.label)
        if self._attempt.cancel_reason is not None:
            self.interrupt()

    async def _await(self, awaitable: Awaitable[object], answer: concurrent.futures.Future[object]) -> None:
        """Await something, and say to its thread what it came to. Never raises, like all that the loop starts."""
        try:
            value = await awaitable
        except anyio.get_cancelled_exc_class():
            asked = self._attempt.cancel_reason
            words = "cancelled itself" if asked is None else f"{self._attempt.label}: {asked}"
            answer.set_exception(RuntimeError(words) if asked is None else TaskCancelled(words))
        except BaseException as exc:  # noqa: BLE001 - promise 7: it is raised in the body's thread
            answer.set_exception(exc)
        else:
            answer.set_result(value)
        finally:
            self._handle = None

    def interrupt(self) -> None:
        """Cancel what the loop awaits, if it awaits anything. On the loop's thread."""
        if self._handle is not None:
            self._loop.cancel(self._handle)

    def where(self) -> str:
        """Say at which line that stands."""
        return "" if self._handle is None else self._loop.where(self._handle)

"""Carrying out one attempt: make the instance, run it, call its hooks, say how it ended.

What a body or a hook returns may be something that is yet to be awaited: a `def run` that returns a coroutine, by a
decorator or without one. It is awaited where async bodies run.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import inspect
from typing import TYPE_CHECKING, Any

import anyio

from scattersphere.errors import NonRetryableError, TaskCancelled
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.logs.capture import end_prints
from scattersphere.execution.logs.failures import format_failure
from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scattersphere.execution.attempt import Attempt
    from scattersphere.execution.loops import Loop
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.runnable import RunnableTask

CLEAN_UP_LIMIT = 10.0
"""Seconds that `clean_up` may take (design, section 8)."""


def make(attempt: Attempt) -> RunnableTask:
    """Make the attempt's instance. Raises what filling in, structuring or the constructor raise."""
    planned = attempt.planned
    if not planned.varying and not planned.mapped:
        return planned.cls(**planned.fixed)
    return planned.cls(**attempt.execution.arguments(attempt))


async def run_on_loop(attempt: Attempt) -> Any:
    """Run an async body with all its hooks. Raises what the body, or `clean_up` alone, raised."""
    try:
        if attempt.planned.task_class.hooks:
            return await _run_with_hooks(attempt)
        return await finished(await make(attempt).run(attempt))
    finally:
        end_prints(attempt)


async def _run_with_hooks(attempt: Attempt) -> Any:
    instance = make(attempt)
    hooks = attempt.planned.task_class.hooks
    try:
        await _hook(attempt, instance, hooks, "on_status_change", _before(attempt), TaskState.RUNNING)
        try:
            value = await finished(await instance.run(attempt))
        except BaseException as exc:
            await _hook(attempt, instance, hooks, "on_exception", exc)
            await _hook(attempt, instance, hooks, "on_status_change", TaskState.RUNNING, _after(attempt, exc))
            raise
        await _hook(attempt, instance, hooks, "on_finished")
        await _hook(attempt, instance, hooks, "on_status_change", TaskState.RUNNING, TaskState.SUCCEEDED)
    except BaseException as exc:
        await _clean_up(attempt, instance, hooks, failed=type(exc) is not GeneratorExit)
        raise
    await _clean_up(attempt, instance, hooks, failed=False)
    return value


async def _hook(
    attempt: Attempt, instance: RunnableTask, hooks: frozenset[str], name: str, *args: Any
) -> None:
    if name not in hooks:
        return
    try:
        got = getattr(instance, name)(*args)
        if hasattr(got, "__await__"):
            await got
    except (GeneratorExit, anyio.get_cancelled_exc_class()):  # the attempt is ended from outside
        raise
    except BaseException:
        attempt.log.exception("error in %s", name)


async def _clean_up(attempt: Attempt, instance: RunnableTask, hooks: frozenset[str], *, failed: bool) -> None:
    if "clean_up" not in hooks:
        return
    try:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLEAN_UP_LIMIT) as scope:
            got = instance.clean_up()
            if hasattr(got, "__await__"):
                await got
        if scope.cancelled_caught:
            raise TimeoutError(f"clean_up took longer than {CLEAN_UP_LIMIT:g} s")  # noqa: TRY301
    except (GeneratorExit, anyio.get_cancelled_exc_class()):
        raise
    except BaseException:
        if not failed:
            raise
        attempt.log.exception("error in clean_up")


async def finished(value: Any) -> Any:
    """Await what a body has returned, where it is to be awaited. Raises `TypeError` for a generator."""
    while hasattr(type(value), "__await__"):
        value = await value
    refuse_generator(value)
    return value


def refuse_generator(value: Any) -> None:
    """Raise `TypeError` for what looks like a result, and is a body of which nothing was executed."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        if inspect.isgenerator(value):
            value.close()
        raise TypeError(
            f"run returned a generator ({value.__qualname__}), of which nothing was executed: a function with `yield` "
            "in it only makes one. Return a list of what it yields, or take the `yield` out"
        )


def run_in_thread(attempt: Attempt, wait_for: Callable[[Awaitable[Any]], Any]) -> Outcome:
    """Run a body with all its hooks in the current thread. Never raises.

    `wait_for` has something awaited, and returns or raises what it came to.
    """
    try:
        instance = make(attempt)
        return _PlainBody(attempt, instance, wait_for).run()
    except BaseException as exc:  # noqa: BLE001 - the outcome carries it; a thread has nobody to raise to
        return outcome_of(exc, attempt)
    finally:
        end_prints(attempt)


class _PlainBody:
    """An instance whose body and hooks are called in a thread."""

    def __init__(
        self, attempt: Attempt, instance: RunnableTask, wait_for: Callable[[Awaitable[Any]], Any]
    ) -> None:
        self._attempt = attempt
        self._instance = instance
        self._wait_for = wait_for
        self._hooks = attempt.planned.task_class.hooks

    def run(self) -> Outcome:
        attempt, instance, hook = self._attempt, self._instance, self._hook
        try:
            hook("on_status_change", _before(attempt), TaskState.RUNNING)
            value = self._call(instance.run, attempt)
            refuse_generator(value)
            hook("on_finished")
            hook("on_status_change", TaskState.RUNNING, TaskState.SUCCEEDED)
            outcome = Outcome(Ending.VALUE, value)
        except BaseException as exc:  # noqa: BLE001 - promise 7: SystemExit and its like end here too
            outcome = outcome_of(exc, attempt)
            hook("on_exception", exc)
            hook("on_status_change", TaskState.RUNNING, _after(attempt, exc))
        if "clean_up" in self._hooks:
            try:
                self._call(instance.clean_up)
            except BaseException as exc:
                if outcome.ending is Ending.VALUE:
                    outcome = outcome_of(exc, attempt)
                else:
                    attempt.log.exception("error in clean_up")
        return outcome

    def _hook(self, name: str, *args: Any) -> None:
        if name in self._hooks:
            try:
                self._call(getattr(self._instance, name), *args)
            except BaseException:
                self._attempt.log.exception("error in %s", name)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        value = function(*args)
        while hasattr(type(value), "__await__"):
            value = self._wait_for(value)
        return value


class Invocation:
    """Runs a body in the thread of whoever calls it (`Call.invoke`), and has the loop await what is to be awaited."""

    def __init__(self, attempt: Attempt, loop: Loop) -> None:
        self._attempt = attempt
        self._loop = loop
        self._handle: Any = None
        """What the loop awaits at this moment."""

    def __call__(self) -> Outcome:
        """Run it to its end, unless it may not begin any more."""
        if not self._attempt.begins():
            return Outcome(Ending.CANCELLED)
        return run_in_thread(self._attempt, self._wait_for)

    def _wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """Wait, in a thread, for what the loop awaits, in a copy of this thread's context."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        context = contextvars.copy_context()
        self._attempt.awaiting = self
        try:
            self._loop.soon(context.run, self._start, awaitable, answer)
            return answer.result()
        finally:
            self._attempt.awaiting = None

    def _start(self, awaitable: Awaitable[Any], answer: concurrent.futures.Future[Any]) -> None:
        self._handle = self._loop.start(self._await(awaitable, answer), self._attempt.label)
        if self._attempt.asked is not None:
            self.interrupt()

    async def _await(self, awaitable: Awaitable[Any], answer: concurrent.futures.Future[Any]) -> None:
        """Await something, and say to its thread what it came to. Never raises, like all that the loop starts."""
        try:
            value = await awaitable
        except anyio.get_cancelled_exc_class():
            asked = self._attempt.asked
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


def outcome_of(exc: BaseException, attempt: Attempt) -> Outcome:
    """Return the outcome of a plain body that raised."""
    if issubclass(type(exc), TaskCancelled) and attempt.asked is not None:
        return Outcome(Ending.CANCELLED)
    return Outcome(Ending.EXCEPTION, error=exc, traceback=format_failure(exc))


def retryable(exc: BaseException, policy: RetryPolicy) -> bool:
    """Whether the policy lets this exception be tried again: by class name, along its MRO."""
    if not issubclass(type(exc), Exception) or issubclass(type(exc), NonRetryableError):
        return False
    if not policy.retry_on:
        return True
    names = {cls.__qualname__ for cls in type(exc).__mro__}
    names |= {f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__}
    return not names.isdisjoint(policy.retry_on)


def _before(attempt: Attempt) -> TaskState:
    return TaskState.PENDING if attempt.attempt == 1 else TaskState.UP_FOR_RETRY


def _after(attempt: Attempt, exc: BaseException) -> TaskState:
    """Return the state that the attempt is heading for, as far as it can know it."""
    policy = attempt.planned.definition.retry
    if attempt.asked == "cancel":
        return TaskState.CANCELLED
    if attempt.attempt < policy.max_attempts and retryable(exc, policy):
        return TaskState.UP_FOR_RETRY
    return TaskState.FAILED

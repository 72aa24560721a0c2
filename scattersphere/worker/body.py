"""Executing one attempt: make the instance, run it, call its hooks, return its outcome.

What a body or a hook returns may be something that is yet to be awaited: a `def run` that returns a coroutine, by a
decorator or without one. It is awaited where async bodies run.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from scattersphere.abc.backend import Outcome, OutcomeKind
from scattersphere.errors import NonRetryableError, TaskCancelled
from scattersphere.logs.capture import end_prints
from scattersphere.logs.failures import format_failure
from scattersphere.model.states import TaskState
from scattersphere.worker.around import SurroundedAttempt

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Collection

    from scattersphere.model.definition import RetryPolicy
    from scattersphere.runnable import RunnableTask
    from scattersphere.worker.around import Surroundings

CLEAN_UP_LIMIT = 10.0
"""Seconds that `clean_up` may take (design, section 8)."""

CHECK_ON_LOOP = (
    "context.check() is for bodies in threads: here it would hold the event loop, and everything in it, "
    "as long as the run is paused; write `await context.checkpoint()` instead"
)


class BodyContext(SurroundedAttempt, Protocol):
    """What carrying out an attempt asks of its `TaskContext`: that of the engine, and that of a worker."""

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Its logger, for errors in hooks."""
        ...

    @property
    def cancel_reason(self) -> str | None:
        """None, or why it was asked to end: "cancel" or "timeout"."""
        ...

    @property
    def hooks(self) -> Collection[str]:
        """Which hooks its class has."""
        ...

    @property
    def retry(self) -> RetryPolicy:
        """What happens after a failure."""
        ...

    def make(self) -> RunnableTask:
        """Make its instance. Raises what filling in, structuring or the constructor raise."""
        ...


async def run_on_loop(attempt: BodyContext, surroundings: Surroundings | None = None) -> object:
    """Run an async body with all its hooks. Raises what the body, or `clean_up` alone, raised."""
    try:
        if surroundings is not None:
            with surroundings.around(attempt):
                return await run_on_loop(attempt)
        if attempt.hooks:
            return await _run_with_hooks(attempt)
        return await fully_awaited(await attempt.make().run(attempt))
    finally:
        end_prints(attempt)


async def _run_with_hooks(attempt: BodyContext) -> object:
    instance = attempt.make()
    hooks = attempt.hooks
    try:
        await _hook(attempt, instance, hooks, "on_status_change", _before(attempt), TaskState.RUNNING)
        try:
            value = await fully_awaited(await instance.run(attempt))
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
    attempt: BodyContext, instance: RunnableTask, hooks: Collection[str], name: str, *args: object
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


async def _clean_up(
    attempt: BodyContext, instance: RunnableTask, hooks: Collection[str], *, failed: bool
) -> None:
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


async def fully_awaited(value: Any) -> object:
    """Await what a body has returned, where it is to be awaited. Raises `TypeError` for a generator."""
    while hasattr(type(value), "__await__"):
        value = await value
    refuse_generator(value)
    return value


def refuse_generator(value: object) -> None:
    """Raise `TypeError` for what looks like a result, and is a body of which nothing was executed."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        if inspect.isgenerator(value):
            value.close()
        raise TypeError(
            f"run returned a generator ({value.__qualname__}), of which nothing was executed: a function with `yield` "
            "in it only makes one. Return a list of what it yields, or take the `yield` out"
        )


def run_in_thread(
    attempt: BodyContext,
    wait_for: Callable[[Awaitable[object]], object],
    surroundings: Surroundings | None = None,
) -> Outcome:
    """Run a body with all its hooks in the current thread. Never raises.

    `wait_for` has something awaited, and returns or raises what it came to.
    """
    try:
        if surroundings is None:
            return Outcome(OutcomeKind.VALUE, _PlainBody(attempt, attempt.make(), wait_for).run())
        with surroundings.around(attempt):
            return Outcome(OutcomeKind.VALUE, _PlainBody(attempt, attempt.make(), wait_for).run())
    except BaseException as exc:  # noqa: BLE001 - the outcome carries it; a thread has nobody to raise to
        return outcome_of(exc, attempt)
    finally:
        end_prints(attempt)


class _PlainBody:
    """An instance whose body and hooks are called in a thread."""

    def __init__(
        self, attempt: BodyContext, instance: RunnableTask, wait_for: Callable[[Awaitable[object]], object]
    ) -> None:
        self._attempt = attempt
        self._instance = instance
        self._wait_for = wait_for
        self._hooks = attempt.hooks

    def run(self) -> object:
        """Return what the body has returned; raise what it, or `clean_up` alone, has raised."""
        attempt, instance, hook = self._attempt, self._instance, self._hook
        try:
            hook("on_status_change", _before(attempt), TaskState.RUNNING)
            try:
                value = self._call(instance.run, attempt)
                refuse_generator(value)
            except BaseException as exc:
                hook("on_exception", exc)
                hook("on_status_change", TaskState.RUNNING, _after(attempt, exc))
                raise
            hook("on_finished")
            hook("on_status_change", TaskState.RUNNING, TaskState.SUCCEEDED)
        except BaseException:
            self._clean_up(failed=True)
            raise
        self._clean_up(failed=False)
        return value

    def _clean_up(self, *, failed: bool) -> None:
        if "clean_up" not in self._hooks:
            return
        try:
            self._call(self._instance.clean_up)
        except BaseException:
            if not failed:
                raise
            self._attempt.log.exception("error in clean_up")

    def _hook(self, name: str, *args: object) -> None:
        if name in self._hooks:
            try:
                self._call(getattr(self._instance, name), *args)
            except BaseException:
                self._attempt.log.exception("error in %s", name)

    def _call(self, function: Callable[..., object], *args: object) -> object:
        value: Any = function(*args)
        while hasattr(type(value), "__await__"):
            value = self._wait_for(value)
        return value


def failed(exc: BaseException) -> Outcome:
    """Return the outcome of a call that raised `exc`."""
    return Outcome(OutcomeKind.EXCEPTION, error=exc, traceback=format_failure(exc, of_body=True))


def outcome_of(exc: BaseException, attempt: BodyContext) -> Outcome:
    """Return the outcome of a plain body that raised."""
    if issubclass(type(exc), TaskCancelled) and attempt.cancel_reason is not None:
        return Outcome(OutcomeKind.CANCELLED)
    return failed(exc)


def retryable(exc: BaseException, policy: RetryPolicy) -> bool:
    """Whether the policy lets this exception be tried again: by class name, along its MRO."""
    if not issubclass(type(exc), Exception) or issubclass(type(exc), NonRetryableError):
        return False
    if not policy.retry_on:
        return True
    names = {cls.__qualname__ for cls in type(exc).__mro__}
    names |= {f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__}
    return not names.isdisjoint(policy.retry_on)


def _before(attempt: BodyContext) -> TaskState:
    return TaskState.PENDING if attempt.attempt == 1 else TaskState.UP_FOR_RETRY


def _after(attempt: BodyContext, exc: BaseException) -> TaskState:
    """Return the state that the attempt is heading for, as far as it can know it."""
    policy = attempt.retry
    if attempt.cancel_reason == "cancel":
        return TaskState.CANCELLED
    if attempt.attempt < policy.max_attempts and retryable(exc, policy):
        return TaskState.UP_FOR_RETRY
    return TaskState.FAILED

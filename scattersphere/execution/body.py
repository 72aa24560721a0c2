"""Carrying out one attempt: make the instance, run it, call its hooks, say how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from scattersphere.errors import NonRetryableError, TaskCancelled
from scattersphere.execution.backends.protocol import Ending, Outcome
from scattersphere.execution.logs.failures import format_failure
from scattersphere.model.states import TaskState

if TYPE_CHECKING:
    from scattersphere.execution.attempt import Attempt
    from scattersphere.model.definition import RetryPolicy
    from scattersphere.task import RunnableTask

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
    instance = make(attempt)
    hooks = attempt.planned.task_class.hooks
    try:
        await _hook(attempt, instance, hooks, "on_status_change", _before(attempt), TaskState.RUNNING)
        try:
            value = await instance.run(attempt)
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


def run_in_thread(attempt: Attempt) -> Outcome:
    """Run a plain body with all its hooks in the current thread. Never raises."""
    try:
        instance = make(attempt)
    except BaseException as exc:  # noqa: BLE001 - the outcome carries it; a thread has nobody to raise to
        return outcome_of(exc, attempt)
    hooks = attempt.planned.task_class.hooks
    try:
        _plain_hook(attempt, instance, hooks, "on_status_change", _before(attempt), TaskState.RUNNING)
        value = instance.run(attempt)
        _plain_hook(attempt, instance, hooks, "on_finished")
        _plain_hook(attempt, instance, hooks, "on_status_change", TaskState.RUNNING, TaskState.SUCCEEDED)
        outcome = Outcome(Ending.VALUE, value)
    except BaseException as exc:  # noqa: BLE001 - promise 7: SystemExit and its like end here too
        outcome = outcome_of(exc, attempt)
        _plain_hook(attempt, instance, hooks, "on_exception", exc)
        _plain_hook(attempt, instance, hooks, "on_status_change", TaskState.RUNNING, _after(attempt, exc))
    if "clean_up" in hooks:
        try:
            instance.clean_up()
        except BaseException as exc:
            if outcome.ending is Ending.VALUE:
                outcome = outcome_of(exc, attempt)
            else:
                attempt.log.exception("error in clean_up")
    return outcome


def _plain_hook(
    attempt: Attempt, instance: RunnableTask, hooks: frozenset[str], name: str, *args: Any
) -> None:
    if name in hooks:
        try:
            getattr(instance, name)(*args)
        except BaseException:
            attempt.log.exception("error in %s", name)


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

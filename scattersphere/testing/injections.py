"""Fault injection: a failure, a delay or a death, for one task by its name and for one attempt by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs

from scattersphere.errors import TaskCrashedError
from scattersphere.testing.fakes import subclass

if TYPE_CHECKING:
    from scattersphere.runnable import RunnableTask, TaskContext


class InjectedError(RuntimeError):
    """What an injected failure raises where the test names nothing else."""


@attrs.define(eq=False)
class Injection:
    """What happens to an attempt before its body begins. `attempt` None: to all of them."""

    task: str
    attempt: int | None
    index: int | None
    delay: float = 0.0
    error: BaseException | type[BaseException] | None = None
    dies: bool = False
    happened: int = 0

    def __str__(self) -> str:
        """Return it as the test wrote it."""
        which = ["" if self.attempt is None else f"attempt={self.attempt}"]
        which += ["" if self.index is None else f"index={self.index}"]
        word = "die" if self.dies else "delay" if self.error is None else "fail"
        seconds = f"{self.delay:g}" if word == "delay" else ""
        return f"{word}({', '.join(filter(None, [repr(self.task), seconds, *which]))})"

    def meets(self, context: TaskContext) -> bool:
        """Whether it is meant for this attempt."""
        return (
            self.task == context.task
            and self.attempt in {None, context.attempt}
            and self.index in {None, context.index}
        )

    def raised(self) -> BaseException | None:
        """Return what the attempt is to raise, made anew for each; None for a mere delay."""
        if self.dies:
            return TaskCrashedError("its process died (injected by the test)")
        if isinstance(self.error, type):
            return self.error()
        return None if self.error is None else self.error.with_traceback(None)


class Injections:
    """All that a test has asked for, in order; for one attempt all that meet it apply."""

    def __init__(self) -> None:
        self._all: list[Injection] = []

    def add(self, injection: Injection) -> None:
        """Take one up."""
        if injection.delay < 0:
            raise ValueError(f"a delay must not be negative: {injection.delay:g}")
        self._all.append(injection)

    def concern(self, task: str) -> bool:
        """Whether any is meant for this task."""
        return any(injection.task == task for injection in self._all)

    def take(self, context: TaskContext) -> tuple[float, BaseException | None]:
        """Return for how long an attempt waits before its body, and what it raises then."""
        delay, error = 0.0, None
        for injection in self._all:
            if injection.meets(context):
                injection.happened += 1
                delay += injection.delay
                error = error or injection.raised()
        return delay, error

    def unmet(self) -> list[Injection]:
        """Return those that have never happened."""
        return [injection for injection in self._all if not injection.happened]

    def copy(self) -> Injections:
        """Return the same ones, none of which has happened."""
        other = Injections()
        other._all = [attrs.evolve(injection, happened=0) for injection in self._all]
        return other


def injecting_class(cls: type[RunnableTask], injections: Injections) -> type[RunnableTask]:
    """Return a subclass of an async task class whose body begins with what is injected."""

    async def run(self: Any, context: TaskContext) -> object:
        delay, error = injections.take(context)
        if delay:
            await anyio.sleep(delay)
        if error is not None:
            raise error
        return await cls.run(self, context)

    return subclass(cls, {"run": run})

"""Task classes that the checks of backends run.

They stand in a module of their own so that a worker process, or whatever a backend uses, can import them alone.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from scattersphere.runnable import RunnableTask

if TYPE_CHECKING:
    from scattersphere.runnable import TaskContext

PAUSE = 0.002
"""Seconds between looks of a body that waits for something."""

EXCEPTIONS: dict[str, type[BaseException]] = {
    cls.__name__: cls for cls in (ValueError, RecursionError, SystemExit, KeyboardInterrupt, BaseException)
}

_mark: ContextVar[str] = ContextVar("scattersphere_check", default="")


class Echo(RunnableTask):
    """Return `value`."""

    value: object = None

    def run(self, context: TaskContext) -> object:  # noqa: ARG002 - the hook's signature
        """Return at once."""
        return self.value


class AsyncEcho(RunnableTask):
    """Return `value`, later."""

    value: object = None

    async def run(self, context: TaskContext) -> object:
        """Return at the next checkpoint."""
        await context.checkpoint()
        return self.value


class ReturnsCoroutine(RunnableTask):
    """Return what returns `value` when it is awaited."""

    value: object = None

    def run(self, context: TaskContext) -> object:
        """Return a coroutine, as a function does before which somebody forgot `async`."""

        async def later() -> object:
            await context.checkpoint()
            return self.value

        return later()


class Fail(RunnableTask):
    """Raise."""

    kind: str
    message: str = "as was asked"

    def run(self, context: TaskContext) -> object:  # noqa: ARG002 - the hook's signature
        """Raise the exception named `kind`."""
        raise EXCEPTIONS[self.kind](self.message)


class Obey(RunnableTask):
    """Go on until a cancel is asked for."""

    def run(self, context: TaskContext) -> object:
        """Say that it has begun, then check again and again."""
        context.progress(0)
        while True:
            context.check()
            time.sleep(PAUSE)


class Refuse(RunnableTask):
    """Go on whatever is asked for, until the file `until` exists, or its folder has gone."""

    until: str

    def run(self, context: TaskContext) -> object:
        """Say that it has begun, then wait for the file. Raises FileNotFoundError without a folder for it."""
        file = Path(self.until)
        if not file.parent.exists():  # else it would end at once, and refuse nothing
            raise FileNotFoundError(
                f"Refuse(until={self.until!r}): there is no such folder; name a file in one"
            )
        context.progress(0)
        while file.parent.exists() and not file.exists():
            time.sleep(PAUSE)
        return "refused to the end"


class Talk(RunnableTask):
    """Log `lines` lines that begin with `word`, and report progress."""

    word: str
    lines: int = 3

    def run(self, context: TaskContext) -> object:
        """Log, and return what it knows of itself."""
        for number in range(self.lines):
            context.log.info("%s %d", self.word, number)
            context.progress(number + 1, self.lines, self.word)
        return (context.run_id, context.job, context.task, context.index, context.attempt)


class Registers(RunnableTask):
    """Register what holds, resumes and cancels it, and wait until all were called."""

    def run(self, context: TaskContext) -> Any:
        """Say which of them was called."""
        called: SimpleQueue[str] = SimpleQueue()
        context.on_pause(lambda: called.put("hold"), lambda: called.put("resume"))
        context.on_cancel(lambda: called.put("on_cancel"))
        context.progress(0)
        for _ in range(3):
            context.log.info(called.get())
        context.check()


class Mark(RunnableTask):
    """Set a context variable, and return what another body had left in it."""

    value: str

    def run(self, context: TaskContext) -> object:  # noqa: ARG002 - the hook's signature
        """Return the value that was there before."""
        before = _mark.get()
        _mark.set(self.value)
        return before

"""Jobs as tasks: `RunJob` runs one, `Repeat` runs one again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from scattersphere.errors import ScattersphereError
from scattersphere.runnable import RunnableTask, TaskContext

if TYPE_CHECKING:
    from scattersphere.engine.run import Run


LEAST_GRACE = 0.1
"""Seconds of grace below which a child is killed: a kill gives a coroutine 0.05 s."""
CHILD_GRACE, CHILD_LIMIT = 0.5, 0.75
"""Parts of our grace: what the child's attempts get, and what the child has with its finally-tasks."""


class ChildFailedError(ScattersphereError):
    """A child run did not succeed; the message says how it ended and why."""

    code = "conflict"


async def follow(context: TaskContext, job: str, params: dict[str, Any]) -> dict[str, Any]:
    """Run `job` as a child, with this attempt's fate: pauses, cancels and kills reach it.

    Returns the results of its tasks by name. Raises `ChildFailedError`.
    """
    child: Run = await context.start(job, params)
    try:
        await child.wait()
    except GeneratorExit:  # this body is closed by force, and cannot wait
        if not child.state.ended:
            child.kill(_reason(context))
        raise
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _end(child, context)
        raise
    if not child.succeeded:
        raise ChildFailedError(child.explain())
    return dict(child.results)


async def _end(child: Run, context: TaskContext) -> None:
    """Cancel the child, and kill it when most of our own grace has gone: a kill leaves none."""
    if child.state.ended:
        return
    left = context.grace_left
    try:
        if left is None or left > LEAST_GRACE:
            child.cancel(_reason(context), grace=None if left is None else left * CHILD_GRACE)
            with anyio.move_on_after(None if left is None else left * CHILD_LIMIT):
                await child.wait()
    finally:  # a second cancel of asyncio's comes through our shield
        if not child.state.ended:
            child.kill(_reason(context))
    await child.wait()


def _reason(context: TaskContext) -> str:
    return f"its parent, run {context.run_id}, is ending"


class RunJob(RunnableTask):
    """Run another job and return the results of its tasks by name."""

    job: str
    params: dict[str, Any] = {}  # noqa: RUF012 - a parameter's default; RunnableTask copies it

    async def run(self, context: TaskContext) -> dict[str, Any]:
        """Run the job as a child."""
        return await follow(context, self.job, self.params)


class Repeat(RunnableTask):
    """Run another job a number of times, one after the other, and return the list of their results.

    `delay` is the seconds between the end of one and the start of the next. The first failure
    fails the task. `index`, if given, names a parameter of the job that counts from 0.
    """

    job: str
    times: int
    params: dict[str, Any] = {}  # noqa: RUF012 - a parameter's default; RunnableTask copies it
    delay: float = 0
    index: str | None = None

    async def run(self, context: TaskContext) -> list[dict[str, Any]]:
        """Run the job `times` times."""
        if self.times < 0:
            raise ValueError(f"times must not be negative: {self.times}")
        results = []
        for round_ in range(self.times):
            if round_:
                await anyio.sleep(max(self.delay, 0))
            await context.checkpoint()
            counted = {} if self.index is None else {self.index: round_}
            results.append(await follow(context, self.job, self.params | counted))
            context.progress(round_ + 1, self.times)
        return results

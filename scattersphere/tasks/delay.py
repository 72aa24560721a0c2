"""Delay: wait, and do nothing else."""

from __future__ import annotations

import anyio

from scattersphere.runnable import RunnableTask, TaskContext


class Delay(RunnableTask):
    """Wait for some seconds. A pause stops the clock at the next whole step."""

    seconds: float

    _STEP = 1.0

    async def run(self, context: TaskContext) -> None:
        """Sleep in steps, with a checkpoint between them."""
        if self.seconds < 0:
            raise ValueError(f"seconds must not be negative: {self.seconds:g}")
        left = self.seconds
        while left > 0:
            step = min(self._STEP, left)
            await anyio.sleep(step)
            left -= step
            await context.checkpoint()

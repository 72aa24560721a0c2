"""The bundle that `edit_while_running.py` edits: three tasks that print a page together."""

from __future__ import annotations

import anyio

from scattersphere import RunnableTask, TaskContext

HEADING = "Monday's edition"


class SetHeading(RunnableTask):
    """Begin a page."""

    async def run(self, context: TaskContext) -> list[str]:
        """Return the first line."""
        return [HEADING]


class WaitForProof(RunnableTask):
    """Take half a second to read the proof; then comes a checkpoint, at which a paused run is held."""

    page: list[str]

    async def run(self, context: TaskContext) -> list[str]:
        """Return the page as it is."""
        await anyio.sleep(0.5)
        await context.checkpoint()
        return self.page


class SetFooter(RunnableTask):
    """End the page."""

    page: list[str]

    async def run(self, context: TaskContext) -> str:
        """Return the whole page. This is the first use of HEADING after the pause."""
        return "\n".join([*self.page, "...", f"end of {HEADING}"])

"""The job that all hosts in this folder run: a task that takes its time and says how far it is."""

import anyio

from scattersphere import JobDefinition, RunnableTask, TaskContext, param


class Count(RunnableTask):
    """Count to `n`, a step every `pause` seconds."""

    n: int
    pause: float = 0.01

    async def run(self, context: TaskContext) -> int:
        """Count."""
        for done in range(1, self.n + 1):
            await anyio.sleep(self.pause)
            context.progress(done, self.n)
        context.log.info("counted to %d", self.n)
        return self.n


JOB = JobDefinition.build("count", params={"n": 5}).task("count", "Count", args={"n": param("n")}).done()

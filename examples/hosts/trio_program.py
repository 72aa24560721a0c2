"""A trio program. Run it: `python trio_program.py`."""

import trio
from jobs import JOB, Count

from scattersphere import Run, Server


async def follow(run: Run) -> None:
    """Print what happens to a run."""
    async for event in run.events():
        print(event.kind, event.task or "", event.state or "")


async def main() -> None:
    """Run the job and follow it in a nursery of one's own."""
    async with Server() as server, trio.open_nursery() as nursery:
        server.register_tasks("app", [Count])
        server.define(JOB)
        run = await server.start("count", {"n": 2})
        nursery.start_soon(follow, run)
        await run.wait()
        print("result:", run.results["count"])


trio.run(main)

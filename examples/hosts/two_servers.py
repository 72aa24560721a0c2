"""Two Servers in one process share nothing: jobs, numbers, limits. Run it: `python two_servers.py`."""

import anyio
from jobs import JOB, Count

from scattersphere import Server


async def main() -> None:
    """Run the same job on both."""
    async with Server(max_runs=1) as quiet, Server() as busy:
        for server in (quiet, busy):
            server.register_tasks("app", [Count])
            server.define(JOB)
        runs = [await server.start("count") for server in (quiet, busy)]
        for run in runs:
            await run.wait()
        print([(run.id, str(run.state)) for run in runs])


anyio.run(main)

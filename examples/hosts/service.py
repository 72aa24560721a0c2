"""A plain asyncio service: runs a job every few seconds until it gets SIGTERM. Run it: `python service.py [SECONDS]`.

The library touches no signals: the service says what they mean. Leaving `async with` ends what still runs.
"""

import asyncio
import signal
import sys

from jobs import JOB, Count

from scattersphere import Server


async def main(every: float) -> None:
    """Run the job again and again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Server(grace=5) as server:
        server.register_tasks("app", [Count])
        server.define(JOB)
        while not stop.is_set():
            run = await server.start("count")
            await run.wait()
            print(f"run {run.id} {run.state}", flush=True)
            try:
                await asyncio.wait_for(stop.wait(), every)
            except TimeoutError:
                continue
    print("bye", flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5))

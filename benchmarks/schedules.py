"""What ten thousand schedules cost: to define, idle, and each start of a run; and the next time of a cron expression.

Goal: idle, less than one per cent of a core. "Idle" is a Server on which nothing is due for hours, in real time.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import time

import anyio

from scattersphere import JobDefinition, RunnableTask, Server, TaskContext
from scattersphere.schedules.triggers import CronTrigger, EveryTrigger
from scattersphere.testing import VirtualTimeLoop

JOBS = 100
"""Of which each has a hundredth of the schedules."""
EXPRESSIONS = ["30 2 * * *", "*/5 * * * *", "0 9-17 * * MON-FRI", "0 0 1 * *", "*/7 2 * * *"]


class NoOp(RunnableTask):
    """Do nothing."""

    async def run(self, context: TaskContext) -> None:
        """Return at once."""


def job(number: int, schedules: int, *, every: int | None) -> JobDefinition:
    """Return a job with so many schedules: nightly, or each so many seconds."""
    timing = {"cron": "30 2 29 2 *", "zone": "Europe/Berlin"} if every is None else {"every": every}
    text = {
        "format": 2,
        "name": f"job{number}",
        "schedules": {f"s{n}": timing for n in range(schedules)},
        "tasks": {"t": {"task": "NoOp"}},
    }
    return JobDefinition.loads(json.dumps(text))


async def define(server: Server, count: int, every: int | None) -> float:
    """Define jobs with so many schedules; return the processor time of it."""
    server.register_tasks("app", [NoOp])
    definitions = [job(number, count // JOBS, every=every) for number in range(JOBS)]
    used = time.process_time()
    for definition in definitions:
        server.define(definition)
        await anyio.lowlevel.checkpoint()
    return time.process_time() - used


async def idle(count: int, seconds: float) -> tuple[float, float]:
    """Return the processor time of the definitions, and the share of a core that idling takes."""
    async with Server(watch=False) as server:
        defining = await define(server, count, None)
        await anyio.sleep(0.5)
        used, started = time.process_time(), time.perf_counter()
        await anyio.sleep(seconds)
        return defining, (time.process_time() - used) / (time.perf_counter() - started)


async def fire(count: int, times: int) -> tuple[int, float]:
    """Let each schedule fire so many times, in virtual time; return how many runs that made, and what each cost."""
    async with Server(watch=False, history=(0, 0)) as server:
        await define(server, count, 3600)
        await anyio.sleep(1)
        used = time.process_time()
        await anyio.sleep(3600 * times)
        fired = sum(schedule.state.fired for schedule in server.schedules.values())
        return fired, (time.process_time() - used) / max(1, fired)


def next_times(calls: int) -> None:
    """Print what the next and the previous time of a trigger cost."""
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    triggers = {f"{text} in Berlin": CronTrigger.of(text, "Europe/Berlin") for text in EXPRESSIONS}
    for name, trigger in {**triggers, "every 300": EveryTrigger(300)}.items():
        at, used = begin, time.process_time()
        for _ in range(calls):
            at = trigger.next(at) or begin
        forward = time.process_time() - used
        used = time.process_time()
        for _ in range(calls // 4):
            at = trigger.previous(at) or at
        back = time.process_time() - used
        print(
            f"  {name:32} next {forward / calls * 1e6:6.1f} us, previous {back / (calls // 4) * 1e6:6.1f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20, help="how long to look at an idle Server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=2, help="how often each schedule fires")
    options = parser.parse_args()
    print("a trigger:")
    next_times(2_000)
    shares = []
    for _ in range(options.rounds):
        defining, share = anyio.run(idle, options.schedules, options.seconds)
        shares.append(share)
        print(f"{options.schedules:,} schedules: defined in {defining:.2f} s, idle {share:.3%} of a core")
    print(f"idle, median: {statistics.median(shares):.3%} of a core (goal: less than 1 %)")
    virtual = {"loop_factory": VirtualTimeLoop}
    fired, each = anyio.run(fire, options.schedules, options.times, backend_options=virtual)
    print(f"{fired:,} starts by schedule: {each * 1e6:.0f} us of processor time each, with their runs")


if __name__ == "__main__":
    main()

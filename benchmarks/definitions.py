"""Definitions: what loading, planning and saving cost, against `json.loads` and `json.dumps` in the same run.

Each turn measures baseline and ours one after the other; the ratio shown is the median of the turns'
ratios. The goals: load, strict structure, checks and plan at most 12 times `json.loads` at 1,000 tasks and 10 times
at 100,000, in order or shuffled; a save at most 6 times `json.dumps`; peak memory at most 4 times the parsed
JSON. cattrs alone, without any of our rules, is shown beside it. `python -m benchmarks definitions [--quick]`.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import attrs
import cattrs

from scattersphere import JobDefinition, RunnableTask, Server, TaskContext
from scattersphere.abc.backend import LOOP_TRAITS, BackendTraits
from scattersphere.engine.planning import compile_plan

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES = 3
"""Dependencies of a task: 300k at 100k tasks."""
SIZES = {1_000: 21, 10_000: 5, 100_000: 3}
"""Tasks, and how many turns are measured."""
GOALS = {"load and plan, in order": 12.0, "load and plan, shuffled": 12.0, "save": 6.0, "peak memory": 4.0}
AT_MOST = {100_000: {"load and plan, in order": 10.0, "load and plan, shuffled": 10.0}}
"""Where many tasks have a goal of their own."""
BACKENDS = {"loop": LOOP_TRAITS, "thread": BackendTraits()}


class LoadDay(RunnableTask):
    """What the tasks of the measured job would do."""

    day: str
    number: int

    async def run(self, context: TaskContext) -> None:
        """Do nothing: no job is run here."""


def make_job(tasks: int, *, shuffled: bool) -> str:
    """Return the text of a layered job, with arguments and a retry as people write them."""
    draw = random.Random(17)
    items: list[tuple[str, Any]] = []
    for number in range(tasks):
        after = sorted({draw.randrange(number) for _ in range(EDGES)}) if number else []
        task = {
            "task": "LoadDay",
            "args": {"day": {"$param": "day"}, "number": number},
            "depends_on": [f"task-{other}" for other in after],
            "retry": {"max_attempts": 3, "delay": 1},
        }
        items.append((f"task-{number}", task))
    if shuffled:
        draw.shuffle(items)
    return json.dumps({"name": "big", "params": {"day": "2026-11-23"}, "tasks": dict(items)}, indent=2)


@attrs.frozen
class BareRetry:
    """What cattrs is given to compare: the same fields, and no rule."""

    max_attempts: int = 1
    delay: float = 0


@attrs.frozen
class BareTask:
    """A task without a rule."""

    task: str
    args: dict[str, Any] = attrs.field(factory=dict)
    depends_on: list[str] = attrs.field(factory=list)
    retry: BareRetry = BareRetry()


@attrs.frozen
class BareJob:
    """A job without a rule."""

    name: str
    tasks: dict[str, BareTask]
    params: dict[str, Any] = attrs.field(factory=dict)


_bare = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the processor in one turn; what it made is let go of outside.

    Nothing here waits, and the clock would measure who else is busy on this machine.
    """
    gc.collect()
    start = time.process_time()
    made = work()
    took = time.process_time() - start
    del made
    return took


def compare(
    tasks: int, turns: int, what: str, baseline: Callable[[], object], ours: Callable[[], object]
) -> None:
    """Measure both in turn, and show the median ratio."""
    pairs = [(seconds(baseline), seconds(ours)) for _ in range(turns)]
    ratio = statistics.median(own / base for base, own in pairs)
    base, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    show(tasks, what, f"{own / tasks * 1e6:6.2f} us a task, baseline {base / tasks * 1e6:5.2f}", ratio)


def show(tasks: int, what: str, figures: str, ratio: float) -> None:
    goal = AT_MOST.get(tasks, {}).get(what, GOALS.get(what))
    verdict = "" if goal is None else f"  goal {goal:.0f}: {'held' if ratio <= goal else 'MISSED'}"
    print(f"{tasks:>7,} tasks  {what:<24} {figures}  {ratio:5.2f} x{verdict}")


def peak(work: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes that are left of `work`'s result, and the most that was held meanwhile."""
    gc.collect()
    tracemalloc.start()
    made = work()
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return kept, most


def measure(server: Server, tasks: int, turns: int) -> None:
    find = server.registry.find
    for order in ("in order", "shuffled"):
        text = make_job(tasks, shuffled=order == "shuffled")

        def parse(text: str = text) -> object:
            return json.loads(text)

        def load(text: str = text) -> object:
            return JobDefinition.loads(text)

        def both(text: str = text) -> object:
            return compile_plan(JobDefinition.loads(text), find, BACKENDS)

        def structure_alone(text: str = text) -> object:
            return _bare.structure(json.loads(text), BareJob)

        compare(tasks, turns, f"cattrs alone, {order}", parse, structure_alone)
        compare(tasks, turns, f"load alone, {order}", parse, load)
        compare(tasks, turns, f"load and plan, {order}", parse, both)
    value, definition = json.loads(text), JobDefinition.loads(text)
    compare(tasks, turns, "save", lambda: json.dumps(value, indent=2), definition.dumps)
    parsed = peak(lambda: json.loads(text))[0]
    most = peak(lambda: JobDefinition.loads(text))[1]
    show(
        tasks,
        "peak memory",
        f"{most / tasks:6.0f} bytes a task, parsed JSON {parsed / tasks:5.0f}",
        most / parsed,
    )


def main() -> None:
    print(f"Python {sys.version.partition(' ')[0]}")
    server = Server()  # never entered: nothing runs
    server.register_tasks("app", [LoadDay])
    for tasks, turns in SIZES.items():
        measure(server, tasks, min(turns, 3) if "--quick" in sys.argv else turns)


if __name__ == "__main__":
    main()

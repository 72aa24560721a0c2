"""Definitions: what loading and saving cost, against `json.loads` and `json.dumps` in the same run.

Run `python benchmarks/definitions.py`. Each figure is the best of some turns, as a multiple of the
baseline's best; the goals are those of the design: 4 in order, 6 shuffled, 4 for a save.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

from scattersphere import JobDefinition

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES = 3
"""Dependencies of a task: 300k at 100k tasks."""
GOALS = {"load, in order": 4.0, "load, shuffled": 6.0, "save": 4.0}


def make_job(tasks: int, *, shuffled: bool) -> str:
    """Return the text of a layered job, with arguments and a retry as people write them."""
    draw = random.Random(17)
    items: list[tuple[str, Any]] = []
    for number in range(tasks):
        after = sorted({draw.randrange(number) for _ in range(EDGES)}) if number else []
        task = {
            "task": "etl.load.LoadDay",
            "args": {"day": {"$param": "day"}, "number": number},
            "depends_on": [f"task-{other}" for other in after],
            "retry": {"max_attempts": 3, "delay": 1},
        }
        items.append((f"task-{number}", task))
    if shuffled:
        draw.shuffle(items)
    return json.dumps({"name": "big", "params": {"day": "2026-11-23"}, "tasks": dict(items)}, indent=2)


def best(work: Callable[[], object], turns: int) -> float:
    """Return the seconds of the fastest turn."""
    found = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(tasks: int, turns: int) -> None:
    for order in ("in order", "shuffled"):
        text = make_job(tasks, shuffled=order == "shuffled")
        baseline = best(lambda text=text: json.loads(text), turns)  # type: ignore[misc]
        load = best(lambda text=text: JobDefinition.loads(text), turns)  # type: ignore[misc]
        show(tasks, f"load, {order}", load, baseline)
    value, definition = json.loads(text), JobDefinition.loads(text)
    show(tasks, "save", best(definition.dumps, turns), best(lambda: json.dumps(value, indent=2), turns))


def show(tasks: int, what: str, seconds: float, baseline: float) -> None:
    ratio = seconds / baseline
    verdict = "held" if ratio <= GOALS[what] else "MISSED"
    print(
        f"{tasks:>7,} tasks  {what:<15} {seconds * 1e3:>8.1f} ms  baseline {baseline * 1e3:>7.1f} ms  "
        f"{ratio:.2f} x  goal {GOALS[what]:.0f}: {verdict}"
    )


if __name__ == "__main__":
    measure(1_000, 15)
    measure(100_000, 2)

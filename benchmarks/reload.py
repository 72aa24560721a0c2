"""What loading a bundle costs, against a plain import of the same package in the same run.

The packages have 20 and 100 modules of about 120 lines. Each sample is a fresh content, so that nothing is cached that
a real first load would not have. Loads and plain imports take turns. What each takes at its best is compared, as
`timeit` advises, and medians are shown beside: a processor that is shared has several speeds, and the same import took
10 ms of processor time or 16, for a dozen samples in a row.

Run `python -m benchmarks.reload`.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from benchmarks.watching import show_delays
from scattersphere.registry.registry import TaskRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULES = 20

MODULE = '''"""A module as programs have them: a few classes, an enumeration, functions with defaults."""

from __future__ import annotations

import enum
import json
import logging
import re
from dataclasses import dataclass, field

log = logging.getLogger(__name__)
PATTERN = re.compile(r"(?P<name>[a-z]+)-{label}-(?P<number>[0-9]+)")


class State(enum.Enum):
    """What a record may be."""

    NEW = "new-{label}"
    SEEN = "seen"
    DONE = "done"


@dataclass
class Record:
    """One thing."""

    name: str
    number: int = 0
    state: State = State.NEW
    tags: list[str] = field(default_factory=list)

    def rename(self, name: str) -> Record:
        return Record(name, self.number, self.state, list(self.tags))
'''

FUNCTION = '''

def work_{i}(values, *, factor={i}, label="{label}"):
    """Return something that takes a few lines to say."""
    total = 0
    for index, value in enumerate(values):
        if value % 2:
            total += value * factor
        else:
            total -= index
    result = {{"label": label, "total": total, "mean": total / (len(values) or 1)}}
    return sorted(result.items(), key=lambda item: item[0])
'''

TASK = """
from scattersphere.runnable import RunnableTask
from {package}.m1 import work_1

class Job(RunnableTask):
    values: list[int]
    def run(self, context):
        return work_1(self.values)
"""

GOALS = {"first load": (1.3, "cold"), "reload, one module changed": (1.3, "warm")}
"""At most so many times the plain import without bytecode (cold), or with it (warm).

The loop's thread cannot import without standing still, so the same import in a thread is a baseline as well; where the
machine keeps its speed, it takes what it takes in the main thread. A reload must compile what has changed, and a warm
import compiles nothing: so a plain import after such a change is shown, too.
"""

FINDS = 1_000

STALL_SIZES = (4, 16, 64, 256)
STALL_LIMIT, STALL_GOAL = 64, 0.020
"""Kilobytes of a module up to which the loop may not stand still for longer than these seconds."""


def write_package(root: Path, package: str, label: object, modules: int = MODULES) -> None:
    """Write modules of about 120 lines, with `label` in each."""
    folder = root / package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text("")
    for number in range(1, modules - 1):
        write_module(folder / f"m{number}.py", label)
    (folder / "jobs.py").write_text(TASK.format(package=package))


def write_module(file: Path, label: object, size: int = 4_300) -> None:
    """Write one module of about `size` bytes, unlike all others."""
    unique = f"{label}{file.stem}"
    text, number = MODULE.replace("{label}", unique), 0
    while len(text) < size:
        text, number = text + FUNCTION.format(i=number, label=unique), number + 1
    file.write_text(text)


def plain_import(root: Path, package: str, *, bytecode: bool) -> None:
    """Import every module of a package in the ordinary way, and forget them."""
    names = [package, *(f"{package}.{file.stem}" for file in sorted((root / package).glob("[!_]*.py")))]
    sys.path.insert(0, str(root))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, not bytecode
    try:
        importlib.invalidate_caches()
        for name in names:
            importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(root))
        for name in names:
            sys.modules.pop(name, None)


class Cost(NamedTuple):
    """Seconds by the clock, and of the processor."""

    wall: float
    processor: float


class Stall:
    """Notes the longest time for which the loop did not come round."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Look at the clock each millisecond, for ever."""
        last = time.perf_counter()
        while True:
            await anyio.sleep(0.001)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - 0.001)
            last = now


async def measure(root: Path, samples: int, modules: int) -> dict[str, list[Cost]]:
    """Take the samples in turns, with the garbage of the others collected; return the costs by kind."""
    costs: dict[str, list[Cost]] = defaultdict(list)
    registry = TaskRegistry(collect_garbage=False)
    await register_another(registry, root)  # the first bundle of all makes the store and the thread
    for sample in range(samples):
        package = f"bench{sample}_{modules}"
        write_package(root, package, f"first{sample}", modules)
        cold = functools.partial(plain_import, root, package, bytecode=False)
        warm = functools.partial(plain_import, root, package, bytecode=True)
        with timed(costs["cold"]):
            cold()
        with timed(costs["cold, in a thread"]):
            await anyio.to_thread.run_sync(cold)
        warm()  # writes the bytecode
        with timed(costs["warm"]):
            warm()
        with timed(costs["warm, in a thread"]):
            await anyio.to_thread.run_sync(warm)
        with timed(costs["first load"]):
            await registry.register(root / package)
        write_module(root / package / "m7.py", f"another{sample}")
        with timed(costs["warm, one module changed"]):
            warm()
        write_module(root / package / "m7.py", f"second{sample}")
        with timed(costs["reload, one module changed"]):
            await registry.reload(package)
        with timed(costs["reload, nothing changed"]):
            await registry.reload(package)
        with timed(costs["release"]):
            await registry.deregister(package)
    await registry.aclose()
    return costs


async def register_another(registry: TaskRegistry, root: Path) -> None:
    """Register a bundle that is not measured."""
    (root / "another.py").write_text(
        "from scattersphere.runnable import RunnableTask\n"
        "class Job(RunnableTask):\n    def run(self, context): ...\n"
    )
    await registry.register(root / "another.py")


async def stalls(root: Path, samples: int, kilobytes: int) -> float:
    """Load modules of one size; return the median of the longest times without a turn of the loop."""
    registry = TaskRegistry(collect_garbage=False)
    await register_another(registry, root)
    longest = []
    for sample in range(samples):
        file = root / f"large{kilobytes}_{sample}.py"
        write_module(file, f"large{sample}", size=kilobytes * 1024)
        with file.open("a") as stream:
            stream.write(TASK.replace("from {package}.m1 import work_1\n", ""))
        stall = Stall()
        async with anyio.create_task_group() as group:
            group.start_soon(stall.watch)
            await anyio.sleep(0.01)
            await registry.register(file)
            group.cancel_scope.cancel()
        longest.append(stall.longest)
        await registry.deregister(f"large{kilobytes}_{sample}")
    await registry.aclose()
    return statistics.median(longest)


class timed:  # noqa: N801 - reads as a word
    """Append the cost of the block, once what others left is collected."""

    def __init__(self, costs: list[Cost]) -> None:
        self._costs = costs

    def __enter__(self) -> None:
        gc.collect()
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, processor = self._began
        self._costs.append(Cost(time.perf_counter() - wall, time.process_time() - processor))


async def memory(root: Path, reloads: int) -> tuple[int, float]:
    """Reload a bundle of 20 modules many times; return the change of objects and of resident MB."""
    registry = TaskRegistry(collect_garbage=False)
    write_package(root, "steady", 0)
    await registry.register(root / "steady")
    before = (0, 0.0)
    warm_up = min(100, reloads // 5)
    for number in range(reloads):
        write_module(root / "steady" / "m3.py", f"{number:06}")
        await registry.reload("steady")
        if number % 50 == 0:
            gc.collect()
        if number == warm_up:
            await anyio.sleep(1)  # deletions wait for a pause
            before = weight()
    await anyio.sleep(1)
    after = weight()
    await registry.aclose()
    return after[0] - before[0], after[1] - before[1]


def weight() -> tuple[int, float]:
    """Return the number of objects, and the resident memory in MB (0 where /proc is missing)."""
    re.purge()  # each version has a pattern of its own, and `re` keeps the last 512
    gc.collect()
    gc.collect()  # what the first pass frees held some cycles through objects that it cannot see
    resident = 0.0
    with suppress(OSError):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    return len(gc.get_objects()), resident


async def many(root: Path, bundles: int, classes: int) -> Iterator[str]:
    """Register many bundles with many tasks each; return what people then do, and how long it takes."""
    text = "from scattersphere.runnable import RunnableTask\n" + "".join(
        f"class T{i}(RunnableTask):\n    x: int = {i}\n    def run(self, context): ...\n"
        for i in range(classes)
    )
    registry = TaskRegistry(collect_garbage=False)
    costs: dict[str, list[Cost]] = defaultdict(list)
    for number in range(bundles):
        (root / f"plain{number}.py").write_text(f"{text}# plain {number}\n")
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(root))
    with timed(costs["plain import without bytecode, each"]):
        for number in range(bundles):
            importlib.import_module(f"plain{number}")
            del sys.modules[f"plain{number}"]
    sys.path.remove(str(root))
    sys.dont_write_bytecode = before
    with timed(costs["register, each"]):
        for number in range(bundles):
            (root / f"many{number}.py").write_text(f"{text}# {number}\n")
            await registry.register(root / f"many{number}.py")
    with timed(costs["find, each"]):
        for number in range(FINDS):
            registry.find(f"many{number % bundles}.T1")
    (root / "many0.py").write_text(text + "\n")
    with timed(costs["reload of one"]):
        await registry.reload("many0")
    with timed(costs["list all tasks"]):
        list(registry.tasks.items())
    await registry.aclose()
    each = {"plain import without bytecode, each": bundles, "register, each": bundles, "find, each": FINDS}
    return (f"  {name:45} {cost[0].wall * 1000 / each.get(name, 1):9.4f} ms" for name, cost in costs.items())


def report(costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Show what each takes at its best, and its ratios to the plain import: in the main thread, in a thread."""
    best = {
        name: Cost(min(cost.wall for cost in taken), min(cost.processor for cost in taken))
        for name, taken in costs.items()
    }
    for name, cost in best.items():
        median = statistics.median(taken.wall for taken in costs[name])
        line = f"  {name:28} {cost.wall * 1000:7.1f} ms, median {median * 1000:7.1f} ms"
        if name in GOALS:
            goal, base = GOALS[name]
            bases = [base, f"{base}, in a thread", f"{base}, one module changed"]
            ratios = [f"{cost.wall / best[other].wall:.2f} x {other}" for other in bases if other in best]
            processor = cost.processor / best[base].processor
            line += f"  {', '.join(ratios)} (goal {goal}); {processor:.2f} x the processor time of {base}"
        yield line


def main(output: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--reloads", type=int, default=1_000)
    parser.add_argument("--bundles", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for modules in (MODULES, 5 * MODULES):
            output(f"{modules} modules of 120 lines")
            for line in report(anyio.run(measure, root, options.samples, modules)):
                output(line)
        for kilobytes in STALL_SIZES:
            goal = f" (goal {STALL_GOAL * 1000:.0f})" if kilobytes <= STALL_LIMIT else ""
            stall = anyio.run(stalls, root, options.samples, kilobytes)
            output(f"longest stall while a module of {kilobytes:3} KB loads  {stall * 1000:7.1f} ms{goal}")
        objects, megabytes = anyio.run(memory, root, options.reloads)
        output(f"{options.reloads} reloads: {objects:+} objects, {megabytes:+.1f} MB (goal: constant, 5 MB)")
        for bundles in (options.bundles // 4, options.bundles):
            output(f"{bundles} bundles with {bundles * 25:,} tasks")
            for line in anyio.run(many, root, bundles, 25):
                output(line)
        (root / "watched").mkdir()
        show_delays(output, root / "watched", options.samples, options.bundles, seconds=10.0)


if __name__ == "__main__":
    main()

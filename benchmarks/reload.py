"""What loading a bundle costs, against a plain import of the same package in the same run.

The package has 20 modules of about 120 lines. Each sample is a fresh content, so that nothing is cached that
a real first load would not have. Loads and plain imports take turns; medians are compared.

Run `python -m benchmarks.reload`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

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
from scattersphere.task import RunnableTask
from {package}.m1 import work_1

class Job(RunnableTask):
    values: list[int]
    def run(self, context):
        return work_1(self.values)
"""

GOALS = {"first load": 1.3, "reload, one module changed": 1.3}
"""Times the plain import without, and with, bytecode (performance.md, section 5)."""


def write_package(root: Path, package: str, label: object) -> None:
    """Write 20 modules of about 120 lines, with `label` in each."""
    folder = root / package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text("")
    for number in range(1, MODULES - 1):
        write_module(folder / f"m{number}.py", label)
    (folder / "jobs.py").write_text(TASK.format(package=package))


def write_module(file: Path, label: object) -> None:
    """Write one module, unlike all others."""
    unique = f"{label}{file.stem}"
    functions = "".join(FUNCTION.format(i=i, label=unique) for i in range(7))
    file.write_text(MODULE.replace("{label}", unique) + functions)


def plain_import(root: Path, package: str, *, bytecode: bool) -> float:
    """Import every module of a package in the ordinary way; return the seconds."""
    names = [package, *(f"{package}.{file.stem}" for file in sorted((root / package).glob("[!_]*.py")))]
    sys.path.insert(0, str(root))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, not bytecode
    try:
        importlib.invalidate_caches()
        began = time.perf_counter()
        for name in names:
            importlib.import_module(name)
        return time.perf_counter() - began
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(root))
        for name in names:
            sys.modules.pop(name, None)


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


async def measure(root: Path, samples: int) -> tuple[dict[str, list[float]], list[float]]:
    """Take the samples in turns; return the seconds by kind, and the stalls of the loop."""
    seconds: dict[str, list[float]] = {name: [] for name in ("cold", "warm", *GOALS, "unchanged", "release")}
    stalls = []
    registry = TaskRegistry(collect_garbage=False)
    for sample in range(samples):
        package = f"bench{sample}"
        write_package(root, package, f"first{sample}")
        seconds["cold"].append(plain_import(root, package, bytecode=False))
        plain_import(root, package, bytecode=True)
        seconds["warm"].append(plain_import(root, package, bytecode=True))
        stall = Stall()
        async with anyio.create_task_group() as group:
            group.start_soon(stall.watch)
            with timed(seconds["first load"]):
                await registry.register(root / package)
            write_module(root / package / "m7.py", f"second{sample}")
            with timed(seconds["reload, one module changed"]):
                await registry.reload(package)
            group.cancel_scope.cancel()
        stalls.append(stall.longest)
        with timed(seconds["unchanged"]):
            await registry.reload(package)
        with timed(seconds["release"]):
            await registry.deregister(package)
        gc.collect()
    await registry.aclose()
    return seconds, stalls


class timed:  # noqa: N801 - reads as a word
    """Append the seconds that the block took."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds.append(time.perf_counter() - self._began)


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
            before = weight()
    after = weight()
    await registry.aclose()
    return after[0] - before[0], after[1] - before[1]


def weight() -> tuple[int, float]:
    """Return the number of objects, and the resident memory in MB (0 where /proc is missing)."""
    gc.collect()
    resident = 0.0
    with suppress(OSError):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    return len(gc.get_objects()), resident


async def many(root: Path, bundles: int, classes: int) -> dict[str, float]:
    """Register many bundles with many tasks each; return the seconds of what people then do."""
    text = "from scattersphere.task import RunnableTask\n" + "".join(
        f"class T{i}(RunnableTask):\n    x: int = {i}\n    def run(self, context): ...\n"
        for i in range(classes)
    )
    registry = TaskRegistry(collect_garbage=False)
    found: dict[str, float] = {}
    with clocked(found, f"register {bundles} bundles, {bundles * classes:,} tasks"):
        for number in range(bundles):
            (root / f"many{number}.py").write_text(text)
            await registry.register(root / f"many{number}.py")
    with clocked(found, "find, each"):
        for _ in range(1_000):
            registry.find(f"many{bundles // 2}.T1")
    found["find, each"] /= 1_000
    (root / "many0.py").write_text(text + "\n")
    with clocked(found, "reload of one"):
        await registry.reload("many0")
    with clocked(found, "list all tasks"):
        list(registry.tasks.items())
    await registry.aclose()
    return found


def clocked(found: dict[str, float], name: str) -> timed:
    """Put the seconds of the block into `found`."""

    class Into(list[float]):
        def append(self, seconds: float) -> None:
            found[name] = seconds

    return timed(Into())


def report(seconds: dict[str, list[float]], stalls: list[float]) -> Iterator[str]:
    middle = {name: statistics.median(values) * 1000 for name, values in seconds.items()}
    yield f"plain import without bytecode  {middle['cold']:7.1f} ms"
    yield f"plain import with bytecode     {middle['warm']:7.1f} ms"
    for name, base in (("first load", "cold"), ("reload, one module changed", "warm")):
        ratio = middle[name] / middle[base]
        yield f"{name:30} {middle[name]:7.1f} ms  {ratio:5.2f} x {base} (goal {GOALS[name]})"
    yield f"reload, nothing changed        {middle['unchanged']:7.1f} ms"
    yield f"release                        {middle['release']:7.1f} ms"
    yield f"longest stall of the loop      {statistics.median(stalls) * 1000:7.1f} ms  (goal 20)"


def main(output: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--reloads", type=int, default=1_000)
    parser.add_argument("--bundles", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in report(*anyio.run(measure, Path(folder), options.samples)):
            output(line)
        objects, megabytes = anyio.run(memory, Path(folder), options.reloads)
        output(f"{options.reloads} reloads: {objects:+} objects, {megabytes:+.1f} MB (goal: constant, 5 MB)")
        for name, value in anyio.run(many, Path(folder), options.bundles, 25).items():
            output(f"{name:45} {value * 1000:9.3f} ms")


if __name__ == "__main__":
    main()

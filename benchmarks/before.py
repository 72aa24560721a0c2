"""Runs against those of another commit: processor time of two trees of this library, in turns, in one sitting.

Goal: a run without a journal costs within 2 % of what it did before there was one (the default commit). Each round
starts a process for each tree, in alternating order, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

BEFORE = "5525395^"
"""The last commit without a journal."""
TREE = Path(__file__).parents[1]

PROGRAM = """
import gc, json, time
import anyio
from scattersphere import JobDefinition, RunnableTask, Server, TaskDefinition

class NoOp(RunnableTask):
    async def run(self, context):
        return None

def wide(size):
    return {f"t{n}": TaskDefinition(task="NoOp") for n in range(size)}

def chain(size):
    return {f"t{n}": TaskDefinition(task="NoOp", depends_on=(f"t{n - 1}",) if n else ()) for n in range(size)}

def layers(size, breadth=50):
    return {
        f"t{n}": TaskDefinition(task="NoOp", depends_on=tuple(f"t{m}" for m in range(n % breadth, n, breadth))[-1:])
        for n in range(size)
    }

CASES = {
    "10,000 tasks side by side": (wide(10_000), 2),
    "a chain of 5,000": (chain(5_000), 2),
    "200 layers of 50": (layers(10_000), 2),
    "1,000 runs of one task": (wide(1), 1_000),
}

async def main():
    spent = {}
    async with Server(watch=False, history=(0, 0)) as server:
        server.register_tasks("app", [NoOp])
        for name, (tasks, times) in CASES.items():
            server.define(JobDefinition(name="job", tasks=tasks), replace=True)
            await (await server.start("job")).wait()
            gc.collect()
            begun = time.process_time()
            for _ in range(times):
                await (await server.start("job")).wait()
            spent[name] = time.process_time() - begun
    print(json.dumps(spent))

anyio.run(main)
"""


def export(commit: str, folder: Path) -> None:
    """Write the tree of a commit into a folder."""
    packed = subprocess.run(  # noqa: S603 - our own words
        ["git", "archive", commit, "scattersphere"],  # noqa: S607
        cwd=TREE,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def measure(tree: Path, folder: Path) -> dict[str, float]:
    """Return the processor time of each case, in a process that imports the library from a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default=BEFORE)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(options.commit, folder)
        for number in range(options.rounds):
            trees = [folder, TREE] if number % 2 else [TREE, folder]
            spent = {tree: measure(tree, folder) for tree in trees}
            for case, seconds in spent[TREE].items():
                ratios[case].append(seconds / spent[folder][case])
    print(f"processor time now / at {options.commit}, median of {options.rounds} rounds (goal: at most 1.02)")
    for case, found in ratios.items():
        low, _, high = statistics.quantiles(found, n=4) if len(found) > 1 else (found[0],) * 3
        print(f"  {case:28} {statistics.median(found):.3f}  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

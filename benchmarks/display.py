"""What showing a run costs: 20,000 log lines in a pipe, 300 tasks on a terminal, against the run that nobody looks at.

Each is a process of its own, as a person starts it: `scattersphere run` into a pipe, with `--json`, or on a
pseudo-terminal, and a program that has imported the same and only awaits the same run. Processor time of the whole
process, which other programs on the machine disturb less than time on the wall; the median of rounds that take turns.
What a process costs before its run does anything (Python's start, imports, loading) is the same on both sides, and
hides what is asked for: so the second ratio is without it. Only ratios within one run count.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BODIES = """
import anyio
from scattersphere import TaskContext, task

@task
async def talk(context: TaskContext, lines: int) -> None:
    for number in range(lines):
        context.log.info("line %d", number)
        if number % 100 == 0:
            await anyio.sleep(0)

@task
async def nap(seconds: float) -> None:
    await anyio.sleep(seconds)
"""
SILENT = """
import sys
import anyio
import scattersphere.cli.running  # the same imports
from scattersphere import Server

async def main():
    async with Server(bundle_roots=["."], adopt=False, watch=False, fire_schedules=False) as server:
        definition = await server.load(sys.argv[1])
        await server.run(definition.name)

anyio.run(main)
"""
LINES, TASKS = 20_000, 300
PIPE_GOAL, TERMINAL_GOAL = 1.5, 1.3
NAP = 0.05
"""Seconds that each of the tasks sleeps."""


def prepare(folder: Path) -> None:
    """Write the bundle, the definitions and the silent program."""
    (folder / "bodies.py").write_text(BODIES, encoding="utf-8")
    (folder / "silent.py").write_text(SILENT, encoding="utf-8")
    jobs = {
        "nothing": {"one": {"task": "bodies.talk", "args": {"lines": 0}}},
        "lines": {"one": {"task": "bodies.talk", "args": {"lines": LINES}}},
        "tasks": {f"t{at}": {"task": "bodies.nap", "args": {"seconds": NAP}} for at in range(TASKS)},
    }
    for name, tasks in jobs.items():
        definition = {"format": 1, "name": name, "bundles": {"bodies": "bodies.py"}, "tasks": tasks}
        (folder / f"{name}.json").write_text(json.dumps(definition), encoding="utf-8")


def cost(folder: Path, *words: str, terminal: bool = False) -> float:
    """Return the processor seconds of a Python program whose output is read all the time."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "110", "LINES": "45"}
    process = subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer
    )
    os.close(writer)
    reading = threading.Thread(target=_drain, args=(reader,))
    reading.start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reading.join()
    os.close(reader)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def _drain(reader: int) -> None:
    try:
        while os.read(reader, 1 << 16):
            pass
    except OSError:  # of a terminal that the last writer has left
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    run, silent = ("-m", "scattersphere", "run"), "silent.py"
    cases = {
        "nothing, silent": ((silent, "nothing.json"), False),
        "nothing, pipe": ((*run, "nothing.json"), False),
        "lines, silent": ((silent, "lines.json"), False),
        "lines, pipe": ((*run, "lines.json"), False),
        "lines, --json": ((*run, "--json", "lines.json"), False),
        "lines, terminal": ((*run, "lines.json"), True),
        "tasks, silent": ((silent, "tasks.json"), False),
        "tasks, pipe": ((*run, "tasks.json"), False),
        "tasks, terminal": ((*run, "tasks.json"), True),
    }
    spent: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        for _ in range(rounds + 1):  # the first warms the caches
            for name, (words, terminal) in cases.items():
                spent[name].append(cost(Path(made), *words, terminal=terminal))
    median = {name: statistics.median(found[1:]) for name, found in spent.items()}
    for name, seconds in median.items():
        print(f"{name:18} {seconds * 1e3:7.0f} ms")
    start = median["nothing, silent"]
    print(f"{'':34} whole  without the start")
    for name, base, goal in (
        ("lines, pipe", "lines, silent", PIPE_GOAL),
        ("lines, --json", "lines, silent", None),
        ("lines, terminal", "lines, silent", None),
        ("tasks, terminal", "tasks, pipe", TERMINAL_GOAL),
    ):
        whole, bare = median[name] / median[base], ""
        if base == "lines, silent":  # tasks that sleep cost next to nothing beside the start
            bare = f"{(median[name] - start) / (median[base] - start):.2f}"
        print(f"{name + ' / ' + base:33} {whole:6.2f} {bare:>8}" + (f"   (goal {goal})" if goal else ""))


if __name__ == "__main__":
    main()

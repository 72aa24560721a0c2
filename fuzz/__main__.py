"""`python -m fuzz [SECONDS] [TARGET...]`: each target in a process of its own, guided by what it covers.

SECONDS are for all of them, 600 if nothing is said; other inputs are tried each time. `python -m fuzz --same
[TARGET...]` tries the same ones each time, and needs no atheris: see `fuzz.same`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from fuzz.targets import TARGETS

GUARD = 900
"""Seconds for the same inputs of one target, which take ten: one of them goes on for ever."""
SHOWN = 60
"""Lines of a finding."""


def main(words: list[str]) -> int:
    """Fuzz the targets; return 1 where one has found something."""
    same = words[:1] == ["--same"]
    seconds = 600.0
    if same or (words and words[0].replace(".", "", 1).isdigit()):
        first = words.pop(0)
        seconds = seconds if same else float(first)
    names = words or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
        return 2
    if same:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ends = list(pool.map(_same, names))
    else:
        ends = [_guided(name, max(1, int(seconds / len(names)))) for name in names]
    found = [name for name, end in zip(names, ends, strict=True) if end]
    print(f"found something: {', '.join(found)}" if found else "nothing was found")
    return 1 if found else 0


def _guided(name: str, seconds: int) -> int:
    print(f"{name}: {seconds} s", flush=True)
    command = [sys.executable, "-m", "fuzz.guided", name, str(seconds)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - ourselves


def _same(name: str) -> int:
    command = [sys.executable, "-m", "fuzz.same", name]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=GUARD,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    except subprocess.TimeoutExpired:
        print(
            f"{name}: did not end in {GUARD} s; it takes seconds where no input makes it go on for ever",
            flush=True,
        )
        return 1
    lines = done.stdout.decode(errors="replace").splitlines()
    print("\n".join(lines[-SHOWN:]), flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

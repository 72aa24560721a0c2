"""How long an import and `--help` take: `python -m benchmarks.startup [repetitions]`.

Each sample is a fresh interpreter with its bytecode at hand. Seconds of the processor, so that a busy machine does
not count; the rows take turns; medians. The baseline is an import of the four dependencies.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

HELP = "import sys; sys.argv = ['scattersphere', '--help']; from scattersphere.cli import main; main()"
BASELINE = "import of the four dependencies"
ROWS = {
    "python -c pass": "pass",
    BASELINE: "import anyio, attrs, cattrs, watchfiles",
    "import scattersphere": "import scattersphere",
    "from scattersphere import JobDefinition": "from scattersphere import JobDefinition",
    "from scattersphere import *": "from scattersphere import *",
    "scattersphere --help: goal 250 ms": HELP,
}
CLOCK = "import atexit, sys, time; atexit.register(lambda: print(time.process_time(), file=sys.stderr))\n"


def sample(program: str, cache: str) -> float:
    """Return the milliseconds of processor time of a fresh interpreter."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-c", CLOCK + program], capture_output=True, text=True, check=True, env=environment
    )
    return float(done.stderr.splitlines()[-1]) * 1e3


def main(repetitions: int) -> None:
    """Print a line for each row."""
    taken: dict[str, list[float]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as cache:
        for program in ROWS.values():
            sample(program, cache)  # writes the bytecode
        for _ in range(repetitions):
            for name, program in ROWS.items():
                taken[name].append(sample(program, cache))
    print(
        f"Python {sys.version.split()[0]}, medians of {repetitions}  (ms of the processor; times the baseline)"
    )
    baseline = statistics.median(taken[BASELINE])
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"  {name:44} {median:8.1f}   {median / baseline:6.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

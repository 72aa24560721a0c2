"""`python -m fuzz [SECONDS] [--seed=N] [TARGET...]`: each target in a process of its own, SECONDS altogether.

With a seed the same inputs are tried, in the same order, as far as the time goes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.targets import TARGETS


def main(words: list[str]) -> int:
    """Fuzz the targets one after the other; return 1 where one has found something."""
    seconds = float(words.pop(0)) if words and words[0].replace(".", "", 1).isdigit() else 600.0
    seed = (
        words.pop(0) if words and words[0].startswith("--seed=") else "--seed=0"
    )  # libFuzzer draws one for 0
    names = words or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
        return 2
    found = []
    for name in names:
        each = max(1, int(seconds / len(names)))
        print(f"{name}: {each} s", flush=True)
        if subprocess.run([sys.executable, "-m", "fuzz.one", name, str(each), seed], check=False).returncode:  # noqa: S603 - ourselves
            found.append(name)
    print(f"found something: {', '.join(found)}" if found else "nothing was found")
    return 1 if found else 0


def corpus(name: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the beginnings of a target."""
    folder = tempfile.TemporaryDirectory(prefix=f"scattersphere-{name}-")
    for number, content in enumerate(TARGETS[name][1]):
        Path(folder.name, f"begin-{number}").write_bytes(content)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

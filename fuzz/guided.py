"""`python -m fuzz.guided TARGET SECONDS`: one target, guided by what it covers, with atheris (the group `fuzz`).

It begins with the corpus. What covers more is kept in `build/fuzz/TARGET`, of which `fuzz.corpus` makes a corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scattersphere"]):
    from fuzz.corpus import inputs
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz; a finding is written to the current folder, and ends the process with an error."""
    name, seconds = sys.argv[1:3]
    kept = Path("build", "fuzz", name)
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(inputs(name)):
        (kept / f"begin-{number}").write_bytes(content)
    options = [
        f"-max_total_time={seconds}",
        "-verbosity=0",
        "-max_len=4096",
        "-timeout=60",  # a busy machine is no finding
        *sys.argv[3:],
    ]
    atheris.Setup([sys.argv[0], str(kept), *options], TARGETS[name][0])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

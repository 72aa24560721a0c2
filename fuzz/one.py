"""`python -m fuzz.one TARGET SECONDS --seed=N`: one target, with atheris (the group `fuzz`)."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["scattersphere"]):
    from fuzz.__main__ import corpus
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz; a finding is written to the current folder, and ends the process with an error."""
    name, seconds, seed = sys.argv[1:4]
    with corpus(name) as folder:
        options = [
            sys.argv[0],
            folder,
            f"-max_total_time={seconds}",
            "-verbosity=0",
            "-max_len=4096",
            "-timeout=60",  # a busy machine is no finding
            seed.removeprefix("-"),
        ]
        atheris.Setup(options, TARGETS[name][0])
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""The corpus: inputs that, together, reach what guided fuzzing has reached, one in base64 a line of `corpus/TARGET`.

`python -m fuzz.corpus TARGET FOLDER` writes it anew from the files of a folder, as guided fuzzing leaves them. The
input of a finding is added to it.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from fuzz.targets import TARGETS

FOLDER = Path(__file__).parent / "corpus"


def inputs(name: str) -> list[bytes]:
    """Return what a target begins with."""
    place = FOLDER / name
    lines = place.read_text(encoding="ascii").split() if place.exists() else []
    return [*TARGETS[name][1], *map(base64.b64decode, lines)]


def write(name: str, found: list[bytes]) -> None:
    """Make `found` the corpus of a target, beside its beginnings."""
    new = {each for each in found if each} - set(TARGETS[name][1])
    lines = sorted(base64.b64encode(each).decode() for each in new)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


if __name__ == "__main__":
    write(sys.argv[1], [each.read_bytes() for each in Path(sys.argv[2]).iterdir()])

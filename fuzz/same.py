"""`python -m fuzz.same TARGET`: the corpus, and so many changed inputs as `targets.RUNS` says, the same ones each time.

What it finds depends on the code alone. (libFuzzer does not give the same inputs twice, also with a seed, since what
it tries next follows from what was covered, and that from caches and addresses.)
"""

from __future__ import annotations

import base64
import random
import sys
import traceback
from typing import TYPE_CHECKING

from fuzz.corpus import inputs
from fuzz.targets import RUNS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 4_096
CHANGES = 4
"""How often an input is changed, at most."""
TOKENS = [
    b"\n",
    b"\r\n",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\u0000",
    b"\\ud800",
    b"1e400",
    b"NaN",
    b"-0",
    b"9" * 400,
]
TOKENS += [
    b"\x00",
    b"\xff\xf4",
    b"\xff\xfd\x06",
    b"\xef\xbb\xbf",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"'",
    b"=",
    b":=",
    b"#",
    b"../",
]
"""What readers treat in a way of its own."""


def changed(name: str) -> Iterator[bytes]:
    """Yield the corpus of a target, then what comes of its inputs by chance, always by the same."""
    known = inputs(name)
    yield from known
    chance = random.Random(name)  # noqa: S311 - it is to be foreseen
    for _ in range(RUNS[name]):
        data = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, CHANGES)):
            _change(data, known, chance)
        yield bytes(data[:LONGEST])


def _change(data: bytearray, known: list[bytes], chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((0, 0, 1, 1, 2, 4, 8, 32, 128)))
    match chance.randrange(5):
        case 0:
            data[start:end] = chance.choice(TOKENS)
        case 1:
            data[start:end] = chance.randbytes(chance.randint(0, 4))
        case 2:
            data[start:start] = data[start:end] * chance.choice((1, 1, 2, 50))
        case 3:
            other = chance.choice(known)
            data[start:end] = other[chance.randint(0, len(other)) :][: chance.choice((1, 4, 16, LONGEST))]
        case _:
            if start < len(data):
                data[start] ^= 1 << chance.randrange(8)


def main(name: str) -> int:
    """Try them all; a finding is shown with its input, and the rest is tried all the same."""
    tried = found = 0
    for data in changed(name):
        tried += 1
        try:
            TARGETS[name][0](data)
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            found += 1
            if found == 1:
                print(base64.b64encode(data).decode())
                traceback.print_exc(file=sys.stdout)
    print(f"{name}: {tried} inputs, {found} of them found something")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

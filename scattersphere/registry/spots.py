"""Where on disk one must listen to hear of every change to a path.

A *spot* is a pair of a folder and a name in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.registry.scan import is_ignored

if TYPE_CHECKING:
    from collections.abc import Iterator

Spot = tuple[str, str]

ANY = "*"
"""In the place of a name: whatever is in the folder."""

LINKS = 40
"""Links on one path that are followed; the system itself follows as many."""


def spots_of(path: Path) -> frozenset[Spot]:
    """Return the spots of `path`, which need not exist.

    They are: the path itself in its folder, each symbolic link on the way to it (`current`, `..data`),
    everything below it if it is a folder; and where something is missing, its name in the nearest folder
    that is there. Folders are given as they are, without links.
    """
    found = set(_on_the_way(path))
    real = os.path.realpath(path)
    if Path(real).is_dir():
        found |= {(folder, ANY) for folder in _folders(real)}
    return frozenset(found)


def _on_the_way(path: Path) -> Iterator[Spot]:
    """Walk from the root of the file system to the path, link by link, as the system does."""
    folder, *rest = path.parts
    names = rest[::-1]
    links = 0
    spot = (folder, "")
    while names:
        name = names.pop()
        if name == os.pardir:
            folder = str(Path(folder).parent)
            continue
        spot = (folder, name)
        whole = Path(folder) / name
        if not os.path.lexists(whole):
            yield spot
            return
        if whole.is_symlink() and links < LINKS:
            yield spot
            links += 1
            target = whole.readlink()
            if target.is_absolute():
                folder = target.anchor
            names += [part for part in reversed(target.parts) if part != target.anchor]
        else:
            folder = str(whole)
    yield spot


def _folders(real: str) -> Iterator[str]:
    for folder, inner, _ in os.walk(real):
        inner[:] = [name for name in inner if not is_ignored(name)]
        yield folder

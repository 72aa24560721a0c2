"""Change notification of the operating system (inotify, FSEvents by watchfiles), and where to listen for a path.

A notification says where to look, and nothing else. Its kind, its order and whether it comes at all differ between
systems, file systems and mounts.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

# The class behind `watchfiles.awatch`, which its documentation offers for direct use: `awatch` holds a place
# among the host's worker threads, and takes up to five seconds to end when it is cancelled.
from watchfiles._rust_notify import RustNotify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet


STEP = 10
"""Milliseconds between two looks at what the system has reported. An idle watch costs 0.3 % of a core so."""

GATHER = 50
"""Milliseconds for which notifications that do not cease are gathered into one."""

_DELETED = 3
"""watchfiles' number for "deleted"."""


class ChangeNotifier(Protocol):
    """What the watcher needs to know of a source of change notifications."""

    def wait(self) -> Changes | None:
        """Wait, in a thread, for the next changes; None once it is closed. Raises OSError, RuntimeError."""

    def close(self) -> None:
        """End the waiting, soon, from any thread."""


class Changes:
    """Of the paths that may have changed, all targets that hear of them; and the paths that were deleted or moved away.

    There may be thousands: they are made in the thread that waits, so that the loop only compares sets.
    """

    __slots__ = ("gone", "targets")

    def __init__(self, paths: Iterable[str], gone: frozenset[str]) -> None:
        targets = set[WatchTarget]()
        for path in paths:
            folder, name = os.path.split(path)
            targets.update(((folder, name), (folder, ANY), (path, ANY)))
        self.targets: AbstractSet[WatchTarget] = targets
        self.gone: frozenset[str] = gone


class FolderNotifier:
    """Listens to the entries of folders, not to what lies deeper. Raises OSError where that cannot be had."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._stop = threading.Event()
        # Not recursive: the parent of a bundle may be a home folder.
        self._notify = RustNotify(sorted(folders), False, False, 0, False, True)

    def wait(self) -> Changes | None:
        """Wait for the next changes; see `ChangeNotifier`. Lets go of the system's watches when it was closed."""
        try:
            changes = self._notify.watch(GATHER, STEP, 0, self._stop)
        except BaseException:
            self._notify.close()
            raise
        if isinstance(changes, str):  # "stop"; without a time limit, and in a thread, no other can come
            self._notify.close()
            return None
        return Changes(
            {path for _, path in changes},
            frozenset(path for kind, path in changes if kind == _DELETED),
        )

    def close(self) -> None:
        """End the waiting."""
        self._stop.set()


WatchTarget = tuple[str, str]
"""A folder and a name in it: to hear of every change to a path one must listen in several places."""

ANY = "*"
"""In the place of a name: whatever is in the folder."""

LINKS = 40
"""Links on one path that are followed; the system itself follows as many."""


def is_hidden(folder: str) -> bool:
    """Whether a folder is not listened to unless somebody says so."""
    return os.path.basename(folder).startswith(".")  # noqa: PTH119 - plain strings


def targets_of(path: Path, skip: Callable[[str], bool] = is_hidden) -> frozenset[WatchTarget]:
    """Return where to listen for changes of `path`, which need not exist; `skip` tells folders that do not count.

    They are: the path itself in its folder, each symbolic link on the way to it (`current`, `..data`),
    everything below it if it is a folder; and where something is missing, its name in the nearest folder
    that is there. Folders are given as they are, without links.
    """
    found = set(on_the_way(path))
    real = os.path.realpath(path)
    if Path(real).is_dir():
        found |= {(folder, ANY) for folder in _folders(real, skip)}
    return frozenset(found)


def on_the_way(path: Path) -> Iterator[WatchTarget]:
    """Walk from the root of the file system to the path, link by link, as the system does: yield each, and the last."""
    folder, *rest = path.parts
    names = rest[::-1]
    links = 0
    target = (folder, "")
    while names:
        name = names.pop()
        if name == os.pardir:
            folder = str(Path(folder).parent)
            continue
        target = (folder, name)
        whole = Path(folder) / name
        if not os.path.lexists(whole):
            yield target
            return
        if whole.is_symlink() and links < LINKS:
            yield target
            links += 1
            destination = whole.readlink()
            if destination.is_absolute():
                folder = destination.anchor
            names += [part for part in reversed(destination.parts) if part != destination.anchor]
        else:
            folder = str(whole)
    yield target


def _folders(real: str, skip: Callable[[str], bool]) -> Iterator[str]:
    for folder, inner, _ in os.walk(real):
        inner[:] = [name for name in inner if not skip(os.path.join(folder, name))]  # noqa: PTH118 - plain strings
        yield folder

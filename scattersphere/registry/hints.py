"""Hints of the operating system that something in a folder may have changed (watchfiles; inotify, FSEvents).

A hint says where to look, and nothing else. Its kind, its order and whether it comes at all differ between
systems, file systems and mounts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

# The class behind `watchfiles.awatch`, which its documentation offers for direct use: `awatch` holds a place
# among the host's worker threads, and takes up to five seconds to end when it is cancelled.
from watchfiles._rust_notify import RustNotify

if TYPE_CHECKING:
    from collections.abc import Iterable

STEP = 10
"""Milliseconds between two looks at what the system has reported. An idle watch costs 0.3 % of a core so."""

GATHER = 50
"""Milliseconds for which hints that do not cease are gathered into one."""

_DELETED = 3
"""watchfiles' number for "deleted"."""


class Hints(Protocol):
    """What the watcher needs to know of a source of hints."""

    def wait(self) -> Heard | None:
        """Wait, in a thread, for the next hints; None once it is closed. Raises OSError, RuntimeError."""

    def close(self) -> None:
        """End the waiting, soon, from any thread."""


class Heard:
    """The paths that may have changed, and those that were deleted or moved away."""

    __slots__ = ("gone", "paths")

    def __init__(self, paths: frozenset[str], gone: frozenset[str]) -> None:
        self.paths: frozenset[str] = paths
        self.gone: frozenset[str] = gone


class FolderHints:
    """Listens to the entries of folders, not to what lies deeper. Raises OSError where that cannot be had."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._stop = threading.Event()
        # Not recursive: the parent of a bundle may be a home folder.
        self._notify = RustNotify(sorted(folders), False, False, 0, False, True)

    def wait(self) -> Heard | None:
        """Wait for the next hints; see `Hints`. Lets go of the system's watches when it was closed."""
        changes = self._notify.watch(GATHER, STEP, 0, self._stop)
        if isinstance(changes, str):  # "stop"; without a time limit, and in a thread, no other can come
            self._notify.close()
            return None
        return Heard(
            frozenset(path for _, path in changes),
            frozenset(path for kind, path in changes if kind == _DELETED),
        )

    def close(self) -> None:
        """End the waiting."""
        self._stop.set()

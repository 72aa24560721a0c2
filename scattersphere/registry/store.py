"""The folder in which the snapshots of one registry lie, and the sweeping of those of dead processes.

Each store holds a file that its process keeps locked; the kernel lets the lock go when the process dies,
however it dies. So a store whose lock can be taken belongs to nobody. (A process id would not do: two
containers that share a folder count processes separately.)
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STORE_VARIABLE = "SCATTERSPHERE_STORE"
"""Names the stores to a worker process that must import versions, separated as in PATH."""

LOCK = "lock"


def user_folder() -> Path:
    """Return the folder of this user's stores below the temporary folder; it may not exist."""
    user = os.getuid() if sys.platform != "win32" else 0
    return Path(tempfile.gettempdir()) / f"scattersphere-{user}"


def stores_of(process: int) -> list[Path]:
    """Return the stores that the process with this id may have made."""
    return sorted(user_folder().glob(f"{process}-*"))


class SnapshotStore:
    """A private folder (mode 0700) with one folder for each loaded version. It vanishes with `close`."""

    def __init__(self) -> None:
        home = user_folder()
        self.folder: Path
        made = _make_below(home)
        if made is None:  # someone else made a folder of that name: keep away from it, without sweeping
            folder = Path(tempfile.mkdtemp(prefix="scattersphere-"))
            made = folder, _try_lock(folder / LOCK)
        self.folder, self._lock = made
        self._finalizer = weakref.finalize(self, _remove, self.folder, self._lock, os.getpid())

    def folder_for(self, slug: str) -> Path:
        """Return the folder of the version `slug`, which does not exist yet."""
        return self.folder / slug

    def discard(self, slug: str) -> None:
        """Delete a version's files; what cannot be deleted now goes with the store."""
        shutil.rmtree(self.folder_for(slug), ignore_errors=True)

    def close(self) -> None:
        """Delete everything. In a forked child do nothing: the files are the parent's."""
        self._finalizer()


def _make_below(home: Path) -> tuple[Path, int | None] | None:
    """Make a store below the user's folder; None if that is not ours to use."""
    while _make_private(home):
        with suppress(FileNotFoundError), _locked(home / LOCK) as valid:
            if valid:
                _sweep(home)
                folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
                return folder, _try_lock(folder / LOCK)
        # Whoever closed the last store has removed the folder meanwhile: make it anew.
    return None


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if lock is not None:
        with suppress(OSError):
            os.close(lock)
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_if_last(folder.parent)


def _remove_if_last(home: Path) -> None:
    """Remove the user's folder with its lock, when no store is left in it."""
    if home != user_folder() or not (home / LOCK).exists():
        return
    with _locked(home / LOCK) as valid:
        if valid and not any(home.glob("*-*")):
            with suppress(OSError):
                (home / LOCK).unlink()
                home.rmdir()


def _make_private(home: Path) -> bool:
    """Make the user's folder; False if what stands there is not a private folder of this user."""
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    if sys.platform == "win32":
        return True
    found = home.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _sweep(home: Path) -> None:
    for folder in home.glob("*-*"):
        lock = _try_lock(folder / LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Hold the lock that lets only one process at a time make or sweep stores.

    Yields False if the file was removed, and perhaps made anew, while we waited for it: then the
    lock that we hold protects nothing.
    """
    lock = _try_lock(file, wait=True)
    try:
        yield lock is not None and _is_same(lock, file)
    finally:
        if lock is not None:
            os.close(lock)


if sys.platform == "win32":  # pragma: no cover - the suite runs on POSIX

    def _try_lock(file: Path, *, wait: bool = False) -> int | None:
        """Windows refuses to delete an open file, so an open file is lock enough; see `_sweep`."""
        if not wait and file.exists():
            try:
                file.unlink()
            except OSError:
                return None
        return os.open(file, os.O_RDWR | os.O_CREAT)

else:
    import fcntl

    def _try_lock(file: Path, *, wait: bool = False) -> int | None:
        """Return a descriptor that holds the lock, or None if another process holds it."""
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

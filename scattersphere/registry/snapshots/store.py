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
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.registry.snapshots.content import SourcePool

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

    def __init__(self, parent: Path | None = None) -> None:
        self.folder: Path
        with _home() if parent is None else nullcontext() as home:
            if parent is not None:  # a folder of the host's choice is the host's to sweep
                parent.mkdir(parents=True, exist_ok=True)
                self.folder = Path(tempfile.mkdtemp(prefix="snapshots-", dir=parent))
            elif home is None:  # someone else made a folder of that name: keep away from it, and do not sweep
                self.folder = Path(tempfile.mkdtemp(prefix="scattersphere-"))
            else:
                _sweep(home)
                self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
            lock = _try_lock(self.folder / LOCK)
        self.pool: SourcePool = SourcePool()
        self._finalizer = weakref.finalize(self, _remove, self.folder, lock, os.getpid())

    def folder_for(self, slug: str) -> Path:
        """Return the folder of the version `slug`, which does not exist yet."""
        return self.folder / slug

    def discard(self, slug: str) -> None:
        """Delete a version's files; what cannot be deleted now goes with the store."""
        self.pool.forget(self.folder_for(slug))
        shutil.rmtree(self.folder_for(slug), ignore_errors=True)

    def close(self) -> None:
        """Delete everything. In a forked child do nothing: the files are the parent's."""
        self._finalizer()


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if lock is not None:
        with suppress(OSError):
            os.close(lock)
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others have stores in it, or it is the temporary folder itself
            user_folder().rmdir()


def _sweep(home: Path) -> None:
    """Delete the stores of dead processes. Only while `home` is locked: a new store is not locked at once."""
    for folder in home.glob("*-*"):
        lock = _try_lock(folder / LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


if sys.platform == "win32":  # pragma: no cover - the suite runs on POSIX

    @contextmanager
    def _home() -> Iterator[Path | None]:
        """Windows gives each user a temporary folder of their own; two stores made at once may clash."""
        user_folder().mkdir(exist_ok=True)
        yield user_folder()

    def _try_lock(file: Path) -> int | None:
        """Windows refuses to delete an open file: an open file is lock enough."""
        try:
            file.unlink(missing_ok=True)
            return os.open(file, os.O_RDWR | os.O_CREAT)
        except OSError:
            return None

else:
    import fcntl

    @contextmanager
    def _home() -> Iterator[Path | None]:
        """Lock this user's folder, made if need be; None if what stands there is not private."""
        home = user_folder()
        while _make_private(home):
            descriptor = _lock_folder(home)
            if descriptor is not None:
                try:
                    yield home
                finally:
                    os.close(descriptor)
                return
        yield None

    def _make_private(home: Path) -> bool:
        with suppress(FileExistsError):
            home.mkdir(mode=0o700)
        try:
            seen = home.lstat()
        except FileNotFoundError:  # removed in between by the last one that used it
            return _make_private(home)
        return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077

    def _lock_folder(home: Path) -> int | None:
        """Return a descriptor that holds the lock; None if the folder was removed while we waited."""
        try:
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if home.lstat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)
        return None

    def _try_lock(file: Path) -> int | None:
        """Return a descriptor that holds the lock, or None if another process holds it."""
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

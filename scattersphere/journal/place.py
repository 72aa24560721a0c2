"""The files of a journal, their permissions, and the lock that keeps a second owner out.

The lock is the kernel's (`flock` on a file beside), so it is let go of when its holder's process ends, however that
ends, and never before: a holder that is stopped keeps it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from itertools import chain, count
from pathlib import Path

import attrs

from scattersphere.errors import BundleRefusedError, JournalBusyError, JournalError
from scattersphere.registry.snapshots.scan import refuse_written_by_others

_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "autofs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
    }
    | {"gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs"}
)
"""File systems whose locks and shared memory SQLite's WAL cannot rely on."""


@attrs.frozen
class JournalFiles:
    """The files of a journal: the database, SQLite's own two beside it, the lock, and the folder of large values."""

    database: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> JournalFiles:
        """Return the files of the journal at `path`, links followed: one journal has one lock."""
        return cls(Path(os.path.realpath(path)))

    @property
    def lock(self) -> Path:
        """The file whose lock the owner has; it holds the owner's process id."""
        return self._beside(".lock")

    @property
    def values(self) -> Path:
        """The folder of values that are too large for a row."""
        return self._beside(".values")

    @property
    def sqlite_files(self) -> tuple[Path, Path]:
        """What SQLite keeps beside the database while it is in use."""
        return self._beside("-wal"), self._beside("-shm")

    @property
    def all(self) -> tuple[Path, ...]:
        """All that makes up the journal; the lock is nothing of it."""
        return self.database, *self.sqlite_files, self.values

    def _beside(self, ending: str) -> Path:
        return self.database.with_name(self.database.name + ending)


def free_place(path: Path) -> JournalFiles:
    """Return where a journal can be put aside: at `path`, or, since nothing is overwritten, at `path`-2, -3, ..."""
    paths = chain([path], (path.with_name(f"{path.name}-{number}") for number in count(2)))
    return next(place for place in map(JournalFiles, paths) if not any(map(os.path.lexists, place.all)))


def remove(files: JournalFiles) -> None:
    """Delete what is there of a journal, or of a copy that was begun."""
    for file in (files.database, *files.sqlite_files):
        file.unlink(missing_ok=True)
    shutil.rmtree(files.values, ignore_errors=True)


def refuse_unsafe_folder(folder: Path) -> None:
    """Raise `JournalError` unless a journal may lie in a folder: a local one, which nobody else may write.

    Who can write a journal has its code executed when it is opened, so the rule is that of bundles.
    """
    try:
        status = folder.stat()
        refuse_written_by_others(status, str(folder))
    except BundleRefusedError as error:
        raise JournalError(f"no journal can be kept there: {error}") from None
    except OSError as error:
        raise JournalError(f"no journal can be kept in {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise JournalError(f"no journal can be kept in {folder}: it is no folder")
    if not may_write(folder):
        raise JournalError(
            f"no journal can be kept in {folder}: this program may not write there, and SQLite makes files beside it"
        )
    found = file_system(folder)
    if found in _NETWORK:
        raise JournalError(
            f"{folder} is on a network file system ({found}), whose locks SQLite cannot rely on; "
            "put the journal on a local disk"
        )


def may_write(folder: Path) -> bool:
    """Whether this program may make files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def make_files(files: JournalFiles) -> None:
    """Make the database and the folder of values where there are none; raise `JournalError` unless they are the user's.

    Only what does not exist yet is opened here: closing a file that SQLite has open in the same process would drop
    its locks.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(files.database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.suppress(FileExistsError):
            files.values.mkdir(0o700)
    except OSError as error:
        raise JournalError(f"the journal {files.database} cannot be made: {error.strerror}") from None
    refuse_foreign_files(files)


def refuse_foreign_files(files: JournalFiles) -> None:
    """Raise `JournalError` unless what is there of a journal is this user's, and nobody else's to read or write."""
    for path in (files.database, *files.sqlite_files, files.values):
        with contextlib.suppress(FileNotFoundError):
            _refuse_foreign(path, folder=path == files.values)


def _refuse_foreign(path: Path, *, folder: bool) -> None:
    """Raise `JournalError` unless a file or folder is this user's, and nobody else's to read or write."""
    status = path.lstat()
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
        raise JournalError(f"{path}: not a {'folder' if folder else 'regular file'}")
    _refuse_other_owner(path, status)
    needed = 0o700 if folder else 0o600
    for wrong, who in (
        (status.st_mode & 0o077, "others than its owner may read or write it"),
        (needed & ~status.st_mode, "its owner may not read and write it"),
    ):
        if wrong:
            raise JournalError(f"{path}: {who}; run chmod {needed:o} on it")
    if not folder and status.st_nlink > 1:
        raise JournalError(
            f"{path} has a second name (a hard link): two programs would each take it for theirs"
        )


def _refuse_other_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise JournalError(
            f"{path} belongs to the user {status.st_uid}; a journal is opened by its owner alone, "
            "since it holds code that is executed"
        )


def file_system(folder: Path) -> str | None:
    """Return the kind of the file system that a folder is on; None where the system does not say."""
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return None
    real, longest, found = os.path.realpath(folder), -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = before.split()[4].encode().decode("unicode_escape")  # a blank is \040
        inside = real == mounted or real.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= longest:  # the later of two at one place lies above
            longest, found = len(mounted), after.split()[0]
    return found


class JournalLock:
    """The lock of a journal's owner. Raises `JournalBusyError` where another one has it, `JournalError`."""

    def __init__(self, files: JournalFiles) -> None:
        try:
            import fcntl  # noqa: PLC0415 - POSIX only
        except ImportError:
            raise JournalError("a journal needs the locks of a POSIX system") from None
        with contextlib.suppress(FileNotFoundError):  # first: a lock of root's would keep the owner out
            _refuse_other_owner(files.database, files.database.lstat())
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file: int | None = os.open(files.lock, flags, 0o600)
        except OSError as error:
            raise JournalError(f"the lock {files.lock} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            self.close()
            if not isinstance(error, BlockingIOError):
                raise JournalError(f"the lock {files.lock} cannot be taken: {error.strerror}") from None
            raise JournalBusyError(_busy(files, holder)) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the lock. In a forked child this only closes the copy of the descriptor: the parent keeps it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _busy(files: JournalFiles, holder: str) -> str:
    if holder == str(os.getpid()):
        return (
            f"the journal {files.database} is held by another Server of this process; two need two journals"
        )
    whose = f"the process {holder}" if holder else "another process"
    return (
        f"the journal {files.database} is held by {whose}. Wait until that has ended, or end it; "
        f"`scattersphere runs --journal {files.database}` reads it meanwhile"
    )

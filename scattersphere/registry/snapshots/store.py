"""The folder of the snapshots of one registry: how files are read, written and digested, and who sweeps dead ones.

Each store holds a file that its process keeps locked; the kernel lets the lock go when the process dies,
however it dies. So a store whose lock can be taken belongs to nobody. (A process id would not do: two
containers that share a folder count processes separately.)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
import weakref
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.errors import BundleRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


DIGEST_BYTES = 20
LENGTH_BYTES = 8

FORM = "-2"
"""The end of every digest of a bundle. The first form had none; what has another is equal to nothing of this one."""

_DIGEST = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}{FORM}")


class SourcePool:
    """Where the sources of earlier snapshots lie, so that equal ones are linked instead of written again.

    A link costs a tenth of a new file, and most reloads change one module of many. Only `.py` files are
    shared: code may well write into its data files, and that must not reach another version.
    """

    def __init__(self) -> None:
        self._files: dict[bytes, str] = {}

    def place(self, file: str, content: bytes) -> bytes:
        """Put a file into a snapshot, readable for the owner only; return the digest of its content."""
        digest = digest_of(content)
        if not file.endswith(".py"):
            _write(file, content)
            return digest
        known = self._files.get(digest)
        if known is None or not _linked(known, file):
            _write(file, content)
        self._files[digest] = file  # the newest lives longest
        return digest

    def forget(self, folder: Path) -> None:
        """Forget the files below `folder`, which is deleted."""
        below = f"{folder}{os.sep}"
        for digest, file in list(self._files.items()):
            if file.startswith(below):
                self._files.pop(digest, None)


def _linked(known: str, file: str) -> bool:
    try:
        os.link(known, file)
    except FileNotFoundError:  # most likely the first file of a folder
        return _make_folder(file) and _linked(known, file)
    except OSError:  # too many links, or a file system without them
        return False
    return True


def _make_folder(file: str) -> bool:
    """Make the folder of `file`; False if it was there already. Files are many, folders few."""
    folder = Path(file).parent
    if folder.is_dir():
        return False
    folder.mkdir(mode=0o700, parents=True)
    return True


def _write(file: str, content: bytes) -> None:
    try:
        _write_new(file, content)
    except FileNotFoundError:
        if not _make_folder(file):
            raise
        _write_new(file, content)


def _write_new(file: str, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def read_regular(file: str, room: int) -> bytes:
    """Read at most `room` bytes; O_NONBLOCK so that a pipe put there meanwhile cannot hold us."""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleRefusedError(f"{Path(file).name}: not a regular file")
        parts, size = [], status.st_size
        # A little more than its size: the first read sees the end, unless it grows meanwhile.
        while size <= room and (part := os.read(descriptor, status.st_size + 1)):
            parts.append(part)
            size = sum(map(len, parts))
            if len(parts) == 1 and size == status.st_size:
                break
        if size > room:
            raise BundleRefusedError("larger than the limit of unpacked bytes; see SourceLimits.unpacked")
    finally:
        os.close(descriptor)
    return b"".join(parts)


def digest_of(content: bytes) -> bytes:
    """Return what a file's content is known by: its length, and its hash."""
    return (
        len(content).to_bytes(LENGTH_BYTES, "big")
        + hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
    )


def size_of(digest: bytes) -> int:
    """Return the length of the content that has this digest."""
    return int.from_bytes(digest[:LENGTH_BYTES], "big")


def digest_of_all(files: Mapping[str, bytes]) -> str:
    """Digest a bundle from the digests of its files: the same content is the same version, on every machine.

    Names and what they stand for are written with their lengths, so that no two bundles are one text.
    """
    total = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"scattersphere-2")
    for encoded, digest in sorted((name.encode("utf-8", "surrogateescape"), files[name]) for name in files):
        for part in (encoded, digest):
            total.update(len(part).to_bytes(LENGTH_BYTES, "big") + part)
    return total.hexdigest() + FORM


def check_digest(digest: str) -> None:
    """Raise BundleRefusedError for what is no digest of a bundle's content, or one of another form."""
    if not isinstance(digest, str):
        raise TypeError(f"the digest of a bundle is a str, not {type(digest).__name__}")
    if not _DIGEST.fullmatch(digest):
        raise BundleRefusedError(
            f"digest {digest[:80]!r} is of another form than the digests of this release, which end in {FORM!r}: "
            f"register the bundle from its file"
        )


def refuse_clashes(names: Iterable[str]) -> None:
    """Refuse files that stand there twice, or that a file system without case cannot tell apart."""
    spelled: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        paths = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        for path in paths:
            folded = unicodedata.normalize("NFC", path).casefold()
            if spelled.setdefault(folded, path) != path:
                raise BundleRefusedError(f"{path} and {spelled[folded]} differ only in case; rename one")
        if name in files:
            raise BundleRefusedError(f"{name} stands there twice")
        files.add(name)
        folders.update(paths[:-1])
    if both := files & folders:
        raise BundleRefusedError(f"{min(both)} is both a file and a folder")


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
    """A private folder (mode 0700) with one folder for each loaded version, of its name. It vanishes with `close`."""

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

    def discard(self, slug: str) -> None:
        """Delete a version's files; what cannot be deleted now goes with the store."""
        self.pool.forget(self.folder / slug)
        shutil.rmtree(self.folder / slug, ignore_errors=True)

    def close(self) -> None:
        """Delete everything. In a forked child do nothing: the files are the parent's."""
        self._finalizer()


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if lock is not None:
        with suppress(OSError):
            os.close(lock)
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_home()


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

    def _remove_home() -> None:
        with suppress(OSError):  # others have stores in it
            user_folder().rmdir()

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

    def _remove_home() -> None:
        """Remove this user's folder if it is empty, and nobody is about to make a store in it."""
        with suppress(OSError):
            descriptor = os.open(user_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                user_folder().rmdir()
            finally:
                os.close(descriptor)

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

"""Looking at a bundle's files without reading them: what counts, what is refused, what changed.

The truth about a change is a scan like this one; a watcher only says when to look again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from scattersphere.errors import BundleRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

IGNORED_FOLDERS = frozenset({"__pycache__", "node_modules"})
IGNORED_ENDINGS = ("~", ".pyc", ".pyo", ".swp", ".swx", ".tmp", ".part", ".partial", ".crdownload")
"""Leavings of Python, editors and downloads. Names that begin with a dot are ignored as well."""


@attrs.frozen(kw_only=True)
class SourceLimits:
    """How large a bundle may be; more is refused before any of it is executed."""

    unpacked: int = 256 * 1024 * 1024
    """Bytes of all files together."""
    entries: int = 20_000
    """Files and folders."""
    ratio: int = 200
    """Unpacked bytes for each byte of an archive. Deflate reaches 1,000 only on bombs."""
    depth: int = 32
    """Folders inside each other."""


@attrs.frozen
class Signature:
    """What a scan saw; two that are equal mean that nothing was written in between."""

    real_path: str
    files: tuple[tuple[str, int, int, int], ...]
    """Relative path, modification time in ns, size, inode."""
    newest_change: int
    """The newest inode change time in ns: it moves even where the modification time is put back."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is no part of a bundle."""
    return name.startswith(".") or name in IGNORED_FOLDERS or name.endswith(IGNORED_ENDINGS)


def signature(path: Path, limits: SourceLimits | None = None) -> Signature:
    """Scan the bundle at `path`; FileNotFoundError if it is gone, BundleRefusedError if unsafe."""
    real = os.path.realpath(path)
    files, newest = [], 0
    for name, file in walk(path, limits or SourceLimits()):
        seen = file.stat()
        files.append((name, seen.st_mtime_ns, seen.st_size, seen.st_ino))
        newest = max(newest, seen.st_ctime_ns)
    return Signature(real, tuple(files), newest)


def walk(path: Path, limits: SourceLimits) -> Iterator[tuple[str, Path]]:
    """Yield (relative path with slashes, file) of each regular file, in a fixed order.

    A single file has the relative path "". Links are followed while they stay inside the bundle's
    real folder (Kubernetes mounts are built of such links); one that leads out is refused.
    """
    if not path.is_dir():
        _refuse_special(path, path.name)
        yield "", path
        return
    found = _Walk(Path(os.path.realpath(path)), limits)
    yield from found.folder(path, "", ())


class _Walk:
    """One walk through a folder; it counts entries and remembers the real folders it stands in."""

    def __init__(self, root: Path, limits: SourceLimits) -> None:
        self.root = root
        self.limits = limits
        self.entries = 0

    def folder(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
        real = Path(os.path.realpath(folder))
        if real in above:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: a link makes a loop of folders")
        if len(above) >= self.limits.depth:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: more than {self.limits.depth} folders deep")
        for entry in sorted(folder.iterdir()):
            if is_ignored(entry.name):
                continue
            name = prefix + entry.name
            self._count()
            self._refuse_escape(entry, name)
            if entry.is_dir():
                yield from self.folder(entry, name + "/", (*above, real))
            else:
                _refuse_special(entry, name)
                yield name, entry

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise BundleRefusedError(f"more than {self.limits.entries:,} files and folders")

    def _refuse_escape(self, entry: Path, name: str) -> None:
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(self.root):
            raise BundleRefusedError(f"{name}: a link that leads out of the bundle; copy the file into it")


def _refuse_special(path: Path, name: str) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise BundleRefusedError(f"{name}: not a regular file (a device, a pipe or a socket)")

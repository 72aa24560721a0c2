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
from scattersphere.registry.trust import refuse_written_by_others

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

IGNORED_FOLDERS = frozenset({"__pycache__", "node_modules"})
IGNORED_ENDINGS = ("~", ".pyc", ".pyo", ".swp", ".swx", ".tmp", ".part", ".partial", ".crdownload")
"""Leavings of Python, editors and downloads. Names that begin with a dot are ignored as well."""


@attrs.frozen(kw_only=True)
class SourceLimits:
    """How large a bundle may be; more is refused before any of it is executed. And what is kept of old ones."""

    unpacked: int = 256 * 1024 * 1024
    """Bytes of all files together."""
    entries: int = 20_000
    """Files and folders."""
    ratio: int = 200
    """Unpacked bytes for each byte of an archive. Deflate reaches 1,000 only on bombs."""
    depth: int = 32
    """Folders inside each other."""
    kept: int = 1024 * 1024 * 1024
    """Bytes of the files of all released versions together that stay because kept runs name them."""


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


@attrs.frozen
class Found:
    """One file that a scan met."""

    name: str
    """Relative to the bundle, with slashes; "" for a bundle that is a single file."""
    path: str
    status: os.stat_result


def signature(path: Path, limits: SourceLimits | None = None) -> Signature:
    """Scan the bundle at `path`; FileNotFoundError if it is gone, BundleRefusedError if unsafe."""
    return signature_of(path, scan(path, limits or SourceLimits()))


def signature_of(path: Path, found: Iterable[Found]) -> Signature:
    """Return the signature of what a scan of `path` found."""
    files, newest = [], 0
    for file in found:
        status = file.status
        files.append((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
        newest = max(newest, status.st_ctime_ns)
    return Signature(os.path.realpath(path), tuple(files), newest)


def scan(path: Path, limits: SourceLimits) -> list[Found]:
    """Return each regular file of the bundle at `path`, in a fixed order.

    Links are followed while they stay inside the bundle's real folder (Kubernetes mounts are built
    of such links); one that leads out is refused.
    """
    if not path.is_dir():
        return [_regular(path.name, "", os.fspath(path), path.stat())]
    root = os.path.realpath(path)
    return list(_Walk(root, limits).folder(root, "", ()))


class _Walk:
    """One walk through a folder; it counts entries and remembers the real folders it stands in.

    With `os.scandir` and plain strings: every reload and every look at a watched bundle comes through here.
    """

    def __init__(self, root: str, limits: SourceLimits) -> None:
        self.root = root
        self.limits = limits
        self.entries = 0

    def folder(self, real: str, prefix: str, above: tuple[str, ...]) -> Iterator[Found]:
        if real in above:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: a link makes a loop of folders")
        if len(above) >= self.limits.depth:
            raise BundleRefusedError(f"{prefix.rstrip('/')}: more than {self.limits.depth} folders deep")
        refuse_written_by_others(os.stat(real), prefix.rstrip("/") or real)  # noqa: PTH116 - a plain string, often
        with os.scandir(real) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if is_ignored(entry.name):
                continue
            name = prefix + entry.name
            self._count()
            # The folder that we stand in is real, so only a link can lead elsewhere.
            target = self._followed(entry, name) if entry.is_symlink() else entry.path
            if entry.is_dir():
                yield from self.folder(target, name + "/", (*above, real))
            else:
                status = entry.stat()
                refuse_written_by_others(status, name)
                yield _regular(name, name, entry.path, status)

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise BundleRefusedError(f"more than {self.limits.entries:,} files and folders")

    def _followed(self, entry: os.DirEntry[str], name: str) -> str:
        target = os.path.realpath(entry.path)
        if not Path(target).is_relative_to(self.root):
            raise BundleRefusedError(f"{name}: a link that leads out of the bundle; copy the file into it")
        return target


def _regular(shown: str, name: str, path: str, status: os.stat_result) -> Found:
    if not stat.S_ISREG(status.st_mode):
        raise BundleRefusedError(f"{shown}: not a regular file (a device, a pipe or a socket)")
    return Found(name, path, status)

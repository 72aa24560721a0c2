"""Safe extraction of a `.zip` or `.whl` that somebody else made, without believing what it says of itself."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import stat
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots.scan import (
    IGNORE_FILE,
    IgnorePatterns,
    SourceLimits,
    is_ignored,
    patterns_of,
)
from scattersphere.registry.snapshots.store import SourcePool, refuse_clashes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import IO

COMPONENT_LIMIT = 255
"""Bytes of one name that file systems take."""

METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""LZMA and bzip2 may ask for much memory before the first byte comes out. Python's tools write deflate."""

ENCRYPTED = 0x1
CHUNK = 1024 * 1024

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files in an export: the first that a zip can tell."""

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unpack(path: Path, target: Path, limits: SourceLimits, pool: SourcePool) -> dict[str, bytes]:
    """Unpack into `target` and return the digest of each file; BundleRefusedError says what is unsafe.

    The archive is copied first: zipfile reads the directory at the end and the entries later, and the
    file may be replaced in between.
    """
    with tempfile.TemporaryFile(dir=target) as copy:
        size = _copy(path, copy, limits.unpacked)
        return _unpack(copy, size, str(path), target, limits, pool, _checked, wheel=path.suffix == ".whl")


def unpack_export(content: bytes, target: Path, limits: SourceLimits, pool: SourcePool) -> dict[str, bytes]:
    """Unpack what `export` made, every file under the name that it has there; else as `unpack` does."""
    return _unpack(io.BytesIO(content), len(content), "the bytes", target, limits, pool, _as_they_are)


def export(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return an archive of `files` (name and content) that has the same bytes on every machine.

    A plain zip, stored and not deflated: what deflate gives differs between its implementations.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # POSIX, whatever this machine is
            entry.external_attr = (stat.S_IFREG | 0o600) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _unpack(
    copy: IO[bytes],
    size: int,
    shown: str,
    target: Path,
    limits: SourceLimits,
    pool: SourcePool,
    check: Callable[[zipfile.ZipFile, int, SourceLimits], dict[str, zipfile.ZipInfo]],
    *,
    wheel: bool = False,
) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    try:
        with _open(copy) as archive:
            entries = check(archive, size, limits)
            record = _record_of(archive) if wheel else None
            for name, entry in entries.items():
                content = _content(archive, entry)
                if record is not None:
                    _check_against(record, entry.filename, content)
                digests[name] = pool.place(str(target / name), content)
            return digests
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, csv.Error) as error:
        raise BundleRefusedError(f"{shown}: not a whole zip archive: {error}") from None


def _open(copy: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(copy)
    except OSError as error:  # an offset before the beginning
        raise zipfile.BadZipFile(str(error)) from None


def _copy(path: Path, copy: IO[bytes], limit: int) -> int:
    size = 0
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleRefusedError(f"{path}: not a regular file")
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise BundleRefusedError(f"{path}: larger than {limit:,} bytes; see SourceLimits.unpacked")
            copy.write(chunk)
    copy.seek(0)
    return size


def _checked(archive: zipfile.ZipFile, archive_size: int, limits: SourceLimits) -> dict[str, zipfile.ZipInfo]:
    """Return the files to unpack by the name that they get. Everything is checked before anything is written."""
    files = _as_they_are(archive, archive_size, limits)
    own = patterns_of(_content(archive, files[IGNORE_FILE])) if IGNORE_FILE in files else []
    patterns = IgnorePatterns(own)
    kept: dict[str, zipfile.ZipInfo] = {}
    for name, entry in files.items():
        if any(is_ignored(part) for part in name.split("/")) or patterns.leave_out_below(name):
            continue
        becomes = _without_wheel_scheme(name)
        if becomes in kept:
            other = kept[becomes].filename
            raise BundleRefusedError(
                f"entries {other[:200]!r} and {name[:200]!r} would both become {becomes!r}"
            )
        kept[becomes] = entry
    refuse_clashes(kept)
    return kept


def _as_they_are(
    archive: zipfile.ZipFile, archive_size: int, limits: SourceLimits
) -> dict[str, zipfile.ZipInfo]:
    """Return all files by their own name, none of which leads out of the folder."""
    entries = archive.infolist()
    if len(entries) > limits.entries:
        raise BundleRefusedError(f"more than {limits.entries:,} entries; see SourceLimits.entries")
    for entry in entries:
        _refuse_unsafe(entry, limits.depth)
    files = [entry for entry in entries if not entry.is_dir()]
    refuse_clashes(entry.filename for entry in files)
    # zipfile never hands out more than the size that an entry declares, so the sum is a true bound.
    unpacked = sum(entry.file_size for entry in files)
    if unpacked > limits.unpacked:
        raise BundleRefusedError(f"unpacks to {unpacked:,} bytes; the limit is {limits.unpacked:,}")
    if unpacked > limits.ratio * max(archive_size, 1):
        raise BundleRefusedError(f"unpacks to more than {limits.ratio} times its size: a zip bomb")
    return {entry.filename: entry for entry in files}


def _without_wheel_scheme(name: str) -> str:
    """`x-1.0.data/purelib/x.py` in a wheel is meant to be installed as `x.py` (PEP 427)."""
    return re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)


# ---- the RECORD of a wheel


def _record_of(archive: zipfile.ZipFile) -> dict[str, str] | None:
    """Return the hashes of a wheel's files by name, where it has a RECORD; it must name all files, and no others.

    A wheel that was changed by hand, or cut, is not what its author has built (PEP 427 asks installers to look).
    """
    names = [name for name in archive.namelist() if not name.endswith("/")]
    own = [name for name in names if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(own) != 1:
        return None
    rows = csv.reader(archive.read(own[0]).decode("utf-8").splitlines())
    record = {row[0]: row[1] for row in rows if len(row) > 1}
    signed = {own[0], f"{own[0]}.jws", f"{own[0]}.p7s"}
    for name in names:
        if name not in record and name not in signed:
            raise BundleRefusedError(f"entry {name[:200]!r}: not in the RECORD of the wheel; {_ANEW}")
    for name in record.keys() - set(names):
        raise BundleRefusedError(f"its RECORD names {name[:200]!r}, which is not in the wheel; {_ANEW}")
    return {name: written for name, written in record.items() if name not in signed}


_ANEW = "build the wheel anew"
_HASHES = frozenset({"sha256", "sha384", "sha512"})
"""What a RECORD may use: nothing weaker."""


def _check_against(record: dict[str, str], name: str, content: bytes) -> None:
    written = record.get(name)
    if written is None:
        return  # the RECORD itself
    kind, _, digest = written.partition("=")
    if kind not in _HASHES:
        raise BundleRefusedError(
            f"entry {name[:200]!r}: its RECORD has no sha256 of it, or a better hash; {_ANEW}"
        )
    found = base64.urlsafe_b64encode(hashlib.new(kind, content).digest()).rstrip(b"=").decode("ascii")
    if found != digest.rstrip("="):
        raise BundleRefusedError(f"entry {name[:200]!r}: not what the RECORD of the wheel says; {_ANEW}")


# ---- names and contents


def _refuse_unsafe(entry: zipfile.ZipInfo, depth: int) -> None:
    # zipfile cuts `filename` at a NUL and turns separators round; the truth is in orig_filename.
    name = entry.orig_filename
    if why := _unsafe_name(name.removesuffix("/"), depth):
        raise BundleRefusedError(f"entry {name[:200]!r}: {why}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise BundleRefusedError(f"entry {name[:200]!r}: a link or a special file")
    if entry.flag_bits & ENCRYPTED:
        raise BundleRefusedError(f"entry {name[:200]!r}: encrypted")
    if entry.compress_type not in METHODS:
        raise BundleRefusedError(f"entry {name[:200]!r}: compressed otherwise than by deflate")


def _unsafe_name(name: str, depth: int) -> str | None:
    """Return what is wrong with an entry's name, or None."""
    parts = name.split("/")
    faults = {
        "control characters in its name": _CONTROL.search(name) is not None,
        "a backslash in its name": "\\" in name,
        "an absolute path": name.startswith("/"),
        "a drive letter in its name": any(_DRIVE.match(part) for part in parts),
        "a path with '..', '.' or empty parts": not {"", ".", ".."}.isdisjoint(parts),
        f"more than {depth} folders deep": len(parts) > depth,
        f"a name of more than {COMPONENT_LIMIT} bytes": any(_too_long(part) for part in parts),
    }
    return next((what for what, wrong in faults.items() if wrong), None)


def _too_long(part: str) -> bool:
    return len(part.encode("utf-8", "surrogateescape")) > COMPONENT_LIMIT


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        content = archive.read(entry)  # reads to the end, where the CRC is compared
    except OSError as error:  # an offset before the beginning; a full disk cannot be met while reading
        raise zipfile.BadZipFile(str(error)) from None
    if len(content) != entry.file_size:
        raise BundleRefusedError(f"entry {entry.filename!r}: shorter than it says")
    return content

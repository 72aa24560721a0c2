"""The files of a snapshot: how they are written, how their content is known, which names clash."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.errors import BundleRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

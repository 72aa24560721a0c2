"""Large values of a journal: files beside it, named by the digest of what they hold.

A file is whole and on disk before the row that names it is committed, and deleted after the last such row is gone: a
crash between leaves a file too many, which is swept at the next opening, and never one too few.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING

from scattersphere.abc.journal import StepRow, ValueForm

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from scattersphere.abc.journal import DroppedRow

LARGEST_IN_ROW = 64 * 1024
"""Bytes of a value above which it is a file: SQLite would write it twice, and every backup carries it along."""

_ENDINGS = {ValueForm.JSON: "json", ValueForm.TAGGED: "tagged", ValueForm.PICKLE: "pickle"}
_FORMS = {ending: form for form, ending in _ENDINGS.items()}
_NAME = re.compile(r"([0-9a-f]{64})\.(json|tagged|pickle)")
_TEMPORARY = ".part"
SWEPT_AT_ONCE = 200
"""Files looked at between two commits."""


class ValueFiles:
    """The folder of large values of one journal. Only the writer's thread changes it."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        self.given_up: set[bytes] = set()
        """Names that rows have given up; others may still have them."""

    def store(self, steps: dict[tuple[object, ...], StepRow]) -> None:
        """Put values that are too large for their rows into files. Raises `OSError`; may be repeated."""
        large = [key for key, row in steps.items() if row.value and len(row.value) > LARGEST_IN_ROW]
        for key in large:
            row = steps[key]
            name = self._write(row.value or b"", ValueForm(row.form))
            steps[key] = row._replace(form=ValueForm.FILE, value=name.encode())
        if large:
            sync_folder(self.folder)

    def _write(self, value: bytes, form: ValueForm) -> str:
        name = f"{hashlib.sha256(value).hexdigest()}.{_ENDINGS[form]}"
        target = self.folder / name
        if not target.exists():
            part = self.folder / f"{name}{_TEMPORARY}"
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        return name

    def read(self, row: StepRow) -> tuple[int, bytes]:
        """Return the form and bytes of a value. Raises `LookupError` where there is none, or its file is damaged."""
        if row.value is None:
            raise LookupError(f"unit {row.unit} of run {row.run} has no value that was kept")
        if row.form != ValueForm.FILE:
            return row.form, row.value
        match = _NAME.fullmatch(row.value.decode("ascii", "replace"))
        if match is None:
            raise LookupError(f"{row.value!r} is no name of a file of values")
        path = self.folder / match.group()
        try:
            value = path.read_bytes()
        except FileNotFoundError:
            raise LookupError(f"the file {path} of a result is gone") from None
        if hashlib.sha256(value).hexdigest() != match.group(1):
            raise LookupError(f"the file {path} of a result is damaged")
        return _FORMS[match.group(2)], value

    def note_dropped(self, connection: sqlite3.Connection, rows: Iterable[DroppedRow]) -> None:
        """Remember the files of steps whose values are about to be given up."""
        for row in rows:
            for (name,) in connection.execute(
                "SELECT value FROM step WHERE run = ? AND unit = ? AND form = 4", row
            ):
                self.given_up.add(name)

    def remove_given_up(self, connection: sqlite3.Connection) -> None:
        """Delete the files that no committed row names any more."""
        while self.given_up:
            name = self.given_up.pop()
            self._remove_unnamed(connection, name.decode("ascii", "replace"))

    def _remove_unnamed(self, connection: sqlite3.Connection, name: str) -> None:
        named = "SELECT 1 FROM step WHERE form = 4 AND value = ? LIMIT 1"
        if connection.execute(named, (name.encode(),)).fetchone() is None:
            with contextlib.suppress(OSError):  # at the next opening, then
                (self.folder / name).unlink()

    def sweep(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Delete, a few at a time, the files that a crash has left without a row."""
        names = os.listdir(self.folder)  # noqa: PTH208 - names, not paths: there may be many
        for start in range(0, len(names), SWEPT_AT_ONCE):
            for name in names[start : start + SWEPT_AT_ONCE]:
                if _NAME.fullmatch(name.removesuffix(_TEMPORARY)):
                    self._remove_unnamed(connection, name)
            yield

    def names(self) -> set[str]:
        """Return the names of the files that are there."""
        return {name for name in os.listdir(self.folder) if _NAME.fullmatch(name)}  # noqa: PTH208

    def link(self, name: str, other: ValueFiles) -> None:
        """Give a file a second name in the folder of `other`; copy it where the file system has no such links."""
        source, target = self.folder / name, other.folder / name
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:
            copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Copy to a file that is not there, and have it on disk; only the owner may read it. Raises `OSError`."""
    with (
        source.open("rb") as content,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk. Raises `OSError`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

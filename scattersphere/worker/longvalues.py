"""Long pickles handed over in temporary files, to be read by the process that takes them.

A long result that others below the same place take is written once and read once: it goes through no pipe, and no
process in between has a copy of it. The files are in the store from which the process has its code.
"""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scattersphere.registry.snapshots.store import STORE_VARIABLE

if TYPE_CHECKING:
    from io import BufferedWriter

FOLDER = "values"
"""Below the store."""
FILE_FROM = 1024 * 1024
"""Bytes from which on a pickle is laid into a file: less goes through a pipe at once."""


def read_value(name: str) -> object:
    """Stand for a value among the arguments of a call; in the process that executes it."""
    with _file(name).open("rb") as file:
        return pickle.load(file)  # noqa: S301 - from a process of ours


def _file(name: str) -> Path:
    return Path(os.environ[STORE_VARIABLE], FOLDER, name)


def dump_to(name: str, value: object) -> tuple[bytes, int]:
    """Return the pickle of a value; or b"" and its length, when it is in the file of that name.

    A file that cannot be written, because the disk is full perhaps, is done without. Raises what the classes of the
    value raise; then there is no file.
    """
    with _Spool(_file(name)) as spool:
        pickle.Pickler(spool, pickle.HIGHEST_PROTOCOL).dump(value)
    if spool.failed:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 0
    return (b"".join(spool.parts), 0) if spool.parts else (b"", spool.size)


class _Spool:
    """What a pickle is written to."""

    def __init__(self, file: Path) -> None:
        self.size = 0
        self.parts: list[bytes] = []
        """What is there so far, while it is short."""
        self.failed = False
        self._file = file
        self._stream: BufferedWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._stream is not None:
            with suppress(OSError):  # what it could not write any more fails here again
                self._stream.close()
            self.failed = self.failed or not self._is_whole()
        if kind is not None or self.failed:
            with suppress(OSError):  # there is none
                self._file.unlink()

    def _is_whole(self) -> bool:
        with suppress(OSError):  # its folder has gone
            return self._file.stat().st_size == self.size
        return False

    def write(self, data: bytes | memoryview) -> None:
        """Take a part."""
        self.size += len(data)
        if self.failed:
            return
        if self.size < FILE_FROM:
            self.parts.append(bytes(data))  # a view is the pickler's, and only for now
            return
        try:
            if self._stream is None:
                self._file.parent.mkdir(mode=0o700, exist_ok=True)
                self._stream = self._file.open("wb")
                self._stream.writelines(self.parts)
                self.parts.clear()
            self._stream.write(data)
        except OSError:
            self.failed = True

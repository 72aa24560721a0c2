"""The whole log of a run in a file, beside the part of it that memory holds.

A line is an object of JSON, so that it can be read back exactly, and so that programs which collect logs
understand it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from scattersphere.model.logs import LEVEL_NAMES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

Entry = tuple[float, str, "int | None", int, int, str, str]
"""time, task, index, attempt, level, logger, message: cheaper to keep and to make than a LogLine."""

_LEVELS = {name: level for level, name in LEVEL_NAMES.items()}


class Spill:
    """A file that gets every line. Made at the first one; its first error ends it."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.error: str = ""
        self.written: int = 0
        """How many lines are in the file; they are the first ones of the log."""
        self._file: TextIO | None = None
        self._ended = False

    def __str__(self) -> str:
        return str(self.path)

    def write(self, entry: Entry) -> bool:
        """Write one line, unless it is ended. False if the file cannot be written; `error` says why."""
        if self._ended:
            return True
        try:
            if self._file is None:
                # Line buffered: whoever reads the file meanwhile, or after a crash, sees whole lines.
                # What cannot be encoded, a lone surrogate, becomes its escape, which is JSON too.
                self._file = self.path.open(
                    "w", encoding="utf-8", errors="backslashreplace", buffering=1, newline="\n"
                )
            self._file.write(_as_json(entry) + "\n")
        except OSError as exc:
            self.error = str(exc)
            self.close()
            return False
        self.written += 1
        return True

    def read(self, first: int, last: int) -> Iterator[Entry]:
        """Yield the lines from number `first` to `last`, as far as they can be read. The log's begin at 1."""
        if first > min(last, self.written):
            return
        try:
            with self.path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    if number > last:
                        return
                    if number >= first:
                        yield _as_entry(line)
        except (OSError, ValueError):
            return  # somebody has removed or changed it: the marker in the log says how many lines are missing

    def close(self) -> None:
        """Write no more. What was written can be read."""
        self._ended = True
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as exc:  # a full disk shows up in the last flush
                self.error = str(exc)

    def discard(self) -> None:
        """Delete the file."""
        self.close()
        if self.written:
            self.written = 0
            self.path.unlink(missing_ok=True)


def _as_json(entry: Entry) -> str:
    when, task, index, attempt, level, logger, message = entry
    row = {
        "time": datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds"),
        "level": LEVEL_NAMES.get(level, level),
        "task": task,
        "index": index,
        "attempt": attempt,
        "logger": logger,
        "message": message,
    }
    return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


def _as_entry(line: str) -> Entry:
    row = json.loads(line)
    when = datetime.fromisoformat(row["time"]).timestamp()
    level: int = _LEVELS.get(row["level"]) or row["level"]
    return when, row["task"], row.get("index"), row["attempt"], level, row["logger"], row["message"]


class LogFolder:
    """Where a Server puts the logs of its runs: each Server in a folder of its own, each run in a file."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._parent = None if folder is None else Path(folder)
        self.folder: Path | None = None

    def open(self, instance: str) -> None:
        """Make the folder, named by the time and the Server's `instance`. Raises `OSError`."""
        if self._parent is not None:
            # Run ids begin anew with each Server: without a folder of its own it would overwrite old files.
            self.folder = self._parent.absolute() / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{instance}"
            self.folder.mkdir(parents=True, mode=0o700)

    def file_of(self, run: int) -> Path | None:
        """Return the file for the log of a run; None where none is asked for."""
        return None if self.folder is None else self.folder / f"{run}.jsonl"

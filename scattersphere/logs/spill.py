"""The log file of a run: all its lines on disk, beside the part that memory holds.

A line is an object of JSON, so that it can be read back exactly, and so that programs which collect logs
understand it. It bears its number: others may cut, empty or remove the file meanwhile (logrotate, a cleaner of
/tmp), and what is then missing can be told.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from scattersphere.model.logs import LEVEL_NAMES

if TYPE_CHECKING:
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

    def write(self, number: int, entry: Entry) -> bool:
        """Write line `number`, unless it is ended. False if the file cannot be written; `error` says why."""
        if self._ended:
            return True
        try:
            if self._file is None:
                # Line buffered: whoever reads the file meanwhile, or after a crash, sees whole lines.
                # What cannot be encoded, a lone surrogate, becomes its escape, which is JSON too.
                # At the end, wherever that is: who empties the file meanwhile gets no hole into it.
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                self._file = open(  # noqa: SIM115, PTH123 - until `close`; no path but a descriptor
                    os.open(self.path, flags, 0o666),
                    "w", encoding="utf-8", errors="backslashreplace", buffering=1, newline="\n",
                )  # fmt: skip
            self._file.write(_as_json(number, entry) + "\n")
        except OSError as exc:
            self.error = str(exc)
            self.close()
            return False
        self.written += 1
        return True

    def read(self, first: int, last: int) -> Iterator[tuple[int, Entry]]:
        """Yield the lines from number `first` to `last` with their numbers, those of them that are there, in order."""
        if first > min(last, self.written):
            return
        try:
            with self.path.open(encoding="utf-8", errors="replace", newline="\n") as file:
                for line in file:
                    found = _as_entry(line)
                    if found is not None and first <= found[0] <= last:
                        first = found[0] + 1
                        yield found
        except OSError:
            return  # somebody has removed it: the marker in the log says how many lines are missing

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


def _as_json(number: int, entry: Entry) -> str:
    when, task, index, attempt, level, logger, message = entry
    row = {
        "line": number,
        "time": datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds"),
        "level": LEVEL_NAMES.get(level, level),
        "task": task,
        "index": index,
        "attempt": attempt,
        "logger": logger,
        "message": message,
    }
    return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


def _as_entry(line: str) -> tuple[int, Entry] | None:
    """Read a line back; None for what no log has written, or only half."""
    number: Any
    entry: Any
    try:
        row = json.loads(line)
        when = datetime.fromisoformat(row["time"]).timestamp()
        level = _LEVELS.get(row["level"], row["level"])
        entry = (when, row["task"], row.get("index"), row["attempt"], level, row["logger"], row["message"])
        number = row["line"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    kinds = zip((number, *entry), _KINDS, strict=True)
    return (number, entry) if all(isinstance(value, kind) for value, kind in kinds) else None


_KINDS = (int, float, str, int | None, int, int, str, str)
"""Of a line's number, and of the parts of an entry."""


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

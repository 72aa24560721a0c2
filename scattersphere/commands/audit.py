"""Audit log: JSON lines, one for each session's begin and end, proof of identity and command.

A line holds the time, session, peer, principal, command, object and outcome. Arguments are never in
it: only the names of the objects concerned, so that no secret parameter and no token can be.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from scattersphere.commands.errors import ListenError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODE = 0o600


class Audit(Protocol):
    """Where audit records go. `record` may not raise."""

    def record(self, **members: object) -> None:
        """Keep one record."""
        ...


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, _MODE)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        os.close(descriptor)
        raise ListenError(f"the audit file {path} must be a regular file of mode 0600")
    return descriptor


class AuditFile:
    """Appends records to a file of mode 0600. A disk that is full is counted in `lost`, and told once.

    A command is not refused because its record cannot be written: that would hand whoever can fill
    the disk the power to stop the server. Each record is one write of one line in append mode.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, making it where it is missing. Raises `ListenError`, `OSError`."""
        self.lost: int = 0
        self._path = Path(path).absolute()
        self._descriptor = _open(self._path)

    def reopen(self) -> None:
        """Open the file anew: somebody has renamed it to keep it. Raises `ListenError`, `OSError`, and goes on."""
        descriptor, self._descriptor = self._descriptor, _open(self._path)
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, **members: object) -> None:
        """Append one record; `time` is added."""
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, **members}, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            os.write(self._descriptor, line)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Close the file. May be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_OBJECTS = ("job", "run", "bundle", "task", "name", "path", "file", "subscription", "user")
"""Members that name what a command was about. None of them can hold a secret."""


def named_object(arguments: Mapping[str, object] | None, result: object) -> str:
    """Return what a command was about: a name or a number from its result, else from its arguments."""
    for name in _OBJECTS:
        value = result.get(name) if isinstance(result, dict) else None
        value = arguments.get(name) if value is None and arguments is not None else value
        if isinstance(value, str | int):
            return f"{name} {str(value)[:128]}"
    return ""

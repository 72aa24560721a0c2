"""LogLine: a line of the log of a run; many of them as JSON lines, compressed, for a journal."""

from __future__ import annotations

import json
import re
import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scattersphere.model.dicts import LogLineDict

LEVEL_NAMES = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
"""The standard levels; others are shown as their number."""

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would steer a terminal, hide or reorder text, break a line or not encode. Tab and newline are kept."""

MASK = "***"
"""What is shown in place of a secret, in logs and everywhere."""


def make_printable(text: str) -> str:
    """Return `text` with the characters that could disturb a terminal written as escapes."""
    if text.isprintable():  # most are, and the answer costs a quarter of a search
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def make_block(text: str) -> str:
    """Return `text` printable, its further lines indented: no line of it can pass for one of somebody else's."""
    return make_printable(text).replace("\n", "\n    ")


@attrs.frozen(kw_only=True)
class LogLine:
    """One record in the log of a run. `str()` of it is made for a terminal."""

    time: datetime
    """When it was written; aware, UTC."""
    run: int
    task: str
    """The task's name in the job; "" for a line of the engine about the run."""
    index: int | None = None
    """The instance of a mapped task, else None."""
    attempt: int = 0
    """From 1; 0 for a line of the engine about the run."""
    level: int
    """A level of the standard logging: 10 debug, 20 info, 30 warning, 40 error, 50 critical."""
    logger: str
    """The logger's name, with logical module names; `task` for `context.log`."""
    message: str
    """May hold several lines: a traceback does."""

    def as_dict(self) -> LogLineDict:
        """Return it as plain data."""
        return {
            "time": self.time.isoformat(),
            "run": self.run,
            "task": self.task,
            "index": self.index,
            "attempt": self.attempt,
            "level": self.level,
            "logger": self.logger,
            "message": self.message,
        }

    @property
    def place(self) -> str:
        """Where it comes from: `load`, `load[3]`, `load[3]/2` for a second attempt; "" for the run."""
        index = "" if self.index is None else f"[{self.index}]"
        again = f"/{self.attempt}" if self.attempt > 1 else ""
        return f"{self.task}{index}{again}"

    def __str__(self) -> str:
        stamp = self.time.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        level = LEVEL_NAMES.get(self.level, str(self.level))
        return f"{stamp} #{self.run} {self.place or '-'} {level:<7} {make_block(self.message)}"


_QUICKLY = 1
"""The level of compression: lines are written while runs go on."""


def pack_lines(lines: Sequence[Mapping[str, object]]) -> bytes:
    """Return lines, as `LogLine.as_dict` gives them, as the bytes of one row of a journal."""
    return zlib.compress("\n".join(map(json.dumps, lines)).encode(), _QUICKLY)


def unpack_lines(data: bytes) -> list[dict[str, object]]:
    """Return what `pack_lines` was given. Raises `ValueError` for damaged bytes."""
    try:
        return [json.loads(line) for line in zlib.decompress(data).decode().split("\n")]
    except zlib.error as error:
        raise ValueError(f"lines of a log are damaged: {error}") from None


def line_of(kept: Mapping[str, Any]) -> LogLine:
    """Return a line again that `LogLine.as_dict` has given."""
    return LogLine(**{**kept, "time": datetime.fromisoformat(kept["time"])})

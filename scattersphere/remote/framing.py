"""Bytes to lines: the only place that decides where a request begins and ends.

Pure: it is fed bytes and asked for frames, and yields the same frames however the bytes were cut.
A line that is too long is reported once and dropped to its end, so that its tail is never read as
a command (the fault of SMTP and Redis servers that split a long line). The first byte of the first
line decides whether the peer speaks this protocol at all: a browser, a TLS or an SSH client is sent
away before anything that it says could be taken for a command.
"""

from __future__ import annotations

import re

import attrs

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\xc2[\x80-\x9f]")
"""C0 but TAB, DEL, and C1 as UTF-8 writes it: what can steer a terminal."""
_HTTP = re.compile(rb" HTTP/[0-9]\.[0-9]$")
_OPENINGS = frozenset(b"{abcdefghijklmnopqrstuvwxyz")
_COMMENT = ord("#")


@attrs.frozen
class Line:
    """A whole line. `partial` marks the last one of the input where it has no newline."""

    text: str
    partial: bool = False


@attrs.frozen
class Fault:
    """A line that cannot be read. `fatal`: nothing after it may be read either."""

    code: str
    message: str
    fatal: bool = False


@attrs.frozen
class Ignored:
    """A blank line or a comment."""


IGNORED = Ignored()

Frame = Line | Fault | Ignored


class Framer:
    """Collects bytes and cuts lines, each when it is asked for: the limit may grow in between."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._newlines = 0
        self._at_start = True
        self._first = True
        self._dropping = False
        self._ended = False

    @property
    def lines(self) -> int:
        """How many whole lines wait to be asked for."""
        return self._newlines

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._buffer)

    @property
    def inside_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._dropping or (bool(self._buffer) and self._buffer[-1:] != b"\n")

    @property
    def exhausted(self) -> bool:
        """Whether the input has ended and everything was asked for."""
        return self._ended and not self._buffer

    def feed(self, chunk: bytes) -> None:
        """Take what came from the peer."""
        self._buffer += chunk
        self._newlines += chunk.count(b"\n")

    def end(self) -> None:
        """Take note that nothing more will come."""
        self._ended = True

    def next(self, limit: int) -> Frame | None:
        """Return the next frame, or None where more bytes are needed. `limit` bounds a line's bytes."""
        if self._dropping and not self._drop():
            return None
        if self._at_start and not self._skip_bom():
            return None
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            return self._unfinished(limit)
        raw = bytes(self._buffer[:end])
        self._forget(end + 1)
        self._newlines -= 1
        raw = raw.removesuffix(b"\r")
        if len(raw) > limit:
            return self._judged(raw, whole=False) or _too_long(limit)
        return self._judged(raw) or _line(raw)

    def _skip_bom(self) -> bool:
        """Drop a byte order mark. False: too few bytes to tell."""
        if len(self._buffer) < len(_BOM) and not self._ended and _BOM.startswith(self._buffer):
            return False
        self._at_start = False
        if self._buffer.startswith(_BOM):
            self._forget(len(_BOM))
        return True

    def _drop(self) -> bool:
        """Drop the rest of a line that was reported as too long. False: its end has not come yet."""
        end = self._buffer.find(b"\n")
        if end < 0:
            self._buffer.clear()
            return False
        self._forget(end + 1)
        self._newlines -= 1
        self._dropping = False
        return True

    def _forget(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = 0

    def _unfinished(self, limit: int) -> Frame | None:
        buffer = self._buffer
        self._scanned = len(buffer)
        if self._first and (fault := self._judged(bytes(buffer[: limit + 1]), whole=False)):
            return fault
        if len(buffer) > limit + 1 or (len(buffer) == limit + 1 and buffer[-1:] != b"\r"):
            buffer.clear()
            self._scanned = 0
            self._dropping = not self._ended
            return _too_long(limit)
        if not self._ended or not buffer:
            return None
        raw = bytes(buffer).removesuffix(b"\r")
        buffer.clear()
        return self._judged(raw) or _last(raw)

    def _judged(self, raw: bytes, *, whole: bool = True) -> Frame | None:
        """Sort out blank lines and comments, and on the first line the peers that speak something else."""
        start = raw.lstrip(_BLANKS)
        if not start:
            return IGNORED if whole else None
        if start[0] == _COMMENT:
            return IGNORED if whole else None
        if not self._first:
            return None
        if start[0] not in _OPENINGS or (whole and _HTTP.search(raw)):
            self._buffer.clear()
            self._newlines = 0
            return Fault("bad-frame", "this is no Scattersphere client; a line begins with { or a to z", True)
        if whole:
            self._first = False
        return None


def _too_long(limit: int) -> Fault:
    return Fault("line-too-long", f"a line may have {limit} bytes here; it was dropped to its end")


def _line(raw: bytes) -> Frame:
    if _CONTROL.search(raw):
        return Fault("bad-frame", "the line holds a control character; write it as \\u00XX inside JSON")
    try:
        return Line(raw.decode())
    except UnicodeDecodeError as exc:
        return Fault("bad-utf8", f"byte {exc.start + 1} of the line is no UTF-8")


def _last(raw: bytes) -> Frame:
    """Judge a last line without a newline: it may have been cut anywhere."""
    if not raw.lstrip(_BLANKS).startswith(b"{"):
        return Fault("truncated", "the input ended inside a command; end each line with a newline")
    frame = _line(raw)
    if isinstance(frame, Line):
        return Line(frame.text, partial=True)
    return Fault("truncated", "the input ended inside a request")

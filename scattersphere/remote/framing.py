"""Framing: bytes to lines, the only place that decides where a request begins and ends.

Pure: it is fed bytes and asked for frames, and yields the same frames however the bytes were cut.
A line that is too long is reported once and dropped to its end, so that its tail is never read as
a command (the fault of SMTP and Redis servers that split a long line). The first byte of the first
line decides whether the peer speaks this protocol at all: a browser, a TLS or an SSH client is sent
away before anything that it says could be taken for a command.
"""

from __future__ import annotations

import re
from collections import deque

import attrs

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\xc2[\x80-\x9f]")
"""C0 but TAB, DEL, and C1 as UTF-8 writes it: what can steer a terminal."""
_HTTP = re.compile(rb" HTTP/[0-9]\.[0-9]$")
_OPENINGS = frozenset(b"{?abcdefghijklmnopqrstuvwxyz")
_IAC, _OPTIONS, _LOWEST = 255, range(251, 255), 240
_TIMING_MARK, _NO_TIMING_MARK = b"\xfd\x06", b"\xff\xfc\x06"
"""Telnet's bytes (RFC 854). No UTF-8 has any byte from 0xF8 on, so that nothing else can be meant by the first."""
_COMMENT = ord("#")


@attrs.define
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
    """Collects bytes and cuts lines, each when it is asked for: the limit may grow in between.

    A chunk is split once, when it comes. What is judged is a whole line, or its beginning where the rest
    has not come.
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()
        self._size = 0
        self._at_start = True
        self._first = True
        self._begun = False
        self._dropping = False
        self._ended = False
        self._answers = b""

    @property
    def lines(self) -> int:
        """How many whole lines wait to be asked for."""
        return len(self._lines)

    @property
    def size(self) -> int:
        """How many bytes were received and belong to no line that was taken."""
        return self._size

    @property
    def inside_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._dropping or bool(self._rest)

    @property
    def exhausted(self) -> bool:
        """Whether the input has ended and everything was asked for."""
        return self._ended and not self._lines and not self._rest

    def feed(self, chunk: bytes) -> None:
        """Take what came from the peer."""
        if self._dropping:  # the rest of a line that was reported as too long
            _, newline, chunk = chunk.partition(b"\n")
            self._dropping = not newline
        self._size += len(chunk)
        if (
            not self._rest and chunk.find(b"\n") == len(chunk) - 1 and chunk
        ):  # one whole line: most requests come so
            self._lines.append(chunk[:-1])
            return
        first, *others = chunk.split(b"\n")
        self._rest += first
        if others:
            self._lines.append(bytes(self._rest))
            self._rest[:] = others.pop()
            self._lines += others

    def telnet_answers(self) -> bytes:
        """Return what telnet is to be answered, once."""
        if not self._answers:
            return b""
        answers, self._answers = self._answers, b""
        return answers

    def _without_telnet(self, raw: bytes) -> bytes:
        """Return a line without what the program telnet sends at Ctrl-C, and refuse its timing mark.

        It shows nothing any more until its DO TIMING-MARK is answered. What was typed before Ctrl-C is not wanted.
        """
        kept, at = bytearray(), 0
        while (found := raw.find(_IAC, at)) >= 0:
            kept += raw[at:found]
            order = raw[found + 1 : found + 3]
            if len(order) == 2 and order[0] in _OPTIONS:  # noqa: PLR2004 - what is asked, and of which option
                self._answers += _NO_TIMING_MARK if order == _TIMING_MARK else b""
                at = found + 3
            elif order and order[0] >= _LOWEST:
                kept.clear()
                at = found + 2
            else:  # its second byte came as urgent data
                at = found + 1
        return bytes(kept + raw[at:])

    def end(self) -> None:
        """Take note that nothing more will come."""
        self._ended = True

    def next(self, limit: int) -> Frame | None:
        """Return the next frame, or None where more bytes are needed. `limit` bounds a line's bytes."""
        if not self._lines:
            return self._unfinished(limit) if self._rest else None
        raw = self._lines.popleft()
        self._size -= len(raw) + 1
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(_BOM)
        raw = raw.removesuffix(b"\r")
        self._begun = False
        if len(raw) > limit:
            return self._judged(raw, whole=False) or _too_long(raw, limit)
        if self._first:
            return self._judged(raw) or _line(raw)
        if _IAC in raw:
            raw = self._without_telnet(raw)
        return _blank(raw) or _line(raw)

    def _forget(self) -> None:
        """Drop the line that has begun."""
        self._size -= len(self._rest)
        self._rest.clear()

    def _skip_bom(self) -> bool:
        """Drop a byte order mark. False: too few bytes to tell."""
        if len(self._rest) < len(_BOM) and not self._ended and _BOM.startswith(self._rest):
            return False
        self._at_start = False
        if self._rest.startswith(_BOM):
            del self._rest[: len(_BOM)]
            self._size -= len(_BOM)
        return True

    def _unfinished(self, limit: int) -> Frame | None:
        rest = self._rest
        if self._at_start and not self._skip_bom():
            return None
        if self._first and not self._begun:
            if fault := self._judged(bytes(rest[: limit + 1]), whole=False):
                return fault
            self._begun = bool(rest.lstrip(_BLANKS))  # its first byte is known: not to be judged again
        if len(rest) > limit + 1 or (len(rest) == limit + 1 and rest[-1:] != b"\r"):
            frame = _too_long(bytes(rest[:limit]), limit)
            self._forget()
            self._begun = False
            self._dropping = not self._ended
            return frame
        if not self._ended or not rest:
            return None
        raw = bytes(rest).removesuffix(b"\r")
        self._forget()
        return self._judged(raw) or _last(raw)

    def _judged(self, raw: bytes, *, whole: bool = True) -> Frame | None:
        """Sort out blank lines and comments, and on the first line the peers that speak something else."""
        start = raw.lstrip(_BLANKS)
        if not start or start[0] == _COMMENT:
            return IGNORED if whole else None
        if not self._first:
            return None
        if start[0] not in _OPENINGS or (whole and _HTTP.search(raw)):
            self._lines.clear()
            self._rest.clear()
            self._size = 0
            return Fault("bad-frame", "this is no Scattersphere client; a line begins with { or a to z", True)
        if whole:
            self._first = False
        return None


def _blank(raw: bytes) -> Ignored | None:
    """Return the frame of a blank line or a comment."""
    if raw and raw[0] in _OPENINGS:  # most lines
        return None
    start = raw.lstrip(_BLANKS)
    return IGNORED if not start or start[0] == _COMMENT else None


def _too_long(raw: bytes, limit: int) -> Frame:
    """Judge a line of which at least the beginning is there: a comment may have any length."""
    if raw.lstrip(_BLANKS).startswith(b"#"):
        return IGNORED
    return Fault("line-too-long", f"a line may have {limit} bytes here; it was dropped to its end")


def _line(raw: bytes) -> Frame:
    if raw.isascii() and (text := raw.decode()).isprintable():  # most lines: nothing to look for in them
        return Line(text)
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

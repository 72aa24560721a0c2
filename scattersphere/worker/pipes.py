"""Frames on the pipes between the engine and a worker process.

A frame is a header, its kind and the length of its payload, and the payload. There are three pipes: `calls` (to the
worker's main thread), `control` (to a thread beside it, which sees a cancel while a body executes) and
`replies` (back). Both ends are the same program run by the same user, so payloads may be pickles.
"""

from __future__ import annotations

import os
import struct
import threading
from enum import IntEnum
from typing import cast

from scattersphere.abc.backend import OutcomeKind

FRAME_LIMIT = 2**32 - 1
"""Bytes of the longest payload; longer results belong into a file."""

_HEADER = struct.Struct("<BQ")
LARGE = 64 * 1024
"""Bytes of a value whose class is named before it: it may stay where it is."""
NO_CALL = 0
"""The number in a LOG that belongs to no call; calls count from 1."""

_CHUNK = 8 * 1024
"""Bytes of the first read: most frames are shorter, and Python makes room for as many."""


class Kind(IntEnum):
    """What a frame says. The comment tells its payload."""

    # calls: engine -> worker
    CALL = 1
    """A `CallMessage`."""
    ANSWER = 2
    """A pickle: the answer to CHECK or RESULTS."""
    # control: engine -> worker
    CANCEL = 10
    """The number of a call."""
    WHERE = 11
    """The number of a call."""
    LEAVE = 12
    """Nothing. The worker is not needed any more. A pipe that ends without it says that the engine has gone."""
    PAUSE = 13
    """The number of a call."""
    RESUME = 14
    """The number of a call."""
    # replies: worker -> engine
    READY = 20
    """Nothing."""
    VALUE = 21
    """A pickle: what the body returned."""
    FAILURE = 22
    """A pickled `RemoteFailure`."""
    CANCELLED = 23
    """Nothing."""
    LOG = 24
    """A pickle: call number, level, message, logger, and when by the machine's monotonic clock."""
    PROGRESS = 25
    """A pickle: call number, done, total, message."""
    CHECK = 26
    """Nothing. May the body go on? The answer comes when it may, or must end."""
    RESULTS = 27
    """Nothing. Please send the results of the upstream tasks."""
    HERE = 28
    """A pickle: call number, the line that is being executed."""
    HELD = 29
    """A pickle: call number."""
    TYPE = 30
    """The name of the class of the VALUE that follows, which is large."""
    FILED = 31
    """A pickle: name of its class, and size. What the body returned is in the file that the call has named."""


_KINDS = {int(kind): kind for kind in Kind}
"""A third of the time of `Kind(number)`."""


REPLIES = {
    OutcomeKind.VALUE: Kind.VALUE,
    OutcomeKind.EXCEPTION: Kind.FAILURE,
    OutcomeKind.CANCELLED: Kind.CANCELLED,
}
"""The frame that carries a `Reply` of each kind."""
OUTCOMES = {kind: outcome for outcome, kind in REPLIES.items()}


class Sender:
    """The writing end of a pipe. Frames of several threads do not mix."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor: int = descriptor
        self._guard = threading.Lock()

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Write one frame. Raises OSError if the other end is gone, ValueError if it is too long."""
        if len(payload) > FRAME_LIMIT:
            raise ValueError(f"{len(payload)} bytes are too many for one message; the limit is {FRAME_LIMIT}")
        if self.descriptor < 0:  # a forked child's: nobody listens
            return
        header = _HEADER.pack(kind, len(payload))
        with self._guard:
            if len(payload) > _CHUNK:  # not copied to stand behind its header
                self._write(header)
                self._write(payload)
            else:
                self._write(header + payload)

    def _write(self, data: bytes) -> None:
        written = os.write(self.descriptor, data)
        rest = memoryview(data)
        while written < len(data):
            written += os.write(self.descriptor, rest[written:])

    def close(self) -> None:
        """Close the pipe; safe to repeat."""
        with self._guard:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class Receiver:
    """The reading end of a pipe, for one thread."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor: int = descriptor
        self._buffer = bytearray()

    def receive(self) -> tuple[Kind, bytes] | None:
        """Return the next frame, or None when the other end is gone, be it in the middle of a frame.

        Raises ValueError for what is no frame.
        """
        buffer = self._buffer
        if not self._fill(_HEADER.size):
            return None
        kind, length = _HEADER.unpack_from(buffer)
        if kind not in _KINDS or length > FRAME_LIMIT:
            raise ValueError("not a frame")
        if length > LARGE:
            payload = self._receive_large(length)
            return None if payload is None else (_KINDS[kind], payload)
        end = _HEADER.size + length
        if not self._fill(end):
            return None
        payload = bytes(memoryview(buffer)[_HEADER.size : end])
        del buffer[:end]
        return _KINDS[kind], payload

    def _receive_large(self, length: int) -> bytes | None:
        """Read the payload behind the header into its place, and not into one that grows."""
        buffer = self._buffer
        payload = bytearray(length)
        start = buffer[_HEADER.size : _HEADER.size + length]
        payload[: len(start)] = start
        del buffer[: _HEADER.size + len(start)]
        with memoryview(payload) as view:
            got = len(start)
            while got < length:
                read = os.readv(self.descriptor, [view[got:]])
                if not read:
                    return None
                got += read
        return cast("bytes", payload)  # equal to them, and not copied once more to be such

    def read_some(self) -> bool:
        """Read what is there; waits only where nothing is. False if the other end is gone."""
        try:
            data = os.read(self.descriptor, _CHUNK)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def head(self) -> tuple[Kind | None, int] | None:
        """Return kind and length of the frame that was begun to be read; None where that is not known yet.

        The kind is None for what is no frame.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._buffer)
        return (_KINDS.get(kind) if length <= FRAME_LIMIT else None), length

    def pop(self, length: int) -> bytes | None:
        """Return the payload of that frame if all of it was read."""
        buffer, end = self._buffer, _HEADER.size + length
        if len(buffer) < end:
            return None
        payload = bytes(memoryview(buffer)[_HEADER.size : end])
        del buffer[:end]
        return payload

    def _fill(self, wanted: int) -> bool:
        buffer = self._buffer
        while (missing := wanted - len(buffer)) > 0:
            data = os.read(self.descriptor, max(_CHUNK, missing))
            if not data:
                return False
            buffer += data
        return True

    def close(self) -> None:
        """Close the pipe; safe to repeat."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

"""Byte streams: broken ones told from those that ended, closing, and a stream over a socket of ours.

It is the shortest way from a socket to a session and back. Where the loop can watch a socket, it is told of it once,
and not before and after each request, and a `send` costs no turn of the loop, as with anyio's streams: a fourth of a
request. And a cancelled `receive` of anyio's over a unix socket leaves an error behind in the host's log: it hands
asyncio a future's `set_result` as the reader, and where input comes in the very turn in which the future is cancelled,
the loop reports an InvalidStateError, a traceback that nobody can do anything about.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scattersphere.engine.loops import Loop

CHUNK = 65_536
"""Bytes that are read at once."""


GONE = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.BusyResourceError,
    OSError,
    ssl.SSLError,
)
"""How a stream says that it is of no use any more. A TLS stream meets the end of input in a `send` too,
and is busy where a renegotiation makes a `send` read while we receive."""


async def send_eof(stream: object) -> None:
    """Close our half, where the stream has halves: TLS has none (RFC 8446 has, Python has not)."""
    close_half = getattr(stream, "send_eof", None)
    if close_half is not None:
        with contextlib.suppress(NotImplementedError):
            await close_half()


async def close(stream: ByteStream) -> None:
    """Close a stream, also one that is broken."""
    with contextlib.suppress(*GONE):
        await stream.aclose()


class RawSocketStream(ByteStream):
    """Reads, writes and closes a connected socket that does not block, over TCP or of this machine.

    With a `loop` that can watch it, what comes while nobody waits for it is kept; then no more is read until it is
    taken.
    """

    def __init__(self, connected: socket.socket, loop: Loop | None = None) -> None:
        self._socket = connected
        self._loop = loop if loop is not None and loop.can_watch else None
        self._watched = False
        self._waiter: anyio.Event | None = None
        self._come: deque[bytes] = deque()
        """What has come and was not taken; nothing (b"") stands for the end."""
        self._broken: OSError | None = None
        if connected.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it is closed by now
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, for who asks anyio's way."""
        return {SocketAttribute.raw_socket: lambda: self._socket}

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Return what has come. Raises EndOfStream, BrokenResourceError, ClosedResourceError."""
        come = self._come
        while not come:
            if self._broken is not None or self._socket.fileno() < 0:
                raise self._lost() from self._broken
            if self._loop is None:
                await self._wait(anyio.wait_readable)
                self._read()
                continue
            if self._waiter is not None:
                raise anyio.BusyResourceError("reading from")
            self._waiter = anyio.Event()
            self._watch(self._loop)
            try:
                await self._waiter.wait()
            finally:
                self._waiter = None
        chunk = come.popleft()
        if not chunk:
            come.append(chunk)
            raise anyio.EndOfStream
        if len(chunk) > max_bytes:
            come.appendleft(chunk[max_bytes:])
        return chunk[:max_bytes]

    def _watch(self, loop: Loop) -> None:
        if not self._watched:
            self._watched = True
            loop.watch(self._socket.fileno(), self._read)

    def _unwatch(self) -> None:
        if self._watched and self._loop is not None:
            self._watched = False
            self._loop.unwatch(self._socket.fileno())

    def _read(self) -> None:
        """Take what is there, and tell who waits."""
        try:
            chunk = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken, chunk = error, b""
        else:
            self._come.append(chunk)
        if self._waiter is None or not chunk:
            self._unwatch()
        if self._waiter is not None:
            self._waiter.set()

    async def send(self, item: bytes) -> None:
        """Send all of it, without a turn for others unless it has to wait. Raises as `receive` does."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        view = memoryview(item)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._wait(anyio.wait_writable)
            except OSError as error:
                raise self._lost() from error

    async def send_eof(self) -> None:
        """Close our half."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close both halves; whoever waits is told."""
        if self._socket.fileno() >= 0:
            self._unwatch()
            anyio.notify_closing(self._socket)
            self._socket.close()
            if self._waiter is not None:
                self._waiter.set()
        await anyio.lowlevel.checkpoint()

    async def _wait(self, ready: Callable[[socket.socket], Any]) -> None:
        try:
            await ready(self._socket)
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _lost(self) -> Exception:
        return anyio.ClosedResourceError() if self._socket.fileno() < 0 else anyio.BrokenResourceError()

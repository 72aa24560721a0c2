"""Byte streams: broken ones told from those that ended, closing, and a stream over a unix socket.

The latter is ours since a cancelled `receive` of anyio's leaves an error behind in the host's log.

anyio 4.16 hands asyncio a future's `set_result` as the reader of a unix socket. Where input comes in the very turn
of the loop in which the future is cancelled, the loop reports an InvalidStateError, a traceback that nobody can do
anything about. `anyio.wait_readable` has no such race. TCP streams are transports, and are not concerned.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import SocketStream


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


async def send_eof(stream: Any) -> None:
    """Close our half, where the stream has halves: TLS has none (RFC 8446 has, Python has not)."""
    close_half = getattr(stream, "send_eof", None)
    if close_half is not None:
        with contextlib.suppress(NotImplementedError):
            await close_half()


async def close(stream: ByteStream) -> None:
    """Close a stream, also one that is broken."""
    with contextlib.suppress(*GONE):
        await stream.aclose()


class UnixStream(ByteStream):
    """Reads and writes the socket of `stream`, which keeps it and closes it."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, not Django's

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream below."""
        return self._stream.extra_attributes

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there. Raises EndOfStream, BrokenResourceError, ClosedResourceError."""
        has_waited = False  # who waits gives the others their turn; whoever always finds something must, too
        while True:
            try:
                chunk = self._socket.recv(max_bytes)
            except BlockingIOError:
                await self._wait(anyio.wait_readable)
                has_waited = True
            except OSError as error:
                raise self._lost() from error
            else:
                if not chunk:
                    raise anyio.EndOfStream
                if not has_waited:
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                return chunk

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
            anyio.notify_closing(self._socket)
        await self._stream.aclose()

    async def _wait(self, ready: Callable[[socket.socket], Any]) -> None:
        try:
            await ready(self._socket)
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _lost(self) -> Exception:
        return anyio.ClosedResourceError() if self._socket.fileno() < 0 else anyio.BrokenResourceError()

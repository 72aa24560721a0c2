"""Timeouts for connections of uvicorn: a request's head must come, and what is sent must be taken.

Uvicorn waits for both as long as it takes (slowloris: https://en.wikipedia.org/wiki/Slowloris_(cyber_attack)); it has
a time only for what is idle after a reply. Bodies have theirs where they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from scattersphere.commands.limits import Limits

if TYPE_CHECKING:
    import asyncio

LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """A connection that is closed when its peer does not go on.

    A head has `line_time` seconds, from the connection or, after a reply, from its first byte. What is sent may wait
    `write_time` seconds without progress.
    """

    limits: ClassVar[Limits] = Limits()
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes. More bytes of a head give it no more time."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        else:  # a head has begun, or there is more of a body that nobody wanted
            self._await_head()

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.limits.line_time, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _head_is_late(self) -> None:
        begun, _ = self.conn.trailing_data
        if begun and self.conn.our_state is h11.IDLE:  # to a peer that said nothing, nothing is said
            self.transport.write(LATE)
        self.transport.close()
        self._await_reader()

    def pause_writing(self) -> None:
        """Note that the peer does not take what is sent."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Note that it has taken it."""
        super().resume_writing()
        self._forget_reader()

    def on_response_complete(self) -> None:
        """End a reply; the last bytes before a close must be taken, too."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close what has been idle after a reply."""
        super().timeout_keep_alive_handler()
        self._await_reader()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        super().send_400_response(msg)
        self._await_reader()

    def _await_reader(self) -> None:
        if self._stalled is None:
            waiting = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(self.limits.write_time, self._look_at_reader, waiting)

    def _look_at_reader(self, waiting: int) -> None:
        self._stalled = None
        if self.transport.get_write_buffer_size() < waiting:  # it is slow, but it goes on
            self._await_reader()
        else:
            self.transport.abort()

    def _forget_reader(self) -> None:
        if self._stalled is not None and not self.transport.is_closing():
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was waited for."""
        super().connection_lost(exc)
        self._forget_head()
        if self._stalled is not None:
            self._stalled.cancel()

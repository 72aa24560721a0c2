"""Streaming responses: counted and bounded, and given up where nobody reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from starlette.responses import StreamingResponse

from scattersphere.commands.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from scattersphere.commands.limits import Limits

Write = Callable[[bytes], Awaitable[None]]
Produce = Callable[[Write], Awaitable[None]]
"""Writes a stream, piece by piece, and returns at its end."""
ALIVE = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the stream."""


class Streams:
    """How many streams there are, of each user."""

    def __init__(self) -> None:
        self._of_user: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._of_user.total()

    def check(self, user: str, limits: Limits) -> None:
        """Raise `RequestError` (`busy`) where there is no room for another stream."""
        if len(self) >= limits.streams or self._of_user[user] >= limits.streams_of_user:
            message = "there are too many streams of events already; close one, or try again"
            raise RequestError("busy", message, retry_after=ALIVE)

    def enter(self, user: str) -> None:
        """Count one more."""
        self._of_user[user] += 1

    def leave(self, user: str) -> None:
        """Count one less."""
        self._of_user[user] -= 1
        if not self._of_user[user]:
            del self._of_user[user]


class EventStreamResponse(StreamingResponse):
    """Server-sent events. A reader that takes nothing for `patience` seconds is given up."""

    def __init__(self, produce: Produce, streams: Streams, user: str, *, patience: float) -> None:
        # A proxy must neither keep nor gather what it passes on.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._produce = produce
        self._streams = streams
        self._user = user
        self._patience = patience
        self._is_wanted = True

    async def stream_response(self, send: Send) -> None:
        """Send the head, all that is written, and the end.

        What is written comes from no generator: its tasks would be left to whoever collects the generator.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        if self._is_wanted:
            await self._produce(write)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is until the end, or until nobody reads it."""

        async def sending(message: Message) -> None:
            with anyio.move_on_after(self._patience) as waiting:
                await send(message)
            if waiting.cancelled_caught:
                raise _StalledError

        self._is_wanted = scope["method"] != "HEAD"
        self._streams.enter(self._user)
        try:
            await super().__call__(scope, receive, sending)
        except (_StalledError, BaseExceptionGroup) as error:
            if not _is_stalled(error):
                raise  # else what was under way is dropped with its connection
        finally:
            self._streams.leave(self._user)


class _StalledError(Exception):
    """Nobody has taken anything for too long."""


def _is_stalled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_stalled, error.exceptions))
    return isinstance(error, _StalledError)

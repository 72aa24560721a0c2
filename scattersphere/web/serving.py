"""Pages and API on an address of their own: what `serve --http` and `dev --open` do. Needs uvicorn and asyncio."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from scattersphere._version import installing
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.errors import ListenError
from scattersphere.errors import MissingExtraError
from scattersphere.web import Links, make_app

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    import uvicorn

    from scattersphere.commands.gateway import Gateway

BACKLOG, ACCEPTS = 2048, 16
"""Connections that wait to be accepted, and those that are accepted in one turn of the loop."""
CONNECTIONS = 4_000
"""Connections at once; to more 503 is said, so that silent ones cost a bounded amount."""
SHUTDOWN = 1
"""Seconds that what is under way gets when the server ends."""
_LOOPBACK = ("127.", "::1", "localhost")


def bind(address: str, *, beyond_loopback: bool = False) -> socket.socket:
    """Return a listening socket for `HOST:PORT`, port 0 for any. Raises `ListenError`."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ListenError(f"{address!r} is no HOST:PORT, as 127.0.0.1:8000 is")
    if not beyond_loopback and not host.startswith(_LOOPBACK):
        raise ListenError(
            f"{host} is not this machine's loopback: give --tls-cert and --tls-key, or --behind-proxy"
        )
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror or error}") from None


async def serve_pages(
    gateway: Gateway,
    listening: socket.socket,
    *,
    say: Callable[[str], None],
    opened: Callable[[str], object] | None = None,
    tls: ssl.SSLContext | None = None,
    hosts: tuple[str, ...] = (),
) -> None:
    """Answer browsers and programs until cancelled.

    `say` is told a link that logs one browser in, and another whenever a browser comes that is not known: only who
    sees this program's output can come in. `opened` is given the first link. Raises `MissingExtraError`.
    """
    try:
        import uvicorn  # noqa: PLC0415 - of the extra `web`

        from scattersphere.web.connections import BoundedProtocol  # noqa: PLC0415 - it needs uvicorn
    except ImportError as error:
        raise MissingExtraError(f"{error}; --http needs: {installing('web')}") from error
    host, port = listening.getsockname()[:2]
    base = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    me = Principal(user="console", role=Role.ADMIN)

    def link() -> str:
        return f"{base}/login?code={links.new_code(me)}"

    links = Links(time.monotonic, wanted=lambda: say(f"a browser asks to come in: {link()}"))

    class Quiet(uvicorn.Server):
        """Signals are the business of the program around it."""

        def capture_signals(self) -> Any:
            return contextlib.nullcontext()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listening.listen(BACKLOG)  # asyncio accepts as many in one turn as it was told to let wait

    class Bounded(BoundedProtocol):
        limits = gateway.limits

    pages = make_app(gateway, authorize=None, links=links, hosts=(host, *hosts))
    config = uvicorn.Config(
        pages,
        http=Bounded,
        ws="none",
        log_level="error",  # what strangers send is warned of, and they send as much as they like
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        backlog=ACCEPTS,
    )
    config.load()
    config.ssl = tls  # ours, whose certificate may be read again while it serves
    first = link()
    say(f"pages at {base}/ (this link lets one browser in, once, within a minute: {first})")

    async def open_(show: Callable[[str], object]) -> None:
        # In a thread: a browser in the terminal comes back when it is left.
        await anyio.to_thread.run_sync(show, first, abandon_on_cancel=True)

    async with anyio.create_task_group() as group:
        if opened is not None:
            group.start_soon(open_, opened)
        serving = Quiet(config)
        try:
            await serving.serve(sockets=[listening])
        finally:
            await _leave(serving, listening)
        group.cancel_scope.cancel()


async def _leave(serving: uvicorn.Server, listening: socket.socket) -> None:
    """Close the address and all connections. Streams end by themselves when their reader has gone."""
    for each in (*getattr(serving, "servers", ()), listening):
        each.close()
    for connection in list(serving.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    with anyio.move_on_after(SHUTDOWN, shield=True):
        while serving.server_state.tasks:  # noqa: ASYNC110 - uvicorn tells of no end
            await anyio.sleep(0.01)

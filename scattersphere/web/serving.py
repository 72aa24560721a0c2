"""Pages and API on an address of their own: what `serve --http` and `dev --open` do. Needs uvicorn and asyncio."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

from scattersphere.commands.access import Principal, Role
from scattersphere.commands.errors import ListenError
from scattersphere.errors import MissingExtraError
from scattersphere.web import Links, app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scattersphere.commands.limits import Limits
    from scattersphere.commands.tokens import TokenFile
    from scattersphere.server import Server

BACKLOG = 2048
SHUTDOWN = 3
"""Seconds that open streams get when the server ends."""
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
    server: Server,
    listening: socket.socket,
    *,
    say: Callable[[str], None],
    opened: Callable[[str], object] | None = None,
    tokens: TokenFile | None = None,
    limits: Limits | None = None,
    tls: tuple[Path, Path] | None = None,
    hosts: tuple[str, ...] = (),
) -> None:
    """Answer browsers and programs until cancelled.

    `say` is told a link that logs one browser in, and another whenever a browser comes that is not known: only who
    sees this program's output can come in. `opened` is given the first link. Raises `MissingExtraError`.
    """
    try:
        import uvicorn  # noqa: PLC0415 - of the extra `web`
    except ImportError as error:
        raise MissingExtraError(f"{error}; --http needs: pip install 'scattersphere[web]'") from error
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

    pages = app(server, links=links, tokens=tokens, limits=limits, hosts=(host, *hosts))
    config = uvicorn.Config(
        pages,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN,
        ssl_certfile=None if tls is None else str(tls[0]),
        ssl_keyfile=None if tls is None else str(tls[1]),
    )
    first = link()
    say(f"pages at {base}/ (this link lets one browser in, once, within a minute: {first})")
    if opened is not None:
        opened(first)
    await Quiet(config).serve(sockets=[listening])

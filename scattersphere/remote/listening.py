"""`listen`: the one call that makes a Server reachable from outside its program."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from scattersphere.commands.gateway import make_gateway
from scattersphere.remote.listener import Listening

if TYPE_CHECKING:
    import os
    import socket
    import ssl
    from collections.abc import Callable, Iterable

    from scattersphere.commands.audit import Audit
    from scattersphere.commands.limits import Limits
    from scattersphere.commands.tokens import TokenFile
    from scattersphere.server import Server


class ListenKeywords(TypedDict, total=False):
    """The keyword arguments of `listen` and `Server.listen`."""

    tcp: str | Iterable[str]
    unix: str | os.PathLike[str] | None
    sockets: Iterable[socket.socket]
    tokens: TokenFile | str | os.PathLike[str] | None
    tls: ssl.SSLContext | None
    bundle_roots: Iterable[str | os.PathLike[str]]
    job_folder: str | os.PathLike[str] | None
    audit: Audit | None
    limits: Limits | None
    on_shutdown: Callable[[], None] | None


def listen(  # noqa: PLR0913 - each is a choice of the operator's, by name
    server: Server,
    *,
    tcp: str | Iterable[str] = (),
    unix: str | os.PathLike[str] | None = None,
    sockets: Iterable[socket.socket] = (),
    tokens: TokenFile | str | os.PathLike[str] | None = None,
    tls: ssl.SSLContext | None = None,
    bundle_roots: Iterable[str | os.PathLike[str]] = (),
    job_folder: str | os.PathLike[str] | None = None,
    audit: Audit | None = None,
    limits: Limits | None = None,
    on_shutdown: Callable[[], None] | None = None,
) -> Listening:
    """Return a listener for sessions: await it, or use it with `async with`.

    `tcp` is `HOST:PORT` (or several), port 0 for any; `unix` a path in a folder of mode 0700;
    `sockets` are bound already. TCP needs `tokens`, beyond loopback also `tls`. `bundle_roots` and
    `job_folder` are the only places that sessions can name. `on_shutdown` is called by `shutdown`.
    Opening raises `ListenError` where it would be unsafe or an address cannot be used.
    """
    gateway = make_gateway(
        server,
        tokens=tokens,
        bundle_roots=bundle_roots,
        job_folder=job_folder,
        audit=audit,
        limits=limits,
        on_shutdown=on_shutdown,
    )
    return Listening(
        gateway,
        tcp=(tcp,) if isinstance(tcp, str) else tcp,
        unix=() if unix is None else (unix,),
        sockets=sockets,
        tls=tls,
    )

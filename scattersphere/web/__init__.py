"""Web pages over a Server: an ASGI application for a browser, alone or mounted in an application of yours.

Needs the extra `web` (starlette and jinja2), which is imported when `app` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere._version import installing
from scattersphere.commands.gateway import make_gateway
from scattersphere.errors import MissingExtraError
from scattersphere.web.guard import Links

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp

    from scattersphere.commands.audit import Audit
    from scattersphere.commands.gateway import Gateway
    from scattersphere.commands.limits import Limits
    from scattersphere.commands.tokens import TokenFile
    from scattersphere.server import Server
    from scattersphere.web.guard import Authorize

__all__ = ["Links", "app"]


def app(  # noqa: PLR0913 - each is a choice of the operator's, by name
    server: Server,
    *,
    authorize: Authorize | None = None,
    links: Links | None = None,
    tokens: TokenFile | None = None,
    hosts: tuple[str, ...] = (),
    bundle_roots: Iterable[str | os.PathLike[str]] = (),
    job_folder: str | os.PathLike[str] | None = None,
    audit: Audit | None = None,
    limits: Limits | None = None,
    on_shutdown: Callable[[], None] | None = None,
) -> ASGIApp:
    """Return pages and HTTP API as an ASGI application, which can be mounted below any path of Starlette or FastAPI.

    Nobody comes in by default. Who may see and do what is decided by `authorize(scope)`, which is awaited for each
    request and returns a `Principal` or None; or by `links`, whose one-time addresses log a browser in. `tokens` lets
    programs in beside either, or alone, that send `Authorization: Bearer`; `limits` bounds what each user may ask.
    `hosts` are the names by which browsers may call it beside those of this machine's loopback (DNS rebinding); an
    `authorize` of yours is asked whatever the name. Raises `MissingExtraError` without the extra, ValueError if nobody
    could come in or both of the first are given.
    """
    if authorize is not None and links is not None:
        raise ValueError("web.app: give either authorize= (your own rights) or links= (one-time addresses)")
    if authorize is None and links is None and tokens is None:
        raise ValueError(
            "web.app: nobody could come in: give authorize= (your own rights), links= or tokens="
        )
    gateway = make_gateway(
        server,
        tokens=tokens,
        bundle_roots=bundle_roots,
        job_folder=job_folder,
        audit=audit,
        limits=limits,
        on_shutdown=on_shutdown,
    )
    return make_app(gateway, authorize=authorize, links=links, hosts=hosts)


def make_app(
    gateway: Gateway, *, authorize: Authorize | None, links: Links | None, hosts: tuple[str, ...]
) -> ASGIApp:
    """Return the application over a gateway that others may use too. Raises `MissingExtraError`."""
    try:
        from scattersphere.web.pages import pages_over  # noqa: PLC0415 - the extra is imported unasked by nobody
    except ImportError as error:
        raise MissingExtraError(f"{error}; the pages need: {installing('web')}") from error
    return pages_over(gateway, authorize=authorize, links=links, hosts=hosts)

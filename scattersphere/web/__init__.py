"""Web pages over a Server: an ASGI application for a browser, alone or mounted in an application of yours.

Needs the extra `web` (starlette and jinja2), which is imported when `app` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.commands.limits import Limits
from scattersphere.errors import MissingExtraError
from scattersphere.web.guard import Links

if TYPE_CHECKING:
    from scattersphere.commands.tokens import TokenFile
    from scattersphere.server import Server
    from scattersphere.web.guard import Authorize

__all__ = ["Links", "app"]


def app(
    server: Server,
    *,
    authorize: Authorize | None = None,
    links: Links | None = None,
    tokens: TokenFile | None = None,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = (),
) -> Any:
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
    try:
        from scattersphere.web.pages import make_app  # noqa: PLC0415 - the extra is imported unasked by nobody
    except ImportError as error:
        raise MissingExtraError(f"{error}; the pages need: pip install 'scattersphere[web]'") from error
    return make_app(
        server, authorize=authorize, links=links, tokens=tokens, limits=limits or Limits(), hosts=hosts
    )

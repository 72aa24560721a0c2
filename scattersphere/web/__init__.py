"""Web pages over a Server: an ASGI application for a browser, alone or mounted in an application of yours.

Needs the extra `web` (starlette and jinja2), which is imported when `app` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.errors import MissingExtraError
from scattersphere.web.guard import Links

if TYPE_CHECKING:
    from scattersphere.server import Server
    from scattersphere.web.guard import Authorize

__all__ = ["Links", "app"]


def app(
    server: Server,
    *,
    authorize: Authorize | None = None,
    links: Links | None = None,
    hosts: tuple[str, ...] = (),
) -> Any:
    """Return the pages as an ASGI application, which can be mounted below any path of Starlette or FastAPI.

    Who may see and do what is decided by `authorize(scope)`, which is awaited for each request and returns a
    `Principal` or None; or by `links`, whose one-time addresses log a browser in. One of the two must be given: nobody
    comes in by default. `hosts` are the names by which browsers may call it beside those of this machine's loopback
    (DNS rebinding); an `authorize` of yours is asked whatever the name. Raises `MissingExtraError` without the extra,
    ValueError if neither or both are given.
    """
    if (authorize is None) == (links is None):
        raise ValueError("web.app: give either authorize= (your own rights) or links= (one-time addresses)")
    try:
        from scattersphere.web.pages import make_app  # noqa: PLC0415 - the extra is imported unasked by nobody
    except ImportError as error:
        raise MissingExtraError(f"{error}; the pages need: pip install 'scattersphere[web]'") from error
    return make_app(server, authorize=authorize, links=links, hosts=hosts)

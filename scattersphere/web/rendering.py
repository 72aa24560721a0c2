"""Rendering of pages to bytes: the templates and what they use, the static files, and HTML as it is sent."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from functools import lru_cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

import jinja2
from anyio import to_thread
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response, StreamingResponse

from scattersphere._gc import gc_paused
from scattersphere._threads import in_thread
from scattersphere._version import own_version
from scattersphere.pictures import charts
from scattersphere.pictures.labels import duration, words
from scattersphere.pictures.looks import LOOKS, state_variables, stylesheet, symbols

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.requests import Request

    from scattersphere.web.content import ListedRun

T = TypeVar("T")
_HERE = files("scattersphere.web")
NAV = (
    ("Overview", ""),
    ("Jobs", "jobs"),
    ("Runs", "runs"),
    ("Bundles", "bundles"),
    ("Schedules", "schedules"),
)
KEPT = "public, max-age=31536000, immutable"
"""For files whose address changes with their content."""
_GZIP = 31
"""zlib's word for a stream of gzip (wbits)."""


@lru_cache(maxsize=1)
def assets() -> dict[str, tuple[bytes, str]]:
    """Return the static files by name, each with its type; the colours of states come from the pictures' table."""
    style = (_HERE / "static" / "style.css").read_text("utf-8")
    style += state_variables() + stylesheet(".picture", ":root") + stylesheet(".picture-plot", ":root")
    return {
        "style.css": (style.encode(), "text/css; charset=utf-8"),
        "page.js": ((_HERE / "static" / "page.js").read_bytes(), "text/javascript; charset=utf-8"),
        "icon.svg": ((_HERE / "static" / "icon.svg").read_bytes(), "image/svg+xml"),
    }


@lru_cache(maxsize=1)
def stamp() -> str:
    """Return what changes when a static file does: part of its address, so that browsers may keep it for good."""
    return hashlib.blake2b(b"".join(data for data, _ in assets().values()), digest_size=6).hexdigest()


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """Return the templates; every value is escaped where it is put in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scattersphere.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    own = (_HERE / "templates" / "symbols.html").read_text("utf-8")
    sprite = f'<svg width="0" height="0" class="unseen" aria-hidden="true">{symbols(set(LOOKS))}{own}</svg>'
    environment.globals.update(
        words=words,
        duration=duration,
        nav=NAV,
        sprite=Markup(sprite),  # noqa: S704 - our own files
        stamp=stamp(),
        version=own_version(),
        bar=lambda counts: Markup(charts.bar(counts)),  # noqa: S704 - escaped where it is drawn
        columns=lambda values, label: Markup(charts.columns(values, label=label)),  # noqa: S704 - the same
        strip=_strip,
        query=_query,
        notice=None,
        live="",
    )
    for name in environment.list_templates(("html",)):
        environment.get_template(
            name
        )  # now, not in the turn of the first who looks: all take a fifth of a second
    return environment


def _query(given: Mapping[str, object] | None = None, **parts: object) -> str:
    """Return a query of what is given, without what is empty."""
    return urlencode({name: value for name, value in {**(given or {}), **parts}.items() if value})


def _strip(rows: list[ListedRun], base: str) -> Markup:
    runs = [(str(row.id), row.state, row.seconds) for row in rows]
    return Markup(charts.strip(runs, lambda name: f"{base}/runs/{name}"))  # noqa: S704 - escaped where it is drawn


# ---- over the wire


def _takes_gzip(request: Request) -> bool:
    """Whether the client takes gzip (RFC 9110, 12.5.3)."""
    for each in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def asset(request: Request, name: str) -> Response | None:
    """Return a static file, packed once for all who take it so; None for what is none."""
    if name not in assets():
        return None
    data, kind = assets()[name]
    headers = {"cache-control": KEPT, "vary": "accept-encoding"}
    if _takes_gzip(request):
        data, headers["content-encoding"] = _packed(name), "gzip"
    return Response(data, media_type=kind, headers=headers)


@lru_cache(maxsize=8)
def _packed(name: str) -> bytes:
    return gzip.compress(assets()[name][0], 9, mtime=0)


async def drawn(draw: Callable[[], T], *, tasks: int = 0) -> T:
    """Return what a page shows, made in a thread that leaves the loop its turns.

    Where it shows many `tasks`, no garbage is collected meanwhile. It is one of the host's threads: however many
    look, so many are drawn at once.
    """

    def make() -> T:
        with gc_paused(tasks=tasks):
            return draw()

    return await in_thread(make, to_thread.current_default_thread_limiter())


async def html(request: Request, *parts: Callable[[], str], tasks: int = 0) -> Response:
    """Return a page that is drawn and packed in a thread: a large one takes longer than a turn of the loop may.

    Where it has several parts, the browser shows each while the next is drawn.
    """
    packer = zlib.compressobj(6, wbits=_GZIP) if _takes_gzip(request) else None
    headers = {"vary": "accept-encoding"} | ({"content-encoding": "gzip"} if packer is not None else {})

    def draw(number: int) -> bytes:
        data = parts[number]().encode()
        if packer is None:
            return data
        last = number == len(parts) - 1
        return packer.compress(data) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    first = await drawn(partial(draw, 0), tasks=tasks)
    if len(parts) == 1:
        return HTMLResponse(first, headers=headers)

    async def pieces() -> AsyncIterator[bytes]:
        yield first
        for number in range(1, len(parts)):
            yield await drawn(partial(draw, number), tasks=tasks)

    return StreamingResponse(pieces(), media_type="text/html", headers=headers)

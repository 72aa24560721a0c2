"""Authentication and hardening of requests: one-time links, cookies, Host, Origin, security headers.

Every request goes through `Guard` first. It knows no page and no run; a page that changes something asks
`read_form`, which checks the token of the form.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote

import anyio
import attrs

from scattersphere.commands.access import Principal
from scattersphere.web.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")
Authorize = Callable[[Any], Awaitable[Principal | None]]
"""Given the scope of a request (ASGI), says who it is from; None for nobody."""

CODE_LIFE = 60.0
"""Seconds for which a one-time link holds."""
ASKING = 5.0
"""Seconds between two links that are told because a browser asks."""
IDLE = 12 * 3600.0
"""Seconds without a request after which a browser must log in again."""
MOST = 1000
"""Codes, and browsers, that are known at once; the oldest goes first."""
FORM = 256 * 1024
"""Bytes of a form."""
BODY_TIME = 60.0
"""Seconds for the body of a request: a slow sender holds a connection, not for ever."""
COOKIE = "scattersphere"
API = "/api/v1"
"""What lies below is for programs: it gives no cookie, and answers refusals with problem documents."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
ONCE = frozenset(
    {b"authorization", b"host", b"idempotency-key", b"last-event-id", b"origin", b"sec-fetch-site"}
)
"""Headers that decide something: of two, a proxy might go by the one and we by the other."""
HEALTH = frozenset({"/healthz", "/readyz"})
"""What a probe asks by the number of its machine, and what tells nobody anything."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_SENT = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_NO_STORE = (b"cache-control", b"no-store")


class RefusedError(Exception):
    """A request that is not carried out: an HTTP status and what to tell."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class _AmbiguousError(RefusedError):
    """A request that two readers could take for two different ones: what follows it could be, too."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


def _hidden(secret: str) -> bytes:
    """Return what is kept of a secret: who reads our memory's dump logs in nowhere."""
    return hashlib.blake2b(secret.encode(), digest_size=16).digest()


@attrs.define
class _Browser:
    principal: Principal
    seen: float


class Links:
    """One-time codes that log a browser in, and the browsers that are logged in. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], wanted: Callable[[], None] | None = None) -> None:
        """`wanted` is called, not more than every few seconds, when a browser comes that is not known."""
        self._clock = clock
        self._wanted = wanted
        self._told = float("-inf")
        self._codes: dict[bytes, tuple[Principal, float]] = {}
        self._browsers: dict[bytes, _Browser] = {}

    def new_code(self, principal: Principal) -> str:
        """Return a code that logs one browser in within a minute: the end of the link `/login?code=...`."""
        code = secrets.token_urlsafe(24)
        _bound(self._codes)
        self._codes[_hidden(code)] = principal, self._clock() + CODE_LIFE
        return code

    def ask(self) -> bool:
        """Tell that a browser would like to come in; return whether somebody is told."""
        if self._wanted is None:
            return False
        if self._clock() - self._told > ASKING:
            self._told = self._clock()
            self._wanted()
        return True

    def log_in(self, code: str) -> str | None:
        """Take a code; return the secret of a cookie, or None for one that is wrong, old or used."""
        principal, until = self._codes.pop(_hidden(code), (None, 0.0))
        if principal is None or until < self._clock():
            return None
        secret = secrets.token_urlsafe(32)
        _bound(self._browsers)
        self._browsers[_hidden(secret)] = _Browser(principal, self._clock())
        return secret

    def find(self, secret: str) -> Principal | None:
        """Return whom a cookie stands for."""
        key = _hidden(secret)
        browser = self._browsers.get(key)
        if browser is None:
            return None
        if self._clock() - browser.seen > IDLE:
            del self._browsers[key]
            return None
        browser.seen = self._clock()
        return browser.principal

    def log_out(self, secret: str) -> None:
        """Forget a browser."""
        self._browsers.pop(_hidden(secret), None)


def _bound(entries: dict[bytes, T]) -> None:
    while len(entries) >= MOST:
        del entries[next(iter(entries))]


class Guard:
    """ASGI middleware: lets requests in that come from somebody, by a right name, and are no other site's doing."""

    def __init__(
        self,
        inner: ASGIApp,
        *,
        authorize: Authorize | None,
        links: Links | None,
        tokens: Callable[[str, str], Principal | None],
        hosts: tuple[str, ...],
        refuse: Callable[[Scope, Receive, Send, RefusedError], Awaitable[None]],
    ) -> None:
        self._inner = inner
        self._tokens = tokens
        self._authorize = authorize
        self._links = links
        self._hosts = None if authorize is not None else frozenset((*LOOPBACK, *hosts))
        self._refuse = refuse
        self._key = secrets.token_bytes(32)
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a web socket is closed, the lifespan is the inner application's."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        await self._turns.take()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = path_of(scope)
        cookie = cookies_of(headers).get(COOKIE, "")
        state = scope.setdefault("state", {})
        state["principal"], state["csrf"] = None, self._csrf(cookie)
        answer = _with_headers(send, self._fresh_cookie(scope, cookie, state, path))
        try:
            _check_headers(scope["headers"], headers)
            token = _bearer(headers)
            if token is not None:
                # No browser sends it by itself, so no other site can have it sent.
                state["principal"] = self._by_token(scope, token)
            else:
                self._check_origin(scope, headers, path)
                state["principal"] = await self._principal(scope, cookie)
        except _AmbiguousError as refused:
            await self._refuse(scope, receive, _closing(scope, answer), refused)
            return
        except RefusedError as refused:
            await self._refuse(scope, receive, answer, refused)
            return
        await self._inner(scope, receive, answer)

    def _by_token(self, scope: Scope, token: str) -> Principal:
        peer = scope.get("client")
        principal = self._tokens(token, peer[0] if peer else "")
        if principal is None:
            raise RefusedError(401, "this token does not hold")
        return principal

    def _check_origin(self, scope: Scope, headers: Mapping[str, str], path: str) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and path not in HEALTH and _name_of(host) not in self._hosts:
            raise RefusedError(
                421,
                f"this server is not called {_name_of(host)!r}: start it with that name (--http-name, hosts=)",
            )
        if scope["method"] in SAFE:
            return
        origin = headers.get("origin")
        if origin is None:  # all browsers send it with a POST; one that hides it tells where it comes from
            # A program that is no browser tells nothing, and sends no cookie that another site could make use of.
            told = headers.get("sec-fetch-site")
            same = "cookie" not in headers if told is None else told in {"same-origin", "none"}
        else:
            same = origin == f"{scope.get('scheme', 'http')}://{host}"
        if not same:
            raise RefusedError(403, "this request comes from another site")

    async def _principal(self, scope: Scope, cookie: str) -> Principal | None:
        if self._authorize is not None:
            return await self._authorize(scope)
        return self._links.find(cookie) if self._links is not None and cookie else None

    def _csrf(self, cookie: str) -> str:
        return hmac.new(self._key, cookie.encode(), "sha256").hexdigest()[:32] if cookie else ""

    def _fresh_cookie(self, scope: Scope, cookie: str, state: dict[str, object], path: str) -> str | None:
        """Return the header of a new cookie for a browser that is let in by its host's rights and has none yet.

        It is what the token of its forms hangs on.
        """
        if cookie or self._authorize is None or path.startswith(API):
            return None
        secret = secrets.token_urlsafe(32)
        state["csrf"] = self._csrf(secret)
        return cookie_header(scope, secret)


def _check_headers(sent: list[tuple[bytes, bytes]], headers: Mapping[str, str]) -> None:
    """Raise `_AmbiguousError` for a request that two readers could take for two different ones (RFC 9112, 6.1)."""
    if len(headers) < len(sent):
        names = [name for name, _ in sent]
        twice = next((name for name in names if name in ONCE and names.count(name) > 1), None)
        if twice is not None:
            raise _AmbiguousError(f"the header {twice.decode('latin-1')} stands twice")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise _AmbiguousError("a body comes with its length or in chunks, not both")


def _bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token that a program sends; None where it sends none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def path_of(scope: Mapping[str, Any]) -> str:
    """Return the path of a request below its prefix; that of `request.url` is made of the `Host` that is sent."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def base_of(scope: Mapping[str, Any]) -> str:
    """Return the prefix below which a request came, as it stands in addresses and headers.

    A host may mount the pages below a name that a stranger chooses, and ASGI gives the prefix decoded: with blanks,
    semicolons, line ends and letters that no header holds.
    """
    return quote(scope.get("root_path", ""), safe="/!$()*+,:=@~")


def cookie_header(scope: Scope, secret: str) -> str:
    """Return a `Set-Cookie` for the pages alone: no script reads it, no other site's request carries it."""
    path = base_of(scope) or "/"
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{COOKIE}={secret}; Path={path}; HttpOnly; SameSite=Strict{secure}"


def cookies_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the cookies of a request."""
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return {name: value for name, equals, value in pairs if equals}


def _name_of(host: str) -> str:
    """Return the name in a `Host` header without its port; "" for what is no host at all."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def _with_headers(send: Send, cookie: str | None) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            more = [each for each in (*_SENT, _NO_STORE) if each[0] not in present]
            if cookie is not None:
                more.append((b"set-cookie", cookie.encode()))
            message["headers"] = [*message.get("headers", ()), *more]
        await send(message)

    return answer


def _closing(scope: Scope, send: Send) -> Send:
    """Have the connection closed after an answer."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and scope["http_version"].startswith("1"):
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return answer


async def read_form(receive: Receive, csrf: str, most: int = FORM) -> dict[str, str]:
    """Return the fields of a form that was sent by one of our pages; raises `RefusedError` for any other."""
    try:
        with anyio.fail_after(BODY_TIME):
            body = await _form_body(receive, most)
    except TimeoutError:
        raise RefusedError(408, f"the form did not come within {BODY_TIME:g} s") from None
    try:
        text = body.decode("utf-8")
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=1000, strict_parsing=bool(text)))
    except ValueError:
        raise RefusedError(400, "this is no form") from None
    # Compared as bytes: two texts must be ASCII, and what stands in a form may be anything.
    if not csrf or not hmac.compare_digest(fields.pop("csrf", "").encode(), csrf.encode()):
        raise RefusedError(403, "the form is not one of this page, or too old: load the page again")
    return fields


async def _form_body(receive: Receive, most: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the browser has gone")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise RefusedError(413, f"the form has more than {most:,} bytes")
    return bytes(body)

"""The HTTP API: each command of the table that has a method and a path is a route, with the same code behind it.

Rights, arguments, masking, limits and the audit are those of `scattersphere.commands`; here are only addresses, JSON
and statuses. Errors are problem documents (RFC 9457) with the codes of the commands; `Idempotency-Key` is the key of a
start; events are server-sent events that go on after `Last-Event-ID`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio
import attrs
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, compile_path

from scattersphere import _json
from scattersphere._json_strings import decode_utf8
from scattersphere._threads import in_thread
from scattersphere.commands.arguments import ArgumentKind, Definition, from_word
from scattersphere.commands.errors import RequestError
from scattersphere.commands.exits import CONTAINED
from scattersphere.commands.handlers.events import run_kinds, server_kinds
from scattersphere.commands.table import COMMANDS, CommandSpec
from scattersphere.model.events import read_event_id
from scattersphere.remote.render import as_json
from scattersphere.web.calls import LARGE, CallError, Calls
from scattersphere.web.feed import FeedEvent, Feeds, lagged
from scattersphere.web.guard import API, BODY_TIME, base_of
from scattersphere.web.paths import NUMBER, REST

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.requests import Request

    from scattersphere._json_words import JsonObject
    from scattersphere.commands.access import Principal
    from scattersphere.commands.arguments import CommandArgument
    from scattersphere.web.guard import RefusedError

Handler = Callable[["Request"], Awaitable[Response]]
PROBLEM = "application/problem+json"
STATUS = {
    "bad-request": 400,
    "bad-utf8": 400,
    "too-deep": 400,
    "bad-args": 422,
    "invalid-job": 422,
    "auth-required": 401,
    "auth-failed": 401,
    "forbidden": 403,
    "no-such-bundle": 404,
    "no-such-job": 404,
    "no-such-run": 404,
    "no-such-schedule": 404,
    "no-such-task": 404,
    "unknown-command": 404,
    "exists": 409,
    "conflict": 409,
    "too-large": 413,
    "rate-limited": 429,
    "busy": 503,
    "journal-unavailable": 503,
    "shutting-down": 503,
    "unsupported": 409,
    "timeout": 504,
    "cancelled": 409,
    "internal": 500,
}
"""The status of each code of the commands that can be answered here."""
INSTANCE, JOURNAL = "scattersphere-instance", "scattersphere-journal"
"""The headers that tell a server from the same one started anew, and whether it has the same runs all the same."""
KEY = 200
"""Characters of an `Idempotency-Key`."""
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_BODILESS = frozenset({"GET", "HEAD", "DELETE"})
_BODY_HEADERS = frozenset({"content-length", "transfer-encoding"})
_STARTS = frozenset({"start", "start-task", "rerun"})
_MAKES = frozenset({"define", "register"})


_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?")
_NAME = re.compile(r"\{(\w+)\}")


def rows() -> list[CommandSpec]:
    """Return the commands that are routes, in the order of the table. Streams have addresses of their own."""
    return [row for row in COMMANDS.values() if row.method and row.path and not row.streaming]


@attrs.frozen
class Address:
    """A path, the names in it, and the command of each method there."""

    path: str
    names: tuple[str, ...]
    methods: dict[str, CommandSpec]

    def arguments(self, row: CommandSpec) -> dict[str, str]:
        """Return the argument of a command for each name in the path: two commands may name one place otherwise."""
        return dict(zip(self.names, _NAME.findall(str(row.path)), strict=True))


def addresses() -> list[Address]:
    """Return all addresses; longer paths first, and words before names, so that no name swallows a verb."""
    found: dict[str, Address] = {}
    for row in rows():
        shape = _NAME.sub("{}", str(row.path))
        if shape not in found:
            found[shape] = Address(str(row.path), tuple(_NAME.findall(str(row.path))), {})
        found[shape].methods[str(row.method)] = row
    return sorted(found.values(), key=lambda each: (-each.path.count("/"), "{" in each.path, each.path))


def made_by(row: CommandSpec) -> tuple[int, ...]:
    """Return the statuses with which a command is answered when it was carried out."""
    if row.name in _STARTS:
        return 200, 201
    return (201,) if row.name in _MAKES else (200,)


@attrs.frozen
class _Place:
    """What answers the paths of a pattern."""

    pattern: re.Pattern[str]
    convertors: dict[str, Any]
    handler: Handler


class Api:
    """The routes of the API over the commands."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._gateway = calls.gateway
        self._feeds = Feeds()
        self._by_depth = self._places()

    def route(self) -> Route:
        """Return the one route of all that lies below the API's path, and tells of what is not there.

        Which address is meant is found here: Starlette tries its routes one after the other.
        """
        return Route(f"{API}/{{rest:{REST}}}", self.find, methods=METHODS)

    def _places(self) -> dict[int, list[_Place]]:
        handlers = [
            ("/events", self._counted(self.server_events)),
            (f"/runs/{{run:{NUMBER}}}/events", self._counted(self.run_events)),
            *((_typed(address), self._handler(address)) for address in addresses()),
        ]
        found: dict[int, list[_Place]] = {}
        for path, handler in handlers:
            pattern, _, convertors = compile_path(path[1:])
            found.setdefault(path.count("/"), []).append(_Place(pattern, convertors, handler))
        return found

    async def find(self, request: Request) -> Response:
        """Answer a request below the API's path."""
        path = request.path_params["rest"]
        for place in self._by_depth.get(path.count("/") + 1, ()):
            if match := place.pattern.match(path):
                request.scope["path_params"] = {
                    name: place.convertors[name].convert(word) for name, word in match.groupdict().items()
                }
                return await place.handler(request)
        return problem(
            {
                "code": "unknown-command",
                "message": f"there is no {request.scope['path'][:200]}; see /api/openapi.json",
            }
        )

    # ---- a request

    def _handler(self, address: Address) -> Handler:
        async def handle(request: Request) -> Response:
            row = address.methods.get("GET" if request.method == "HEAD" else request.method)
            if row is None:
                return not_allowed(address.methods)
            newest = max(self._gateway.server.runs, default=0) if row.name in _STARTS else 0
            limits = self._gateway.limits
            most = limits.line if row.whole is None else limits.definition
            try:
                result = await self._calls.make(
                    request,
                    row,
                    lambda: _values(row, address, request, most, self._gateway.large_definitions),
                )
            except CallError as error:
                return problem(error.document)
            answer = self._answer(row, request, result, newest)
            answer.headers[INSTANCE] = self._gateway.instance
            if journal := self._gateway.server.journal_id:
                answer.headers[JOURNAL] = journal
            return answer

        return handle

    def _answer(self, row: CommandSpec, request: Request, result: JsonObject, newest: int) -> Response:
        """Reply; 201 for what is new, and it is nothing new where a key gave the run that there was."""
        if row.name not in _STARTS:
            return tagged(request, AsciiJSONResponse(result, made_by(row)[0]))
        location = f"{base_of(request.scope)}{API}/runs/{result['run']}"
        return AsciiJSONResponse(
            result, 201 if result["run"] > newest else 200, headers={"location": location}
        )

    # ---- events

    def _counted(self, handler: Any) -> Handler:
        follow = COMMANDS["follow"]

        async def handle(request: Request) -> Response:
            if request.method not in {"GET", "HEAD"}:
                return not_allowed(["GET"])
            try:
                with CONTAINED:
                    answer: Response = await handler(request, self._calls.admit(request, follow))
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a document
                return problem(self._calls.refused(request, "follow", request.path_params, error).document)
            return answer

        return handle

    async def server_events(self, request: Request, principal: Principal) -> Response:
        """Stream what happens to bundles, jobs and runs, from now on or after `Last-Event-ID`."""
        server, kinds = self._gateway.server, server_kinds(_words(request, "kinds"))
        last = server.last_event

        def wanted(entry: FeedEvent) -> bool:
            return (entry.kind in kinds or lagged(entry)) and self._gateway.sees_event(principal, entry.event)

        since = _since(request, last)
        produce = self._feeds.stream("server", server.events, last, since, wanted, server.life)
        return self._calls.stream(principal, produce)

    async def run_events(self, request: Request, principal: Principal) -> Response:
        """Stream what happens to a run, from its first event on or after `Last-Event-ID`, to its end."""
        run = await self._gateway.run(principal, request.path_params["run"])
        kinds = run_kinds(_words(request, "kinds"))
        since = _since(request, 0)

        def wanted(entry: FeedEvent) -> bool:
            return entry.kind in kinds or lagged(entry)

        life = self._gateway.server.life
        produce = self._feeds.stream(run.id, run.events, run.last_event, since, wanted, life)
        return self._calls.stream(principal, produce)


def _typed(address: Address) -> str:
    """Return a path with the types of its arguments, so that `/runs/x` is no run."""
    path = address.path
    row = next(iter(address.methods.values()))
    for name, argument in address.arguments(row).items():
        if row.arguments[argument].kind is ArgumentKind.INTEGER:
            path = path.replace(f"{{{name}}}", f"{{{name}:{NUMBER}}}")
    return path


# ---- reading


async def _values(
    row: CommandSpec, address: Address, request: Request, most: int, turn: anyio.Lock
) -> dict[str, object]:
    """Return the arguments of a request: from its path, its query and its body. Raises `RequestError`.

    `turn` is held while a large definition is decoded, too.
    """
    named = address.arguments(row)
    values = {named[name]: value for name, value in request.path_params.items()}
    for name, word in _query(request):
        if name in values or name not in row.arguments:
            told = "stands in the address already" if name in values else f"is no argument of {row.name}"
            raise RequestError("bad-args", f"{name[:64]!r} {told}", field=name[:64])
        values[name] = _from_query(name, row.arguments[name], word)
    body = await _body(request, most)
    if row.whole is not None:
        if not body:
            raise RequestError("bad-request", "the body is empty: send a definition")
        if len(body) <= LARGE:
            text = _text(body)
        else:
            async with turn:  # two threads beside the loop would take twice as much of each of its turns
                text = await in_thread(lambda: _text(body))
        values[row.whole] = Definition(text, 1)
    elif body:
        values |= _object(body, values)
    key = request.headers.get("idempotency-key")
    if key is not None and "key" in row.arguments:
        if len(key) > KEY:
            raise RequestError("bad-args", f"Idempotency-Key may have {KEY} characters", field="key")
        if "key" in values:
            raise RequestError("bad-args", "key is in the header Idempotency-Key already", field="key")
        values["key"] = key
    return values


def _from_query(name: str, taken: CommandArgument, word: str) -> object:
    """Convert a word of the query; numbers may be written as JSON writes them."""
    if taken.kind is ArgumentKind.NUMBER and _NUMBER.fullmatch(word):
        return float(word)
    return from_word(name, taken, word)


def _query(request: Request) -> list[tuple[str, str]]:
    if not (text := request.scope["query_string"].decode("latin-1")):
        return []
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, max_num_fields=100, errors="strict"
        )
    except ValueError:
        raise RequestError("bad-request", "the query is not NAME=VALUE&... in UTF-8") from None


async def _body(request: Request, most: int) -> bytes | bytearray:
    body = bytearray()
    if request.method in _BODILESS and not _BODY_HEADERS.intersection(request.headers):
        return b""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:  # it need not come
        raise RequestError("too-large", f"a request may have {most:,} bytes")
    try:
        with anyio.fail_after(BODY_TIME):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > most:
                        raise RequestError("too-large", f"a request may have {most:,} bytes")
    except ClientDisconnect:
        raise RequestError("cancelled", "the client has gone") from None
    except TimeoutError:
        raise RequestError("timeout", f"the body did not come within {BODY_TIME:g} s") from None
    return body


def _text(body: bytes | bytearray) -> str:
    try:
        return decode_utf8(body)
    except UnicodeDecodeError as error:
        raise RequestError("bad-utf8", f"the body is not UTF-8: byte {error.start}") from None


def _object(body: bytes | bytearray, values: Mapping[str, object]) -> dict[str, object]:
    try:
        found = _json.loads(_text(body))
    except _json.JsonTextError as error:
        raise RequestError("bad-request", f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError("bad-request", "the body must be a JSON object: the arguments by name")
    twice = next((name for name in found if name in values), None)
    if twice is not None:
        raise RequestError("bad-args", f"{twice[:64]} is in the address already", field=twice[:64])
    return found


# ---- writing


def tagged(request: Request, answer: Response) -> Response:
    """Tag a reply by its content; 304 where the client has that already (RFC 9110, 8.8.3 and 13.1.2)."""
    if request.method not in {"GET", "HEAD"}:
        return answer
    tag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    had = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if had & {tag, "*"}:
        answer = Response(status_code=304)
    answer.headers["etag"] = tag
    return answer


def problem(error: Mapping[str, Any]) -> Response:
    """Return an error of the commands as a problem document (RFC 9457); its members are kept."""
    code = str(error["code"])
    status = STATUS.get(code, 400)
    document = {
        "type": f"urn:scattersphere:error:{code}",
        "title": code.replace("-", " "),
        "status": status,
        "detail": error["message"],
        **{name: value for name, value in error.items() if name != "message"},
    }
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004
    if "retry_after" in error:
        headers["retry-after"] = str(max(1, round(float(error["retry_after"]))))
    return AsciiJSONResponse(document, status, headers=headers, media_type=PROBLEM)


def not_allowed(methods: Collection[str]) -> Response:
    """Return the answer to a method that an address does not take; it names those that it takes."""
    found: list[str] = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
    document = {
        "type": "urn:scattersphere:error:bad-request",
        "title": "bad request",
        "status": 405,
        "detail": f"this address takes {', '.join(found)}",
        "code": "bad-request",
    }
    return AsciiJSONResponse(document, 405, headers={"allow": ", ".join(found)}, media_type=PROBLEM)


def refusal(error: RefusedError) -> Response:
    """Return what the guard refuses, as a problem document."""
    codes = {401: "auth-required", 403: "forbidden", 413: "too-large"}
    code = codes.get(error.status, "bad-request")
    document = {
        "type": f"urn:scattersphere:error:{code}",
        "title": code.replace("-", " "),
        "status": error.status,
        "detail": str(error),
        "code": code,
    }
    return AsciiJSONResponse(document, error.status, media_type=PROBLEM)


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII, as the wire has it: nothing in it steers the terminal of who asks with curl."""

    def render(self, content: Mapping[str, object]) -> bytes:
        """Return the bytes of the body."""
        return as_json(content)


# ---- streams


def _since(request: Request, otherwise: int) -> int | str:
    word = request.headers.get("last-event-id") or request.query_params.get("since") or ""
    if not word:
        return otherwise
    if read_event_id(word) is None:
        words = f'since must be the number of an event, or its id as "3.57", not {word[:32]!r}'
        raise RequestError("bad-args", words, field="since")
    return word


def _words(request: Request, name: str) -> list[str]:
    return [word for word in request.query_params.get(name, "").split(",") if word]

"""Commands as requests ask for them: rate, right, arguments, handler, audit; for forms of pages and for programs."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from scattersphere.commands import handlers
from scattersphere.commands.access import Principal
from scattersphere.commands.arguments import read
from scattersphere.commands.audit import named_object
from scattersphere.commands.errors import RequestError, wire_error
from scattersphere.commands.gateway import Context
from scattersphere.commands.limits import Bucket
from scattersphere.commands.table import COMMANDS, CommandSpec, Reply, check_right
from scattersphere.errors import ScattersphereError
from scattersphere.web.streams import EventStreamResponse, Streams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from scattersphere.commands.gateway import Gateway
    from scattersphere.web.streams import Produce

USERS = 10_000
"""Users whose rate is remembered."""
LARGE, AT_ONCE = 1 << 20, 2
"""Requests with a body of more bytes than that are read so many at once: each takes several times its memory."""
_ = handlers  # importing it fills the table


class CallError(ScattersphereError):
    """A command that was refused or failed; `document` is what may be told of it, `code` its stable code."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.code: str = str(document["code"])
        super().__init__(str(document["message"]))


class Calls:
    """Commands over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._late: Counter[str] = Counter()
        self._streams = Streams()
        self._large = anyio.Semaphore(AT_ONCE)

    async def make(
        self, request: Request, row: CommandSpec, values: Callable[[], Awaitable[dict[str, object]]]
    ) -> Reply:
        """Carry a command out for who sent a request. Raises `CallError`.

        `values` reads the arguments, once it is known that the command may be used at all.
        """
        given: dict[str, object] = {}
        try:
            principal = self.admit(request, row)
            async with self._large if _is_large(request) else nullcontext():
                given = await values()
                reply = await self._handle(row, principal, read(row.arguments, given))
        except Exception as error:  # whatever it is, the client is told what may be told
            raise self.refused(request, row.name, given, error) from error
        self._record(request, row.name, given, "ok", reply)
        return reply

    async def ask(self, request: Request, command: str, /, **values: object) -> Reply:
        """Carry a command out with arguments that are known already. Raises `CallError`."""

        async def given() -> dict[str, object]:
            return values

        return await self.make(request, COMMANDS[command], given)

    def admit(self, request: Request, row: CommandSpec) -> Principal:
        """Return who sent a request, where it may use a command now. Raises `RequestError`."""
        principal: Principal | None = request.state.principal
        if principal is None:
            raise RequestError(
                "auth-required", "send a token (Authorization: Bearer ...), or log in with a link"
            )
        self.spend(principal)
        check_right(principal, row)
        return principal

    def spend(self, principal: Principal) -> None:
        """Count a request of a user. Raises `RequestError` (`rate-limited`)."""
        now, limits = time.monotonic(), self.gateway.limits
        bucket = self._buckets.pop(principal.user, None) or Bucket(limits.rate, limits.burst, now)
        self._buckets[principal.user] = bucket
        if len(self._buckets) > USERS:
            self._buckets.popitem(last=False)
        if late := bucket.take(now):
            message = f"more than {limits.rate:g} requests a second; try again in {late:.2f} s"
            raise RequestError("rate-limited", message, retry_after=round(late, 3))

    def stream(self, principal: Principal, produce: Produce) -> EventStreamResponse:
        """Return a stream of events for a user. Raises `RequestError` (`busy`) where there are too many."""
        limits = self.gateway.limits
        self._streams.check(principal.user, limits)
        return EventStreamResponse(produce, self._streams, principal.user, patience=limits.write_time)

    async def _handle(self, row: CommandSpec, principal: Principal, arguments: dict[str, object]) -> Reply:
        if row.in_session:
            answer: Reply = row.handler(_Visit(principal), **arguments)
            return answer
        context = Context(self.gateway, principal, _NoFollower())
        if row.late:
            waiting = self._late[principal.user]
            if waiting >= self.gateway.limits.late:
                raise RequestError(
                    "busy", f"{waiting} requests that wait are under way; their replies come first"
                )
            self._late[principal.user] += 1
        try:
            reply = await context.carry_out(row, arguments)
        finally:
            if row.late:
                self._late[principal.user] -= 1
                if not self._late[principal.user]:
                    del self._late[principal.user]
        return reply

    def refused(
        self, request: Request, name: str, values: Mapping[str, object], error: Exception
    ) -> CallError:
        """Return what is told of an error, and record it; a defect is logged."""
        document = wire_error(error) or self.gateway.incident(error)
        self._record(request, name, values, str(document["code"]), None)
        return CallError(document)

    def _record(
        self, request: Request, name: str, values: Mapping[str, object], outcome: str, result: object
    ) -> None:
        audit, client, principal = self.gateway.audit, request.client, request.state.principal
        if audit is None:
            return
        audit.record(
            session="http",
            peer=f"{client.host}:{client.port}" if client is not None else "",
            user=principal.user if principal is not None else None,
            command=name,
            object=named_object(values, result),
            outcome=outcome,
        )


def _is_large(request: Request) -> bool:
    length = request.headers.get("content-length")
    if length is None:
        return "transfer-encoding" in request.headers
    return not length.isdecimal() or int(length[:20]) > LARGE


@attrs.frozen
class _Visit:
    """A session of one request, for the commands about the one who asks."""

    principal: Principal

    def known(self) -> Principal:
        return self.principal


class _NoFollower:
    """There are no subscriptions here: a stream is a request of its own."""

    def follow(self, events: object, kinds: frozenset[str], shown: object) -> int:
        del events, kinds, shown
        raise RequestError("unsupported", "follow events at /events or /runs/RUN/events")

    def unfollow(self, number: int) -> None:
        raise RequestError("unsupported", f"there is no subscription {number}")

"""A session of the line protocol without I/O (sans-io): bytes and the time go in, bytes and calls come out.

It knows no socket, no clock and no server. The driver (`connection.py`) feeds what it received,
carries out each `CommandCall`, and sends what `take` returns. Calls are made one at a time and answered in order,
but for those whose command is `late`: they may be answered after later ones. So every rule
of the protocol (one reply for each request, in order; nothing before authentication; limits; the
last words) is tested without a loop, and at any cut of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.commands.access import Principal, Role
from scattersphere.commands.errors import RequestError, wire_error
from scattersphere.commands.handlers.session import PROTOCOLS
from scattersphere.commands.limits import Bucket
from scattersphere.commands.table import CommandSpec, check_right
from scattersphere.remote.framing import Fault, Framer, Ignored, Line
from scattersphere.remote.render import RENDERERS, as_json
from scattersphere.remote.requests import NamedRequestError, Request, check_size, read_request

if TYPE_CHECKING:
    from scattersphere._json_words import JsonObject
    from scattersphere.commands.handlers.session import Authenticator
    from scattersphere.commands.limits import Limits


@attrs.frozen(eq=False)
class CommandCall:
    """A command that the driver carries out. `principal` is who asks, at this moment.

    `in_words`: it was not written as JSON, so a person has typed it.
    """

    n: int
    id: str | int | None
    command: CommandSpec
    arguments: dict[str, object]
    principal: Principal
    in_words: bool = False


LONG = 64 * 1024
"""Characters of a line above which it is not read on the loop: a definition of 10 MB takes a second."""


@attrs.frozen(eq=False)
class LongLine:
    """A line that takes long to read. The driver does `read()` elsewhere; `Session.take_up` takes what it returns."""

    read: Callable[[], Request | NamedRequestError]
    frame: Line


Observer = Callable[[str, Any, str, Any], None]
"""Told of each command: its name, arguments (None where they cannot be read), outcome, result."""


Incident = Callable[[Exception], dict[str, Any]]
"""Takes note of a defect of ours; returns the error that tells the client nothing of it."""


def _unnoted(_exc: Exception) -> dict[str, object]:
    return {"code": "internal", "message": "the server failed to read the request"}


def _defect(exc: Exception, incident: Incident) -> RequestError:
    error = incident(exc)
    return RequestError(error.pop("code"), error.pop("message"), **error)


def _read(frame: Line, limits: Limits, incident: Incident) -> Request | NamedRequestError:
    """Read a line, its arguments too where it is a long one; return what is wrong with it where something is."""
    try:
        request = read_request(frame.text, depth=limits.depth, limit=limits.line, partial=frame.partial)
        if len(frame.text) > LONG:
            request.prepare()
    except NamedRequestError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - whatever a stranger has sent, there is a reply, and the session lives
        return NamedRequestError(_defect(exc, incident), None)
    return request


def _named(request: Request | None) -> dict[str, object] | None:
    """Return the arguments of a request that was refused, for the audit: what it was about is named there."""
    if request is None or any(taken.secret for taken in request.command.arguments.values()):
        return None
    with suppress(Exception):
        return request.arguments()
    return None


def _nobody(_name: str, _arguments: object, _outcome: str, _result: object) -> None:
    """Observe nothing."""


class Session:
    """The protocol of one connection."""

    principal: Principal | None
    """Who the session acts for; None before authentication."""
    line_limit: int
    """How many bytes a line may have now. It is asked for with every line, so it is kept."""

    def __init__(
        self,
        *,
        name: str,
        instance: str,
        gate: Authenticator,
        limits: Limits,
        now: float,
        principal: Principal | None,
        observe: Observer = _nobody,
        journal: str = "",
    ) -> None:
        self.name = name
        self.requests: int = 0
        self.gate = gate
        self._observe = observe
        self.incident: Incident = _unnoted
        self.limits = limits
        self.act_for(principal)
        self._framer = Framer()
        self._bucket = Bucket(limits.rate, limits.burst, now)
        self._overruns = 0
        self._started = self._active = self._line_began = now
        self.tries = 0
        self._call: CommandCall | None = None
        self._reading: LongLine | None = None
        self._read: tuple[Line, Request | NamedRequestError] | None = None
        """The long line that was read elsewhere, and is still to be answered."""
        self._late: dict[int, CommandCall] = {}
        self._follows: set[int] = set()
        self._last_follow = 0
        self.render: Callable[[Mapping[str, object]], bytes] = as_json
        self._out: list[bytes] = []
        self._size = 0
        self.closed: str | None = None
        self.has_more: bool = False
        """Whether `next_call` has stopped at as many lines as it may look at."""
        self._greet(instance, journal)

    def _greet(self, instance: str, journal: str) -> None:
        greeting = {
            "protocol": list(PROTOCOLS),
            "auth": [] if self.principal else ["token"],
            "session": self.name,
            "instance": instance,
            **({"journal": journal} if journal else {}),
            "limits": {"line": self.line_limit},
        }
        self._put(as_json({"scattersphere": greeting, "hint": "type: help"}))

    def act_for(self, principal: Principal | None) -> None:
        """Act for somebody from now on; for None before authentication."""
        self.principal = principal
        if principal is None:
            self.line_limit = self.limits.line_before_auth
        else:
            defines = principal.role.covers(Role.OPERATOR)
            self.line_limit = self.limits.definition if defines else self.limits.line

    # ---- what the driver asks

    @property
    def wants_input(self) -> bool:
        """Whether more bytes should be received now: not while much waits to be answered or sent."""
        return (
            self.closed is None
            and self._framer.lines < self.limits.read_ahead
            and self._framer.size <= self.line_limit + 1
            and self._size <= self.limits.output
        )

    @property
    def backlog(self) -> int:
        """How many bytes wait to be sent."""
        return self._size

    @property
    def follows(self) -> int:
        """How many subscriptions there are."""
        return len(self._follows)

    def deadline(self) -> tuple[float, str] | None:
        """Return when the session is to be closed if nothing happens, and with which code."""
        if self.closed is not None:
            return None
        found = []
        if self.principal is None:
            found.append((self._started + self.limits.auth_time, "auth-required"))
        if self._framer.inside_line and self.wants_input:
            found.append((self._line_began + self.limits.line_time, "timeout"))
        if self._call is None and self._reading is None and not self._late and not self._follows:
            found.append((self._active + self.limits.idle, "idle"))
        return min(found, default=None)

    def tick(self, now: float) -> None:
        """Close the session if its time is over, or its rights."""
        due = self.deadline()
        if due is not None and now >= due[0]:
            self.close(due[1])
        elif self.principal is not None and not self.gate.current(self.principal):
            self.close("auth-failed", "the token was revoked or has expired")

    # ---- input

    def receive(self, chunk: bytes, now: float) -> None:
        """Take bytes from the peer."""
        if self.closed is not None:
            return
        if not self._framer.inside_line or b"\n" in chunk:
            self._line_began = now
        self._active = now
        self._framer.feed(chunk)

    def end_input(self) -> None:
        """Take note that the peer will send no more; what it sent is still carried out."""
        self._framer.end()

    def next_call(self, now: float, most: float = math.inf) -> CommandCall | LongLine | None:
        """Answer what can be answered here; return the next call to be made, or the long line to be read.

        It looks at `most` lines; `has_more` says then that it has not come to the end.
        """
        self.has_more = False
        if self._call is not None or self._reading is not None:
            return None  # it is under way; calls are made one at a time
        made: CommandCall | LongLine | None = None
        if self._read is not None:
            read, self._read = self._read, None
            call = self._request(*read)
            made = None if call is None else self._under_way(call)
        while made is None and self.closed is None and self._size <= self.limits.output:
            if most <= 0:
                self.has_more = True
                break
            most -= 1
            frame = self._framer.next(self.line_limit)
            if answers := self._framer.telnet_answers():
                self._put(answers)
            if frame is None:
                if self._framer.exhausted and not self._late:
                    self.close("end")
                return None
            late = self._bucket.take(now)
            if late:
                self._overrun(frame, late)
            elif not isinstance(frame, Ignored):
                self._overruns = 0
                made = self._looked_at(frame)
        return made

    def _looked_at(self, frame: Line | Fault) -> CommandCall | LongLine | None:
        if type(frame) is Line and len(frame.text) > LONG:
            self._reading = LongLine(partial(_read, frame, self.limits, self.incident), frame)
            return self._reading
        call = self._request(frame)
        return None if call is None else self._under_way(call)

    def _under_way(self, call: CommandCall) -> CommandCall:
        """Note that a call is to be made now."""
        if call.command.late:
            self._late[call.n] = call
        else:
            self._call = call
        return call

    def take_up(self, line: LongLine, read: Request | NamedRequestError, now: float) -> None:
        """Take what a long line was read as; `next_call` goes on with it. Too late, after a close, it is dropped."""
        if self._reading is line:
            self._reading, self._read = None, (line.frame, read)
            self._active = now

    def _overrun(self, frame: Line | Fault | Ignored, late: float) -> None:
        self._overruns += 1
        if not isinstance(frame, Ignored):
            self.requests += 1
            message = f"more than {self.limits.rate:g} lines a second; try again in {late:.2f} s"
            error = {"code": "rate-limited", "message": message, "retry_after": round(late, 3)}
            self._reply(self.requests, self._id_of(frame), "error", error)
        if self._overruns > self.limits.overruns:
            self.close("rate-limited")
        elif isinstance(frame, Fault) and frame.fatal:
            self.close(frame.code)

    def _id_of(self, frame: Line | Fault) -> str | int | None:
        """Read the id of a request that is not going to be carried out, if that costs little."""
        if isinstance(frame, Fault) or len(frame.text) > self.limits.line_before_auth:
            return None
        return _read(frame, self.limits, self.incident).id

    def _request(
        self, frame: Line | Fault, read: Request | NamedRequestError | None = None
    ) -> CommandCall | None:
        self.requests += 1
        n, id_ = self.requests, None
        if isinstance(frame, Fault):
            self._reply(n, None, "error", {"code": frame.code, "message": frame.message})
            if frame.fatal or (frame.code == "line-too-long" and self.principal is None):
                self.close(frame.code)
            return None
        request: Request | None = None
        try:
            read = read or _read(frame, self.limits, self.incident)
            if isinstance(read, NamedRequestError):
                raise read
            request, id_ = read, read.id
            arguments = self._admitted(request, frame)
            command = request.command
            if not command.in_session:
                if command.late and len(self._late) >= self.limits.late:
                    message = f"{self.limits.late} requests that wait are under way; their replies come first"
                    raise RequestError("busy", message)  # noqa: TRY301 - it is answered as the others are
                return CommandCall(n, id_, command, arguments, self.known(), request.in_words)
            result: object = command.handler(self, **arguments)
            self._reply(n, id_, "result", result)
            self._observe(request.command.name, arguments, "ok", result)
            if request.command.name == "quit":
                self.close("quit")
        except RequestError as exc:
            id_ = exc.id if isinstance(exc, NamedRequestError) else id_
            self._reply(n, id_, "error", wire_error(exc))
            self._observe(request.command.name if request else "", _named(request), exc.code, None)
            self._after_error(exc)
        return None

    def known(self) -> Principal:
        """Return who the session acts for. Raises `RequestError` (`auth-required`)."""
        if self.principal is None:
            raise RequestError("auth-required", "type: auth TOKEN")
        return self.principal

    def _admitted(self, request: Request, frame: Line) -> Any:
        """Check the right to the command, and only then read its arguments."""
        command = request.command
        self._check_right(command)
        if command.whole is None:
            check_size(len(frame.text), self.limits.line)  # where a definition is that it does not take
        try:
            return request.arguments()
        except RequestError:
            raise
        except Exception as exc:  # noqa: BLE001 - as where the line is read
            raise _defect(exc, self.incident) from None

    def _check_right(self, command: CommandSpec) -> None:
        if command.before_auth:
            return
        principal = self.known()
        if not self.gate.current(principal):
            raise RequestError("auth-failed", "the token was revoked or has expired")
        check_right(principal, command)

    def _after_error(self, exc: RequestError) -> None:
        if exc.code == "auth-failed" and (self.principal or self.tries >= self.limits.auth_tries):
            self.close("auth-failed")

    # ---- output

    def write_as(self, output: str) -> None:
        """Write replies in this format from now on."""
        self.render = RENDERERS[output]

    def answer(self, call: CommandCall, result: object, now: float) -> None:
        """Reply to a call. Too late, after a close, it is dropped: the close has replied."""
        if not self._ended(call, now):
            return
        if call.command.late and (refusal := self._lost_right(call)) is not None:
            self._reply(call.n, call.id, "error", wire_error(refusal))
            self._observe(call.command.name, call.arguments, refusal.code, None)
            return
        self._reply(call.n, call.id, "result", result)
        self._observe(call.command.name, call.arguments, "ok", result)

    def refuse(self, call: CommandCall, error: JsonObject, now: float) -> None:
        """Reply to a call with an error."""
        if self._ended(call, now):
            self._reply(call.n, call.id, "error", error)
            self._observe(call.command.name, call.arguments, error["code"], None)

    def _ended(self, call: CommandCall, now: float) -> bool:
        """Take note that a call has ended; return whether its reply is still wanted."""
        if self._call is call:
            self._call = None
        elif self._late.pop(call.n, None) is None:
            return False
        self._active = now
        return True

    def _lost_right(self, call: CommandCall) -> RequestError | None:
        """Look at the rights again: a reply that comes late may come to who may not see it any more."""
        try:
            self._check_right(call.command)
        except RequestError as exc:
            return exc
        return None

    def subscribe(self) -> int:
        """Return the number of a new subscription. Raises `RequestError` (`busy`)."""
        if len(self._follows) >= self.limits.follows:
            raise RequestError("busy", f"a session may follow {self.limits.follows} at once; unfollow one")
        self._last_follow += 1
        self._follows.add(self._last_follow)
        return self._last_follow

    def unsubscribe(self, number: int) -> None:
        """End a subscription. Raises `RequestError` (`no-such-subscription`)."""
        if number not in self._follows:
            raise RequestError("no-such-subscription", f"no subscription {number}", field="subscription")
        self._follows.discard(number)

    def event(self, number: int, event: dict[str, object], now: float) -> None:
        """Send an event of a subscription; `end` ends it."""
        if self.closed is not None or number not in self._follows:
            return
        self._put(self.render(event))
        self._active = now
        if event["event"] == "end":
            self._follows.discard(number)

    def close(self, code: str, message: str = "") -> None:
        """Say the last words. A call that is under way is answered first."""
        if self.closed is not None:
            return
        error = {"code": "shutting-down" if code == "shutting-down" else "cancelled"}
        error["message"] = "the session was closed before the command had ended"
        for call in [*self._late.values(), *([] if self._call is None else [self._call])]:
            self._reply(call.n, call.id, "error", error)
        if self._reading is not None or self._read is not None:
            self.requests += 1
            self._reply(self.requests, None, "error", error)
        self._call = self._reading = self._read = None
        self._late.clear()
        self._follows.clear()
        bye = {"code": code} | ({"message": message} if message else {})
        self._put(self.render({"bye": bye}))
        self.closed = code

    def take(self) -> bytes:
        """Return what is to be sent now."""
        out, self._out, self._size = b"".join(self._out), [], 0
        return out

    def _reply(self, n: int, id_: str | int | None, outcome: str, value: object) -> None:
        message = {"n": n, outcome: value} if id_ is None else {"id": id_, "n": n, outcome: value}
        try:
            line = self.render(message)
        except RequestError as exc:
            del message[outcome]
            line = self.render(message | {"error": wire_error(exc)})
        if len(line) > self.limits.output:
            message.pop(outcome, None)
            why = f"the reply has {len(line)} bytes, more than {self.limits.output}; ask for less"
            line = self.render(message | {"error": {"code": "too-large", "message": why}})
        self._put(line)

    def _put(self, line: bytes) -> None:
        self._out.append(line)
        self._size += len(line)

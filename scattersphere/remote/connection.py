"""One connection: moves bytes between a stream and a `Session`, and carries out its calls.

Who sends holds `_sending`; whoever wants to send meanwhile leaves it to them, so that many replies
and events leave in one write. A close waits for a send that is under way, so that no line is cut off; a
send that stalls is ended by the sweeper. (A scope with a deadline for each send would cost as much as
the send.)
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import anyio
import attrs

from scattersphere._threads import in_thread
from scattersphere.commands.access import Principal
from scattersphere.commands.audit import named_object
from scattersphere.commands.errors import wire_error
from scattersphere.commands.gateway import Context, SourceAuthenticator
from scattersphere.commands.views import event_view, kind_of, stamp
from scattersphere.model.events import EventKind
from scattersphere.remote.session import CommandCall, LongLine, Session
from scattersphere.remote.streams import GONE, close, send_eof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from anyio.abc import ByteStream, TaskGroup

    from scattersphere.commands.gateway import Gateway
    from scattersphere.model.events import Event

CHUNK = 65_536
TURN = 64
"""Events of one subscription that are made before the others have a turn."""
TURN_TIME = 0.005
"""Seconds after which requests of a session that came together let the others have a turn."""
ANSWERS = 16
"""Lines after which that time is looked at, where the session answers them by itself."""
LINGER_BYTES = 1 << 20
_UNREMARKABLE = frozenset({"ping", "hello", "help", "commands", "schema", "output", "whoami", "quit"})
"""Commands that are only audited where they fail."""


@attrs.frozen
class Peer:
    """Where a connection comes from. `principal` is set where the kernel vouches for who it is."""

    name: str
    source: str
    principal: Principal | None = None


class Connection:
    """Serves one stream until either side ends it."""

    def __init__(
        self, gateway: Gateway, stream: ByteStream, peer: Peer, name: str, clock: Callable[[], float]
    ) -> None:
        self.peer: str = peer.name
        self.since: str = str(stamp(dt.datetime.now(dt.UTC)))
        self._gateway = gateway
        self._clock = clock
        self._stream = stream
        self.session: Session = Session(
            name=name,
            instance=gateway.instance,
            journal=gateway.server.journal_id,
            gate=SourceAuthenticator(gateway, peer.source, clock),
            limits=gateway.limits,
            now=clock(),
            principal=peer.principal,
            observe=self._observe,
        )
        self.session.incident = gateway.incident
        self._broken = False
        self._sending = self._flush_due = False
        self._room: anyio.Event | None = None
        self._reading = anyio.CancelScope()
        self._sends = 0
        self._stalled_since = (0, 0.0)
        self._pumps: dict[int, anyio.CancelScope] = {}
        self._ready: list[Callable[[], None]] = []
        self._tasks: TaskGroup | None = None

    # ---- life

    async def serve(self) -> None:
        """Talk until the session is closed; then the last words, a lingering close, and the end."""
        self._audit("session", None, "opened")
        try:
            async with anyio.create_task_group() as self._tasks:
                with self._reading:
                    await self.flush()
                    await self._read()
                self.session.close("shutting-down")  # where reading was cancelled from outside
                await self.flush()
                while self._sending and not self._broken:  # somebody else is: what they send is not cut off
                    await self._wait_for_room()
                await self._linger()
                self._tasks.cancel_scope.cancel()
        finally:
            self.session.close("shutting-down")
            self._audit("session", None, self.session.closed or "closed")
            with anyio.move_on_after(1, shield=True):
                await close(self._stream)

    def close(self, code: str, message: str = "") -> None:
        """End the session from outside."""
        self.session.close(code, message)
        self.notice()

    def notice(self) -> None:
        """Stop reading where the session is closed by now; a line that is being sent is not cut off."""
        if self.session.closed is not None and not self._sending:
            self._reading.cancel()

    def check(self, now: float) -> None:
        """End the session if its time is over or its rights are gone, or if the peer does not read."""
        if self._stalled(now):
            self.drop()
            return
        self.session.tick(now)
        self.notice()

    def _stalled(self, now: float) -> bool:
        """Whether the send that is under way was so at a look that is `write_time` ago.

        The looks know the time anyway; reading a clock for each send would slow every reply.
        """
        sends, since = self._stalled_since
        if self._sending and sends == self._sends:
            return now - since > self.session.limits.write_time
        self._stalled_since = (self._sends, now)
        return False

    def drop(self) -> None:
        """Give up on the peer: no last words, no waiting."""
        self._broken = True
        self._make_room()
        self._reading.cancel()

    async def _read(self) -> None:
        session = self.session
        while session.closed is None:
            if not session.wants_input:
                await self._wait_for_room()
                await self._advance()
                continue
            try:
                chunk = await self._stream.receive(CHUNK)
            except anyio.EndOfStream:
                session.end_input()
                break
            except GONE:
                self._broken = True
                session.close("gone")
                return
            now = self._clock()  # once a chunk
            session.receive(chunk, now)
            await self._advance(now)
        while session.closed is None:
            await self._advance()
            if session.closed is None:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def _make_room(self) -> None:
        """Let those go on who wait: something was sent, or answered, or it is over."""
        if self._room is not None:
            self._room.set()
            self._room = None

    # ---- calls

    async def _advance(self, now: float | None = None) -> None:
        """Carry out what can be carried out `now`, and send what there is to say."""
        now = began = self._clock() if now is None else now
        while not self._broken:
            call = self.session.next_call(now, ANSWERS)
            if call is None:
                if self.session.has_more:
                    now = began = await self._give_way(began)
                    continue
                withheld = self.session.backlog > self.session.limits.output
                await self.flush()
                if not withheld or self.session.backlog:
                    return
                now = self._clock()
                continue  # requests waited for the room that there is now
            if isinstance(call, LongLine):
                if self._tasks is not None:
                    self._tasks.start_soon(self._read_elsewhere, call)
                await self.flush()
                return
            if (call.command.slow or call.command.late) and self._tasks is not None:
                self._tasks.start_soon(self._carry_out_slowly, call)
                if call.command.late:
                    continue
                await self.flush()
                return
            await self._carry_out(call, now)
            now = began = await self._give_way(began)

    async def _give_way(self, began: float) -> float:
        """Let the others have a turn, where this one has `began` so long ago; return when the one that goes on began.

        A hundred requests may come at once, and each take milliseconds.
        """
        if self._clock() - began < TURN_TIME:
            return began
        await self.flush()
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return self._clock()

    async def _read_elsewhere(self, line: LongLine) -> None:
        """Read a long line in a thread: other sessions have their turns."""
        read = await in_thread(line.read)
        self.session.take_up(line, read, self._clock())
        await self._advance()
        self.notice()
        self._make_room()

    async def _carry_out_slowly(self, call: CommandCall) -> None:
        # A wait ends with its client. What changes things is carried through, whoever is still there:
        # a bundle is registered or it is not.
        with anyio.CancelScope(shield=not call.command.late):
            await self._carry_out(call, None)
        await self._advance()
        self.notice()
        self._make_room()

    async def _carry_out(self, call: CommandCall, now: float | None) -> None:
        """Do it and reply. `now` where the command does not wait: the time is then still the same."""
        context = Context(self._gateway, call.principal, self, call.in_words)
        try:
            result = await context.carry_out(call.command, call.arguments)
            self.session.answer(call, result, self._clock() if now is None else now)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets a reply, and the session lives
            error = wire_error(exc) or self._gateway.incident(exc)
            self.session.refuse(call, error, self._clock())
        finally:
            starts, self._ready = self._ready, []
            for start in starts:
                start()

    # ---- output

    async def flush(self) -> None:
        """Send what waits, unless somebody is sending already: they take it along."""
        if self._sending or self._broken:
            return
        self._sending = True
        try:
            while self.session.backlog and not self._broken:
                data = self.session.take()
                for piece in (data,) if len(data) <= CHUNK else _pieces(data):
                    self._sends += 1
                    await self._stream.send(piece)
        except GONE:
            self._broken = True
            self.session.close("gone")
        finally:
            self._sending = False
            if self._room is not None:
                self._make_room()
            if self.session.closed is not None:
                self._reading.cancel()

    async def _linger(self) -> None:
        """Let the peer read our last words before the connection is gone."""
        if self._broken or self.session.closed in {"end", "gone"}:
            return
        left = LINGER_BYTES
        with anyio.move_on_after(self.session.limits.linger):
            try:
                await send_eof(self._stream)
                while left > 0:
                    left -= len(await self._stream.receive(CHUNK))
            except GONE:
                pass

    # ---- subscriptions

    def follow(
        self,
        events: AsyncIterator[Event],
        kinds: frozenset[str],
        shown: Callable[[Principal, Event], bool],
    ) -> int:
        """Send events from now on, after the reply; return the subscription's number."""
        number = self.session.subscribe()
        scope = self._pumps[number] = anyio.CancelScope()

        def start() -> None:
            if self._tasks is not None:
                self._tasks.start_soon(self._pump, number, scope, events, kinds, shown)

        self._ready.append(start)
        return number

    def unfollow(self, number: int) -> None:
        """End a subscription. Raises `RequestError`."""
        self.session.unsubscribe(number)
        self._pumps.pop(number).cancel()

    async def _pump(
        self,
        number: int,
        scope: anyio.CancelScope,
        events: AsyncIterator[Event],
        kinds: frozenset[str],
        shown: Callable[[Principal, Event], bool],
    ) -> None:
        session, since_turn, now = self.session, 0, self._clock()
        with scope:
            try:
                async for event in events:
                    principal = session.principal
                    wanted = event.kind is EventKind.LAGGED or kind_of(event) in kinds
                    if wanted and principal is not None and shown(principal, event):
                        session.event(number, event_view(event, number), now)
                        self._send_soon()
                    since_turn += 1
                    if since_turn >= TURN or session.backlog > session.limits.output:
                        since_turn = 0
                        await self._have_a_turn()
                        now = self._clock()
            except Exception as exc:  # noqa: BLE001 - the other subscriptions and the session go on
                self._gateway.incident(exc)
            session.event(number, {"event": "end", "sub": number}, self._clock())
        self._pumps.pop(number, None)
        await self.flush()

    async def _have_a_turn(self) -> None:
        """Check the rights again, and wait while the peer does not keep up: events wait in their run."""
        self.session.tick(self._clock())
        self.notice()
        await anyio.lowlevel.checkpoint()
        while self.session.backlog > self.session.limits.output and self.session.closed is None:
            await self._wait_for_room()

    def _send_soon(self) -> None:
        """Send once the events that are there already have been made."""
        if not self._sending and not self._flush_due and self._tasks is not None:
            self._flush_due = True
            self._tasks.start_soon(self._flush_later)

    async def _flush_later(self) -> None:
        self._flush_due = False
        await self.flush()

    # ---- audit

    @property
    def principal(self) -> Principal | None:
        """Who the session acts for."""
        return self.session.principal

    @property
    def requests(self) -> int:
        """How many requests it has made."""
        return self.session.requests

    @property
    def follows(self) -> int:
        """How many subscriptions it has."""
        return self.session.follows

    def _observe(
        self, name: str, arguments: Mapping[str, object] | None, outcome: str, result: object
    ) -> None:
        if outcome != "ok" or name not in _UNREMARKABLE:
            self._audit(name, arguments, outcome, result)

    def _audit(
        self, command: str, arguments: Mapping[str, object] | None, outcome: str, result: object = None
    ) -> None:
        audit, principal = self._gateway.audit, self.session.principal
        if audit is None:
            return
        audit.record(
            session=self.session.name,
            peer=self.peer,
            user=principal.user if principal is not None else None,
            command=command,
            object=named_object(arguments, result),
            outcome=outcome,
        )


def _pieces(data: bytes) -> list[bytes]:
    """Cut what is long: a send that is stalled is told from one that goes on slowly."""
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]

"""Listening: accept loops that survive everything, and the end of it all in bounded time."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.streams.tls import TLSStream

from scattersphere._owntask import whole
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.errors import ListenError
from scattersphere.commands.exits import CONTAINED
from scattersphere.commands.gateway import PEER, Gateway, log
from scattersphere.engine.loops import current_loop
from scattersphere.remote import addresses
from scattersphere.remote.connection import Connection, Peer
from scattersphere.remote.render import as_json
from scattersphere.remote.streams import GONE, RawSocketStream, close

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from anyio.abc import ByteStream, TaskGroup

ACCEPT_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""After an accept that failed, for want of descriptors mostly: a tight loop would help nobody."""
ACCEPTS = 128
"""Connections that are accepted in one turn of the loop."""
LINGERING = 100
"""Refused connections that are given time to read why; beyond that a close may overtake the words."""
SWEEP = 1.0
"""How often, at most, deadlines and revocations are looked at, in seconds."""
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_USELESS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


class Listening:
    """The listeners of one `listen` call: await it, or enter it; then `addresses`, `aclose()`.

    It lives in a task of its own, so that it may be opened in one task and closed in another.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        tcp: Iterable[str] = (),
        unix: Iterable[str | os.PathLike[str]] = (),
        sockets: Iterable[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.gateway = gateway
        self._wanted = (tuple(tcp), tuple(unix), tuple(sockets))
        self.tls = tls
        self._sockets: list[socket.socket] = []
        self._files: list[tuple[str, tuple[int, int] | None]] = []
        self._connections: set[Connection] = set()
        self._sources: dict[str, int] = {}
        self._numbers = 0
        self._turned_away = 0
        self._failure: BaseException | None = None
        self._token_trouble = ""
        self._loop: Any = None
        self._handle: object = None
        self._closing = anyio.Event()
        self._ended = anyio.Event()
        self._wake = anyio.Event()
        self.addresses: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Listening on {', '.join(self.addresses) or 'nothing'}: {len(self._connections)} sessions>"

    # ---- life

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return self if self._loop is not None else await self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        if self._loop is not None:
            raise ListenError("this listener was opened already; call listen() again")
        try:
            # Names are resolved, in a thread: it goes on although its caller is cancelled, and what it binds is closed.
            await whole(anyio.to_thread.run_sync(self._bind), "scattersphere-binding")
        except BaseException:
            self._close_sockets()
            raise
        self.addresses = tuple(addresses.url_of(each, tls=self._has_tls(each)) for each in self._sockets)
        self._loop = current_loop()
        await self._loop.open(lambda _: False, lambda: None, self._broken)
        self._handle = self._loop.start(self._main(), "scattersphere.remote")
        return self

    def _bind(self) -> None:
        tcp, unix, given = self._wanted
        safe = {"tokens": self.gateway.tokens is not None, "tls": self.tls is not None}
        if self.gateway.tokens is not None:
            self.gateway.tokens.refresh()
        if not (tcp or unix or given):
            raise ListenError("say where to listen: tcp=, unix= or sockets=")
        if self.tls is not None:
            _check_tls(self.tls)
        for listening in given:
            addresses.check_bound(listening, **safe)
            self._sockets.append(listening)
        for address in tcp:
            self._sockets += addresses.bind_tcp(address, **safe)
        for path in unix:
            self._sockets.append(addresses.bind_unix(path))
            self._files.append((os.fspath(path), addresses.identity(path)))

    def _has_tls(self, listening: socket.socket) -> bool:
        return self.tls is not None and listening.family != socket.AF_UNIX

    async def aclose(self) -> None:
        """Accept no more, say `bye` to all sessions, wait a little, close. May be repeated."""
        if self._loop is None:
            return
        self._closing.set()
        await whole(self._close(), "scattersphere-closing")

    async def _close(self) -> None:
        await self._ended.wait()
        await self._loop.aclose()

    async def wait_closed(self) -> None:
        """Wait until nothing listens any more. Raises `ListenError` where that was not asked for."""
        await self._ended.wait()
        if self._failure is not None:
            raise ListenError(f"no longer listening on {', '.join(self.addresses)}: {self._failure}")

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        for path, ours in self._files:
            addresses.remove_socket(path, ours)

    async def _main(self) -> None:
        try:
            async with anyio.create_task_group() as sessions:
                async with anyio.create_task_group() as accepting:
                    for listening in self._sockets:
                        accepting.start_soon(self._accept_until_useless, listening, sessions)
                    accepting.start_soon(self._sweep)
                    await self._closing.wait()
                    accepting.cancel_scope.cancel()
                self._close_sockets()
                await self._say_goodbye()
                sessions.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - a defect of ours may not end the host's program, nor pass in silence
            self._failure = exc
            self.gateway.incident(exc)
        finally:
            self._close_sockets()
            self._ended.set()

    def _broken(self, exc: BaseException) -> None:
        self._failure = exc
        self.gateway.incident(exc)
        self._closing.set()

    async def _say_goodbye(self) -> None:
        for connection in list(self._connections):
            connection.close("shutting-down")
        with anyio.move_on_after(self.gateway.limits.close_time):
            while self._connections:
                self._wake = anyio.Event()
                await self._wake.wait()
        for connection in list(self._connections):
            connection.drop()

    # ---- accepting

    async def _accept_until_useless(self, listening: socket.socket, sessions: TaskGroup) -> None:
        """Accept; where that has ended for good, everything ends in good order: who waits for it is told."""
        try:
            await self._accept(listening, sessions)
        except ListenError as exc:
            log.error("%s", exc)
            self._failure = exc
            self._closing.set()

    async def _accept(self, listening: socket.socket, sessions: TaskGroup) -> None:
        """Accept for ever, each time all that wait. anyio's own `serve` ends at the first EMFILE, and takes one a turn.

        Raises `ListenError` where the socket is of no use any more.
        """
        pause = ACCEPT_PAUSE
        while True:
            try:
                await anyio.wait_readable(listening)
                for _ in range(ACCEPTS):
                    sessions.start_soon(self._guarded, accept_one(listening), self._has_tls(listening))
            except BlockingIOError:  # nobody waits any more
                pause = ACCEPT_PAUSE
            except (OSError, ValueError, anyio.ClosedResourceError) as exc:
                if listening.fileno() < 0 or getattr(exc, "errno", None) in _USELESS:
                    raise ListenError(f"a listener has ended: {exc}") from None
                level = "warning" if getattr(exc, "errno", None) in _OUT_OF else "error"
                getattr(log, level)("accept failed, trying again in %g s: %s", pause, exc)
                await anyio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _guarded(self, accepted: socket.socket, tls: bool) -> None:  # noqa: FBT001 - start_soon takes no keywords
        """Serve one connection; no error of it reaches the others or the accept loop."""
        stream = RawSocketStream(accepted, self._loop)
        source: str | None = None
        try:
            try:
                peer = self._peer(accepted)
                if (refusal := self._full(peer.source)) is not None:
                    self.gateway.refused += 1
                    await self._turn_away(accepted, refusal, tls=tls)
                    return
                source = peer.source
                self._sources[source] = self._sources.get(source, 0) + 1
            except GONE:
                return  # it went before it was served: no news
            with CONTAINED:
                await self._serve(stream, peer, tls=tls)
        except Exception as exc:  # noqa: BLE001 - one connection's defect is its own
            self.gateway.incident(exc)
        finally:
            if source is not None:
                self._leave(source)
            with anyio.move_on_after(1, shield=True):
                await close(stream)

    def _full(self, source: str) -> str | None:
        limits = self.gateway.limits
        if sum(self._sources.values()) >= limits.sessions:
            return f"there are {limits.sessions} sessions already"
        if self._sources.get(source, 0) >= limits.sessions_of_source:
            return f"there are {limits.sessions_of_source} sessions from your address already"
        return None

    def _leave(self, source: str) -> None:
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    async def _turn_away(self, accepted: socket.socket, reason: str, *, tls: bool) -> None:
        """Say why in one write, and let it be read; over TLS close at once: the handshake is what the limit saves."""
        if tls:
            return
        error = {"error": {"code": "busy", "message": f"{reason}; try again later"}}
        accepted.send(as_json(error) + as_json({"bye": {"code": "busy"}}))
        accepted.shutdown(socket.SHUT_WR)
        if self._turned_away >= LINGERING:
            return
        self._turned_away += 1
        try:
            with anyio.move_on_after(self.gateway.limits.linger):
                while True:
                    await anyio.wait_readable(accepted)
                    if not accepted.recv(65_536):
                        return
        finally:
            self._turned_away -= 1

    async def _serve(self, stream: ByteStream, peer: Peer, *, tls: bool) -> None:
        if tls:
            secure = await self._handshake(stream)
            if secure is None:
                return
            stream = secure
        self._numbers += 1
        name = f"{self.gateway.instance}-{self._numbers}"
        connection = Connection(self.gateway, stream, peer, name, self._loop.clock)
        self._connections.add(connection)
        self.gateway.sessions[connection.session.name] = connection
        self._wake.set()
        try:
            if self._closing.is_set():
                connection.close("shutting-down")
            await connection.serve()
        finally:
            self._connections.discard(connection)
            del self.gateway.sessions[connection.session.name]
            self._wake.set()

    async def _handshake(self, stream: ByteStream) -> TLSStream | None:
        """Shake hands within the time for authentication; a plaintext probe is no news for the log."""
        with anyio.move_on_after(self.gateway.limits.auth_time):
            try:
                return await TLSStream.wrap(
                    stream, server_side=True, ssl_context=self.tls, standard_compatible=False
                )
            except GONE as exc:
                log.debug("a TLS handshake failed: %s", type(exc).__name__)
        return None

    def _peer(self, raw: socket.socket) -> Peer:
        if raw.family == socket.AF_UNIX:
            uid = addresses.peer_uid(raw)
            known = uid is not None and uid == os.geteuid()
            # No token can have a name with an equals sign, so that none can be taken for this user.
            principal = Principal(user=f"uid={uid}", role=Role.ADMIN, credential=PEER) if known else None
            return Peer(f"unix uid={uid}", f"uid-{uid}", principal)
        address = raw.getpeername()
        return Peer(f"{address[0]}:{address[1]}", _source(str(address[0])))

    # ---- time

    async def _sweep(self) -> None:
        """Close sessions whose time is over or whose rights are gone. Sleeps while there are none."""
        while True:
            if not self._connections:
                self._wake = anyio.Event()
                await self._wake.wait()
            await anyio.sleep(self._until_next())
            now = anyio.current_time()
            self._refresh_tokens()
            for connection in list(self._connections):
                try:
                    connection.check(now)
                except Exception as exc:  # noqa: BLE001 - one session's defect may not end the watch over all
                    self.gateway.incident(exc)
                    connection.drop()

    def _until_next(self) -> float:
        due = [found[0] for each in self._connections if (found := each.session.deadline()) is not None]
        return min(SWEEP, max(0.0, min(due, default=SWEEP) - anyio.current_time()))

    def _refresh_tokens(self) -> None:
        if self.gateway.tokens is not None:
            try:
                self.gateway.tokens.refresh()
            except ListenError as exc:  # nobody's token holds until it is mended
                if str(exc) != self._token_trouble:  # once, and not every second
                    log.warning("%s", exc)
                self._token_trouble = str(exc)
            else:
                self._token_trouble = ""


def accept_one(listening: socket.socket) -> socket.socket:
    """Return a connection that waits, and does not block. Raises `BlockingIOError` where none does, `OSError`."""
    accepted, _ = listening.accept()
    accepted.setblocking(False)
    return accepted


def _source(host: str) -> str:
    """Return what failures and sessions count against: an address, of IPv6 the network of a subscriber."""
    if ":" not in host:
        return host
    import ipaddress  # noqa: PLC0415 - only here

    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False)) if not address.is_loopback else host


def _check_tls(context: ssl.SSLContext) -> None:
    if context.minimum_version < ssl.TLSVersion.TLSv1_2 and context.minimum_version != ssl.TLSVersion.TLSv1_2:
        raise ListenError(
            "the TLS context allows versions before 1.2; set minimum_version = TLSVersion.TLSv1_2"
        )


def server_context(cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> ssl.SSLContext:
    """Return a TLS context for a certificate and its key. Raises `ListenError` where they cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, cert, key)
    return context


def load_certificate(
    context: ssl.SSLContext, cert: str | os.PathLike[str], key: str | os.PathLike[str]
) -> None:
    """Give a context its certificate, or a newer one for the sessions to come. Raises `ListenError`."""
    try:
        context.load_cert_chain(Path(cert), Path(key))
    except (OSError, ssl.SSLError) as exc:
        raise ListenError(f"the certificate {cert} or its key {key} cannot be used: {exc}") from None

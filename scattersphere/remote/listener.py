"""Listening: accept loops that survive everything, and the end of it all in bounded time."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio import TypedAttributeLookupError
from anyio.abc import SocketAttribute, SocketListener
from anyio.streams.tls import TLSStream

from scattersphere.execution.loops import current_loop
from scattersphere.remote import addresses
from scattersphere.remote.connection import Connection, Peer
from scattersphere.remote.errors import ListenError
from scattersphere.remote.front import Front, log
from scattersphere.remote.gate import PEER
from scattersphere.remote.render import as_json
from scattersphere.remote.roles import Principal, Role
from scattersphere.remote.unixstream import UnixStream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from anyio.abc import ByteStream, TaskGroup

ACCEPT_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""After an accept that failed, for want of descriptors mostly: a tight loop would help nobody."""
SWEEP = 1.0
"""How often, at most, deadlines and revocations are looked at, in seconds."""
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listening:
    """The listeners of one `listen` call: await it, or enter it; then `addresses`, `aclose()`.

    It lives in a task of its own, so that it may be opened in one task and closed in another.
    """

    def __init__(
        self,
        front: Front,
        *,
        tcp: Iterable[str] = (),
        unix: Iterable[str | os.PathLike[str]] = (),
        sockets: Iterable[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.front = front
        self._wanted = (tuple(tcp), tuple(unix), tuple(sockets))
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._files: list[tuple[str, tuple[int, int] | None]] = []
        self._connections: set[Connection] = set()
        self._sources: dict[str, int] = {}
        self._numbers = 0
        self._loop: Any = None
        self._handle: Any = None
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
            await anyio.to_thread.run_sync(self._bind)  # names are resolved
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
        safe = {"tokens": self.front.tokens is not None, "tls": self._tls is not None}
        if self.front.tokens is not None:
            self.front.tokens.refresh()
        if not (tcp or unix or given):
            raise ListenError("say where to listen: tcp=, unix= or sockets=")
        if self._tls is not None:
            _check_tls(self._tls)
        for listening in given:
            addresses.check_bound(listening, **safe)
            self._sockets.append(listening)
        for address in tcp:
            self._sockets += addresses.bind_tcp(address, **safe)
        for path in unix:
            self._sockets.append(addresses.bind_unix(path))
            self._files.append((os.fspath(path), addresses.identity(path)))

    def _has_tls(self, listening: socket.socket) -> bool:
        return self._tls is not None and listening.family != socket.AF_UNIX

    async def aclose(self) -> None:
        """Accept no more, say `bye` to all sessions, wait a little, close. May be repeated."""
        if self._loop is None:
            return
        self._closing.set()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
            await self._loop.aclose()

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
                        accepting.start_soon(self._accept, listening, sessions)
                    accepting.start_soon(self._sweep)
                    await self._closing.wait()
                    accepting.cancel_scope.cancel()
                self._close_sockets()
                await self._say_goodbye()
                sessions.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - a defect of ours may not end the host's program, nor pass in silence
            self.front.incident(exc)
        finally:
            self._close_sockets()
            self._ended.set()

    def _broken(self, exc: BaseException) -> None:
        self.front.incident(exc)

    async def _say_goodbye(self) -> None:
        for connection in list(self._connections):
            connection.close("shutting-down")
        with anyio.move_on_after(self.front.limits.close_time):
            while self._connections:
                self._wake = anyio.Event()
                await self._wake.wait()
        for connection in list(self._connections):
            connection.drop()

    # ---- accepting

    async def _accept(self, listening: socket.socket, sessions: TaskGroup) -> None:
        """Accept for ever. anyio's own `serve` ends at the first EMFILE, and at a handler's error."""
        pause = ACCEPT_PAUSE
        listener = await SocketListener.from_socket(listening)
        try:
            while True:
                try:
                    accepted = await listener.accept()
                except anyio.ClosedResourceError:
                    return
                except OSError as exc:
                    level = "warning" if exc.errno in _OUT_OF else "error"
                    getattr(log, level)("accept failed, trying again in %g s: %s", pause, exc.strerror)
                    await anyio.sleep(pause)
                    pause = min(LONGEST_PAUSE, pause * 2)
                    continue
                pause = ACCEPT_PAUSE
                stream = UnixStream(accepted) if listening.family == socket.AF_UNIX else accepted
                sessions.start_soon(self._guarded, stream, self._has_tls(listening))
        finally:
            with anyio.CancelScope(shield=True):
                await listener.aclose()

    async def _guarded(self, stream: ByteStream, tls: bool) -> None:  # noqa: FBT001 - start_soon takes no keywords
        """Serve one connection; no error of it reaches the others or the accept loop."""
        try:
            peer = self._peer(stream)
        except (OSError, TypedAttributeLookupError):
            await stream.aclose()  # it was gone before we looked at it
            return
        try:
            if (refusal := self._full(peer.source)) is not None:
                await self._turn_away(stream, refusal)
                return
            self._sources[peer.source] = self._sources.get(peer.source, 0) + 1
            try:
                await self._serve(stream, peer, tls=tls)
            finally:
                self._leave(peer.source)
        except Exception as exc:  # noqa: BLE001 - one connection's defect is its own
            self.front.incident(exc)
        finally:
            with anyio.move_on_after(1, shield=True), suppress(Exception):
                await stream.aclose()

    def _full(self, source: str) -> str | None:
        limits = self.front.limits
        if sum(self._sources.values()) >= limits.sessions:
            return f"there are {limits.sessions} sessions already"
        if self._sources.get(source, 0) >= limits.sessions_of_source:
            return f"there are {limits.sessions_of_source} sessions from your address already"
        return None

    def _leave(self, source: str) -> None:
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    async def _turn_away(self, stream: ByteStream, reason: str) -> None:
        error = {"error": {"code": "busy", "message": f"{reason}; try again later"}}
        with anyio.move_on_after(1), suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await stream.send(as_json(error) + as_json({"bye": {"code": "busy"}}))
            await stream.send_eof()
            while True:
                await stream.receive()

    async def _serve(self, stream: ByteStream, peer: Peer, *, tls: bool) -> None:
        if tls:
            secure = await self._handshake(stream)
            if secure is None:
                return
            stream = secure
        self._numbers += 1
        name = f"{self.front.instance}-{self._numbers}"
        connection = Connection(self.front, stream, peer, name, self._loop.clock)
        self._connections.add(connection)
        self.front.sessions[connection.session.name] = connection
        self._wake.set()
        try:
            if self._closing.is_set():
                connection.close("shutting-down")
            await connection.serve()
        finally:
            self._connections.discard(connection)
            del self.front.sessions[connection.session.name]
            self._wake.set()

    async def _handshake(self, stream: ByteStream) -> TLSStream | None:
        """Shake hands within the time for authentication; a plaintext probe is no news for the log."""
        with anyio.move_on_after(self.front.limits.auth_time):
            try:
                return await TLSStream.wrap(
                    stream, server_side=True, ssl_context=self._tls, standard_compatible=False
                )
            except (ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
                log.debug("a TLS handshake failed: %s", type(exc).__name__)
        return None

    def _peer(self, stream: ByteStream) -> Peer:
        raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, not Django's
        if raw.family == socket.AF_UNIX:
            uid = addresses.peer_uid(raw)
            known = uid is not None and uid == os.geteuid()
            principal = Principal(user=f"uid-{uid}", role=Role.ADMIN, credential=PEER) if known else None
            return Peer(f"unix uid={uid}", f"uid-{uid}", principal)
        address: Any = stream.extra(SocketAttribute.remote_address)  # noqa: S610 - the same
        return Peer(f"{address[0]}:{address[1]}", _source(str(address[0])))

    # ---- time

    async def _sweep(self) -> None:
        """Close sessions whose time is over or whose rights are gone. Sleeps while there are none."""
        while True:
            if not self._connections:
                self._wake = anyio.Event()
                await self._wake.wait()
            await anyio.sleep(self._until_next())
            self._refresh_tokens()
            now = anyio.current_time()
            for connection in list(self._connections):
                try:
                    connection.check(now)
                except Exception as exc:  # noqa: BLE001 - one session's defect may not end the watch over all
                    self.front.incident(exc)
                    connection.drop()

    def _until_next(self) -> float:
        due = [found[0] for each in self._connections if (found := each.session.deadline()) is not None]
        return min(SWEEP, max(0.0, min(due, default=SWEEP) - anyio.current_time()))

    def _refresh_tokens(self) -> None:
        if self.front.tokens is not None:
            try:
                self.front.tokens.refresh()
            except ListenError as exc:
                log.warning("%s", exc)  # nobody's token holds until it is mended


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
    try:
        context.load_cert_chain(Path(cert), Path(key))
    except (OSError, ssl.SSLError) as exc:
        raise ListenError(f"the certificate {cert} or its key {key} cannot be used: {exc}") from None
    return context

"""Where to listen, and what an address needs to be safe there. Judged on resolved addresses.

The incident classes: databases and job servers that listened on all interfaces by default, and
those that trusted a host name (`localhost` may resolve to anything).
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path

from scattersphere.commands.errors import ListenError

BACKLOG = 4_096
"""Connections that the system keeps until they are accepted (it may keep fewer): a burst beyond it is lost."""
HIGHEST_PORT = 65_535
_FOLDER_MODE = 0o700


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`. Raises `ListenError`: the host may not be left out."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) <= HIGHEST_PORT):
        raise ListenError(f"write an address as HOST:PORT, like 127.0.0.1:7411 or [::1]:0, not {address!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def check_tcp(host: str, *, tokens: bool, tls: bool) -> None:
    """Raise `ListenError` where it would be unsafe to listen on a resolved address."""
    if not tokens:
        raise ListenError(
            f"tcp://{host}: any local user, and any web page in a browser here, could connect", lacks="tokens"
        )
    if not tls and not is_loopback(host):
        raise ListenError(f"tcp://{host}: beyond this machine tokens would travel in the clear", lacks="tls")


def bind_tcp(address: str, *, tokens: bool, tls: bool) -> list[socket.socket]:
    """Bind and listen on every address that `HOST:PORT` resolves to; port 0 gives all the same port.

    Raises `ListenError`, before anything is bound, if one of them would be unsafe.
    """
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise ListenError(f"{address}: {exc}") from None
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    for _, place in places:
        check_tcp(str(place[0]), tokens=tokens, tls=tls)
    bound: list[socket.socket] = []
    try:
        for family, place in places:
            if port == 0 and bound:
                place = (place[0], bound[0].getsockname()[1], *place[2:])  # noqa: PLW2901 - the port of the first
            if (listening := _bind_one(family, place, optional=bool(bound))) is not None:
                bound.append(listening)
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


def _bind_one(family: int, place: tuple[object, ...], *, optional: bool) -> socket.socket | None:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart may take the port again at once, though old connections are in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as exc:
        listening.close()
        if optional and exc.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return None  # a machine without IPv6, asked for `localhost`
        raise ListenError(f"cannot listen on {place[0]}:{place[1]}: {exc.strerror}") from None
    return listening


def check_bound(listening: socket.socket, *, tokens: bool, tls: bool) -> None:
    """Judge a socket that the caller has bound, and make it listen. Raises `ListenError`."""
    if listening.type != socket.SOCK_STREAM:
        raise ListenError("a listener needs a stream socket")
    if listening.family in {socket.AF_INET, socket.AF_INET6}:
        check_tcp(str(listening.getsockname()[0]), tokens=tokens, tls=tls)
    elif listening.family == socket.AF_UNIX:
        _check_folder(Path(os.fsdecode(listening.getsockname())).parent)
    else:
        raise ListenError(f"sockets of the family {listening.family} are not supported")
    listening.listen(BACKLOG)
    listening.setblocking(False)


def url_of(listening: socket.socket, *, tls: bool) -> str:
    """Return what is printed for a listener: `tcp://127.0.0.1:40123`, `tls://...`, `unix:///path`."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix://{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'tls' if tls else 'tcp'}://{host}:{name[1]}"


# ---- unix sockets


def bind_unix(path: str | os.PathLike[str]) -> socket.socket:
    """Bind and listen on a path in a private folder. A dead socket is replaced, a live one never.

    The folder's lock is held from the look to the bind, so that two starters cannot both find the
    same socket dead. Raises `ListenError`.
    """
    place = Path(path).absolute()  # what is printed for it must be of use from another folder, too
    place.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    _check_folder(place.parent)
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _make_way(place)
        return _bind_private(place)
    finally:
        os.close(descriptor)


def _check_folder(folder: Path) -> None:
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & 0o077:
        raise ListenError(
            f"the folder {folder} of the unix socket must be yours and of mode 0700, not {mode:04o}"
        )


def _make_way(place: Path) -> None:
    try:
        status = place.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"{place} is there already, and is no socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1)
        probe.connect(os.fspath(place))
    except (ConnectionRefusedError, FileNotFoundError):
        with suppress(FileNotFoundError):
            place.unlink()
    except OSError as exc:
        raise ListenError(f"{place} is there already, and does not answer: {exc.strerror or exc}") from None
    else:
        raise ListenError(f"{place}: another server listens there")
    finally:
        probe.close()


def _bind_private(place: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(os.fspath(place))
    except OSError as exc:
        listening.close()
        raise ListenError(f"cannot listen on {place}: {exc.strerror or exc}") from None
    finally:
        os.umask(mask)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what tells the file at a path from another one there, or None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_socket(path: str | os.PathLike[str], ours: tuple[int, int] | None) -> None:
    """Remove our socket file, and never the one that somebody else put there since."""
    if ours is not None and identity(path) == ours:
        with suppress(OSError):
            Path(path).unlink()


def peer_uid(connected: socket.socket) -> int | None:
    """Return the user at the other end of a unix socket, as the kernel knows it; None if it does not say."""
    if sys.platform == "linux":
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    if sys.platform == "darwin":
        # struct xucred begins with a version and the uid (sys/ucred.h); LOCAL_PEERCRED is 1 of level 0.
        credentials = connected.getsockopt(0, 1, 76)
        return int(struct.unpack("II", credentials[:8])[1])
    return None

"""Where to listen: never by default, never everywhere by accident, never in the clear beyond this machine."""

import os
import socket
import stat

import pytest

from scattersphere.remote import ListenError, addresses

SAFE = {"tokens": True, "tls": True}


def close(sockets):
    for each in sockets:
        each.close()


def test_loopback_needs_a_token():
    """The incident class: servers that trusted whoever reached loopback, browsers included."""
    with pytest.raises(ListenError, match="give tokens="):
        addresses.bind_tcp("127.0.0.1:0", tokens=False, tls=True)
    close(addresses.bind_tcp("127.0.0.1:0", tokens=True, tls=False))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_other_addresses_need_tls_and_a_token(host):
    """The incident class: listening on all interfaces."""
    for options in (
        {"tokens": False, "tls": False},
        {"tokens": True, "tls": False},
        {"tokens": False, "tls": True},
    ):
        with pytest.raises(ListenError, match="give t"):
            addresses.bind_tcp(f"{host}:0", **options)


def test_resolved_addresses_are_judged_and_not_names(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "192.0.2.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ListenError, match=r"192\.0\.2\.7"):
        addresses.bind_tcp("localhost:0", tokens=True, tls=False)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("169.254.1.1", False),
    ],
)
def test_what_is_loopback(host, loopback):
    assert addresses.is_loopback(host) is loopback


@pytest.mark.parametrize(
    "address", ["", ":80", "80", "host", "host:", "host:x", "host:65536", "h:-1", "h:\uff11"]
)
def test_an_address_has_a_host_and_a_port(address):
    """The incident class: an empty host that means every interface."""
    with pytest.raises(ListenError, match="HOST:PORT"):
        addresses.bind_tcp(address, **SAFE)


def test_port_0_gives_all_addresses_of_a_name_the_same_port():
    sockets = addresses.bind_tcp("localhost:0", **SAFE)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    assert addresses.url_of(sockets[0], tls=False).startswith("tcp://")
    close(sockets)


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_bound():
    (first,) = addresses.bind_tcp("127.0.0.1:0", **SAFE)
    with pytest.raises(ListenError, match="cannot listen"):
        addresses.bind_tcp(f"127.0.0.1:{first.getsockname()[1]}", **SAFE)
    first.close()


def test_a_bound_socket_is_judged_by_its_address():
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))
        with pytest.raises(ListenError, match="give tls="):
            addresses.check_bound(bound, tokens=True, tls=False)
        addresses.check_bound(bound, **SAFE)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        pytest.raises(ListenError, match="stream"),
    ):
        addresses.check_bound(datagrams, **SAFE)


def test_a_unix_socket_is_private_in_a_private_folder(tmp_path):
    place = tmp_path / "run" / "s"
    before = os.umask(0)
    try:
        bound = addresses.bind_unix(place)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0
    bound.close()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_refused(tmp_path, mode):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ListenError, match="0700"):
        addresses.bind_unix(folder / "s")


def test_a_dead_socket_is_replaced_and_a_live_one_is_never_stolen(tmp_path):
    place = tmp_path / "run" / "s"
    first = addresses.bind_unix(place)
    with pytest.raises(ListenError, match="another server"):
        addresses.bind_unix(place)
    ours = addresses.identity(place)
    first.close()  # as a killed process does: the file stays
    second = addresses.bind_unix(place)
    addresses.remove_socket(place, ours if ours != addresses.identity(place) else None)
    assert place.exists(), "the file of another listener was removed"
    addresses.remove_socket(place, addresses.identity(place))
    assert not place.exists()
    second.close()


def test_what_is_no_socket_is_left_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    (folder / "s").write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        addresses.bind_unix(folder / "s")
    assert (folder / "s").read_text() == "precious"


def test_the_kernel_tells_who_is_at_the_other_end():
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert addresses.peer_uid(left) == os.getuid()

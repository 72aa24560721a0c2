"""A machine at the other end of a slow link: a network namespace, and packets that come late or not at all.

`python far_network.py NEAR FAR LATENCY LOSS COMMAND...` runs COMMAND in a network namespace of its own, with the address
FAR. Its only way out is a tunnel to the namespace that this was started in, where the other end has the address NEAR.
The kernel hands over the packets of both ends; each is passed on after LATENCY seconds, but for the part LOSS of them,
by a seeded generator. While the file `cut` is in the working directory, nothing is passed on at all. It ends with COMMAND,
and ends that when it is terminated. (What `tc netem` does, for kernels that lack it.)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
BYTES = 65536
LOOK = 0.05
"""Seconds between looks whether the command has ended."""

IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "--kill-child", "--fork"]
"""In front of a command: it has a network of its own, in which it may set up links."""


def missing() -> str:
    """Say why there can be no such network here; "" where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    try:
        subprocess.run(
            [*IN_A_NAMESPACE, sys.executable, __file__, "10.213.0.1", "10.213.0.2", "0", "0", "true"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as exc:
        words = (getattr(exc, "stderr", None) or b"").decode().strip().rpartition("\n")[2]
        return f"no network of one's own is to be had: {words or exc}"
    return ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _tunnel(name: str, address: str, peer: str) -> int:
    """Make one end of a tunnel in the present namespace, and return what its packets are read from."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    _ip("addr", "add", address, "peer", peer, "dev", name)
    _ip("link", "set", name, "up", "txqueuelen", "5000")
    return descriptor


def _pass_on(ends: tuple[int, int], latency: float, loss: float, command: subprocess.Popen[bytes]) -> None:
    """Carry packets between two ends until the command has ended."""
    chance, cut = random.Random(1), Path("cut")
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while command.poll() is None:
        due = under_way[0][0] - time.monotonic() if under_way else LOOK
        ready, _, _ = select.select(ends, (), (), max(0.0, min(LOOK, due)))
        now, is_cut = time.monotonic(), cut.exists()
        for end in ready:
            for _ in range(64):
                try:
                    packet = os.read(end, BYTES)
                except BlockingIOError:
                    break
                if not is_cut and chance.random() >= loss:
                    count += 1
                    heapq.heappush(under_way, (now + latency, count, ends[end == ends[0]], packet))
        while under_way and under_way[0][0] <= now:
            _, _, other, packet = heapq.heappop(under_way)
            if not is_cut:
                with contextlib.suppress(OSError):  # its queue is full: lost on the way, as on any other
                    os.write(other, packet)


def main(near: str, far: str, latency: str, loss: str, *command: str) -> int:
    _ip("link", "set", "lo", "up")
    here = _tunnel(f"far{near.split('.')[2]}", near, far)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _ip("link", "set", "lo", "up")
    there = _tunnel("near", far, near)
    _ip("route", "add", "default", "via", near)
    with subprocess.Popen(command, start_new_session=True) as process:
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
        try:
            _pass_on((here, there), float(latency), float(loss), process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

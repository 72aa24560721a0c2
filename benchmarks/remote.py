"""The cost of a request over the wire: `python -m benchmarks remote [seconds] [--before [COMMIT]]`.

The baseline is a bare anyio server with a line buffer and the stdlib's json, in a process of its own,
measured in the same run with the same client. What counts is the server's processor time for each
request (round trips across two virtual cores measure the machine), and that as a ratio of the baseline.

With `--before` the baseline is another tree of this library: that of the commit before the second wave, or of any
other one. Both servers live through the whole sitting and are asked in turns, in alternating order.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from benchmarks import load
from benchmarks.before import TREE, export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEFORE = "33c9ddc"
"""The last commit before the second wave, with which protocol 2 came."""
PING = b'{"cmd":"ping","args":{},"id":"0123456789012345678901234567890123"}\n'
START = b'{"cmd":"start","args":{"job":"one"},"id":"01234567890123456789012345678901"}\n'
START_1 = START.replace(b"start", b"run")
"""In the words of protocol 1."""
STATUS = b'{"cmd":"status","args":{"run":1},"id":"0123456789012345678901234567890"}\n'
JOBS = b'{"cmd":"jobs","args":{},"id":"0123456789012345678901234567890123"}\n'
CLIENTS, IN_FLIGHT = 50, 100
ROUNDS = 3
GOALS = {"1 client": 0.7, f"{IN_FLIGHT} in flight": 0.5, f"{CLIENTS} clients": 0.7}
GOAL_RUN, GOAL_P99_MS, GOAL_BEFORE = 3.0, 5.0, 1.1

BARE = """
import json, anyio
async def handle(stream):
    rest = b""
    async with stream:
        while True:
            try:
                *lines, rest = (rest + await stream.receive()).split(b"\\n")
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return
            out = []
            for line in lines:
                request = json.loads(line)
                out.append(json.dumps({"id": request["id"], "n": 1, "result": {"pong": True}}).encode())
            await stream.send(b"".join(line + b"\\n" for line in out))
async def main():
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        print(listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port), flush=True)
        await listener.serve(handle)
anyio.run(main)
"""
OURS = """
import sys, anyio
from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.remote import Limits, Role, TokenFile
class Nothing(RunnableTask):
    async def run(self, context):
        return None
class Sleeper(RunnableTask):
    async def run(self, context):
        await anyio.sleep_forever()
class Chatter(RunnableTask):  # 10,000 lines a second
    async def run(self, context):
        number, due = 0, anyio.current_time()
        while True:
            for _ in range(20):
                context.log.info("line %d", number)
                number += 1
            due += 0.002
            await anyio.sleep(max(0.0, due - anyio.current_time()))
async def main():
    file = TokenFile(sys.argv[1])
    token = file.create("bench", Role.ADMIN)
    large = {"rate": 1e9, "burst": 10**9, "sessions": 10**6, "sessions_of_source": 10**6, "sessions_of_user": 10**6}
    known = {each.name for each in Limits.__attrs_attrs__}
    limits = Limits(**{name: value for name, value in large.items() if name in known})
    async with Server() as server:
        server.register_tasks("app", [Nothing, Sleeper, Chatter])
        server.define(JobDefinition.build("one").task("only", "Nothing").done())
        server.define(JobDefinition.build("long").task("only", "Sleeper").done())
        await server.start("long")  # run 1, which `status` is asked of
        async with server.listen(tcp="127.0.0.1:0", tokens=file, limits=limits) as listening:
            print(listening.addresses[0].rpartition(":")[2], token, flush=True)
            await anyio.sleep_forever()
anyio.run(main)
"""


@attrs.frozen
class Target:
    """A server process: its number, its port, and the token of ours."""

    pid: int
    port: int
    token: str | None
    is_old: bool = False

    def connect(self) -> socket.socket:
        """Open a connection, and authenticate where that is needed."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.token is not None:
            connection.sendall(f"auth {self.token}\n".encode())
            lines = b""
            while lines.count(b"\n") < 2:
                lines += connection.recv(65_536)
        return connection

    def processor_time(self) -> float:
        """Return the seconds that the process has used."""
        return time.clock_gettime(load.processor_clock(self.pid))


@contextmanager
def target(program: str, tree: Path = TREE) -> Iterator[Target]:
    """Start a server process that imports the library from a tree."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, f"{folder}/tokens.json"]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        with subprocess.Popen(  # noqa: S603 - ourselves
            command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        ) as process:
            if process.stdout is None:
                raise RuntimeError("no output")
            port, *token = process.stdout.readline().split()
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
            try:
                yield Target(process.pid, int(port), token[0] if token else None, tree != TREE)
            finally:
                process.kill()


def one_by_one(found: Target, request: bytes, seconds: float, in_flight: int = 1) -> int:
    done = 0
    with found.connect() as connection:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            connection.sendall(request * in_flight)
            lines = 0
            while lines < in_flight:
                lines += connection.recv(1 << 20).count(b"\n")
            done += lines
    return done


def pipelined(found: Target, request: bytes, seconds: float) -> int:
    return one_by_one(found, request, seconds, IN_FLIGHT)


def side_by_side(found: Target, request: bytes, seconds: float, clients: int = CLIENTS) -> int:
    done = 0
    with selectors.DefaultSelector() as selector:
        connections = [found.connect() for _ in range(clients)]
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(request)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(1):
                connection = cast("socket.socket", key.fileobj)
                done += connection.recv(65_536).count(b"\n")
                connection.sendall(request)
        for connection in connections:
            connection.recv(65_536)  # what is unread at the close would reset the connection
            connection.close()
    return done


def cost(found: Target, load: Callable[[Target, bytes, float], int], request: bytes, seconds: float) -> float:
    """Return the server's microseconds for each request."""
    before = found.processor_time()
    done = load(found, request, seconds)
    return (found.processor_time() - before) / done * 1e6


LOADS = {"1 client": one_by_one, f"{IN_FLIGHT} in flight": pipelined, f"{CLIENTS} clients": side_by_side}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=2.0)
    parser.add_argument("--before", metavar="COMMIT", nargs="?", const=BEFORE)
    options = parser.parse_args()
    if options.before is None:
        beside_bare(options.seconds)
    else:
        beside_before(options.before, options.seconds)


def beside_before(commit: str, seconds: float, rounds: int = 15) -> None:
    """Measure this tree's server and that of another commit, in turns."""
    cases: dict[str, tuple[Callable[[Target, bytes, float], int], bytes]] = {
        f"ping, {name}": (load, PING) for name, load in LOADS.items()
    }
    cases |= {"status of a run": (one_by_one, STATUS), "jobs": (one_by_one, JOBS)}
    cases |= {"start": (one_by_one, START), f"start, {CLIENTS} clients": (side_by_side, START)}
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    spent: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        export(commit, Path(folder))
        with target(OURS, Path(folder)) as old, target(OURS) as new:
            for number in range(rounds):
                for name, (load, request) in cases.items():
                    for each in (old, new) if number % 2 else (new, old):
                        words = START_1 if each.is_old and request is START else request
                        spent[name, each.is_old].append(cost(each, load, words, seconds))
                    ratios[name].append(spent[name, False][-1] / spent[name, True][-1])
    print(f"processor microseconds of a request now and at {commit}; median of {rounds} rounds\n")
    for name, found in ratios.items():
        now, then = (statistics.median(spent[name, is_old]) for is_old in (False, True))
        ratio = statistics.median(found)
        verdict = "holds" if ratio <= GOAL_BEFORE else "MISSED"
        print(
            f"{name:24} now {now:6.1f}   then {then:6.1f}   {ratio:4.2f} x   goal {GOAL_BEFORE} x: {verdict}"
        )


def beside_bare(seconds: float) -> None:
    """Measure against a bare server, and beside a follower of many lines."""
    print("microseconds of the server's processor for each request; speed as a ratio of the bare server\n")
    with target(BARE) as bare, target(OURS) as ours:
        for name, load in LOADS.items():
            pairs = [
                (cost(bare, load, PING, seconds), cost(ours, load, PING, seconds)) for _ in range(ROUNDS)
            ]
            ratio = statistics.median(theirs / mine for theirs, mine in pairs)
            theirs, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"ping, {name:<14} bare {theirs:6.1f}   ours {mine:6.1f}   {ratio:4.2f} x as fast")
            goal = GOALS[name]
            print(f"{'':35}goal {goal} x: {'holds' if ratio >= goal else 'MISSED'}")
        pairs = [
            (cost(ours, one_by_one, PING, seconds), cost(ours, one_by_one, START, seconds))
            for _ in range(ROUNDS)
        ]
        run, ratio = statistics.median(mine for _, mine in pairs), statistics.median(b / a for a, b in pairs)
        print(f"run of a one-task job {run:6.1f}, {ratio:.1f} x a ping   goal at most {GOAL_RUN} x")
    with target(OURS) as fresh:
        beside_a_follower(fresh, seconds)


def beside_a_follower(found: Target, seconds: float) -> None:
    """Measure pings on the clock while another session follows 10,000 log lines a second."""
    if found.token is None:
        raise RuntimeError("only ours has log lines")
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(found.pid, {first})  # the clients, which read 10,000 lines a second, have the others
    if others:
        os.sched_setaffinity(0, others)
    healthy = load.Healthy(found.port, found.token)
    run = healthy.ask("start-task Chatter")["result"]["run"]
    with load.child(load.FOLLOWER, found.port, found.token, run, 2 * seconds) as (_, _, out):
        words, reached = load.describe(healthy.pings(2 * seconds, found.pid))
        followed = json.loads(out.readline())
    healthy.ask(f"kill {run}")
    healthy.close()
    print(f"ping beside a follower of {followed['rate']:.0f} lines/s (lost: {followed['lost']}): {words}")
    print(f"{'':35}goal p99 {GOAL_P99_MS} ms: {'holds' if reached <= GOAL_P99_MS else 'MISSED'}")


if __name__ == "__main__":
    main()

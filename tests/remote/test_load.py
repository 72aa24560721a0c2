"""Many sessions at once: every request one reply, in order, nothing lost, and what they cost stays bounded.

Times are measured by `python -m benchmarks load`; here it is only counted.
"""

import json
import select
import socket
import subprocess
import sys

import anyio
import attrs
import pytest
from patience import PATIENCE
from wire import connected, job, served

from scattersphere.remote import Limits

pytestmark = pytest.mark.anyio

MANY = attrs.evolve(Limits(), sessions=200, sessions_of_source=200, sessions_of_user=200, burst=1_000)
MIX = [
    ("ping", {}),
    ("jobs", {}),
    ("runs", {"limit": 3}),
    ("status", {"run": 1}),
    ("nonsense", {}),
    ("logs", {"run": 1, "tail": 2}),
    ("wait", {"run": 1, "timeout": 0}),
    ("start", {"job": "hi"}),
    ("status", {"run": 10**9}),
]
LINES = 5_000


async def test_a_hundred_sessions_get_each_reply_once_in_order_beside_a_follower(tmp_path):
    async with served(tmp_path, limits=MANY) as front, front.client() as admin:
        for definition in (job("long", "Forever"), job("hi"), job("talk", "Talk", lines=LINES)):
            await admin.ok("define " + json.dumps(definition))
        await admin.ok("start long")
        await admin.ok("start talk")
        follow = await admin.ok("follow 2 kinds=log since=0")
        finished = []

        async def one(number):
            async with connected(front.listening, front.tokens["admin"]) as client:
                wanted = [f"{number}-{at}" for at in range(3 * len(MIX))]
                for third in range(3):
                    ids = wanted[third * len(MIX) : (third + 1) * len(MIX)]
                    lines = [
                        {"cmd": cmd, "args": args, "id": id_}
                        for (cmd, args), id_ in zip(MIX, ids, strict=True)
                    ]
                    await client.send(*map(json.dumps, lines))
                replies = [await client.read() for _ in wanted]
                assert sorted(reply["n"] for reply in replies) == list(range(2, len(wanted) + 2))
                assert all(reply["id"] == wanted[reply["n"] - 2] for reply in replies)
                late = {at for at, (cmd, _) in enumerate(3 * MIX) if cmd == "wait"}
                in_order = [reply["n"] - 2 for reply in replies if reply["n"] - 2 not in late]
                assert in_order == sorted(in_order)
                finished.append(number)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
            messages = []
            while (event := await admin.read())["event"] != "end":
                assert event["event"] == "log", event  # no `lagged`
                messages.append(event["message"])
        assert sorted(finished) == list(range(100))
        assert messages == [f"line {number}" for number in range(LINES)]
        assert follow["next"] == 1
        await admin.ok("kill 1")


THOUSAND = """
import asyncio, json, resource, sys, tempfile
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere.remote import Limits, Role, TokenFile
class Nothing(RunnableTask):
    async def run(self, context):
        return None
COUNT = 1000
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
async def main():
    file = TokenFile(sys.argv[1])
    token = file.create("many", Role.ADMIN)
    limits = Limits(sessions=2 * COUNT, sessions_of_source=2 * COUNT, sessions_of_user=2 * COUNT, auth_time=600)
    async with Server() as server:
        server.register_tasks("app", [Nothing])
        server.define(JobDefinition.build("one").task("only", "Nothing").done())
        async with server.listen(tcp="127.0.0.1:0", tokens=file, limits=limits) as listening:
            port = int(listening.addresses[0].rpartition(":")[2])
            before, open_ = resident(), []
            for number in range(COUNT):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await reader.readline()
                writer.write(f"auth {token}\\n".encode())
                await reader.readline()
                open_.append((number, reader, writer))
            each = (resident() - before) / COUNT
            async def ask(number, reader, writer):
                lines = [{"cmd": "ping"}, {"cmd": "start", "args": {"job": "one"}}, {"cmd": "jobs"}, {"cmd": "no"}]
                lines = [line | {"id": f"{number}-{at}"} for at, line in enumerate(lines)]
                writer.write("".join(json.dumps(line) + "\\n" for line in lines).encode())
                replies = [json.loads(await reader.readline()) for _ in lines]
                assert [reply["id"] for reply in replies] == [line["id"] for line in lines], replies
                assert [reply["n"] for reply in replies] == [2, 3, 4, 5], replies
                return replies[1]["result"]["run"]
            runs = await asyncio.gather(*(ask(*each) for each in open_))
            assert sorted(runs) == list(range(1, COUNT + 1))
            assert len(listening.gateway.sessions) == COUNT
            for _, _, writer in open_:
                writer.close()
            print(json.dumps({"sessions": len(open_), "bytes_each": each}))
asyncio.run(main())
"""


def child(program, *words):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_sessions_at_once_cost_a_bounded_memory_each(tmp_path):
    with child(THOUSAND, tmp_path / "tokens.json") as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    found = json.loads(out)
    assert found["sessions"] == 1_000
    assert found["bytes_each"] < 100_000  # both ends of the connection live in that process


FEW_DESCRIPTORS = """
import resource, sys
import anyio
from scattersphere import Server
from scattersphere.remote import Limits, Role, TokenFile
async def main():
    file = TokenFile(sys.argv[1])
    token = file.create("few", Role.VIEWER)
    limits = Limits(sessions=500, sessions_of_source=500, sessions_of_user=500)
    async with Server(watch=False) as server, server.listen(tcp="127.0.0.1:0", tokens=file, limits=limits) as listening:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        print(listening.addresses[0].rpartition(":")[2], token, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_a_server_that_ran_out_of_descriptors_serves_again_when_there_are_some(tmp_path):
    """The incident class: an accept loop that ends at EMFILE; here with a real limit of the kernel."""
    with child(FEW_DESCRIPTORS, tmp_path / "tokens.json") as process:
        try:
            port, token = process.stdout.readline().split()
            crowd = [socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) for _ in range(60)]
            greeted = select.select(crowd, [], [], 20)[0]  # the others wait in the kernel's queue
            assert 0 < len(greeted) < len(crowd)
            for connection in crowd:
                connection.close()
            with socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) as connection:
                stream = connection.makefile("rw")
                assert "scattersphere" in json.loads(stream.readline())
                stream.write(f"auth {token}\nping\n")
                stream.flush()
                assert json.loads(stream.readline())["result"]["role"] == "viewer"
                assert json.loads(stream.readline())["result"] == {"pong": True}
                stream.close()
        finally:
            process.kill()

"""HTTP under load: 1,000 readers of events, slow and silent clients, 10,000 requests, large bodies, a neighbour's run.

`python -m benchmarks http [readers] [requests]`. The server and the crowd are processes of their own. In the server a
run does nothing but wake every 5 ms and note how long its loop was held in between, by the processor time of all the
server's threads, whichever of them kept the interpreter's lock: that is what a neighbour feels. What Python's
collector of garbage took is told apart. `GET /runs/N` is compared, in turns, with the same JSON from a bare Starlette
route.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load import child, raise_descriptor_limit, resident_kb

READERS, REQUESTS, BODIES, ROUNDS = 1_000, 10_000, 8, 5
GOAL_HELD_MS, GOAL_RATIO = 20.0, 2.5

SERVER = """
import gc, json, socket, sys, time, anyio, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from scattersphere import JobDefinition, RunnableTask, Server, web
from scattersphere.remote import Limits, Role, TokenFile
held, collecting = [], [0.0, 0.0]
def collected(phase, info, begun=[0.0]):
    if phase == "start":
        begun[0] = time.process_time()
    else:
        took = (time.process_time() - begun[0]) * 1e3
        collecting[:] = max(collecting[0], took), collecting[1] + took
gc.callbacks.append(collected)
class Neighbour(RunnableTask):
    async def run(self, context):
        before = time.process_time()
        while True:
            await anyio.sleep(0.005)
            now = time.process_time()
            held.append((now - before) * 1e3 - collecting[1])  # Python collects garbage when it likes
            before, collecting[1] = now, 0.0
class Chatter(RunnableTask):
    async def run(self, context):
        number = 0
        while True:
            context.log.info("line %d", number)
            number += 1
            await anyio.sleep(0.1)
class Nothing(RunnableTask):
    async def run(self, context):
        return None
async def main():
    tokens = TokenFile(sys.argv[1])
    token = tokens.create("bench", Role.ADMIN)
    limits = Limits(rate=1e9, burst=10**9, streams=10**6, streams_of_user=10**6, late=10**6)
    async with Server(blocked_after=None) as server:
        server.register_tasks("app", [Neighbour, Chatter, Nothing])
        job = JobDefinition.build("twenty")
        for at in range(20):
            job = job.task(f"task_{at}", "Nothing")
        server.define(job.done())
        run = await (await server.start("twenty")).wait()
        await server.start_task("Neighbour")
        pages = web.app(server, tokens=tokens, limits=limits)
        bare = {}
        async def same(request):
            return JSONResponse(bare["reply"])
        app = Starlette(routes=[Route("/bare/{run:int}", same), Mount("/", pages)])
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", backlog=8)  # as serve_pages does
        serving = uvicorn.Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(serving.serve, [listening])
            while not serving.started:
                await anyio.sleep(0.01)
            listening.listen(2048)
            from scattersphere.commands.views import run_view
            bare["reply"] = await run_view(run)
            print(listening.getsockname()[1], token, run.id, flush=True)
            while await anyio.to_thread.run_sync(sys.stdin.readline):
                found, held[:] = sorted(held), []
                p99 = found[int(len(found) * 0.99)] if found else 0.0
                longest, used = found[-1] if found else 0.0, time.process_time()
                print(json.dumps({"p99": p99, "longest": longest, "used": used, "gc": collecting[0]}), flush=True)
                collecting[0] = 0.0
            serving.should_exit = True
            group.cancel_scope.cancel()
anyio.run(main)
"""

CROWD = """
import asyncio, json, sys, time
port, token, run = int(sys.argv[1]), sys.argv[2], sys.argv[3]
HEAD = f"Host: localhost\\r\\nAuthorization: Bearer {token}\\r\\n"
def get(path):
    return f"GET {path} HTTP/1.1\\r\\n{HEAD}\\r\\n".encode()
async def answer(reader):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    lines = head.decode().lower().split("\\r\\n")
    length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split()[1])
seen, kept = {}, []
async def start(task):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /api/v1/tasks/{task}/runs HTTP/1.1\\r\\n{HEAD}Content-Length: 0\\r\\n\\r\\n".encode())
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    writer.close()
    return head.decode().split("/runs/")[1].split()[0]
async def reader_of_events(number, stalled):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(get(f"/api/v1/runs/{talk}/events?kinds=log"))
    kept.append(writer)
    await reader.readuntil(b"\\r\\n\\r\\n")
    seen[number] = 0
    while not stalled:
        line = await reader.readline()
        if not line:
            break
        seen[number] += line.startswith(b"id:")
async def silent():
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/v1/runs HTTP/1.1\\r\\nHost: loc")
    kept.append(writer)
async def burst(count, path, workers=50):
    statuses = {}
    async def one(share):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for _ in range(share):
            writer.write(get(path))
            status = await answer(reader)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()
    await asyncio.gather(*(one(count // workers) for _ in range(workers)))
    return statuses
def definition(size, kind):
    if kind == "string":
        return b'{"name": "' + b"x" * (size - 12) + b'"}'
    tasks, made = {}, 0
    while made < size - 200:
        name = f"task_{len(tasks)}"
        waits = [f"task_{len(tasks) - 1}"] if tasks else []
        tasks[name] = {"task": "Nothing", "depends_on": waits, "description": "x" * 40}
        made += len(name) * 2 + 130
    return json.dumps({"name": "large", "tasks": tasks}).encode()
async def body(text, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = f"POST /api/v1/{path} HTTP/1.1\\r\\n{HEAD}Content-Type: application/json\\r\\n"
    writer.write(f"{head}Content-Length: {len(text)}\\r\\n\\r\\n".encode())
    for at in range(0, len(text), 1 << 16):
        writer.write(text[at:at + (1 << 16)])
        await writer.drain()
    status = await answer(reader)
    writer.close()
    return status
async def main():
    global talk
    tasks = []
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        begun = time.perf_counter()
        if words[0] == "readers":
            talk = await start("Chatter")
            tasks += [asyncio.create_task(reader_of_events(n, n % 10 == 0)) for n in range(int(words[1]))]
            while len(seen) < int(words[1]):
                await asyncio.sleep(0.05)
            told = len(seen)
        elif words[0] == "listen":
            before = sum(seen.values())
            await asyncio.sleep(float(words[1]))
            told = (sum(seen.values()) - before) / float(words[1])
        elif words[0] == "silent":
            await asyncio.gather(*(silent() for _ in range(int(words[1]))))
            told = int(words[1])
        elif words[0] == "burst":
            told = await burst(int(words[1]), words[2], *map(int, words[3:]))
        elif words[0] == "bodies":
            text = definition(int(words[2]), words[3])
            begun = time.perf_counter()
            told = await asyncio.gather(*(body(text, words[4]) for _ in range(int(words[1]))))
        elif words[0] == "leave":
            for writer in kept:
                writer.close()
            told = len(kept)
        print(json.dumps([told, time.perf_counter() - begun]), flush=True)
asyncio.run(main())
"""


class Asked:
    """A process that answers each line with one of JSON."""

    def __init__(self, stdin: Any, stdout: Any) -> None:
        self._in, self._out = stdin, stdout

    def ask(self, line: str) -> Any:
        """Send a line and return the answer."""
        self._in.write(line + "\n")
        self._in.flush()
        return json.loads(self._out.readline())


def main() -> None:
    readers = int(sys.argv[1]) if len(sys.argv) > 1 else READERS
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else REQUESTS
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        process, stdin, out = stack.enter_context(child(SERVER, Path(folder, "tokens.json")))
        port, token, run = out.readline().split()
        server = Asked(stdin, out)
        _, crowd_in, crowd_out = stack.enter_context(child(CROWD, port, token, run))
        crowd = Asked(crowd_in, crowd_out)
        begun = resident_kb(process.pid)
        worst = 0.0

        def phase(name: str, line: str) -> Any:
            nonlocal worst
            before = server.ask("mark")["used"]
            told, took = crowd.ask(line)
            held = server.ask("mark")
            used = held["used"] - before
            worst = max(worst, held["p99"])
            memory = (resident_kb(process.pid) - begun) / 1024
            times = f"{took:6.2f} s, processor {used:6.2f} s"
            turns = (
                f"held p99 {held['p99']:5.1f} ms, longest {held['longest']:5.1f} (garbage {held['gc']:5.1f})"
            )
            print(f"{name:34} {times}   {turns}   memory +{memory:6.1f} MiB")
            return told, used

        phase("quiet, 200 requests", f"burst 200 /api/v1/runs/{run}")
        ratios, part = [], max(50, requests // ROUNDS)
        for _ in range(ROUNDS):  # in turns: what else the machine does is the same for both
            _, bare = phase(f"{part:,} of a bare route", f"burst {part} /bare/{run}")
            statuses, ours = phase(f"{part:,} of GET /runs/{run}", f"burst {part} /api/v1/runs/{run}")
            ratios.append(ours / bare)
        phase(f"{readers:,} readers of events come", f"readers {readers}")
        rate, _ = phase("they listen, a tenth reads nothing", "listen 3")
        phase("200 silent clients", "silent 200")
        phase(f"{requests:,} requests beside all these", f"burst {requests} /api/v1/runs/{run}")
        bodies, _ = phase(f"{BODIES} bodies of 10 MiB", f"bodies {BODIES} {10 << 20} string validate")
        tasks, _ = phase("2 of 10 MiB that are real tasks", f"bodies 2 {10 << 20} tasks validate")
        made, _ = phase("2 that are defined, one for another", f"bodies 2 {10 << 20} tasks jobs?replace=true")
        pages, _ = phase("the page of that job, and its text", "burst 1 /jobs/large 1")
        phase("all leave", "leave")
        print(f"\nevents a second to all readers   {rate:,.0f}")
        bodies_ = sorted({*bodies, *tasks, *made})
        print(f"answers of the burst             {statuses}, of the bodies {bodies_}, of the page {pages}")
        ratio = statistics.median(ratios)
        print(
            f"GET /runs/N against a bare route {ratio:.2f} x   goal <= {GOAL_RATIO:g} x: {told(ratio, GOAL_RATIO)}"
        )
        verdict = told(worst, GOAL_HELD_MS)
        print(f"a neighbour is held, p99         {worst:.1f} ms   goal <= {GOAL_HELD_MS:g} ms: {verdict}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            stdin.close()
            process.wait(5)


def told(found: float, goal: float) -> str:
    """Return a verdict in a word."""
    return "holds" if found <= goal else "MISSED"


if __name__ == "__main__":
    main()

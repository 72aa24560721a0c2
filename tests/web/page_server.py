"""A Server with pages and the API, as a program: it prints its address and a token, then a link for each line read; `edit N` edits a bundle."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from pathlib import Path

import anyio
import uvicorn

from scattersphere import JobDefinition, RunnableTask, Server, web
from scattersphere.commands.access import Principal, Role
from scattersphere.commands.limits import Limits
from scattersphere.remote import TokenFile
from scattersphere.web.guard import Links


class Step(RunnableTask):
    n: int = 5

    async def run(self, context):
        for number in range(1, self.n + 1):
            context.log.info("step %d", number)
            await anyio.sleep(0.2)


class Wait(RunnableTask):
    async def run(self, context):
        while True:
            await context.checkpoint()
            await anyio.sleep(0.05)


class Look(RunnableTask):
    async def run(self, context):
        row = {"id": 1}
        return row["customer_id"]


NOTES = """from scattersphere import RunnableTask


class Note(RunnableTask):
    number: int = {}

    async def run(self, context): ...
"""


async def main(folder):
    steps = JobDefinition.build("steps", params={"n": 5}).task("first", "Step", args={"n": {"$param": "n"}})
    jobs = [
        steps.task("second", "Step", args={"n": 1}, depends_on=["first"]).done(),
        JobDefinition.build("slow").task("wait", "Wait").done(),
        JobDefinition.build("bad").task("look", "Look").task("after", "Step", depends_on=["look"]).done(),
    ]
    links, limits = Links(time.monotonic), Limits(rate=1e6, burst=10**6)
    tokens = TokenFile(folder / "tokens.json")
    bundles = folder / "bundles"
    bundles.mkdir()
    (bundles / "notes.py").write_text(NOTES.format(1))
    async with Server(bundle_roots=[bundles]) as server:
        server.register_tasks("app", [Step, Wait, Look])
        for job in jobs:
            server.define(job)
        listening = socket.create_server(("127.0.0.1", 0))
        pages = uvicorn.Server(
            uvicorn.Config(web.app(server, links=links, tokens=tokens, limits=limits), log_level="warning")
        )
        async with anyio.create_task_group() as group:
            group.start_soon(pages.serve, [listening])
            print(f"http://127.0.0.1:{listening.getsockname()[1]}")  # noqa: T201
            print(tokens.create("tests", Role.ADMIN))  # noqa: T201
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                if line.startswith("edit "):  # and whoever looks at the page of bundles sees another version
                    (bundles / "notes.py").write_text(NOTES.format(int(line.split()[1])))
                    continue
                code = links.new_code(Principal(user="ada", role=Role.OPERATOR))
                print(f"/login?code={code}")  # noqa: T201
            pages.should_exit = True
            for run in server.runs.values():
                if not run.state.ended:
                    run.cancel()


with tempfile.TemporaryDirectory() as scratch:
    anyio.run(main, Path(scratch))

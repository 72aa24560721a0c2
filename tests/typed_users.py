"""What users write with types: `make types` checks it, and nobody runs it.

A value that is the user's, an argument, a result, a comment, may be used as what the user knows it to be. It is `Any`
for that: `object` would ask for a cast at each use.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs

from scattersphere import JobDefinition, RunnableTask, Server, SyncServer, TaskContext, task
from scattersphere.abc import Backend, BackendHost, Call, Handle, Outcome, OutcomeKind, RemoteValue
from scattersphere.model.builder import literal, param, result
from scattersphere.remote import connect

if TYPE_CHECKING:
    from collections.abc import Callable


class Begun(Handle):
    def cancel(self) -> None: ...
    def kill(self) -> None: ...
    def where(self) -> str:
        return ""


class OwnBackend:
    limit: int | None = 4

    async def open(self, host: BackendHost) -> None:
        self._host = host

    def start(self, call: Call, done: Callable[[Outcome], None]) -> Handle:
        def work() -> None:
            outcome = call.invoke()
            if outcome.kind is OutcomeKind.VALUE:
                print(len(outcome.value), outcome.value["x"])
            key: str = call.arguments["key"]
            print(key, call.arguments["name"].upper())
            self._host.soon(done, outcome)

        threading.Thread(target=work).start()
        return Begun()

    async def aclose(self) -> None: ...


@attrs.define
class Load(RunnableTask):
    size: int

    def run(self, context: TaskContext) -> dict[str, int]:
        day: str = context.params["day"]
        context.log.info("%s", day.upper())
        return {"x": self.size}


@task
async def greet(context: TaskContext, name: str) -> str:
    return f"hello {name}"


@task(backend="thread", timeout=3)
def join(parts: list[str]) -> str:
    return " and ".join(parts)


def of_references() -> dict[str, str]:
    return param("day") or result("load") or literal("a")


def of_definition(job: JobDefinition) -> str:
    comment: str = job.comment
    days: int = job.params["days"].default + 1
    return comment * days


async def of_remote_value(value: RemoteValue) -> int:
    return len(await value.fetch())


async def of_server(backend: OwnBackend) -> None:
    own: Backend = backend
    async with Server(backends={"own": own}) as server:
        server.register_tasks("app", [greet, join])
        server.register_tasks("app", [Load])
        run = await server.start("nightly", {"day": "today"})
        count: int = run.results["load"]["x"]
        print(count, run.result["x"], run.params["day"].upper(), run.as_dict()["state"].upper())
        read: int = server.registry.loads(b"")
        print(read)
    async with connect("server:8000") as client:
        reply = await client.call("start", job="nightly")
        print(reply["run"] + 1)


def of_sync_server() -> None:
    with SyncServer() as server:
        print(server.run("nightly").result["x"] + 1)

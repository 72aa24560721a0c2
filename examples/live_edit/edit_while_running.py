"""Edit a job's code while the job runs.

A run of `print` is paused half-way. Meanwhile the bundle is edited: first badly, then well. A second run gets the new
version; the first one is resumed and ends with the version with which it began.

    python examples/live_edit/edit_while_running.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from scattersphere import EventKind, JobDefinition, RunState, Server, result

if TYPE_CHECKING:
    from scattersphere import Event, Run

BUNDLE = Path(__file__).with_name("pages.py")
JOB = (
    JobDefinition.build("print")
    .task("heading", "pages.SetHeading")
    .task("proof", "pages.WaitForProof", args={"page": result("heading")})
    .task("footer", "pages.SetFooter", args={"page": result("proof")})
    .done()
)


async def main() -> None:
    """Run the example in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "pages.py"
        code.write_text(BUNDLE.read_text(encoding="utf-8"), encoding="utf-8")
        async with Server(bundle_roots=[folder]) as server:
            server.define(JOB)
            first = await start_and_hold(server)

            edit(code, "class SetHeading", "class class SetHeading")
            failed = await news(server, EventKind.BUNDLE_FAILED)
            print("a bad edit:", failed.message.splitlines()[0].replace(folder, "..."))

            edit(code, "class class SetHeading", "class SetHeading", monday="Tuesday")
            await news(server, EventKind.BUNDLE_LOADED)
            print("a good edit; now there are two versions, and a run holds the older one:")
            older = server.registry.bundles["pages"].versions
            print({f"version {version.number}": sorted(runs) for version, runs in older.items()})

            second = await (await server.start("print")).wait()
            print("the second run:", second.results["footer"], sep="\n")
            first.resume()
            await first.wait()
            print("the first run, which was resumed:", first.results["footer"], sep="\n")
            print("older versions now:", dict(server.registry.bundles["pages"].versions))


async def start_and_hold(server: Server) -> Run:
    """Start a run, and pause it once its first task has ended."""
    run = await server.start("print")
    async for event in run.events():
        if event.kind is EventKind.TASK_ENDED:
            run.pause()
            break
    async for _ in run.events():
        if run.state is RunState.PAUSED:
            break
    return run


def edit(file: Path, old: str, new: str, *, monday: str = "Monday") -> None:
    """Change a file as an editor does."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(old, new).replace("Monday", monday), encoding="utf-8")


async def news(server: Server, kind: EventKind) -> Event:
    """Wait for the next event of a kind: nobody has asked for a reload."""
    async for event in server.events(server.last_event):
        if event.kind is kind:
            return event
    raise RuntimeError("the server was closed")


if __name__ == "__main__":
    anyio.run(main)

"""For tests of watching: servers whose bundles are edited, and waiting for what that leads to."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from patience import PATIENCE

from scattersphere import EventKind, Server, WatchDelays

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

QUICK = WatchDelays(settle=0.05, vanish=0.2, poll=600.0)
"""So long a poll that whatever these tests see was heard of from the system."""


def task(value: object, more: str = "") -> str:
    """Return a module with one task, `Job`, that returns `value`."""
    return (
        f"from scattersphere import RunnableTask\n{more}\n"
        f"class Job(RunnableTask):\n    def run(self, context): return {value!r}\n"
    )


def replace(file: Path, text: str) -> None:
    """Write a file as editors do: beside the old one, then over it."""
    beside = file.with_name(f".{file.name}.edit")
    beside.write_text(text)
    beside.replace(file)


class Live:
    """A server, and what has happened to its bundles since."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.loads: list[str] = []
        self.failures: list[str] = []
        self._events = server.events(server.last_event)

    async def register(self, path: Path, *, watch: bool = True) -> None:
        """Register a bundle; what has happened so far is of no interest any more."""
        await self.server.register(path, watch=watch)
        self._events = self.server.events(self.server.last_event)
        self.loads.clear()

    def value(self, name: str = "a") -> Any:
        """Return what the task of a bundle's current version returns; None without one."""
        bundle = self.server.registry.bundles.get(name)
        if bundle is None or bundle.current is None:
            return None
        (found,) = bundle.tasks.values()
        return found.cls().run(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after each event of the server."""
        with anyio.fail_after(PATIENCE):
            while not true():
                event = await anext(self._events)
                if event.kind is EventKind.BUNDLE_LOADED:
                    self.loads.append(str(event.bundle))
                elif event.kind is EventKind.BUNDLE_FAILED:
                    self.failures.append(str(event.bundle))

    async def until_value(self, value: object, name: str = "a") -> None:
        """Wait until the current version of a bundle returns `value`."""
        await self.until(lambda: self.value(name) == value)

    async def until_settled(self, beside: Path) -> None:
        """Wait until the server has acted on all that was written before: a bundle dropped now comes later."""
        number = len(self.loads) + len(self.failures)
        marker = beside / f"marker{number}.py"
        marker.write_text(task("marker"))
        await self.server.register(marker)
        replace(marker, task("seen"))
        await self.until_value("seen", marker.stem)
        self.loads = [name for name in self.loads if name != marker.stem]


@asynccontextmanager
async def live(*roots: Path, watch: bool | WatchDelays = QUICK, **options: Any) -> AsyncIterator[Live]:
    """Open a server on bundle roots."""
    async with Server(bundle_roots=roots, watch=watch, grace=0.2, **options) as server:
        yield Live(server)


def same_times(file: Path, text: str) -> None:
    """Change a file's content and put its times back: only size, inode or change time can tell."""
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

"""Registering and deregistering at once, in any interleaving, end as documented, at the registry and at the Server."""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scattersphere import BundleLoadError, NoSuchBundleError, Server
from scattersphere.registry.registry import TaskRegistry

GATE = "scattersphere_test_gate"

CODE = f"""
import {GATE} as gate
from scattersphere import RunnableTask
gate.at_import()
VERSION = {{v}}
class Job(RunnableTask):
    def run(self, context): return VERSION
"""


class Gate:
    """Lets loads stand still at their import until they are let through."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.open = False

    def at_import(self) -> None:
        if not self.open:
            assert self.permits.acquire(timeout=60)

    def let_all(self) -> None:
        self.open = True
        self.permits.release(100)


class AtRegistry:
    """The registry alone."""

    def __init__(self) -> None:
        self.registry = TaskRegistry(collect_garbage=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.registry.aclose()

    async def register(self, path: Path) -> object:
        return await self.registry.register(path)

    async def reload(self, name: str) -> object:
        return await self.registry.reload(name)

    async def deregister(self, name: str) -> None:
        await self.registry.deregister(name)


class AtServer(AtRegistry):
    """A Server that watches what is registered."""

    def __init__(self) -> None:
        self.server = Server(watch=True)
        self.registry = self.server.registry

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.aclose()

    async def register(self, path: Path) -> object:
        return await self.server.register(path)

    async def reload(self, name: str) -> object:
        return await self.server.reload(name)

    async def deregister(self, name: str) -> None:
        await self.server.deregister(name)


OPERATIONS = st.lists(
    st.sampled_from(
        ["register", "register", "deregister", "deregister", "reload", "edit", "turn", "let one"]
    ),
    max_size=9,
)


def write(file: Path, text: str) -> None:
    """Write in one step: a look in between sees the one or the other."""
    beside = file.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(file)


async def carry_out(facade: type[AtRegistry], operations: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await carry_out_on(Path(folder) / "a.py", facade, operations)


async def carry_out_on(file: Path, facade: type[AtRegistry], operations: list[str]) -> None:  # noqa: C901 - one story
    gate = Gate()
    sys.modules[GATE] = SimpleNamespace(at_import=gate.at_import)  # type: ignore[assignment]
    version, last, refused = 0, None, []
    write(file, CODE.format(v=version))

    async def attempt(operation: str) -> None:
        try:
            await (at.register(file) if operation == "register" else getattr(at, operation)("a"))
        except (NoSuchBundleError, BundleLoadError) as error:
            refused.append((operation, error))

    async with facade() as at:
        async with anyio.create_task_group() as group:
            for operation in operations:
                if operation == "edit":
                    version += 1
                    write(file, CODE.format(v=version))
                elif operation == "let one":
                    gate.permits.release()
                elif operation != "turn":
                    group.start_soon(attempt, operation)
                    last = operation if operation != "reload" else last
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
            gate.let_all()
        there = "a" in at.registry.bundles
        assert there == (last == "register"), (operations, refused)
        for operation, error in refused:
            deregistered = "deregistered while it was loading" in str(error)
            assert deregistered or isinstance(error, NoSuchBundleError)
            assert deregistered or operation != "register"
        if there:
            assert at.registry.find("a.Job").bundle == "a"
            await at.deregister("a")
        assert not at.registry.tasks
        assert not at.registry._versions.catalog.kept()
        assert not at.registry._registering
        if isinstance(at, AtServer):
            assert not at.server._bundles._watched
        with pytest.raises(NoSuchBundleError):
            await at.deregister("a")
        await at.register(file)
        assert at.registry.find("a.Job").cls().run(None) == version
    del sys.modules[GATE]
    gc.collect()


@pytest.mark.parametrize("facade", [AtRegistry, AtServer])
@settings(max_examples=15, deadline=None)
@given(operations=OPERATIONS)
def test_the_last_one_that_was_asked_for_decides_and_nothing_is_left_over(facade, operations):
    asyncio.run(carry_out(facade, operations))


@pytest.mark.anyio
@pytest.mark.parametrize("facade", [AtRegistry, AtServer])
@pytest.mark.parametrize(
    "operations",
    [
        ["register", "turn", "deregister"],
        ["register", "deregister", "register"],
        ["register", "register", "turn", "deregister"],
        ["register", "let one", "turn", "edit", "reload", "deregister", "register"],
        ["register", "turn", "deregister", "deregister"],
    ],
)
async def test_a_load_under_way_comes_to_nothing_when_it_is_deregistered(facade, operations):
    await carry_out(facade, operations)

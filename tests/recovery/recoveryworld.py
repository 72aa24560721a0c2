"""Whole Servers on one `MemoryJournal`: crashed, opened again, and what their bodies did in all lives together."""

from __future__ import annotations

from collections import defaultdict

import anyio

from scattersphere import RunnableTask, Server


class World:
    """What bodies note, over all lives of a Server."""

    def __init__(self):
        self.begun = defaultdict(int)
        self.keys = set()
        self.gates = {}
        self.values = {}

    def gate(self, name):
        return self.gates.setdefault(name, anyio.Event())


WORLD = {"now": World()}


class Note(RunnableTask):
    """Notes that it has begun, waits for a gate if there is one, and returns its value."""

    name: str
    value: object = None
    gate: str = ""
    fails: int = 0

    async def run(self, context):
        world = WORLD["now"]
        world.begun[self.name] += 1
        world.keys.add(context.idempotency_key)
        if self.gate:
            await world.gate(self.gate).wait()
        if world.begun[self.name] <= self.fails:
            raise RuntimeError(f"failure {world.begun[self.name]}")
        return self.value


class Parent(RunnableTask):
    """Starts a child run in each of its attempts, and waits for it."""

    async def run(self, context):
        world = WORLD["now"]
        world.begun["parent"] += 1
        child = await context.start("child")
        await child.wait()
        return child.id


class Life:
    """One life of a Server on a journal, that can be crashed: nothing of it goes on."""

    def __init__(self, journal, *, classes=(Note, Parent), jobs=(), **options):
        self.journal = journal
        self.server = Server(journal=journal, watch=False, grace=1, **options)
        self.classes, self.jobs = classes, jobs

    async def __aenter__(self):
        await self.server.__aenter__()
        if self.classes:
            self.server.register_tasks("app", list(self.classes))
        for job in self.jobs:
            self.server.define(job)
        return self

    async def crash(self):
        """Kill it: return the journal as the next life finds it."""
        after = self.journal.crash()
        await self.server.aclose(finish=0)
        return after

    async def __aexit__(self, *exc):
        await self.server.aclose()

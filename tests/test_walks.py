"""How far a definition travels through the package before it is a job: each move is one more file to read."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from patience import PATIENCE

import scattersphere
from scattersphere import EventKind, JobDefinition, RunnableTask, Server, WatchDelays
from scattersphere.registry import loader
from scattersphere.remote import connect

ROOT = str(Path(scattersphere.__file__).parent) + os.sep
JOB = (
    '{"format":1,"name":"hi","params":{"who":"Ada"},"tasks":{"a":{"task":"Say","args":{"name":{"$param":"who"}}},'
    '"b":{"task":"Say","args":{"name":{"$result":"a"}}}}}'
)


class Quiet(RunnableTask):
    async def run(self, context):
        return 1


class Greet(RunnableTask):
    name: str

    async def run(self, context):
        context.log.info("greeting %s", self.name)
        await anyio.sleep(0.01)
        return self.name


class Say(RunnableTask):
    name: str

    async def run(self):
        return self.name


def walked(what, *args):
    """Return the files, functions, and moves between files of a call, as they were observed."""
    calls = []

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            calls.append((frame.f_code.co_filename, frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        what(*args)
    finally:
        sys.setprofile(before)
    moves = sum(one[0] != other[0] for one, other in pairwise(calls))
    return len({file for file, _ in calls}), len(set(calls)), moves


@contextmanager
def observed():
    """Give the calls of the package that the block causes, in order, of each thread that runs or begins meanwhile."""
    calls = defaultdict(list)

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            calls[threading.get_ident()].append(frame.f_code.co_filename.removeprefix(ROOT))

    before = sys.getprofile()
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def files_and_moves(calls):
    """Return the files and the moves between them of what this thread did."""
    walk = calls[threading.get_ident()]
    return len(set(walk)), sum(one != other for one, other in pairwise(walk))


def code(number):
    return (
        "from scattersphere import RunnableTask\n"
        f"class T(RunnableTask):\n    async def run(self):\n        return {number}\n"
    )


@pytest.mark.anyio
async def test_a_changed_file_becomes_a_version_on_a_short_way(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "IDLE", PATIENCE)  # old files are deleted when nothing is measured any more
    (tmp_path / "etl.py").write_text(code(1))
    with observed() as calls:
        async with Server(bundle_roots=[tmp_path], watch=False) as server:
            (tmp_path / "etl.py").write_text(code(20))
            for walk in list(calls.values()):
                walk.clear()
            await server.reload("etl")
            moves = sum(one != other for walk in list(calls.values()) for one, other in pairwise(walk))
            files = {file for walk in list(calls.values()) for file in walk}
            assert len(files) <= 30, sorted(files)
            assert moves <= 97, dict(calls)


@pytest.mark.anyio
async def test_a_changed_file_is_noticed_and_becomes_a_version_on_a_short_way(tmp_path, monkeypatch):
    """Nobody asks meanwhile: each `server.registry.bundles[...]` would be two moves more."""
    monkeypatch.setattr(loader, "IDLE", PATIENCE)
    (tmp_path / "etl.py").write_text(code(1))
    delays = WatchDelays(settle=0.01, vanish=PATIENCE, poll=0.5)
    walks = []
    with observed() as calls:
        async with Server(bundle_roots=[tmp_path], watch=delays) as server:
            events = server.events(server.last_event)
            # The shortest counts: beside busy processes a file is met half written, or the poll looks too.
            while len(walks) < 100 and not any(moves <= 118 and files <= 31 for moves, files in walks):
                for walk in list(calls.values()):
                    walk.clear()
                (tmp_path / "etl.py").write_text(code(20 + len(walks)))
                with anyio.fail_after(PATIENCE):
                    while (await anext(events)).kind is not EventKind.BUNDLE_LOADED:
                        pass
                files = {file for walk in list(calls.values()) for file in walk}
                moves = sum(one != other for walk in list(calls.values()) for one, other in pairwise(walk))
                walks.append((moves, len(files)))
    assert min(walks)[0] <= 118, walks
    assert min(files for _, files in walks) <= 31


@pytest.mark.anyio
async def test_a_definition_is_read_and_taken_up_on_a_short_way(tmp_path):
    (tmp_path / "hi.json").write_text(JOB)
    JobDefinition.loads(JOB)  # whatever is made once is there
    async with Server(watch=False) as server:
        server.register_tasks("app", [Say])
        for name, walk, most in (
            ("load", walked(JobDefinition.load, tmp_path / "hi.json"), (11, 55, 31)),
            # With the digest, which each `status` shows.
            ("define", walked(server.define, JobDefinition.load(tmp_path / "hi.json")), (14, 46, 24)),
        ):
            assert all(one <= limit for one, limit in zip(walk, most, strict=True)), (name, walk)


async def shortest(start):
    """Return the files and the moves of a run: the shortest of three, for the wall may have been set meanwhile."""
    walks = []
    for _ in range(3):
        with observed() as calls:
            await (await start()).wait()
        walks.append(files_and_moves(calls))
    return min(walks, key=lambda walk: walk[1])


@pytest.mark.anyio
async def test_a_task_is_on_a_short_way_from_its_start_to_its_end(anyio_backend_name):
    more = 0 if anyio_backend_name == "asyncio" else 15  # trio starts each body in a turn of its own
    async with Server(watch=False) as server:
        server.register_tasks("app", [Quiet, Greet])
        server.define(JobDefinition.loads(JOB.replace("Say", "Greet")))
        files, moves = await shortest(lambda: server.start_task("Quiet"))
        assert files <= 28
        assert moves <= 100 + more
        files, moves = await shortest(lambda: server.start("hi"))
        assert files <= 38
        assert moves <= 165 + more


@pytest.mark.anyio
async def test_a_status_is_on_a_short_way_from_the_socket_to_the_reply_the_first_one_too(tmp_path):
    tmp_path.chmod(0o700)
    async with Server(watch=False) as server:
        server.register_tasks("app", [Greet])
        place = tmp_path / "socket"
        async with server.listen(unix=place), connect(f"unix:{place}") as client:
            walks = []
            for number in range(3):  # the listener may have looked at its sessions meanwhile
                server.define(JobDefinition.loads(JOB.replace("Say", "Greet").replace("hi", f"hi{number}")))
                run = await server.start(f"hi{number}")
                await run.wait()
                await client.call("ping")  # meanwhile the run is put away
                with observed() as calls:
                    reply = await client.call("status", run=run.id)
                assert reply["definition"] == run.definition.shown_digest
                walks.append((*files_and_moves(calls), calls[threading.get_ident()]))
            files, moves, walk = min(walks, key=lambda each: each[1])
            assert files <= 22, sorted(set(walk))
            assert moves <= 70, walk

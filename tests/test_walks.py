"""How far a definition travels through the package before it is a job: each move is one more file to read."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import scattersphere
from scattersphere import JobDefinition, RunnableTask, Server

ROOT = str(Path(scattersphere.__file__).parent) + os.sep
JOB = (
    '{"format":1,"name":"hi","params":{"who":"Ada"},"tasks":{"a":{"task":"Say","args":{"name":{"$param":"who"}}},'
    '"b":{"task":"Say","args":{"name":{"$result":"a"}}}}}'
)


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


@pytest.mark.anyio
async def test_a_definition_is_read_and_taken_up_on_a_short_way(tmp_path):
    (tmp_path / "hi.json").write_text(JOB)
    JobDefinition.loads(JOB)  # whatever is made once is there
    async with Server(watch=False) as server:
        server.register_tasks("app", [Say])
        for name, walk, most in (
            ("load", walked(JobDefinition.load, tmp_path / "hi.json"), (11, 55, 31)),
            ("define", walked(server.define, JobDefinition.load(tmp_path / "hi.json")), (11, 29, 17)),
        ):
            assert all(one <= limit for one, limit in zip(walk, most, strict=True)), (name, walk)

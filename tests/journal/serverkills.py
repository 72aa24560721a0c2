"""A real Server, killed at its k-th commit, before and after it; a program of its own, as `killprogram.py` is.

`python serverkills.py FOLDER FIRST LAST SECOND`. The bodies write what they do to the world into a file. After each death
the journal is checked; in the end all runs have succeeded, and no run has charged under two draws.
"""

from __future__ import annotations

import collections
import json
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import anyio
from killprogram import in_child

from scattersphere import JobDefinition, RunnableTask, RunState, Server
from scattersphere.journal.check import check

RUNS, WIDTH = 2, 3
JOB = {
    "name": "pay",
    "max_runs": 2,
    "tasks": {
        "draw": {"task": "Draw"},
        "charge": {
            "task": "Charge",
            "map": {"order": {"$result": "draw"}},
            "retry": {"max_attempts": 2, "delay": 0},
        },
        "total": {"task": "Total", "args": {"orders": {"$result": "charge"}}},
        "tidy": {"task": "Tidy", "finally": True},
    },
}
EFFECTS: list[Any] = []


def effect(context: Any, what: str) -> str:
    EFFECTS[0].write(f"{context.run_id} {context.task} {context.index} {what}\n")
    return what


class Draw(RunnableTask):
    async def run(self, context: Any) -> list[str]:
        return [effect(context, uuid.uuid4().hex[:8])] * WIDTH


class Charge(RunnableTask):
    order: str

    async def run(self, context: Any) -> tuple[str, int]:
        effect(context, self.order)
        if context.index == 1 and context.attempt == 1:
            raise RuntimeError("the bank is asleep")
        return self.order, context.index


class Total(RunnableTask):
    orders: list[Any]

    async def run(self, context: Any) -> str:
        assert {type(order) for order in self.orders} == {tuple}
        assert len({order for order, _ in self.orders}) == 1
        return "x" * 70_000


class Tidy(RunnableTask):
    async def run(self, context: Any) -> None:
        effect(context, "tidy")


async def serve(path: str) -> None:
    """Carry on with all runs that there are, then start runs until there were enough."""
    async with Server(journal=path, watch=False) as server:
        server.register_tasks("app", [Draw, Charge, Total, Tidy])
        server.define(JobDefinition.loads(json.dumps(JOB)))
        runs = list(server.runs.values())
        runs += [await server.start("pay", key=f"order {number}") for number in range(RUNS)]
        for run in runs:
            await run.wait()


def carry_out(path: str, effects: str) -> None:
    EFFECTS[:] = [open(effects, "a", buffering=1)]  # noqa: PTH123, SIM115 - as long as the program
    anyio.run(serve, path)


def main(folder: Path, first: int, last: int, second: int) -> None:
    total: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    cases = [
        (k, j, before)
        for k in range(first, last + 1)
        for j in range(1, second + 1)
        for before in (True, False)
    ]
    for case in cases:
        k, j, before = case
        home = folder / f"{k}-{j}-{before}"
        home.mkdir(0o700)
        path, effects = str(home / "runs.db"), str(home / "effects")
        Path(effects).touch()
        for number in (k, j, 0):
            code = in_child(partial(carry_out, path, effects), number, before=before)
            total["kills" if code < 0 else "ends" if code == 0 else "errors"] += 1
            wrong += [f"{case}: {finding}" for finding in _findings(path)]
        wrong += [f"{case}: {words}" for words in _outcome(path, effects)]
    sys.stdout.write(json.dumps({"cases": len(cases), **total, "wrong": wrong[:20]}))


def _findings(path: str) -> list[Any]:
    return list(check(path)) if Path(path).exists() and Path(path).stat().st_size else []


def _outcome(path: str, effects: str) -> list[str]:
    """What is wrong in the end: with the states of the runs, and with what they did to the world."""
    from scattersphere.journal.place import JournalFiles
    from scattersphere.journal.sqlite import JournalReader

    reader = JournalReader(JournalFiles.at(path))
    found = reader.find_runs(job=None, states=None, since=None, before=None, limit=99)
    reader.close()
    states = [str(tuple(RunState)[stored.state.state]) for stored in found]
    wrong = [] if states == ["succeeded"] * RUNS else [f"the runs are {states}"]
    charged = collections.defaultdict(set)
    for line in Path(effects).read_text().splitlines():
        run, task, _, what = line.split()
        if task == "charge":
            charged[run].add(what)
    return wrong + [f"run {run} charged under {sorted(ids)}" for run, ids in charged.items() if len(ids) > 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

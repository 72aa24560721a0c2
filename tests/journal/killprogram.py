"""Real Servers over journals on disk, killed with `kill -9` at their k-th commit: a program of its own.

`python killprogram.py FOLDER WORLD FIRST LAST SECOND`: for each k from FIRST to LAST a journal is made by a child
that is killed at its k-th commit, once inside the transaction and once when it is durable and nobody was told; it is
taken up by one that is killed at one of its first SECOND commits, and by one that comes to the end. After each death the
journal is checked. The lives are on asyncio and on trio by turns. Bodies write what they do to the world into a file, with the run that they did it for.

- `pay`: draw a number -> charge with it (a map of 3, one of them fails at first) -> total -> tidy. No run may charge under
  two numbers.
- `careless`: the same, but outcomes are believed before they are committed, and commits are slow: that must be seen.
- `everything`: `pay` with a secret, a parent that starts two of them as its children, a bundle whose task executes in a
  process of its own, and `schedule`, all in one Server. It is not killed at a commit but at any moment: FIRST to LAST are
  seeds, and each world dies SECOND times before it comes to its end.
- `schedule`: a job that is started every hour and every half past, by a clock that the program sets; between its lives
  pass 90 minutes. Each full hour that was known of is started once, each half past at most once.

Prints how many deaths there were, and what was wrong.
"""

from __future__ import annotations

import collections
import datetime as dt
import importlib.util
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import attrs
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server
from scattersphere.journal.check import check
from scattersphere.journal.place import JournalFiles
from scattersphere.journal.sqlite import JournalReader
from scattersphere.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scattersphere.schedules.driver import Clocks

LOOPS = ["asyncio", *(["trio"] if importlib.util.find_spec("trio") else [])]
EFFECTS: list[Any] = []
LIFE = 2.0
"""Seconds within which a life of `everything` is killed: where it comes to its end before, it has ended."""


def effect(*words: object) -> None:
    EFFECTS[0].write(" ".join(map(str, words)) + "\n")


# ---- pay


CHARGED = threading.Event()
"""Whether a charge has begun since the last draw."""
CHARGED.set()


class Draw(RunnableTask):
    async def run(self, context: Any) -> list[str]:
        CHARGED.clear()
        return [uuid.uuid4().hex[:8]] * Pay.WIDTH


class Charge(RunnableTask):
    order: str

    async def run(self, context: Any) -> tuple[str, int]:
        effect("charge", context.run_id, self.order)
        CHARGED.set()
        if context.index == 1 and context.attempt == 1:
            raise RuntimeError("the bank is asleep")
        return self.order, context.index


class Total(RunnableTask):
    orders: list[Any]

    async def run(self, context: Any) -> str:
        assert {type(order) for order in self.orders} == {tuple}
        return "x" * 70_000


class Tidy(RunnableTask):
    async def run(self, context: Any) -> None:
        effect("tidy", context.run_id)


class Pay:
    """Runs that charge: what they go on from must be committed."""

    RUNS, WIDTH = 2, 3
    JOB: ClassVar[dict[str, Any]] = {
        "name": "pay",
        "max_runs": 1,
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
    durability = "strict"

    def prepare(self) -> None:
        """Nothing is different in this world."""

    async def serve(self, path: str) -> None:
        """Carry on with all runs that there are, then start runs until there were enough."""
        async with Server(journal=path, watch=False) as server:
            server.register_tasks("app", [Draw, Charge, Total, Tidy])
            server.define(JobDefinition.loads(json.dumps({**self.JOB, "durability": self.durability})))
            runs = list(server.runs.values())
            runs += [await server.start("pay", key=f"order {number}") for number in range(self.RUNS)]
            for run in runs:
                await run.wait()

    def died(self, path: str, lines: list[list[str]]) -> None:
        """Nothing need be known of a death."""

    def wrong(self, path: str, lines: list[list[str]]) -> list[str]:
        """Say what is wrong in the end: with the states of the runs, and with what they did to the world."""
        states = [state for state, _ in runs_of(path)]
        wrong = [] if states == ["succeeded"] * self.RUNS else [f"the runs are {states}"]
        wrong += charged_twice(lines)
        files = [*Path(f"{path}.values").iterdir()]
        return wrong + ([f"{len(files)} files of values"] if len(files) != 1 else [])


def charged_twice(lines: list[list[str]]) -> list[str]:
    """Say which runs have charged under several numbers."""
    charged = collections.defaultdict(set)
    for line in lines:
        if line[0] == "charge":
            charged[line[1]].add(line[2])
    return [f"run {run} charged under {sorted(ids)}" for run, ids in charged.items() if len(ids) > 1]


class Careless(Pay):
    """Outcomes are believed before they are committed."""

    durability = "relaxed"

    def prepare(self) -> None:
        """Let commits take so long that what was drawn is charged before it is durable."""
        commit = JournalWriter._commit

        def slowly(writer: Any, batch: Any) -> None:
            CHARGED.wait(PATIENCE)
            commit(writer, batch)

        JournalWriter._commit = slowly  # type: ignore[method-assign]


# ---- schedule


class Note(RunnableTask):
    at: str

    async def run(self, context: Any) -> None:
        effect("ran", context.run_id, self.at)


class ClockedServer(Server):
    """A Server whose wall is set by hand."""

    wall: dt.datetime

    def _clocks(self) -> Clocks:
        return attrs.evolve(super()._clocks(), wall=lambda: self.wall)

    def set_wall(self, wall: dt.datetime) -> None:
        effect("wall", wall.isoformat())
        self.wall = wall
        self._scheduler.driver.look()


class Schedules:
    """Runs that are started by the clock."""

    BEGAN = dt.datetime(2026, 11, 30, 0, 10, tzinfo=dt.UTC)
    DOWN = dt.timedelta(minutes=90)
    STEP = dt.timedelta(minutes=20)
    JOB: ClassVar[dict[str, Any]] = {
        "format": 2,
        "name": "job",
        "params": {"at": ""},
        "max_runs": 100,
        "tasks": {"note": {"task": "Note", "args": {"at": {"$param": "at"}}}},
        "schedules": {
            "hourly": {"every": 3600, "missed": "all", "params": {"at": {"$scheduled": "time"}}},
            "half": {
                "every": 3600,
                "start": "2026-11-30T00:30:00Z",
                "params": {"at": {"$scheduled": "time"}},
            },
        },
    }

    def __init__(self) -> None:
        self.known_from: dt.datetime | None = None
        """When the life began that first committed that there are schedules."""

    def prepare(self) -> None:
        """Nothing is different in this world."""

    async def serve(self, path: str) -> None:
        """Let two hours pass from where the clock stood, with a pause in between."""
        last = [line[1] for line in lines_of(EFFECTS[0].name) if line[0] == "wall"]
        server = ClockedServer(journal=path, watch=False)
        server.wall = dt.datetime.fromisoformat(last[-1]) + self.DOWN if last else self.BEGAN
        effect("wall", server.wall.isoformat())
        effect("life", server.wall.isoformat())
        async with server:
            server.register_tasks("app", [Note])
            server.define(JobDefinition.loads(json.dumps(self.JOB)))
            hourly = server.schedules["job", "hourly"]
            hourly.resume()
            for step in range(6):
                if step == 1:
                    hourly.pause()
                if step == 4:
                    hourly.resume()
                server.set_wall(server.wall + self.STEP)
                for run in list(server.runs.values()):
                    await run.wait()
                await server.committed()

    def died(self, path: str, lines: list[list[str]]) -> None:
        """Look whether it is durable by now that there are schedules."""
        lives = [line[1] for line in lines if line[0] == "life"]
        if self.known_from is None and rows_of(path, "SELECT count(*) FROM schedule WHERE name = 'hourly'"):
            self.known_from = dt.datetime.fromisoformat(lives[-1])

    def wrong(self, path: str, lines: list[list[str]]) -> list[str]:
        """Say what is wrong in the end: each full hour is to have had one run, each half past one at most."""
        runs = runs_of(path)
        wrong = [] if {state for state, _ in runs} == {"succeeded"} else [f"the runs are {runs}"]
        assert self.known_from is not None
        end = dt.datetime.fromisoformat([line[1] for line in lines if line[0] == "wall"][-1])
        hour = self.known_from.replace(minute=0) + dt.timedelta(hours=1)
        wanted = []
        while hour <= end:
            wanted.append(f"job/hourly/{hour:%Y-%m-%dT%H:%M:%S}Z")
            hour += dt.timedelta(hours=1)
        found = sorted(key for _, key in runs if key.startswith("job/hourly"))
        if found != wanted:
            wrong.append(f"started were {found} and not {wanted}")
        halves = [key for _, key in runs if key.startswith("job/half")]
        if len(halves) != len(set(halves)):
            wrong.append(f"twice: {halves}")
        ran = {tuple(line) for line in lines if line[0] == "ran"}
        return wrong + ([f"{len(ran)} runs had effects, of {len(runs)}"] if len(ran) != len(runs) else [])


# ---- everything


FAR = """
from scattersphere import RunnableTask

class Far(RunnableTask):
    token: str
    number: int

    def run(self, context):
        context.log.info("far away with %s", self.token)
        return {"pid": self.number, "of": (self.number, frozenset({self.number}))}
"""


class Look(RunnableTask):
    token: str
    far: list[Any]

    async def run(self, context: Any) -> None:
        assert self.token == Everything.SECRET
        assert [each["of"] for each in self.far] == [(number, frozenset({number})) for number in range(3)]


class Family(RunnableTask):
    async def run(self, context: Any) -> list[int]:
        children = [await context.start("pay") for _ in range(2)]
        effect("family", context.run_id, *(child.id for child in children))
        for child in children:
            await child.wait()
        return [child.id for child in children]


class Everything(Schedules):
    """Maps, retries, children, processes, bundles, secrets and schedules in one Server."""

    SECRET = "correct horse"
    TOKEN: ClassVar[dict[str, Any]] = {"secret": True, "env": "KILL_TOKEN"}
    FAR: ClassVar[dict[str, Any]] = {
        "format": 2,
        "name": "far",
        "params": {"token": TOKEN},
        "tasks": {
            "far": {
                "task": "far.Far",
                "backend": "process",
                "args": {"token": {"$param": "token"}},
                "map": {"number": [0, 1, 2]},
            },
            "look": {"task": "Look", "args": {"token": {"$param": "token"}, "far": {"$result": "far"}}},
        },
    }
    STARTED: ClassVar[list[str]] = ["family", "pay", "far"]

    def prepare(self) -> None:
        """Have the secret where it is read."""
        os.environ["KILL_TOKEN"] = self.SECRET

    async def serve(self, path: str) -> None:
        """Carry on, start what was not started yet, and let two hours pass meanwhile."""
        last = [line[1] for line in lines_of(EFFECTS[0].name) if line[0] == "wall"]
        code = Path(path).with_name("far.py")
        code.write_text(FAR)
        server = ClockedServer(journal=path, watch=False, processes=1, secret_env={"*": ["KILL_*"]})
        server.wall = dt.datetime.fromisoformat(last[-1]) + self.DOWN if last else self.BEGAN
        effect("wall", server.wall.isoformat())
        effect("life", server.wall.isoformat())
        async with server:
            server.register_tasks("app", [Note, Draw, Charge, Total, Tidy, Family, Look])
            await server.register(code)  # meanwhile a family goes on, and waits for the job of its children
            pay = {**Pay.JOB, "max_runs": 3}
            family = {"name": "family", "tasks": {"family": {"task": "Family"}}}
            for job in (pay, family, self.FAR, self.JOB):
                server.define(JobDefinition.loads(json.dumps(job)))
            runs = [await server.start(job, key=job) for job in self.STARTED]
            for _ in range(6):
                server.set_wall(server.wall + self.STEP)
                await anyio.lowlevel.checkpoint()
            for run in [*runs, *server.runs.values()]:
                await run.wait()
            await server.committed()

    def wrong(self, path: str, lines: list[list[str]]) -> list[str]:
        """Say what is wrong in the end, with each of what there is here."""
        states = collections.Counter(state for state, _ in runs_of(path))
        wrong = [] if set(states) == {"succeeded"} else [f"the runs are {states}"]
        of = {
            job: rows_of(path, f"SELECT count(*) FROM run WHERE job = '{job}'")
            for job in ("pay", "family", "far")
        }
        if of != {"pay": 3, "family": 1, "far": 1}:
            wrong.append(f"the runs are of {of}")
        children = {tuple(line[2:]) for line in lines if line[0] == "family"}
        if len(children) != 1:
            wrong.append(f"the children were {children}")
        wrong += charged_twice(lines)
        keys = [key for _, key in runs_of(path) if key.startswith("job/")]
        wrong += [f"twice: {key}" for key, times in collections.Counter(keys).items() if times > 1]
        for file in Path(path).parent.rglob("*"):
            if file.is_file() and self.SECRET.encode() in file.read_bytes():
                wrong.append(f"the secret is in {file.name}")
        return wrong


WORLDS: dict[str, Callable[[], Any]] = {
    "pay": Pay,
    "careless": Careless,
    "schedule": Schedules,
    "everything": Everything,
}


# ---- what is left behind


def lines_of(effects: str) -> list[list[str]]:
    """Return what was done to the world."""
    return [line.split() for line in Path(effects).read_text().splitlines()]


def runs_of(path: str) -> list[tuple[str, str]]:
    """Return state and key of the runs of a journal that nobody holds."""
    reader = JournalReader(JournalFiles.at(path))
    try:
        found = reader.find_runs(job=None, states=None, since=None, before=None, limit=999)
    finally:
        reader.close()
    return [(str(tuple(RunState)[stored.state.state]), stored.run.key or "") for stored in found]


def rows_of(path: str, query: str) -> int:
    """Return the one number that a query gives, 0 where there are no tables yet."""
    if not Path(path).exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


# ---- kills


def die_at(number: int, *, before: bool) -> None:
    """Have this process killed at a commit: inside the transaction, or when it is durable and nobody was told."""
    commit, count = JournalWriter._commit, 0

    def counted(self: Any, batch: Any) -> None:
        nonlocal count
        count += 1
        if count == number and before:
            self._connection.set_trace_callback(
                lambda sql: sql == "COMMIT" and os.kill(os.getpid(), signal.SIGKILL)
            )
        commit(self, batch)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    JournalWriter._commit = counted  # type: ignore[method-assign]


def die_after(seconds: float) -> None:
    """Have this process killed at some moment."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def in_child(work: Callable[[], object], prepare: Callable[[], object]) -> int:
    """Do the work in a child, which `prepare` may have killed; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare()
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not go on as its parent
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live(world: Any, loop: str, path: str, effects: str) -> None:
    """Live one life, to its end or its death."""
    EFFECTS[:] = [open(effects, "a", buffering=1)]  # noqa: PTH123, SIM115 - as long as the program
    world.prepare()
    anyio.run(world.serve, path, backend=loop)


def at_commits(first: int, last: int, second: int) -> Iterator[tuple[str, list[Callable[[], object]]]]:
    """Yield the cases of a world that is killed at its commits: what becomes of each life."""
    for k in range(first, last + 1):
        for j in range(1, second + 1):
            for before in (True, False):
                yield f"{k}-{j}-{before}", [partial(die_at, number, before=before) for number in (k, j)]


def at_any_moment(first: int, last: int, deaths: int) -> Iterator[tuple[str, list[Callable[[], object]]]]:
    """Yield the cases of a world that is killed at any moment: half of the deaths soon, within the recovery."""
    for seed in range(first, last + 1):
        chance = random.Random(seed)
        yield f"seed-{seed}", [partial(die_after, chance.random() ** 2 * LIFE) for _ in range(deaths)]


def main(folder: Path, name: str, first: int, last: int, second: int) -> None:
    """Try all cases, and print what came of them."""
    total: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for loop in LOOPS:  # imported once, and not by each child
        anyio.run(anyio.lowlevel.checkpoint, backend=loop)
    loops = itertools.cycle(LOOPS)
    for case, deaths in (at_any_moment if name == "everything" else at_commits)(first, last, second):
        total["cases"] += 1
        if len(deaths) % 2 == 0:
            next(loops)  # the next case begins on the other loop
        world, home = WORLDS[name](), folder / case
        home.mkdir(0o700)
        path, effects = str(home / "runs.db"), str(home / "effects")
        Path(effects).touch()
        for prepare in (*deaths, bool):
            code = in_child(partial(live, world, next(loops), path, effects), prepare)
            total["kills" if code == -signal.SIGKILL else "ends" if code == 0 else "errors"] += 1
            if rows_of(path, "PRAGMA user_version"):  # else it has died before there were tables
                wrong += [f"{case}: {finding}" for finding in check(path)]
            world.died(path, lines_of(effects))
        wrong += [f"{case}: {words}" for words in world.wrong(path, lines_of(effects))]
    sys.stdout.write(json.dumps({**total, "wrong": wrong[:20]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))

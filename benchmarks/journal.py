"""What a journal costs: a commit, a row, runs in a Server beside the same runs in memory, opening a large file.

Every figure stands beside one of the same process: the raw sqlite3 commit of the same row, the same run without a
journal. Times of commits are those of the wall, since they wait for the disk; those of runs are the processor's.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import itertools
import os
import queue
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from benchmarks.dispatch import NoOp, job
from benchmarks.graphs import SHAPES
from scattersphere import Server
from scattersphere.abc.journal import (
    DefinitionRow,
    LifeRow,
    MetaRow,
    MovesRow,
    RunRow,
    RunStateRow,
    StepRow,
    SuccessesRow,
    ValueForm,
)
from scattersphere.journal import SqliteJournal
from scattersphere.journal.schema import connect
from scattersphere.testing import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LINK = 1.3
"""Times a raw commit of the same row."""
AHEAD = 10.0
"""Times a link of a chain is what a step of DBOS takes."""
GOALS = {"relaxed": 1.6, "strict": 4.0}
"""Times the same run in memory, processor time."""
OPEN = 150.0
"""Milliseconds to open a journal of 100,000 runs of which 1,000 have not ended."""


class Loop:
    """Stands for the Server: calls back on this thread."""

    def __init__(self) -> None:
        self._soon: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back when somebody waits."""
        self._soon.put((callback, args))

    def journal_failed(self, words: str, *, lasting: bool) -> None:
        """End."""
        sys.exit(words)

    def journal_mended(self) -> None:
        """Cannot happen."""

    def commit(self, journal: SqliteJournal, *rows: Any) -> None:
        """Write a transaction and wait for it."""
        done: list[bool] = []
        journal.write(rows, lambda: done.append(True))
        while not done:
            callback, args = self._soon.get()
            callback(*args)


def step(run: int, unit: int) -> StepRow:
    return StepRow(run, unit, unit, None, 4, 1, 0, 1, 2, None, ValueForm.JSON, b"null", None)


def together(run: int, first: int, number: int) -> SuccessesRow:
    """Return the row of tasks that succeeded in one turn of the loop."""
    return SuccessesRow.of(run, 0, [(unit, 1.0, 2.0, "null") for unit in range(first, first + number)])


def begun(run: int) -> tuple[Any, ...]:
    head = RunRow(run, "bench", "d", (), "{}", (), 2, run)
    return DefinitionRow("d", "bench", "{}"), head, state(run)


def state(run: int, ended: int | None = None) -> RunStateRow:
    return RunStateRow(run, 1 if ended is None else 6, 0, 0, (), True, run, ended, 0, 0, 0)


def show(name: str, value: str, ratio: float | None = None, goal: float | None = None) -> None:
    beside = "" if ratio is None else f"  {ratio:5.2f} x"
    aim = "" if goal is None else f"  (goal {goal} x){'' if ratio is None or ratio <= goal else '  MISSED'}"
    print(f"  {name:44} {value:>12}{beside}{aim}", flush=True)


# ---- commits and rows


def commits(folder: Path, count: int) -> None:
    """One row a commit, one after the other: sqlite3 by hand and the journal take turns."""
    path, loop = folder / "commits.db", Loop()
    with closing(connect(folder / "raw.db")) as raw:
        raw.execute("PRAGMA foreign_keys = off")
        journal = SqliteJournal(path)
        journal.open(loop)
        loop.commit(journal, MetaRow(2, 1), LifeRow(1, 1, 1, "0", None), *begun(1))
        insert = f"INSERT INTO step VALUES({', '.join('?' * len(StepRow._fields))})"
        bare, ours = list[float](), list[float]()
        for unit in range(count):
            started = perf_counter()
            raw.execute("BEGIN IMMEDIATE")
            raw.execute(insert, step(1, unit))
            raw.execute("COMMIT")
            bare.append(perf_counter() - started)
            started = perf_counter()
            loop.commit(journal, step(1, unit))
            ours.append(perf_counter() - started)
        journal.close()
    base = statistics.median(bare)
    show("a raw sqlite3 commit of a row, FULL", f"{base * 1e3:.2f} ms")
    show("a commit of the journal, write to callback", f"{statistics.median(ours) * 1e3:.2f} ms",
         statistics.median(ours) / base, LINK)  # fmt: skip


def rows(folder: Path, count: int) -> None:
    """Rows that nobody waits for: the processor time of one, beside sqlite3's own."""
    loop, journal = Loop(), SqliteJournal(folder / "rows.db")
    journal.open(loop)
    loop.commit(journal, MetaRow(2, 1), LifeRow(1, 1, 1, "0", None), *begun(1))
    insert = f"INSERT INTO step VALUES({', '.join('?' * len(StepRow._fields))})"
    with closing(connect(folder / "rawrows.db")) as raw:
        raw.execute("PRAGMA foreign_keys = off")
        made = [step(1, unit) for unit in range(count)]
        started = process_time()
        for first in range(0, count, 100):
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(insert, made[first : first + 100])
            raw.execute("COMMIT")
        bare = (process_time() - started) / count * 1e6
    started = process_time()
    for unit in range(count - 1):
        journal.write([made[unit], MovesRow(1, unit, 1, 1, bytes(16))])
    loop.commit(journal, made[count - 1])
    ours = (process_time() - started) / count * 1e6
    show("a row of a step, sqlite3, a hundred a commit", f"{bare:.1f} us")
    show("a step and its moves, journal, as they come", f"{ours:.1f} us", ours / bare)
    started = process_time()
    for first in range(0, count, 100):
        loop.commit(journal, together(2, first, 100), MovesRow(2, 2 * first, 1, 1, bytes(1_600)))
    ours = (process_time() - started) / count * 1e6
    show("the same in one row, a hundred a commit", f"{ours:.1f} us", ours / bare)


# ---- a large file


def large(folder: Path, runs: int, unfinished: int) -> None:
    """Open a journal of many runs, and read those that have not ended."""
    path, loop = folder / "large.db", Loop()
    journal = SqliteJournal(path, keep=(10 * runs, 1e9))
    journal.open(loop)
    loop.commit(journal, MetaRow(runs + 1, 1), LifeRow(1, 1, 1, "0", None))
    for first in range(1, runs + 1, 1_000):
        block: list[Any] = []
        for run in range(first, min(first + 1_000, runs + 1)):
            ended = None if run > runs - unfinished else run + 5
            block += [*begun(run)[:2], state(run, ended), step(run, 0), together(run, 1, 2)]
            block.append(MovesRow(run, 0, 1, 1, bytes(80)))
        loop.commit(journal, *block)
    journal.close()
    taken, costs = list[float](), list[float]()
    for _ in range(5):
        journal = SqliteJournal(path, keep=(10 * runs, 1e9))
        started, cost = perf_counter(), process_time()
        found = journal.open(loop)
        read = journal.read_runs(found.unfinished)
        taken.append((perf_counter() - started) * 1e3)
        costs.append((process_time() - cost) * 1e3)
        assert len(read) == unfinished
        journal.close()
    middle = statistics.median(taken)
    missed = "" if middle <= OPEN else "  MISSED"
    size = path.stat().st_size / 2**20
    show(f"open {runs:,} runs ({size:.0f} MiB), read {unfinished:,}", f"{middle:.0f} ms")
    show("", f"{statistics.median(costs):.0f} ms of processor")
    print(f"  {'':44} (goal {OPEN:.0f} ms){missed}")


# ---- whole runs


async def whole_runs(folder: Path, size: int, shapes: list[str], repetitions: int) -> None:
    """The same no-op tasks in one run, in memory and with a journal, in turns; processor time, all threads.

    A `MemoryJournal` has no disk and no thread, but keeps a row for each task: dearer than SQLite's one for many.
    """
    for shape in shapes:
        graph = SHAPES[shape](size)
        contestants: dict[str, tuple[str, Callable[[], Any]] | None] = {"memory": None}
        for name in GOALS:
            contestants[name] = name, functools.partial(folder.joinpath, f"{name}.db")
            contestants[f"{name}, MemoryJournal"] = name, MemoryJournal
        times: dict[str, list[float]] = {name: [] for name in contestants}
        walls: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(repetitions + 1):
            for name, journal in contestants.items():
                cost, wall = await _one_run(graph, journal)
                if turn:
                    times[name].append(cost)
                    walls[name].append(wall)
        base = statistics.median(times["memory"])
        for name, taken in times.items():
            middle = statistics.median(taken)
            goal = GOALS.get(name) if shape != "chain" else None
            show(
                f"{shape}, {size:,} no-op tasks, {name}", f"{middle / size * 1e6:.1f} us", middle / base, goal
            )
            each = statistics.median(walls[name]) / size
            show("", f"{each * 1e6:.1f} us on the wall")


async def _one_run(graph: Any, journal: tuple[str, Callable[[], Any]] | None) -> tuple[float, float]:
    options: dict[str, Any] = {} if journal is None else {"journal": journal[1]()}
    async with Server(**options) as server:
        server.register_tasks("bench", [NoOp])
        definition = job("bench", graph, "no-op")
        if journal is not None:
            definition = definition.evolve(durability=journal[0])
        server.define(definition)
        await (await server.start("bench")).wait()  # compiles the plan
        gc.collect()  # a full collection takes half as long as the run, and would come in any of them by chance
        started, wall = process_time(), perf_counter()
        await (await server.start("bench")).wait()
        return process_time() - started, perf_counter() - wall


async def rates(folder: Path, count: int) -> None:
    """Runs of one task a second: one after the other, and a hundred at once."""
    async with Server(journal=folder / "rates.db", max_runs=100) as server:
        server.register_tasks("bench", [NoOp])
        server.define(job("bench", SHAPES["wide"](1), "no-op"))
        for at_once in (1, 100):
            started = perf_counter()

            async def runs(times: int) -> None:
                for _ in range(times):
                    await (await server.start("bench")).wait()

            async with anyio.create_task_group() as group:
                for _ in range(at_once):
                    group.start_soon(runs, count // at_once)
            taken = perf_counter() - started
            show(f"runs of one task, strict, {at_once} at once", f"{count / taken:.0f} a second")


DATABASE = "DBOS_SYSTEM_DATABASE_URL"
"""Names a PostgreSQL database that DBOS may make its tables in."""


def _raw_commits(connection: sqlite3.Connection, first: int, count: int) -> None:
    """Commit by hand what a link of a chain writes, as often."""
    insert = [
        f"INSERT INTO {table} VALUES({', '.join('?' * len(kind._fields))})"
        for table, kind in (("successes", SuccessesRow), ("moves", MovesRow))
    ]
    for unit in range(first, first + count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(insert[0], together(1, unit, 1))
        connection.execute(insert[1], MovesRow(1, 2 * unit, 1, 1, bytes(16)))
        connection.execute("COMMIT")


class Costs:
    """What pieces of a contestant took, each step of them: on the wall, of this process, of PostgreSQL's."""

    def __init__(self) -> None:
        self.walls, self.own, self.others = list[float](), list[float](), list[float]()

    async def take(
        self, steps: int, work: Callable[[], Awaitable[object]], others: Callable[[], float]
    ) -> None:
        """Do a piece of work, and note what a step of it took."""
        started, wall, before = process_time(), perf_counter(), others()
        await work()
        self.walls.append((perf_counter() - wall) / steps)
        self.own.append((process_time() - started) / steps)
        self.others.append((others() - before) / steps)

    @property
    def wall(self) -> float:
        """The median of the pieces, in seconds."""
        return statistics.median(self.walls)

    @property
    def processor(self) -> float:
        """The same of the processor, of all processes."""
        return statistics.median(map(sum, zip(self.own, self.others, strict=True)))

    def show(self, name: str, times: Costs | None = None, goal: float | None = None) -> None:
        """Print both, also as times another one's."""
        ratios = (None, None) if times is None else (self.wall / times.wall, self.processor / times.processor)
        show(name, f"{self.wall * 1e3:.3f} ms", ratios[0], goal)
        of = (
            "" if not any(self.others) else f", {statistics.median(self.others) * 1e3:.3f} of it PostgreSQL's"
        )
        show("", f"{self.processor * 1e3:.3f} ms", ratios[1])
        print(f"  {'':44} (of processor{of})")


COMMIT_BYTES = 2 * (4096 + 24)
"""Bytes of two pages in SQLite's log."""
LOG_BYTES = 1_100 * 4096
"""A little more than what SQLite's log comes to before it is begun anew."""
PIECES = 10
"""Pieces in which the contestants take turns: disks have good and bad seconds."""


async def durable(folder: Path, count: int) -> None:
    """Durable steps that do nothing: the disk alone, raw commits, links of a strict chain in turns, steps of DBOS.

    A step of a workflow is compared with a link of a chain, a workflow of one step with a run of one task. One after
    the other each waits for the disk, which no program can outrun: many at once, and a folder in memory
    (`--folder /dev/shm`, for PostgreSQL `synchronous_commit=off`), show what a step itself costs. DBOS comes last, for
    its threads take turns of the interpreter from whatever is measured beside them.
    """
    each = max(1, count // PIECES)
    with _disk(folder) as sync:

        async def syncs() -> None:
            for _ in range(each):
                sync()

        ours = await _ours(folder, each, syncs)
        ours.show()
        wide = await _wide(folder, count)
        with _dbos() as flows:
            if flows is not None:
                await _theirs(flows, each, syncs, ours)
                many = Costs()
                await many.take(count, lambda: flows.at_once(count), _postgres(flows))
                many.show("many at once, times a strict task of many", wide)
                _judge(many, wide)


class Ours(NamedTuple):
    """What one durable step of this library costs, and the least that it could."""

    disk: Costs
    raw: Costs
    handed: Costs
    link: Costs
    run: Costs

    def show(self) -> None:
        """Print all of them, each beside the one that it stands on."""
        self.disk.show("a write and a sync of a commit's bytes")
        self.raw.show("a raw commit of the rows of a link, FULL", self.disk)
        self.handed.show("the same in a thread, awaited by a loop", self.raw)
        self.link.show("a link of a chain, strict", self.raw, LINK)
        show("", "beside that thread", self.link.wall / self.handed.wall)
        show("of that without the disk's share", f"{(self.link.wall - self.disk.wall) * 1e3:.3f} ms")
        self.run.show("a run of one task, strict, times a link", self.link)


async def _ours(folder: Path, each: int, syncs: Callable[[], Awaitable[object]]) -> Ours:
    """Measure pieces of so many steps in turns."""
    found = Ours(Costs(), Costs(), Costs(), Costs(), Costs())
    raw_first, handed_first = itertools.count(0, each), itertools.count(0, each)
    with (
        closing(_warm(folder / "rawlinks.db")) as raw,
        closing(_warm(folder / "handed.db")) as handed,
        closing(_warm(folder / "chain.db")),
        ThreadPoolExecutor(1) as thread,
    ):

        async def commits_by_hand() -> None:
            _raw_commits(raw, next(raw_first), each)

        async def commits_in_a_thread() -> None:
            loop, first = asyncio.get_running_loop(), next(handed_first)
            for unit in range(first, first + each):
                await loop.run_in_executor(thread, _raw_commits, handed, unit, 1)

        async with Server(journal=folder / "chain.db") as server:
            server.register_tasks("bench", [NoOp])
            server.define(job("chain", SHAPES["chain"](each), "no-op"))
            server.define(job("one", SHAPES["wide"](1), "no-op"))

            async def links() -> None:
                await (await server.start("chain")).wait()

            async def runs() -> None:
                for _ in range(each):
                    await (await server.start("one")).wait()

            works = (syncs, commits_by_hand, commits_in_a_thread, links, runs)
            await in_turns(each, list(zip(found, works, strict=True)), lambda: 0.0)
    return found


def _warm(path: Path) -> sqlite3.Connection:
    """Open a journal whose log on disk is as long as it ever gets, as that of a Server is after some hundred commits.

    A commit that makes a file longer waits for the file system's own log too (ext4: 0.28 ms against 0.17). PostgreSQL
    writes into files that it has made before; so must those that are compared with it.
    """
    connection = connect(path)
    connection.execute("PRAGMA foreign_keys = off")
    connection.execute(
        "PRAGMA cache_size = 10"
    )  # pages: what does not fit goes into the log before the commit
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE long(bytes)")
    connection.execute("INSERT INTO long VALUES(zeroblob(?))", (LOG_BYTES,))
    connection.execute("ROLLBACK")
    connection.execute("PRAGMA cache_size = -2000")  # as it was
    return connection


async def _theirs(flows: Flows, each: int, syncs: Callable[[], Awaitable[object]], ours: Ours) -> None:
    """Measure and print the same of DBOS, and what the disk allows beside it."""
    disk, step, flow = Costs(), Costs(), Costs()

    async def whole() -> None:
        for _ in range(each):
            await flows.chain(1)

    contestants = [(disk, syncs), (step, lambda: flows.chain(each)), (flow, whole)]
    await in_turns(each, contestants, _postgres(flows))
    step.show("a step of DBOS on PostgreSQL, times a link", ours.link)
    _judge(step, ours.link)
    flow.show("a workflow of one step, times a run", ours.run)
    disk.show("the disk beside it")
    for name, least in (("what waits for this disk", disk), ("a raw commit of sqlite3", ours.raw)):
        print(f"  {'':44} ({name} is {step.wall / least.wall:.1f} x ahead of that step)")


@contextmanager
def _disk(folder: Path) -> Iterator[Callable[[], object]]:
    """Give what writes as much as a commit does, and has it on the disk: what no program can do without."""
    file = os.open(folder / "written", os.O_WRONLY | os.O_CREAT)
    os.write(file, bytes(LOG_BYTES))
    os.fsync(file)
    places = itertools.cycle(range(0, LOG_BYTES - COMMIT_BYTES, COMMIT_BYTES))

    def sync() -> None:
        os.pwrite(file, bytes(COMMIT_BYTES), next(places))
        os.fdatasync(file)

    try:
        yield sync
    finally:
        os.close(file)


async def in_turns(
    steps: int, contestants: list[tuple[Costs, Callable[[], Awaitable[object]]]], others: Callable[[], float]
) -> None:
    """Measure pieces of so many steps; the first ones, which compile plans and open connections, do not count."""
    for piece in range(PIECES + 1):
        for costs, work in contestants:
            await (costs if piece else Costs()).take(steps, work, others)


def _judge(theirs: Costs, ours: Costs) -> None:
    missed = "" if theirs.wall / ours.wall >= AHEAD else "  MISSED on the wall"
    missed += "" if theirs.processor / ours.processor >= AHEAD else "  MISSED of processor"
    print(f"  {'':44} (goal {AHEAD:.0f} x ahead){missed}")


class Flows(NamedTuple):
    """Workflows of DBOS with so many steps, and the processes of its database."""

    chain: Callable[[int], Awaitable[object]]
    at_once: Callable[[int], Awaitable[object]]
    processes: Callable[[], list[int]]


def _postgres(flows: Flows | None) -> Callable[[], float]:
    """Return what counts the processor time of PostgreSQL, in seconds."""
    known = set[int]()

    def count() -> float:
        if flows is None:
            return 0.0
        known.update(flows.processes() if not known else ())
        return sum(int(Path(f"/proc/{number}/schedstat").read_text().split()[0]) for number in known) / 1e9

    return count


@contextmanager
def _dbos() -> Iterator[Flows | None]:
    """Start DBOS where it is installed and has a database."""
    try:
        from dbos import DBOS  # noqa: PLC0415 - where it is installed
        from psycopg import connect as connect_postgres  # noqa: PLC0415 - comes with it
    except ImportError:
        print("  DBOS is not measured: it is not installed")
        yield None
        return
    if DATABASE not in os.environ:
        print(f"  DBOS is not measured: ${DATABASE} names no database of PostgreSQL")
        yield None
        return
    DBOS(config={"name": "bench", "system_database_url": os.environ[DATABASE], "log_level": "ERROR"})

    @DBOS.step()
    async def step(number: int) -> None:
        """Do nothing."""

    @DBOS.workflow()
    async def chain(steps: int) -> None:
        for number in range(steps):
            await step(number)

    @DBOS.workflow()
    async def at_once(steps: int) -> None:
        await asyncio.gather(*map(step, range(steps)))

    def processes() -> list[int]:
        with connect_postgres(os.environ[DATABASE]) as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            return [number for (number,) in rows]

    DBOS.launch()
    try:
        yield Flows(chain, at_once, processes)
    finally:
        DBOS.destroy()


async def _wide(folder: Path, count: int) -> Costs:
    """Return what each of many strict tasks costs that are ready at once."""
    costs = Costs()
    for turn in range(5):
        journal = functools.partial(folder.joinpath, f"wide{turn}.db")
        cost, wall = await _one_run(SHAPES["wide"](count), ("strict", journal))
        costs.own.append(cost / count)
        costs.walls.append(wall / count)
        costs.others.append(0.0)
    costs.show("each of many strict tasks at once")
    return costs


def parts(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "commits", functools.partial(commits, folder, args.commits)
    yield "rows", functools.partial(rows, folder, args.size)
    yield "open", functools.partial(large, folder, args.runs, args.runs // 100)
    shapes = args.shapes.split(",")
    yield "tasks", lambda: anyio.run(whole_runs, folder, args.size, shapes, args.repetitions)
    yield "rates", lambda: anyio.run(rates, folder, args.commits)
    yield "durable", lambda: anyio.run(durable, folder, args.commits)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", default="commits,rows,open,tasks,rates,durable", help="with commas")
    parser.add_argument("--commits", type=int, default=400)
    parser.add_argument("--size", type=int, default=10_000, help="tasks, rows")
    parser.add_argument("--runs", type=int, default=100_000, help="in the large file")
    parser.add_argument("--shapes", default="wide,layered,chain")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--folder", help="where the files are written; of /dev/shm no commit waits for a disk"
    )
    args = parser.parse_args()
    os.umask(0o077)  # a Server takes no journal that others may read
    folder = Path(tempfile.mkdtemp(prefix="journal-bench-", dir=args.folder))
    try:
        print(
            f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {time.strftime('%Y-%m-%d')}"
        )
        for name, part in parts(folder, args):
            if name in args.parts.split(","):
                print(name)
                part()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Worlds that are cut anywhere: a job drawn from a seed, Servers one after the other on one journal, and what must hold."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from scattersphere import (
    JobDefinition,
    JournalError,
    RetryPolicy,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    SuspendedError,
    TaskContext,
    TaskDefinition,
)
from scattersphere.engine.machine.codes import SUCCEEDED
from scattersphere.model.states import Durability, RunRestart, TaskRestart, TriggerRule
from scattersphere.testing import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW: dict[str, Lives] = {}
LONG = 100_000.0
SECONDS = (0.0, 0.5, 1.0, 3.0)
KINDS = ("value", "value", "value", "fails", "fails once", "child", "refuses", "holds")
END = tuple[str, int, float]
"""How a life ends ("crash", "crash untold" or "close"), after so many of its commits, and so many seconds later."""


class DoomedError(Exception):
    """What a body raises that is to fail."""


class Act(RunnableTask):
    """Does as its definition says, and notes all that it does over all lives."""

    name: str
    kind: str = "value"
    seconds: float = 0.0
    element: object = None
    nonce: str = ""

    async def run(self, context: TaskContext) -> object:
        lives = NOW["lives"]
        me = (context.run_id, context.task, context.index)
        assert me not in lives.executing, "two attempts at once"
        assert lives.nonces.setdefault(context.run_id, self.nonce) == self.nonce, "one number for two runs"
        assert lives.keys.setdefault(me, context.idempotency_key) == context.idempotency_key
        lives.runs_of[self.nonce].add(context.run_id)
        lives.executing.add(me)
        lives.begun[me] += 1
        lives.attempts[me].append(context.attempt)
        try:
            await self._take_time(context)
            if self.kind == "fails" or (self.kind == "fails once" and lives.begun[me] == 1):
                raise DoomedError(self.name)
            if self.kind == "child":
                child = await context.start("child", {"nonce": f"{self.nonce}/{self.name}/{context.index}"})
                return str((await child.wait()).state)
        finally:
            lives.executing.discard(me)
        return [self.name, self.element]

    async def _take_time(self, context: TaskContext) -> None:
        if self.kind == "refuses":
            end = anyio.current_time() + self.seconds
            while anyio.current_time() < end:
                with suppress(anyio.get_cancelled_exc_class()), anyio.CancelScope(shield=True):
                    await anyio.sleep(end - anyio.current_time())
        elif self.kind == "holds":  # at a pause it waits in the middle
            await anyio.sleep(self.seconds / 2)
            await context.checkpoint()
            await anyio.sleep(self.seconds / 2)
        else:
            await anyio.sleep(self.seconds)


CHILD = JobDefinition(
    name="child",
    params={"nonce": ""},
    tasks={"c": TaskDefinition(task="Act", args={"name": "c", "seconds": 1.0, "nonce": {"$param": "nonce"}})},
)


@attrs.frozen
class World:
    """A job, what is asked of its run in each life, and the Server's limits."""

    job: JobDefinition
    requests: tuple[tuple[float, str], ...]
    max_parallel: int | None


def draw_world(choose: random.Random, *, timely: bool) -> World:
    """Draw a world. Only where it is `timely` may the instants at which something happens decide how it ends."""
    verbs = ("pause", "resume", "stop", "cancel", "kill") if timely else ("pause", "resume")
    most = choose.choice((0, 0, 1, 3))
    return World(
        _draw_job(choose, timely=timely),
        tuple((choose.choice(SECONDS), choose.choice(verbs)) for _ in range(most)),
        choose.choice((None, 1, 2)),
    )


def _draw_job(choose: random.Random, *, timely: bool) -> JobDefinition:
    tasks: dict[str, TaskDefinition] = {}
    for number in range(choose.randint(1, 6)):
        tasks[f"t{number}"] = _draw_task(choose, number, tasks, timely=timely)
    return JobDefinition(
        name="job",
        params={"nonce": ""},
        tasks=tasks,
        max_parallel=choose.choice((None, None, 1, 2)),
        fail_fast=timely and choose.random() < 0.5,
        timeout=choose.choice((None, 5.25)) if timely else None,
        durability=choose.choice((Durability.STRICT, Durability.STRICT, Durability.RELAXED)),
        on_restart=RunRestart.CRASH if timely and choose.random() < 0.05 else RunRestart.RECOVER,
    )


def _draw_task(
    choose: random.Random, number: int, tasks: dict[str, TaskDefinition], *, timely: bool
) -> TaskDefinition:
    final = number > 1 and choose.random() < 0.17
    above = [name for name, task in tasks.items() if final or not task.finally_]
    upstreams = choose.sample(above, min(len(above), choose.choice((0, 1, 1, 2, 3))))
    mapped = choose.choice((None, None, None, 0, 1, 3))
    kind = choose.choice(KINDS)
    return TaskDefinition(
        task="Act",
        args={
            "name": f"t{number}",
            "kind": kind,
            "seconds": choose.choice(SECONDS),
            "nonce": {"$param": "nonce"},
        },
        map=None if mapped is None else {"element": {"$literal": list(range(mapped))}},
        depends_on=tuple(upstreams),
        finally_=final,
        trigger_rule=choose.choice((None, None, *TriggerRule)) if upstreams else None,
        retry=RetryPolicy(
            max_attempts=choose.choice((2, 3) if kind == "fails once" else (1, 1, 2)),
            delay=choose.choice((0, 2)),
            jitter=False,
        ),
        timeout=choose.choice((None, None, 2.25)) if kind not in {"child", "refuses"} or timely else None,
        max_parallel=choose.choice((None, 1, 2)),
        pool=choose.choice((None, None, "a")),
        needs=choose.choice(({}, {}, {"b": 1}, {"b": 2})),
        allow_failure=choose.random() < 0.2,
        keep_results=choose.random() < 0.8,
        on_restart=TaskRestart.FAIL if timely and choose.random() < 0.1 else TaskRestart.RETRY,
    )


def draw_ends(choose: random.Random, most: int) -> tuple[END, ...]:
    """Draw how the lives end but for the last."""
    hows = ("crash", "crash", "crash untold", "close")
    return tuple(
        (choose.choice(hows), choose.randint(1, 25), choose.choice(SECONDS))
        for _ in range(choose.randint(1, most))
    )


@attrs.frozen
class Outcome:
    """What the run of a world has come to."""

    state: RunState
    tasks: dict[str, str]
    results: dict[str, Any]
    crashes: list[str] = attrs.field(eq=False)
    """Why tasks have crashed."""


class Lives:
    """Servers one after the other on one journal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executing: set[Any] = set()
        self.begun: Counter[Any] = Counter()
        self.attempts: defaultdict[Any, list[int]] = defaultdict(list)
        """The numbers of the attempts of each unit, as their bodies were told them."""
        self.nonces: dict[int, str] = {}
        self.runs_of: defaultdict[str, set[int]] = defaultdict(set)
        self.keys: dict[Any, str] = {}
        self.done: defaultdict[Any, int] = defaultdict(int)
        self.started = 0
        self.number = 0
        """That of the run; it is started anew where a crash has taken it."""
        NOW["lives"] = self

    async def play(self, ends: Iterable[END]) -> Outcome:
        """Live one life for each of these ends, and one to the end; return what the run has come to."""
        journal = MemoryJournal()
        for how, commits, seconds in ends:
            journal = await self._live(journal, how, commits, seconds)
        async with self._server(journal) as server:
            self._define(server)
            run = server.runs[self.number] if self.number in server.runs else await self._start(server)
            while any(other.execution.waits_for for other in server.runs.values()):
                await anyio.lowlevel.checkpoint()
            for other in list(server.runs.values()):  # a crash may have taken that a child was resumed
                if other.state in {RunState.PAUSED, RunState.PAUSING}:
                    other.resume()
            await run.wait(LONG)
            crashes = [str(task.failure) for task in run.tasks.values() if str(task.state) == "crashed"]
            states = {name: str(task.state) for name, task in run.tasks.items()}
            outcome = Outcome(run.state, states, dict(run.results), crashes)
            for other in list(server.runs.values()):
                await other.wait(LONG)
        for me, times in self.done.items():
            assert self.begun[me] == times, f"{me} had succeeded, and has begun again"
        return outcome

    def _server(self, journal: MemoryJournal) -> Server:
        return Server(
            journal=journal,
            watch=False,
            grace=2,
            max_parallel=self.world.max_parallel,
            pools={"a": 1, "b": 2},
            load_timeout=1e9,
            history=(1000, float("inf")),
            blocked_after=None,
        )

    def _define(self, server: Server) -> None:
        server.register_tasks("app", [Act])
        server.define(self.world.job)
        server.define(CHILD)

    async def _start(self, server: Server) -> Any:
        self.started += 1
        return await server.start("job", {"nonce": str(self.started)})

    async def _go(self, server: Server, over: anyio.Event) -> None:
        """Start the run, or go on with it, and ask of it what is to be asked."""
        with suppress(SuspendedError, JournalError):
            if self.number not in server.runs:
                self.number = (await self._start(server)).id
            run = server.runs[self.number]
            for delay, verb in self.world.requests:
                await anyio.sleep(delay)
                with suppress(RunStateError):
                    getattr(run, verb)()
            await run.wait()
        over.set()

    async def _live(self, journal: MemoryJournal, how: str, commits: int, seconds: float) -> MemoryJournal:
        """Live until so many commits were made, and then so many seconds; then crash, or close."""
        cut, crashed = anyio.Event(), list[MemoryJournal]()
        async with self._server(journal) as server:
            self._define(server)
            begun = journal.commits
            if how == "crash":
                journal.crash_after = begun + commits

            def committed(_: object) -> None:
                if journal.commits >= begun + commits:
                    cut.set()
                    if how == "crash untold" and not crashed:
                        crashed.append(journal.crash())  # durable, and who wrote it is not told

            journal.on_commit = committed

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._go, server, cut)
                with anyio.move_on_after(60):
                    await cut.wait()
                await anyio.sleep(seconds)
                journal.on_commit = None
                if how == "close":
                    await server.aclose(finish=seconds)
                else:
                    after = crashed[0] if crashed else journal.crash()
                    self._note_done(after)
                    await server.aclose(finish=0)
                tasks.cancel_scope.cancel()
        if how == "close":
            after = journal.again()
            self._note_done(after)
        assert not self.executing, "something executes after the end of its Server"
        return after

    def _note_done(self, journal: MemoryJournal) -> None:
        """Remember how often each unit had begun that is committed as succeeded: it is not to begin again."""
        for stored in journal.read_runs(found.run.id for found in journal.find_runs(limit=1_000_000)):
            names = list(JobDefinition.loads(journal.read_definition(stored.run.definition)).tasks)
            for step in stored.steps:
                if step.state == SUCCEEDED:
                    me = (stored.run.id, names[step.task], step.place)
                    self.done[me] = max(self.done[me], self.begun[me])


ENDED = {"succeeded", "failed", "skipped", "upstream_failed", "cancelled", "crashed"}


async def check_same_end(world: World, whole: Outcome, ends: tuple[END, ...]) -> None:
    """Cut a world, crash or close it, restore it and go on: it comes to the same end as if it had not been cut."""
    lives = Lives(world)
    cut = await lives.play(ends)
    assert not cut.crashes
    assert cut == whole
    shared = {nonce: ids for nonce, ids in lives.runs_of.items() if len(ids) > 1}
    assert not shared, "one request, and two runs"


async def check_ends(world: World, ends: tuple[END, ...]) -> None:
    """Whatever is asked of a run, and however often it is cut: it ends, and nothing is done twice."""
    lives = Lives(world)
    outcome = await lives.play(ends)
    assert outcome.state.ended
    assert all(task in ENDED for task in outcome.tasks.values()), outcome.tasks
    if any(how == "close" for how, *_ in ends):
        return  # what a close has interrupted is begun again, whatever `on_restart` says
    for (_, task, index), numbers in lives.attempts.items():
        definition = world.job.tasks.get(task)
        if definition is not None and definition.on_restart is TaskRestart.FAIL:
            assert len(set(numbers)) == len(numbers), f"{task}[{index}] was begun twice as one attempt"


SAME_END, TIMELY = 4, 2
"""How many cuts of each seed are to come to the same end, and how many are only to come to one."""
CUTS = SAME_END + TIMELY


async def check_seed(seed: int) -> None:
    """Check a world of each kind that a seed gives, cut in some ways."""
    choose = random.Random(seed)
    world = draw_world(choose, timely=False)
    whole = await Lives(world).play(())
    for _ in range(SAME_END):
        await check_same_end(world, whole, draw_ends(choose, 2))
    world = draw_world(choose, timely=True)
    for _ in range(TIMELY):
        await check_ends(world, draw_ends(choose, 4))

"""A world for whole Servers in virtual time: jobs whose bodies do as they are told, and note all they see.

What `machine_world` checks of the pure machine is checked here of what a host sees: events, states, results,
bodies that really execute, versions of code. A case is data that Hypothesis draws; the same data make the
same case, down to the order in which trio lets its tasks run.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from typing import ClassVar

import anyio
import attrs
import pytest
from hypothesis import strategies as st

from scattersphere import (
    EventKind,
    JobDefinition,
    RetryPolicy,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    TaskDefinition,
    TaskState,
)
from scattersphere.model.states import TASK_MOVES, TriggerRule

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

LIVE = {
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.PAUSING,
    RunState.PAUSED,
    RunState.STOPPING,
    RunState.CANCELLING,
}
ALLOWED = {(move.source, move.target) for move in TASK_MOVES}
FINALLY_LIMIT = 60
NOTES: dict[str, World] = {}


class DoomedError(Exception):
    """What a body raises when its script says so."""


async def act(task, context):
    """Carry out the script of a task, and note it in the world."""
    world = NOTES[context.params["world"]]
    me = (context.run_id, context.task, context.index)
    assert me not in world.executing, "two live attempts"
    world.executing[me] = context.attempt
    world.versions[context.run_id].add(task.VERSION)
    world.check_places(me)
    held, begun = 0.0, anyio.current_time()
    try:
        for word, seconds in task.script:
            if word == "sleep":
                await anyio.sleep(seconds)
            elif word == "checkpoint":
                held -= anyio.current_time()
                try:
                    await context.checkpoint()
                finally:
                    held += anyio.current_time()
            elif word == "refuse":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(seconds)
            elif (word == "fail first" and context.attempt == 1) or word == "fail":
                raise DoomedError(str(me))
        return [*me, context.attempt]
    finally:
        del world.executing[me]
        world.check_time(me, task.script, anyio.current_time() - begun - held)


def version(number):
    """Make the classes anew: what a reload does, without the files."""

    class Act(RunnableTask):
        script: object = ()
        element: object = None
        VERSION: ClassVar[int] = number

        async def run(self, context):
            return await act(self, context)

    Act.__qualname__ = "Act"
    return Act


# ---- cases


@attrs.frozen
class Step:
    """After `delay` seconds do `verb` to the run numbered `target` (of those that there are)."""

    delay: float
    verb: str
    target: int
    grace: float = 1.0


@attrs.frozen
class Case:
    jobs: tuple[JobDefinition, ...]
    steps: tuple[Step, ...]
    limit: int | None
    max_runs: int | None
    pools: dict[str, int]
    seed: int


SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5])
SCRIPTS = st.lists(
    st.tuples(st.sampled_from(["sleep", "sleep", "checkpoint", "refuse", "fail first", "fail"]), SECONDS),
    max_size=4,
)


@st.composite
def jobs(draw, number):
    tasks: dict[str, TaskDefinition] = {}
    for index in range(draw(st.integers(1, 5))):
        final = index > 0 and draw(st.integers(0, 5)) == 0
        above = [name for name, task in tasks.items() if final or not task.finally_]
        upstreams = draw(st.lists(st.sampled_from(above), unique=True, max_size=2)) if above else []
        rules = [None, None, *TriggerRule] if upstreams else [None]
        mapped = draw(st.sampled_from([None, None, None, 0, 1, 3]))
        tasks[f"t{index}"] = TaskDefinition(
            task="Act",
            args={"script": {"$literal": [list(step) for step in draw(SCRIPTS)]}},
            map=None if mapped is None else {"element": {"$literal": list(range(mapped))}},
            depends_on=tuple(upstreams),
            finally_=final,
            trigger_rule=draw(st.sampled_from(rules)),
            retry=RetryPolicy(
                max_attempts=draw(st.sampled_from([1, 1, 2, 3])),
                delay=draw(st.sampled_from([0, 1])),
                jitter=False,
            ),
            timeout=draw(st.sampled_from([None, None, 1.25, 2.75, 4.25])),
            max_parallel=draw(st.sampled_from([None, 1, 2])),
            pool=draw(st.sampled_from([None, None, "a", "b"])),
            priority=draw(st.sampled_from([0, 0, 3])),
            allow_failure=draw(st.integers(0, 4)) == 0,
            keep_results=draw(st.integers(0, 4)) > 0,
        )
    return JobDefinition(
        name=f"job{number}",
        params={"world": ""},
        tasks=tasks,
        max_parallel=draw(st.sampled_from([None, None, 1, 2])),
        fail_fast=draw(st.integers(0, 5)) == 0,
        timeout=draw(st.sampled_from([None, None, None, 4.25])),
    )


@st.composite
def steps(draw):
    verbs = (
        ["start"] * 4
        + ["pause"] * 3
        + ["resume"] * 3
        + ["hold"] * 3
        + ["reload"] * 2
        + ["stop", "cancel", "kill"]
    )
    return Step(
        draw(st.sampled_from([0.0, 0.0, 0.25, 0.75, 1.5])),
        draw(st.sampled_from(verbs)),
        draw(st.integers(0, 5)),
        draw(st.sampled_from([0.0, 0.5, 3.0])),
    )


@st.composite
def cases(draw, max_steps=14):
    return Case(
        tuple(draw(jobs(number)) for number in range(draw(st.integers(1, 2)))),
        tuple(draw(st.lists(steps(), max_size=max_steps))),
        draw(st.sampled_from([None, None, 1, 2, 4])),
        draw(st.sampled_from([None, None, 1, 2])),
        {"a": draw(st.integers(1, 2)), "b": 1},
        draw(st.integers(0, 1 << 16)),
    )


def play(case, world=None):
    """Play a case on trio with virtual time, and check every promise."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio._core._run._r.seed(case.seed)
    trio.run((world or World)(case).live, clock=trio.testing.MockClock(autojump_threshold=0))


class World:
    """One Server, its runs, and what the bodies noted."""

    def __init__(self, case):
        self.case = case
        self.executing: dict[tuple, int] = {}
        self.versions: dict[int, set[int]] = defaultdict(set)
        self.current = 0
        self.expected: dict[int, int] = {}
        self.took: dict[tuple, float] = {}
        """How long the last attempt of each body executed; the time in which it was held does not count."""
        self.ends_by: dict[int, float] = {}

    async def live(self):
        case = self.case
        NOTES["it"] = self
        async with Server(
            max_parallel=case.limit,
            max_runs=case.max_runs,
            pools=case.pools,
            grace=2,
            history=(1000, math.inf),  # an age would be a deadline, to which the clock jumps during a load
            load_timeout=1e9,
        ) as self.server:
            await self.reload()
            for job in case.jobs:
                self.server.define(self.adapt(job))
            for step in (Step(0, "start", 0), *case.steps, Step(0, "start", 1)):
                await anyio.sleep(step.delay)
                await self.take(step)
                self.check_all()
            await self.finish()
        self.check_left_over()

    # ---- acting

    def adapt(self, job):
        return job

    async def reload(self):
        """Replace the code: runs that live keep what they began with."""
        if self.current:
            await self.server.deregister("app")
        self.current += 1
        self.server.register_tasks("app", [version(self.current)])

    async def take(self, step):
        runs = list(self.server.runs.values())
        if step.verb == "reload":
            await self.reload()
        elif step.verb == "start":
            job = self.case.jobs[step.target % len(self.case.jobs)]
            run = await self.server.start(job.name, {"world": "it"})
            assert all(run.id > other.id for other in runs)
            self.expected[run.id] = self.current
        elif step.verb == "hold":
            for verb in ("pause", "resume"):
                self.request(runs[step.target % len(runs)], attrs.evolve(step, verb=verb))
                await anyio.sleep(0.75)
        else:
            self.request(runs[step.target % len(runs)], step)

    def request(self, run, step):
        before = run.state
        refused = before not in LIVE or (
            step.verb in {"pause", "resume"} and before in {RunState.STOPPING, RunState.CANCELLING}
        )
        ask = (
            functools.partial(run.cancel, grace=step.grace)
            if step.verb == "cancel"
            else getattr(run, step.verb)
        )
        if refused:
            with pytest.raises(RunStateError, match=str(before)):
                ask()
            return
        ask()
        if step.verb in {"cancel", "kill"}:
            grace = step.grace if step.verb == "cancel" else 0.05
            by = (
                anyio.current_time() + grace + (FINALLY_LIMIT + 2 * grace if step.verb == "cancel" else 0) + 1
            )
            self.ends_by[run.id] = min(by, self.ends_by.get(run.id, by))

    async def finish(self):
        for run in self.server.runs.values():
            if run.state in {RunState.PAUSING, RunState.PAUSED}:
                run.resume()
        for run in self.server.runs.values():
            await run.wait(10_000)
            self.check_end(run)
            told = [event async for event in run.events()]
            self.check_events(run, told)
            self.check_results(run)
        final = {run.id: self.snapshot(run) for run in self.server.runs.values()}
        await anyio.sleep(100)  # whoever refuses has ended by then
        assert not self.executing
        assert not self.server.stuck
        assert {run.id: self.snapshot(run) for run in self.server.runs.values()} == final
        self.check_places_are_free()

    # ---- checks

    def snapshot(self, run):
        tasks = {name: (task.state, task.attempts, task.ended_at) for name, task in run.tasks.items()}
        return run.state, run.reason, run.ended_at, tasks, repr(dict(run.results)), run.last_event

    def check_all(self):
        for run in self.server.runs.values():
            if run.state not in LIVE:
                self.check_end(run)

    def attempts(self):
        executor = self.server._executor
        live = [attempt for execution in executor.running.values() for attempt in execution.live.values()]
        return {*live, *executor.stuck}

    def check_places(self, me):
        """As a body begins: no limit is exceeded; refusers keep the places of server and pools only."""
        self.took.pop(me, None)  # that of an earlier attempt
        stuck = self.server._executor.stuck
        own, shared = Counter(), Counter()
        for attempt in self.attempts():
            shared[None] += 1
            shared[attempt.planned.definition.pool or "none"] += 1
            if attempt not in stuck:
                own[attempt.run_id] += 1
                own[attempt.run_id, attempt.task] += 1
        assert self.case.limit is None or shared[None] <= self.case.limit
        assert all(shared[pool] <= size for pool, size in self.case.pools.items())
        definition = self.server.runs[me[0]].plan.definition
        task = definition.tasks[me[1]]
        assert definition.max_parallel is None or own[me[0]] <= definition.max_parallel
        assert task.max_parallel is None or own[me[0], me[1]] <= task.max_parallel
        assert self.executing[me] <= task.retry.max_attempts

    def check_time(self, me, script, took):
        """As a body ends: it has not executed longer than it may, unless it refused."""
        self.took[me] = took
        limit = self.server.runs[me[0]].plan.definition.tasks[me[1]].timeout
        assert limit is None or any(word == "refuse" for word, _ in script) or took < limit + 0.001

    def check_failures(self, run):
        """Who is said to have taken too long has had all its time; of one that was cancelled an earlier attempt had."""
        for name, task in run.tasks.items():
            if task.state is not TaskState.FAILED or task.failure is None:
                continue
            if task.failure.message.startswith("took longer than"):
                limit = run.plan.definition.tasks[name].timeout
                assert self.took.get((run.id, name, None), limit) > limit - 0.001

    def check_end(self, run):
        """When a run says that it has ended, nothing of it executes but what it names as stuck."""
        if run.state in LIVE:
            raise AssertionError(f"run {run.id} is still {run.state}")
        named = {label.partition("/")[2] for label in run.stuck}
        for run_id, task, index in self.executing:
            assert run_id != run.id or (task if index is None else f"{task}[{index}]") in named
        assert all(task.state.ended for task in run.tasks.values())
        assert self.versions[run.id] <= {self.expected[run.id]}, "a run has seen two versions"
        self.check_failures(run)
        by = self.ends_by.pop(run.id, None)
        if by is not None:
            assert (run.ended_at - run.created_at).total_seconds() + self.born(run) <= by, "ended too late"

    def born(self, run):
        return run._execution.created_at

    def check_events(self, run, told):
        """Numbers without gaps, moves of the table, one end for each, and nothing after the end."""
        assert [event.seq for event in told] == list(range(1, len(told) + 1))
        states: dict[tuple, TaskState] = {}
        held = ending = False
        for event in told[:-1]:
            assert event.kind is not EventKind.RUN_ENDED
            if event.state is None:  # a line of the log
                continue
            if event.task is None:
                held = event.state in {RunState.PAUSING, RunState.PAUSED}
                ending = ending or event.state in {RunState.STOPPING, RunState.CANCELLING}
                continue
            who = (event.task, event.index)
            before = states.get(who, TaskState.PENDING)
            assert (before, event.state) in ALLOWED, (who, before, event.state)
            states[who] = event.state
            definition = run.plan.definition.tasks[event.task]
            if event.state is TaskState.RUNNING:
                assert not held, "started while paused"
                assert definition.finally_ or not ending, "started after a stop or cancel"
                if not (definition.map is not None and event.index is None):
                    assert event.attempt <= definition.retry.max_attempts
        assert told[-1].kind is EventKind.RUN_ENDED
        for name, task in run.tasks.items():
            assert states[name, None] is task.state

    def check_results(self, run):
        """A result is what the last attempt returned, and is there unless it was to be dropped."""
        for name, task in run.tasks.items():
            definition = run.plan.definition.tasks[name]
            kept = definition.keep_results and task.state is TaskState.SUCCEEDED
            assert not kept or name in run.results
            assert name not in run.results or task.state is TaskState.SUCCEEDED
            if kept and definition.map is None:
                assert run.results[name] == [run.id, name, None, task.attempts]
            elif kept:
                width = len(definition.map["element"]["$literal"])
                assert [value[2] for value in run.results[name]] == list(range(width))
        failed = any(
            task.state in {TaskState.FAILED, TaskState.CRASHED}
            and not run.plan.definition.tasks[name].allow_failure
            for name, task in run.tasks.items()
        )
        if run.state is RunState.SUCCEEDED:
            assert not failed
        if run.state is RunState.FAILED:
            assert failed or "timeout" in run.reason

    def check_places_are_free(self):
        executor = self.server._executor
        assert self.case.limit is None or executor.dispatcher.free == self.case.limit
        for name, limit in executor.dispatcher.pools.items():
            assert limit.free == limit.size, name
            assert not limit.waiting
        assert not executor.dispatcher.ready
        assert not executor.running
        assert executor.admission.queued == 0
        assert not any(bundle.runs for bundle in self.server.registry.bundles.values())

    def check_left_over(self):
        assert not self.executing
        assert all(run.state not in LIVE for run in self.server.runs.values())


SOURCE = """from typing import ClassVar

import driver_world
from scattersphere import RunnableTask


class Act(RunnableTask):
    script: object = ()
    element: object = None
    VERSION: ClassVar[int] = {number}

    async def run(self, context):
        return await driver_world.act(self, context)
"""


class FileWorld(World):
    """The same with a bundle on disk. Virtual time goes on while it loads."""

    def __init__(self, case, folder):
        super().__init__(case)
        self.path = folder / "app.py"

    def adapt(self, job):
        return job.evolve(tasks={name: task.evolve(task="app.Act") for name, task in job.tasks.items()})

    async def reload(self):
        self.current += 1
        self.path.write_text(SOURCE.format(number=self.current))
        if self.current == 1:
            await self.server.register(self.path, watch=False)
        else:
            await self.server.reload("app")

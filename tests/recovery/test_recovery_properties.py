"""Cut any run anywhere, crash or close, open again, go on: the same end. Whole Servers in virtual time."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio
import attrs
import pytest
from budgets import budget
from hypothesis import given
from hypothesis import strategies as st
from virtualtime import run_virtually

from scattersphere import (
    JobDefinition,
    JournalError,
    RetryPolicy,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    SuspendedError,
    TaskDefinition,
)
from scattersphere.engine.machine.codes import SUCCEEDED
from scattersphere.model.states import TriggerRule
from scattersphere.testing import MemoryJournal

NOW: dict[str, Lives] = {}
LONG = 100_000.0
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 3.0])
KINDS = ("value", "value", "value", "fails", "fails once", "child", "refuses")


class DoomedError(Exception):
    """What a body raises that is to fail."""


class Act(RunnableTask):
    """Does as its definition says, and notes all that it does over all lives."""

    name: str
    kind: str = "value"
    seconds: float = 0.0
    element: object = None
    nonce: str = ""

    async def run(self, context):
        lives = NOW["lives"]
        me = (context.run_id, context.task, context.index)
        assert me not in lives.executing, "two attempts at once"
        assert lives.nonces.setdefault(context.run_id, self.nonce) == self.nonce, "one number for two runs"
        assert lives.keys.setdefault(me, context.idempotency_key) == context.idempotency_key
        lives.executing.add(me)
        lives.begun[me] += 1
        try:
            if self.kind == "refuses":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.seconds)
            else:
                await anyio.sleep(self.seconds)
            if self.kind == "fails" or (self.kind == "fails once" and lives.begun[me] == 1):
                raise DoomedError(self.name)
            if self.kind == "child":
                child = await context.start("child", {"nonce": f"{self.nonce}/{self.name}/{context.index}"})
                return str((await child.wait()).state)
        finally:
            lives.executing.discard(me)
        return [self.name, self.element]


@attrs.frozen
class Case:
    """A job, and how each life of the Server ends but for the last."""

    job: JobDefinition
    ends: tuple[tuple[str, int, float], ...]
    """("crash" or "close", after so many commits of that life, so many seconds later)."""
    requests: tuple[tuple[float, str], ...]
    max_parallel: int | None


@st.composite
def jobs(draw, *, timely):
    tasks = {}
    for number in range(draw(st.integers(1, 6))):
        final = number > 1 and draw(st.integers(0, 5)) == 0
        above = [name for name, task in tasks.items() if final or not task.finally_]
        upstreams = draw(st.lists(st.sampled_from(above), unique=True, max_size=3)) if above else []
        mapped = draw(st.sampled_from([None, None, None, 0, 1, 3]))
        kind = draw(st.sampled_from(KINDS))
        tasks[f"t{number}"] = TaskDefinition(
            task="Act",
            args={
                "name": f"t{number}",
                "kind": kind,
                "seconds": draw(SECONDS),
                "nonce": {"$param": "nonce"},
            },
            map=None if mapped is None else {"element": {"$literal": list(range(mapped))}},
            depends_on=tuple(upstreams),
            finally_=final,
            trigger_rule=draw(st.sampled_from([None, None, *TriggerRule])) if upstreams else None,
            retry=RetryPolicy(
                max_attempts=draw(st.sampled_from([2, 3] if kind == "fails once" else [1, 1, 2])),
                delay=draw(st.sampled_from([0, 2])),
                jitter=False,
            ),
            timeout=draw(st.sampled_from([None, None, 2.25])) if kind not in {"child", "refuses"} else None,
            max_parallel=draw(st.sampled_from([None, 1, 2])),
            pool=draw(st.sampled_from([None, None, "a"])),
            allow_failure=draw(st.integers(0, 4)) == 0,
            keep_results=draw(st.integers(0, 4)) > 0,
        )
    return JobDefinition(
        name="job",
        params={"nonce": ""},
        tasks=tasks,
        max_parallel=draw(st.sampled_from([None, None, 1, 2])),
        fail_fast=timely and draw(st.booleans()),
        timeout=draw(st.sampled_from([None, 5.25])) if timely else None,
    )


CHILD = JobDefinition(
    name="child",
    params={"nonce": ""},
    tasks={"c": TaskDefinition(task="Act", args={"name": "c", "seconds": 1.0, "nonce": {"$param": "nonce"}})},
)
ENDS = st.tuples(st.sampled_from(["crash", "crash", "close"]), st.integers(1, 25), SECONDS)


@st.composite
def cases(draw, *, timely=False, most=2):
    return Case(
        draw(jobs(timely=timely)),
        tuple(draw(st.lists(ENDS, min_size=1, max_size=most))),
        tuple(
            draw(
                st.lists(
                    st.tuples(SECONDS, st.sampled_from(["pause", "resume", "stop", "cancel", "kill"])),
                    max_size=3,
                )
            )
            if timely
            else ()
        ),
        draw(st.sampled_from([None, 1, 2])),
    )


class Lives:
    """Servers one after the other on one journal."""

    def __init__(self, case):
        self.case = case
        self.executing, self.begun = set(), Counter()
        self.nonces, self.keys = {}, {}
        self.done = defaultdict(int)
        self.started = 0
        NOW["lives"] = self

    async def play(self, ends):
        """Live one life for each of these ends, and one to the end; return what the run has come to."""
        journal, number = MemoryJournal(), None
        for how, commits, seconds in ends:
            journal, number = await self.live(journal, number, how, commits, seconds)
        server = self.server(journal)
        async with server:
            self.define(server)
            if number is None or number not in server.runs:
                run = await self.start(server)
            else:
                run = server.runs[number]
            while run.execution.waits_for:
                await anyio.lowlevel.checkpoint()
            if run.state in {RunState.PAUSED, RunState.PAUSING}:
                run.resume()
            await run.wait(LONG)
            end = (run.state, {name: str(task.state) for name, task in run.tasks.items()}, dict(run.results))
            crashes = [str(task.failure) for task in run.tasks.values() if str(task.state) == "crashed"]
            await self.all_over(server)
        self.check_done()
        return end, crashes

    def server(self, journal):
        return Server(
            journal=journal, watch=False, grace=2, max_parallel=self.case.max_parallel, pools={"a": 1}, load_timeout=1e9,
            history=(1000, float("inf")),
        )  # fmt: skip

    def define(self, server):
        server.register_tasks("app", [Act])
        server.define(self.case.job)
        server.define(CHILD)

    async def start(self, server):
        self.started += 1
        return await server.start("job", {"nonce": str(self.started)})

    async def live(self, journal, number, how, commits, seconds):  # noqa: C901 - a life, from its start to its end
        """Live until so many commits were made, and then so many seconds; then crash, or close."""
        cut = anyio.Event()
        server = self.server(journal)
        async with server:
            self.define(server)
            if how == "crash":
                journal.crash_after = journal.commits + commits

            def committed(_):
                if journal.commits >= begun + commits:
                    cut.set()

            begun, journal.on_commit = journal.commits, committed

            async def go():
                nonlocal number
                try:
                    if number is None or number not in server.runs:
                        number = (await self.start(server)).id
                    run = server.runs[number]
                    for delay, verb in self.case.requests:
                        await anyio.sleep(delay)
                        try:
                            getattr(run, verb)()
                        except RunStateError:
                            continue
                    await run.wait()
                except (SuspendedError, JournalError):
                    pass
                cut.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go)
                with anyio.move_on_after(60):
                    await cut.wait()
                await anyio.sleep(seconds)
                journal.on_commit = None
                if how == "crash":
                    after = journal.crash()
                    self.note_done(after)
                    await server.aclose(finish=0)
                else:
                    await server.aclose(finish=seconds)
                tasks.cancel_scope.cancel()
        if how == "close":
            after = journal.again()
            self.note_done(after)
        assert not self.executing, "something executes after the end of its Server"
        return after, number

    async def all_over(self, server):
        for run in list(server.runs.values()):
            await run.wait(LONG)

    def note_done(self, journal):
        """Remember how often each unit had begun that is committed as succeeded: it is not to begin again."""
        state = journal._tables
        for run, steps in state.steps.items():
            definition = JobDefinition.loads(state.definitions[state.runs[run].definition].text)
            names = list(definition.tasks)
            for step in steps.values():
                me = (run, names[step.task], step.place)
                if step.state == SUCCEEDED:
                    self.done[me] = max(self.done[me], self.begun[me])

    def check_done(self):
        for me, times in self.done.items():
            assert self.begun[me] == times, f"{me} had succeeded, and has begun again"


def ended_as(case, ends, backend):
    async def main():
        return await Lives(case).play(ends)

    return run_virtually(backend, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(case=cases())
@budget(400)
def test_cut_anywhere_restored_and_gone_on_a_run_comes_to_the_same_end(backend, case):
    whole, _ = ended_as(case, (), backend)
    cut, crashes = ended_as(case, case.ends, backend)
    assert not crashes
    assert cut == whole


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(case=cases(timely=True, most=4))
@budget(400)
def test_whatever_is_asked_and_however_often_it_is_cut_each_run_ends_and_nothing_is_done_twice(backend, case):
    (state, tasks, _), _ = ended_as(case, case.ends, backend)
    assert state.ended
    assert all(task in ENDED for task in tasks.values()), tasks


ENDED = {"succeeded", "failed", "skipped", "upstream_failed", "cancelled", "crashed"}

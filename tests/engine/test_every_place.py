"""A defect put in at any place where the engine serves a run ends that run, in the logs with its traceback, and no other."""

import logging
import time

import anyio
import places
import pytest
from patience import PATIENCE

from scattersphere import (
    EngineError,
    JobDefinition,
    RetryPolicy,
    RunnableTask,
    RunState,
    RunStateError,
    Server,
    TaskDefinition,
)
from scattersphere.engine.holds import Holds
from scattersphere.engine.machine.run import RunMachine
from scattersphere.testing import MemoryJournal


class Work(RunnableTask):
    """Suspend, log, report, and fail at the first attempt."""

    item: int = 0

    async def run(self, context):
        await anyio.lowlevel.checkpoint()
        context.log.info("here")
        context.progress(1, 2)
        if context.attempt == 1:
            raise OSError("first")
        return [1, 2, 3]


class InThread(RunnableTask):
    """Return in a thread."""

    item: int = 0

    def run(self, context):
        context.log.info("here")
        context.progress(1, 2)
        return 1


class Long(RunnableTask):
    """Take longer than its timeout."""

    async def run(self, context):
        await anyio.sleep_forever()


class Held(RunnableTask):
    """Go from checkpoint to checkpoint, and say so."""

    async def run(self, context):
        context.on_pause(lambda: None, lambda: None)
        context.on_cancel(lambda: None)
        while True:
            await context.checkpoint()
            await anyio.sleep(0.001)


class HeldInThread(RunnableTask):
    """Do the same in a thread."""

    def run(self, context):
        while True:
            context.check()
            time.sleep(0.001)


class Refuses(RunnableTask):
    """Take longer to end than its grace."""

    async def run(self, context):
        try:
            while True:
                await context.checkpoint()
                await anyio.sleep(0.001)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)


class Parent(RunnableTask):
    """Start a child and wait for it."""

    async def run(self, context):
        child = await context.start("kid")
        await child.wait()


TRIES = RetryPolicy(max_attempts=2, delay=0.001, jitter=False)
BASIC = {
    "a": TaskDefinition(task="Work", retry=TRIES, pool="db"),
    "m": TaskDefinition(task="Work", retry=TRIES, depends_on=("a",), map={"item": [1, 2]}),
    "t": TaskDefinition(task="InThread", depends_on=("a",), pool="db", map={"item": {"$result": "a"}}),
    "l": TaskDefinition(task="Long", timeout=0.01, allow_failure=True),
    "s": TaskDefinition(task="Work", run_if=False),
    "f": TaskDefinition(task="Work", retry=TRIES, finally_=True),
}
ASKED = {
    "h": TaskDefinition(task="Held", timeout=PATIENCE),
    "t": TaskDefinition(task="HeldInThread", timeout=PATIENCE),
    "r": TaskDefinition(task="Refuses"),
    "p": TaskDefinition(task="Parent", pool="db"),
    "q": TaskDefinition(task="Work", pool="db"),
    "f": TaskDefinition(task="Work", retry=TRIES, finally_=True),
}


async def let_it_end(run, told):
    """Ask nothing of it."""


async def ask_all(run, told):
    """Pause, resume and cancel it."""

    async def until(*states):
        while run.state not in states and not run.state.ended:  # noqa: ASYNC110 - nothing is set where something is broken
            await anyio.sleep(0.001)

    while any(not run.tasks[name].attempts for name in "htrp") and not run.state.ended:  # noqa: ASYNC110 - nothing is set where something is broken
        await anyio.sleep(0.001)
    for verb, state in (
        (run.pause, RunState.PAUSED),
        (run.resume, RunState.RUNNING),
        (run.cancel, RunState.CANCELLED),
    ):
        try:
            verb()
        except RunStateError:
            pass
        except (EngineError, ZeroDivisionError) as exc:
            told.append(exc)
        else:
            await until(state)
    if not run.state.ended:
        run.cancel()


SCENARIOS = {
    "basic": (BASIC, let_it_end, None),
    "asked": (ASKED, ask_all, None),
    "journal": (BASIC, let_it_end, MemoryJournal),
    "strict": (BASIC, let_it_end, MemoryJournal),
}


def run_of(thing):
    """Return the number of the run that an argument of the engine's belongs to, if it does to one."""
    for name in ("execution", "_execution", "_run", "record", "_record"):
        inner = getattr(thing, name, None)
        if inner is not None and not callable(inner):
            thing = inner
            break
    return getattr(thing, "run_id", None) or (getattr(thing, "id", None) if hasattr(thing, "plan") else None)


class Defect:
    """Raises in the place of a function as often as it may, where that serves the second run."""

    def __init__(self, owner, name, times, server):
        self.real, self.name, self.left, self.server = getattr(owner, name), name, times, server
        self.hits = []
        self.execution = None

    def __call__(self, *args, **kwargs):
        if self.is_of_victim(args):
            self.hits.append(self.execution is not None and self.execution.state.ended)
            if self.left:
                self.left -= 1
                raise ZeroDivisionError(f"a defect in {self.name}")
        return self.real(*args, **kwargs)

    def is_of_victim(self, args):
        if self.execution is None:
            self.execution = self.server._executor.running.get(2)
        own = self.execution
        if own is not None and any(thing is own.journal for thing in args):
            return True
        return next(filter(None, map(run_of, args)), None) == 2  # a child's starter comes after the child


async def carry_out(scenario, owner, name, times, monkeypatch):
    """Let the second of three runs come to a defect; return it, the defect, and what was told to who asked."""
    tasks, acts, journal = SCENARIOS[scenario]
    told = []
    more = {} if journal is None else {"journal": journal()}
    async with Server(max_parallel=12, max_runs=4, pools={"db": 1}, grace=0.05, **more) as server:
        server.register_tasks("app", [Work, InThread, Long, Held, HeldInThread, Refuses, Parent])
        durability = (
            {} if journal is None else {"durability": "strict" if scenario == "strict" else "relaxed"}
        )
        server.define(JobDefinition(name="victim", tasks=tasks, max_parallel=5, **durability))
        server.define(JobDefinition(name="other", tasks=BASIC, max_parallel=2, **durability))
        server.define(JobDefinition(name="kid", tasks={"h": TaskDefinition(task="Held")}))
        before = await server.start("other")
        defect = Defect(owner, name, times, server)

        def broken(*args, **kwargs):
            return defect(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)
        victim = None
        with anyio.fail_after(PATIENCE):
            try:
                victim = await server.start("victim")
            except Exception as exc:  # noqa: BLE001 - told to who asked
                told.append(exc)
            after = await server.start("other")
            async with anyio.create_task_group() as readers:
                if victim is not None:
                    defect.execution = victim._execution
                    readers.start_soon(read, victim, told)
                    await acts(victim, told)
                    await victim.wait()
                await before.wait()
                await after.wait()
                readers.cancel_scope.cancel()
        monkeypatch.undo()
        assert before.succeeded, before.explain()
        assert after.succeeded, after.explain()
        assert (await (await server.start("other")).wait(PATIENCE)).succeeded
        with anyio.fail_after(PATIENCE):
            while server.stuck or server._executor.running:  # noqa: ASYNC110 - nothing is set where something is broken
                await anyio.sleep(0.001)
        assert server._executor.dispatcher.free == 12
        assert server._executor.dispatcher.pools["db"].free == 1
        assert server._executor.admission._inside == {}
    return victim, defect, told


async def read(run, told):
    """Read the events, so that there is somebody to be woken."""
    try:
        async for _ in run.events():
            pass
    except ZeroDivisionError as exc:
        told.append(exc)


@pytest.fixture
def logged():
    """What the engine logs, with tracebacks."""
    texts, handler = [], logging.Handler()
    handler.emit = lambda record: texts.append(handler.format(record))
    logger = logging.getLogger("scattersphere.engine")
    logger.addHandler(handler)
    logger.propagate = False
    yield texts
    logger.propagate = True
    logger.removeHandler(handler)


TIMES = [(1, "asyncio"), (1000, "trio")]


@pytest.mark.parametrize(
    ("owner", "name"), places.places(), ids=lambda value: getattr(value, "__name__", value)
)
@pytest.mark.parametrize(("times", "anyio_backend"), TIMES, ids=["once-asyncio", "always-trio"])
@pytest.mark.anyio
async def test_a_defect_ends_the_run_that_is_served_and_no_other(owner, name, times, monkeypatch, logged):
    for scenario in SCENARIOS:
        once = name == "interrupt" or places.stands_in(places.ONCE, owner, name)
        victim, defect, told = await carry_out(scenario, owner, name, 1 if once else times, monkeypatch)
        if defect.hits:
            break
    assert defect.hits, "no scenario comes to it: write one, or name it in one of the tables with its reason"
    assert told or any("a defect in" in text for text in logged)
    if not defect.hits[0] and logged:  # what comes after the end changes it no more
        assert victim.state is RunState.CRASHED, victim.explain()
        lines = "\n".join(line.message for line in victim.logs())
        assert name in places.LOGGING or "ZeroDivisionError: a defect in" in lines


def test_the_tables_of_what_is_no_such_place_are_true():
    assert places.wrong_names() == []


@pytest.mark.anyio
async def test_a_defect_while_a_run_is_suspended_ends_that_run_and_not_the_closing(monkeypatch, logged):
    journal, real = MemoryJournal(), RunMachine.suspend
    async with Server(journal=journal) as server:
        server.register_tasks("app", [Held])
        server.define(JobDefinition(name="kid", tasks={"h": TaskDefinition(task="Held")}))
        runs = [await server.start("kid") for _ in range(3)]
        broken = lambda machine: 1 / 0 if machine.record.run_id == 2 else real(machine)  # noqa: E731
        monkeypatch.setattr(RunMachine, "suspend", broken)
    monkeypatch.undo()
    assert "ZeroDivisionError" in "\n".join(logged)
    assert [run.state is RunState.CRASHED for run in runs] == [False, True, False]


@pytest.mark.anyio
async def test_a_defect_in_holding_a_parent_ends_the_parent_though_it_was_a_child_that_paused(monkeypatch):
    async with Server() as server:
        server.register_tasks("app", [Held, Parent])
        server.define(JobDefinition(name="kid", tasks={"h": TaskDefinition(task="Held")}))
        server.define(JobDefinition(name="victim", tasks={"p": TaskDefinition(task="Parent")}))
        run = await server.start("victim")
        with anyio.fail_after(PATIENCE):
            while len(server.runs) < 2 or not server.runs[2].tasks["h"].attempts:  # noqa: ASYNC110 - a child's start is no event of its parent
                await anyio.sleep(0.001)
            kid = server.runs[2]
            real = Holds.waits_for_runs
            broken = lambda holds, attempt: 1 / 0 if kid.state is RunState.PAUSED else real(holds, attempt)  # noqa: E731
            monkeypatch.setattr(Holds, "waits_for_runs", broken)
            run.pause()
            await run.wait()
            monkeypatch.undo()
            await kid.wait()
    assert run.state is RunState.CRASHED
    assert kid.state is not RunState.CRASHED

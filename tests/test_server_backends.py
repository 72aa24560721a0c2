"""A host adds places of its own for tasks to run in, and uses them like ours."""

import threading
from typing import ClassVar

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState, UnresolvedError
from scattersphere.abc import Outcome, OutcomeKind
from scattersphere.engine.backends.threads import ThreadBackend

pytestmark = pytest.mark.anyio


class Where(RunnableTask):
    """Say in which thread it runs, and wait until it is told to go on."""

    def run(self, context):
        context.check()
        return threading.current_thread().name


class Obey(RunnableTask):
    """Go on until cancelled."""

    def run(self, context):
        context.progress(1)
        while True:
            context.check()


class Gpu(ThreadBackend):
    """Counts what is done with it."""

    def __init__(self, limit=2):
        super().__init__(limit)
        self.opened = self.closed = self.executing = self.most = 0

    async def open(self, host):
        self.opened += 1
        await super().open(host)

    async def aclose(self):
        self.closed += 1
        await super().aclose()

    def start(self, call, done):
        self.executing += 1
        self.most = max(self.most, self.executing)

        def ended(outcome):
            self.executing -= 1
            done(outcome)

        return super().start(call, ended)


def job(name, **task):
    return JobDefinition.build(name.lower()).task("t", name, backend="gpu", **task).done()


async def test_a_backend_of_the_host_is_opened_used_within_its_limit_and_closed():
    gpu = Gpu()
    async with Server(backends={"gpu": gpu}) as server:
        assert (gpu.opened, gpu.closed) == (1, 0)
        server.register_tasks("app", [Where])
        server.define(job("Where"))
        runs = [await server.start("where") for _ in range(20)]
        for run in runs:
            await run.wait(PATIENCE)
            assert run.succeeded
            assert run.results["t"].startswith("scattersphere-thread")
        assert gpu.most == 2
    assert (gpu.opened, gpu.closed) == (1, 1)


async def test_a_cancel_reaches_a_body_in_it():
    async with Server(backends={"gpu": Gpu()}, grace=5) as server:
        server.register_tasks("app", [Obey])
        server.define(job("Obey"))
        run = await server.start("obey")
        async for event in run.events():
            if event.done:
                break
        run.cancel()
        assert (await run.wait(PATIENCE)).state is RunState.CANCELLED


async def test_a_definition_that_names_none_of_the_backends_is_refused_with_their_names():
    async with Server(backends={"gpu": Gpu()}) as server:
        server.register_tasks("app", [Where])
        server.define(JobDefinition.build("j").task("t", "Where", backend="gpuu").done())
        with pytest.raises(UnresolvedError, match=r'"gpuu".*did you mean "gpu"'):
            await server.start("j")


class Broken:
    """Fails in every way that a backend can."""

    limit = None

    def __init__(self, how):
        self.how = how

    async def open(self, host):
        self.host = host
        if self.how == "open":
            raise OSError("no such device")

    def start(self, call, done):
        if self.how == "start":
            raise SystemExit("the device fell off")
        if self.how == "twice":
            for _ in range(2):
                self.host.soon(done, Outcome(OutcomeKind.VALUE, 1))
        if self.how == "died":
            self.host.soon(done, Outcome(OutcomeKind.DIED, error=ChildProcessError("the device fell off")))
        return self

    def cancel(self):
        """Do nothing."""

    kill = cancel

    def where(self):
        return "somewhere"

    async def aclose(self):
        """Do nothing."""


async def test_a_backend_whose_start_raises_fails_the_attempt_only():
    async with Server(backends={"gpu": Broken("start")}) as server:
        server.register_tasks("app", [Where])
        server.define(job("Where"))
        run = await (await server.start("where")).wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.FAILED
        assert "the device fell off" in run.explain()
        assert (await (await server.start_task("Where")).wait(PATIENCE)).succeeded


async def test_what_died_in_it_is_a_crash_with_its_words():
    async with Server(backends={"gpu": Broken("died")}) as server:
        server.register_tasks("app", [Where])
        server.define(job("Where"))
        run = await (await server.start("where")).wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.CRASHED
        assert "the device fell off" in run.explain()


async def test_a_backend_that_does_not_open_leaves_nothing_of_the_server_behind():
    threads = threading.active_count()
    gpu = Gpu()
    with pytest.raises(OSError, match="no such device"):
        async with Server(backends={"gpu": gpu, "other": Broken("open")}):
            pass
    assert gpu.closed == 1
    assert threading.active_count() == threads
    await anyio.lowlevel.checkpoint()


class Hold(RunnableTask):
    """Say that it has begun, and wait until it is told to go on."""

    number: int
    begun: ClassVar[list[threading.Event]] = []
    gates: ClassVar[list[threading.Event]] = []

    def run(self, context):
        self.begun[self.number].set()
        self.gates[self.number].wait(PATIENCE)


class Cluster(ThreadBackend):
    """Loses the place of the first `losses` calls; says where calls are; grows when it is told to."""

    def __init__(self, losses=0, limit=2):
        super().__init__(limit)
        self.losses = losses
        self.started = 0
        self.loses = self.place = ""

    async def open(self, host):
        self.host = host
        await super().open(host)

    def start(self, call, done):
        self.started += 1
        if self.place:
            self.host.note_where(call, self.place)
        if self.started > self.losses:
            return super().start(call, done)
        handle = Broken("")
        handle.cancel = lambda: done(self.lost())
        if not self.loses:
            self.host.soon(done, self.lost())
        return handle

    def lost(self):
        return Outcome(OutcomeKind.LOST, error=ConnectionError("worker 3 left the cluster"))


async def test_an_attempt_whose_place_is_gone_does_not_count_and_is_made_again():
    async with Server(backends={"gpu": Cluster(losses=2)}) as server:
        server.register_tasks("app", [Where])
        server.define(job("Where"))  # it may be tried once
        run = await (await server.start("where")).wait(PATIENCE)
        assert run.succeeded
        assert [line.message for line in run.logs()] == ["lost: worker 3 left the cluster"] * 2


async def test_the_third_loss_in_a_row_is_a_crash():
    cluster = Cluster(losses=9)
    async with Server(backends={"gpu": cluster}) as server:
        server.register_tasks("app", [Where])
        server.define(job("Where"))
        run = await (await server.start("where")).wait(PATIENCE)
        assert run.tasks["t"].state is TaskState.CRASHED
        assert "worker 3 left the cluster" in run.explain()
        assert cluster.started == 3


async def test_what_is_lost_while_it_is_cancelled_is_cancelled():
    cluster = Cluster(losses=9)
    cluster.loses = "on cancel"
    async with Server(backends={"gpu": cluster}) as server:
        server.register_tasks("app", [Where])
        server.define(job("Where"))
        run = await server.start("where")
        async for event in run.events():
            if event.kind == "task-started":
                break
        run.cancel()
        assert (await run.wait(PATIENCE)).state is RunState.CANCELLED


async def test_a_backend_that_grows_gets_more_calls_and_one_that_shrinks_gets_fewer():
    cluster = Cluster(limit=3)
    cluster.limit = 1
    gates = Hold.gates = [threading.Event() for _ in range(4)]
    begun = Hold.begun = [threading.Event() for _ in range(4)]

    async def has_begun(number):
        assert await anyio.to_thread.run_sync(begun[number].wait, PATIENCE)

    definition = JobDefinition.build("j")
    for number in range(4):
        definition = definition.task(f"t{number}", "Hold", backend="gpu", args={"number": number})
    async with Server(backends={"gpu": cluster}) as server:
        server.register_tasks("app", [Hold])
        server.define(definition.done())
        run = await server.start("j")
        await has_begun(0)
        assert run.counts["running"] == 1
        cluster.host.limit_changed(cluster, 3)
        await has_begun(1)
        await has_begun(2)
        await anyio.to_thread.run_sync(cluster.host.limit_changed, cluster, 1)
        gates[0].set()
        gates[1].set()
        while run.counts["running"] != 1:
            await anyio.lowlevel.checkpoint()
        assert not begun[3].is_set()
        gates[2].set()
        gates[3].set()
        assert (await run.wait(PATIENCE)).succeeded


async def test_explain_says_on_which_machine_a_call_executes():
    cluster = Cluster()
    cluster.place = "node-7"
    async with Server(backends={"gpu": cluster}, grace=5) as server:
        server.register_tasks("app", [Obey])
        server.define(job("Obey"))
        run = await server.start("obey")
        async for event in run.events():
            if event.done:
                break
        assert "on node-7" in run.explain()
        run.cancel()
        await run.wait(PATIENCE)


class Holding(ThreadBackend):
    """Holds whole calls by itself, as a container is paused."""

    def __init__(self):
        super().__init__(2)
        self.told = []

    def start(self, call, done):
        handle = super().start(call, done)
        told = self.told

        class Wrapped:
            cancel, kill, where = handle.cancel, handle.kill, handle.where

            def pause(self):
                told.append("pause")
                call.held()

            def resume(self):
                told.append("resume")
                raise OSError("a backend's own fault")

        return Wrapped()


async def test_a_backend_that_holds_a_call_is_told_of_pauses_and_makes_it_count_as_held(caplog):
    backend = Holding()
    Hold.begun, Hold.gates = [threading.Event()], [threading.Event()]
    async with Server(backends={"gpu": backend}) as server:
        server.register_tasks("app", [Hold])
        run = await server.start(job("Hold", args={"number": 0}))
        assert await anyio.to_thread.run_sync(Hold.begun[0].wait, PATIENCE)
        run.pause()
        async for event in run.events():
            if event.kind == "run-paused":
                break
        run.resume()
        Hold.gates[0].set()
        assert (await run.wait(PATIENCE)).succeeded
        assert backend.told == ["pause", "resume"]
        assert "a backend's own fault" in caplog.text

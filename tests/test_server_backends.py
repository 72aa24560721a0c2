"""A host adds places of its own for tasks to run in, and uses them like ours."""

import threading

import anyio
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, RunState, Server, TaskState, UnresolvedError
from scattersphere.execution.backends import Ending, Outcome
from scattersphere.execution.backends.threads import ThreadBackend

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
                self.host.soon(done, Outcome(Ending.VALUE, 1))
        if self.how == "died":
            self.host.soon(done, Outcome(Ending.DIED, error=ChildProcessError("the device fell off")))
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

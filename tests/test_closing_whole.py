"""Entering and leaving are whole, at whichever step the host is cancelled, and however often."""

import asyncio
import contextlib
import functools
import gc
import logging
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from patience import PATIENCE

from scattersphere import JobDefinition, RunnableTask, Server, TaskDefinition
from scattersphere._owntask import whole

BUNDLE = """
from scattersphere import RunnableTask

class Hello(RunnableTask):
    async def run(self, context):
        return "hello"
"""


class Slow(RunnableTask):
    """Be slow to end."""

    async def run(self, context):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)


class InThread(RunnableTask):
    """Wait in a thread."""

    def run(self, context):
        while True:
            context.check()
            threading.Event().wait(0.005)


async def counted(work, on_step):
    """Await `work`, and call back each time that it suspends."""
    return await _counted(work, on_step)  # from 3.12 on asyncio makes tasks of coroutines alone


@types.coroutine
def _counted(work, on_step):
    how, value = work.send, None
    while True:
        try:
            asked = how(value)
        except StopIteration as end:
            return end.value
        on_step()
        try:
            value = yield asked
            how = work.send
        except BaseException as error:  # noqa: BLE001 - whatever comes in goes on
            how, value = work.throw, error


class SteppedServer(Server):
    """A Server that tells when its life, or its host, has come to the next step."""

    on_step = staticmethod(bool)
    host = None

    def step(self):
        self.on_step()

    async def _live(self):
        await counted(super()._live(), self.step)


class Interrupter:
    """Cancels the host when the Server's life has come to step `k`; knows whether it came so far."""

    def __init__(self, k, cancel):
        self.left, self.cancel = k, cancel

    def step(self):
        self.left -= 1
        if self.left == 0:
            self.cancel()


def belongings():
    threads = {t for t in threading.enumerate() if not t.name.startswith(("Trio thread", "AnyIO worker"))}
    modules = {name for name in sys.modules if name.startswith("scattersphere.bundles.")}
    handlers = {("handler", id(h)) for h in logging.getLogger("scattersphere.bundles").handlers}
    files = {("file", each) for each in Path(tempfile.gettempdir()).iterdir()}
    return threads | modules | handlers | files | descriptors()


def descriptors():
    found, folder = set(), Path("/proc/self/fd")
    for each in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(("descriptor", each.name, str(each.readlink())))
    return {each for each in found if "/proc/" not in each[2]}


def left_of(before):
    """Return what is left. The thread of the system's notification gives its descriptors back in its own time."""
    deadline = time.monotonic() + PATIENCE
    while (left := belongings() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.001)
    return left


async def host(server):
    """A short life: something is left behind, and the end comes by itself."""
    async with server:
        server.register_tasks("app", [Slow, InThread])
        for path in ("Slow", "InThread"):
            await server.start_task(path)
        await server.listen(unix=server.address)
        await anyio.sleep(0.005)


async def host_of_all(server):
    """A life with a journal, a schedule and a drain: what is left is suspended."""
    async with server:
        server.register_tasks("app", [Slow, InThread])
        server.define(JobDefinition(name="tick", tasks={"t": TaskDefinition(task="InThread")}))
        server.schedule("tick", "hourly", cron="0 * * * *")
        for path in ("Slow", "InThread"):
            await server.start_task(path)
        await server.listen(unix=server.address)
        await server.committed()
        with anyio.move_on_after(0.005):
            await server.drain()


HOSTS = {"plain": host, "journal": host_of_all}


def cancel_native(times):
    async def run(server, k):
        task = asyncio.create_task(counted(server.host(server), server.step))
        watch = Interrupter(k, lambda: [task.cancel() for _ in range(times)])
        server.on_step = watch.step
        await asyncio.wait([task])
        return watch.left <= 0

    return run


async def cancel_all_tasks(server, k):
    """As `asyncio.run` does at its end, and some hosts do before."""
    me = asyncio.current_task()
    task = asyncio.create_task(counted(server.host(server), server.step))
    others = lambda: asyncio.all_tasks() - {me}  # noqa: E731
    watch = Interrupter(k, lambda: [each.cancel() for each in others()])
    server.on_step = watch.step
    await asyncio.wait([task])
    return watch.left <= 0


async def cancel_scope(server, k):
    with anyio.CancelScope() as scope:
        watch = Interrupter(k, scope.cancel)
        server.on_step = watch.step
        await counted(server.host(server), server.step)
    return watch.left <= 0


async def reopens(journal):
    """Whether the journal is closed: nobody else has it."""
    async with Server(watch=False, journal=journal):
        return True


SWEEPS = {
    "once": ("asyncio", cancel_native(1)),
    "twice": ("asyncio", cancel_native(2)),
    "all tasks": ("asyncio", cancel_all_tasks),
    "scope": ("asyncio", cancel_scope),
    "trio": ("trio", cancel_scope),
}


# anyio: a task of a group that asyncio cancels before its first step leaves its coroutine behind.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    ("how", "life"),
    [*((how, "plain") for how in SWEEPS), *((how, "journal") for how in ("once", "twice", "trio"))],
)
def test_a_host_that_is_cancelled_at_any_step_leaves_nothing(tmp_path, how, life):
    backend, cancel = SWEEPS[how]
    if backend == "trio":
        pytest.importorskip("trio")
    roots, sockets = tmp_path / "roots", tmp_path / "sockets"
    roots.mkdir()
    sockets.mkdir(mode=0o700)
    (roots / "hello.py").write_text(BUNDLE)

    async def main(k):
        more = {} if life == "plain" else {"journal": tmp_path / f"journal{k}"}
        grace = 5 if life == "plain" else 0.05  # what is suspended may end by itself for so long
        server = SteppedServer(bundle_roots=[roots], grace=grace, capture_print=True, **more)
        server.host, server.address = HOSTS[life], sockets / "s"
        reached = await cancel(server, k)
        if server.home is not None:  # it was cancelled before its first step
            await server.aclose()
        journal = more.get("journal")
        assert journal is None or not journal.exists() or await reopens(journal), k
        assert not server._executor.running
        tasks = [task.name for task in anyio.get_running_tasks() if task.id != anyio.get_current_task().id]
        assert not [name for name in tasks if name and "scattersphere" in name], (k, tasks)
        return reached

    gc.collect()
    before = belongings()
    k, reached = 1, True
    while reached:
        reached = anyio.run(functools.partial(main, k), backend=backend)
        assert not left_of(before), k
        k += 1
    assert k > 10, "the sweep is to go over entering and leaving"


@pytest.mark.anyio
async def test_who_waits_for_work_in_a_task_of_its_own_is_cancelled_when_it_is_done():
    done = []

    async def work():
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        done.append(True)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await whole(work(), "work")
        done.append("the next checkpoint raises")
        await anyio.lowlevel.checkpoint()
        done.append("never")
    assert done == [True, "the next checkpoint raises"]


@pytest.mark.anyio
async def test_work_in_a_task_of_its_own_gives_its_result_and_its_error():
    async def give():
        await anyio.lowlevel.checkpoint()
        return 7

    async def fail():
        await anyio.lowlevel.checkpoint()
        raise ValueError("of the work")

    assert await whole(give(), "give") == 7
    with pytest.raises(ValueError, match="of the work"):
        await whole(fail(), "fail")


@pytest.mark.anyio
async def test_time_limits_and_groups_inside_such_work_hold():
    async def work():
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        return scope.cancelled_caught

    assert await whole(work(), "work")


def test_asyncio_tells_who_was_cancelled_once_though_the_work_went_on():
    async def main():
        began, go_on = asyncio.Event(), asyncio.Event()

        async def work():
            began.set()
            await go_on.wait()

        task = asyncio.create_task(whole(work(), "work"))
        await began.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_that_its_host_forgot_is_closed_when_the_program_of_the_loop_ends(backend):
    pytest.importorskip(backend)
    kept = []

    async def main():
        server = Server(grace=1, blocked_after=None)
        kept.append(server)
        await server.__aenter__()
        server.register_tasks("app", [InThread])
        kept.append(await server.start_task("InThread"))

    anyio.run(main, backend=backend)
    server, run = kept
    assert "closed" in repr(server)
    assert run.state.ended

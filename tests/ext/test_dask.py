"""Tasks of bundles on a Dask cluster, driven by a real Server: as from a local process, and what only a cluster does."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from patience import PATIENCE

pytest.importorskip("distributed")

import dask_around
import distributed
from dask_cluster import Cluster, cluster, values_of

from scattersphere import JobDefinition, RunState, Server, TaskState, result
from scattersphere.abc import RemoteValue
from scattersphere.ext.dask import DaskBackend
from scattersphere.ext.dask import backend as backend_module
from scattersphere.ext.dask import handle as handle_module
from scattersphere.ext.dask.messages import Terms

pytestmark = pytest.mark.anyio

BUNDLE = '''
import logging
import os
import sys
import sysconfig
import time
import venv
from pathlib import Path

from scattersphere import RunnableTask

VERSION = 1


class Point:
    def __init__(self, x):
        self.x = x


class Make(RunnableTask):
    """Log in three ways, report progress, and make a value whose class is the bundle's."""

    x: int

    def run(self, context):
        context.log.info("by context")
        logging.getLogger(__name__).info("by module")
        print("by print")
        context.progress(1, 2, "half")
        return Point(self.x)

    def on_finished(self):
        logging.getLogger(__name__).info("by hook")


class Read(RunnableTask):
    """Say what the value is here, and what the tasks before have come to."""

    point: object

    def run(self, context):
        return [self.point.x, type(self.point) is Point, VERSION, context.results["make"].x, dict(context.params)]


class Fail(RunnableTask):
    def run(self, context):
        raise LookupError("no such day")


class Echo(RunnableTask):
    value: object = None

    def run(self, context):
        return self.value


class Size(RunnableTask):
    value: object

    def run(self, context):
        return len(self.value)


class Bytes(RunnableTask):
    size: int

    def run(self, context):
        return bytes(self.size)


class Sources(RunnableTask):
    """Say from which files the values were read that it is given."""

    value: object

    def run(self, context):
        folder = Path(os.environ["SCATTERSPHERE_STORE"], "values")
        return [str(file.readlink()) for file in folder.iterdir() if file.is_symlink()]


class Grow(RunnableTask):
    """Make much of something: numbers, or copies of what it is given."""

    of: object = None

    def run(self, context):
        return [self.of if self.of is None else len(self.of)] * 500_000


class Sum(RunnableTask):
    parts: list

    def run(self, context):
        return [len(part) for part in self.parts], type(context.results["a"]).__name__


class Odd(RunnableTask):
    def run(self, context):
        return lambda: 1


class Loop(RunnableTask):
    """Go on until it is told to end, or the file is there; say each time around."""

    until: str = "/nowhere"

    def run(self, context):
        context.log.info("begun %d of %d in version %d", os.getpid(), os.getppid(), VERSION)
        while not Path(self.until).exists():
            context.check()
            time.sleep(0.002)
        return VERSION


class AsyncLoop(RunnableTask):
    async def run(self, context):
        import anyio
        context.log.info("begun %d of %d in version %d", os.getpid(), os.getppid(), VERSION)
        await anyio.sleep_forever()


class Stone(RunnableTask):
    """Never look whether it should end."""

    def run(self, context):
        context.log.info("begun %d of %d in version %d", os.getpid(), os.getppid(), VERSION)
        while True:
            time.sleep(0.05)


class Request(RunnableTask):
    def run(self, context):
        from dask_around import REQUEST
        return REQUEST.get()


class Talk(RunnableTask):
    def run(self, context):
        for number in range(3000):
            context.log.info("%d", number)


class Die(RunnableTask):
    def run(self, context):
        os._exit(3)


class Once(RunnableTask):
    """The first time: take the Dask worker down, process and all."""

    folder: str

    def run(self, context):
        file = Path(self.folder, "been")
        if not file.exists():
            file.touch()
            os.kill(os.getppid(), 9)
            time.sleep(60)
        return context.attempt


class Always(RunnableTask):
    def run(self, context):
        os.kill(os.getppid(), 9)
        time.sleep(60)
'''


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask"), resources="gpu=1") as made:
        yield made.address


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "work.py"
    path.write_text(BUNDLE)
    return path


@pytest.fixture
async def server(bundle, address):
    async with Server(grace=0.5, backends={"dask": DaskBackend(address)}, capture_print=True) as server:
        await server.register(bundle)
        yield server


def job_of(name, cls, **options):
    return JobDefinition.build(name).task("t", f"work.{cls}", backend="dask", **options).done()


async def start(server, cls, name="job", **options):
    server.define(job_of(name, cls, **options), replace=True)
    return await server.start(name)


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what happens in another process sets no event here
            await anyio.sleep(0.01)


def begun_in(run):
    """Return what its bodies have said when they had begun, word by word."""
    return [line.message.split() for line in run.logs() if line.message.startswith("begun ")]


async def begun(run):
    """Wait until the body has begun; return the ids of its process and of the Dask worker above it."""
    await until(lambda: begun_in(run) or run.state.ended)
    assert not run.state.ended, run.explain()
    words = begun_in(run)[-1]
    return int(words[1]), int(words[3])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_job_does_there_what_it_does_in_a_local_process(server):
    server.define(
        JobDefinition.build("two", params={"day": "Sunday"})
        .task("make", "work.Make", backend="dask", args={"x": 7})
        .task("read", "work.Read", backend="dask", args={"point": result("make")})
        .done()
    )
    run = await (await server.start("two", {"day": "Monday"})).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert run.results["read"] == [7, True, 1, 7, {"day": "Monday"}]
    said = [(line.task, line.message) for line in run.logs()]
    assert [message for task, message in said if task == "make"] == [
        "by context",
        "by module",
        "by print",
        "by hook",
    ]
    assert [event.done async for event in run.events() if event.kind == "task-progress"] == [1]


async def test_a_body_that_says_much_is_heard_to_the_end(server):
    run = await (await start(server, "Talk")).wait(PATIENCE)
    assert [line.message for line in run.logs()] == [str(number) for number in range(3000)]


async def test_a_failure_has_its_type_its_words_and_its_line(server):
    run = await (await start(server, "Fail")).wait(PATIENCE)
    failure = run.tasks["t"].failure
    assert failure is not None
    assert failure.type == "LookupError"
    assert failure.message == "no such day"
    assert 'raise LookupError("no such day")' in failure.traceback
    assert "work.py" in failure.traceback


async def test_what_stands_around_bodies_stands_around_them_there(bundle, address):
    async with Server(backends={"dask": DaskBackend(address)}, around=[dask_around.carrier]) as server:
        await server.register(bundle)
        dask_around.REQUEST.set("request 7")
        run = await (await start(server, "Request")).wait(PATIENCE)
        assert run.results["t"] == "request 7", run.explain()


async def test_a_version_that_no_run_needs_is_let_go(server, bundle):
    for number in range(2, 4):
        assert (await (await start(server, "Talk")).wait(PATIENCE)).succeeded
        bundle.write_text(BUNDLE.replace("VERSION = 1", f"VERSION = {number}"))
        await server.reload("work")
    await until(lambda: not server.registry.bundles["work"].versions)
    assert server.registry.bundles["work"].leaks == []


async def test_a_worker_with_another_python_refuses_in_words(server, monkeypatch):
    class Elsewhere(Terms):
        @classmethod
        def here(cls):
            return Terms.here()._replace(python=(3, 99))

    monkeypatch.setattr(handle_module, "Terms", Elsewhere)
    run = await (await start(server, "Echo")).wait(PATIENCE)
    words = r"the Dask worker tcp:\S+ runs Python 3\.\d+ and the engine Python 3\.99"
    assert re.search(words, str(run.tasks["t"].failure))


async def test_a_reload_in_the_middle_changes_nothing_for_what_executes(server, bundle, tmp_path):
    flag = tmp_path / "go"
    old = await start(server, "Loop", "old", args={"until": str(flag)})
    await begun(old)
    bundle.write_text(BUNDLE.replace("VERSION = 1", "VERSION = 2"))
    await server.reload("work")
    new = await start(server, "Loop", "new", args={"until": str(flag)})
    await begun(new)
    flag.touch()
    assert (await old.wait(PATIENCE)).results["t"] == 1
    assert (await new.wait(PATIENCE)).results["t"] == 2


async def test_the_bytes_of_a_version_go_once_to_each_worker(server, monkeypatch):
    from scattersphere.registry import parcels

    packed = []
    pack = parcels.pack
    monkeypatch.setattr(parcels, "pack", lambda slug: packed.append(slug) or pack(slug))
    job = JobDefinition.build("many").task(
        "t", "work.Echo", backend="dask", map={"value": {"$literal": list(range(30))}}
    )
    server.define(job.done())
    run = await (await server.start("many")).wait(PATIENCE)
    assert run.results["t"] == list(range(30))
    assert len(packed) <= 2, f"two workers, and the code was packed for {packed}"


async def test_a_pause_holds_at_the_next_checkpoint(server, tmp_path):
    flag = tmp_path / "go"
    run = await start(server, "Loop", args={"until": str(flag)})
    await begun(run)
    run.pause()
    await until(lambda: run.state is RunState.PAUSED)
    flag.touch()
    await anyio.sleep(0.1)  # it would end now
    assert run.state is RunState.PAUSED
    run.resume()
    assert (await run.wait(PATIENCE)).succeeded


@pytest.mark.parametrize("cls", ["Loop", "AsyncLoop"])
async def test_a_cancel_ends_a_body_and_leaves_its_process(server, cls):
    run = await start(server, cls)
    pid, _ = await begun(run)
    run.cancel()
    assert (await run.wait(PATIENCE)).state is RunState.CANCELLED
    assert alive(pid)


async def test_what_waits_in_dask_ends_by_a_cancel_and_never_begins(bundle, address):
    backend = DaskBackend(address, limit=10)  # more than there are threads: Dask queues
    async with Server(grace=0.5, backends={"dask": backend}) as server:
        await server.register(bundle)
        first = [await start(server, "Loop", f"first-{number}") for number in range(2)]
        for run in first:
            await begun(run)
        queued = await start(server, "Loop", "queued")
        await until(lambda: queued.tasks["t"].state is TaskState.RUNNING)
        queued.cancel()
        assert (await queued.wait(PATIENCE)).state is RunState.CANCELLED
        for run in first:
            run.cancel()
            await run.wait(PATIENCE)
        assert not queued.logs()


async def test_after_a_kill_the_process_is_gone_and_the_worker_is_not(server):
    run = await start(server, "Stone")
    pid, parent = await begun(run)
    run.kill()
    assert (await run.wait(PATIENCE)).state is RunState.CANCELLED
    assert not alive(pid)
    assert alive(parent)
    assert (await (await start(server, "Echo", "next", args={"value": 1})).wait(PATIENCE)).succeeded


async def test_a_timeout_ends_a_body_that_looks_at_nothing(server):
    run = await (await start(server, "Stone", timeout=0.3)).wait(PATIENCE)
    failure = run.tasks["t"].failure
    assert failure is not None, run.explain()
    assert failure.type == "TimeoutError"


async def test_a_process_that_dies_is_a_crash_in_words(server):
    run = await (await start(server, "Die")).wait(PATIENCE)
    assert run.tasks["t"].state is TaskState.CRASHED
    assert "exit code 3" in str(run.tasks["t"].failure)
    assert "of the Dask worker tcp://127.0.0.1" in str(run.tasks["t"].failure)


@pytest.fixture
def four(tmp_path_factory):
    """Give a cluster that may lose three workers: that Dask starts one again, which is killed at once, is not sure."""
    with cluster(tmp_path_factory.mktemp("dask"), workers=4) as made:
        yield made


async def test_a_worker_that_is_gone_costs_no_attempt_and_three_in_a_row_are_a_crash(bundle, tmp_path, four):
    async with Server(grace=0.5, backends={"dask": DaskBackend(four.address)}) as server:
        await server.register(bundle)
        once = await (await start(server, "Once", "once", args={"folder": str(tmp_path)})).wait(PATIENCE)
        assert once.succeeded, once.explain()
        assert once.results["t"] == 2  # the first one is not counted among those that it may have
        always = await (await start(server, "Always", "always")).wait(PATIENCE)
        assert always.tasks["t"].state is TaskState.CRASHED, always.explain()
        assert "worker" in str(always.tasks["t"].failure)


async def test_values_that_cannot_be_sent_are_named(server):
    run = await (await start(server, "Odd")).wait(PATIENCE)
    assert "its result (a function) cannot be sent" in str(run.tasks["t"].failure)


async def test_an_argument_that_cannot_be_sent_is_named(server):
    job = (
        JobDefinition.build("odd")
        .task("a", "work.Odd", backend="thread")
        .task("b", "work.Echo", backend="dask", args={"value": result("a")})
        .done()
    )
    server.define(job)
    run = await (await server.start("odd")).wait(PATIENCE)
    assert "the argument 'value' (a function) cannot be sent to a worker process" in str(
        run.tasks["b"].failure
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Give a cluster of two workers: one as here, and one in an environment that has Dask and no scattersphere."""
    folder = tmp_path_factory.mktemp("dask")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(packages, "dask.pth").write_text(
        sysconfig.get_path("purelib")
    )  # whose own .pth files are not read then
    with cluster(folder, workers=1, resources="here=1") as made:
        command = [environment / "bin/python", "-m", "distributed.cli.dask_worker", made.address]
        command += ["--nthreads", "1", "--resources", "bare=1", "--no-dashboard", "--local-directory", folder]
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with subprocess.Popen(command, cwd=folder, env=own, stderr=subprocess.DEVNULL) as worker:
            try:
                yield made.address
            finally:
                worker.terminate()


@pytest.mark.parametrize("kind", ["small", "large", "by reference"])
async def test_a_worker_without_the_library_is_refused_in_words(bundle, mixed, kind):
    job = JobDefinition.build("job").task(
        "a", "work.Bytes", backend="dask", needs={"here": 1}, args={"size": 3_000_000}
    )
    value = {"small": 1, "large": "x" * 3_000_000, "by reference": result("a")}[kind]
    job.task("t", "work.Echo", backend="dask", needs={"bare": 1}, args={"value": value})
    async with keeping(bundle, mixed) as server:
        await server.register(bundle)
        server.define(job.done())
        run = await (await server.start("job")).wait(PATIENCE)
        assert run.tasks["a"].state is TaskState.SUCCEEDED, run.explain()
        failure = str(run.tasks["t"].failure)
        assert "a Dask worker could not begin it: ModuleNotFoundError" in failure
        assert "it needs the same scattersphere as here (with the extra dask)" in failure
        assert kind != "by reference" or await run.results["a"].fetch() == bytes(3_000_000)


async def test_large_values_arrive(server):
    value = "x" * 3_000_000
    job = (
        JobDefinition.build("large")
        .task("a", "work.Echo", backend="dask", args={"value": value})
        .task("b", "work.Size", backend="dask", args={"value": result("a")})
        .done()
    )
    server.define(job)
    run = await (await server.start("large")).wait(PATIENCE)
    assert run.succeeded, run.explain()
    assert run.results["a"] == value
    assert run.results["b"] == len(value)


def keeping(bundle, address):
    return Server(grace=0.5, backends={"dask": DaskBackend(address, keep_from=100_000)})


async def test_a_large_result_stays_there_and_is_passed_on_by_reference(bundle, address):
    job = (
        JobDefinition.build("stay")
        .task("a", "work.Grow", backend="dask")
        .task("b", "work.Grow", backend="dask", args={"of": result("a")})
        .task("sum", "work.Sum", backend="dask", args={"parts": [result("a"), result("b")]})
        .done()
    )
    async with keeping(bundle, address) as server:
        await server.register(bundle)
        server.define(job)
        run = await (await server.start("stay")).wait(PATIENCE)
        assert run.succeeded, run.explain()
        kept = run.results["b"]
        assert isinstance(kept, RemoteValue)
        assert kept.type == "builtins.list"
        assert kept.size > 500_000
        assert repr(kept) == f"<DaskValue builtins.list, {kept.size / 2**20:.3g} MiB, of stay#{run.id}/b>"
        assert run.results["sum"] == ([500_000, 500_000], "list")
        assert await kept.fetch() == [500_000] * 500_000
        with pytest.raises(TypeError, match=r"await value\.fetch\(\)"):
            pickle.dumps(kept)


async def test_a_large_result_is_one_file_that_who_takes_it_reads_where_it_is(bundle, own):
    job = (
        JobDefinition.build("passes")
        .task("a", "work.Bytes", backend="dask", args={"size": 3_000_000})
        .task("b", "work.Sources", backend="dask", args={"value": result("a")})
        .done()
    )
    client = await anyio.to_thread.run_sync(lambda: distributed.Client(own.address, set_as_default=False))
    try:
        async with keeping(bundle, own.address) as server:
            await server.register(bundle)
            server.define(job)
            run = await (await server.start("passes")).wait(PATIENCE)
            assert run.succeeded, run.explain()
            there = await anyio.to_thread.run_sync(lambda: client.run(values_of, "passes/a"))
            ((kind, file, size, in_memory),) = [value for values in there.values() for value in values]
            assert (kind, size) == ("LongValue", run.results["a"].size)
            assert in_memory < 1000, "Dask would spill to its disk what is there"
            known = await anyio.to_thread.run_sync(lambda: client.nbytes(summary=False))
            assert [nbytes for key, nbytes in known.items() if key.startswith("passes/a")] == [size]
            assert run.results["b"] == [file], "it was copied for who took it"
            assert await run.results["a"].fetch() == bytes(3_000_000)
            run.results["a"].future.release()
            await until(lambda: not Path(file).exists())
    finally:
        await anyio.to_thread.run_sync(client.close)


async def test_a_result_that_somebody_else_takes_comes_here(bundle, address):
    job = (
        JobDefinition.build("come")
        .task("a", "work.Grow", backend="dask")
        .task("here", "work.Size", args={"value": result("a")})
        .task("first", "work.Echo", backend="dask", args={"value": {"$result": "b", "pointer": "/0"}})
        .task("b", "work.Grow", backend="dask")
        .done()
    )
    async with keeping(bundle, address) as server:
        await server.register(bundle)
        server.define(job)
        run = await (await server.start("come")).wait(PATIENCE)
        assert run.succeeded, run.explain()
        assert run.results["here"] == 500_000
        assert not isinstance(run.results["b"], RemoteValue)


async def test_the_results_of_a_map_are_reduced_by_reference(bundle, address):
    job = (
        JobDefinition.build("reduce")
        .task("a", "work.Grow", backend="dask", map={"of": {"$literal": ["x", "yy", "zzz"]}})
        .task("each", "work.Size", backend="dask", map={"value": result("a")})
        .task("sum", "work.Sum", backend="dask", args={"parts": result("a")})
        .done()
    )
    async with keeping(bundle, address) as server:
        await server.register(bundle)
        server.define(job)
        run = await (await server.start("reduce")).wait(PATIENCE)
        assert run.succeeded, run.explain()
        assert all(isinstance(value, RemoteValue) for value in run.results["a"])
        assert run.results["each"] == [500_000] * 3
        assert run.results["sum"] == ([500_000] * 3, "list")


async def test_a_value_is_released_with_the_last_run_that_names_it(bundle, address):
    client = await anyio.to_thread.run_sync(lambda: distributed.Client(address, set_as_default=False))

    def held():
        return [key for keys in client.has_what().values() for key in keys if str(key).startswith("stay/")]

    async def until_held(number):
        with anyio.fail_after(PATIENCE):
            while len(await anyio.to_thread.run_sync(held)) != number:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.02)

    try:
        async with Server(
            grace=0.5, history=(1, 3600), backends={"dask": DaskBackend(address, keep_from=100_000)}
        ) as server:
            await server.register(bundle)
            server.define(JobDefinition.build("stay").task("a", "work.Grow", backend="dask").done())
            run = await (await server.start("stay")).wait(PATIENCE)
            await until_held(1)
            again = await (await server.rerun(run.id)).wait(PATIENCE)
            assert again.succeeded
            del run
            await until_held(1)
            del again
            await (await start(server, "Echo", "other")).wait(PATIENCE)
            await until_held(0)
    finally:
        await anyio.to_thread.run_sync(client.close)


async def test_a_value_whose_results_are_not_kept_is_released_after_its_last_reader(bundle, own):
    job = (
        JobDefinition.build("brief")
        .task("a", "work.Bytes", backend="dask", args={"size": 3_000_000}, keep_results=False)
        .task("b", "work.Size", backend="dask", args={"value": result("a")})
        .task("c", "work.Loop", backend="dask", depends_on=["b"])
        .done()
    )
    client = await anyio.to_thread.run_sync(lambda: distributed.Client(own.address, set_as_default=False))
    try:
        async with keeping(bundle, own.address) as server:
            await server.register(bundle)
            server.define(job)
            run = await server.start("brief")
            await begun(run)
            with anyio.fail_after(PATIENCE):
                while any((await anyio.to_thread.run_sync(held_of, client, "brief/a")).values()):  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            run.cancel()
            await run.wait(PATIENCE)
    finally:
        await anyio.to_thread.run_sync(client.close)


def held_of(client, label):
    return client.run(values_of, label)


async def test_a_task_gets_the_resources_of_dask_that_it_needs(server):
    run = await (await start(server, "Echo", args={"value": 5}, needs={"gpu": 1})).wait(PATIENCE)
    assert run.results["t"] == 5, run.explain()


async def test_a_task_that_no_worker_can_have_says_what_it_waits_for_and_ends_by_a_cancel(server):
    run = await start(server, "Echo", needs={"fpga": 1})
    await until(lambda: "on the Dask cluster, where it waits for a worker with fpga: 1" in run.explain())
    run.cancel()
    assert (await run.wait(PATIENCE)).state is RunState.CANCELLED


async def test_what_the_engine_leaves_behind_ends(bundle, address):
    async with Server(grace=0.5, backends={"dask": DaskBackend(address)}) as server:
        await server.register(bundle)
        run = await start(server, "Stone")
        pid, _ = await begun(run)
    assert not alive(pid)


ENGINE = """
import sys
import anyio
from scattersphere import JobDefinition, Server
from scattersphere.ext.dask import DaskBackend

async def main(address, path, journal, flag):
    async with Server(backends={"dask": DaskBackend(address)}, journal=journal or None) as server:
        await server.register(path)
        task = {"args": {"until": flag}} if flag else {}
        name = "work.Loop" if flag else "work.Stone"
        server.define(JobDefinition.build("job").task("t", name, backend="dask", **task).done())
        run = await server.start("job")
        while not run.logs():
            await anyio.sleep(0.01)
        print(run.logs()[0].message, flush=True)
        await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


def test_what_an_engine_that_is_killed_leaves_behind_ends(bundle, address, tmp_path):
    command = [sys.executable, "-c", ENGINE, address, str(bundle), "", ""]
    own = {**os.environ, "TMPDIR": str(tmp_path)}  # the next one there would sweep what it leaves
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as engine:
        pid = int(engine.stdout.readline().split()[1])
        assert alive(pid)
        engine.kill()
    end = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["client", "asynchronous client"])
async def test_a_client_of_the_host_is_used_and_stays_open(bundle, address, kind, anyio_backend):
    if kind == "client":
        client = await anyio.to_thread.run_sync(lambda: distributed.Client(address, set_as_default=False))
    elif anyio_backend == "trio":
        pytest.skip("an asynchronous client lives on asyncio")
    else:
        client = await distributed.Client(address, asynchronous=True, set_as_default=False)
    try:
        async with Server(backends={"dask": DaskBackend(client)}) as server:
            await server.register(bundle)
            run = await (await start(server, "Echo", args={"value": [1]})).wait(PATIENCE)
            assert run.results["t"] == [1], run.explain()
        assert client.status == "running"
    finally:
        if kind == "client":
            await anyio.to_thread.run_sync(client.close)
        else:
            await client.close()


async def test_a_wrong_address_is_said_when_the_server_opens(monkeypatch):
    monkeypatch.setattr(backend_module, "CONNECT_SECONDS", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        wrong = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"no Dask scheduler answers at {wrong}"):
            async with Server(backends={"dask": DaskBackend(wrong)}):
                pass


@pytest.mark.parametrize("other", [7, None, object])
def test_what_is_no_cluster_is_refused_in_words(other):
    with pytest.raises(TypeError, match="give the address of a Dask scheduler"):
        DaskBackend(other)


async def test_what_a_retired_worker_has_goes_on_elsewhere(bundle, tmp_path, two):
    flag = tmp_path / "go"
    client = await anyio.to_thread.run_sync(lambda: distributed.Client(two.address, set_as_default=False))
    try:
        async with Server(grace=0.5, backends={"dask": DaskBackend(two.address)}) as server:
            await server.register(bundle)
            run = await start(server, "Loop", args={"until": str(flag)})
            pid, parent = await begun(run)
            pids = await anyio.to_thread.run_sync(lambda: client.run(os.getpid))
            (worker,) = [address for address, number in pids.items() if number == parent]
            await anyio.to_thread.run_sync(lambda: client.retire_workers([worker]))
            await until(lambda: begun_in(run)[-1][1] != str(pid))
            await until(lambda: not alive(pid))
            flag.touch()
            assert (await run.wait(PATIENCE)).succeeded
    finally:
        await anyio.to_thread.run_sync(client.close)


@pytest.fixture
def two(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask"), workers=2) as made:
        yield made


async def test_what_an_engine_had_there_is_fenced_off_before_its_journal_has_it_begin_again(
    bundle, address, tmp_path
):
    journal, flag = tmp_path / "runs.db", tmp_path / "go"
    command = [sys.executable, "-c", ENGINE, address, str(bundle), str(journal), str(flag)]
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    engine = await anyio.open_process(command, env=own)
    async with engine:
        words = (await engine.stdout.receive()).decode().split()
        engine.kill()
    pid = int(words[1])
    async with Server(grace=0.5, backends={"dask": DaskBackend(address)}, journal=journal) as server:
        await server.register(bundle)
        await until(lambda: 1 in server.runs)
        run = server.runs[1]
        await until(lambda: begun_in(run) and begun_in(run)[-1][1] != str(pid))
        assert not alive(pid)
        flag.touch()
        assert (await run.wait(PATIENCE)).succeeded, run.explain()


@pytest.fixture
def own(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask"), workers=1) as made:
        yield made


async def test_the_limit_follows_the_workers(bundle, own):
    backend = DaskBackend(own.address)
    async with Server(backends={"dask": backend}) as server:
        await server.register(bundle)
        await until(lambda: backend.limit == 1)
        runs = [await start(server, "Loop", f"job-{number}") for number in range(2)]
        await begun(runs[0])
        assert runs[1].tasks["t"].state is not TaskState.RUNNING
        own.scale(2)
        await begun(runs[1])
        assert backend.limit == 2
        for run in runs:
            run.cancel()
            await run.wait(PATIENCE)


async def test_runs_wait_for_a_scheduler_that_is_gone(bundle, own, tmp_path_factory, tmp_path):
    flag = tmp_path / "go"
    backend = DaskBackend(own.address)
    async with Server(backends={"dask": backend}) as server:
        await server.register(bundle)
        run = await start(server, "Loop", args={"until": str(flag)})
        pid, _ = await begun(run)
        own.kill()
        await until(lambda: backend.limit == 0)
        await until(lambda: not alive(pid))
        flag.touch()
        folder = tmp_path_factory.mktemp("dask")
        again = await anyio.to_thread.run_sync(lambda: Cluster(folder, workers=1, port=own.port))
        try:
            assert (await run.wait(PATIENCE)).succeeded, run.explain()
        finally:
            await anyio.to_thread.run_sync(again.close)

"""Loading never blocks the loop, never deadlocks, and gives up what does not end."""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from bundlefiles import task_module, write
from patience import PATIENCE

import scattersphere.bundles
import scattersphere.registry
from scattersphere.errors import BundleLoadError, ClosedError, NoSuchBundleError
from scattersphere.registry import loader as loader_module
from scattersphere.registry.load import Load
from scattersphere.registry.loader import (
    LATEST,
    PUT_OFF,
    QUIET,
    SHARE,
    GarbageSchedule,
    LoadAbandonedError,
    Loader,
    _Job,
    undisturbed,
)
from scattersphere.registry.modules.namespace import FINDER
from scattersphere.registry.modules.registrations import Canary
from scattersphere.registry.modules.release import ReleasedVersions
from scattersphere.registry.registry import TaskRegistry

pytestmark = pytest.mark.anyio

GATE = "scattersphere_test_gate"
"""A module of the host by which a bundle's code waits for the test."""


class Gate:
    """Lets code of a bundle tell the test that it has come, and wait there."""

    def __init__(self):
        self.reached = threading.Event()
        self.open = threading.Event()

    def wait(self):
        self.reached.set()
        self.open.wait(PATIENCE)

    async def until_reached(self):
        assert await anyio.to_thread.run_sync(self.reached.wait, PATIENCE)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate()
    monkeypatch.setitem(sys.modules, GATE, gate)
    yield gate
    gate.open.set()


@pytest.fixture
def ends(monkeypatch):
    """The time for a load ends when its code has come so far, not when it has passed: an event by its bundle's name."""
    ends = {}

    def wait(job, limit):
        job.started.wait()
        while not job.settled.wait(0.005):
            if job.name in ends and ends[job.name].is_set():
                return False
        return True

    monkeypatch.setattr(_Job, "wait", wait)
    return ends


async def stuck_threads_end(registry):
    for thread in list(registry._versions._loader._given_up):
        await anyio.to_thread.run_sync(thread.join, PATIENCE)
    assert registry.stuck == ()


def waiting(value):
    return task_module(value, before=f"import {GATE}\n{GATE}.wait()")


@pytest.fixture
async def impatient():
    registry = TaskRegistry(load_timeout=0.3, collect_garbage=False)
    yield registry
    await registry.aclose()


async def test_an_endless_loop_is_given_up_and_its_line_named(impatient, tmp_path, gate, ends):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await impatient.register(file)
    file.write_text(f"import {GATE}\nx = 1\n{GATE}.reached.set()\nwhile True:\n    x += 1\n")
    ends["a"] = gate.reached
    with pytest.raises(
        BundleLoadError, match=r"not ready after 0\.3 s; it stands at .*a\.py., line [345]"
    ) as caught:
        await impatient.reload("a")
    del ends["a"]
    assert "scattersphere.bundles" not in caught.value.details
    assert impatient.find("a.Job").cls().run(None) == 1
    assert "not ready" in bundle.error
    file.write_text(task_module(2))
    await impatient.reload("a")
    assert impatient.find("a.Job").cls().run(None) == 2
    await stuck_threads_end(impatient)  # the loop was interrupted: its thread ends by itself


async def test_a_load_that_waits_in_c_code_is_given_up_and_others_go_on(impatient, tmp_path, gate, ends):
    ends["stuck"] = gate.reached
    (tmp_path / "stuck.py").write_text(waiting(1))
    (tmp_path / "good.py").write_text(task_module(2))
    before = set(sys.modules)
    with pytest.raises(BundleLoadError, match="not ready"):
        await impatient.register(tmp_path / "stuck.py")
    assert impatient.stuck == ("stuck",)
    await impatient.register(tmp_path / "good.py")
    assert impatient.find("good.Job").cls().run(None) == 2
    await impatient.deregister("good")
    gate.open.set()
    await stuck_threads_end(impatient)
    assert set(sys.modules) - before == set(), "what the late load did is undone"


async def test_the_time_limit_counts_from_the_start_of_the_load_not_from_the_request(
    impatient, tmp_path, gate, ends
):
    ends["slow"] = threading.Event()
    (tmp_path / "slow.py").write_text(waiting(1))
    (tmp_path / "next.py").write_text(task_module(2))
    async with anyio.create_task_group() as group:

        async def slow():
            with pytest.raises(BundleLoadError):
                await impatient.register(tmp_path / "slow.py")

        group.start_soon(slow)
        await gate.until_reached()
        begun = [*impatient._versions._loader._waiting]
        group.start_soon(impatient.register, tmp_path / "next.py")
        await anyio.wait_all_tasks_blocked()
        (waits,) = impatient._versions._loader._waiting - {*begun}
        assert not waits.started.is_set(), "of what waits for another load no time has passed"
        ends["slow"].set()
    assert impatient.find("next.Job").cls().run(None) == 2
    gate.open.set()


async def test_a_cancelled_registration_comes_to_nothing(registry, tmp_path, gate):
    (tmp_path / "a.py").write_text(waiting(1))
    async with anyio.create_task_group() as group:
        group.start_soon(registry.register, tmp_path / "a.py")
        await gate.until_reached()
        group.cancel_scope.cancel()
    gate.open.set()
    assert not registry.bundles
    gate.reached.clear()
    await registry.register(tmp_path / "a.py")
    assert registry.find("a.Job").cls().run(None) == 1


async def test_two_that_register_the_same_file_at_once_get_the_same_bundle(registry, tmp_path, gate):
    (tmp_path / "a.py").write_text(waiting(1))
    found = []

    async def register():
        found.append(await registry.register(tmp_path / "a.py"))

    async with anyio.create_task_group() as group:
        group.start_soon(register)
        await gate.until_reached()
        group.start_soon(register)
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
    assert found[0] is found[1]


async def test_a_bundle_deregistered_while_it_loads_is_not_registered(registry, tmp_path, gate):
    (tmp_path / "a.py").write_text(waiting(1))
    async with anyio.create_task_group() as group:

        async def register():
            with pytest.raises(BundleLoadError, match="deregistered while it was loading"):
                await registry.register(tmp_path / "a.py")

        group.start_soon(register)
        await gate.until_reached()
        group.start_soon(registry.deregister, "a")
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
    assert not registry.bundles
    assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.a_")]


async def test_a_bundle_deregistered_while_it_reloads_stays_away(registry, tmp_path, gate):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    await registry.register(file)
    file.write_text(waiting(2))
    async with anyio.create_task_group() as group:

        async def reload():
            with pytest.raises(NoSuchBundleError, match="deregistered while it was loading"):
                await registry.reload("a")

        group.start_soon(reload)
        await gate.until_reached()
        await registry.deregister("a")
        gate.open.set()
    assert not registry.bundles
    assert not registry.tasks


async def test_closing_ends_a_load_that_is_under_way(tmp_path, gate):
    registry = TaskRegistry(collect_garbage=False)
    (tmp_path / "a.py").write_text(waiting(1))
    async with anyio.create_task_group() as group:

        async def register():
            with pytest.raises(ClosedError):
                await registry.register(tmp_path / "a.py")

        group.start_soon(register)
        await gate.until_reached()
        await registry.aclose()
    gate.open.set()
    with pytest.raises(ClosedError):
        await registry.register(tmp_path / "a.py")
    await stuck_threads_end(registry)


async def test_closing_undoes_a_load_that_has_just_ended_and_was_not_taken(tmp_path, gate):
    registry = TaskRegistry(collect_garbage=False)
    gate.undone = []
    (tmp_path / "a.py").write_text(
        task_module(1, before=f"import {GATE} as gate\ngate.wait()\ndef on_release(): gate.undone.append(1)")
    )
    raised = []

    async def register():
        try:
            await registry.register(tmp_path / "a.py")
        except ClosedError as error:
            raised.append(error)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(register)
            await gate.until_reached()
            (job,) = registry._versions._loader._waiting
            gate.open.set()
            assert job.settled.wait(PATIENCE)  # and the loop has no turn in which to take what came of it
            await registry.aclose()
    assert raised
    assert gate.undone == [1]
    assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.a_g")]


async def test_loading_does_not_deadlock_with_imports_of_the_host_and_of_running_tasks(registry, tmp_path):
    """Four threads import lazily from a running version while versions come and go."""
    files = {
        "etl/__init__.py": "",
        "etl/main.py": "from scattersphere.runnable import RunnableTask\nclass Job(RunnableTask):\n"
        "    def run(self, context):\n        import importlib\n"
        "        return [importlib.import_module(f'etl.m{i}').VALUE for i in range(20)]\n",
        **{f"etl/m{i}.py": "import etl.main, json, decimal\nVALUE = {v}\n" for i in range(20)},
    }
    bundle = await registry.register(write(tmp_path, files, v=0) / "etl")
    for number in range(1, 6):
        registry.pin(number, [bundle.current])
        task = registry.find("etl.main.Job").cls
        threads = [threading.Thread(target=task().run, args=[None]) for _ in range(4)]
        for thread in threads:
            thread.start()
        write(tmp_path, files, v=number)
        with anyio.fail_after(PATIENCE):
            await registry.reload("etl")
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join, PATIENCE)
        assert task().run(None) == [number - 1] * 20
        registry.unpin(number)


async def test_the_loop_goes_on_while_a_bundle_loads(registry, tmp_path, gate):
    (tmp_path / "a.py").write_text(waiting(1))
    async with anyio.create_task_group() as group:
        group.start_soon(registry.register, tmp_path / "a.py")
        await gate.until_reached()
        await anyio.lowlevel.checkpoint()  # we are here, and the import is in there
        gate.open.set()


async def test_closing_twice_and_closing_an_unused_registry_is_no_error():
    registry = TaskRegistry()
    await registry.aclose()
    await registry.aclose()


def test_garbage_is_collected_once_after_a_burst_of_releases():
    schedule = GarbageSchedule()
    assert schedule.due_in(0.0) is None
    schedule.released(10.0)
    schedule.released(10.5)
    assert schedule.due_in(10.5) == QUIET
    schedule.collected(11.5, 0.01)
    assert schedule.due_in(12.0) is None


def test_garbage_is_collected_although_releases_never_stop():
    schedule = GarbageSchedule()
    for tick in range(200):
        schedule.released(tick / 10)
    assert schedule.due_in(LATEST) == 0.0


def test_a_long_collection_is_followed_by_a_long_pause():
    schedule = GarbageSchedule()
    schedule.released(0.0)
    schedule.collected(1.0, 0.2)
    schedule.released(2.0)
    assert schedule.due_in(2.0) == pytest.approx(1.0 + SHARE * 0.2 - 2.0)


def test_what_is_released_while_a_collection_is_made_has_one_of_its_own():
    schedule = GarbageSchedule()
    schedule.released(0.0)
    schedule.released(1.1)
    schedule.collected(1.2, 0.2)
    assert schedule.due_in(100.0) == 0.0


async def test_a_failed_load_is_collected_though_no_load_follows(tmp_path, monkeypatch):
    from scattersphere.registry import loader as garbage

    monkeypatch.setattr(garbage, "QUIET", 0.0)
    registry, collected = TaskRegistry(), threading.Event()
    registry._versions._loader._on_collected = lambda _: collected.set()
    (tmp_path / "a.py").write_text("1 / 0\n")
    with pytest.raises(BundleLoadError):
        await registry.register(tmp_path / "a.py")
    assert await anyio.to_thread.run_sync(collected.wait, PATIENCE)
    await registry.aclose()


def test_a_version_that_was_released_after_a_collection_began_is_not_told_of(caplog):
    released = ReleasedVersions()
    namespace = SimpleNamespace(canary=Canary("a_g1"), slug="a_g1", prefix="a_g1.", logical=str, bundle="a")
    began = time.monotonic() - 1.0
    released.add("a@123456", namespace)
    released.warn(began)
    assert caplog.text == ""
    released.warn(time.monotonic() + 1.0)
    assert "a@123456 was released but is still in memory" in caplog.text


def test_a_host_may_leave_garbage_to_python():
    schedule = GarbageSchedule(enabled=False)
    schedule.released(0.0)
    assert schedule.due_in(5.0) is None


async def test_the_loaders_thread_collects_and_warns_of_what_is_left(tmp_path, caplog, monkeypatch):
    from scattersphere.registry import loader as garbage

    monkeypatch.setattr(garbage, "QUIET", 0.0)
    registry = TaskRegistry()
    collected, warn = threading.Event(), registry._versions._loader._on_collected

    def warn_and_tell(began):
        warn(began)
        collected.set()

    registry._versions._loader._on_collected = warn_and_tell
    (tmp_path / "a.py").write_text(task_module(1))
    await registry.register(tmp_path / "a.py")
    held = registry.find("a.Job").cls
    await registry.deregister("a")
    assert await anyio.to_thread.run_sync(collected.wait, PATIENCE)
    assert "was released but is still in memory" in caplog.text
    assert held is not None
    await registry.aclose()


@pytest.mark.anyio
async def test_files_are_deleted_when_there_is_nothing_to_load_and_at_the_latest_when_closing():
    order = []
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    never = lambda *_: AssertionError("stuck")  # noqa: E731
    await loader.call("a", lambda: order.append("load"), discard=lambda: None, stuck=never)
    loader.post("a", lambda: order.append("delete"))
    await loader.call("b", lambda: order.append("load"), discard=lambda: None, stuck=never)
    while "delete" not in order:  # noqa: ASYNC110 - the loader's thread has nobody to tell
        await anyio.sleep(0.01)
    assert order == ["load", "load", "delete"]
    for _ in range(PUT_OFF + 10):
        loader.post("a", lambda: order.append("more"))
    await loader.aclose()
    assert order.count("more") == PUT_OFF + 10


@pytest.mark.anyio
async def test_what_was_put_off_is_done_between_loads_once_it_is_much(gate):
    order = []
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)

    async def call(work):
        await loader.call("a", work, discard=lambda: None, stuck=lambda *_: AssertionError("stuck"))

    async with anyio.create_task_group() as group:
        group.start_soon(call, gate.wait)
        await gate.until_reached()
        group.start_soon(call, lambda: order.append("load"))
        while loader._queue.qsize() < 1:
            await anyio.lowlevel.checkpoint()
        for _ in range(PUT_OFF + 5):
            loader.post("a", lambda: order.append("delete"))
        gate.open.set()
    assert order.index("load") == 6
    await loader.aclose()
    assert order.count("delete") == PUT_OFF + 5


async def test_a_load_that_reads_is_not_cut_short_by_closing_which_waits_for_it():
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    reading, go_on, steps = threading.Event(), threading.Event(), []

    def work():
        with undisturbed():
            reading.set()
            go_on.wait(PATIENCE)
            for number in range(1_000):
                steps.append(number)  # noqa: PERF402 - one bytecode after the other, for an exception to come between
        steps.append("not reached")

    def stuck(*_):
        return AssertionError("stuck")

    async with anyio.create_task_group() as group:

        async def load():
            with pytest.raises(ClosedError):
                await loader.call("a", work, discard=lambda: steps.append("undone"), stuck=stuck)

        group.start_soon(load)
        assert await anyio.to_thread.run_sync(reading.wait, PATIENCE)
        group.start_soon(loader.aclose)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert steps == [*range(1_000), "undone"]
    assert not loader.stuck


def catching(gate, times, steps):
    """Return work that catches the first `times` exceptions that are raised in it, and goes on."""

    def work():
        for number in range(times):
            try:
                gate.reached.set()
                while not gate.open.is_set():
                    time.sleep(0.001)
            except BaseException:  # noqa: BLE001 - as the code of a bundle may
                steps.append(number)
        while (
            not gate.open.is_set()
        ):  # not `wait`, which would wait for a lock that it held when it was interrupted
            time.sleep(0.001)

    return work


async def test_code_that_catches_its_interruption_is_interrupted_again(gate, ends):
    ends["a"] = gate.reached
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    caught, undone = [], threading.Event()
    with pytest.raises(BundleLoadError, match="stuck"):
        await loader.call(
            "a",
            catching(gate, 3, caught),
            discard=undone.set,
            stuck=lambda *_: BundleLoadError("stuck"),
        )
    assert await anyio.to_thread.run_sync(undone.wait, PATIENCE)
    assert caught == [0, 1, 2]
    await loader.aclose()
    assert not loader.stuck


async def test_a_load_that_was_reading_when_it_was_given_up_by_closing_and_catches_that_is_interrupted_again(
    gate,
):
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    reading, go_on, caught, undone = threading.Event(), threading.Event(), [], threading.Event()
    body = catching(gate, 2, caught)

    def work():
        try:
            with undisturbed():
                reading.set()
                go_on.wait(PATIENCE)
        except BaseException:  # noqa: BLE001 - as the code of a bundle may, in whose import we read
            caught.append("first")
        body()

    async with anyio.create_task_group() as group:

        async def load():
            with pytest.raises(ClosedError):
                await loader.call("a", work, discard=undone.set, stuck=lambda *_: AssertionError("stuck"))

        group.start_soon(load)
        assert await anyio.to_thread.run_sync(reading.wait, PATIENCE)
        group.start_soon(loader.aclose)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        assert await anyio.to_thread.run_sync(undone.wait, PATIENCE)
    assert caught == ["first", 0, 1]
    assert not loader.stuck


async def test_closing_does_not_wait_for_code_that_catches_everything_but_names_it(gate):
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    over = threading.Event()

    def work():
        while not over.is_set():
            try:
                gate.reached.set()
                gate.open.wait()
            except BaseException:  # noqa: BLE001 - as the code of a bundle may
                pass

    async with anyio.create_task_group() as group:

        async def load():
            with pytest.raises(ClosedError):
                await loader.call("a", work, discard=lambda: None, stuck=lambda *_: AssertionError("stuck"))

        group.start_soon(load)
        await gate.until_reached()
        with anyio.fail_after(PATIENCE):
            await loader.aclose()
    assert loader.stuck == ("a",)
    over.set()
    gate.open.set()
    for thread in list(loader._given_up):
        await anyio.to_thread.run_sync(thread.join, PATIENCE)
    assert not loader.stuck


async def test_the_thread_ends_with_a_load_that_closing_interrupts_though_there_is_no_garbage_to_wake_it_for(
    gate,
):
    loader = Loader(60, GarbageSchedule(enabled=False), lambda _: None)
    threads = []

    async with anyio.create_task_group() as group:

        async def load():
            with pytest.raises(ClosedError):
                await loader.call(
                    "a", catching(gate, 1, []), discard=lambda: None, stuck=lambda *_: AssertionError("stuck")
                )

        group.start_soon(load)
        await gate.until_reached()
        threads.append(loader._thread)
        await loader.aclose()
    await anyio.to_thread.run_sync(threads[0].join, PATIENCE)
    assert not threads[0].is_alive()


async def test_a_thread_that_is_given_up_takes_no_work_from_the_one_in_its_place_however_soon_its_load_ends(
    gate,
):
    class Slow(Loader):
        """Puts another thread in the place of the one that was given up as late as it can be."""

        def _start_thread(self):
            if self._thread is not None:
                self._thread.join(PATIENCE)
                left.append(not self._thread.is_alive())
            super()._start_thread()

    left = []
    loader = Slow(0.0, GarbageSchedule(enabled=False), lambda _: None)
    with pytest.raises(BundleLoadError, match="stuck"):
        await loader.call(
            "a", catching(gate, 0, []), discard=lambda: None, stuck=lambda *_: BundleLoadError("stuck")
        )
    assert left == [True]
    loader.limit = PATIENCE
    assert (
        await loader.call("b", lambda: 7, discard=lambda: None, stuck=lambda *_: AssertionError("stuck")) == 7
    )
    last = loader._thread
    await loader.aclose()
    assert not last.is_alive()


async def test_work_goes_on_beside_a_tracer_also_after_a_load_that_was_interrupted(gate):
    """Before 3.13 a mark that something is to be raised, where nothing is, holds a traced thread for ever."""
    loader = Loader(PATIENCE, GarbageSchedule(enabled=False), lambda _: None)

    async def call():
        return await loader.call("b", lambda: 7, discard=lambda: None, stuck=lambda *_: BundleLoadError("no"))

    undone = threading.Event()
    threading.setprofile(lambda *_: None)
    try:
        assert await call() == 7
        loader.limit = 0.0
        with pytest.raises(BundleLoadError, match="stuck"):
            await loader.call(
                "a", catching(gate, 1, []), discard=undone.set, stuck=lambda *_: BundleLoadError("stuck")
            )
        assert await anyio.to_thread.run_sync(undone.wait, PATIENCE)
        loader.limit = PATIENCE
        assert await call() == 7
        await loader.aclose()
    finally:
        threading.setprofile(None)


def test_a_load_is_undone_however_often_it_is_interrupted_once_its_work_has_ended():
    class Late(_Job):
        """Is interrupted as late as it can be, twice."""

        times = 2

        def _settle(self):
            if self.times:
                self.times -= 1
                raise LoadAbandonedError
            super()._settle()

    undone = []
    job = Late("a", lambda: None, lambda: undone.append("undone"))
    job.work = job.abandon
    thread = threading.Thread(target=job.run)
    thread.start()
    thread.join(PATIENCE)
    assert undone == ["undone"]
    assert job.thread is None
    assert not job.times


def test_a_load_is_not_interrupted_inside_the_import_system_where_it_could_keep_the_lock_of_all_imports():
    code = "def import_(reached, go):\n    reached.set()\n    while not go:\n        pass\n"
    namespace = {}
    exec(compile(code, f"{loader_module.IMPORT_SYSTEM}._bootstrap>", "exec"), namespace)
    reached, go, imported, out = threading.Event(), [], [], threading.Event()

    def work():
        namespace["import_"](reached, go)
        imported.append(True)
        out.set()
        while True:
            pass

    undone = []
    job = _Job("a", work, lambda: undone.append(True))
    thread = threading.Thread(target=job.run)
    thread.start()
    assert reached.wait(PATIENCE)
    while sys._current_frames()[thread.ident].f_code.co_name != "import_":
        time.sleep(0)  # it still comes from `reached.set()`
    assert job.abandon()
    assert not job.interrupted
    go.append(True)
    assert out.wait(PATIENCE)
    while thread.is_alive():
        assert job.interrupt() is not False
        thread.join(0.01)
    assert imported == [True]
    assert undone == [True]


IMPORTS = {
    "a module that is not there": "try:\n        import nosuchmodule\n    except ImportError:\n        pass",
    "by name": "try:\n        importlib.import_module('nosuchmodule')\n    except ImportError:\n        pass",
    "the host's, anew": "sys.modules.pop('wave', None)\n    import wave",
    "its own, anew": "sys.modules.pop(f'{__package__}.util', None)\n    import app.util",
}
"""What code may do without end, and stand in the import system whenever another thread can look: there it reads files."""


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
async def test_a_load_that_imports_without_end_ends_at_an_import_though_it_is_never_seen_outside_of_one(
    impatient, tmp_path, gate, ends, monkeypatch, imports
):
    monkeypatch.setattr(_Job, "interrupt", lambda _: False)
    code = f"import importlib, sys, {GATE}\n{GATE}.reached.set()\nwhile True:\n    {imports}\n"
    write(tmp_path, {"app/__init__.py": "", "app/util.py": "", "app/a.py": code})
    ends["app"] = gate.reached
    with pytest.raises(BundleLoadError, match="not ready"):
        await impatient.register(tmp_path / "app")
    await stuck_threads_end(impatient)
    others = threading.Thread(target=importlib.import_module, args=["nosuchmodule.either"])
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    others.start()
    others.join(PATIENCE)
    assert not others.is_alive(), "the lock of all imports was let go"


def test_what_is_read_for_a_load_that_was_given_up_is_not_cut_short_by_an_import_of_it(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [FINDER, *sys.meta_path])
    imported, undone = [], []

    def work():
        with undisturbed():
            job.abandon()
            sys.modules.pop("wave", None)
            importlib.import_module("wave")
            imported.append(True)
        imported.append("not reached")

    job = _Job("a", work, lambda: undone.append(importlib.import_module("wave")))
    thread = threading.Thread(target=job.run)
    thread.start()
    thread.join(PATIENCE)
    assert imported == [True]
    assert undone == [sys.modules["wave"]]


def test_a_load_that_could_not_be_interrupted_is_looked_at_again_as_soon():
    looks = iter([False, False, True, True, False, True, None])
    pauses = []
    thread = SimpleNamespace(join=pauses.append, is_alive=lambda: True)
    loader_module._interrupt_until_ended(SimpleNamespace(interrupt=lambda: next(looks)), thread)
    first = loader_module.INTERRUPT_AGAIN
    assert pauses == [first, first, first, 2 * first, 4 * first, 4 * first, 8 * first]


class Interrupted:
    """Loads that are given up, each at a line of ours at which none was before."""

    def __init__(self, tmp_path, monkeypatch, before):
        self.file = tmp_path / "a.py"
        self.file.write_text(task_module(1, before=f"import {GATE}\n{before}"))
        self.monkeypatch = monkeypatch
        self.registry = TaskRegistry(collect_garbage=False)
        self.undone = []
        """What `on_release` of the bundle has noted in the last load."""
        self.seen = set()
        self.own = f"{Path(scattersphere.registry.__file__).parent}{os.sep}"

    def load(self, *, fails):
        """Load it, and interrupt that behind the call of the gate; return what is left of it, None at the end of lines."""
        load = Load(self.file, "a", self.registry._versions.settings)
        job = _Job("a", load.build, load.discard)
        self.undone.clear()

        def tracer(frame, event, _arg):
            file = frame.f_code.co_filename
            place = (file, frame.f_lineno)
            counts = file.startswith(self.own) and file != loader_module.__file__
            if event == "line" and counts and place not in self.seen:
                self.seen.add(place)
                sys.settrace(None)
                assert job.abandon() or job.thread is None
            return tracer

        def traced():
            frame = sys._getframe()
            while frame := frame.f_back:
                frame.f_trace = tracer
            sys.settrace(tracer)
            if fails:
                raise RuntimeError

        self.monkeypatch.setitem(sys.modules, GATE, SimpleNamespace(traced=traced, undone=self.undone))
        load.read()
        thread = threading.Thread(target=job.run)
        thread.start()
        thread.join(PATIENCE)
        if not job.abandoned:
            load.discard()
            return None
        left = [name for name in sys.modules if load.slug in name]
        left += [load.slug] * (
            FINDER.namespace(load.slug) is not None or load.slug in vars(scattersphere.bundles)
        )
        left += [name for name in linecache.cache if load.slug in name]
        left += [finder for finder in sys.meta_path if load.slug in type(finder).__module__]
        store = self.registry._versions.settings.store
        return left + [folder.name for folder in store.folder.glob(load.slug)]

    def all_left(self, *, fails):
        """Yield what is left of each load, and what its `on_release` has noted."""
        while (left := self.load(fails=fails)) is not None:
            yield left, list(self.undone)
        self.registry._versions.settings.store.close()


def test_a_load_is_undone_wholly_at_whichever_line_of_its_undoing_it_is_interrupted(tmp_path, monkeypatch):
    found = [left for left, _ in Interrupted(tmp_path, monkeypatch, f"{GATE}.traced()").all_left(fails=True)]
    assert len(found) > 20
    assert not any(found)


REGISTERS_ITSELF = f"""
import sys
class Finder:
    def find_spec(self, name, path, target=None): return None
sys.meta_path.append(Finder())
def on_release(): {GATE}.undone.append(1)
{GATE}.traced()
"""


def test_a_load_is_undone_wholly_at_whichever_line_behind_its_code_it_is_interrupted(tmp_path, monkeypatch):
    found = list(Interrupted(tmp_path, monkeypatch, REGISTERS_ITSELF).all_left(fails=False))
    assert len(found) > 40
    assert not [left for left, _ in found if left]
    assert [undone for _, undone in found] == [[1]] * len(found)

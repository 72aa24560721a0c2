"""Watching real files: each way in which files change on real machines. On asyncio and on trio."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
import zipfile
from io import BytesIO
from itertools import pairwise
from unittest.mock import AsyncMock

import anyio
import anyio.to_thread
import pytest
from livebundles import QUICK, Live, live, replace, same_times, task
from patience import PATIENCE

from scattersphere import NoSuchBundleError, NoSuchTaskError, Server, WatchDelays
from scattersphere.watching.watcher import POLL_SHARE, WatchedPath, Watcher

pytestmark = pytest.mark.anyio


ON_ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For cases that take seconds by their nature."""


@pytest.fixture
async def at(tmp_path):
    """A server that watches the bundle `a`, a module whose task returns 1."""
    (tmp_path / "a.py").write_text(task(1))
    async with live() as at:
        await at.register(tmp_path / "a.py")
        yield at


async def in_thread(function, *args):
    return await anyio.to_thread.run_sync(function, *args)


# ---- how files are written


async def test_a_file_written_in_place_becomes_the_current_version(at, tmp_path):
    (tmp_path / "a.py").write_text(task(2))
    await at.until_value(2)


async def test_a_file_replaced_by_rename_three_times_in_a_row_is_followed_each_time(at, tmp_path):
    for value in (2, 3, 4):
        replace(tmp_path / "a.py", task(value))
        await at.until_value(value)


async def test_a_file_saved_over_a_backup_as_vim_does_is_followed(at, tmp_path):
    for value in (2, 3):
        (tmp_path / "a.py").rename(tmp_path / "a.py~")
        (tmp_path / "a.py").write_text(task(value))
        (tmp_path / "a.py~").unlink()
        await at.until_value(value)


async def test_delete_and_create_anew_within_30_ms_is_a_change_and_no_going(at, tmp_path):
    (tmp_path / "a.py").unlink()
    await anyio.sleep(0.03)  # this is the case, not a wait for something
    (tmp_path / "a.py").write_text(task(2))
    await at.until_value(2)
    assert "bundle-removed" not in {str(e.kind) for e in _events_so_far(at.server)}


def _events_so_far(server):
    number, found = 0, []
    while (event := server._feed.after(number)) is not None:
        found.append(event)
        number = event.seq
    return found


async def test_a_touch_and_a_chmod_reload_nothing(at, tmp_path):
    version = at.server.registry.bundles["a"].current
    (tmp_path / "a.py").touch()
    (tmp_path / "a.py").chmod(0o640)
    await at.until_settled(tmp_path)
    assert at.server.registry.bundles["a"].current is version
    assert "a" not in at.loads


async def test_an_edit_of_the_same_size_in_the_same_second_is_a_change(at, tmp_path):
    for value in (2, 3, 4):
        size = (tmp_path / "a.py").stat().st_size
        (tmp_path / "a.py").write_text(task(value))
        assert (tmp_path / "a.py").stat().st_size == size
        await at.until_value(value)


async def test_an_edit_of_the_same_size_and_the_same_mtime_is_a_change(at, tmp_path):
    same_times(tmp_path / "a.py", task(2))
    await at.until_value(2)


async def test_an_mtime_that_goes_backwards_is_a_change(at, tmp_path):
    for value, moment in ((2, 1_000_000_000), (3, 500_000_000)):
        (tmp_path / "a.py").write_text(task(value))
        os.utime(tmp_path / "a.py", (moment, moment))
        await at.until_value(value)


async def test_files_of_editors_and_of_python_are_no_part_of_a_bundle(tmp_path):
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "__init__.py").write_text(task(1))
    async with live() as at:
        await at.register(tmp_path / "etl")
        (tmp_path / "etl" / "__pycache__").mkdir()
        for name in (
            ".__init__.py.swp",
            "__init__.py~",
            "4913.tmp",
            "__pycache__/x.cpython-311.pyc",
            ".#x.py",
        ):
            (tmp_path / "etl" / name).write_text("no Python")
        await at.until_settled(tmp_path)
        assert "etl" not in at.loads
        assert at.failures == []


# ---- bursts


@ON_ONE_LOOP
async def test_a_hundred_saves_in_a_second_are_one_reload(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task(0))
    settle = 0.3
    async with live(watch=WatchDelays(settle=settle)) as at:
        await at.register(file)
        moments = []

        def save():
            for value in range(1, 101):
                (replace if value % 2 else _in_place)(file, task(value))
                moments.append(time.monotonic())
                time.sleep(0.01)

        await in_thread(save)
        await at.until_value(100)
        # On a machine so busy that the writer itself paused, a pause may have counted as the end.
        pauses = sum(after - before > settle / 2 for before, after in pairwise(moments))
        assert at.loads.count("a") <= 1 + pauses


def _in_place(file, text):
    file.write_text(text)


@ON_ONE_LOOP
async def test_23_files_copied_at_80_ms_intervals_are_one_reload(tmp_path):
    source, target = tmp_path / "new", tmp_path / "etl"
    for folder, value in ((source, 2), (target, 1)):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for number in range(21):
            (folder / f"m{number}.py").write_text(f"VALUE = {value}\n")
        imports = "".join(f"from etl.m{number} import VALUE as v{number}\n" for number in range(21))
        names = ", ".join(f"v{number}" for number in range(21))
        (folder / "z.py").write_text(task(0, imports).replace("return 0", f"return {{{names}}}"))
    async with live(watch=WatchDelays(settle=0.4)) as at:
        await at.register(target)
        assert at.value("etl") == {1}
        moments = []

        def copy():
            for file in sorted(source.iterdir()):
                shutil.copyfile(file, target / file.name)
                moments.append(time.monotonic())
                time.sleep(0.08)

        assert len(list(source.iterdir())) == 23
        await in_thread(copy)
        await at.until_value({2}, "etl")
        pauses = sum(after - before > 0.2 for before, after in pairwise(moments))
        assert at.loads.count("etl") <= 1 + pauses


@ON_ONE_LOOP
async def test_an_archive_that_is_being_written_for_two_seconds_is_loaded_when_it_is_whole(tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(_archive(1))
    async with live(watch=WatchDelays(settle=0.3)) as at:
        await at.register(file)
        content = _archive(2)
        size = len(content) // 25 + 1
        moments = []

        def write():
            with file.open("wb") as stream:
                for start in range(0, len(content), size):
                    stream.write(content[start : start + size])
                    stream.flush()
                    moments.append(time.monotonic())
                    time.sleep(0.08)

        await in_thread(write)
        await at.until_value(2)
        assert at.server.registry.bundles["a"].error is None
        assert at.loads.count("a") == 1
        pauses = sum(after - before > 0.2 for before, after in pairwise(moments))
        assert len(at.failures) <= pauses  # on a busy machine the writer may rest as if it were done


def _archive(value):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/__init__.py", "")
        archive.writestr("a/jobs.py", task(value))
        archive.writestr("a/data.bin", os.urandom(2_000))
    return stream.getvalue()


# ---- links and folders


async def test_a_kubernetes_volume_that_swaps_its_data_link_is_followed_there_and_back(tmp_path):
    for version in (1, 2):
        (tmp_path / f"..v{version}").mkdir()
        (tmp_path / f"..v{version}" / "a.py").write_text(task(version))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "a.py").symlink_to("..data/a.py")
    async with live() as at:
        await at.register(tmp_path / "a.py")
        for version in (2, 1, 2, 1):
            _swap(tmp_path / "..data", f"..v{version}")
            await at.until_value(version)


async def test_capistranos_current_link_is_followed_there_and_back_and_edits_behind_it_too(tmp_path):
    for version in (1, 2):
        (tmp_path / "releases" / str(version) / "etl").mkdir(parents=True)
        (tmp_path / "releases" / str(version) / "etl" / "__init__.py").write_text(task(version))
    (tmp_path / "current").symlink_to("releases/1")
    async with live() as at:
        await at.register(tmp_path / "current" / "etl")
        for version in (2, 1):
            _swap(tmp_path / "current", f"releases/{version}")
            await at.until_value(version, "etl")
        (tmp_path / "releases" / "1" / "etl" / "__init__.py").write_text(task("edited"))
        await at.until_value("edited", "etl")
        _swap(tmp_path / "current", "releases/2")
        await at.until_value(2, "etl")
        (tmp_path / "releases" / "2" / "etl" / "__init__.py").write_text(task("edited too"))
        await at.until_value("edited too", "etl")


def _swap(link, target):
    beside = link.with_name(link.name + "_new")
    beside.symlink_to(target)
    beside.replace(link)


async def test_a_folder_that_vanishes_is_withdrawn_and_registered_again_when_it_comes_back(tmp_path):
    folder = tmp_path / "etl"
    folder.mkdir()
    (folder / "__init__.py").write_text(task(1))
    async with live() as at:
        await at.register(folder)
        for value in (2, 3):
            shutil.rmtree(folder)
            await at.until(lambda: "etl" not in at.server.registry.bundles)
            with pytest.raises(NoSuchTaskError):
                at.server.registry.find("etl.Job")
            folder.mkdir()
            (folder / "__init__.py").write_text(task(value))
            await at.until_value(value, "etl")
        (folder / "__init__.py").write_text(task(4))  # and is heard of as before
        await at.until_value(4, "etl")


async def test_a_folder_that_is_deleted_and_created_anew_at_once_is_heard_of_afterwards(tmp_path):
    folder = tmp_path / "etl"
    folder.mkdir()
    (folder / "__init__.py").write_text(task(1))
    async with live() as at:
        await at.register(folder)
        await at.until_settled(tmp_path)
        shutil.rmtree(folder)  # the system's watch goes with it
        folder.mkdir()
        (folder / "__init__.py").write_text(task(2))
        await at.until_value(2, "etl")
        await at.until_settled(tmp_path)
        (folder / "__init__.py").write_text(task(3))
        await at.until_value(3, "etl")


async def test_a_folder_whose_parents_vanish_too_is_found_when_they_come_back(tmp_path):
    folder = tmp_path / "deep" / "er" / "etl"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(task(1))
    async with live() as at:
        await at.register(folder)
        shutil.rmtree(tmp_path / "deep")
        await at.until(lambda: "etl" not in at.server.registry.bundles)
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(task(2))
        await at.until_value(2, "etl")


async def test_a_new_folder_inside_a_package_is_watched_as_well(tmp_path):
    folder = tmp_path / "etl"
    folder.mkdir()
    (folder / "__init__.py").write_text(task(1))
    async with live() as at:
        await at.register(folder)
        (folder / "sub").mkdir()
        (folder / "sub" / "__init__.py").write_text("VALUE = 2\n")
        (folder / "__init__.py").write_text(
            task(0, "from etl.sub import VALUE").replace("return 0", "return VALUE")
        )
        await at.until_value(2, "etl")
        (folder / "sub" / "__init__.py").write_text("VALUE = 3\n")
        await at.until_value(3, "etl")


async def test_a_bundle_that_vanished_can_be_deregistered_and_then_does_not_come_back(at, tmp_path):
    (tmp_path / "a.py").unlink()
    await at.until(lambda: "a" not in at.server.registry.bundles)
    await at.server.deregister("a")
    (tmp_path / "a.py").write_text(task(2))
    await at.until_settled(tmp_path)
    assert "a" not in at.server.registry.bundles
    with pytest.raises(NoSuchBundleError):
        await at.server.deregister("a")


async def test_a_change_that_was_decided_on_before_a_bundle_was_deregistered_does_not_bring_it_back(at):
    watched = at.server._bundles._watched["a"]
    await at.server.deregister("a")
    await watched.on_changed("what was seen")
    assert "a" not in at.server.registry.bundles


# ---- failures


async def test_a_broken_edit_keeps_the_last_good_version_and_is_tried_once(at, tmp_path):
    (tmp_path / "a.py").write_text("class Broken(:\n")
    await at.until(lambda: at.server.registry.bundles["a"].error is not None)
    assert at.value() == 1
    assert "SyntaxError" in at.server.registry.bundles["a"].error
    await at.until_settled(tmp_path)
    assert at.failures == ["a"]
    (tmp_path / "a.py").write_text(task(2))
    await at.until_value(2)
    assert at.server.registry.bundles["a"].error is None


async def test_an_edit_while_the_last_one_is_loading_is_not_lost(at, tmp_path, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "_scattersphere_test", (loading, go_on), raising=False)
    wait = f"import threading\nloading, go_on = threading._scattersphere_test\nloading.set()\ngo_on.wait({PATIENCE})\n"
    (tmp_path / "a.py").write_text(task(2, wait))
    assert await in_thread(loading.wait, PATIENCE)
    (tmp_path / "a.py").write_text(task(3))
    go_on.set()
    await at.until_value(3)


# ---- how it is told to watch


async def test_a_bundle_registered_without_watch_changes_only_on_reload(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live() as at:
        await at.register(tmp_path / "a.py", watch=False)
        (tmp_path / "a.py").write_text(task(2))
        await at.until_settled(tmp_path)
        assert at.value() == 1
        await at.server.reload("a")
        assert at.value() == 2


async def test_a_server_without_watch_has_no_watcher(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live(watch=False) as at:
        await at.register(tmp_path / "a.py")
        (tmp_path / "a.py").write_text(task(2))
        assert at.server._bundles.watcher is None
        assert (await at.server.reload("a")).current is not None
        assert at.value() == 2


async def test_what_reload_has_taken_up_is_not_loaded_again(at, tmp_path):
    (tmp_path / "a.py").write_text("class Broken(:\n")
    with pytest.raises(Exception, match="SyntaxError"):
        await at.server.reload("a")
    await at.until_settled(tmp_path)
    assert at.failures == ["a"]


async def test_what_is_being_reloaded_is_not_loaded_beside_it_however_long_it_takes(
    at, tmp_path, monkeypatch
):
    reload, first = at.server.registry.reload, [True]

    async def slowly(name):
        if name == "a" and first.pop():
            first.append(False)
            await at.until_settled(tmp_path)  # the watcher has had all the time it needs
            await at.server.deregister("marker0")
        return await reload(name)

    monkeypatch.setattr(at.server.registry, "reload", slowly)
    (tmp_path / "a.py").write_text("class Broken(:\n")
    with pytest.raises(Exception, match="SyntaxError"):
        await at.server.reload("a")
    await at.until_settled(tmp_path)
    assert at.failures == ["a"]


async def test_what_a_cancelled_reload_has_not_taken_up_is_still_news(at, tmp_path, monkeypatch):
    reload, began = at.server.registry.reload, anyio.Event()

    async def never(name):
        began.set()
        await anyio.sleep_forever()

    with monkeypatch.context() as patch:
        patch.setattr(at.server.registry, "reload", never)
        (tmp_path / "a.py").write_text(task(2))
        async with anyio.create_task_group() as group:
            group.start_soon(at.server.reload, "a")
            with anyio.fail_after(PATIENCE):
                await began.wait()
            patch.setattr(at.server.registry, "reload", reload)
            group.cancel_scope.cancel()
    await at.until_value(2)


async def test_a_bundle_that_was_edited_while_nobody_watched_is_looked_at_when_watching_begins(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live() as at:
        await at.register(tmp_path / "a.py", watch=False)
        (tmp_path / "a.py").write_text(task(2))
        await at.register(tmp_path / "a.py")
        await at.until_value(2)


async def test_without_notification_the_poll_finds_each_change(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("scattersphere.watching.notify.RustNotify", refuse)
    (tmp_path / "a.py").write_text(task(1))
    delays = WatchDelays(settle=0.02, vanish=0.05, poll=0.05)
    async with live(tmp_path, watch=delays) as at:
        assert at.value() == 1
        for value in (2, 3):
            (tmp_path / "a.py").write_text(task(value))
            await at.until_value(value)
        assert "inotify instance limit" in at.server._bundles.watcher.polling_reason
        (tmp_path / "b.py").write_text(task("dropped"))
        await at.until_value("dropped", "b")
        (tmp_path / "b.py").unlink()
        await at.until(lambda: "b" not in at.server.registry.bundles)


class SilentNotifier:
    """A mount without notification: watches can be had, and say nothing."""

    def __init__(self, folders):
        self._closed = threading.Event()

    def wait(self):
        self._closed.wait()

    def close(self):
        self._closed.set()


async def test_on_a_mount_that_notifies_nobody_the_poll_finds_each_change(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    server = Server(watch=WatchDelays(settle=0.02, poll=0.05))
    made = []

    def listen(folders):
        made.append(SilentNotifier(folders))
        return made[-1]

    server._bundles.watcher._make_notifier = listen
    async with server:
        at = Live(server)
        await at.register(tmp_path / "a.py")
        value = 2
        while value < 4 or len(made) == 1:  # what was not heard of has the watches made anew, sooner or later
            replace(tmp_path / "a.py", task(value))
            await at.until_value(value)
            await anyio.sleep(0.01)  # an edit while the last one is loading is looked for in any case
            value += 1
            assert value < 100
        assert server._bundles.watcher.polling_reason is None


# ---- leaving


async def test_closing_while_something_is_loading_and_settling_leaves_nothing(tmp_path):
    for number in range(5):
        (tmp_path / f"b{number}.py").write_text(task(number))
    for _ in range(3):
        async with live(tmp_path) as at:
            for number in range(5):
                (tmp_path / f"b{number}.py").write_text(task("edited", "import time; time.sleep(0.02)"))
            await at.until_value("edited", "b0")
        assert (
            at.server._bundles.watcher._ended.is_set()
        )  # threads and descriptors are counted by conftest.py


async def test_a_server_that_is_cancelled_while_it_adopts_leaves_nothing(tmp_path):
    (tmp_path / "slow.py").write_text(task(1, "import time; time.sleep(0.3)"))
    with anyio.move_on_after(0.1) as scope:
        async with Server(bundle_roots=[tmp_path], watch=QUICK):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


# ---- what it costs


class Heavy(WatchedPath):
    """A thing at which a look takes processor time."""

    def poll(self):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return "same"

    async def on_changed(self, seen): ...

    async def on_removed(self): ...


async def test_polling_takes_at_most_a_small_share_of_a_core_where_the_system_notifies(tmp_path):
    server = Server(watch=WatchDelays(poll=0.01))
    async with server:
        watcher = server._bundles.watcher
        for number in range(3):
            watcher.add(Heavy(tmp_path / str(number)), "same")
        with anyio.fail_after(PATIENCE):
            while watcher._poll_pause == 0.01:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.01)
        assert watcher._poll_pause >= 3 * 0.02 / POLL_SHARE


async def test_a_server_that_watches_nothing_has_no_thread_and_no_descriptor_of_the_watcher():
    async with Server() as server:
        assert server._bundles.watcher._notifier is None


async def test_a_defect_in_one_thing_does_not_end_the_watching_of_others(at, tmp_path, caplog):
    class Defect(Heavy):
        def poll(self):
            return object()

        async def on_changed(self, seen):
            raise ZeroDivisionError

    thing = Defect(tmp_path / "x")
    thing.settle = 0.0
    at.server._bundles.watcher.add(thing, "same")
    (tmp_path / "a.py").write_text(task(2))
    await at.until_value(2)
    at.server._bundles.watcher.remove(thing)
    assert "ZeroDivisionError" in caplog.text


@ON_ONE_LOOP
async def test_data_that_is_written_all_the_time_is_a_problem_that_names_it_and_keeps_no_edit_waiting(
    tmp_path,
):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "job.py").write_text(task(1))
    delays = WatchDelays(settle=0.2, restless=0.5, poll=0.05)
    stop = threading.Event()

    def write():
        number = 0
        while not stop.wait(0.02):
            number += 1
            (folder / "state.dat").write_text("x" * number)

    async with live(watch=delays) as at:
        await at.register(folder)
        thread = threading.Thread(target=write)
        thread.start()
        try:
            with anyio.fail_after(PATIENCE):
                while folder not in at.server.problems:  # noqa: ASYNC110 - no event tells of a problem
                    await anyio.sleep(0.02)
            assert "state.dat" in at.server.problems[folder]
            assert ".scattersphereignore" in at.server.problems[folder]
            (folder / "job.py").write_text(task(2))
            await at.until_value(2)
        finally:
            stop.set()
            thread.join()
        with anyio.fail_after(PATIENCE):
            while folder in at.server.problems:  # noqa: ASYNC110 - the same
                await anyio.sleep(0.02)


async def test_a_database_that_is_written_in_a_watched_folder_makes_no_version(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "job.py").write_text(task(1))
    async with live() as at:
        await at.register(folder)
        for number in range(5):
            (folder / "state.sqlite3").write_text("x" * number)
            (folder / "app.log").write_text("x" * number)
            await at.until_settled(tmp_path)
        assert "a" not in at.loads


async def test_a_file_name_that_is_no_utf8_ends_no_notification(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "job.py").write_text(task(1))
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.txt")
    async with live() as at:
        await at.register(folder)
        watcher = at.server._bundles.watcher
        for value in (2, 3):
            first = watcher._notifier
            watcher._failed_at = -math.inf  # as if the last one were long ago
            with open(odd, "a") as stream:  # noqa: ASYNC230, PTH123 - no path of ours can name it
                stream.write("x")
            with anyio.fail_after(PATIENCE):
                while watcher._notifier in {first, None}:  # noqa: ASYNC110 - nothing tells of it
                    await anyio.sleep(0.01)
            assert watcher.polling_reason is None
            (folder / "job.py").write_text(task(value))
            await at.until_value(value)
        assert "not plain UTF-8" in at.server.registry.bundles["a"].warnings[0]


async def test_a_notification_that_fails_again_and_again_waits_for_the_poll(tmp_path):
    made = []

    class Failing:
        def wait(self):
            raise RuntimeError("broken for good")

        def close(self): ...

    def listen(folders):
        made.append(folders)
        return Failing()

    watcher = Watcher(WatchDelays(poll=600.0), listen=listen)
    thing = WatchedPath(tmp_path)
    thing.poll = lambda: "there"
    thing.on_changed = AsyncMock()
    async with anyio.create_task_group() as group:
        await watcher.open(lambda main, name: group.start_soon(lambda: main))
        watcher.add(thing)
        with anyio.fail_after(PATIENCE):
            while watcher.polling_reason is None or len(made) < 2:  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.01)
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
        await watcher.aclose()
    assert len(made) == 2


async def test_a_server_that_was_entered_listens_to_its_roots_and_is_at_rest(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live(tmp_path) as here:
        watcher = here.server._bundles.watcher
        assert watcher is not None
        assert str(tmp_path) in watcher._folders
        assert not any(entry.stale for entry in watcher._entries.values())

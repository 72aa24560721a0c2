"""Cases in which code that is replaced while it runs goes wrong elsewhere; each has its name here."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from bundlefiles import task_module, write
from patience import PATIENCE

from scattersphere.registry.registry import TaskRegistry
from scattersphere.registry.snapshots.store import SnapshotStore, user_folder

pytestmark = pytest.mark.anyio

HEAD = "from scattersphere.runnable import RunnableTask\n"


def archive(path, files, **values):
    """Write an archive with `files`; `{v}` in them is replaced."""
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text.replace("{v}", str(values.get("v", ""))))
    return path


def run(registry, path="etl.main.Job", bundle=None):
    return registry.find(path, bundle).cls().run(None)


async def test_class_variables_with_postponed_annotations_are_no_fields(registry, tmp_path):
    code = (
        "from __future__ import annotations\nimport typing\nfrom dataclasses import dataclass, fields\n"
        "from typing import ClassVar\n" + HEAD + "@dataclass(slots=True)\nclass Row:\n    x: int\n"
        "    kind: ClassVar[str] = 'row'\n    more: typing.ClassVar[list[int]] = []\n"
        "class Job(RunnableTask):\n    limit: ClassVar[int] = 3\n    n: int = 1\n"
        "    def run(self, context): return [f.name for f in fields(Row)], typing.get_type_hints(Row)['x']\n"
    )
    await registry.register(write(tmp_path, {"a.py": code}) / "a.py")
    assert list(registry.find("a.Job").parameters) == ["n"]
    assert run(registry, "a.Job") == (["x"], int)


async def test_a_slotted_task_class_is_found_once_and_is_the_class_of_its_module(registry, tmp_path):
    code = (
        "import attrs, dataclasses\n"
        + HEAD
        + "@dataclasses.dataclass(slots=True)\nclass Item:\n    x: int = 1\n"
        "class Job(RunnableTask):\n    item: Item = attrs.field(factory=Item)\n"
        "    def run(self, context): return type(self) is Job and type(self.item) is Item\n"
    )
    bundle = await registry.register(write(tmp_path, {"a.py": code}) / "a.py")
    assert list(bundle.tasks) == ["a.Job"]
    assert run(registry, "a.Job") is True


async def test_a_first_import_inside_a_function_after_the_files_changed_is_of_the_old_version(
    registry, tmp_path
):
    files = {
        "etl/__init__.py": "",
        "etl/main.py": HEAD + "class Job(RunnableTask):\n    def run(self, context):\n"
        "        from etl.test_late import VALUE\n        return VALUE\n",
        "etl/test_late.py": "VALUE = {v}\n",  # of a name that the search for tasks does not import
    }
    bundle = await registry.register(write(tmp_path, files, v=1) / "etl")
    registry.pin(1, [bundle.current])
    old = registry.find("etl.main.Job").cls
    write(tmp_path, files, v=2)  # not even reloaded
    assert old().run(None) == 1
    await registry.reload("etl")
    (tmp_path / "etl" / "test_late.py").unlink()
    assert run(registry) == 2


async def test_two_bundles_with_equal_names_under_forty_threads(registry, tmp_path):
    files = {
        "etl/__init__.py": "",
        "etl/main.py": HEAD
        + "class Job(RunnableTask):\n    def run(self, context):\n"
        + "        import importlib, etl.test_a\n        from etl import test_b\n        from . import test_c\n"
        + "        return {etl.test_a.VALUE, test_b.VALUE, test_c.VALUE, importlib.import_module('etl.test_d').VALUE}\n",
        **{
            f"etl/test_{x}.py": "import time\ntime.sleep(0.01)\nfrom etl.test_e import VALUE\n"
            for x in "abcd"
        },
        "etl/test_e.py": "import time\ntime.sleep(0.01)\nVALUE = {v}\n",
    }
    for value in (1, 2):
        await registry.register(write(tmp_path / str(value), files, v=value) / "etl", name=f"b{value}")
    tasks = [registry.find("etl.main.Job", f"b{1 + number % 2}").cls for number in range(40)]
    together = threading.Barrier(40)

    def call(task):
        together.wait(PATIENCE)
        return task().run(None)

    def call_all():
        with ThreadPoolExecutor(40) as pool:
            return list(pool.map(call, tasks))

    assert await anyio.to_thread.run_sync(call_all) == [{1}, {2}] * 20


async def test_a_bundle_called_email_leaves_the_standard_library_alone(registry, tmp_path):
    import email.message

    body = "import email.message\n        return email.message.EmailMessage"
    (tmp_path / "email.py").write_text(
        f"{HEAD}class Job(RunnableTask):\n    def run(self, context):\n        {body}\n"
    )
    bundle = await registry.register(tmp_path / "email.py")
    assert bundle.name == "email"
    assert run(registry, "email.Job") is email.message.EmailMessage
    assert "module email has the name of a module of the host" in bundle.warnings[0]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
async def test_getsource_is_right_in_both_versions(registry, tmp_path, packed):
    files = {
        "etl/__init__.py": "",
        "etl/main.py": HEAD + "class Job(RunnableTask):\n    def run(self, context): return 'version {v}'\n",
    }

    def put(value):
        if packed:
            return archive(tmp_path / "etl.zip", files, v=value)
        return write(tmp_path, {**files, "etl/main.py": "\n" * value + files["etl/main.py"]}, v=value) / "etl"

    bundle = await registry.register(put(1))
    registry.pin(1, [bundle.current])
    old = registry.find("etl.main.Job").cls
    assert "'version 1'" in inspect.getsource(old)
    put(2)
    await registry.reload("etl")
    new = registry.find("etl.main.Job").cls
    assert "'version 1'" in inspect.getsource(old)
    assert "'version 2'" in inspect.getsource(new)
    assert inspect.getsource(old.run).strip() == "def run(self, context): return 'version 1'"


async def test_data_of_an_archive_is_read_by_file_and_by_resources_after_it_was_replaced(registry, tmp_path):
    files = {
        "etl/__init__.py": "",
        "etl/d.txt": "{v}",
        "etl/main.py": HEAD
        + "from importlib.resources import files\nfrom pathlib import Path\n"
        + "class Job(RunnableTask):\n    def run(self, context):\n"
        + "        return (Path(__file__).with_name('d.txt').read_text(), files('etl').joinpath('d.txt').read_text())\n",
    }
    bundle = await registry.register(archive(tmp_path / "etl.zip", files, v=1))
    registry.pin(1, [bundle.current])
    old = registry.find("etl.main.Job").cls
    archive(tmp_path / "etl.zip", files, v=2)
    await registry.reload("etl")
    assert (old().run(None), run(registry)) == (("1", "1"), ("2", "2"))
    (tmp_path / "etl.zip").unlink()
    assert old().run(None) == ("1", "1")


@pytest.mark.parametrize("shift", [0, -3600, 3600], ids=["equal time", "time backwards", "time forwards"])
async def test_a_change_is_seen_whatever_the_modification_time_says(registry, tmp_path, shift):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    times = file.stat()
    await registry.register(file)
    file.write_text(task_module(2))  # of the same size
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + shift * 10**9))
    await registry.reload("a")
    assert run(registry, "a.Job") == 2


async def test_a_touch_or_a_chmod_makes_no_version(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    before = (await registry.register(file)).current
    os.utime(file)
    file.chmod(0o600)
    assert (await registry.reload("a")).current is before


async def test_a_host_that_is_killed_while_it_loads_leaves_nothing_for_long(tmp_path):
    (tmp_path / "a.py").write_text(
        task_module(1, before="import sys, time\nprint('loading', flush=True)\ntime.sleep(60)")
    )
    program = (
        "import sys, anyio\nfrom scattersphere import Server\n"
        "async def main():\n    async with Server() as server:\n        await server.register(sys.argv[1])\n"
        "anyio.run(main)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.py")]

    def begin_and_kill():
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"loading\n"
            left = [store for store in user_folder().iterdir() if store.name.startswith(f"{child.pid}-")]
            child.send_signal(signal.SIGKILL)
            child.wait()
        return left

    (left,) = await anyio.to_thread.run_sync(begin_and_kill)
    assert left.exists()
    store = SnapshotStore()  # that of the next host
    assert not left.exists()
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a.py"]


async def test_two_registries_load_the_same_bundle_and_one_of_them_closes(tmp_path):
    files = {
        "etl/__init__.py": "",
        "etl/main.py": HEAD + "class Job(RunnableTask):\n    def run(self, context):\n"
        "        from etl.test_late import VALUE\n        return VALUE\n",
        "etl/test_late.py": "VALUE = {v}\n",
    }
    write(tmp_path, files, v=1)
    first, second = TaskRegistry(collect_garbage=False), TaskRegistry(collect_garbage=False)
    await first.register(tmp_path / "etl")
    await second.register(tmp_path / "etl")
    assert first.find("etl.main.Job").cls is not second.find("etl.main.Job").cls
    await first.aclose()
    assert run(second) == 1  # imports lazily, after the other one let go of the finder
    write(tmp_path, files, v=2)
    await second.reload("etl")
    assert run(second) == 2
    await second.aclose()
    assert not [name for name in sys.modules if name.startswith("scattersphere.bundles.")]

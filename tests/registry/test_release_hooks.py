"""`on_release`: a bundle undoes what it did when it was imported."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from types import SimpleNamespace

import anyio
import pytest
from bundlefiles import task_module, write
from patience import PATIENCE

from scattersphere.errors import BundleLoadError
from scattersphere.registry.modules import release_hooks
from scattersphere.registry.registry import TaskRegistry

pytestmark = pytest.mark.anyio

DIARY = "scattersphere_test_diary"


@pytest.fixture
def diary(monkeypatch):
    """A module of the host in which bundles write down what they do."""
    module = SimpleNamespace(lines=[], gate=threading.Event(), here=threading.Event())
    monkeypatch.setitem(sys.modules, DIARY, module)
    yield module
    module.gate.set()


def hooked(value, *, before=""):
    return task_module(
        value,
        before=f"{before}\nimport {DIARY} as diary\ndef on_release(): diary.lines.append({value!r})",
    )


async def done(registry):
    """Wait until the loader has called the hooks, as closing does."""
    with anyio.fail_after(PATIENCE):
        while registry._versions._loader._later:  # noqa: ASYNC110 - the loader's thread has nobody to tell
            await anyio.sleep(0.01)
    await registry._versions._loader.call(
        "", lambda: None, discard=lambda: None, stuck=lambda *_: AssertionError("stuck")
    )


async def test_a_version_that_is_superseded_is_told(registry, tmp_path, diary):
    file = tmp_path / "a.py"
    file.write_text(hooked(1))
    await registry.register(file)
    file.write_text(hooked(2))
    await registry.reload("a")
    await done(registry)
    assert diary.lines == [1]
    await registry.deregister("a")
    await done(registry)
    assert diary.lines == [1, 2]


async def test_a_pinned_version_is_told_when_its_last_run_ends(registry, tmp_path, diary):
    file = tmp_path / "a.py"
    file.write_text(hooked(1))
    registry.pin(1, [(await registry.register(file)).current])
    await registry.deregister("a")
    await done(registry)
    assert diary.lines == []
    registry.unpin(1)
    await done(registry)
    assert diary.lines == [1]


async def test_closing_tells_every_version(tmp_path, diary):
    registry = TaskRegistry(collect_garbage=False)
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(hooked(name))
        await registry.register(tmp_path / f"{name}.py")
    await registry.aclose()
    assert sorted(diary.lines) == ["a", "b"]


async def test_modules_are_told_in_the_reverse_of_their_order_and_can_still_import(registry, tmp_path, diary):
    text = f"import {DIARY} as diary\ndef on_release():\n    from etl.util import VALUE\n    diary.lines.append((__name__[-1], VALUE))\n"
    files = {
        "etl/__init__.py": "",
        "etl/a.py": text,
        "etl/b.py": "from etl.a import on_release\n",  # imported, and so not its own
        "etl/c.py": text + task_module(1),
        "etl/util.py": "VALUE = 7\non_release = 'a word'\n",
    }
    await registry.register(write(tmp_path, files) / "etl")
    await registry.deregister("etl")
    await done(registry)
    assert diary.lines == [("c", 7), ("a", 7)]


async def test_a_thread_and_a_logging_handler_that_a_bundle_undoes_are_no_leak(registry, tmp_path):
    code = """
        import logging, threading
        from scattersphere.task import RunnableTask
        stop = threading.Event()
        class Handler(logging.Handler): ...
        handler = Handler()
        logging.getLogger("some.library").addHandler(handler)
        thread = threading.Thread(target=stop.wait)
        thread.start()
        def on_release():
            stop.set()
            thread.join()
            logging.getLogger("some.library").removeHandler(handler)
        class Job(RunnableTask):
            def run(self, context): ...
        """
    await registry.register(write(tmp_path, {"a.py": code}) / "a.py")
    ref = weakref.ref(registry.find("a.Job").cls)
    await registry.deregister("a")
    await done(registry)
    gc.collect()
    assert ref() is None
    assert registry.leaks("a") == []


async def test_what_a_hook_raises_is_logged_with_its_line_and_harms_nobody(registry, tmp_path, diary, caplog):
    files = {
        "etl/__init__.py": "",
        "etl/a.py": hooked("a"),
        "etl/b.py": "def on_release():\n    raise SystemExit('no')\n",
    }
    await registry.register(write(tmp_path, files) / "etl")
    with caplog.at_level(logging.WARNING, "scattersphere.registry"):
        await registry.deregister("etl")
        await done(registry)
    assert diary.lines == ["a"]
    (record,) = caplog.records
    assert "bundle 'etl': on_release failed" in record.getMessage()
    assert f'{tmp_path}/etl/b.py", line 2, in on_release' in record.getMessage()
    assert record.exc_info is None


async def test_a_hook_that_does_not_return_is_given_up_and_named(
    registry, tmp_path, diary, caplog, monkeypatch
):
    monkeypatch.setattr(release_hooks.call_hooks, "__kwdefaults__", {"limit": 0.2})
    wait = f"import {DIARY} as diary\ndef on_release():\n    diary.here.set()\n    diary.gate.wait()\n"
    (tmp_path / "a.py").write_text(task_module(1, before=wait))
    await registry.register(tmp_path / "a.py")
    await registry.deregister("a")
    await done(registry)
    assert registry.stuck == ("a",)
    assert "on_release has not returned after 0.2 s" in caplog.text
    assert f'{tmp_path}/a.py", line 4, in on_release' in caplog.text
    (tmp_path / "b.py").write_text(task_module(2))
    await registry.register(tmp_path / "b.py")  # others go on
    diary.gate.set()
    for thread in list(registry._versions._loader._given_up):
        await anyio.to_thread.run_sync(thread.join, 30)
    assert registry.stuck == ()


async def test_a_load_that_fails_is_undone_by_the_modules_that_were_imported(registry, tmp_path, diary):
    files = {"etl/__init__.py": "", "etl/a.py": hooked(1), "etl/b.py": "1 / 0"}
    with pytest.raises(BundleLoadError, match="ZeroDivisionError"):
        await registry.register(write(tmp_path, files) / "etl")
    assert diary.lines == [1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("async def on_release(): ...", r"a\.on_release is async: it is called in a thread"),
        ("def on_release(context): ...", r"a\.on_release is called without arguments: missing a required"),
    ],
)
async def test_a_hook_that_cannot_be_called_is_an_error_of_the_load(registry, tmp_path, code, said):
    (tmp_path / "a.py").write_text(task_module(1, before=code))
    with pytest.raises(BundleLoadError, match=said):
        await registry.register(tmp_path / "a.py")

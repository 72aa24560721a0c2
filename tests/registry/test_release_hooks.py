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
from scattersphere.registry import versions
from scattersphere.registry.modules import release
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
        from scattersphere.runnable import RunnableTask
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
    monkeypatch.setattr(release.call_hooks, "__kwdefaults__", {"limit": 0.2})
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
        await anyio.to_thread.run_sync(thread.join, PATIENCE)
    assert registry.stuck == ()


async def test_a_load_that_fails_is_undone_by_the_modules_that_were_imported(registry, tmp_path, diary):
    files = {"etl/__init__.py": "", "etl/a.py": hooked(1), "etl/b.py": "1 / 0"}
    with pytest.raises(BundleLoadError, match="ZeroDivisionError"):
        await registry.register(write(tmp_path, files) / "etl")
    assert diary.lines == [1]


async def test_a_load_that_fails_is_undone_also_by_what_the_failing_module_had_imported(
    registry, tmp_path, diary
):
    files = {
        "etl/__init__.py": "",
        "etl/a.py": hooked("a", before="import etl.x, etl.z, etl.y") + "\n1 / 0",
        "etl/x.py": hooked("x"),
        "etl/y.py": hooked("y"),
        "etl/z.py": hooked("z"),
    }
    with pytest.raises(BundleLoadError, match="ZeroDivisionError"):
        await registry.register(write(tmp_path, files) / "etl")
    assert diary.lines == ["a", "y", "z", "x"]


async def test_a_module_is_told_before_those_that_it_imports_whatever_their_names(registry, tmp_path, diary):
    files = {
        "etl/__init__.py": "",
        "etl/a.py": hooked("a", before="import etl.z"),
        "etl/b.py": hooked("b"),
        "etl/z.py": hooked("z"),
    }
    await registry.register(write(tmp_path, files) / "etl")
    await registry.deregister("etl")
    await done(registry)
    assert diary.lines == ["b", "a", "z"]


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


# ---------------------------------------------------------------- on_supersede: what only one version can have


def exclusive(value, *, more=""):
    """Return a module that takes the one `owner` of the diary at import, as one that binds a port does."""
    return task_module(
        value,
        before=f"""
import {DIARY} as diary
def take():
    if diary.owner is not None: raise OSError("address already in use")
    diary.owner = {value!r}
    diary.lines.append("{value} takes")
take()
def on_supersede():
    diary.owner = None
    diary.lines.append("{value} gives")
    return take
def on_release():
    diary.lines.append("{value} released")
    if diary.owner == {value!r}: diary.owner = None
{more}""",
    )


@pytest.fixture
def owned(diary):
    diary.owner = None
    return diary


async def test_a_module_that_holds_what_only_one_can_have_is_replaced_any_number_of_times(
    registry, tmp_path, owned
):
    file = tmp_path / "a.py"
    for value in (1, 2, 3):
        file.write_text(exclusive(value))
        await (registry.register(file) if value == 1 else registry.reload("a"))
        assert owned.owner == value
        await done(registry)
    assert owned.lines == [
        *("1 takes", "1 gives", "2 takes", "1 released", "2 gives", "3 takes", "2 released"),
    ]
    await registry.deregister("a")
    await done(registry)
    assert owned.lines[-1] == "3 released"
    assert owned.owner is None


@pytest.mark.parametrize("fault", ["raise ValueError('at import')", "import nothing_of_this_name"])
async def test_if_the_new_version_fails_the_old_one_takes_back_what_it_gave(registry, tmp_path, owned, fault):
    file = tmp_path / "a.py"
    file.write_text(exclusive(1))
    await registry.register(file)
    file.write_text(exclusive(2, more=fault))
    with pytest.raises(BundleLoadError):
        await registry.reload("a")
    assert owned.lines == ["1 takes", "1 gives", "2 takes", "2 released", "1 takes"]
    assert registry.bundles["a"].current.tasks


async def test_a_file_that_does_not_compile_supersedes_nothing(registry, tmp_path, owned):
    file = tmp_path / "a.py"
    file.write_text(exclusive(1))
    await registry.register(file)
    file.write_text(exclusive(2, more="def broken(:"))
    with pytest.raises(BundleLoadError, match="SyntaxError"):
        await registry.reload("a")
    assert owned.lines == ["1 takes"]


async def test_while_a_run_pins_the_old_version_it_keeps_what_it_has_and_the_error_says_why(
    registry, tmp_path, owned
):
    file = tmp_path / "a.py"
    file.write_text(exclusive(1))
    version = (await registry.register(file)).current
    registry.pin(7, [version])
    file.write_text(exclusive(2))
    with pytest.raises(
        BundleLoadError, match=r"address already in use \(the runs 7 pin a@.*reload when they"
    ):
        await registry.reload("a")
    assert owned.lines == ["1 takes"]
    registry.unpin(7)
    await registry.reload("a")
    assert owned.owner == 2


async def test_code_that_is_held_and_no_run_pins_gives_way_and_the_hold_is_no_run(registry, tmp_path, owned):
    file = tmp_path / "a.py"
    file.write_text(exclusive(1))
    version = (await registry.register(file)).current
    held = await registry.adopt("a", version.digest, version.export())
    assert held is version
    assert not registry.bundles["a"].runs
    file.write_text(exclusive(2))
    await registry.reload("a")
    await done(registry)
    assert owned.lines == ["1 takes", "1 gives", "2 takes"]
    registry.disown(version)
    await done(registry)
    assert owned.lines[-1] == "1 released"
    assert owned.owner == 2


async def test_what_code_has_written_is_looked_for_once_in_a_pause_however_many_runs_end(
    registry, tmp_path, monkeypatch
):
    (tmp_path / "a.py").write_text(task_module(1))
    version = (await registry.register(tmp_path / "a.py")).current
    now, looks = 1_000.0, []
    monkeypatch.setattr(versions, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(versions, "_note_what_it_wrote", lambda version: looks.append((now, version)))
    for now in (1_000.0, 1_001.0, 1_000.0 + versions.WROTE_PAUSE, 1_001.0 + versions.WROTE_PAUSE):  # noqa: B007
        registry.pin(1, [version])
        registry.unpin(1)
        await done(registry)
    assert looks == [(1_000.0, version), (1_000.0 + versions.WROTE_PAUSE, version)]


async def test_an_unchanged_file_supersedes_nothing(registry, tmp_path, owned):
    file = tmp_path / "a.py"
    file.write_text(exclusive(1))
    before = (await registry.register(file)).current
    assert (await registry.reload("a")).current is before
    assert owned.lines == ["1 takes"]


async def test_modules_give_back_in_the_reverse_order_of_their_import_and_take_again_in_that_order(
    registry, tmp_path, diary
):
    hook = "import {d} as diary\ndef on_supersede():\n    diary.lines.append('{n} gives')\n    return lambda: diary.lines.append('{n} takes')\n"
    write(tmp_path, {"pkg/__init__.py": ""})
    for name, before in (("a", ""), ("b", "import pkg.a\n")):
        text = before + hook.format(d=DIARY, n=name)
        write(tmp_path, {f"pkg/{name}.py": text if name == "a" else task_module(1, before=text)})
    await registry.register(tmp_path / "pkg")
    write(tmp_path, {"pkg/b.py": "raise ValueError"})
    with pytest.raises(BundleLoadError):
        await registry.reload("pkg")
    assert diary.lines == ["b gives", "a gives", "a takes", "b takes"]


async def test_a_hook_that_fails_is_logged_and_stops_nothing(registry, tmp_path, caplog):
    file = tmp_path / "a.py"
    file.write_text(task_module(1, before="def on_supersede(): raise ValueError('cannot')"))
    await registry.register(file)
    file.write_text(task_module(2))
    await registry.reload("a")
    assert registry.find("a.Job").cls().run(None) == 2
    assert "on_supersede failed" in caplog.text


@pytest.mark.parametrize("hook", ["async def on_supersede(): ...", "def on_supersede(x): ..."])
async def test_a_supersede_hook_that_cannot_be_called_is_an_error_of_the_load(registry, tmp_path, hook):
    (tmp_path / "a.py").write_text(task_module(1, before=hook))
    with pytest.raises(BundleLoadError, match="on_supersede"):
        await registry.register(tmp_path / "a.py")


async def test_a_patch_of_something_shared_survives_any_order_of_versions(registry, tmp_path, monkeypatch):
    host = SimpleNamespace(loads=lambda: "host")
    monkeypatch.setitem(sys.modules, "scattersphere_test_host", host)
    real, file = host.loads, tmp_path / "a.py"
    code = task_module(
        1,
        before="""
import scattersphere_test_host as host
from scattersphere import replace_attribute
undo = replace_attribute(host, "loads", lambda: f"VERSION over {undo.below()}")
def on_release(): undo()
""",
    )
    versions = []
    for number in (1, 2, 3):
        file.write_text(code.replace("VERSION", str(number)))
        bundle = await (registry.register(file) if number == 1 else registry.reload("a"))
        versions.append(bundle.current)
        registry.pin(number, [bundle.current])
    assert host.loads() == "3 over 2 over 1 over host"
    registry.unpin(2)
    await done(registry)
    assert host.loads() == "3 over 1 over host"
    registry.unpin(1)
    await done(registry)
    assert host.loads() == "3 over host"
    registry.unpin(3)
    await registry.deregister("a")
    await done(registry)
    assert host.loads is real

"""The registry as a Server uses it."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
from bundlefiles import ETL, task_module, write

from scattersphere.errors import (
    AmbiguousTaskError,
    BundleLoadError,
    BundleRefusedError,
    ConflictError,
    ExistsError,
    NoSuchBundleError,
    NoSuchTaskError,
)
from scattersphere.registry.records import MANY_VERSIONS
from scattersphere.registry.registry import TaskRegistry
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


async def run_async(task_class, **arguments):
    return await task_class.cls(**arguments).run(None)


def run(task_class):
    return task_class.cls().run(None)


async def test_a_module_is_registered_under_the_path_of_its_classes(registry, tmp_path):
    file = tmp_path / "wordcount.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    assert bundle.name == "wordcount"
    assert list(bundle.tasks) == list(registry.tasks) == ["wordcount.Job"]
    assert run(registry.find("wordcount.Job")) == 1
    assert registry.find("wordcount:wordcount.Job") is registry.find("wordcount.Job")


async def test_a_package_folder_is_registered_with_its_submodules(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    task = registry.find("etl.load.LoadDay")
    assert task.summary == "Load one day."
    assert task.is_async
    assert {name: p.required for name, p in task.parameters.items()} == {"day": True, "retries": False}
    assert await run_async(task, day="x") == 1
    assert bundle.current.label == f"etl@{bundle.current.digest[:6]}"


async def test_nothing_is_left_in_the_interpreter(registry, tmp_path):
    def state():
        return set(sys.modules), list(sys.path), list(sys.meta_path), set(sys.path_importer_cache)

    await registry.register(write(tmp_path / "warm", ETL, v=0) / "etl", name="warm")
    await registry.deregister("warm")
    before = state()
    await registry.register(write(tmp_path, ETL, v=1) / "etl")
    modules, path, _, _ = state()
    assert all(name.startswith("scattersphere.bundles.") for name in modules - before[0])
    assert path == before[1]
    await registry.deregister("etl")
    assert state() == before


async def test_reload_takes_up_a_change_of_the_same_size_in_the_same_second(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    await registry.register(file)
    for value in range(2, 10):
        file.write_text(task_module(value))
        await registry.reload("a")
        assert run(registry.find("a.Job")) == value


async def test_reload_of_equal_content_changes_nothing(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    version = bundle.current
    file.touch()
    assert (await registry.reload("a")).current is version


async def test_a_pinned_version_keeps_its_code_and_its_lazy_imports(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    first = bundle.current
    old = registry.find("etl.load.LoadDay")
    registry.pin(7, [first])
    write(tmp_path, ETL, v=2)
    await registry.reload("etl")
    assert await run_async(old, day="x") == 1
    assert await run_async(registry.find("etl.load.LoadDay"), day="x") == 2
    assert bundle.versions == {first: frozenset({7})}
    assert bundle.runs == {7}
    del old
    registry.unpin(7)
    assert bundle.versions == {}
    gc.collect()
    assert registry.leaks("etl") == []


async def test_restored_content_of_a_pinned_version_is_that_version_again(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    first = bundle.current
    registry.pin(7, [first])
    write(tmp_path, ETL, v=2)
    await registry.reload("etl")
    write(tmp_path, ETL, v=1)
    assert (await registry.reload("etl")).current is first


async def test_a_released_version_is_freed(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    refs = [
        weakref.ref(registry.find("etl.load.LoadDay").cls),
        weakref.ref(sys.modules[bundle.current.namespace.name]),
    ]
    folder = bundle.current.snapshot
    await registry.deregister("etl")
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    await registry.aclose()
    assert not folder.exists()


async def test_a_pin_of_a_released_version_is_refused(registry, tmp_path):
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    version = bundle.current
    await registry.deregister("etl")
    with pytest.raises(ConflictError, match="released"):
        registry.pin(1, [version])


async def test_the_same_path_under_the_same_name_is_the_same_bundle(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    (tmp_path / "link.py").symlink_to(file)
    assert await registry.register(tmp_path / "link.py", name="a") is bundle


async def test_a_name_in_use_is_refused(registry, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(task_module(name))
    await registry.register(tmp_path / "a.py")
    with pytest.raises(ExistsError, match="'a' already"):
        await registry.register(tmp_path / "b.py", name="a")


async def test_the_same_file_under_two_names_is_two_bundles_with_ambiguous_paths(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    await registry.register(file, name="one")
    await registry.register(file, name="two")
    with pytest.raises(AmbiguousTaskError, match=r'"one:a\.Job" and "two:a\.Job"'):
        registry.find("a.Job")
    assert set(registry.tasks) == {"one:a.Job", "two:a.Job"}
    assert registry.find("one:a.Job").cls is not registry.find("a.Job", bundle="two").cls
    await registry.deregister("two")
    assert set(registry.tasks) == {"a.Job"}


async def test_what_is_not_there_is_named_with_a_suggestion(registry, tmp_path):
    await registry.register(write(tmp_path, ETL, v=1) / "etl")
    with pytest.raises(NoSuchTaskError, match=r'did you mean "etl\.load\.LoadDay"'):
        registry.find("etl.load.LoadDya")
    with pytest.raises(NoSuchTaskError, match="in bundle etl@"):
        registry.find("etl:etl.load.LoadDya")
    with pytest.raises(NoSuchBundleError, match='did you mean "etl"'):
        registry.find("etk:etl.load.LoadDay")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_this_name", "the host lacks it"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("", "defines no task"),
        ("1 / 0", "ZeroDivisionError"),
        ("\0", "null bytes"),
    ],
)
async def test_a_bad_edit_leaves_the_last_good_version_and_shows_its_error(registry, tmp_path, content, said):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    version = bundle.current
    file.write_text(content)
    with pytest.raises(BundleLoadError, match=said) as caught:
        await registry.reload("a")
    assert bundle.current is version
    assert run(registry.find("a.Job")) == 1
    assert said in bundle.error
    assert "scattersphere.bundles" not in bundle.error + caught.value.details
    if content:
        assert f"{file}" in bundle.error
    file.write_text(task_module(1))
    await registry.reload("a")
    assert bundle.error is None


async def test_a_bundle_that_vanished_keeps_its_last_good_version(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    file.unlink()
    with pytest.raises(BundleRefusedError, match=r"a\.py"):
        await registry.reload("a")
    assert run(registry.find("a.Job")) == 1
    assert bundle.error


async def test_a_failed_first_registration_leaves_nothing(registry, tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import nothing_of_this_name")
    before = set(sys.modules), list(sys.meta_path)
    for _ in range(20):
        with pytest.raises(BundleLoadError):
            await registry.register(file)
    assert (set(sys.modules), list(sys.meta_path)) == before
    assert not registry.bundles


async def test_classes_of_the_host_are_registered_by_qualified_name(registry):
    class Greet(RunnableTask):
        name: str

        def run(self, context):
            return self.name

    bundle = registry.register_tasks("app", [Greet])
    path = Greet.__qualname__
    assert registry.find(path).cls is Greet
    assert bundle.current.label == "app@host"
    with pytest.raises(ExistsError):
        registry.register_tasks("app", [Greet])
    with pytest.raises(ConflictError, match="nothing to reload"):
        await registry.reload("app")
    await registry.deregister("app")
    assert not registry.tasks


async def test_events_tell_the_life_of_a_bundle(tmp_path):
    events = []
    registry = TaskRegistry(on_event=events.append, collect_garbage=False)
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    await registry.register(file)
    file.write_text("x y")
    with pytest.raises(BundleLoadError):
        await registry.reload("a")
    file.write_text(task_module(2))
    await registry.reload("a")
    await registry.deregister("a")
    assert [event.kind for event in events] == [
        "bundle-loaded",
        "bundle-failed",
        "bundle-loaded",
        "bundle-released",
        "bundle-removed",
        "bundle-released",
    ]
    await registry.aclose()


async def test_a_failure_is_an_event_and_is_shown_with_file_line_and_text_until_it_is_mended(tmp_path):
    events = []
    registry = TaskRegistry(on_event=events.append, collect_garbage=False)
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    bundle = await registry.register(file)
    for text, shown in (
        ("x = 1\nif x\n    pass\n", f"{file}:2: SyntaxError: expected ':': if x"),
        ("x = 1\ny = x / 0  # here\n", f'File "{file}", line 2, in <module>\n    y = x / 0  # here'),
        (task_module(1) + "from a import nothing\n", f"{file}:5: ImportError: cannot import name 'nothing'"),
    ):
        file.write_text(text)
        with pytest.raises(BundleLoadError):
            await registry.reload("a")
        assert events[-1].kind == "bundle-failed"
        assert shown in events[-1].error
        assert shown in bundle.error
        assert "/registry/" not in bundle.error  # no line of ours
        assert run(registry.find("a.Job")) == 1
    file.write_text(task_module(2))
    await registry.reload("a")
    assert bundle.error is None
    await registry.aclose()


async def test_restored_content_after_a_failure_is_told_although_the_version_is_the_same(tmp_path):
    events = []
    registry = TaskRegistry(on_event=events.append, collect_garbage=False)
    file = tmp_path / "a.py"
    file.write_text(task_module(1))
    version = (await registry.register(file)).current
    file.write_text("x x")
    with pytest.raises(BundleLoadError):
        await registry.reload("a")
    file.write_text(task_module(1))
    bundle = await registry.reload("a")
    assert (bundle.error, bundle.current) == (None, version)
    await registry.reload("a")  # nothing was wrong: no news
    assert [event.kind for event in events] == ["bundle-loaded", "bundle-failed", "bundle-loaded"]
    assert events[-1].label == events[-1].replaced == version.label
    await registry.aclose()


async def test_many_versions_in_memory_are_a_warning_that_names_the_runs(registry, tmp_path, caplog):
    file = tmp_path / "a.py"
    for value in range(MANY_VERSIONS + 1):
        file.write_text(task_module(value))
        bundle = await (registry.reload("a") if value else registry.register(file))
        registry.pin(value + 1, [bundle.current])
    said = "10 older versions are in memory, held by the runs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert bundle.warnings == (said,)
    assert [record.getMessage() for record in caplog.records] == [f"bundle 'a': {said}"]
    assert registry.find("a.Job").cls().run(None) == MANY_VERSIONS
    registry.unpin(3)
    assert bundle.warnings == ()

"""A version that was released comes back from its files while a kept run names it."""

from __future__ import annotations

import copy
import gc
import weakref

import anyio
import pytest
from bundlefiles import ETL, task_module, write

from scattersphere.errors import BundleRefusedError, ConflictError, NoSuchBundleError, NoSuchTaskError
from scattersphere.registry.registry import TaskRegistry
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


async def retired(registry, tmp_path, *, run=1):
    """Return the first version of a bundle, released, whose files `run` keeps."""
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    version = bundle.current
    registry.pin(run, [version])
    registry.keep(run, [version])
    write(tmp_path, ETL, v=2)
    await registry.reload("etl")
    registry.unpin(run)
    return version


def files_of(registry):
    return sorted(path.name for path in registry._versions.store_folder.glob("etl_*"))


async def settled(registry):
    """Wait until the loader has done what was posted to it."""
    while registry._versions._loader._later:  # noqa: ASYNC110 - the loader's thread has nobody to tell
        await anyio.sleep(0.01)
    await registry._versions._loader.call(
        "", lambda: None, discard=lambda: None, stuck=lambda *_: AssertionError("stuck")
    )


async def test_a_released_version_runs_again_from_its_kept_files(registry, tmp_path):
    version = await retired(registry, tmp_path)
    assert version.tasks == {}
    async with registry.revived([version]) as code:
        (back,) = code.versions
        assert (back.digest, back.label) == (version.digest, version.label)
        task = code.find("etl.load.LoadDay", "etl").cls(day="x")
        assert await task.run(None) == 1  # lazy imports come from the old files as well
        assert await registry.find("etl.load.LoadDay").cls(day="x").run(None) == 2


async def test_what_was_revived_is_freed_after_the_block_unless_a_run_pinned_it(registry, tmp_path):
    version = await retired(registry, tmp_path)
    async with registry.revived([version]) as code:
        ref = weakref.ref(code.find("etl.load.LoadDay").cls)
    del code
    gc.collect()
    assert ref() is None
    async with registry.revived([version]) as code:
        registry.pin(2, code.versions)
    assert dict(registry.bundles["etl"].versions) == {code.versions[0]: frozenset({2})}
    assert code.find("etl.load.LoadDay")
    registry.unpin(2)
    assert not registry.bundles["etl"].versions


async def test_a_hold_is_no_run(registry, tmp_path):
    version = await retired(registry, tmp_path)
    async with registry.revived([version]):
        assert registry.bundles["etl"].runs == frozenset()


async def test_what_is_still_in_memory_is_used_as_it_is(registry, tmp_path):
    version = await retired(registry, tmp_path)
    current = registry.bundles["etl"].current
    async with registry.revived([current]) as code:
        assert code.versions == (current,)
    write(tmp_path, ETL, v=1)
    await registry.reload("etl")
    async with registry.revived([version]) as code:
        assert code.versions == (registry.bundles["etl"].current,)


async def test_the_same_content_in_memory_is_enough_where_the_files_are_no_longer_kept(registry, tmp_path):
    version = await retired(registry, tmp_path)
    registry.forget(1)
    write(tmp_path, ETL, v=1)
    await registry.reload("etl")
    async with registry.revived([version]) as code:
        assert code.versions == (registry.bundles["etl"].current,)


async def test_a_reload_of_what_is_current_keeps_the_version_though_a_revived_one_has_the_same_content(
    registry, tmp_path
):
    """Both come about where a kept version is brought back while the same content is loaded from its place."""
    bundle = await registry.register(write(tmp_path, ETL, v=1) / "etl")
    current = bundle.current
    twin = copy.copy(current)
    twin.namespace = None  # nothing is to be let go with it
    registry._versions.catalog.hold("etl", twin, -99)
    await registry.reload("etl")
    assert bundle.current is current


async def test_two_revivals_at_once_share_one_version(registry, tmp_path):
    version = await retired(registry, tmp_path)
    found = []

    async def revive():
        async with registry.revived([version]) as code:
            found.extend(code.versions)
            while len(found) < 2:
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(revive)
        group.start_soon(revive)
    assert found[0] is found[1]


async def test_files_go_with_the_last_run_that_names_them(registry, tmp_path):
    version = await retired(registry, tmp_path, run=1)
    registry.keep(2, [version])  # a run that was made of it
    registry.forget(1)
    await settled(registry)
    assert version.slug in files_of(registry)
    registry.forget(2)
    await settled(registry)
    assert files_of(registry) == [registry.bundles["etl"].current.slug]
    with pytest.raises(NoSuchBundleError, match=r"etl@\w+ are no longer kept"):
        async with registry.revived([version]):
            pass


async def test_files_stay_although_the_bundle_is_deregistered(registry, tmp_path):
    version = await retired(registry, tmp_path)
    await registry.deregister("etl")
    async with registry.revived([version]) as code:
        assert code.find("etl:etl.load.LoadDay").path == "etl.load.LoadDay"


async def test_files_that_code_changed_meanwhile_are_refused(registry, tmp_path):
    version = await retired(registry, tmp_path)
    (version.content.folder / "etl" / "lazy.py").write_text("def late(): return 'altered'\n")
    with pytest.raises(BundleRefusedError, match=r"etl/lazy\.py of the kept files was changed"):
        async with registry.revived([version]):
            pass


async def test_a_module_file_comes_back_with_its_name(registry, tmp_path):
    file = tmp_path / "one.py"
    file.write_text(task_module(1))
    version = (await registry.register(file)).current
    registry.keep(1, [version])
    file.write_text(task_module(2))
    await registry.reload("one")
    async with registry.revived([version]) as code:
        assert code.find("one.Job").cls().run(None) == 1


async def test_a_task_that_the_old_version_lacks_is_named_with_a_suggestion(registry, tmp_path):
    version = await retired(registry, tmp_path)
    async with registry.revived([version]) as code:
        with pytest.raises(NoSuchTaskError, match=r'in etl@\w{6}; did you mean "etl.load.LoadDay"'):
            code.find("etl.load.LoadDya")


async def test_classes_of_the_host_are_there_while_they_are_registered(registry):
    class Greet(RunnableTask):
        def run(self, context): ...

    version = registry.register_tasks("app", [Greet]).current
    async with registry.revived([version]) as code:
        assert code.versions == (version,)
    await registry.deregister("app")
    with pytest.raises(NoSuchBundleError, match="'app' was made of classes of the host"):
        async with registry.revived([version]):
            pass


async def test_a_released_version_itself_cannot_be_pinned(registry, tmp_path):
    with pytest.raises(ConflictError, match="was released"):
        registry.pin(3, [await retired(registry, tmp_path)])


async def test_closing_deletes_kept_files_too(tmp_path):
    registry = TaskRegistry(collect_garbage=False)
    await retired(registry, tmp_path)
    folder = registry._versions.store_folder
    await registry.aclose()
    assert not folder.exists()

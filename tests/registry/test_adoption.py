"""The exact code of another time or machine: a version is exported to bytes, and adopted from them."""

from __future__ import annotations

import gc
import hashlib
import io
import weakref
import zipfile

import pytest
from bundlefiles import ETL, PACKAGE, job, task_module, write

from scattersphere.errors import (
    BundleLoadError,
    BundleRefusedError,
    ClosedError,
    ConflictError,
    NoSuchBundleError,
)
from scattersphere.registry.registry import TaskRegistry
from scattersphere.registry.snapshots.archives import export
from scattersphere.runnable import RunnableTask

pytestmark = pytest.mark.anyio


@pytest.fixture
async def elsewhere():
    """Another registry, as on another machine or after a restart."""
    registry = TaskRegistry(collect_garbage=False)
    yield registry
    await registry.aclose()


async def exported(registry, tmp_path, **values):
    bundle = await registry.register(write(tmp_path, ETL, **{"v": 1} | values) / "etl")
    return bundle.current.digest, bundle.current.export()


def result(version, path="etl.load.LoadDay"):
    return version.tasks[path].cls(day="x").run(None)


async def test_what_was_exported_runs_elsewhere_under_the_same_digest(registry, elsewhere, tmp_path):
    digest, content = await exported(registry, tmp_path)
    version = await elsewhere.adopt("etl", digest, content)
    assert (version.digest, version.label) == (digest, f"etl@{digest[:6]}")
    assert await result(version) == 1
    assert not elsewhere.bundles
    with pytest.raises(NoSuchBundleError):
        elsewhere.find("etl.load.LoadDay", "etl")


async def test_the_same_content_exports_to_the_same_bytes_however_it_came(registry, elsewhere, tmp_path):
    digest, content = await exported(registry, tmp_path)
    with zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in reversed(zipfile.ZipFile(io.BytesIO(content)).namelist()):
            archive.writestr(name, (tmp_path / name).read_bytes())
    zipped = (await elsewhere.register(tmp_path / "again.zip", name="etl")).current
    assert (zipped.digest, zipped.export()) == (digest, content)
    adopted = await elsewhere.adopt("other", digest, content)
    assert adopted.export() == content


def test_the_bytes_of_an_export_are_these_on_every_machine():
    files = {"etl/__init__.py": b"", "etl/util.py": b"X = 1\n", "etl/data/\u00e9.txt": b"\r\n", "z.py": b"Z"}
    assert (
        hashlib.sha256(export(files.items())).hexdigest()
        == "6977f50f28e9f6dc85059bd81f981d8d754c2105181c5935ac9625f45da9f13b"
    )
    assert export(files.items()) == export(reversed(files.items()))


async def test_versions_of_several_digests_live_side_by_side_with_the_current_one(
    registry, elsewhere, tmp_path
):
    old = await exported(registry, tmp_path, v=1)
    write(tmp_path, ETL, v=2)
    await elsewhere.register(tmp_path / "etl")
    version = await elsewhere.adopt("etl", *old)
    assert await result(version) == 1
    assert await elsewhere.find("etl.load.LoadDay").cls(day="x").run(None) == 2
    assert version in elsewhere.bundles["etl"].versions


async def test_what_is_in_memory_is_used_as_it_is_and_the_bytes_are_not_read(registry, tmp_path):
    digest, _ = await exported(registry, tmp_path)
    current = registry.bundles["etl"].current
    assert await registry.adopt("etl", digest, b"not even a zip") is current
    write(tmp_path, ETL, v=2)
    await registry.reload("etl")
    assert await result(current) == 1  # adopted, so it outlives its being current
    registry.disown(current)
    assert current.tasks == {}


async def test_an_adopted_version_is_freed_when_it_is_disowned_unless_a_run_pins_it(
    registry, elsewhere, tmp_path
):
    old = await exported(registry, tmp_path)
    version = await elsewhere.adopt("etl", *old)
    assert await elsewhere.adopt("etl", *old) is version
    elsewhere.disown(version)
    ref = weakref.ref(version.tasks["etl.load.LoadDay"].cls)
    elsewhere.pin(7, [version])
    elsewhere.disown(version)
    gc.collect()
    assert ref() is not None
    assert elsewhere.bundles == {}
    elsewhere.unpin(7)
    gc.collect()
    assert ref() is None
    with pytest.raises(ConflictError, match="disowned already"):
        elsewhere.disown(version)


async def test_bytes_of_another_digest_are_refused_and_leave_nothing(registry, elsewhere, tmp_path):
    digest, content = await exported(registry, tmp_path)
    wrong = ("0" * 6) + digest[6:]
    with pytest.raises(BundleRefusedError, match=digest):
        await elsewhere.adopt("etl", wrong, content)
    for broken in (b"", content[:-30], content.replace(b"def late", b"def latE")):
        with pytest.raises(BundleRefusedError, match="etl"):
            await elsewhere.adopt("etl", digest, broken)
    assert list(elsewhere._versions.store_folder.glob("etl_*")) == []


async def test_a_digest_of_the_old_form_is_refused_whatever_the_bytes(registry, elsewhere, tmp_path):
    digest, content = await exported(registry, tmp_path)
    for registry_ in (registry, elsewhere):
        with pytest.raises(BundleRefusedError, match="another form"):
            await registry_.adopt("etl", digest.removesuffix("-2"), content)
    with pytest.raises(BundleRefusedError, match="bundle name"):
        await elsewhere.adopt("Not a name", digest, content)


async def test_code_that_fails_where_it_is_adopted_says_so_and_leaves_nothing(registry, elsewhere, tmp_path):
    code = task_module(
        1, before="import builtins\nif hasattr(builtins, 'elsewhere'): raise OSError('not here')"
    )
    write(tmp_path, {"etl.py": code})
    version = (await registry.register(tmp_path / "etl.py")).current
    import builtins

    builtins.elsewhere = True
    try:
        with pytest.raises(BundleLoadError, match=f"etl@{version.digest[:6]}/etl.py:2: OSError: not here"):
            await elsewhere.adopt("etl", version.digest, version.export())
    finally:
        del builtins.elsewhere


async def test_names_stay_what_they_are_whatever_a_later_release_leaves_out(elsewhere):
    """What is no part of a bundle is decided when it is read, and never again."""
    from scattersphere.registry.snapshots.store import digest_of, digest_of_all

    files = {
        "job.py": task_module(1).encode(),
        "cache/.hidden": b"x",
        "x-1.data/purelib/y.py": b"",
        "a.tmp": b"z",
    }
    digest = digest_of_all({name: digest_of(content) for name, content in files.items()})
    version = await elsewhere.adopt("b", digest, export(files.items()))
    assert sorted(version.content.files) == sorted(files)


async def test_bytes_that_lead_out_of_their_folder_are_refused(elsewhere):
    with pytest.raises(BundleRefusedError, match=r"\.\."):
        await elsewhere.adopt("b", "0" * 40 + "-2", export([("../x.py", b"")]))


async def test_what_code_changed_in_its_own_files_is_no_export(registry, tmp_path):
    write(tmp_path, PACKAGE | {"etl/main.py": job("return 1")}, v=1)
    version = (await registry.register(tmp_path / "etl")).current
    assert version.export()
    (version.snapshot / "etl/data/words.txt").write_text("changed")
    with pytest.raises(BundleRefusedError, match=r"words\.txt of the kept files was changed"):
        version.export()


async def test_classes_of_the_host_have_no_export(registry):
    class Here(RunnableTask):
        def run(self, context): ...

    with pytest.raises(ConflictError, match="nothing to export"):
        registry.register_tasks("app", [Here]).current.export()


async def test_a_closed_registry_adopts_nothing_and_closing_lets_go_of_all(registry, elsewhere, tmp_path):
    old = await exported(registry, tmp_path)
    version = await elsewhere.adopt("etl", *old)
    await elsewhere.aclose()
    assert version.tasks == {}
    with pytest.raises(ClosedError):
        await elsewhere.adopt("etl", *old)

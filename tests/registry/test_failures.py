"""Errors of a load are text, in names and places that the author knows."""

from __future__ import annotations

import zipfile

import pytest
from bundlefiles import task_module, write

from scattersphere.errors import MESSAGE_LIMIT, BundleLoadError, BundleRefusedError

pytestmark = pytest.mark.anyio


async def failure(registry, path):
    with pytest.raises(BundleLoadError) as caught:
        await registry.register(path)
    assert "scattersphere.bundles" not in str(caught.value) + caught.value.details
    assert "scattersphere/registry" not in caught.value.details, "the author wants no frames of ours"
    return caught.value


async def test_a_syntax_error_has_file_line_and_text(registry, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\ny = = 2\n")
    error = await failure(registry, tmp_path / "a.py")
    assert f"{tmp_path}/a.py:2: SyntaxError: invalid syntax: y = = 2" in str(error)
    assert "y = = 2\n" in error.details


async def test_an_error_in_an_archive_names_the_archive(registry, tmp_path):
    with zipfile.ZipFile(tmp_path / "etl.zip", "w") as archive:
        archive.writestr("etl/__init__.py", "\n\nraise ValueError('no')\n")
    error = await failure(registry, tmp_path / "etl.zip")
    assert f"{tmp_path}/etl.zip/etl/__init__.py:3: ValueError: no" in str(error)
    assert "raise ValueError('no')" in error.details


async def test_the_last_line_of_the_bundle_is_named_not_that_of_a_library(registry, tmp_path):
    (tmp_path / "a.py").write_text("import json\njson.loads('{')\n")
    error = await failure(registry, tmp_path / "a.py")
    assert f"{tmp_path}/a.py:2: JSONDecodeError" in str(error)
    assert "json/decoder.py" in error.details


@pytest.mark.parametrize(
    "code",
    [
        "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
        "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
        "def f(): f()\nf()",
        "raise ValueError('x' * 1_000_000)",
        "raise GeneratorExit",
        "class E(BaseException): ...\nraise E('odd')",
    ],
)
async def test_odd_errors_are_told_all_the_same(registry, tmp_path, code):
    (tmp_path / "a.py").write_text(code)
    error = await failure(registry, tmp_path / "a.py")
    assert f"{tmp_path}/a.py:" in str(error)
    assert len(str(error)) <= MESSAGE_LIMIT
    assert len(error.details) <= MESSAGE_LIMIT


async def test_a_wrong_declaration_of_a_task_is_an_error_with_its_place(registry, tmp_path):
    (tmp_path / "a.py").write_text(
        "from scattersphere.runnable import RunnableTask\nclass J(RunnableTask):\n    run: int\n"
    )
    assert "a parameter may not be called like a hook" in str(await failure(registry, tmp_path / "a.py"))


async def test_an_annotation_that_means_nothing_is_an_error_that_names_the_class(registry, tmp_path):
    code = task_module(1).replace("    def run", "    x: 'Nothing'\n    def run")
    (tmp_path / "a.py").write_text(code)
    assert "Job: its annotations cannot be resolved" in str(await failure(registry, tmp_path / "a.py"))


@pytest.mark.parametrize("damage", ["truncated", "crc", "empty", "half a module"])
async def test_a_zip_in_mid_copy_leaves_the_last_good_version(registry, tmp_path, damage):
    path = tmp_path / "etl.zip"

    def pack(value):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("etl/__init__.py", task_module(value))

    pack(1)
    bundle = await registry.register(path)
    good = bundle.current
    pack(2)
    whole = path.read_bytes()
    if damage == "half a module":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("etl/__init__.py", task_module(2)[:-20])
    else:
        damaged = {
            "truncated": whole[: len(whole) // 2],
            "crc": whole.replace(b"return 2", b"return 3"),
            "empty": b"",
        }
        path.write_bytes(damaged[damage])
    with pytest.raises((BundleRefusedError, BundleLoadError)):
        await registry.reload("etl")
    assert bundle.current is good
    assert bundle.error
    path.write_bytes(whole)
    await registry.reload("etl")
    assert bundle.error is None
    assert registry.find("etl.Job").cls().run(None) == 2


async def test_a_full_or_read_only_disk_is_an_error_and_changes_nothing(registry, tmp_path, monkeypatch):
    from scattersphere.registry.snapshots import store as content

    file = write(tmp_path, {"a.py": task_module(1)}) / "a.py"
    bundle = await registry.register(file)

    def full(*_):
        raise OSError(28, "No space left on device")

    file.write_text(task_module(2))
    with monkeypatch.context() as patch:
        patch.setattr(content, "_write", full)
        with pytest.raises(BundleRefusedError, match="No space left"):
            await registry.reload("a")
    assert registry.find("a.Job").cls().run(None) == 1
    await registry.reload("a")
    assert bundle.error is None

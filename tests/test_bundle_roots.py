"""Folders whose bundles are adopted as they come and go. On asyncio and on trio."""

from __future__ import annotations

import shutil
import time
import zipfile

import anyio.to_thread
import pytest
from livebundles import QUICK, live, replace, task

from scattersphere import Server, WatchDelays
from scattersphere.registry.folders import bundles_in

pytestmark = pytest.mark.anyio


def fill(root):
    """Put one bundle of each kind into a folder, and what is none."""
    root.mkdir(exist_ok=True)
    (root / "module.py").write_text(task("module"))
    (root / "package").mkdir()
    (root / "package" / "__init__.py").write_text(task("package"))
    (root / "folder").mkdir()
    (root / "folder" / "jobs.py").write_text(task("folder"))
    for name in ("archive.zip", "wheel-1.0-py3-none-any.whl"):
        with zipfile.ZipFile(root / name, "w") as archive:
            archive.writestr(name.split(".")[0].split("-")[0] + ".py", task(name))
    for name in (".hidden.py", "backup.py~", "notes.txt", "_private.py", ".module.py.swp", "half.zip.part"):
        (root / name).write_text("no bundle")
    for name in ("__pycache__", ".git", "empty"):
        (root / name).mkdir()
        (root / name / "x.txt").touch()


KINDS = ["archive", "folder", "module", "package", "wheel"]


def test_bundles_are_told_from_what_else_lies_in_a_folder(tmp_path):
    fill(tmp_path / "root")
    assert [path.name for path in bundles_in(tmp_path / "root")] == [
        "archive.zip",
        "folder",
        "module.py",
        "package",
        "wheel-1.0-py3-none-any.whl",
    ]


@pytest.mark.parametrize("watch", [QUICK, False])
async def test_what_lies_in_the_roots_is_registered_when_the_server_has_been_entered(tmp_path, watch):
    fill(tmp_path / "root")
    async with Server(bundle_roots=[tmp_path / "root"], watch=watch) as server:
        assert sorted(server.registry.bundles) == KINDS
        assert all(bundle.current for bundle in server.registry.bundles.values())


async def test_what_is_dropped_in_later_is_adopted_and_what_is_removed_is_let_go(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    async with live(root) as at:
        fill(root)
        await at.until(lambda: sorted(at.loads) == KINDS)
        shutil.rmtree(root / "package")
        (root / "archive.zip").unlink()
        await at.until(lambda: sorted(at.server.registry.bundles) == ["folder", "module", "wheel"])
        (root / "archive.zip").write_bytes((root / "wheel-1.0-py3-none-any.whl").read_bytes())
        await at.until_value("wheel-1.0-py3-none-any.whl", "archive")


async def test_what_was_adopted_is_watched_as_if_it_had_been_registered(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live(tmp_path) as at:
        for value in (2, 3):
            replace(tmp_path / "a.py", task(value))
            await at.until_value(value)


async def test_a_root_that_is_removed_and_created_anew_is_adopted_from_anew(tmp_path):
    root = tmp_path / "root"
    fill(root)
    async with live(root) as at:
        for _ in range(2):
            shutil.rmtree(root)
            await at.until(lambda: not at.server.registry.bundles)
            root.mkdir()
            (root / "again.py").write_text(task("again"))
            await at.until_value("again", "again")


async def test_a_root_that_comes_after_the_server_is_adopted(tmp_path):
    async with live(tmp_path / "deep" / "root") as at:
        root = tmp_path / "deep" / "root"
        assert dict(at.server.problems) == {root: f"{root}: there is no such folder"}
        (tmp_path / "deep" / "root").mkdir(parents=True)
        (tmp_path / "deep" / "root" / "a.py").write_text(task(1))
        await at.until_value(1)
        assert not at.server.problems


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_archive_that_is_copied_into_a_root_slowly_is_adopted_when_it_is_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("etl.py", task("whole"))
    content = (tmp_path / "whole.zip").read_bytes()
    root = tmp_path / "root"
    root.mkdir()
    async with live(root, watch=WatchDelays(settle=0.3)) as at:

        def copy():
            with (root / "etl.zip").open("wb") as stream:
                for start in range(0, len(content), len(content) // 10):
                    stream.write(content[start : start + len(content) // 10])
                    stream.flush()
                    time.sleep(0.05)

        await anyio.to_thread.run_sync(copy)
        await at.until_value("whole", "etl")


async def test_a_bundle_that_does_not_load_is_listed_with_its_error_until_it_is_mended(tmp_path):
    (tmp_path / "a.py").write_text("class Broken(:\n")
    async with live(tmp_path) as at:
        bundle = at.server.registry.bundles["a"]
        assert bundle.current is None
        assert "SyntaxError" in bundle.error
        assert not bundle.tasks
        with pytest.raises(LookupError, match=r"bundle a has not loaded.*SyntaxError"):
            at.server.registry.find("a.Job", "a")
        (tmp_path / "a.py").write_text(task(1))
        await at.until_value(1)
        assert bundle.error is None


async def test_two_files_that_give_the_same_name_are_reported_and_the_first_one_stands(tmp_path):
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "a.py").write_text(task(root))
    async with live(tmp_path / "one", tmp_path / "two") as at:
        assert at.value() == "one"
        assert f"already, from {tmp_path / 'one' / 'a.py'}" in at.server.problems[tmp_path / "two" / "a.py"]
        (tmp_path / "one" / "a.py").unlink()  # the other one has waited for this
        await at.until_value("two")
        assert not at.server.problems


async def test_a_file_whose_name_can_name_no_bundle_is_reported(tmp_path):
    (tmp_path / "0-1.zip").touch()
    async with live(tmp_path) as at:
        assert "no bundle name can be made" in at.server.problems[tmp_path / "0-1.zip"]


async def test_a_bundle_of_a_root_that_is_deregistered_stays_away_until_its_file_is_put_there_anew(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live(tmp_path) as at:
        await at.server.deregister("a")
        (tmp_path / "a.py").write_text(task(2))
        (tmp_path / "b.py").write_text(task("b"))
        await at.until_value("b", "b")
        assert "a" not in at.server.registry.bundles
        (tmp_path / "a.py").unlink()
        (tmp_path / "c.py").write_text(task("c"))
        await at.until_value("c", "c")
        (tmp_path / "a.py").write_text(task(3))
        await at.until_value(3)


async def test_a_bundle_of_a_root_that_is_registered_by_hand_is_the_adopted_one(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    async with live(tmp_path) as at:
        adopted = at.server.registry.bundles["a"]
        assert await at.server.register(tmp_path / "a.py") is adopted
        (tmp_path / "late.py").write_text(task("late"))
        late = await at.server.register(tmp_path / "late.py")  # before it has settled
        await at.until_settled(tmp_path)
        assert at.server.registry.bundles["late"] is late
        assert not at.server.problems


async def test_roots_that_are_not_adopted_only_say_what_a_definition_may_name(tmp_path):
    (tmp_path / "a.py").write_text(task(1))
    (tmp_path / "other.py").write_text("raise SystemExit('not asked for')")
    (tmp_path / "j.json").write_text(
        '{"name": "j", "bundles": {"a": "a.py"}, "tasks": {"t": {"task": "a.Job"}}}'
    )
    async with live(tmp_path, adopt=False) as at:
        assert not at.server.registry.bundles
        await at.server.load(tmp_path / "j.json")
        assert list(at.server.registry.bundles) == ["a"]
        assert not at.server.unresolved

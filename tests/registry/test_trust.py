"""May this code be loaded? One rule for every way on which code comes in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from bundlefiles import task_module
from patience import PATIENCE

from scattersphere import EventKind, Server
from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots import scan
from scattersphere.registry.snapshots.scan import refuse_untrusted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of files mean nothing there")


@pytest.fixture
def root(tmp_path):
    folder = Path(os.path.realpath(tmp_path)) / "root"
    folder.mkdir(mode=0o755)
    (folder / "etl.py").write_text(task_module(1))
    (folder / "etl.py").chmod(0o644)
    return folder


def refusal(path, *roots):
    with pytest.raises(BundleRefusedError) as caught:
        refuse_untrusted(path, roots)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused_with_the_cure(root, mode):
    refuse_untrusted(root / "etl.py")
    (root / "etl.py").chmod(mode)
    assert "chmod go-w" in refusal(root / "etl.py")


def test_the_folder_that_it_lies_in_counts_unless_it_is_sticky(root):
    root.chmod(0o777)
    assert str(root) in refusal(root / "etl.py")
    root.chmod(0o1777)
    refuse_untrusted(root / "etl.py")


def test_in_a_root_every_folder_up_to_it_counts_and_those_above_do_not(root):
    deep = root / "team" / "etl"
    deep.mkdir(parents=True)
    root.parent.chmod(0o777)
    refuse_untrusted(deep, [root])
    (root / "team").chmod(0o777)
    assert str(root / "team") in refusal(deep, root)
    (root / "team").chmod(0o755)
    root.chmod(0o777)
    assert str(root) in refusal(deep, root)


def test_what_stands_in_a_root_must_really_lie_in_one(root, tmp_path):
    (tmp_path / "outside.py").write_text("")
    (root / "out.py").symlink_to(tmp_path / "outside.py")
    (root / "up").symlink_to("..")
    (root / "itself").symlink_to(".")
    (root / "in.py").symlink_to("etl.py")
    for name in ("out.py", "up", "itself"):
        assert "leads out" in refusal(root / name, root)
    refuse_untrusted(root / "in.py", [root])
    refuse_untrusted(root / "out.py", [root, Path(os.path.realpath(tmp_path))])
    refuse_untrusted(root / "out.py")  # a path that the host names itself


@pytest.mark.parametrize("roots", [False, True])
def test_the_folder_of_each_link_on_the_way_counts_as_the_folder_of_a_file_does(root, roots):
    """Who may write there may let the link lead to other code."""
    (root / "shared").mkdir(mode=0o755)
    (root / "shared" / "current").symlink_to(root / "release")
    (root / "release").symlink_to("r7")
    (root / "r7").mkdir(mode=0o755)
    (root / "r7" / "etl.py").write_text("")
    (root / "r7" / "etl.py").chmod(0o644)
    (root / "etl").symlink_to("shared/current/etl.py")
    given = [root] if roots else []
    for path in (root / "etl", root / "shared" / "current" / "etl.py", root / "shared" / "current"):
        refuse_untrusted(path, given)
        (root / "shared").chmod(0o777)
        assert str(root / "shared") in refusal(path, *given)
        (root / "shared").chmod(0o1777)
        refuse_untrusted(path, given)
        (root / "shared").chmod(0o755)


@pytest.mark.anyio
async def test_on_a_file_system_that_nobody_may_write_open_modes_harm_nobody(root, monkeypatch):
    """The volumes that Kubernetes makes of a ConfigMap are such: mode 0777, and mounted read-only."""
    data = root / "..2026"
    data.mkdir(mode=0o777)
    (root / "etl.py").rename(data / "etl.py")
    (root / "..data").symlink_to("..2026")
    (root / "etl.py").symlink_to("..data/etl.py")
    for place in (root, data, data / "etl.py"):
        place.chmod(0o777)
    assert "chmod" in refusal(root / "etl.py")
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    for path, name in ((root / "etl.py", "one"), (data, "two")):
        async with Server(watch=False) as server:
            bundle = await server.register(path, name=name)
            assert list(bundle.tasks) == ["etl.Job"]
    async with Server(bundle_roots=[root], watch=False) as server:
        assert list(server.registry.bundles) == ["etl"]
        assert not server.problems


def test_devices_pipes_and_sockets_are_no_code(root):
    os.mkfifo(root / "pipe.py")
    assert "pipe" in refusal(root / "pipe.py")
    (root / "zero.py").symlink_to("/dev/zero")
    assert "device" in refusal(root / "zero.py")
    with pytest.raises(FileNotFoundError):
        refuse_untrusted(root / "missing.py")


def test_a_group_of_one_user_alone_is_nobody_else(root, monkeypatch):
    (root / "etl.py").chmod(0o664)
    monkeypatch.setattr(scan, "_is_private_group", lambda user, group: True)
    refuse_untrusted(root / "etl.py")
    (root / "etl.py").chmod(0o646)
    assert "chmod" in refusal(root / "etl.py")


@pytest.mark.parametrize(
    ("user", "group", "members", "private"),
    [
        ((1000, "ada"), (1000, "ada"), [], True),
        ((1000, "ada"), (1000, "ada"), ["ada"], True),
        ((1000, "ada"), (1007, "ada"), [], True),
        ((1000, "ada"), (1000, "ada"), ["ada", "bob"], False),
        ((1000, "ada"), (50, "staff"), [], False),
        ((1000, None), (1000, None), [], True),
        ((1000, None), (50, "staff"), [], False),
        ((0, "root"), (0, "root"), [], False),
    ],
)
def test_a_private_group_is_that_of_the_user_without_other_members(
    monkeypatch, user, group, members, private
):
    import grp
    import pwd

    def known(entry):
        if entry[1] is None:
            raise KeyError(entry[0])
        return SimpleNamespace(pw_name=entry[1], gr_name=entry[1], gr_mem=members)

    monkeypatch.setattr(pwd, "getpwuid", lambda number: known(user))
    monkeypatch.setattr(grp, "getgrgid", lambda number: known(group))
    assert scan._is_private_group.__wrapped__(user[0], group[0]) is private


# ---------------------------------------------------------------- every way asks the same rule


def bundle(root):
    shutil.rmtree(root / "pkg", ignore_errors=True)
    (root / "pkg").mkdir(mode=0o755)
    (root / "pkg" / "job.py").write_text(task_module(1))
    (root / "pkg" / "job.py").chmod(0o644)
    return root / "pkg"


def open_to_all(path, spot):
    (path / "job.py" if spot == "file inside" else path).chmod(0o666 if spot == "file inside" else 0o777)


SPOTS = ["file inside", "folder itself"]


@pytest.mark.anyio
@pytest.mark.parametrize("spot", SPOTS)
async def test_register_refuses_what_others_may_write(root, spot):
    path = bundle(root)
    open_to_all(path, spot)
    async with Server() as server:
        with pytest.raises(BundleRefusedError, match="others than its owner"):
            await server.register(path, watch=False)
        assert not server.registry.bundles


@pytest.mark.anyio
@pytest.mark.parametrize("spot", SPOTS)
async def test_reload_refuses_what_others_may_write_by_now_and_the_last_good_version_stays(root, spot):
    path = bundle(root)
    async with Server() as server:
        before = (await server.register(path, watch=False)).current
        (path / "job.py").write_text(task_module(2))
        open_to_all(path, spot)
        with pytest.raises(BundleRefusedError, match="others than its owner"):
            await server.reload("pkg")
        assert server.registry.bundles["pkg"].current is before


@pytest.mark.anyio
@pytest.mark.parametrize("watch", [True, False])
@pytest.mark.parametrize("spot", SPOTS)
async def test_a_watched_folder_refuses_what_others_may_write(root, spot, watch):
    open_to_all(bundle(root), spot)
    async with Server(bundle_roots=[root], watch=watch) as server:
        assert "others than its owner" in server.registry.bundles["pkg"].error
        assert server.registry.bundles["etl"].error is None


@pytest.mark.anyio
async def test_a_watched_folder_refuses_links_out_of_the_roots_and_says_so(root, tmp_path):
    (tmp_path / "outside.py").write_text(task_module(1))
    (root / "out.py").symlink_to(tmp_path / "outside.py")
    async with Server(bundle_roots=[root], watch=False) as server:
        assert "leads out of the bundle roots" in server.registry.bundles["out"].error


@pytest.mark.anyio
async def test_what_is_closed_to_others_again_is_loaded_without_a_word_more(root):
    path = bundle(root)
    open_to_all(path, "file inside")
    async with Server(bundle_roots=[root]) as server:
        assert server.registry.bundles["pkg"].error
        with anyio.fail_after(PATIENCE):
            (path / "job.py").chmod(0o644)
            async for event in server.events():
                if event.kind is EventKind.BUNDLE_LOADED and event.bundle == "pkg":
                    break
        assert server.registry.bundles["pkg"].current

"""Where snapshots lie, and what becomes of them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scattersphere.registry.snapshots import store as store_module
from scattersphere.registry.snapshots.store import SnapshotStore, user_folder


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_store_is_private_and_vanishes_when_closed(tmp_path):
    store = SnapshotStore()
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.folder.parent.stat().st_mode) == 0o700
    (store.folder / "etl_g1").mkdir()
    store.close()
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_forgotten_vanishes_too(tmp_path):
    store = SnapshotStore()
    del store
    assert list(tmp_path.iterdir()) == []


def test_the_store_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not():
    program = (
        "import os; from scattersphere.registry.snapshots.store import SnapshotStore; s = SnapshotStore(); "
        "(s.folder / 'x').mkdir(); print(s.folder, flush=True); {end}"
    )

    def start(end):
        return subprocess.Popen(
            [sys.executable, "-c", program.format(end=end)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )

    with start("os.kill(os.getpid(), 9)") as dead, start("input()") as living:
        dead_folder = Path(dead.stdout.readline().strip().decode())
        living_folder = Path(living.stdout.readline().strip().decode())
        dead.wait()
        assert living_folder.exists()
        store = SnapshotStore()
        assert not dead_folder.exists()
        assert living_folder.exists()
        living.communicate(b"\n")
    store.close()
    assert not user_folder().exists()


@pytest.mark.parametrize("obstacle", ["open folder", "link", "file"])
def test_a_folder_that_is_not_private_is_not_used(tmp_path, obstacle):
    home = user_folder()
    if obstacle == "open folder":
        home.mkdir()
        home.chmod(0o777)
    elif obstacle == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        home.symlink_to(tmp_path / "elsewhere")
    else:
        home.write_text("")
    store = SnapshotStore()
    assert store.folder.parent == tmp_path
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    store.close()


def test_a_forked_child_does_not_delete_its_parents_files():
    store = SnapshotStore()
    child = os.fork()
    if child == 0:
        store.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert store.folder.exists()
    assert store_module._try_lock(store.folder / "lock") is None, "the parent's lock still holds"
    store.close()


def test_the_last_store_does_not_take_the_folder_away_while_another_process_makes_one_in_it():
    store = SnapshotStore()
    with (
        store_module._home() as home
    ):  # where another process stands between looking at the folder and using it
        store.close()
        assert home.is_dir()
        (home / "a store").mkdir()
        (home / "a store").rmdir()
    SnapshotStore().close()
    assert not user_folder().exists()

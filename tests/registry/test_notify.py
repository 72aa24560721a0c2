"""Where one must listen to hear of each change to a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scattersphere.registry.snapshots.scan import is_unwatched
from scattersphere.watching.notify import ANY, targets_of


@pytest.fixture
def root(tmp_path):
    return Path(os.path.realpath(tmp_path))


def test_a_file_is_heard_of_in_its_folder_and_the_folders_other_files_are_not(root):
    (root / "a.py").touch()
    assert targets_of(root / "a.py") == {(str(root), "a.py")}


def test_a_folder_is_heard_of_by_itself_and_with_all_that_is_in_it(root):
    (root / "etl" / "deep").mkdir(parents=True)
    (root / "etl" / "__pycache__").mkdir()
    (root / "etl" / ".git").mkdir()
    assert targets_of(root / "etl", is_unwatched) == {
        (str(root), "etl"),
        (str(root / "etl"), ANY),
        (str(root / "etl" / "deep"), ANY),
    }


def test_each_link_on_the_way_is_heard_of(root):
    (root / "releases" / "1").mkdir(parents=True)
    (root / "releases" / "1" / "a.py").touch()
    (root / "current").symlink_to("releases/1")
    assert targets_of(root / "current" / "a.py") == {
        (str(root), "current"),
        (str(root / "releases" / "1"), "a.py"),
    }


def test_links_behind_links_are_followed_as_in_a_kubernetes_volume(root):
    (root / "..v1").mkdir()
    (root / "..v1" / "a.py").touch()
    (root / "..data").symlink_to("..v1")
    (root / "a.py").symlink_to("..data/a.py")
    assert targets_of(root / "a.py") == {
        (str(root), "a.py"),
        (str(root), "..data"),
        (str(root / "..v1"), "a.py"),
    }


def test_an_absolute_link_and_one_that_goes_up_lead_to_the_real_place(root):
    (root / "real").mkdir()
    (root / "real" / "a.py").touch()
    (root / "up").mkdir()
    (root / "up" / "a.py").symlink_to("../real/a.py")
    (root / "absolute.py").symlink_to(root / "real" / "a.py")
    assert (str(root / "real"), "a.py") in targets_of(root / "up" / "a.py")
    assert (str(root / "real"), "a.py") in targets_of(root / "absolute.py")


@pytest.mark.parametrize("missing", ["gone.py", "gone/deep/a.py"])
def test_of_a_path_that_is_missing_the_first_missing_name_is_heard_of(root, missing):
    assert targets_of(root / missing) == {(str(root), missing.split("/")[0])}


def test_links_in_a_circle_end(root):
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert {(str(root), "a"), (str(root), "b")} <= targets_of(root / "a")

"""Reading bundles: kinds, names, limits, and what is refused."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path

import pytest

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots import snapshot as sources
from scattersphere.registry.snapshots.scan import SourceLimits, signature
from scattersphere.registry.snapshots.snapshot import BundleKind, check_name, default_name, take_snapshot


def snapshot(path, tmp_path, name="b", **limits):
    return take_snapshot(
        Path(path), tmp_path / "snap" / str(os.urandom(4).hex()), name=name, limits=SourceLimits(**limits)
    )


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "etl"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sub/deep.py").write_text("x = 1")
    return folder


def test_each_kind_is_told_by_what_stands_at_the_path(tmp_path, folder):
    assert snapshot(folder, tmp_path).kind is BundleKind.PACKAGE
    assert snapshot(folder / "sub", tmp_path).kind is BundleKind.FOLDER
    assert snapshot(folder / "sub/deep.py", tmp_path).kind is BundleKind.MODULE
    for ending, kind in ((".zip", BundleKind.ZIP), (".whl", BundleKind.WHEEL)):
        path = tmp_path / f"etl{ending}"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("etl/__init__.py", "")
        assert snapshot(path, tmp_path).kind is kind
    (tmp_path / "etl.jar").write_text("")
    with pytest.raises(BundleRefusedError, match=r"a \.py file, a folder, a \.zip or a \.whl"):
        snapshot(tmp_path / "etl.jar", tmp_path)
    with pytest.raises(BundleRefusedError, match="cannot be read"):
        snapshot(tmp_path / "nothing.py", tmp_path)


def test_the_digest_is_that_of_the_content_alone(tmp_path, folder):
    first = snapshot(folder, tmp_path).digest
    os.utime(folder / "sub/deep.py", (1, 1))
    (folder / "sub/deep.py").chmod(0o600)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/deep.cpython-311.pyc").write_bytes(b"")
    (folder / "sub/.deep.py.swp").write_text("")
    (folder / "sub/deep.py~").write_text("")
    assert snapshot(folder, tmp_path).digest == first
    with zipfile.ZipFile(tmp_path / "etl.zip", "w") as archive:
        archive.writestr("etl/sub/deep.py", "x = 1")
        archive.writestr("etl/__init__.py", "")
    assert snapshot(tmp_path / "etl.zip", tmp_path).digest == first
    (folder / "sub/deep.py").write_text("x = 2")
    assert snapshot(folder, tmp_path).digest != first


def test_a_file_that_moved_is_another_content(tmp_path, folder):
    first = snapshot(folder, tmp_path).digest
    (folder / "sub/deep.py").rename(folder / "sub/other.py")
    assert snapshot(folder, tmp_path).digest != first


def test_a_link_inside_is_followed_and_one_that_leads_out_is_refused(tmp_path, folder):
    (folder / "..data").mkdir()
    (folder / "..data/real.py").write_text("y = 1")
    (folder / "linked.py").symlink_to("..data/real.py")  # as Kubernetes mounts a ConfigMap
    assert "etl/linked.py" in snapshot(folder, tmp_path).files
    (tmp_path / "secret").write_text("")
    (folder / "sub/out.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleRefusedError, match=r"sub/out\.txt: a link that leads out"):
        snapshot(folder, tmp_path)


def test_a_folder_that_is_a_link_itself_is_followed_and_keeps_its_name(tmp_path, folder):
    (tmp_path / "current").symlink_to(folder)
    assert "current/sub/deep.py" in snapshot(tmp_path / "current", tmp_path).files


def test_a_loop_of_links_is_refused(tmp_path, folder):
    (folder / "sub/again").symlink_to(folder)
    with pytest.raises(BundleRefusedError, match="loop"):
        snapshot(folder, tmp_path)


def test_pipes_sockets_and_devices_are_refused(tmp_path, folder):
    os.mkfifo(folder / "pipe.py")
    with pytest.raises(BundleRefusedError, match=r"pipe\.py: not a regular file"):
        snapshot(folder, tmp_path)
    with pytest.raises(BundleRefusedError, match="not a regular file"):
        snapshot(folder / "pipe.py", tmp_path)
    (folder / "pipe.py").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        with pytest.raises(BundleRefusedError, match="not a regular file"):
            snapshot(folder, tmp_path)


def test_limits_hold_for_folders(tmp_path, folder):
    with pytest.raises(BundleRefusedError, match="more than 2 files"):
        snapshot(folder, tmp_path, entries=2)
    with pytest.raises(BundleRefusedError, match="larger than the limit"):
        snapshot(folder, tmp_path, unpacked=4)
    with pytest.raises(BundleRefusedError, match="more than 1 folders deep"):
        snapshot(folder, tmp_path, depth=1)


def test_case_clashes_are_refused_in_folders_too(tmp_path, folder):
    (folder / "Sub").mkdir()
    (folder / "Sub/x.py").write_text("")
    with pytest.raises(BundleRefusedError, match="differ only in case"):
        snapshot(folder, tmp_path)


def test_a_bundle_that_is_written_to_meanwhile_is_read_again(tmp_path, folder, monkeypatch):
    read, writes = sources._read, iter(range(2))

    def read_and_write(*args):
        found = read(*args)
        for number in writes:
            (folder / "sub/deep.py").write_text(f"x = {number}" * 2)
            break
        return found

    monkeypatch.setattr(sources, "_read", read_and_write)
    found = snapshot(folder, tmp_path)
    assert (found.folder / "etl/sub/deep.py").read_text() == "x = 1x = 1"


def test_a_bundle_that_never_holds_still_is_refused(tmp_path, folder, monkeypatch):
    read = sources._read

    def read_and_write(*args):
        found = read(*args)
        (folder / "sub/deep.py").write_text(os.urandom(4).hex())
        return found

    monkeypatch.setattr(sources, "_read", read_and_write)
    with pytest.raises(BundleRefusedError, match="is being written to"):
        snapshot(folder, tmp_path)


def test_a_signature_sees_a_write_that_puts_size_and_time_back(tmp_path, folder):
    file = folder / "sub/deep.py"
    before, times = signature(folder), file.stat()
    file.write_text("x = 2")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert signature(folder) != before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("wordcount.py", "wordcount"),
        ("My Etl.zip", "my_etl"),
        ("etl-1.2-py3-none-any.whl", "etl"),
        ("2026_report.py", "report"),
        ("a.b", "a_b"),
    ],
)
def test_names_are_derived_from_file_names(file, name):
    assert default_name(Path("/x") / file) == name
    check_name(name)


@pytest.mark.parametrize("name", ["", "Etl", "1a", "a" * 65, "a\n", "ä", "a.b", "-a", "a/b"])
def test_bad_names_are_refused(name):
    with pytest.raises(BundleRefusedError, match="bundle name"):
        check_name(name)


@pytest.mark.parametrize("name", ["my-script.py", "class.py", "1a.py"])
def test_a_module_that_cannot_be_imported_is_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(BundleRefusedError, match="no name for a Python module"):
        snapshot(tmp_path / name, tmp_path)


def test_a_file_over_the_limit_is_not_even_read(tmp_path, folder, monkeypatch):
    (tmp_path / "a.py").write_text("x" * 1_000)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("read"))
    with pytest.raises(BundleRefusedError, match="larger than the limit"):
        take_snapshot(tmp_path / "a.py", folder, name="a", limits=SourceLimits(unpacked=999))

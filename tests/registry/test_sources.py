"""Reading bundles: kinds, names, limits, and what is refused."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path

import pytest

from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots import snapshot as sources
from scattersphere.registry.snapshots.scan import IgnorePatterns, SourceLimits, signature
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


def test_a_virtual_environment_is_left_out_whatever_it_is_called(tmp_path, folder):
    before = snapshot(folder, tmp_path)
    for name in ("venv", "sub/env-3.12"):
        (folder / name / "bin").mkdir(parents=True)
        (folder / name / "bin/python").symlink_to("/usr/bin/env")
        (folder / name / "pyvenv.cfg").write_text("home = /usr/bin")
    after = snapshot(folder, tmp_path)
    assert after.digest == before.digest
    assert "venv (a virtual environment)" in after.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "data.sqlite3",
        "x.db",
        "x.db-wal",
        "x.db-shm",
        "x.db-journal",
        "app.log",
        "app.log.1",
        "nohup.out",
        "x.pid",
        "__pycache__/a.pyc",
        ".git/index",
        "CVS/Root",
        "#a.py#",
        "4913",
        "a.py.bak",
        "a.py.orig",
        "a.py___jb_tmp___",
    ],
)
def test_what_is_written_while_a_folder_lies_there_is_no_part_of_it(tmp_path, folder, name):
    before = snapshot(folder, tmp_path).digest
    for place in (folder / name, folder / "sub" / name):
        place.parent.mkdir(exist_ok=True)
        place.write_text("1")
    assert snapshot(folder, tmp_path).digest == before


def test_an_ignore_file_leaves_out_and_takes_back_in(tmp_path, folder):
    for name in (
        "words.db",
        "state.json",
        "sub/state.json",
        "cache/a.py",
        "sub/cache/b.py",
        "top.py",
        "deep/top.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("1")
    lines = ["# a comment", "", "!words.db", "state.json", "cache/", "/top.py"]
    (folder / ".scattersphereignore").write_text("\n".join(lines))
    found = snapshot(folder, tmp_path)
    assert sorted(found.files) == [
        *("etl/__init__.py", "etl/deep/top.py", "etl/sub/deep.py", "etl/words.db"),
    ]
    assert found.warnings == ()


def test_an_archive_is_taken_whole_but_for_what_its_ignore_file_says(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in ("job.py", "lookup.db", "notes.log", "big/x.bin"):
            archive.writestr(name, "1")
        archive.writestr(".scattersphereignore", "big/\n*.log\n")
    assert sorted(snapshot(tmp_path / "b.zip", tmp_path).files) == ["job.py", "lookup.db"]


@pytest.mark.parametrize(
    ("pattern", "left_out", "taken"),
    [
        ("*.csv", ["a.csv", "x/y/b.csv"], ["a.csv.gz", "csv"]),
        ("/a", ["a"], ["x/a"]),
        ("x/*.txt", ["x/a.txt"], ["x/y/a.txt", "y/x/a.txt"]),
        ("**/tmp1/*", ["tmp1/a", "x/y/tmp1/a"], ["tmp1"]),
        ("x/**", ["x/a", "x/y/z"], ["y/x"]),
        ("a?[0-9]", ["ab1"], ["a1", "abc", "a/1"]),
        ("[!a]b", ["xb"], ["ab"]),
        ("a.b", ["a.b"], ["aXb"]),
        ("a[b", ["a[b"], ["ab"]),
        ("[\\d]", ["\\", "d"], ["1"]),
    ],
)
def test_patterns_mean_what_they_mean_in_a_gitignore(pattern, left_out, taken):
    patterns = IgnorePatterns([pattern])
    assert [name for name in left_out if not patterns.leave_out(name)] == []
    assert [name for name in taken if patterns.leave_out(name)] == []


def test_data_that_changes_while_a_bundle_is_read_is_no_reason_to_refuse_its_code(
    tmp_path, folder, monkeypatch
):
    read, number = sources._read, iter(range(100))

    def read_and_write(*args):
        found = read(*args)
        (folder / "state.dat").write_text(str(next(number)) * 3)
        return found

    (folder / "state.dat").write_text("x")
    monkeypatch.setattr(sources, "_read", read_and_write)
    assert "state.dat changed while the bundle was read" in snapshot(folder, tmp_path).warnings[-1]


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


def test_pipes_and_devices_in_the_place_of_code_are_refused(tmp_path, folder):
    os.mkfifo(folder / "pipe.py")
    with pytest.raises(BundleRefusedError, match=r"pipe\.py: not a regular file"):
        snapshot(folder, tmp_path)
    with pytest.raises(BundleRefusedError, match="not a regular file"):
        snapshot(folder / "pipe.py", tmp_path)


def test_what_is_no_file_beside_the_code_is_left_out_with_a_word(tmp_path, folder):
    before = snapshot(folder, tmp_path)
    assert before.warnings == ()
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "out").symlink_to(tmp_path / "nowhere.py")
    (folder / "control\n.txt").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        after = snapshot(folder, tmp_path)
    assert after.digest == before.digest
    (warning,) = after.warnings
    assert warning.startswith("left out: ")
    assert "dangling (a link to nothing)" in warning
    assert "and 1 more" in warning


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


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "**" * 60 + "b", "*" * 200 + "b", "**/" * 30 + "b"])
def test_no_pattern_takes_longer_than_its_length_allows(pattern):
    """A regular expression of so many stars would be tried in more ways than there are seconds."""
    name = "/".join(["a" * 250] * 30)
    assert not IgnorePatterns([pattern]).leave_out_below(name)


def test_too_many_patterns_are_refused(tmp_path):
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "a.py").write_text("")
    (tmp_path / "etl" / ".scattersphereignore").write_text("x\n" * 1_001)
    with pytest.raises(BundleRefusedError, match=r"\.scattersphereignore: more than 1,000 lines"):
        signature(tmp_path / "etl")
